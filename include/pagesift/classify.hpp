// SPDX-License-Identifier: MIT
// The classify room: from what a source said to what a page is. One table of states and one of
// kinds give the words of every output, option and document; `PageClass` is one page's answer,
// `Census` the answer for a process. Pure: no operating system, no output format.
//
//     const PageClass c = classifier.classify(page);
//     c.state == State::swapped;  state_table()[...].name == "swapped"
#pragma once

#include "pagesift/snapshot.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift {

/// Every page of a mapping has exactly one.
enum class State : std::uint8_t {
    none,
    cached,
    uncached,
    present,
    swapped,
    shmem_swapped,
    marker,
    migrating,
    unknown,
};

/// Of a present page.
enum class Kind : std::uint8_t {
    zero_page,
    zero_filled,
    ksm,
    ksm_sole,
    ksm_zero,
    thp,
    hugetlb,
    anon,
    file,
    shmem,
    special,
    unknown,
    not_present, ///< the page is not present, so it has no kind
};

/// What an entry that is neither present, none nor swap says beside its state.
enum class Marker : std::uint8_t { no_marker, uffd_wp, guard, poison, hwpoison, other };

enum class Tri : std::uint8_t { no, yes, unknown };

enum class Attribute : std::uint8_t {
    dirty,
    soft_dirty,
    exclusive,
    young,
    active,
    unevictable,
    lazyfree,
    uffd_wp,
    pmd_mapped,
    mlocked,
    swap_cache,
    writeback,
};

enum class FolioSize : std::uint8_t { small, large, hugetlb, unknown };

struct Word {
    std::string_view name;    ///< "shmem-swapped": the word of options and tables
    std::string_view field;   ///< "shmem_swapped": the word of machine formats
    std::string_view meaning; ///< one line, for help, man page and legend
};

inline constexpr std::size_t state_count = 9;
inline constexpr std::size_t kind_count = 12; ///< without not_present
inline constexpr std::size_t attribute_count = 12;
inline constexpr std::size_t marker_count = 6;

std::span<const Word, state_count> state_table();
std::span<const Word, kind_count> kind_table();
std::span<const Word, attribute_count> attribute_table();
std::span<const Word, marker_count> marker_table(); ///< [0] is "" for no marker

/// What one page is: small, comparable, and the key under which pages are counted.
struct PageClass {
    State state = State::unknown;
    Kind kind = Kind::not_present;
    Marker marker = Marker::no_marker;
    Backing backing = Backing::anon;
    FolioSize folio = FolioSize::small;
    std::uint32_t attributes = 0; ///< two bits each, by Attribute

    bool operator==(const PageClass&) const = default;
    Tri attribute(Attribute a) const {
        return static_cast<Tri>((attributes >> (2 * static_cast<unsigned>(a))) & 3);
    }
    void set(Attribute a, Tri value) {
        const unsigned shift = 2 * static_cast<unsigned>(a);
        attributes = (attributes & ~(3u << shift)) | (static_cast<std::uint32_t>(value) << shift);
    }
    /// A number that differs exactly when the classes do.
    std::uint64_t key() const;
    static PageClass from_key(std::uint64_t key);
};

/// One page as a source saw it; what the source did not say is empty.
struct PageFacts {
    std::uint64_t entry = 0;
    std::optional<std::uint64_t> flags;
    std::optional<std::uint32_t> map_count;
    Tri pmd_mapped = Tri::no;
    bool zero_page = false;
    Cache cache = Cache::not_asked;
    Content content = Content::not_read;
    Tri young = Tri::unknown;       ///< the accessed bit of the page-table entry
    Tri entry_dirty = Tri::unknown; ///< its dirty bit
};

/// Turns facts into classes for one mapping of one host. Cheap to make; remembers the last answer,
/// because neighbours mostly look alike.
class Classifier {
public:
    Classifier(const HostFacts& host, const Mapping& mapping);
    PageClass classify(const PageFacts& page);

private:
    PageClass decide(const PageFacts& page) const;
    void decide_attributes(const PageFacts& page, PageClass& result) const;

    const HostFacts* host_;
    const Mapping* mapping_;
    struct Decided {
        std::array<std::uint64_t, 2> key{};
        PageClass cls;
        bool any = false;
    };
    std::array<Decided, 2> decided_; ///< the latest first: pages of two sorts often take turns
};

