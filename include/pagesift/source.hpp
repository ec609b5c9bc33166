// SPDX-License-Identifier: MIT
// `Source`: what can be seen of one process and of the machine it runs on. One of the two virtual
// interfaces of the program. Implemented by os (a live process, or files under another root) and by
// snapshot (a recording); nothing behind it knows which one it reads.
//
// A source reports, it never judges: entries, flags and cache answers are the kernel's own words,
// column by column, so that a later classifier can read an old recording.
#pragma once

#include "pagesift/base.hpp"
#include "pagesift/procfs.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pagesift {

/// What stands behind a mapping.
enum class Backing : std::uint8_t {
    anon,    ///< private anonymous memory, stack, heap
    file,    ///< a file of an ordinary file system
    shmem,   ///< tmpfs, memfd, System V and shared anonymous memory
    hugetlb, ///< huge pages of a pool
    special, ///< frames without struct pages (VM_PFNMAP): [vvar]
    device,  ///< a device or kernel object of which nothing more is known
};

/// What smaps adds to a mapping; an empty figure was not in the text.
struct SmapsFacts {
    procfs::VmFlags vm_flags;
    std::optional<std::uint64_t> rss_bytes, swap_bytes, referenced_bytes;
    std::optional<std::uint64_t> hugetlb_bytes;     ///< Shared_Hugetlb and Private_Hugetlb
    std::optional<std::uint64_t> ksm_bytes;         ///< KSM (6.8)
    std::optional<std::uint64_t> anon_huge_bytes;   ///< AnonHugePages: mapped by huge entries
    std::optional<std::uint64_t> shared_huge_bytes; ///< ShmemPmdMapped and FilePmdMapped
    bool operator==(const SmapsFacts&) const = default;
};

struct Mapping : procfs::Mapping {
    Backing backing = Backing::anon;
    bool remote_file = false;    ///< on a network or user-space file system, which is never asked
    std::uint64_t page_size = 0; ///< bytes; larger than the system's for hugetlb
    /// Empty when smaps was not read, or had no such mapping. Apart, because it seldom is there and
    /// a process may have very many mappings.
    std::shared_ptr<const SmapsFacts> smaps;

    bool operator==(const Mapping& other) const {
        const bool same_smaps =
            smaps && other.smaps ? *smaps == *other.smaps : !smaps && !other.smaps;
        return procfs::Mapping::operator==(other) && backing == other.backing &&
               remote_file == other.remote_file && page_size == other.page_size && same_smaps;
    }
};

/// What the page cache says of a page whose page-table entry is none.
enum class Cache : std::uint8_t {
    not_asked,
    hole,    ///< the file has nothing at this offset
    cached,  ///< in the page cache
    absent,  ///< the file has data there and the page cache does not: swapped, for shmem
    unknown, ///< asked, and no certain answer was to be had
};

/// What reading the page's contents showed.
enum class Content : std::uint8_t {
    not_read,
    zero,    ///< every byte zero, and the entry was the same afterwards
    other,   ///< at least one byte is not zero
    changed, ///< the entry changed meanwhile
    refused, ///< could not be read
};

/// Bits of a page-table entry that hardware sets, and what is left of them in the page's flags by
/// who clears them. Without `known` and `used_known` the others say nothing.
struct EntryBits {
    static constexpr std::uint8_t known = 1;
    static constexpr std::uint8_t young = 2; ///< the accessed bit
    static constexpr std::uint8_t dirty = 4;
    static constexpr std::uint8_t used_known = 8;
    static constexpr std::uint8_t used = 16; ///< PG_referenced or PG_young
};

/// Consecutive pages of one mapping, as columns. A column has one element a page; in a uniform
/// block one element for all pages; and none at all where that source had nothing to say.
struct PageBlock {
    AddressRange range;
    bool uniform = false;
    std::vector<std::uint64_t> entries;     ///< /proc/PID/pagemap, verbatim
    std::vector<std::uint64_t> flags;       ///< /proc/kpageflags; 0 for what is not present
    std::vector<std::uint32_t> map_counts;  ///< /proc/kpagecount, where the entry does not say 1
    std::vector<std::uint8_t> folio_orders; ///< log2 of the folio's pages; unknown_order
    std::vector<std::uint8_t> pmd_mapped;   ///< 1: mapped by a huge entry (PAGE_IS_HUGE)
    std::vector<std::uint8_t> zero_page;    ///< 1: PAGE_IS_PFNZERO; only where flags are hidden
    std::vector<Cache> cache;
    std::vector<Content> content;
    /// Of swapped shmem pages, whose page-table entry is none: the swap entry that the page cache
    /// holds in their place, as pagemap would show it; 0: none, or not known.
    std::vector<std::uint64_t> swap_entries;
    /// What page-table entries of present pages hold beside what pagemap shows, as EntryBits.
    std::vector<std::uint8_t> entry_bits;

