// SPDX-License-Identifier: MIT
#include "os/bpf_reader.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <linux/capability.h>
#include <optional>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

constexpr const char* subject = "eBPF reader";
constexpr const char* privileges =
    "needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, in the initial user namespace, and no "
    "seccomp filter on bpf(2)";

// Documentation/arch/x86/x86_64/mm.rst
constexpr std::uint64_t lowest_of_four_levels = 0xffff'8000'0000'0000;
constexpr std::uint64_t lowest_of_five_levels = 0xff00'0000'0000'0000;

long bpf(bpf_cmd command, bpf_attr& attributes) {
    return ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

/// What bpftool shows: a user of the machine should see whose program it is.
void give_name(char (&name)[BPF_OBJ_NAME_LEN]) {
    static constexpr std::string_view shown = "pagesift_read";
    static_assert(shown.size() < BPF_OBJ_NAME_LEN);
    std::copy(shown.begin(), shown.end(), name);
}

OpenResult opened(long fd) { return {Fd{static_cast<int>(fd)}, fd < 0 ? errno : 0}; }

std::uint64_t address_of(const void* what) { return reinterpret_cast<std::uintptr_t>(what); }

bool has_effective(unsigned capability) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
    if (::syscall(SYS_capget, &header, sets) != 0) return false;
    return ((sets[capability / 32].effective >> (capability % 32)) & 1) != 0;
}

Error refusal(const char* what, int error) {
    const bool privileged = has_effective(CAP_SYS_ADMIN) || has_effective(CAP_BPF);
    if (error == EPERM && privileged && !has_effective(CAP_SYS_RESOURCE))
        return Error{ErrorKind::denied, std::string{subject} + ": " + what, error,
                     std::string{privileges} +
                         "; before Linux 5.11 also a higher limit of locked memory (ulimit -l)"};
    if (error == EPERM || error == EACCES)
        return Error{ErrorKind::denied, std::string{subject} + ": " + what, error, privileges};
    if (error == ENOSYS)
        return Error{ErrorKind::unsupported, std::string{subject} + ": " + what, error,
                     "the kernel was built without CONFIG_BPF_SYSCALL"};
    return Error{ErrorKind::unsupported, std::string{subject} + ": " + what, error,
                 "needs memory-mapped BPF maps and bpf_probe_read_kernel (Linux 5.10)"};
}

OpenResult make_map() {
    bpf_attr attributes{};
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = sizeof(std::uint32_t);
    attributes.value_size = sizeof(BpfArea);
    attributes.max_entries = 1;
    attributes.map_flags = BPF_F_MMAPABLE;
    give_name(attributes.map_name);
    return opened(bpf(BPF_MAP_CREATE, attributes));
}

/// A program, or errno; with @p log, also what the verifier has to say.
OpenResult load(std::span<const bpf_insn> program, bpf_prog_type type, std::span<char> log = {}) {
    bpf_attr attributes{};
    attributes.prog_type = type;
    attributes.insns = address_of(program.data());
    attributes.insn_cnt = static_cast<std::uint32_t>(program.size());
    attributes.license = address_of(bpf_program_licence);
    give_name(attributes.prog_name);
    if (type == BPF_PROG_TYPE_SYSCALL) attributes.prog_flags = BPF_F_SLEEPABLE;
    if (!log.empty()) {
        attributes.log_buf = address_of(log.data());
        attributes.log_size = static_cast<std::uint32_t>(log.size());
        attributes.log_level = 1;
    }
    return opened(bpf(BPF_PROG_LOAD, attributes));
}

/// The kernel says EINVAL for a helper that it does not hand out; only its log tells that from a
/// program that it does not understand.
Error load_refusal(std::span<const bpf_insn> program, bpf_prog_type type, int error) {
    std::string log(1 << 16, '\0');
    load(program, type, log);
    log.resize(std::strlen(log.c_str()));
    if (error != EINVAL || log.find("probe_read_kernel") == std::string::npos)
        return refusal("program", error);
    if (!has_effective(CAP_SYS_ADMIN) && !has_effective(CAP_PERFMON))
        return Error{ErrorKind::denied, subject, 0, privileges,
                     "the kernel does not let it read kernel memory"};
    return Error{ErrorKind::denied, subject, 0,
                 "lockdown=confidentiality forbids it; lockdown=integrity does not",
                 "the kernel does not let anyone read its memory"};
}

