// SPDX-License-Identifier: MIT
#include "os/probe.hpp"

#include "os/file.hpp"
#include "os/scan.hpp"
#include "pagesift/abi.hpp"

#include <bit>
#include <cerrno>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::os {

Scratch::Scratch(std::size_t bytes, std::size_t alignment, Huge huge)
    : raw_bytes_(bytes + alignment) {
    raw_ = ::mmap(nullptr, raw_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw_ == MAP_FAILED) throw Error{ErrorKind::failed, "mmap", errno};
    ::madvise(raw_, raw_bytes_, huge == Huge::never ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    const auto at = reinterpret_cast<std::uintptr_t>(raw_);
    aligned_ = reinterpret_cast<char*>((at + alignment - 1) & ~(std::uintptr_t{alignment} - 1));
}

Scratch::~Scratch() { ::munmap(raw_, raw_bytes_); }

namespace {

Fd open_own(const char* name) { return own_root().open(name, O_RDONLY).fd; }

std::size_t own_page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

std::optional<std::uint64_t> own_table_bytes() {
    const Fd status = open_own("proc/self/status");
    return procfs::parse_status(read_text(status.get()).text).vm_pte_bytes;
}

std::optional<std::uint64_t> own_entry(Address address) {
    const Fd pagemap = open_own("proc/self/pagemap");
    std::uint64_t entry = 0;
    if (read_words(pagemap.get(), address.value / own_page_size(), {&entry, 1}) != 1) return {};
    return entry;
}

struct OwnFlags {
    std::optional<std::uint64_t> flags; ///< empty: not shown, or not to be had this time
    bool shown = false;                 ///< whoever asks again may get them
};

/// kpageflags of the frame behind an own page.
OwnFlags own_flags(Address address) {
    const auto file = own_root().open("proc/kpageflags", O_RDONLY);
    if (file.error == ENOENT || file.error == EACCES || file.error == EPERM) return {};
    const auto entry = own_entry(address);
    if (entry && (*entry & abi::PM_PFRAME_MASK) == 0) return {};
    std::uint64_t flags = 0;
    if (!file.fd || !entry ||
        read_words(file.fd.get(), *entry & abi::PM_PFRAME_MASK, {&flags, 1}) != 1)
        return {{}, true};
    return {flags, true};
}

void reap(pid_t child) {
    while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
}

} // namespace

bool host_has_cachestat() {
    static const bool works = [] {
        const Fd fd{::memfd_create("pagesift", MFD_CLOEXEC)};
        abi::cachestat_range range{0, 4096};
        abi::cachestat answer{};
        return fd && ::syscall(abi::NR_cachestat, fd.get(), &range, &answer, 0u) == 0;
    }();
    return works;
}

bool host_has_pagemap_scan() {
    static const bool works = probe_pagemap_scan(abi::PAGE_IS_PRESENT);
    return works;
}

std::optional<bool> probe_frames_visible() {
    const Scratch page{own_page_size(), own_page_size()};
    page.data()[0] = 1;
    const auto entry = own_entry(page.address());
    if (!entry || !(*entry & abi::PM_PRESENT)) return {};
    return (*entry & abi::PM_PFRAME_MASK) != 0;
}

std::optional<bool> probe_ksm_flag() {
    const Scratch page{own_page_size(), own_page_size()};
    page.data()[0] = 1;
    const auto [flags, shown] = own_flags(page.address());
    // What could not be tried is not to be trusted.
    if (!flags) return shown ? std::optional{false} : std::nullopt;
    return (*flags & abi::kpf(abi::KPF_KSM)) == 0;
}

bool probe_exclusive_flag() {
    static const bool shown = [] {
        const Scratch page{own_page_size(), own_page_size()};
        page.data()[0] = 1;
        const auto exclusive = [&]() -> std::optional<bool> {
            const auto flags = own_flags(page.address()).flags;
            if (!flags) return {};
            return (*flags & abi::kpf(abi::KPF_OWNER_2)) != 0;
        };
        if (exclusive() != true) return false;
        // A child that shares the page takes the flag away, and does nothing else.
        const pid_t child = ::fork();
        if (child < 0) return false;
        if (child == 0) ::_exit(0);
        const auto still = exclusive();
        reap(child);
        return still == false;
    }();
    return shown;
}

std::optional<bool> probe_soft_dirty() {
    // A new mapping counts as written, so bit 55 is set on it wherever the kernel tracks it.
    const Scratch page{own_page_size(), own_page_size()};
    page.data()[0] = 1;
    const auto entry = own_entry(page.address());
    // What could not be tried is not to be trusted.
    return entry && (*entry & abi::PM_SOFT_DIRTY) != 0;
}

bool probe_pagemap_scan(std::uint64_t category) {
    const Fd pagemap = open_own("proc/self/pagemap");
    const Scratch page{own_page_size(), own_page_size()};
    const AddressRange range{page.address(), page.address() + Bytes{own_page_size()}};
    return pagemap && scan_pagemap(pagemap.get(), range, {0, 0, category, category},
                                   [](const auto&) { return true; }) == 0;
}

bool probe_procmap_query() {
    const Fd maps = open_own("proc/self/maps");
    abi::procmap_query query{};
    query.size = sizeof query;
    query.query_flags = abi::PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
    return maps && ::ioctl(maps.get(), abi::PROCMAP_QUERY, &query) == 0;
}

std::optional<bool> probe_located_tables(const HostFacts& host) {
    // Two slots: in the first a page is touched and given back, which leaves its table (less than
    // a slot is given back, so no kernel frees it); the second never gets one.
    const std::uint64_t slot = host.slot_bytes();
    const Fd pagemap = open_own("proc/self/pagemap");
    if (!pagemap || slot > (std::uint64_t{64} << 20)) return {};
    const Scratch memory{2 * slot, slot};
    memory.data()[0] = 1;
    ::madvise(memory.data(), host.page_size, MADV_DONTNEED);
    bool first = false, second = false;
    const AddressRange range{memory.address(), memory.address() + Bytes{2 * slot}};
    const int error =
        scan_pagemap(pagemap.get(), range, {0, abi::PAGE_IS_WRITTEN, 0, abi::PAGE_IS_WRITTEN},
                     [&](const abi::page_region& region) {
                         first = first || (region.start == range.start.value &&
                                           region.end == range.start.value + slot);
                         second = second || region.end > range.start.value + slot;
                         return true;
                     });
    if (error != 0) return false;
    return first && !second;
}

std::optional<bool> probe_pt_reclaim(const HostFacts& host) {
    const std::uint64_t slot = host.slot_bytes();
    if (slot > (std::uint64_t{64} << 20)) return {};
    static constexpr std::uint64_t slots = 8;
    const Scratch memory{slots * slot, slot};
    for (std::uint64_t i = 0; i < slots; ++i) memory.data()[i * slot] = 1;
    const auto before = own_table_bytes();
    ::madvise(memory.data(), slots * slot, MADV_DONTNEED);
    const auto after = own_table_bytes();
    if (!before || !after) return {};
    return *before >= *after + slots / 2 * host.page_size;
}

bool probe_advice(int advice) {
    const Scratch page{own_page_size(), own_page_size()};
    page.data()[0] = 1;
    return ::madvise(page.data(), own_page_size(), advice) == 0;
}

std::optional<bool> probe_remote_advice(int advice, std::size_t bytes) {
    using Huge = Scratch::Huge;
    const Scratch memory{bytes, bytes, bytes > own_page_size() ? Huge::if_possible : Huge::never};
    memory.data()[0] = 1;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {};
    const Fd reading{ends[0]};
    Fd writing{ends[1]};
    const pid_t child = ::fork();
    if (child < 0) return {};
    if (child == 0) { // a copy of this process that does nothing but wait for its parent
        ::close(ends[1]);
        char byte = 0;
        while (::read(ends[0], &byte, 1) < 0 && errno == EINTR) {
        }
        ::_exit(0);
    }
    const Fd process{static_cast<int>(::syscall(SYS_pidfd_open, child, 0u))};
    const iovec range{memory.data(), bytes};
    const long done =
        process ? ::syscall(SYS_process_madvise, process.get(), &range, 1ul, advice, 0u) : -1;
    const int error = errno;
    writing = Fd{};
    reap(child);
    if (done == static_cast<long>(bytes)) return true;
    if (done < 0 && (error == EINVAL || error == ENOSYS || error == EPERM)) return false;
    return {};
}

namespace {

/// The stack lies just below the end of the address space.
unsigned own_address_bits() {
    const int marker = 0;
    return static_cast<unsigned>(std::bit_width(reinterpret_cast<std::uintptr_t>(&marker)));
}

/// Can a program that asks for it have addresses beyond those (x86 with five levels, arm64 with
/// 52 bits)?
bool more_address_bits(unsigned bits, std::uint64_t page_size) {
    const auto wanted = static_cast<long>(std::uint64_t{1} << bits);
    // Not by mmap(3): the thread sanitizer's ends the program at such an address.
    const long page = ::syscall(SYS_mmap, wanted, page_size, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0L);
    if (page == -1) return false;
    ::syscall(SYS_munmap, page, page_size);
    return page == wanted;
}

} // namespace

unsigned probe_counted_levels(std::uint64_t page_size) {
    unsigned address_bits = own_address_bits();
    if (more_address_bits(address_bits, page_size)) ++address_bits; // one more can need a level
    const unsigned page_bits = static_cast<unsigned>(std::bit_width(page_size)) - 1;
    const unsigned level_bits = page_bits - 3;
    const unsigned levels = (address_bits - page_bits + level_bits - 1) / level_bits;
    // The top level is never counted, nor are levels above PUD (mm/memory.c, mm_inc_nr_*).
    return std::min(levels - 1, 3u);
}

} // namespace pagesift::os