    /// Pages that the next read should take; kept by the source between its reads.
    std::size_t appetite = 65536;

    static constexpr std::uint8_t unknown_order = 0xff;

    /// Everything but the appetite.
    void clear() {
        range = {};
        uniform = false;
        entries.clear();
        flags.clear();
        map_counts.clear();
        folio_orders.clear();
        pmd_mapped.clear();
        zero_page.clear();
        cache.clear();
        content.clear();
        swap_entries.clear();
        entry_bits.clear();
    }
};

enum class ZeroTest { off, sample, all };

/// What a capture is asked to read beside the entries.
struct Want {
    bool frames = true; ///< kpageflags, kpagecount
    bool cache = true;  ///< page cache behind none entries
    ZeroTest zero = ZeroTest::off;
    double sample_share = 0.01; ///< of the pages, with ZeroTest::sample
    bool operator==(const Want&) const = default;
};

/// A capability of the kernel, the privileges or the settings, probed and never inferred.
struct Feature {
    std::string name;          ///< "pagemap-scan"
    std::optional<bool> works; ///< empty: could not be tried
    std::string detail;        ///< what was seen
    std::string unlocks;       ///< what it is good for
    std::string remedy;        ///< how to get it; empty: a newer kernel, or nothing to do
};

/// One comparison of what the kernel's own memory says with what is known by ordinary means.
struct SelfCheck {
    std::string name; ///< "own-task"
    bool passed = false;
    std::string detail; ///< both sides
};

/// The machine behind a source. A fact that could not be had is empty.
struct HostFacts {
    std::string lens = "proc"; ///< how it was looked at: "proc", "exact"
    std::uint64_t page_size = 4096;
    std::string release, machine, host_name;
    unsigned counted_table_levels = 3;  ///< levels that VmPTE counts: PTE, PMD and, with it, PUD
    std::optional<bool> frames_visible; ///< frame and swap numbers in pagemap
    std::optional<bool> ksm_flag_true;  ///< KPF_KSM means KSM (false on 6.10 to 6.18 kernels)
    std::optional<bool> exclusive_flag; ///< bit 34 of kpageflags is PG_anon_exclusive
    std::optional<bool> soft_dirty;     ///< bit 55 means anything
    std::optional<bool> tables_located; ///< PAGE_IS_WRITTEN tells which slots own a table
    std::map<std::string, std::string> settings; ///< "ksm/run" -> "1", "thp/enabled" -> "madvise"
    std::vector<procfs::SwapArea> swaps;

    std::uint64_t entries_per_table() const { return page_size / 8; }
    std::uint64_t slot_bytes() const { return page_size * entries_per_table(); }
};

/// Raw texts of one process; empty string: the file was not there or not readable (see gaps).
struct ProcessText {
    std::uint32_t pid = 0;
    std::string comm, exe, stat, status, ksm_stat;
    /// Clock ticks since boot; 0 where it is not known.
    std::uint64_t start_time() const { return procfs::parse_start_time(stat).value_or(0); }
};

class Source {
public:
    virtual ~Source() = default;

    virtual const HostFacts& host() const = 0;

    /// Throws Error (gone, denied) when nothing can be had of the process.
    virtual ProcessText process() = 0;

    /// All mappings in address order, disjoint. Throws Error (gone, denied, unsupported).
    virtual std::vector<Mapping> mappings(const Want& want) = 0;

    /// Fills @p block with the pages of @p mapping from wanted.start on, at least one and at most
    /// to wanted.end; how many is the source's choice (@p block's capacity of pages, or one uniform
    /// block of any size). Causes no fault, no swap-in and no page table in the target; with
    /// want.zero, present pages are read, which marks them referenced but for the exact lens. What
    /// cannot be read is left empty and noted as a gap; an empty block.range means that the target
    /// is gone. Safe to call from several threads with different blocks.
    virtual void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                            PageBlock& block) = 0;

    /// Of @p ranges, the parts that lie in slots that own a PTE table; empty where nothing can
    /// tell. Safe to call from several threads.
    virtual std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) = 0;

    /// What could not be seen so far, each once; called after the last read.
    virtual std::vector<Gap> gaps() const = 0;

    /// What was read ahead of being asked for is not handed out any more: for those who know that
    /// the process has changed. Not while another thread reads.
    virtual void forget_read_ahead() {}
};

} // namespace pagesift
