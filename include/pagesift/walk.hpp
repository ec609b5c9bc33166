// SPDX-License-Identifier: MIT
// The walk room: page tables, page-cache trees and page frames, read as pure code over "copy these
// pieces of kernel memory". Nothing here meets a kernel: os has the reader, tests have made-up
// memory. Offsets come from the kernel's own BTF and bases from searches that refuse rather than
// guess. What changes while it is read is read again, and then is `unknown`.
//
//     const KernelLayout layout = find_layout(btf);
//     const Kernel kernel = find_kernel(memory, layout, own);
//     for (const Check& check : self_check(memory, kernel, own)) ... // all must have passed
//     const auto pgd = pgd_of(memory, layout, mm);
//     walk_tables(memory, kernel, *pgd, range, [&](const SlotRun& run) { ... });
#pragma once

#include "pagesift/base.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::walk {

/// One piece of kernel memory, at a kernel virtual address. It must not cross a page boundary.
struct Piece {
    std::uint64_t address = 0;
    std::uint32_t bytes = 0;
};

/// What one call of KernelMemory::read copied; valid until the next call on the same object.
struct Copied {
    /// The pieces one after the other without gaps, in the order asked for; a piece that could not
    /// be read is all zero bytes.
    std::span<const std::byte> bytes;
    /// One for each piece: 1 it was copied whole, 0 it could not be read.
    std::span<const std::uint8_t> good;
};

/// Reads kernel memory and changes nothing. An object is used by one thread at a time.
class KernelMemory {
public:
    virtual ~KernelMemory() = default;
    /// How many pieces and bytes one call takes; at least 16 pieces and 16 pages.
    virtual std::size_t most_pieces() const = 0;
    virtual std::size_t most_bytes() const = 0;
    /// Copies pieces, each after the one before it: the walkers ask for a table and then for the
    /// entry that named it, and trust the table if that entry is still the same. A bad address is a
    /// piece that is not good, never a fault.
    /// @throws Error if the reader itself no longer works (never for a bad address)
    virtual Copied read(std::span<const Piece> pieces) = 0;
};

// --- What is known of a kernel -------------------------------------------------------------------

/// A bit of page.flags that /proc/kpageflags repeats.
struct ShownFlag {
    std::uint8_t bit = 0, kpf_bit = 0;
};

/// Where the walkers find what they need, in the kernel's own names: bytes from the start of the
/// structure (`xa_node_slots`: xa_node.slots) and bit numbers of page.flags (`PG_active`). An
/// optional is empty where this kernel has no such thing; what is not optional is always there.
struct KernelLayout {
    std::uint32_t task_struct_files = 0, task_struct_mm = 0, task_struct_tgid = 0;
    std::uint32_t files_struct_fdt = 0, fdtable_fd = 0;
    std::uint32_t file_f_mapping = 0, file_f_inode = 0, file_private_data = 0, inode_i_ino = 0;
    std::uint32_t mm_struct_pgd = 0, mm_struct_task_size = 0;
    std::uint32_t address_space_i_pages = 0, xarray_xa_head = 0;
    std::uint32_t xa_node_shift = 0, xa_node_offset = 0, xa_node_parent = 0, xa_node_array = 0;
    std::uint32_t xa_node_slots = 0, xa_node_slot_count = 0;
    std::uint32_t page_flags = 0, page_bytes = 0; ///< sizeof(struct page)
    std::uint32_t PG_referenced = 0, PG_uptodate = 0, PG_lru = 0, PG_head = 0, PG_active = 0;

