// SPDX-License-Identifier: MIT
// The words of the schemas are those of the tables, and sinks write exactly the members they list.
#include "made_up_census.hpp"
#include "pagesift/figures.hpp"

#include <doctest/doctest.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

using namespace pagesift;
using namespace pagesift::report;
using nlohmann::json;
using pagesift::test::lines_of;
using pagesift::test::MadeUpCensus;
using pagesift::test::typical;

namespace {

json schema(const std::string& name) {
    std::ifstream file{std::string{PAGESIFT_SCHEMA_DIR} + "/" + name};
    REQUIRE_MESSAGE(file, name);
    return json::parse(file);
}

std::set<std::string> words(const json& list) {
    std::set<std::string> set;
    for (const json& word : list)
        if (word.is_string()) set.insert(word);
    return set;
}

std::set<std::string> keys(const json& object) {
    std::set<std::string> set;
    for (const auto& item : object.items()) set.insert(item.key());
    return set;
}

template <class Table>
std::set<std::string> fields(const Table& table, const std::string& suffix = {}) {
    std::set<std::string> set;
    for (const Word& word : table)
        if (!word.field.empty()) set.insert(std::string{word.field} + suffix);
    return set;
}

template <class Table> std::set<std::string> names(const Table& table) {
    std::set<std::string> set;
    for (const Word& word : table)
        if (!word.name.empty()) set.insert(std::string{word.name});
    return set;
}

MadeUpCensus everything() {
    MadeUpCensus census = typical();
    census.census.want.zero = ZeroTest::sample;
    census.census.gaps.push_back({"kpageflags", {}, "hidden", "", false});
    census.census.tables.slots.push_back(
        {{Address{0x200000}, Address{0x400000}}, SlotState::empty, true, false});
    return census;
}

} // namespace

TEST_CASE("report: the words of the schemas are those of the tables") {
    for (const char* file : {"inspect.schema.json", "inspect-record.schema.json"}) {
        const json definitions = schema(file)["definitions"];
        CHECK(words(definitions["state"]["enum"]) == names(state_table()));
        CHECK(words(definitions["kind"]["enum"]) == names(kind_table()));
        CHECK(words(definitions["marker"]["enum"]) == names(marker_table()));
        CHECK(keys(definitions["states"]["properties"]) == fields(state_table(), "_bytes"));
        CHECK(keys(definitions["kinds"]["properties"]) == fields(kind_table(), "_bytes"));
        CHECK(keys(definitions["markers"]["properties"]) == fields(marker_table(), "_bytes"));
        CHECK(keys(definitions["page_attributes"]["properties"]) == fields(attribute_table()));
        CHECK(keys(definitions["range_attributes"]["properties"]) == fields(attribute_table()));
        CHECK(keys(definitions["totals"]["properties"]["attributes"]["properties"]) ==
              fields(attribute_table(), "_bytes"));
    }
    const json definitions = schema("inspect.schema.json")["definitions"];
    std::set<std::string> backings, slots;
    for (const Backing b : all_backings) backings.emplace(backing_word(b));
    for (const SlotState s : all_slot_states) slots.emplace(slot_word(s));
    CHECK(words(definitions["mapping"]["properties"]["backing"]["enum"]) == backings);
    CHECK(words(definitions["slot"]["properties"]["state"]["enum"]) == slots);
}

TEST_CASE("report: json has exactly the members that its schema lists") {
    ReportOptions options;
    options.format = Format::json;
    options.ranges = options.pages = true;
    const json doc = json::parse(everything().render(options))[0];
    const json definitions = schema("inspect.schema.json")["definitions"];
    const auto same = [&](const json& object, const std::string& name) {
        CHECK_MESSAGE(keys(object) == keys(definitions[name]["properties"]), name);
    };
    same(doc, "process");
    same(doc["totals"], "totals");
    same(doc["mappings"][0], "mapping");
    same(doc["ranges"][0], "range");
    same(doc["pages"][0], "page");
    same(doc["gaps"][0], "gap");
    same(doc["slots"][0], "slot");
    same(doc["savings"][0], "saving");
}

