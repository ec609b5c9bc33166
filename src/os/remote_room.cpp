// SPDX-License-Identifier: MIT
// DetourRoom of remote_parent.hpp.
#include "os/remote_parent.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace pagesift::os {

namespace {

Error unsupported(pid_t thread, const std::string& reason, const std::string& hint = {}) {
    return {ErrorKind::unsupported, fmt::format("thread {}", thread), 0, hint, reason};
}

/// Where the kernel has put the vdso, from the auxiliary vector; 0: it has none.
std::uint64_t vdso_address(const Root& root, pid_t thread) {
    const auto auxv = root.read_text(fmt::format("proc/{}/auxv", thread));
    std::array<std::uint64_t, 2> pair{};
    for (std::size_t at = 0; at + sizeof pair <= auxv.text.size(); at += sizeof pair) {
        std::memcpy(pair.data(), auxv.text.data() + at, sizeof pair);
        if (pair[0] == AT_SYSINFO_EHDR) return pair[1];
    }
    return 0;
}

Error no_room(pid_t thread) {
    return unsupported(thread, "has no room behind its vdso",
                       "programs that were killed while they were at work on it have left their "
                       "instructions there, or the kernel's vdso fills its pages");
}

/// Of memory that cannot be read: it may be that of a process which has just been killed.
void expect_memory(const Fd& memory, pid_t thread) {
    std::uint8_t byte = 0;
    if (::pread(memory.get(), &byte, 1, ::getpagesize()) == 0) // fs/proc/base.c: mem_rw
        throw Error{ErrorKind::gone, fmt::format("thread {}", thread), ESRCH};
}

bool all_zero(const std::vector<std::uint8_t>& bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

/// Bytes behind a vdso.
constexpr std::uint64_t ample_room = 1200;

constexpr std::uint64_t align(std::uint64_t value, std::uint64_t to) {
    return (value + to - 1) / to * to;
}

} // namespace

/// Stands before the code.
struct DetourRoom::Mark {
    static constexpr std::uint64_t our_magic = 0x31'74'66'69'73'67'70'01; // "\1pgsift1"
    std::uint64_t magic = 0;
    std::uint32_t size = 0; ///< of this and the code
    std::int32_t thread = 0;
    std::uint64_t stack = 0; ///< the thread's stack pointer where it was
    bool is_ours() const { return magic == our_magic && size >= sizeof *this; }
};

DetourRoom::DetourRoom(const Root& root, pid_t thread)
    : root_(root), task_folder_(fmt::format("proc/{}/task", thread)) {
    const auto path = fmt::format("proc/{}/mem", thread);
    auto memory = root.open(path, O_RDWR);
    if (!memory.fd)
        throw Error{ErrorKind::denied, path, memory.error,
                    "needs the target's uid, or CAP_SYS_PTRACE and CAP_DAC_OVERRIDE"};
    memory_ = std::move(memory.fd);
    const std::uint64_t vdso = vdso_address(root, thread);
    Elf64_Ehdr header{};
    if (vdso == 0 || !read(vdso, &header, sizeof header) ||
        std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64) {
        expect_memory(memory_, thread);
        throw unsupported(thread, "has no 64-bit vdso");
    }
    // The section table is the last thing in the file; the mapping goes on to the page's end.
    const std::uint64_t file_end =
        vdso + header.e_shoff + std::uint64_t{header.e_shnum} * header.e_shentsize;
    begin_ = align(file_end, 16);
    last_ = align(file_end, static_cast<std::uint64_t>(::getpagesize()));
    const auto errand = arch::make_errand().code;
    // Several detours must have room beside it.
    const bool ample = last_ - begin_ >= ample_room;
    list_ = last_ - (ample ? most_list_bytes : least_list_bytes);
    errand_ = (list_ - errand.size()) / 16 * 16;
    end_ = errand_;
    // It may be what a killed program has left, but nobody else's.
    std::vector<std::uint8_t> there(errand.size());
    if (end_ <= begin_ || !read(errand_, there.data(), there.size()) ||
        (there != errand && !all_zero(there))) {
        expect_memory(memory_, thread);
        throw no_room(thread);
    }
}

bool DetourRoom::write_bytes(std::uint64_t address, const void* bytes, std::size_t count) const {
    return ::pwrite(memory_.get(), bytes, count, static_cast<off_t>(address)) ==
           static_cast<ssize_t>(count);
}

std::uint64_t DetourRoom::write_errand(const std::vector<std::uint8_t>& code) const {
    if (!write_bytes(errand_, code.data(), code.size()))
        throw Error{ErrorKind::failed, "memory of the target", errno};
    return errand_;
}

std::uint64_t DetourRoom::write_list(std::span<const std::byte> list) const {
    if (!write_bytes(list_, list.data(), list.size_bytes()))
        throw Error{ErrorKind::failed, "memory of the target", errno};
    return list_;
}

bool DetourRoom::read(std::uint64_t address, void* bytes, std::size_t count) const {
    return ::pread(memory_.get(), bytes, count, static_cast<off_t>(address)) ==
           static_cast<ssize_t>(count);
}

DetourRoom::Left DetourRoom::left() const {
    Left left;
    std::uint64_t size = 0;
    Mark mark;
    for (std::uint64_t at = begin_; at + sizeof mark <= end_; at += size) {
        if (!read(at, &mark, sizeof mark) || !mark.is_ours()) break;
        left.threads.push_back(mark.thread);
        size = align(mark.size, 16);
        left.full = at + 2 * size > end_;
    }
    return left;
}

bool DetourRoom::left_for_good(const Mark& mark, pid_t thread,
                               const arch::Registers& registers) const {
    if (mark.thread != thread)
        return root_.read_text(fmt::format("{}/{}/stat", task_folder_, mark.thread)).error ==
               ENOENT;
    // While it is on any detour of ours, this one may be where that leads back to.
    const std::uint64_t instruction = arch::instruction(registers);
    return (instruction < begin_ || instruction >= last_) && arch::stack(registers) == mark.stack;
}

std::uint64_t DetourRoom::take(std::uint64_t bytes, pid_t thread,
                               const arch::Registers& registers) {
    size_ = align(sizeof(Mark) + bytes, 16);
    std::vector<std::uint8_t> there;
    for (std::uint64_t at = begin_; at + size_ <= end_;) {
        there.resize(size_);
        if (!read(at, there.data(), there.size())) break;
        Mark mark;
        std::memcpy(&mark, there.data(), sizeof mark);
        if (all_zero(there) ||
            (mark.is_ours() && mark.size == size_ && left_for_good(mark, thread, registers))) {
            place_ = at;
            return at + sizeof(Mark);
        }
        if (!mark.is_ours()) break;
        at += align(mark.size, 16);
    }
    expect_memory(memory_, thread);
    throw no_room(thread);
}

void DetourRoom::write(const std::vector<std::uint8_t>& code, pid_t thread,
                       const arch::Registers& registers) const {
    const Mark mark{Mark::our_magic, static_cast<std::uint32_t>(size_), thread,
                    arch::stack(registers)};
    std::vector<std::uint8_t> bytes(size_);
    std::memcpy(bytes.data(), &mark, sizeof mark);
    std::memcpy(bytes.data() + sizeof mark, code.data(), code.size());
    if (!write_bytes(place_, bytes.data(), bytes.size()))
        throw Error{ErrorKind::denied, fmt::format("memory of thread {}", thread), errno};
}

void DetourRoom::clear() const {
    if (place_ == 0) return;
    const std::vector<std::uint8_t> zeroes(std::max(size_, last_ - errand_));
    // Nothing depends on it: what stays there is not run.
    (void)write_bytes(errand_, zeroes.data(), last_ - errand_);
    (void)write_bytes(place_, zeroes.data(), size_);
}

} // namespace pagesift::os
