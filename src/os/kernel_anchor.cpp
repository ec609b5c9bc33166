// SPDX-License-Identifier: MIT
#include "os/kernel_anchor.hpp"

#include "pagesift/abi.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

constexpr std::size_t page_bytes = 4096;

/// The number behind each @p name at the start of a line, blanks and colons aside.
template <class Sink>
void for_each_number(std::string_view text, std::string_view name, Sink&& sink) {
    while (!text.empty()) {
        auto line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        const auto skip = [&](std::string_view blanks) {
            line.remove_prefix(std::min(line.size(), line.find_first_not_of(blanks)));
        };
        skip(" \t");
        if (!line.starts_with(name)) continue;
        line.remove_prefix(name.size());
        skip(" \t:");
        std::uint64_t value = 0;
        if (std::from_chars(line.data(), line.data() + line.size(), value).ec == std::errc{})
            sink(value);
    }
}

/// As much of a file as shows the first of the machine's processors: making up the rest may take
/// the kernel milliseconds.
std::string read_first_processor() {
    const auto file = own_root().open("proc/cpuinfo", O_RDONLY);
    std::string text(16384, '\0');
    const auto n = file.fd ? ::read(file.fd.get(), text.data(), text.size()) : 0;
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    return text;
}

Fd make_memfd() {
    Fd fd{::memfd_create("pagesift", MFD_CLOEXEC)};
    if (!fd || ::ftruncate(fd.get(), page_bytes) != 0)
        throw Error{ErrorKind::failed, "memfd_create", errno};
    return fd;
}

} // namespace

std::uint64_t parse_frame_end(std::string_view zoneinfo) {
    // Of each zone, "spanned" comes before "start_pfn" (mm/vmstat.c: zoneinfo_show_print).
    std::vector<std::uint64_t> spans, starts;
    for_each_number(zoneinfo, "spanned ", [&](std::uint64_t n) { spans.push_back(n); });
    for_each_number(zoneinfo, "start_pfn:", [&](std::uint64_t n) { starts.push_back(n); });
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < std::min(spans.size(), starts.size()); ++i)
        end = std::max(end, starts[i] + spans[i]);
    return end;
}

std::optional<unsigned> parse_physical_bits(std::string_view cpuinfo) {
    std::optional<unsigned> bits;
    for_each_number(cpuinfo, "address sizes", [&](std::uint64_t n) {
        if (!bits && n <= 64) bits = static_cast<unsigned>(n);
    });
    return bits;
}

OwnThings::OwnThings()
    : pagemap_(own_root().open("proc/self/pagemap", O_RDONLY).fd),
      kpageflags_(own_root().open("proc/kpageflags", O_RDONLY).fd),
      memfd_(make_memfd()),
      page_(page_bytes, page_bytes),
      shared_(page_bytes, page_bytes) {
    if (!pagemap_) throw Error{ErrorKind::failed, "proc/self/pagemap", errno};
    // Random, so that no other page on the machine has the same bytes. Where locking is not
    // allowed, the page is unlikely enough to be paged out in this moment.
    ::mlock(page_.data(), page_bytes);
    if (::getrandom(page_.data(), page_bytes, 0) != static_cast<ssize_t>(page_bytes))
        throw Error{ErrorKind::failed, "getrandom", errno};
    // The memfd's page is mapped where a huge page was ruled out, or shmem_enabled=always would
    // make it one.
    if (::mmap(shared_.data(), page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
               memfd_.get(), 0) == MAP_FAILED)
        throw Error{ErrorKind::failed, "mmap", errno};
    ::madvise(shared_.data(), page_bytes, MADV_NOHUGEPAGE);
    shared_.data()[0] = 1;

    struct stat status {};
    if (::fstat(memfd_.get(), &status) != 0) throw Error{ErrorKind::failed, "fstat", errno};
    own_.pagemap_fd = pagemap_.get();
    own_.file_fd = own_.memfd = memfd_.get();
    own_.file_inode = status.st_ino;
    own_.page = page_.address();
    own_.page_bytes = std::as_bytes(std::span{page_.data(), page_bytes});
    own_.frame_end = parse_frame_end(own_root().read_text("proc/zoneinfo").text);
    own_.physical_bits = parse_physical_bits(read_first_processor()).value_or(own_.physical_bits);
    for_each_number(own_root().read_text("proc/meminfo").text,
                    "Unaccepted:", [&](std::uint64_t n) { own_.unaccepted_memory = n != 0; });
}

std::uint64_t OwnThings::frame_at(Address address) const {
    std::uint64_t entry = 0;
    if (read_words(pagemap_.get(), address.value / page_bytes, {&entry, 1}) != 1) return 0;
    return (entry & abi::PM_PRESENT) != 0 ? entry & abi::PM_PFRAME_MASK : 0;
}

void OwnThings::read_frames() {
    // Both are touched first, in case they were paged out.
    static_cast<volatile char*>(shared_.data())[0] = 1;
    static_cast<void>(static_cast<volatile char*>(page_.data())[0]);
    own_.memfd_frame = frame_at(shared_.address());
    own_.page_frame = frame_at(page_.address());
    if (own_.memfd_frame == 0 || own_.page_frame == 0)
        throw Error{ErrorKind::denied, "proc/self/pagemap", 0, "needs CAP_SYS_ADMIN",
                    "frame numbers are hidden"};
    own_.page_kpageflags.reset();
    std::uint64_t flags = 0;
    if (kpageflags_ && read_words(kpageflags_.get(), own_.page_frame, {&flags, 1}) == 1)
        own_.page_kpageflags = flags;
}

std::optional<std::uint64_t> find_file(walk::KernelMemory& memory, const walk::KernelLayout& layout,
                                       std::uint64_t own_task, int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return {};
    static constexpr unsigned tries = 3;
    for (unsigned i = 0; i < tries; ++i) {
        const auto file = walk::file_of(memory, layout, own_task, fd);
        if (!file) continue;
        const auto inode = walk::read_word(memory, *file + layout.file_f_inode);
        if (!inode) continue;
        const auto number = walk::read_word(memory, *inode + layout.inode_i_ino);
        if (number && *number == status.st_ino) return file;
    }
    return {};
}

std::optional<std::uint64_t> find_own_task(walk::KernelMemory& memory,
                                           const walk::KernelLayout& layout,
                                           std::span<const std::byte> copy) {
    const auto word_at = [&](std::size_t offset) -> std::optional<std::uint64_t> {
        std::uint64_t word = 0;
        if (offset > copy.size() || copy.size() - offset < sizeof word) return {};
        std::memcpy(&word, copy.data() + offset, sizeof word);
        return word;
    };
    if (!layout.task_struct_tasks) return {};
    const auto next = word_at(*layout.task_struct_tasks);
    if (!next) return {};
    // The next list_head's prev points back to ours: struct list_head is next, then prev.
    const auto own_list = walk::read_word(memory, *next + sizeof(std::uint64_t));
    if (!own_list) return {};
    const std::uint64_t task = *own_list - *layout.task_struct_tasks;
    for (const std::uint32_t member :
         {layout.task_struct_files, layout.task_struct_mm, *layout.task_struct_tasks}) {
        const auto known = word_at(member);
        const auto found = walk::read_word(memory, task + member);
        if (!known || !found || *known != *found || *known == 0) return {};
    }
    return task;
}

} // namespace pagesift::os
