// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "pagesift/scan.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <limits>

namespace pagesift::scan {
namespace {

using Number = std::optional<std::uint64_t>;

Value value_of(const Number& number) { return number ? Value{*number} : Value{}; }
Value value_of(const std::string& text) { return text.empty() ? Value{} : Value{text}; }

/// Where the fields of each table of words begin; they are in the order of the table.
struct Places {
    std::size_t states = *find_field(fmt::format("{}_bytes", state_table()[0].field));
    std::size_t kinds = *find_field(fmt::format("{}_bytes", kind_table()[0].field));
    std::size_t markers = *find_field(fmt::format("{}_bytes", marker_table()[1].field));
    std::size_t attributes = *find_field(fmt::format("{}_bytes", attribute_table()[0].field));
};

const Places& places() {
    static const Places all;
    return all;
}

Record named(const Identity& identity, std::string_view lens, Depth depth) {
    Record r;
    r.set("pid", std::uint64_t{identity.pid});
    r.set("parent_pid", std::uint64_t{identity.parent});
    r.set("start_time_ticks", identity.start_time);
    r.set("comm", identity.comm);
    r.set("exe", value_of(identity.exe));
    r.set("user", value_of(identity.user));
    if (identity.uid) r.set("uid", std::uint64_t{*identity.uid});
    r.set("cgroup", value_of(identity.cgroup));
    r.set("depth", std::string{depth_word(depth)});
    r.set("lens", std::string{lens});
    return r;
}

bool is_complete(const Census& census) {
    return !census.interrupted && std::none_of(census.gaps.begin(), census.gaps.end(),
                                               [](const Gap& gap) { return gap.incomplete; });
}

// --- What smaps_rollup says ----------------------------------------------------------------------

struct RollupField {
    const char* field;
    std::array<const char*, 2> keys; ///< a sum, where there are two
};
constexpr RollupField rollup_fields[] = {
    {"rss_bytes", {"Rss"}},
    {"pss_bytes", {"Pss"}},
    {"pss_anon_bytes", {"Pss_Anon"}},
    {"pss_file_bytes", {"Pss_File"}},
    {"pss_shmem_bytes", {"Pss_Shmem"}},
    {"private_bytes", {"Private_Clean", "Private_Dirty"}},
    {"swap_bytes", {"Swap"}},
    {"swap_pss_bytes", {"SwapPss"}},
    {"anonymous_bytes", {"Anonymous"}},
    {"ksm_merged_bytes", {"KSM"}},
    {"anon_huge_pages_bytes", {"AnonHugePages"}},
    {"shared_hugetlb_bytes", {"Shared_Hugetlb"}},
    {"private_hugetlb_bytes", {"Private_Hugetlb"}},
};

Number find(const procfs::SizeFields& sizes, const RollupField& wanted) {
    auto sum = sizes.find(wanted.keys[0]);
    if (!wanted.keys[1]) return sum;
    const auto second = sizes.find(wanted.keys[1]);
    return sum && second ? std::optional{*sum + *second} : std::nullopt;
}

/// Fills what is not known yet; gives the keys that the text did not have.
std::string fill_rollup(Record& r, const procfs::SizeFields& sizes) {
    std::string missing;
    for (const RollupField& wanted : rollup_fields) {
        Value& value = r.values[*find_field(wanted.field)];
        if (is_known(value)) continue;
        value = value_of(find(sizes, wanted));
        if (!is_known(value))
            missing += fmt::format("{}{}", missing.empty() ? "" : ", ", wanted.keys[0]);
    }
    return missing;
}

/// For add_rollup(), which knows better than an estimate.
void forget_rollup(Record& r) {
    for (const RollupField& field : rollup_fields) r.set(field.field, Value{});
}

// --- What the pages say --------------------------------------------------------------------------

/// The figures of a tally, and how the record's values follow from them.
void fill_classes(Record& r, const Figures& figures, const KnownKinds& known) {
    for (std::size_t i = 0; i < state_count; ++i) r.values[places().states + i] = figures.states[i];
    for (std::size_t i = 0; i < kind_count; ++i)
        r.values[places().kinds + i] = value_of(known.bytes(figures, static_cast<Kind>(i)));
    for (std::size_t i = 1; i < marker_count; ++i)
        r.values[places().markers + i - 1] = figures.markers[i];
}

void fill_rollup_figures(Record& r, const RollupFigures& rollup) {
    r.set("rss_bytes", value_of(rollup.rss));
    r.set("pss_bytes", value_of(rollup.pss));
    r.set("swap_bytes", value_of(rollup.swap));
    r.set("anonymous_bytes", value_of(rollup.anonymous));
    r.set("ksm_merged_bytes", value_of(rollup.ksm));
    r.set("anon_huge_pages_bytes", value_of(rollup.anon_huge_pages));
    r.set("shared_hugetlb_bytes", value_of(rollup.shared_hugetlb));
    r.set("private_hugetlb_bytes", value_of(rollup.private_hugetlb));
}

void fill_pss(Record& r, const Tally& tally, std::uint64_t page_size) {
    const ShareFigures shares = share_figures(tally, page_size);
    const auto pss = [&](const char* field, Backing backing) {
        const auto i = static_cast<std::size_t>(backing);
        if (shares.pss_known[i]) r.set(field, shares.pss[i]);
    };
    pss("pss_anon_bytes", Backing::anon);
    pss("pss_file_bytes", Backing::file);
    pss("pss_shmem_bytes", Backing::shmem);
    if (tally.pss_unknown_pages == 0) r.set("private_bytes", tally.private_pages * page_size);
}

void fill_contents(Record& r, const Tally& tally, const Census& census) {
    const Want& want = census.want;
    const std::uint64_t page_size = census.host.page_size;
    if (want.zero == ZeroTest::off) return;
    const std::uint64_t candidates = tally.content_candidates, asked = tally.content_asked;
    r.set("sampled_share",
          candidates == 0 ? 1.0 : static_cast<double>(asked) / static_cast<double>(candidates));
    std::uint64_t low = tally.content_zero, high = low + (candidates - std::min(asked, candidates));
    // Pages of one block are alike, so a sample of blocks says less than its number of pages.
    if (want.zero == ZeroTest::sample && asked < candidates && census.looked_share >= 1) {
        const Interval share = wilson_interval(tally.content_zero, asked);
        const auto pages = [&](double part) {
            return static_cast<std::uint64_t>(part * static_cast<double>(candidates));
        };
        // What was seen is certain, whatever the rest is.
        low = std::max(low, pages(share.low));
        high = std::min(high, std::max(low, pages(share.high) + 1));
    }
    r.set("zero_filled_low_bytes", low * page_size);
    r.set("zero_filled_high_bytes", high * page_size);
}

/// What a whole process and one mapping have in common.
void fill_tally(Record& r, const Census& census, const Tally& tally) {
    const std::uint64_t page_size = census.host.page_size;
    const Figures figures = figures_of(tally, page_size);
    const KnownKinds known{census};
    r.set("size_bytes", figures.size);
    fill_classes(r, figures, known);
    const AttributeFigures attributes = attribute_figures(tally, page_size);
    for (std::size_t i = 0; i < attribute_count; ++i)
        r.values[places().attributes + i] = value_of(attributes.of(static_cast<Attribute>(i)));
    fill_pss(r, tally, page_size);
    fill_contents(r, tally, census);
    if (census.frames_known) {
        r.set("folio_unaligned_bytes", tally.folio_unaligned_pages * page_size);
        if (known.recognised(Kind::ksm))
            r.set("ksm_share_bytes", tally.ksm_sharer_pages * page_size >> 12);
    }
}

void fill_tables(Record& r, const PageTables& tables) {
    r.set("page_tables_bytes", value_of(tables.total_bytes));
    r.set("empty_tables", value_of(tables.empty_tables));
    r.set("located_tables", value_of(tables.located_tables));
    r.set("reclaimable_bytes", value_of(tables.reclaimable_bytes));
    r.set("spanning_tables", value_of(tables.spanning_tables));
    if (tables.partial) return;
    r.set("needed_tables", tables.needed_tables);
    r.set("marker_only_tables", tables.marker_only_tables);
}

void fill_part(Record& r, const Mapping& mapping, AddressRange range) {
    r.set("start", range.start.value);
    r.set("end", range.end.value);
    r.set("name", mapping.name);
    r.set("permissions", mapping.permissions());
    r.set("backing", std::string{backing_word(mapping.backing)});
}

/// The remedies of inspect, in the words of scan.
std::vector<Gap> gaps_of(const Census& census) {
    auto gaps = census.gaps;
    for (Gap& gap : gaps)
        if (gap.source == "contents" && gap.remedy.starts_with("--zero"))
            gap.remedy = "--depth content";
    return gaps;
}

} // namespace

Record make_record(const Identity& identity, const Rollup& rollup) {
    Record r = named(identity, "rollup", Depth::totals);
    r.gaps = rollup.gaps;
    r.set("processes", std::uint64_t{1});
    r.set("complete", true);
    r.set("page_tables_bytes", value_of(rollup.status.vm_pte_bytes));
    r.set("size_bytes", value_of(rollup.status.vm_size_bytes));
    if (rollup.status.tgid && !rollup.status.has_memory()) {
        // A kernel thread, or a process that has ended and waits for its parent: certainly nothing.
        r.set("size_bytes", std::uint64_t{0});
        r.set("page_tables_bytes", std::uint64_t{0});
        for (const RollupField& field : rollup_fields) r.set(field.field, std::uint64_t{0});
        return r;
    }
    const std::string missing = fill_rollup(r, rollup.sizes);
    if (rollup.sizes.empty()) {
        if (r.gaps.empty())
            r.gaps.push_back({"smaps_rollup", std::nullopt, "could not be read",
                              "the target's user, or CAP_SYS_PTRACE", false});
        r.set("rss_bytes", value_of(rollup.status.vm_rss_bytes));
    } else if (!missing.empty()) {
        r.gaps.push_back({"smaps_rollup", std::nullopt,
                          fmt::format("this kernel does not tell {}", missing), "a newer kernel",
                          false});
    }
    return r;
}

void add_rollup(Record& record, const Rollup& rollup) { fill_rollup(record, rollup.sizes); }

Record make_record(const Identity& identity, const Census& census, Depth depth) {
    Record r = named(identity, census.lens, depth);
    r.gaps = gaps_of(census);
    r.set("processes", std::uint64_t{1});
    r.set("complete", is_complete(census));
    r.set("looked_share", census.looked_share);
    r.set("elapsed_seconds", census.elapsed_seconds);
    fill_tally(r, census, census.totals);
    if (census.looked_share < 1)
        forget_rollup(r);
    else
        fill_rollup_figures(r, rollup_figures(census));
    fill_tables(r, census.tables);
    return r;
}

Record make_record(const Identity& identity, const Census& census, const MappingCensus& mapping,
                   Depth depth) {
    Record r = named(identity, census.lens, depth);
    r.set("complete", mapping.whole);
    r.set("looked_share", census.looked_share);
    fill_part(r, mapping.mapping, mapping.mapping.range);
    fill_tally(r, census, mapping.tally);
    fill_rollup_figures(r, rollup_figures(census, mapping));
    return r;
}

Record make_record(const Identity& identity, const HostFacts& host, const Mapping& mapping,
                   const Run& run, Depth depth) {
    Record r = named(identity, host.lens, depth);
    fill_part(r, mapping, run.range);
    r.set("complete", true);
    r.set("size_bytes", run.range.size().value);
    r.set("state", std::string{word_of(run.state).name});
    if (run.kind != Kind::not_present) r.set("kind", std::string{word_of(run.kind).name});
    if (run.marker != Marker::no_marker) r.set("marker", std::string{word_of(run.marker).name});
    if (run.swap_type) r.set("swap_type", std::uint64_t{*run.swap_type});
    r.set("swap_offset", value_of(run.swap_offset));
    return r;
}

namespace {

/// Replaces the values of @p r by shares; what is not known stays so.
void replace_by_shares(Record& r, const ShareFigures& shares) {
    const auto replace = [&](std::size_t place, bool known, std::uint64_t bytes) {
        Value& value = r.values[place];
        if (is_known(value)) value = known ? Value{bytes} : Value{};
    };
    bool all_known = true;
    for (std::size_t i = 0; i < kind_count; ++i) {
        all_known = all_known && shares.kinds_known[i];
        replace(places().kinds + i, shares.kinds_known[i], shares.kinds[i]);
    }
    replace(places().states + static_cast<std::size_t>(State::present), all_known,
            shares.of(State::present));
    for (std::size_t i = 0; i < attribute_count; ++i)
        replace(places().attributes + i, shares.attributes_known[i], shares.attributes[i]);
}

} // namespace

Share share_of(const Record& record, const Census& census) {
    Share share{record, {}};
    const std::uint64_t page_size = census.host.page_size;
    replace_by_shares(share.record, share_figures(census.totals, page_size));
    // Swapped shared memory is in swap_bytes too: as counted here, or as smaps counts it.
    const bool counted =
        record.at("swap_bytes") == Value{figures_of(census.totals, page_size).swapped()};
    for (const MappingCensus& entry : census.mappings) {
        const Mapping& m = entry.mapping;
        const std::uint64_t size = m.range.size().value;
        if (m.inode == 0 || size > std::numeric_limits<std::uint64_t>::max() - m.offset) continue;
        FilePart part{m.device, m.inode, {m.offset, m.offset + size}};
        part.cached_bytes = entry.tally.state_pages(State::cached) * page_size;
        part.uncached_bytes = entry.tally.state_pages(State::uncached) * page_size;
        part.shmem_swapped_bytes = entry.tally.state_pages(State::shmem_swapped) * page_size;
        part.swap_bytes = part.shmem_swapped_bytes;
        if (!counted)
            part.swap_bytes =
                m.backing == Backing::shmem && m.smaps ? m.smaps->swap_bytes.value_or(0) : 0;
        share.files.push_back(part);
    }
    return share;
}

} // namespace pagesift::scan