/// Consecutive pages of one state, kind and marker.
struct Run {
    AddressRange range;
    std::size_t mapping = 0;
    State state = State::unknown;
    Kind kind = Kind::not_present;
    Marker marker = Marker::no_marker;
    std::optional<unsigned> swap_type;        ///< of swapped and, where known, shmem-swapped
    std::optional<std::uint64_t> swap_offset; ///< of the first page
    bool swap_contiguous = false;             ///< offsets go up page by page
    /// Two bits each, by Attribute: a Tri that all pages have, or 3 where they differ.
    std::uint32_t attributes = 0;
    bool contents_read = false; ///< with LookOptions::all_runs: of present pages, to an answer
    Tri matches = Tri::yes;     ///< with LookOptions::all_runs: what `where` says of the pages

    /// What all pages of the run have; empty where they differ.
    std::optional<Tri> attribute(Attribute a) const {
        const auto bits = (attributes >> (2 * static_cast<unsigned>(a))) & 3;
        return bits == 3 ? std::nullopt : std::optional{static_cast<Tri>(bits)};
    }
};

/// Consecutive pages that whoever acts on memory treats alike: see LookOptions::on_stretch.
struct Stretch {
    AddressRange range;
    std::size_t mapping = 0;
    /// Of its attributes only those of stretch_attributes(), the others are unset.
    PageClass cls;
    Tri matches = Tri::yes;    ///< what `where` says of the pages
    Tri sole = Tri::unknown;   ///< of present pages: each is mapped once, in all processes together
    Tri on_lru = Tri::unknown; ///< of present pages: KPF_LRU; a fresh page is on no list yet
    /// Pages of the large folio that they are parts of; 1: small pages; empty: not known.
    std::optional<std::uint64_t> folio_pages = 1;
    std::uint64_t folio_page = 0; ///< of the first page: which page of its large folio it is
    std::uint64_t first_frame = 0, last_frame = 0; ///< of large folios; 0: not known
};

/// What a stretch keeps apart: an action may treat such pages differently.
std::span<const Attribute> stretch_attributes();

/// One page in full, for --pages.
struct Page {
    Address address;
    std::size_t mapping = 0;
    PageClass cls;
    std::optional<std::uint64_t> pfn, flags, sharers, swap_offset;
    std::optional<unsigned> swap_type;
    std::optional<std::uint64_t> folio_pages; ///< 1 for a small page; empty: not known
    bool folio_aligned = true; ///< the large folio is mapped at an address aligned to its size
};

/// Counts of pages by class, and the sums that classes cannot give.
class Tally {
public:
    struct Entry {
        PageClass cls;
        bool share_known = true; ///< false: of some page the map count is not known
        std::uint64_t pages = 0;
        /// Pages << 24, each over its map count; without those of which that is not known.
        std::uint64_t share_shifted = 0;
        /// Whether there is a map count: what is not present, or no frame of its own, has none.
        bool has_share() const {
            return cls.state == State::present && cls.kind != Kind::zero_page &&
                   cls.kind != Kind::special;
        }
    };
    static constexpr unsigned share_bits = 24;
    void add(PageClass cls, std::uint64_t pages, std::uint64_t share_shifted, bool share_known);
    /// Of pages that each are mapped once, or have no map count.
    void add(PageClass cls, std::uint64_t pages) { add(cls, pages, pages << share_bits, true); }
    void add(const Tally& other);
    void add_folio_pages(std::size_t order, std::uint64_t pages);
    /// Of a sample: makes it an estimate for @p pages pages. What was read of contents stays as it
    /// is, because more was not read.
    void extrapolate(std::uint64_t pages);
    std::span<const Entry> entries() const { return entries_; }

    std::uint64_t pages() const;
    std::uint64_t state_pages(State state) const;
    std::uint64_t kind_pages(Kind kind) const;
    std::uint64_t marker_pages(Marker marker) const;

    std::uint64_t pss_shifted = 0; ///< as the kernel adds it: bytes << 12 over map count
    std::uint64_t pss_unknown_pages = 0;
    std::uint64_t private_pages = 0;      ///< resident and mapped once (unique set size)
    std::uint64_t ksm_sharer_pages = 0;   ///< KSM pages weighted 1/map count, shifted by 12 bits
    std::uint64_t content_asked = 0;      ///< pages whose contents were wanted and readable
    std::uint64_t content_zero = 0;       ///< of these, all bytes zero
    std::uint64_t content_candidates = 0; ///< pages whose contents could matter: present, own frame
    std::vector<std::uint64_t> folio_order_pages; ///< pages by order of their large folio
    std::uint64_t folio_unaligned_pages = 0; ///< of large folios mapped off their natural alignment

private:
    std::vector<Entry> entries_;
    std::size_t last_ = 0;
};

/// What one page-table slot (page_size²/8 bytes of address space) holds.
enum class SlotState : std::uint8_t { no_table, empty, marker_only, populated, huge, unknown };

