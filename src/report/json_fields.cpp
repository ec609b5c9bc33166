// SPDX-License-Identifier: MIT
#include "report/json_fields.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

/// "<field>_bytes" of each word: made once, because they are written once a mapping.
template <std::size_t Count>
std::array<std::string, Count> byte_fields(std::span<const Word, Count> words) {
    std::array<std::string, Count> fields;
    for (std::size_t i = 0; i < Count; ++i) fields[i] = fmt::format("{}_bytes", words[i].field);
    return fields;
}

void write_classes(JsonWriter& json, const Figures& figures, const KnownKinds& known) {
    static const auto states = byte_fields(state_table());
    static const auto kinds = byte_fields(kind_table());
    static const auto markers = byte_fields(marker_table());
    json.key("states");
    json.begin_object();
    for (std::size_t i = 0; i < state_count; ++i) json.field(states[i], figures.states[i]);
    json.end_object();
    json.key("kinds");
    json.begin_object();
    for (std::size_t i = 0; i < kind_count; ++i)
        json.field(kinds[i], known.bytes(figures, static_cast<Kind>(i)));
    json.end_object();
    json.key("markers");
    json.begin_object();
    for (std::size_t i = 1; i < marker_count; ++i) json.field(markers[i], figures.markers[i]);
    json.end_object();
}

void write_tables(JsonWriter& json, const PageTables& tables) {
    json.key("page_tables");
    json.begin_object();
    json.field("total_bytes", tables.total_bytes);
    json.field("needed_tables",
               tables.partial ? std::nullopt : std::optional{tables.needed_tables});
    json.field("empty_tables", tables.empty_tables);
    json.field("located_tables", tables.located_tables);
    json.field("reclaimable_bytes", tables.reclaimable_bytes);
    json.field("spanning_tables", tables.spanning_tables);
    json.field("marker_only_tables", tables.marker_only_tables);
    json.end_object();
}

void write_zero_sample(JsonWriter& json, const Census& census) {
    json.key("zero_sample");
    const auto estimate = zero_estimate(census);
    if (!estimate) return json.null();
    json.begin_object();
    json.field("asked_pages", estimate->asked_pages);
    json.field("zero_pages", estimate->zero_pages);
    json.field("candidate_pages", estimate->candidate_pages);
    json.key("share_low");
    json.real(estimate->share.low);
    json.key("share_high");
    json.real(estimate->share.high);
    json.end_object();
}

void write_folios(JsonWriter& json, const Census& census) {
    const auto known = [&](std::uint64_t pages) {
        return census.frames_known ? std::optional{pages * census.host.page_size} : std::nullopt;
    };
    json.key("folio_order_bytes");
    json.begin_object();
    const auto& orders = census.totals.folio_order_pages;
    for (std::size_t order = 0; order < orders.size(); ++order)
        if (orders[order] != 0) json.field(fmt::format("{}", order), known(orders[order]));
    json.end_object();
    json.field("folio_unaligned_bytes", known(census.totals.folio_unaligned_pages));
}

void write_tri(JsonWriter& json, std::optional<Tri> value) {
    if (!value)
        json.word("mixed");
    else
        json.boolean(*value == Tri::unknown ? std::nullopt : std::optional{*value == Tri::yes});
}

void write_class(JsonWriter& json, State state, Kind kind, Marker marker) {
    json.key("state");
    json.word(word_of(state).name);
    json.key("kind");
    if (kind == Kind::not_present)
        json.null();
    else
        json.word(word_of(kind).name);
    json.key("marker");
    if (marker == Marker::no_marker)
        json.null();
    else
        json.word(word_of(marker).name);
}

template <class Of> void write_attributes(JsonWriter& json, Of&& of) {
    json.key("attributes");
    json.begin_object();
    for (std::size_t i = 0; i < attribute_count; ++i) {
        json.key(attribute_table()[i].field);
        write_tri(json, of(static_cast<Attribute>(i)));
    }
    json.end_object();
}

std::optional<std::uint64_t> widen(std::optional<unsigned> value) {
    return value ? std::optional<std::uint64_t>{*value} : std::nullopt;
}

} // namespace

void write_identity(JsonWriter& json, const ProcessText& process) {
    json.field("pid", std::uint64_t{process.pid});
    json.key("comm");
    json.text_or_null(process.comm);
    json.key("exe");
    json.text_or_null(process.exe);
}

void write_look(JsonWriter& json, const Census& census) {
    static constexpr std::array<std::string_view, 3> zero_words{"off", "sample", "all"};
    json.key("lens");
    json.text(census.lens);
    json.field("page_size", census.host.page_size);
    json.field("slot_bytes", census.host.slot_bytes());
    json.key("kernel");
    json.text_or_null(census.host.release);
    json.key("zero");
    json.word(zero_words[static_cast<std::size_t>(census.want.zero)]);
    json.key("elapsed_seconds");
    json.real(census.elapsed_seconds);
    json.key("interrupted");
    json.boolean(census.interrupted);
}

