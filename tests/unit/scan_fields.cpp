// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <doctest/doctest.h>
#include <set>
#include <stdexcept>

using namespace pagesift;
using namespace pagesift::scan;

TEST_CASE("scan: every field has a name of its own, and says what it is") {
    std::set<std::string> names, meanings;
    for (const Field& field : fields()) {
        INFO(field.name);
        CHECK(names.insert(field.name).second);
        CHECK(meanings.insert(field.meaning).second);
        CHECK(field.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos);
        CHECK_FALSE(field.meaning.empty());
        CHECK(field.meaning.find_first_of("\n\"\\") == std::string::npos);
        // A name tells its unit, so that no reader needs the table.
        CHECK(field.name.ends_with("_bytes") == (field.unit == Unit::bytes));
        CHECK(field.name.ends_with("_seconds") == (field.unit == Unit::seconds));
        const bool quantity =
            field.unit == Unit::bytes || field.unit == Unit::count || field.unit == Unit::seconds;
        CHECK(field.additive == quantity);
        CHECK_FALSE((field.of_part && field.additive));
    }
}

TEST_CASE("scan: every state, kind, marker and attribute is a field, in the order of its table") {
    const auto in_order = [](auto words, std::string_view first, std::string_view taken) {
        const auto start = find_field(first);
        REQUIRE(start);
        std::size_t i = *start;
        for (const Word& word : words) {
            if (word.field.empty()) continue;
            INFO(word.field);
            if (word.field != taken) CHECK(find_field(std::string{word.field} + "_bytes") == i);
            CHECK(fields()[i].meaning.ends_with(word.meaning));
            ++i;
        }
    };
    in_order(state_table(), "none_bytes", "unknown");
    in_order(kind_table(), "zero_page_bytes", "unknown");
    in_order(marker_table(), "uffd_wp_bytes", "other");
    in_order(attribute_table(), "dirty_bytes", "uffd_wp");
    CHECK(fields()[*find_field("unknown_state_bytes")].from == Depth::pages);
    CHECK(fields()[*find_field("zero_filled_bytes")].from == Depth::content);
    CHECK(fields()[*find_field("pss_bytes")].from == Depth::totals);
}

TEST_CASE("scan: a record is a row of the table, unknown at first") {
    Record r;
    CHECK(r.values.size() == fields().size());
    CHECK(r.at("rss_bytes") == Value{});
    r.set("rss_bytes", std::uint64_t{0});
    CHECK(r.at("rss_bytes") == Value{std::uint64_t{0}});
    CHECK_FALSE(find_field("no_such_field"));
    CHECK_THROWS_AS((void)r.at("no_such_field"), std::out_of_range);
    CHECK_THROWS_AS(r.set("", {}), std::out_of_range);
}

TEST_CASE("scan: depths, units and groupings have words") {
    CHECK(depth_word(Depth::totals) == "totals");
    CHECK(depth_word(Depth::content) == "content");
    CHECK(per_word(Per::process) == "process");
    CHECK(per_word(Per::comm) == "comm");
    CHECK(unit_word(Unit::text) == "text");
    CHECK(unit_word(Unit::address) == "address");
}
