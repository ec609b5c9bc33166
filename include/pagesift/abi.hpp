// SPDX-License-Identifier: MIT
// The abi room: kernel constants, structures and the flag tables, in the kernel's own words.
// Own copies, because Debian 12's headers are those of 6.1; src/abi/check.cpp compares them with
// the system's wherever it has them. No system header is included here.
//
//     if (entry & PM_PRESENT) frame = entry & PM_PFRAME_MASK;
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace pagesift::abi {

// /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst
inline constexpr std::uint64_t PM_PFRAME_MASK = (std::uint64_t{1} << 55) - 1;
inline constexpr std::uint64_t PM_SOFT_DIRTY = std::uint64_t{1} << 55;
inline constexpr std::uint64_t PM_MMAP_EXCLUSIVE = std::uint64_t{1} << 56;
inline constexpr std::uint64_t PM_UFFD_WP = std::uint64_t{1} << 57;
inline constexpr std::uint64_t PM_GUARD_REGION = std::uint64_t{1} << 58; // 6.15
inline constexpr std::uint64_t PM_FILE = std::uint64_t{1} << 61;
inline constexpr std::uint64_t PM_SWAP = std::uint64_t{1} << 62;
inline constexpr std::uint64_t PM_PRESENT = std::uint64_t{1} << 63;

constexpr unsigned swap_type(std::uint64_t entry) { return entry & 0x1f; }
constexpr std::uint64_t swap_offset(std::uint64_t entry) { return (entry & PM_PFRAME_MASK) >> 5; }
constexpr std::uint64_t pagemap_swap(unsigned type, std::uint64_t offset) {
    return PM_SWAP | (type & 0x1f) | (offset << 5 & PM_PFRAME_MASK);
}
// include/linux/swap.h: the last of the 32 types is the marker type (5.19); 0-22 are always real
// areas; what lies between depends on the configuration.
inline constexpr unsigned SWP_PTE_MARKER = 31;
inline constexpr unsigned FIRST_SPECIAL_SWAP_TYPE = 23;
// include/linux/swapops.h
inline constexpr std::uint64_t PTE_MARKER_UFFD_WP = 1;
inline constexpr std::uint64_t PTE_MARKER_POISONED = 2;
inline constexpr std::uint64_t PTE_MARKER_GUARD = 4;

// /proc/kpageflags: include/uapi/linux/kernel-page-flags.h; 32 and up: fs/proc/page.c, not ABI
enum KpfBit : unsigned {
    KPF_LOCKED = 0,
    KPF_ERROR = 1,
    KPF_REFERENCED = 2,
    KPF_UPTODATE = 3,
    KPF_DIRTY = 4,
    KPF_LRU = 5,
    KPF_ACTIVE = 6,
    KPF_SLAB = 7,
    KPF_WRITEBACK = 8,
    KPF_RECLAIM = 9,
    KPF_BUDDY = 10,
    KPF_MMAP = 11,
    KPF_ANON = 12,
    KPF_SWAPCACHE = 13,
    KPF_SWAPBACKED = 14,
    KPF_COMPOUND_HEAD = 15,
    KPF_COMPOUND_TAIL = 16,
    KPF_HUGE = 17,
    KPF_UNEVICTABLE = 18,
    KPF_HWPOISON = 19,
    KPF_NOPAGE = 20,
    KPF_KSM = 21,
    KPF_THP = 22,
    KPF_OFFLINE = 23,
    KPF_ZERO_PAGE = 24,
    KPF_IDLE = 25,
    KPF_PGTABLE = 26,
    KPF_RESERVED = 32,
    KPF_MLOCKED = 33,
    KPF_OWNER_2 = 34,
    KPF_PRIVATE = 35,
    KPF_PRIVATE_2 = 36,
    KPF_OWNER_PRIVATE = 37,
    KPF_ARCH = 38,
    KPF_UNCACHED = 39,
    KPF_SOFTDIRTY = 40,
    KPF_ARCH_2 = 41,
    KPF_ARCH_3 = 42,
};

constexpr std::uint64_t kpf(KpfBit bit) { return std::uint64_t{1} << bit; }

struct FlagName {
    unsigned bit;
    std::string_view name; ///< "KPF_LRU" without its prefix, lower case: "lru"
};

/// The one table of kpageflags bits; a bit that is not in it is printed as "bit47".
std::span<const FlagName> kpageflags_table();

// PAGEMAP_SCAN (6.7): include/uapi/linux/fs.h
inline constexpr std::uint64_t PAGE_IS_WPALLOWED = 1 << 0;
inline constexpr std::uint64_t PAGE_IS_WRITTEN = 1 << 1;
inline constexpr std::uint64_t PAGE_IS_FILE = 1 << 2;
inline constexpr std::uint64_t PAGE_IS_PRESENT = 1 << 3;
inline constexpr std::uint64_t PAGE_IS_SWAPPED = 1 << 4;
inline constexpr std::uint64_t PAGE_IS_PFNZERO = 1 << 5;
inline constexpr std::uint64_t PAGE_IS_HUGE = 1 << 6;
inline constexpr std::uint64_t PAGE_IS_SOFT_DIRTY = 1 << 7;
inline constexpr std::uint64_t PAGE_IS_GUARD = 1 << 8;

struct page_region {
    std::uint64_t start;
    std::uint64_t end;
    std::uint64_t categories;
};

struct pm_scan_arg {
    std::uint64_t size;
    std::uint64_t flags;
    std::uint64_t start;
    std::uint64_t end;
    std::uint64_t walk_end;
    std::uint64_t vec;
    std::uint64_t vec_len;
    std::uint64_t max_pages;
    std::uint64_t category_inverted;
    std::uint64_t category_mask;
    std::uint64_t category_anyof_mask;
    std::uint64_t return_mask;
};
inline constexpr unsigned long PAGEMAP_SCAN = 0xc0606610; // _IOWR('f', 16, struct pm_scan_arg)

// PROCMAP_QUERY (6.11): include/uapi/linux/fs.h
inline constexpr std::uint64_t PROCMAP_QUERY_VMA_READABLE = 0x01;
inline constexpr std::uint64_t PROCMAP_QUERY_VMA_WRITABLE = 0x02;
inline constexpr std::uint64_t PROCMAP_QUERY_VMA_EXECUTABLE = 0x04;
inline constexpr std::uint64_t PROCMAP_QUERY_VMA_SHARED = 0x08;
inline constexpr std::uint64_t PROCMAP_QUERY_COVERING_OR_NEXT_VMA = 0x10;

struct procmap_query {
    std::uint64_t size;
    std::uint64_t query_flags;
    std::uint64_t query_addr;
    std::uint64_t vma_start;
    std::uint64_t vma_end;
    std::uint64_t vma_flags;
    std::uint64_t vma_page_size;
    std::uint64_t vma_offset;
    std::uint64_t inode;
    std::uint32_t dev_major;
    std::uint32_t dev_minor;
    std::uint32_t vma_name_size;
    std::uint32_t build_id_size;
    std::uint64_t vma_name_addr;
    std::uint64_t build_id_addr;
};
inline constexpr unsigned long PROCMAP_QUERY = 0xc0686611; // _IOWR('f', 17, struct procmap_query)

// cachestat(2) (6.5): include/uapi/linux/mman.h; the number is the same on every architecture
inline constexpr long NR_cachestat = 451;

struct cachestat_range {
    std::uint64_t off;
    std::uint64_t len;
};

struct cachestat {
    std::uint64_t nr_cache;
    std::uint64_t nr_dirty;
    std::uint64_t nr_writeback;
    std::uint64_t nr_evicted;
    std::uint64_t nr_recently_evicted;
};

// madvise(2): include/uapi/asm-generic/mman-common.h, the same on x86_64 and aarch64. In words of
// our own, because the kernel's are macros.
namespace advice {
inline constexpr int willneed = 3;
inline constexpr int dontneed = 4;
inline constexpr int mergeable = 12;
inline constexpr int unmergeable = 13;
inline constexpr int cold = 20;           // 5.4
inline constexpr int pageout = 21;        // 5.4
inline constexpr int collapse = 25;       // 6.1
inline constexpr int guard_install = 102; // 6.13
} // namespace advice

// include/uapi/linux/magic.h
inline constexpr std::uint64_t TMPFS_MAGIC = 0x01021994;
inline constexpr std::uint64_t HUGETLBFS_MAGIC = 0x958458f6;

// include/uapi/linux/capability.h
inline constexpr unsigned CAP_DAC_OVERRIDE = 1;
inline constexpr unsigned CAP_FOWNER = 3;
inline constexpr unsigned CAP_SYS_PTRACE = 19;
inline constexpr unsigned CAP_SYS_ADMIN = 21;
inline constexpr unsigned CAP_SYS_NICE = 23;
inline constexpr unsigned CAP_CHECKPOINT_RESTORE = 40;

} // namespace pagesift::abi