TEST_CASE("report: ndjson records have exactly the members that their schema lists") {
    ReportOptions options;
    options.format = Format::ndjson;
    options.ranges = options.pages = true;
    const json definitions = schema("inspect-record.schema.json")["definitions"];
    std::set<std::string> seen;
    for (const std::string& line : lines_of(everything().render(options))) {
        const json record = json::parse(line);
        const std::string name = record["record"];
        seen.insert(name);
        CHECK_MESSAGE(keys(record) == keys(definitions["record_" + name]["properties"]), name);
    }
    CHECK(seen.size() == 7);
}

TEST_CASE("report: the words of the schema of plans are those of the tables") {
    for (const char* file : {"advise.schema.json", "advise-record.schema.json"}) {
        const json definitions = schema(file)["definitions"];
        CHECK(words(definitions["state"]["enum"]) == names(state_table()));
        CHECK(words(definitions["kind"]["enum"]) == names(kind_table()));
        CHECK(words(definitions["reason"]["enum"]) == names(advice::reason_table()));
    }
    const json definitions = schema("advise.schema.json")["definitions"];
    CHECK(keys(definitions["reasons"]["properties"]) == fields(advice::reason_table(), "_bytes"));
    std::set<std::string> actions;
    for (const auto& info : advice::action_table()) actions.emplace(info.name);
    CHECK(words(definitions["process"]["properties"]["action"]["enum"]) == actions);
}

TEST_CASE("report: a plan that was applied has exactly the members that its schema lists") {
    advice::Plan plan;
    plan.identity = {7, 8, "boot"};
    Mapping mapping;
    mapping.range = {Address{0x1000}, Address{0x9000}};
    mapping.name = "\x1b[31m";
    plan.mappings = {mapping};
    plan.ranges.resize(1);
    plan.ranges[0].range = {Address{0x1000}, Address{0x3000}};
    plan.ranges[0].kind = Kind::anon;
    plan.skipped = {{{Address{0x3000}, Address{0x4000}}, 0, advice::Reason::mlocked}};
    plan.gaps = {{"smaps", std::nullopt, "not read", "", false}};
    plan.forecast = advice::forecast_of(plan);
    advice::Effect effect;
    effect.moved = {std::nullopt};
    effect.moved_bytes.reset();
    effect.ended.emplace(ErrorKind::gone, "pid 7", 0);
    effect.stops = advice::Stops{{0.001, 0.002}, 3, 1};
    effect.freed_tables = {{Address{0x200000}, Address{0x400000}}};
    effect.stayed = {{{Address{0x1000}, Address{0x3000}}, 0, advice::Reason::refused, 22}};
    const auto render = [&](Format format) {
        std::ostringstream out;
        ReportOptions options;
        options.format = format;
        const auto sink = make_advise_sink(out, options);
        sink.process(plan, &effect);
        sink.finish();
        return out.str();
    };
    const json doc = json::parse(render(Format::json))[0];
    const json definitions = schema("advise.schema.json")["definitions"];
    const auto same = [&](const json& object, const std::string& name) {
        CHECK_MESSAGE(keys(object) == keys(definitions[name]["properties"]), name);
    };
    same(doc, "process");
    same(doc["totals"], "totals");
    same(doc["mappings"][0], "mapping");
    same(doc["ranges"][0], "range");
    same(doc["skipped"][0], "skipped");
    same(doc["effect"], "effect");
    same(doc["effect"]["stayed_ranges"][0], "stayed");
    same(doc["effect"]["stops"], "stops");
    same(doc["effect"]["freed_tables"][0], "freed");
    CHECK(doc["effect"]["stops"]["p99_seconds"] == 0.002);
    same(doc["gaps"][0], "gap");
    CHECK(doc["ranges"][0]["moved_bytes"].is_null());
    CHECK(doc["effect"]["stayed"] == json{{"refused_bytes", 8192}});
    const json records = schema("advise-record.schema.json")["definitions"];
    std::set<std::string> seen;
    for (const std::string& line : lines_of(render(Format::ndjson))) {
        const json record = json::parse(line);
        const std::string name = record["record"];
        seen.insert(name);
        CHECK_MESSAGE(keys(record) == keys(records["record_" + name]["properties"]), name);
    }
    CHECK(seen.size() == 5);
    const std::string table = render(Format::table);
    CHECK(table.find('\x1b') == table.npos);
    CHECK(table.find("EINVAL") != table.npos);
    CHECK(table.find("ended early") != table.npos);
    CHECK(render(Format::csv).find('\x1b') == std::string::npos);
}