void write_totals(JsonWriter& json, const Census& census) {
    const std::uint64_t page_size = census.host.page_size;
    const Figures figures = figures_of(census.totals, page_size);
    const RollupFigures rollup = rollup_figures(census);
    const bool counted = census.totals.pss_unknown_pages == 0;
    json.key("totals");
    json.begin_object();
    json.field("size_bytes", figures.size);
    write_classes(json, figures, KnownKinds{census});
    json.field("rss_bytes", rollup.rss);
    json.field("pss_bytes", rollup.pss);
    json.field("uss_bytes",
               counted ? std::optional{census.totals.private_pages * page_size} : std::nullopt);
    json.field("swap_bytes", rollup.swap);
    json.field("anonymous_bytes", rollup.anonymous);
    json.field("ksm_bytes", rollup.ksm);
    json.field("anon_huge_pages_bytes", rollup.anon_huge_pages);
    json.field("shared_hugetlb_bytes", rollup.shared_hugetlb);
    json.field("private_hugetlb_bytes", rollup.private_hugetlb);
    write_tables(json, census.tables);
    write_zero_sample(json, census);
    write_folios(json, census);
    json.key("attributes");
    json.begin_object();
    const AttributeFigures attributes = attribute_figures(census.totals, page_size);
    for (std::size_t i = 0; i < attribute_count; ++i)
        json.field(fmt::format("{}_bytes", attribute_table()[i].field),
                   attributes.of(static_cast<Attribute>(i)));
    json.end_object();
    json.field("undecided_pages", census.undecided_pages);
    json.end_object();
}

void write_ksm(JsonWriter& json, const Census& census) {
    json.key("ksm");
    json.begin_object();
    json.key("stat");
    if (census.process.ksm_stat.empty()) {
        json.null();
    } else {
        json.begin_object();
        for (const auto& [name, value] : procfs::parse_key_values(census.process.ksm_stat)) {
            std::string key;
            append_json_text(key, name);
            json.field(key, value);
        }
        json.end_object();
    }
    json.key("settings");
    json.begin_object();
    static constexpr std::string_view prefix = "ksm/";
    for (const auto& [name, value] : census.host.settings) {
        if (!name.starts_with(prefix)) continue;
        std::string key;
        append_json_text(key, std::string_view{name}.substr(prefix.size()));
        json.key(key);
        json.text(value);
    }
    json.end_object();
    json.end_object();
}

void write_saving(JsonWriter& json, const Saving& saving) {
    json.key("what");
    json.text(saving.what);
    json.field("bytes", saving.bytes);
    json.key("command");
    json.text_or_null(saving.command);
    json.key("note");
    json.text_or_null(saving.note);
}

void write_mapping(JsonWriter& json, const MappingCensus& entry, const KnownKinds& known,
                   std::uint64_t page_size) {
    const Mapping& m = entry.mapping;
    const Figures figures = figures_of(entry.tally, page_size);
    json.key("start");
    json.address(m.range.start.value);
    json.key("end");
    json.address(m.range.end.value);
    json.key("permissions");
    json.word(m.permissions());
    json.field("offset", m.offset);
    json.key("name");
    json.text(m.name);
    json.key("backing");
    json.word(backing_word(m.backing));
    json.field("page_size", m.page_size == 0 ? page_size : m.page_size);
    json.key("whole");
    json.boolean(entry.whole);
    json.field("counted_bytes", figures.size);
    json.field("rss_bytes", figures.resident);
    json.field("referenced_bytes", m.smaps ? m.smaps->referenced_bytes : std::nullopt);
    json.key("vm_flags");
    if (m.smaps)
        json.text(m.smaps->vm_flags.text);
    else
        json.null();
    write_classes(json, figures, known);
}

void write_run(JsonWriter& json, const Run& run, const Mapping& mapping, std::uint64_t page_size) {
    json.key("start");
    json.address(run.range.start.value);
    json.key("end");
    json.address(run.range.end.value);
    json.field("pages", run.range.size().value / page_size);
    write_class(json, run.state, run.kind, run.marker);
    json.field("swap_type", widen(run.swap_type));
    json.field("swap_offset", run.swap_offset);
    json.key("swap_contiguous");
    json.boolean(run.swap_offset ? std::optional{run.swap_contiguous} : std::nullopt);
    write_attributes(json, [&](Attribute a) { return run.attribute(a); });
    json.key("name");
    json.text(mapping.name);
}

void write_page(JsonWriter& json, const Page& page, const Mapping& mapping) {
    json.key("address");
    json.address(page.address.value);
    write_class(json, page.cls.state, page.cls.kind, page.cls.marker);
    write_attributes(json, [&](Attribute a) { return std::optional{page.cls.attribute(a)}; });
    json.field("sharers", page.sharers);
    json.field("folio_pages", page.folio_pages);
    json.key("folio_aligned");
    json.boolean(page.folio_pages.value_or(0) > 1 && page.pfn ? std::optional{page.folio_aligned}
                                                              : std::nullopt);
    json.field("swap_type", widen(page.swap_type));
    json.field("swap_offset", page.swap_offset);
    json.field("pfn", page.pfn);
    json.key("flags");
    json.address(page.flags);
    json.key("name");
    json.text(mapping.name);
}

void write_slot(JsonWriter& json, const Slot& slot) {
    json.key("start");
    json.address(slot.range.start.value);
    json.key("end");
    json.address(slot.range.end.value);
    json.key("state");
    json.word(slot_word(slot.state));
    json.key("reclaimable");
    json.boolean(slot.reclaimable);
    json.key("spanning");
    json.boolean(slot.spanning);
}

void write_gap(JsonWriter& json, const Gap& gap) {
    json.key("source");
    json.text(gap.source);
    json.key("range");
    if (gap.range) {
        json.begin_array();
        json.address(gap.range->start.value);
        json.address(gap.range->end.value);
        json.end_array();
    } else {
        json.null();
    }
    json.key("reason");
    json.text(gap.reason);
    json.key("remedy");
    json.text_or_null(gap.remedy);
    json.key("incomplete");
    json.boolean(gap.incomplete);
}

} // namespace pagesift::report
