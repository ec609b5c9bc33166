// SPDX-License-Identifier: MIT
// The table of fields, and records as rows of it.
#include "pagesift/scan.hpp"

#include <array>
#include <fmt/format.h>
#include <stdexcept>

namespace pagesift::scan {
namespace {

constexpr bool additive = true, of_part = true;

using Fields = std::vector<Field>;

void add_identity(Fields& fields) {
    const auto add = [&](const char* name, Unit unit, const char* meaning) {
        fields.push_back({name, unit, meaning, false, Depth::totals, false});
    };
    add("pid", Unit::id, "process number");
    add("parent_pid", Unit::id, "process number of the parent");
    add("start_time_ticks", Unit::id, "when the process began, in clock ticks since boot");
    add("comm", Unit::text, "name of the process, at most 15 bytes");
    add("exe", Unit::text, "path of the executable");
    add("user", Unit::text, "name of the user");
    add("uid", Unit::id, "number of the user");
    add("cgroup", Unit::text, "path of the control group");
}

void add_part(Fields& fields) {
    const auto add = [&](const char* name, Unit unit, const char* meaning) {
        fields.push_back({name, unit, meaning, false, Depth::pages, of_part});
    };
    add("start", Unit::address, "first address of the mapping or range");
    add("end", Unit::address, "first address behind it");
    add("name", Unit::text, "file or other name of the mapping");
    add("permissions", Unit::text, "permissions of the mapping, as in maps");
    add("backing", Unit::text, "what stands behind the mapping");
    add("state", Unit::text, "state of the pages of the range");
    add("kind", Unit::text, "kind of the pages of the range, where they are present");
    add("marker", Unit::text, "page-table marker of the range");
    add("swap_type", Unit::id, "number of the swap area of the range");
    add("swap_offset", Unit::id, "place of the first page in the swap area, in pages");
}

void add_look(Fields& fields) {
    const auto add = [&](const char* name, Unit unit, const char* meaning, bool sums = false,
                         Depth from = Depth::totals) {
        fields.push_back({name, unit, meaning, sums, from, false});
    };
    add("processes", Unit::count, "processes that the record is about", additive);
    add("unknown_processes", Unit::count, "processes of which a figure of the sum is not known",
        additive);
    add("depth", Unit::text, "how closely was looked: totals, pages or content");
    add("lens", Unit::text, "with what was looked: rollup, proc or exact");
    add("complete", Unit::flag, "no range is missing");
    add("looked_share", Unit::share,
        "share of the pages that were looked at; below 1, but complete, others are estimated",
        false, Depth::pages);
    add("sampled_share", Unit::share, "share of the pages with contents that were read", false,
        Depth::content);
    add("elapsed_seconds", Unit::seconds, "time that the look took", additive);
}

void add_sizes(Fields& fields) {
    const auto add = [&](const char* name, const char* meaning) {
        fields.push_back({name, Unit::bytes, meaning, additive, Depth::totals, false});
    };
    add("size_bytes", "address space; what is shared counts for each process");
    add("rss_bytes", "resident memory as smaps counts Rss; what is shared counts for each process");
    add("pss_bytes", "resident memory, a page that is mapped N times as 1/N (proportional set)");
    add("pss_anon_bytes", "of pss_bytes, anonymous memory");
    add("pss_file_bytes", "of pss_bytes, pages of files");
    add("pss_shmem_bytes", "of pss_bytes, shared memory and tmpfs");
    add("private_bytes", "resident memory that nothing else maps (unique set)");
    add("swap_bytes", "memory in swap, anonymous and shared");
    add("swap_pss_bytes", "anonymous memory in swap, shared with N others as 1/N");
    add("anonymous_bytes", "resident anonymous memory");
    add("ksm_merged_bytes", "memory merged by KSM, with or without a second user");
    add("anon_huge_pages_bytes", "anonymous memory mapped by huge entries");
    add("shared_hugetlb_bytes", "pages of huge page pools that others map too");
    add("private_hugetlb_bytes", "pages of huge page pools that nothing else maps");
}

/// "<field>_bytes" of each word of a table. @p instead names those that another table has as well.
template <std::size_t Count>
void add_words(Fields& fields, std::span<const Word, Count> words, std::string_view of,
               std::string_view taken, std::string_view instead) {
    for (const Word& word : words) {
        if (word.field.empty()) continue;
        const auto name = word.field == taken ? instead : word.field;
        Field field{fmt::format("{}_bytes", name),
                    Unit::bytes,
                    fmt::format("{}: {}", of, word.meaning),
                    additive,
                    Depth::pages,
                    false};
        if (word.field == "zero_filled" || word.field == "ksm_zero") field.from = Depth::content;
        fields.push_back(std::move(field));
    }
}

void add_figures(Fields& fields) {
    const auto add = [&](const char* name, Unit unit, const char* meaning,
                         Depth from = Depth::pages) {
        fields.push_back({name, unit, meaning, additive, from, false});
    };
    add_words(fields, state_table(), "state", "unknown", "unknown_state");
    add_words(fields, kind_table(), "kind of present pages", "unknown", "unknown_kind");
    add_words(fields, marker_table(), "marker", "other", "other_marker");
    add_words(fields, attribute_table(), "pages with the attribute", "uffd_wp", "uffd_wp_present");
    add("folio_unaligned_bytes", Unit::bytes,
        "large folios mapped off their natural alignment, so that no huge entry can map them");
    add("ksm_share_bytes", Unit::bytes,
        "what pages merged by KSM really take, each as 1/N of its N users");
    add("zero_filled_low_bytes", Unit::bytes,
        "least memory that is all zero, merged or not, at 95 % confidence", Depth::content);
    add("zero_filled_high_bytes", Unit::bytes,
        "most memory that is all zero, merged or not, at 95 % confidence", Depth::content);
    add("page_tables_bytes", Unit::bytes, "page tables (VmPTE)", Depth::totals);
    add("needed_tables", Unit::count, "page tables that hold something");
    add("empty_tables", Unit::count, "page tables that hold nothing");
    add("located_tables", Unit::count, "empty page tables whose place is known");
    add("reclaimable_bytes", Unit::bytes, "empty page tables that could be freed");
    add("spanning_tables", Unit::count, "empty page tables that several mappings share");
    add("marker_only_tables", Unit::count, "page tables that hold markers only");
}

Fields all_fields() {
    Fields fields;
    add_identity(fields);
    add_part(fields);
    add_look(fields);
    add_sizes(fields);
    add_figures(fields);
    return fields;
}

std::size_t index_of(std::string_view name) {
    if (const auto index = find_field(name)) return *index;
    throw std::out_of_range{fmt::format("no field {}", name)};
}

} // namespace

std::string_view depth_word(Depth depth) {
    static constexpr std::array<std::string_view, 3> words{"totals", "pages", "content"};
    return words[static_cast<std::size_t>(depth)];
}

std::string_view per_word(Per per) {
    static constexpr std::array<std::string_view, 5> words{"process", "mapping", "range", "cgroup",
                                                           "comm"};
    return words[static_cast<std::size_t>(per)];
}

std::string_view unit_word(Unit unit) {
    static constexpr std::array<std::string_view, 8> words{"text",  "bytes", "count", "seconds",
                                                           "share", "flag",  "id",    "address"};
    return words[static_cast<std::size_t>(unit)];
}

std::span<const Field> fields() {
    static const Fields all = all_fields();
    return all;
}

std::optional<std::size_t> find_field(std::string_view name) {
    static const auto places = [] {
        std::map<std::string_view, std::size_t> found;
        for (std::size_t i = 0; i < fields().size(); ++i) found.emplace(fields()[i].name, i);
        return found;
    }();
    const auto place = places.find(name);
    return place == places.end() ? std::nullopt : std::optional{place->second};
}

Record::Record() : values(fields().size()) {}

const Value& Record::at(std::string_view field) const { return values[index_of(field)]; }

std::string Record::text_at(std::string_view field) const {
    const auto* text = std::get_if<std::string>(&at(field));
    return text != nullptr ? *text : std::string{};
}

void Record::set(std::string_view field, Value value) {
    values[index_of(field)] = std::move(value);
}

} // namespace pagesift::scan
