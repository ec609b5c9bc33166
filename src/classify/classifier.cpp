// SPDX-License-Identifier: MIT
#include "pagesift/abi.hpp"
#include "pagesift/classify.hpp"

#include <utility>

namespace pagesift {

using namespace abi;

namespace {

// ---- Entries that are neither present nor none -------------------------------------------------

struct SwapAnswer {
    State state;
    Marker marker;
};

/// include/linux/swap.h: type 31 is the marker type, 0-22 are always swap areas; between them lie
/// migration, device and hwpoison types, or swap areas where a configuration lacks those.
SwapAnswer decide_swap(const PageFacts& page, bool frames_visible) {
    const std::uint64_t entry = page.entry;
    if (entry & PM_GUARD_REGION) return {State::marker, Marker::guard};
    if (!frames_visible) {
        // The type is hidden. Bit 57 alone may be a marker or a protected page in swap.
        return {State::unknown, Marker::no_marker};
    }
    const unsigned type = swap_type(entry);
    const std::uint64_t offset = swap_offset(entry);
    if (type == SWP_PTE_MARKER) {
        if (offset & PTE_MARKER_GUARD) return {State::marker, Marker::guard};
        if (offset & PTE_MARKER_POISONED) return {State::marker, Marker::poison};
        if (offset & PTE_MARKER_UFFD_WP) return {State::marker, Marker::uffd_wp};
        return {State::marker, Marker::other};
    }
    // Only entries that point to a frame carry bit 61, and a swap area never does. Which type is
    // which differs from kernel to kernel; the frame's own flag tells a broken one.
    if (type >= FIRST_SPECIAL_SWAP_TYPE || (entry & PM_FILE)) {
        const bool broken = page.flags && (*page.flags & kpf(KPF_HWPOISON));
        return {State::migrating, broken ? Marker::hwpoison : Marker::no_marker};
    }
    return {State::swapped, Marker::no_marker};
}

// ---- Entries that are none ---------------------------------------------------------------------

State decide_none(Backing backing, Cache cache) {
    if (backing == Backing::special || backing == Backing::device) return State::unknown;
    if (backing == Backing::anon) return State::none;
    switch (cache) {
    case Cache::hole: return State::none;
    case Cache::cached: return State::cached;
    case Cache::absent: return backing == Backing::shmem ? State::shmem_swapped : State::uncached;
    case Cache::not_asked:
    case Cache::unknown: break;
    }
    return State::unknown;
}

// ---- Present pages -----------------------------------------------------------------------------

/// Frames whose flags cannot be those of a mapped page were freed between two reads.
constexpr std::uint64_t impossible_flags =
    kpf(KPF_BUDDY) | kpf(KPF_SLAB) | kpf(KPF_NOPAGE) | kpf(KPF_PGTABLE);

struct KindInput {
    std::uint64_t entry;
    std::optional<std::uint64_t> flags;
    std::optional<std::uint32_t> map_count;
    bool zero_page;
    bool pmd_mapped;
    Backing backing;
    Content content;
    Tri ksm;
};

using KindTest = bool (*)(const KindInput&);

bool has(const KindInput& in, KpfBit bit) { return in.flags && (*in.flags & kpf(bit)); }
bool is_ksm(const KindInput& in) { return in.ksm == Tri::yes; }

struct KindRule {
    Kind kind;
    KindTest test;
};

/// First match decides.
constexpr std::array kind_rules{
    KindRule{Kind::special, [](const KindInput& in) { return in.backing == Backing::special; }},
    KindRule{Kind::zero_page,
             [](const KindInput& in) { return in.zero_page || has(in, KPF_ZERO_PAGE); }},
    KindRule{Kind::unknown,
             [](const KindInput& in) { return in.flags && (*in.flags & impossible_flags) != 0; }},
    KindRule{Kind::unknown, [](const KindInput& in) { return in.ksm == Tri::unknown; }},
    KindRule{Kind::ksm_zero,
             [](const KindInput& in) { return is_ksm(in) && in.content == Content::zero; }},
    KindRule{Kind::ksm_sole,
             [](const KindInput& in) { return is_ksm(in) && in.map_count.value_or(0) == 1; }},
    KindRule{Kind::ksm, [](const KindInput& in) { return is_ksm(in); }},
    KindRule{Kind::zero_filled, [](const KindInput& in) { return in.content == Content::zero; }},
    KindRule{
        Kind::hugetlb,
        [](const KindInput& in) { return has(in, KPF_HUGE) || in.backing == Backing::hugetlb; }},
    KindRule{Kind::thp, [](const KindInput& in) { return has(in, KPF_THP) || in.pmd_mapped; }},
    KindRule{
        Kind::anon,
        [](const KindInput& in) { return in.flags ? has(in, KPF_ANON) : !(in.entry & PM_FILE); }},
    KindRule{Kind::shmem, [](const KindInput& in) { return in.backing == Backing::shmem; }},
    KindRule{
        Kind::file,
        [](const KindInput& in) { return in.backing == Backing::file || (in.entry & PM_FILE); }},
    // A kernel page in an anonymous-looking mapping: [vdso].
    KindRule{Kind::special, [](const KindInput&) { return true; }},
};

Kind decide_kind(const KindInput& in) {
    for (const KindRule& rule : kind_rules)
        if (rule.test(in)) return rule.kind;
    return Kind::unknown;
}

/// Merged by KSM? Where every anonymous page has the flag, other facts can still rule it out: a
/// merged page is small and never exclusive, and smaps counts those of each mapping.
Tri decide_ksm(const PageFacts& page, const HostFacts& host, const Mapping& mapping) {
    if (!page.flags || !(*page.flags & kpf(KPF_KSM))) return Tri::no;
    if (host.ksm_flag_true.value_or(true)) return Tri::yes;
    constexpr std::uint64_t never_merged = kpf(KPF_COMPOUND_HEAD) | kpf(KPF_COMPOUND_TAIL) |
                                           kpf(KPF_THP) | kpf(KPF_HUGE) | kpf(KPF_ZERO_PAGE);
    if (*page.flags & never_merged) return Tri::no;
    if (host.exclusive_flag.value_or(false) && (*page.flags & kpf(KPF_OWNER_2))) return Tri::no;
    const bool none_here = mapping.smaps && mapping.smaps->ksm_bytes == 0u;
    return none_here ? Tri::no : Tri::unknown;
}

FolioSize decide_folio(const KindInput& in) {
    if (in.backing == Backing::hugetlb || has(in, KPF_HUGE)) return FolioSize::hugetlb;
    if (!in.flags) return in.pmd_mapped ? FolioSize::large : FolioSize::unknown;
    const bool compound = has(in, KPF_COMPOUND_HEAD) || has(in, KPF_COMPOUND_TAIL);
    return compound ? FolioSize::large : FolioSize::small;
}

/// What the page itself is made of, which for a private mapping of a file is not the mapping's.
Backing decide_page_backing(const KindInput& in) {
    if (in.backing == Backing::hugetlb || in.backing == Backing::special) return in.backing;
    // Flags of a frame that is another's by now say nothing of the page.
    const bool told = in.flags && (*in.flags & impossible_flags) == 0;
    const bool anon =
        told ? has(in, KPF_ANON) || has(in, KPF_ZERO_PAGE) || in.zero_page : !(in.entry & PM_FILE);
    return anon ? Backing::anon : in.backing == Backing::anon ? Backing::special : in.backing;
}

Tri tri(bool yes) { return yes ? Tri::yes : Tri::no; }

/// Dirty is about copies: an anonymous page outside the swap cache has none anywhere. Elsewhere the
/// page-table entries decide as well. Where theirs is not shown, a clean-looking page that this
/// process may write to is unknown; where it is, what other processes' entries say may still be.
Tri decide_dirty(const KindInput& in, const Mapping& mapping, Tri entry_dirty) {
    if (!in.flags) return Tri::unknown;
    if (has(in, KPF_ZERO_PAGE)) return Tri::no;
    if (has(in, KPF_DIRTY) || entry_dirty == Tri::yes) return Tri::yes;
    const bool alone = (in.entry & PM_MMAP_EXCLUSIVE) != 0;
    const Tri by_entry = alone ? entry_dirty : Tri::unknown;
    if (has(in, KPF_ANON)) {
        if (!has(in, KPF_SWAPBACKED) || has(in, KPF_SWAPCACHE)) return by_entry;
        return Tri::yes;
    }
    return mapping.shared && mapping.writable ? by_entry : Tri::no;
}

} // namespace

Classifier::Classifier(const HostFacts& host, const Mapping& mapping)
    : host_(&host), mapping_(&mapping) {}

PageClass Classifier::classify(const PageFacts& page) {
    // Frame and swap numbers decide nothing beyond the swap type, so neighbours share a key.
    const bool swap = (page.entry & PM_SWAP) && !(page.entry & PM_PRESENT);
    const std::uint64_t frame = page.entry & PM_PFRAME_MASK;
    const std::uint64_t number =
        !swap ? std::uint64_t{frame != 0}
              : swap_type(page.entry) |
                    (swap_type(page.entry) == SWP_PTE_MARKER ? (swap_offset(page.entry) & 7) << 5
                                                             : 0);
    const std::uint64_t count = page.map_count ? std::min(*page.map_count, 2u) + 1 : 0;
    const std::uint64_t small =
        number | count << 8 | static_cast<std::uint64_t>(page.pmd_mapped) << 24 |
        std::uint64_t{page.zero_page} << 11 | static_cast<std::uint64_t>(page.cache) << 12 |
        static_cast<std::uint64_t>(page.content) << 16 |
        std::uint64_t{page.flags.has_value()} << 20 | static_cast<std::uint64_t>(page.young) << 26 |
        static_cast<std::uint64_t>(page.entry_dirty) << 28;
    const std::array<std::uint64_t, 2> key{(page.entry & ~PM_PFRAME_MASK) | small,
                                           page.flags.value_or(0)};
    auto& [latest, older] = decided_;
    if (latest.any && key == latest.key) return latest.cls;
    std::swap(latest, older);
    if (!latest.any || key != latest.key) latest = {key, decide(page), true};
    return latest.cls;
}

PageClass Classifier::decide(const PageFacts& page) const {
    PageClass result;
    result.backing = mapping_->backing;
    if (mapping_->backing == Backing::special) {
        // pagemap hides these entries; such mappings are filled when they are made or touched.
        result.state = State::present;
        result.kind = Kind::special;
        return result;
    }
    if (page.entry & PM_PRESENT) {
        const KindInput in{page.entry,
                           page.flags,
                           page.entry & PM_MMAP_EXCLUSIVE ? std::optional{1u} : page.map_count,
                           page.zero_page,
                           page.pmd_mapped == Tri::yes,
                           mapping_->backing,
                           page.content,
                           decide_ksm(page, *host_, *mapping_)};
        result.state = State::present;
        result.kind = decide_kind(in);
        result.folio = decide_folio(in);
        result.backing = decide_page_backing(in);
        decide_attributes(page, result);
        result.set(Attribute::dirty, decide_dirty(in, *mapping_, page.entry_dirty));
        return result;
    }
    if (page.entry & PM_SWAP) {
        const bool visible = host_->frames_visible.value_or((page.entry & PM_PFRAME_MASK) != 0);
        const SwapAnswer answer = decide_swap(page, visible);
        result.state = answer.state;
        result.marker = answer.marker;
        result.backing = Backing::anon;
    } else {
        result.state = decide_none(mapping_->backing, page.cache);
    }
    decide_attributes(page, result);
    return result;
}

void Classifier::decide_attributes(const PageFacts& page, PageClass& result) const {
    using enum Attribute;
    const bool present = result.state == State::present;
    const bool nothing = !(page.entry & (PM_PRESENT | PM_SWAP));
    result.set(uffd_wp, tri((page.entry & PM_UFFD_WP) != 0));
    result.set(soft_dirty, nothing                            ? Tri::no
                           : host_->soft_dirty.value_or(true) ? tri(page.entry & PM_SOFT_DIRTY)
                                                              : Tri::unknown);
    if (!present) return;
    result.set(exclusive, tri((page.entry & PM_MMAP_EXCLUSIVE) != 0));
    // The accessed bit of a page-table entry is shown nowhere in /proc for a single page.
    result.set(young, page.young);
    const auto flag = [&](Attribute attribute, KpfBit bit) {
        result.set(attribute, page.flags ? tri((*page.flags & kpf(bit)) != 0) : Tri::unknown);
    };
    flag(active, KPF_ACTIVE);
    flag(unevictable, KPF_UNEVICTABLE);
    flag(mlocked, KPF_MLOCKED);
    flag(swap_cache, KPF_SWAPCACHE);
    flag(writeback, KPF_WRITEBACK);
    const bool zero = page.flags && (*page.flags & kpf(KPF_ZERO_PAGE));
    const bool free_anon = page.flags && (*page.flags & kpf(KPF_ANON)) &&
                           !(*page.flags & (kpf(KPF_SWAPBACKED) | kpf(KPF_HUGE)));
    result.set(lazyfree, page.flags ? tri(free_anon && !zero) : Tri::unknown);
    result.set(pmd_mapped, page.pmd_mapped);
}

} // namespace pagesift
