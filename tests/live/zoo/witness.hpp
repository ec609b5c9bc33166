// SPDX-License-Identifier: MIT
// The zoo's own eyes: small, slow, direct reads of the kernel's interfaces. They exist so that what
// the zoo claims does not rest on pagesift's code; nothing of pagesift is included here, and the
// constants are written down a second time on purpose.
//
//     for (auto entry : witness::pagemap(pid, start, 8)) expect(witness::present(entry), "...");
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pagesift::zoo::witness {

std::uint64_t page_size();
/// What one page of page-table entries covers: entries are 8 bytes wide.
std::uint64_t slot_size();

// /proc/PID/pagemap ------------------------------------------------------------------------------

/// One entry a page. Pages that the kernel does not answer for (beyond the address space, or a dead
/// process) are missing at the end.
std::vector<std::uint64_t> pagemap(pid_t pid, std::uint64_t start, std::size_t pages);

constexpr bool present(std::uint64_t e) { return e >> 63 & 1; }
constexpr bool swap_like(std::uint64_t e) { return e >> 62 & 1; }
constexpr bool file_or_shared(std::uint64_t e) { return e >> 61 & 1; }
constexpr bool guard_bit(std::uint64_t e) { return e >> 58 & 1; }
constexpr bool uffd_wp_bit(std::uint64_t e) { return e >> 57 & 1; }
constexpr bool exclusive_bit(std::uint64_t e) { return e >> 56 & 1; }
constexpr std::uint64_t frame(std::uint64_t e) { return e & ((std::uint64_t{1} << 55) - 1); }
constexpr std::uint64_t swap_type(std::uint64_t e) { return e & 31; }
constexpr std::uint64_t swap_offset(std::uint64_t e) { return frame(e) >> 5; }
/// Swap type 31 is no area: the "offset" says which PTE markers these are.
constexpr bool marker(std::uint64_t e) { return swap_like(e) && swap_type(e) == 31; }
constexpr bool swapped(std::uint64_t e) { return swap_like(e) && swap_type(e) != 31; }
/// pte_none: neither present nor a swap-like entry. With CONFIG_MEM_SOFT_DIRTY bit 55 may be set.
constexpr bool none(std::uint64_t e) { return !present(e) && !swap_like(e); }

inline constexpr std::uint64_t marker_uffd_wp = 1;
inline constexpr std::uint64_t marker_poison = 2;
inline constexpr std::uint64_t marker_guard = 4;

// /proc/kpageflags, /proc/kpagecount -------------------------------------------------------------

enum KpfBit : unsigned {
    kpf_dirty = 4,
    kpf_lru = 5,
    kpf_writeback = 8,
    kpf_anon = 12,
    kpf_swapcache = 13,
    kpf_swapbacked = 14,
    kpf_compound_head = 15,
    kpf_compound_tail = 16,
    kpf_huge = 17,
    kpf_unevictable = 18,
    kpf_hwpoison = 19,
    kpf_ksm = 21,
    kpf_thp = 22,
    kpf_zero_page = 24,
    kpf_mlocked = 33,
};

std::uint64_t kpageflags(std::uint64_t pfn);
/// The same, with what older kernels show for the first page of a folio only.
std::uint64_t folio_flags(std::uint64_t pfn);
std::uint64_t kpagecount(std::uint64_t pfn);
constexpr bool has(std::uint64_t flags, KpfBit bit) { return flags >> bit & 1; }
/// Kernels from 6.10 until a fix of 2026 set KPF_KSM on every anonymous page: this one does.
bool ksm_flag_lies();

// /proc/PID/maps, smaps, smaps_rollup, status ----------------------------------------------------

struct Mapping {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::string permissions;
    std::string name;
    std::map<std::string, std::uint64_t> bytes; ///< smaps fields that are given in kB
    std::string vm_flags;                       ///< with a blank before and after each flag
};

std::vector<Mapping> smaps(pid_t pid);
/// The mapping that holds an address.
std::optional<Mapping> mapping_at(pid_t pid, std::uint64_t address);
std::map<std::string, std::uint64_t> smaps_rollup(pid_t pid);

/// A field of /proc/PID/status: bytes where the kernel says kB, the number as it is otherwise.
std::optional<std::uint64_t> status(pid_t pid, const std::string& key);
/// /proc/PID/ksm_stat; nothing where the kernel has no such field.
std::optional<std::uint64_t> ksm_stat(pid_t pid, const std::string& key);

struct Faults {
    std::uint64_t minor = 0;
    std::uint64_t major = 0;
    bool operator==(const Faults&) const = default;
};
/// min_flt and maj_flt of /proc/PID/stat.
std::optional<Faults> faults(pid_t pid);

// The machine ------------------------------------------------------------------------------------

/// A counter of /proc/vmstat; 0 where there is none.
std::uint64_t vmstat(const std::string& key);
/// Bytes of /proc/meminfo, or the number where that has no unit; 0 where there is none.
std::uint64_t meminfo(const std::string& key);

struct SwapArea {
    std::string path;
    std::uint64_t size = 0;
    std::uint64_t used = 0;
    int priority = 0;
};
std::vector<SwapArea> swap_areas();

// Page cache, of the calling process -------------------------------------------------------------

/// Which pages of the caller's own mapping are in memory (mincore(2)); includes the swap cache.
std::vector<bool> resident(std::uint64_t start, std::size_t pages);

struct CacheStat {
    std::uint64_t cached = 0;
    std::uint64_t evicted = 0; ///< for shmem: the pages that are in swap, in the swap cache or not
};
/// cachestat(2), Linux 6.5.
std::optional<CacheStat> cachestat(int fd, std::uint64_t offset, std::uint64_t length);

// Page tables ------------------------------------------------------------------------------------

/// The tables that must exist for what pagemap shows of a process, and what VmPTE says exists.
struct TableCount {
    std::uint64_t needed = 0;
    std::uint64_t accounted = 0;
};
TableCount count_tables(pid_t pid);

} // namespace pagesift::zoo::witness