    std::optional<std::uint32_t> task_struct_tasks;     ///< for find_task
    std::optional<std::uint32_t> page_compound_head;    ///< for read_frames; once compound_info
    std::optional<std::uint32_t> page_mapcount;         ///< page._mapcount, for read_frames
    std::optional<std::uint32_t> folio_mapping;         ///< for read_frames and self_check
    std::optional<std::uint32_t> folio_index;           ///< for self_check
    std::optional<std::uint32_t> pt_mm;                 ///< of ptdesc, once of page: find_kernel
    std::optional<std::uint32_t> page_type, PGTY_table; ///< for read_page_tables (6.12)
    std::optional<std::uint32_t> PG_young, PG_idle;     ///< with CONFIG_PAGE_IDLE_FLAG
    std::optional<std::uint32_t> PG_reserved, PG_swapbacked, PG_swapcache; ///< read_plain_pages
    std::optional<std::uint32_t> PG_workingset;                            ///< judge_access
    std::optional<std::uint32_t> PG_hwpoison; ///< with CONFIG_MEMORY_FAILURE

    /// Whether page_compound_head is that of compound_info (7.2), which may be a mask: see head_of.
    bool compound_info = false;

    std::vector<ShownFlag> shown_flags; ///< those that this kernel has, by ascending bit
    std::vector<std::string> missing;   ///< the optional ones that are empty: "ptdesc.pt_mm"
};

/// Gathers the layout from raw BTF (/sys/kernel/btf/vmlinux). Any bytes are safe.
/// @throws Error(bad_input) if this is no BTF, Error(unsupported) naming every member that is
///         needed and not there, or is there in two different places
KernelLayout find_layout(std::span<const std::byte> btf);

/// What a page-table entry is.
enum class EntryKind : std::uint8_t {
    none,
    present, ///< PROT_NONE pages and huge entries that are being split are present as well
    swap,    ///< swap area, or migration, device-private, hwpoison: by type, as in pagemap
    marker,  ///< swap_offset holds abi::PTE_MARKER_* bits
};

struct Entry {
    EntryKind kind = EntryKind::none;
    bool young = false, dirty = false, writable = false; ///< of present ones
    bool uffd_wp = false;
    bool soft_dirty = false;       ///< always false without CONFIG_MEM_SOFT_DIRTY
    bool special = false;          ///< present, and its frame is not accounted: the zero page, I/O
    std::uint64_t frame = 0;       ///< of present ones; of the first page, above PTE level
    unsigned swap_type = 0;        ///< of swap and marker
    std::uint64_t swap_offset = 0; ///< of swap and marker

    bool operator==(const Entry&) const = default;
};

/// A bit that pagemap leaves 0 and words made here have for special PTEs; see read_plain_pages.
inline constexpr std::uint64_t special_entry = std::uint64_t{1} << 60;

/// What the slot of one PTE table holds.
enum class TableState : std::uint8_t {
    no_table,
    empty,       ///< a PTE table whose entries are all none
    marker_only, ///< a PTE table with markers and nothing else
    populated,
    huge,    ///< an entry above PTE level that is no table: present, or a migration or marker entry
    unknown, ///< could not be read, or changed at every try
};

/// What an entry above PTE level names.
struct Naming {
    enum class Kind : std::uint8_t { none, table, leaf, odd } kind = Kind::none;
    std::uint64_t frame = 0; ///< of the table
};

/// How an architecture writes page-table entries, and how its tables nest. Level 1 entries are
/// those of PTE tables, level 2 those of PMD tables. One file an architecture makes one of these.
struct EntryFormat {
    unsigned levels = 0;          ///< of tables
    unsigned page_shift = 0;      ///< log2 of the page size
    unsigned index_bits = 0;      ///< log2 of a table's entries
    unsigned top_index_bits = 0;  ///< of the top table, which may have fewer
    unsigned address_bits = 0;    ///< of user addresses
    std::uint64_t frame_mask = 0; ///< bits of an entry that hold the frame

    Entry (*decode)(const EntryFormat& format, std::uint64_t raw, unsigned level) = nullptr;
    Naming (*name)(const EntryFormat& format, std::uint64_t raw, unsigned level) = nullptr;
    /// Whether both entries name the same table: bits that hardware sets do not count.
    bool (*same_table)(std::uint64_t a, std::uint64_t b) = nullptr;
    /// Of a PTE table: empty, marker_only or populated.
    TableState (*state)(std::span<const std::uint64_t> entries) = nullptr;
    /// Level 1 entries in the words of /proc/PID/pagemap, without PM_FILE and PM_MMAP_EXCLUSIVE,
    /// which no entry holds, and with special_entry. @p words is as long as @p entries.
    void (*to_pagemap)(const EntryFormat& format, std::span<const std::uint64_t> entries,
                       std::span<std::uint64_t> words) = nullptr;

