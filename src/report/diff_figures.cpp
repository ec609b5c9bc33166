// SPDX-License-Identifier: MIT
#include "report/diff_figures.hpp"

#include "pagesift/figures.hpp"

#include <algorithm>
#include <cassert>

namespace pagesift::report {
namespace {

/// What both looks make of kinds.
class ComparedKinds {
public:
    explicit ComparedKinds(const ProcessDiff& diff) : before_{diff.before}, after_{diff.after} {
        for (std::size_t i = 0; i < kind_count; ++i) {
            const auto kind = static_cast<Kind>(i);
            less_before_ |= !before_.recognised(kind) && after_.recognised(kind);
            less_after_ |= before_.recognised(kind) && !after_.recognised(kind);
        }
    }

    Change change(Kind kind, const Figures& before, const Figures& after) const {
        Change c{"kinds",
                 kind_table()[static_cast<std::size_t>(kind)].field,
                 "bytes",
                 before_.bytes(before, kind),
                 after_.bytes(after, kind),
                 true};
        // What recognises less counts more here; where it counted nothing, that is certain.
        if (takes_in_others(kind))
            c.comparable =
                (!less_before_ || before.of(kind) == 0) && (!less_after_ || after.of(kind) == 0);
        return c;
    }

private:
    KnownKinds before_, after_;
    bool less_before_ = false, less_after_ = false;
};

/// Whether some of the pages whose state is not known may be in @p state.
bool is_lower_bound(const Tally& tally, State state) {
    const auto may_be = [&](Backing backing) {
        switch (state) {
        case State::none: return true;
        case State::cached: return backing == Backing::file || backing == Backing::shmem;
        case State::uncached: return backing == Backing::file;
        case State::shmem_swapped: return backing == Backing::shmem;
        case State::swapped:
        case State::marker:
        case State::migrating: return backing == Backing::anon;
        case State::present:
        case State::unknown: break;
        }
        return false;
    };
    const auto entries = tally.entries();
    return std::any_of(entries.begin(), entries.end(), [&](const Tally::Entry& e) {
        const bool answerable =
            e.cls.backing != Backing::device && e.cls.backing != Backing::special;
        return e.cls.state == State::unknown && answerable && may_be(e.cls.backing);
    });
}

void add_classes(std::vector<Change>& changes, const ProcessDiff& diff, const Tally& before,
                 const Tally& after) {
    const Figures a = figures_of(before, diff.before.host.page_size);
    const Figures b = figures_of(after, diff.after.host.page_size);
    for (std::size_t i = 0; i < state_count; ++i) {
        const auto state = static_cast<State>(i);
        changes.push_back({"states", state_table()[i].field, "bytes", a.states[i], b.states[i],
                           !is_lower_bound(before, state) && !is_lower_bound(after, state)});
    }
    const ComparedKinds kinds{diff};
    for (std::size_t i = 0; i < kind_count; ++i)
        changes.push_back(kinds.change(static_cast<Kind>(i), a, b));
    for (std::size_t i = 1; i < marker_count; ++i)
        changes.push_back(
            {"markers", marker_table()[i].field, "bytes", a.markers[i], b.markers[i], true});
}

void add_totals(std::vector<Change>& changes, const ProcessDiff& diff) {
    const RollupFigures a = rollup_figures(diff.before), b = rollup_figures(diff.after);
    const auto size = [](const Census& c) { return c.totals.pages() * c.host.page_size; };
    const auto uss = [](const Census& c) {
        return c.totals.pss_unknown_pages == 0
                   ? std::optional{c.totals.private_pages * c.host.page_size}
                   : std::nullopt;
    };
    const auto add = [&](std::string_view name, std::optional<std::uint64_t> before,
                         std::optional<std::uint64_t> after) {
        changes.push_back({"totals", name, "bytes", before, after, true});
    };
    add("size", size(diff.before), size(diff.after));
    add("rss", a.rss, b.rss);
    add("pss", a.pss, b.pss);
    add("uss", uss(diff.before), uss(diff.after));
    add("swap", a.swap, b.swap);
    add("anonymous", a.anonymous, b.anonymous);
}

void add_tables(std::vector<Change>& changes, const ProcessDiff& diff) {
    const PageTables &a = diff.before.tables, &b = diff.after.tables;
    const auto add = [&](std::string_view name, std::string_view unit,
                         std::optional<std::uint64_t> before, std::optional<std::uint64_t> after) {
        changes.push_back({"page_tables", name, unit, before, after, true});
    };
    const auto whole = [](const PageTables& t, std::uint64_t value) {
        return t.partial ? std::nullopt : std::optional{value};
    };
    add("total", "bytes", a.total_bytes, b.total_bytes);
    add("needed", "tables", whole(a, a.needed_tables), whole(b, b.needed_tables));
    add("empty", "tables", a.empty_tables, b.empty_tables);
    add("located", "tables", a.located_tables, b.located_tables);
    add("reclaimable", "bytes", a.reclaimable_bytes, b.reclaimable_bytes);
    add("spanning", "tables", a.spanning_tables, b.spanning_tables);
    add("marker_only", "tables", a.marker_only_tables, b.marker_only_tables);
}

bool holds_memory(const Sighting& s) {
    return s.mapped && s.state != State::none && s.state != State::uncached;
}

} // namespace

std::vector<Change> total_changes(const ProcessDiff& diff) {
    std::vector<Change> changes;
    add_totals(changes, diff);
    add_classes(changes, diff, diff.before.totals, diff.after.totals);
    add_tables(changes, diff);
    return changes;
}

std::vector<Change> mapping_changes(const ProcessDiff& diff, const MappingPair& pair) {
    Tally before, after;
    for (const std::size_t i : pair.before) before.add(diff.before.mappings[i].tally);
    for (const std::size_t j : pair.after) after.add(diff.after.mappings[j].tally);
    std::vector<Change> changes;
    add_classes(changes, diff, before, after);
    return changes;
}

std::optional<std::int64_t> swapped_delta(const std::vector<Change>& changes) {
    const auto anon = find(changes, "states", "swapped").delta();
    const auto shmem = find(changes, "states", "shmem_swapped").delta();
    return anon && shmem ? std::optional{*anon + *shmem} : std::nullopt;
}

const Change& find(const std::vector<Change>& changes, std::string_view section,
                   std::string_view name) {
    const auto found = std::find_if(changes.begin(), changes.end(), [&](const Change& c) {
        return c.section == section && c.name == name;
    });
    assert(found != changes.end());
    return *found;
}

std::optional<std::uint64_t> sort_pages(const ProcessDiff& diff, const Fates& fates) {
    const bool by_contents = &fates == &diff.zero_filled;
    if (by_contents && fates.pages == 0 && fates.unread_pages != 0 &&
        diff.before.want.zero != ZeroTest::all)
        return {};
    return fates.pages;
}

std::optional<std::uint64_t> fate_pages(const ProcessDiff& diff, const Fates& fates, Fate fate) {
    if (!sort_pages(diff, fates)) return {};
    const bool by_contents = fate == Fate::zero_filled || fate == Fate::other_content;
    if (by_contents && diff.after.want.zero == ZeroTest::off &&
        fates.of(Fate::contents_unread) != 0)
        return {};
    return fates.of(fate);
}

std::string_view state_word(const Sighting& seen) {
    return seen.mapped ? word_of(seen.state).name : "unmapped";
}

std::string_view kind_word(const Sighting& seen) {
    return seen.mapped && seen.kind != Kind::not_present ? word_of(seen.kind).name : "";
}

std::string_view sighting_word(const Sighting& seen) {
    if (!seen.mapped || seen.kind == Kind::not_present) return state_word(seen);
    return seen.kind == Kind::unknown ? "present-unknown" : kind_word(seen);
}

bool moves_memory(const Transition& t) {
    return t.from != t.to && (holds_memory(t.from) || holds_memory(t.to));
}

std::uint64_t changed_bytes(const MappingPair& pair, std::uint64_t page_size) {
    std::uint64_t pages = 0;
    for (const Transition& t : pair.transitions)
        if (moves_memory(t)) pages += t.pages;
    return pages * page_size;
}

bool has_changed(const MappingPair& pair) {
    return pair.change != MappingChange::same ||
           std::any_of(pair.transitions.begin(), pair.transitions.end(),
                       [](const Transition& t) { return t.from != t.to; });
}

const Mapping& mapping_of(const ProcessDiff& diff, const MappingPair& pair) {
    return pair.after.empty() ? diff.before.mappings[pair.before[0]].mapping
                              : diff.after.mappings[pair.after[0]].mapping;
}

std::optional<AddressRange> range_of(const ProcessDiff& diff, const MappingPair& pair,
                                     Picture picture) {
    const bool before = picture == Picture::before;
    const auto& places = before ? pair.before : pair.after;
    const auto& mappings = before ? diff.before.mappings : diff.after.mappings;
    if (places.empty()) return {};
    return AddressRange{mappings[places.front()].mapping.range.start,
                        mappings[places.back()].mapping.range.end};
}

std::vector<PictureGap> all_gaps(const ProcessDiff& diff) {
    std::vector<PictureGap> gaps;
    for (const Gap& gap : diff.gaps) gaps.push_back({&gap, "both"});
    for (const auto* census : {&diff.before, &diff.after}) {
        const auto& others = census == &diff.before ? diff.after.gaps : diff.before.gaps;
        for (const Gap& gap : census->gaps) {
            const bool in_both = std::find(others.begin(), others.end(), gap) != others.end();
            if (in_both && census == &diff.after) continue;
            gaps.push_back({&gap, in_both ? "both" : census == &diff.before ? "before" : "after"});
        }
    }
    return gaps;
}

std::string_view zero_word(ZeroTest zero) {
    static constexpr std::array<std::string_view, 3> words{"off", "sample", "all"};
    return words[static_cast<std::size_t>(zero)];
}

std::string_view match_word(Match match) {
    static constexpr std::array<std::string_view, 3> words{"same", "assumed", "replaced"};
    return words[static_cast<std::size_t>(match)];
}

const Word& word_of(MappingChange change) {
    return mapping_change_table()[static_cast<std::size_t>(change)];
}
const Word& word_of(Fate fate) { return fate_table()[static_cast<std::size_t>(fate)]; }

} // namespace pagesift::report
