// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"

namespace pagesift {
namespace {

/// fs/proc/task_mmu.c:smaps_account: what has a page behind it, migration entries included; the
/// zero page, hugetlb (smaps_hugetlb_range) and frames without a page do not count.
bool counts_as_resident(const PageClass& c) {
    if (c.state == State::migrating) return c.backing != Backing::hugetlb;
    return c.state == State::present && c.kind != Kind::zero_page && c.kind != Kind::special &&
           c.kind != Kind::hugetlb && c.backing != Backing::hugetlb;
}

void add_class(Figures& f, const PageClass& cls, std::uint64_t bytes) {
    f.size += bytes;
    f.states[static_cast<std::size_t>(cls.state)] += bytes;
    if (cls.kind != Kind::not_present) f.kinds[static_cast<std::size_t>(cls.kind)] += bytes;
    f.markers[static_cast<std::size_t>(cls.marker)] += bytes;
    if (counts_as_resident(cls)) f.resident += bytes;
}

std::uint64_t share_bytes(const Tally::Entry& entry, std::uint64_t page_size) {
    if (!entry.has_share()) return entry.pages * page_size;
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(Wide{entry.share_shifted} * page_size >> Tally::share_bits);
}

} // namespace

Figures figures_of(const Tally& tally, std::uint64_t page_size) {
    Figures f;
    for (const Tally::Entry& entry : tally.entries())
        add_class(f, entry.cls, entry.pages * page_size);
    return f;
}

ShareFigures share_figures(const Tally& tally, std::uint64_t page_size) {
    ShareFigures f;
    f.kinds_known.fill(true);
    f.attributes_known.fill(true);
    f.pss_known.fill(true);
    for (const Tally::Entry& entry : tally.entries()) {
        const PageClass& cls = entry.cls;
        const std::uint64_t bytes = share_bytes(entry, page_size);
        add_class(f, cls, bytes);
        if (cls.kind != Kind::not_present && !entry.share_known)
            f.kinds_known[static_cast<std::size_t>(cls.kind)] = false;
        for (std::size_t i = 0; i < attribute_count; ++i) {
            const Tri has = cls.attribute(static_cast<Attribute>(i));
            if (has == Tri::yes) f.attributes[i] += bytes;
            if (has == Tri::unknown || (has == Tri::yes && !entry.share_known))
                f.attributes_known[i] = false;
        }
        if (cls.state != State::present || !counts_as_resident(cls)) continue;
        const auto backing = static_cast<std::size_t>(cls.backing);
        f.pss[backing] += bytes;
        f.pss_known[backing] = f.pss_known[backing] && entry.share_known;
    }
    return f;
}

KnownKinds::KnownKinds(const Census& census) {
    known_.fill(true);
    const auto forget = [&](Kind kind) { known_[static_cast<std::size_t>(kind)] = false; };
    const bool ksm = census.frames_known &&
                     (census.host.ksm_flag_true.value_or(true) || census.smaps.ksm_bytes == 0u);
    const bool contents = census.want.zero == ZeroTest::all;
    if (!ksm) {
        forget(Kind::ksm);
        forget(Kind::ksm_sole);
    }
    if (!census.frames_known) forget(Kind::thp);
    if (!contents) forget(Kind::zero_filled);
    if (!ksm || !contents) forget(Kind::ksm_zero);
}

std::optional<std::uint64_t> KnownKinds::bytes(const Figures& figures, Kind kind) const {
    if (!recognised(kind) && figures.of(State::present) != 0) return {};
    return figures.of(kind);
}

AttributeFigures attribute_figures(const Tally& tally, std::uint64_t page_size) {
    AttributeFigures f;
    for (const Tally::Entry& entry : tally.entries()) {
        const std::uint64_t bytes = entry.pages * page_size;
        for (std::size_t i = 0; i < attribute_count; ++i) {
            const Tri value = entry.cls.attribute(static_cast<Attribute>(i));
            if (value == Tri::yes) f.yes[i] += bytes;
            if (value == Tri::unknown) f.unknown[i] += bytes;
        }
    }
    return f;
}

namespace {

RollupFigures rollup_figures(const Census& census, const Tally& tally, const SmapsSums& smaps) {
    RollupFigures r;
    const std::uint64_t page_size = census.host.page_size;
    const Figures f = figures_of(tally, page_size);
    std::uint64_t anonymous = 0, huge = 0, shared_hugetlb = 0, private_hugetlb = 0;
    bool swap_known = true, huge_known = true;
    for (const Tally::Entry& entry : tally.entries()) {
        const PageClass& cls = entry.cls;
        const std::uint64_t bytes = entry.pages * page_size;
        if (cls.state == State::present && cls.backing == Backing::hugetlb)
            (cls.attribute(Attribute::exclusive) == Tri::yes ? private_hugetlb : shared_hugetlb) +=
                bytes;
        if (counts_as_resident(cls) && cls.backing == Backing::anon) {
            const Tri pmd = cls.attribute(Attribute::pmd_mapped);
            huge_known = huge_known && pmd != Tri::unknown;
            huge += pmd == Tri::yes ? bytes : 0;
            anonymous += bytes;
        }
        // Hidden swap entries, and none entries whose page cache could not be asked.
        if (cls.state == State::unknown &&
            (cls.backing == Backing::anon || cls.backing == Backing::shmem))
            swap_known = false;
    }
    r.rss = f.resident;
    r.anonymous = anonymous;
    if (tally.pss_unknown_pages == 0) r.pss = tally.pss_shifted >> 12;
    r.swap = swap_known ? std::optional{f.swapped()} : smaps.swap_bytes;
    r.anon_huge_pages = huge_known ? std::optional{huge} : smaps.anon_huge_bytes;
    r.shared_hugetlb = shared_hugetlb;
    r.private_hugetlb = private_hugetlb;
    if (census.frames_known && census.host.ksm_flag_true.value_or(true))
        r.ksm = f.of(Kind::ksm) + f.of(Kind::ksm_sole) + f.of(Kind::ksm_zero);
    else
        r.ksm = smaps.ksm_bytes;
    return r;
}

} // namespace

RollupFigures rollup_figures(const Census& census) {
    for (const Gap& gap : census.gaps)
        if (gap.incomplete) return {};
    return rollup_figures(census, census.totals, census.smaps);
}

RollupFigures rollup_figures(const Census& census, const MappingCensus& mapping) {
    if (!mapping.whole) return {};
    SmapsSums smaps;
    if (const auto& facts = mapping.mapping.smaps)
        smaps = {facts->swap_bytes, facts->ksm_bytes, facts->anon_huge_bytes,
                 facts->shared_huge_bytes};
    return rollup_figures(census, mapping.tally, smaps);
}

std::optional<ZeroEstimate> zero_estimate(const Census& census) {
    if (census.want.zero == ZeroTest::off) return {};
    const Tally& t = census.totals;
    return ZeroEstimate{t.content_asked, t.content_zero, t.content_candidates,
                        wilson_interval(t.content_zero, t.content_asked)};
}

std::string_view backing_word(Backing backing) {
    static constexpr std::array<std::string_view, all_backings.size()> words{
        "anon", "file", "shmem", "hugetlb", "special", "device"};
    return words[static_cast<std::size_t>(backing)];
}

std::string_view slot_word(SlotState state) {
    static constexpr std::array<std::string_view, all_slot_states.size()> words{
        "no-table", "empty", "marker-only", "populated", "huge", "unknown"};
    return words[static_cast<std::size_t>(state)];
}

} // namespace pagesift