/// Kernels before 5.11 count maps and programs as locked memory, of which a process may have 64 KiB
/// unless it is told otherwise. What was counted may stay when the limit comes back.
class LockedMemoryLimit {
public:
    LockedMemoryLimit() {
        if (::getrlimit(RLIMIT_MEMLOCK, &before_) != 0) return;
        const rlimit none{RLIM_INFINITY, RLIM_INFINITY},
            highest{before_.rlim_max, before_.rlim_max};
        raised_ =
            ::setrlimit(RLIMIT_MEMLOCK, &none) == 0 || ::setrlimit(RLIMIT_MEMLOCK, &highest) == 0;
    }
    ~LockedMemoryLimit() {
        if (raised_) ::setrlimit(RLIMIT_MEMLOCK, &before_);
    }
    LockedMemoryLimit(const LockedMemoryLimit&) = delete;
    LockedMemoryLimit& operator=(const LockedMemoryLimit&) = delete;

private:
    rlimit before_{};
    bool raised_ = false;
};

} // namespace

BpfReader::BpfReader(Kind kind) : kind_(kind) {
    auto made = make_map();
    std::optional<LockedMemoryLimit> limit;
    if (made.error == EPERM) {
        limit.emplace();
        made = make_map();
    }
    if (!made.fd) throw refusal("map", made.error);
    const Fd& map = made.fd;
    void* const shared = ::mmap(nullptr, sizeof(BpfArea), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_POPULATE, map.get(), 0);
    if (shared == MAP_FAILED) throw refusal("map", errno);
    area_.reset(static_cast<BpfArea*>(shared));
    // A child has no use for it.
    ::madvise(shared, sizeof(BpfArea), MADV_DONTFORK);

    const auto program = bpf_program(map.get());
    OpenResult loaded;
    auto type = BPF_PROG_TYPE_SYSCALL;
    if (kind_ != Kind::raw_tracepoint) {
        loaded = load(program, type);
        if (loaded.fd) kind_ = Kind::system_call;
    }
    if (!loaded.fd && kind_ != Kind::system_call) {
        type = BPF_PROG_TYPE_RAW_TRACEPOINT;
        loaded = load(program, type);
        if (loaded.fd) kind_ = Kind::raw_tracepoint;
    }
    if (!loaded.fd) throw load_refusal(program, type, loaded.error);
    program_ = std::move(loaded.fd);
    // User addresses, and with four levels also those between them and the kernel's, are refused
    // here: a kernel on a processor that could do five takes them for canonical and complains of
    // the fault (5.10, arch/x86/mm/maccess.c).
    const bool four_levels = caller().task >= lowest_of_four_levels;
    const auto lowest = four_levels ? lowest_of_four_levels : lowest_of_five_levels;
    bounds_[0] = {lowest, std::uint64_t{0} - lowest};
}

void BpfReader::Unmap::operator()(BpfArea* area) const { ::munmap(area, sizeof(BpfArea)); }

std::unique_ptr<BpfReader> BpfReader::clone() const {
    auto other = std::make_unique<BpfReader>(kind_);
    other->bounds_ = bounds_;
    return other;
}

bool BpfReader::may_read(const walk::Piece& piece) const {
    return std::any_of(bounds_.begin(), bounds_.end(), [&](const Bounds& bounds) {
        const std::uint64_t offset = piece.address - bounds.start;
        return offset < bounds.bytes && piece.bytes <= bounds.bytes - offset;
    });
}

std::size_t BpfReader::run() {
    // Nothing is handed over in a context: the program's answer is its return value and the area.
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<std::uint32_t>(program_.get());
    // Kernels copy and check as many bytes as they are told of, so no more than these.
    constexpr std::size_t bytes = offsetof(bpf_attr, test) + sizeof(attributes.test);
    if (::syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, bytes) != 0)
        throw Error{ErrorKind::failed, subject, errno};
    return attributes.test.retval;
}

BpfReader::Caller BpfReader::caller() {
    area_->pieces = 0;
    run();
    return {area_->task, static_cast<std::uint32_t>(area_->ids >> 32),
            static_cast<std::uint32_t>(area_->ids)};
}

walk::Copied BpfReader::read(std::span<const walk::Piece> pieces) {
    if (pieces.empty()) return {};
    // A piece too many or too long would be cut by the program's masks.
    std::size_t bytes = 0;
    bool fits = pieces.size() <= BpfArea::most_pieces;
    for (std::size_t i = 0; fits && i < pieces.size(); ++i) {
        // The kernel refuses address 0 as the user's and fills in the zeros.
        area_->requests[i] = {may_read(pieces[i]) ? pieces[i].address : 0, pieces[i].bytes,
                              static_cast<std::uint32_t>(bytes)};
        bytes += pieces[i].bytes;
        fits = pieces[i].bytes <= BpfArea::longest_piece && bytes <= BpfArea::most_bytes;
    }
    if (!fits) throw Error{ErrorKind::failed, subject, 0, "", "more was asked than one call takes"};
    // What an earlier call left must not pass for this one's answer.
    std::memset(area_->good, 0, pieces.size());
    area_->pieces = pieces.size();
    if (run() != pieces.size())
        throw Error{ErrorKind::failed, subject, 0, "", "it stopped before the last piece"};
    return {{area_->copied, bytes}, {area_->good, pieces.size()}};
}

} // namespace pagesift::os