    std::uint64_t page_bytes() const { return std::uint64_t{1} << page_shift; }
    std::uint64_t entries_per_table() const { return std::uint64_t{1} << index_bits; }
    /// log2 of the addresses that an entry of @p level stands for.
    unsigned shift(unsigned level) const { return page_shift + (level - 1) * index_bits; }
    std::uint64_t span(unsigned level) const { return std::uint64_t{1} << shift(level); }
};

/// Entries of x86_64. Frames are cut to @p physical_bits ("address sizes" of /proc/cpuinfo), which
/// keeps the encryption bit of SME and SEV out of them.
EntryFormat x86_64_entries(unsigned levels, unsigned physical_bits);
/// 4 or 5, from mm->task_size of a 64-bit process.
unsigned x86_64_levels(std::uint64_t task_size);

/// Where all of RAM and all struct pages lie in the kernel's address space.
struct Bases {
    std::uint64_t direct_map = 0; ///< address of frame 0
    std::uint64_t vmemmap = 0;    ///< address of the struct page of frame 0
    std::uint64_t frame_end = 0;  ///< no frame of RAM lies at or behind this one

    bool operator==(const Bases&) const = default;
};

struct Kernel {
    KernelLayout layout;
    EntryFormat entries;
    Bases bases;
};

/// What this process knows of itself by ordinary means. The kernel's memory must say the same.
struct Own {
    std::uint64_t task = 0; ///< address of the own task_struct, from the reader or find_task
    std::uint32_t tgid = 0; ///< own process id in the first pid namespace
    int pagemap_fd = -1;    ///< open /proc/self/pagemap
    int file_fd = -1;       ///< any open file, and its inode number
    std::uint64_t file_inode = 0;
    int memfd = -1;                ///< a memfd of one page, which is present
    std::uint64_t memfd_frame = 0; ///< that page's frame, from pagemap
    Address page;                 ///< a locked anonymous page of random bytes, with MADV_NOHUGEPAGE
    std::uint64_t page_frame = 0; ///< its frame, from pagemap
    std::span<const std::byte> page_bytes;
    std::optional<std::uint64_t> page_kpageflags; ///< of that frame
    std::uint64_t frame_end = 0;    ///< greatest start_pfn + spanned of /proc/zoneinfo
    unsigned physical_bits = 52;    ///< of /proc/cpuinfo
    bool unaccepted_memory = false; ///< /proc/meminfo says Unaccepted: above 0
};

/// One comparison of what the kernel's memory says with what was known before.
struct Check {
    std::string name; ///< "own-task"
    bool passed = false;
    std::string detail; ///< both sides
};

/// Finds the bases. vmemmap is the memfd's folio less its frame; the direct map is found by the
/// struct page that names the own mm as owner of its top table, and confirmed by the own page's
/// contents; where the kernel keeps no such note, by these contents alone. Exactly one candidate
/// must fit, all of them multiples of 1 GiB at most RAM below the top table.
/// @throws Error(unsupported) saying what was found instead; nothing is ever guessed
Kernel find_kernel(KernelMemory& memory, const KernelLayout& layout, const Own& own);

/// The comparisons to make at every start before anything is believed. Nothing may be used of a
/// kernel of which one has not passed; but frames and flags may move between the caller's reading
/// and this one, so it is fair to try a few times, with new facts each time.
std::vector<Check> self_check(KernelMemory& memory, const Kernel& kernel, const Own& own);

// --- Ways to what is to be walked ----------------------------------------------------------------
// Each is empty where the kernel's memory could not be read, or holds a null pointer.