struct Slot {
    AddressRange range;
    SlotState state = SlotState::unknown;
    bool reclaimable =
        false;             ///< one mapping covers the slot whole, so its empty table can be freed
    bool spanning = false; ///< several mappings share the table, so it cannot be freed
};

struct PageTables {
    std::optional<std::uint64_t> total_bytes;  ///< VmPTE
    std::uint64_t needed_tables = 0;           ///< all counted levels
    std::optional<std::uint64_t> empty_tables; ///< surplus: VmPTE less what must exist, all levels
    std::optional<std::uint64_t> located_tables; ///< empty PTE tables whose place is known
    std::optional<std::uint64_t> reclaimable_bytes;
    std::optional<std::uint64_t> spanning_tables;
    std::uint64_t marker_only_tables = 0;
    /// Tables that may be needed or not, because huge entries are not shown.
    std::uint64_t uncertain_tables = 0;
    std::vector<Slot> slots; ///< the empty and the marker-only ones, in address order
    bool partial = false;    ///< only some of the address space was looked at
};

struct MappingCensus {
    Mapping mapping;
    Tally tally;
    bool whole = true; ///< false: clipped by --address, or partly unreadable
};

/// What smaps says of all mappings together; empty where it was not read, or not for all of them.
/// These take the place of counts of pages where the kernel does not tell single pages apart.
struct SmapsSums {
    std::optional<std::uint64_t> swap_bytes, ksm_bytes, anon_huge_bytes, shared_huge_bytes;
};

/// Everything that was learned of one process.
struct Census {
    HostFacts host;
    ProcessText process;
    std::string lens = "proc";
    Want want;
    double elapsed_seconds = 0;
    std::vector<MappingCensus> mappings;
    Tally totals;
    PageTables tables;
    std::vector<Gap> gaps;
    bool frames_known = true; ///< kpageflags was read
    SmapsSums smaps;
    std::uint64_t undecided_pages = 0; ///< pages that --where could not decide, by unknown
    bool interrupted = false;
    /// Of its pages; below 1 the tallies are estimates for all of them (scan::extrapolate).
    double looked_share = 1;
};

/// A condition on mappings and classes; three-valued, because an unknown attribute decides nothing.
class Filter {
public:
    /// Throws Error(usage) that points at the wrong word.
    static Filter parse(std::string_view expression);
    Filter();
    ~Filter();
    Filter(const Filter&);
    Filter(Filter&&) noexcept;
    Filter& operator=(Filter) noexcept;

    bool always() const { return !root_; } ///< made without an expression
    bool needs_contents() const;           ///< asks for zero-filled pages, so contents must be read
    Tri matches(const Mapping& mapping, const PageClass& cls) const;

    struct Node;

private:
    std::shared_ptr<const Node> root_;
};

struct LookOptions {
    Want want;
    unsigned jobs = 2;
    std::vector<AddressRange> only; ///< in whole pages; empty: everything
    Filter where;
    std::function<void(const Run&)> on_run;   ///< called in address order; empty: no runs are made
    std::function<void(const Page&)> on_page; ///< likewise
    /// Likewise, of all pages, also of those for which `where` does not hold.
    std::function<void(const Stretch&)> on_stretch;
    /// Runs of all pages, also of those for which `where` does not hold, told apart by
    /// Run::contents_read and Run::matches.
    bool all_runs = false;
    /// Before the first run.
    std::function<void(const ProcessText&, std::span<const Mapping>)> on_mappings;
    /// What to look at, once the mappings are known, in place of `only`.
    std::function<std::vector<AddressRange>(std::span<const Mapping>)> choose;
    std::function<bool()> interrupted; ///< asked between pieces
    /// Before what comes of some blocks is handed on, all of which have been read.
    std::function<void()> on_piece;
};

/// Looks at the whole process. Throws Error where nothing can be had; everything else that could
/// not be seen is in Census::gaps.
Census look(Source& source, const LookOptions& options);

/// Part of a mapping, looked at again.
struct SecondLook {
    /// In address order; `mapping` is 0, and classes have all their attributes.
    std::vector<Stretch> stretches;
    std::vector<std::uint64_t> frames; ///< one a page of all stretches; 0: none, or not known
    bool complete = true;              ///< false: the target has gone, or something was not read
};
/// Looks at @p range of @p mapping alone, after source.mappings() was called. Has no side effects
/// on the target that read_block() does not have.
SecondLook look_again(Source& source, const Mapping& mapping, AddressRange range, const Want& want,
                      const Filter& where);

/// Wilson score interval of a sampled share, 95 %.
struct Interval {
    double low = 0, high = 1;
};
Interval wilson_interval(std::uint64_t hits, std::uint64_t sampled);

} // namespace pagesift