/// A word of 8 bytes.
std::optional<std::uint64_t> read_word(KernelMemory& memory, std::uint64_t address);
/// The struct file of a descriptor of @p task. The descriptor must stay open.
std::optional<std::uint64_t> file_of(KernelMemory& memory, const KernelLayout& layout,
                                     std::uint64_t task, int fd);
/// The mm_struct behind the struct file of an open /proc/PID/pagemap, which keeps it from being
/// freed (fs/proc/task_mmu.c: pagemap_open).
std::optional<std::uint64_t> mm_of(KernelMemory& memory, const KernelLayout& layout,
                                   std::uint64_t pagemap_file);
/// The address_space behind a struct file. Only that of tmpfs may be walked: elsewhere a value
/// entry is no swap entry but a shadow of an evicted page.
std::optional<std::uint64_t> mapping_of(KernelMemory& memory, const KernelLayout& layout,
                                        std::uint64_t file);
/// The top page table of an mm_struct.
std::optional<std::uint64_t> pgd_of(KernelMemory& memory, const KernelLayout& layout,
                                    std::uint64_t mm);
/// The task_struct of process @p tgid, along the list of tasks from @p init_task: for readers that
/// cannot name the current task.
std::optional<std::uint64_t> find_task(KernelMemory& memory, const KernelLayout& layout,
                                       std::uint64_t init_task, std::uint32_t tgid);

// --- Page tables ---------------------------------------------------------------------------------

/// A slot of the address space, or a run of slots without tables.
struct SlotRun {
    AddressRange range; ///< clipped to what was asked for
    TableState state = TableState::unknown;
    /// Of a PTE table (empty, marker_only, populated): all of its entries, the first of which is
    /// for slot_start. Valid until the sink returns or the memory is read, whichever is first.
    std::span<const std::uint64_t> entries;
    Address slot_start;
    std::uint64_t table_frame = 0; ///< of the PTE table
    std::uint64_t leaf = 0;        ///< of huge: the entry, raw
    unsigned leaf_level = 0;       ///< of huge: 2 PMD, 3 PUD
};

struct TableCounts {
    std::array<std::uint64_t, 5> tables{}; ///< read, by level: [0] PTE tables, [1] PMD tables …
    std::uint64_t retries = 0;             ///< tables that were read again
    std::uint64_t unknown = 0;             ///< runs given as unknown
};

/// Walks the page tables below @p pgd over @p range (whole pages) and hands on runs in address
/// order that are disjoint and together cover @p range. Costs what is populated, not what is
/// addressable. Only frames of page tables are read: what leaves point at stays a number. A table
/// is believed when the entry that named it is the same after the table was read.
/// @throws Error as KernelMemory::read does
TableCounts walk_tables(KernelMemory& memory, const Kernel& kernel, std::uint64_t pgd,
                        AddressRange range, const std::function<void(const SlotRun&)>& sink);

/// Writes the pages of @p run in the words of /proc/PID/pagemap (see EntryFormat::to_pagemap), one
/// a page of run.range; 0 where the run has neither table nor leaf.
void write_pagemap(const EntryFormat& format, const SlotRun& run, std::span<std::uint64_t> words);

/// The frame that maps @p address, by a walk of its own; empty where nothing is present.
std::optional<std::uint64_t> translate(KernelMemory& memory, const Kernel& kernel,
                                       std::uint64_t pgd, Address address);

// --- Page cache of tmpfs -------------------------------------------------------------------------

struct CachedPage {
    enum class State : std::uint8_t { hole, folio, swap, unknown } state = State::hole;
    std::uint8_t swap_type = 0;
    std::uint64_t value = 0; ///< folio: the page's own frame; swap: its offset

    bool operator==(const CachedPage&) const = default;
};

struct PageCacheCounts {
    std::uint64_t nodes = 0;   ///< read
    std::uint64_t refused = 0; ///< nodes that were not what they had to be: freed or moved
    std::uint64_t retries = 0; ///< parts that were walked again
    std::uint64_t unknown = 0; ///< pages given as unknown
};

/// Fills @p pages with what the page cache of tmpfs file @p mapping (struct address_space) holds
/// from page @p first on. Every node must name its tree, parent, place and height; what does not,
/// retry entries, and neighbours with one and the same swap entry (which is being split) are read
/// again, and then are unknown. No page is touched. It is no snapshot: a page that moves meanwhile
/// may show up twice.
/// @throws Error as KernelMemory::read does
PageCacheCounts walk_page_cache(KernelMemory& memory, const Kernel& kernel, std::uint64_t mapping,
                                std::uint64_t first, std::span<CachedPage> pages);

// --- Page frames ---------------------------------------------------------------------------------

struct Frame {
    bool known = false;
    std::uint64_t flags = 0; ///< page.flags of the folio's head, verbatim
    std::uint64_t head = 0;  ///< frame of the folio's head
    std::optional<bool> anon;
    std::optional<std::uint32_t> map_count; ///< of folios of one page only
};

/// Reads the flag words of @p frames, fastest in ascending order. A frame that has no struct page,
/// or whose head cannot be told, is not known.
void read_frames(KernelMemory& memory, const Kernel& kernel, std::span<const std::uint64_t> frames,
                 std::span<Frame> out);

/// A page in the words of /proc/kpageflags and /proc/kpagecount.
struct PlainPage {
    std::uint64_t flags = 0;     ///< KPF_ bits
    std::uint32_t map_count = 0; ///< 0: no plain page, or not readable, and nothing is said of it
    bool used = false;           ///< PG_referenced, or PG_young, which /proc does not show
};

/// Whether this kernel's BTF tells all that read_plain_pages needs.
bool has_plain_pages(const KernelLayout& layout);
/// What it does not tell of that: "page.compound_head, pageflags.PG_reserved".
std::string missing_of_plain_pages(const KernelLayout& layout);

/// Reads the struct pages of @p frames, fastest in ascending order. Plain pages are mapped folios
/// of one page, anonymous (KSM's too) or of a file; large folios, huge and zero pages, broken and
/// reserved ones and all else are left to /proc, which knows their rules.
/// @pre has_plain_pages
void read_plain_pages(KernelMemory& memory, const Kernel& kernel,
                      std::span<const std::uint64_t> frames, std::span<PlainPage> out);

/// Of each frame, 1: a page table, 0: not, 0xff: unknown (always, before the kernel had page types
/// in an enum).
void read_page_tables(KernelMemory& memory, const Kernel& kernel,
                      std::span<const std::uint64_t> frames, std::span<std::uint8_t> out);

/// A page at one moment, for judge_access.
struct Sighting {
    bool present = false;
    bool young = false; ///< of the page-table entry
    std::uint64_t frame = 0;
    std::uint64_t flags = 0; ///< Frame::flags
};

enum class Access : std::uint8_t {
    accessed,
    unknown,
    idle_unless_refilled, ///< idle if no active list was scanned meanwhile (pgrefill of vmstat)
    idle,
};

/// Whether a page was accessed between two sightings, the first of which was taken right before
/// clear_refs 1; whoever else clears accessed bits, but for MGLRU, which leaves no trace. Any
/// evidence that it was is `accessed`; any sign that evidence may have been lost is `unknown`: the
/// page left its frame, the active list or the inactive one, is on no list, or is not present.
/// Believe in idleness only where the entry is the same once more after the flags were read:
/// reclaim of the inactive list takes the last trace away right before it unmaps the page.
Access judge_access(const KernelLayout& layout, const Sighting& first, const Sighting& now);

enum class Zero : std::uint8_t { zero, not_zero, unreadable };

/// Whether every byte of each frame is zero, read through the direct map: no accessed bit moves.
/// Of what is called zero, the page-table entry must be read again: the frame may have moved on.
void test_zero(KernelMemory& memory, const Kernel& kernel, std::span<const std::uint64_t> frames,
               std::span<Zero> out);

} // namespace pagesift::walk
