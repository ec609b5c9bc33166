// SPDX-License-Identifier: MIT
// What is written as json is read back; what was not written so is refused.
#include "error_of.hpp"
#include "made_up_access.hpp"
#include "pagesift/report.hpp"

#include <doctest/doctest.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

using namespace pagesift;
using namespace pagesift::cold;
using nlohmann::json;
using pagesift::test::made_up_page;
using pagesift::test::MadeUpWatch;

namespace {

constexpr std::uint64_t base = 0x10000;

Ages sample(bool blind = false) {
    MadeUpWatch watch;
    watch.access.blind = blind;
    watch.source.map(base, base + 8 * made_up_page).name = "[heap]";
    watch.source.map(base + 8 * made_up_page, base + 9 * made_up_page, Backing::hugetlb);
    watch.page(base, "ii");
    watch.page(base + made_up_page, "ai");
    watch.page(base + 2 * made_up_page, "ia");
    watch.page(base + 3 * made_up_page, "i?");
    watch.page(base + 7 * made_up_page, "ii", abi::PM_SWAP | 7 << 5);
    watch.source.pages[base + 7 * made_up_page].flags = 0;
    watch.access.known_gaps.push_back(
        {"smaps", AddressRange{Address{base}, Address{base + made_up_page}}, "why", "what", false});
    watch.access.cost = {0.012345, 0.000321};
    watch.options.gaps.push_back({"source exact", {}, "refused", "", true});
    return watch.run(2);
}

std::string written(const std::vector<Ages>& all, report::Format format = report::Format::json) {
    std::ostringstream out;
    report::ReportOptions options;
    options.format = format;
    const auto sink = report::make_cold_sink(out, options);
    for (const Ages& ages : all) {
        sink.begin(ages);
        for (const Range& range : ages.ranges) sink.range(ages, range);
        sink.end(ages);
    }
    sink.finish();
    return out.str();
}

ErrorKind error_of_load(const std::string& text) {
    const auto error = test::error_of([&] { load(text, "a file"); });
    return error ? error->kind() : ErrorKind::usage; // which it never throws
}

/// The sample with something changed.
template <class Change> ErrorKind error_after(Change&& change) {
    json document = json::parse(written({sample()}));
    change(document[0]);
    return error_of_load(document.dump());
}

std::set<std::string> keys(const json& object) {
    std::set<std::string> set;
    for (const auto& item : object.items()) set.insert(item.key());
    return set;
}

json schema(const std::string& name) {
    std::ifstream file{std::string{PAGESIFT_SCHEMA_DIR} + "/" + name};
    REQUIRE_MESSAGE(file, name);
    return json::parse(file)["definitions"];
}

} // namespace

TEST_CASE("cold: what is written as json is read back the same") {
    const Ages ages = sample();
    CHECK(ages.ranges.size() == 5);
    const auto back = load(written({ages, ages}), "a file");
    REQUIRE(back.size() == 2);
    CHECK(back[0] == ages);
    CHECK(back[1] == ages);
    CHECK(load(written({}), "a file").empty());
}

TEST_CASE("cold: long windows lose no millisecond on the way") {
    MadeUpWatch watch;
    watch.source.map(base, base + made_up_page);
    watch.page(base, "i");
    Watch one{watch.source, watch.access, watch.options};
    one.begin();
    watch.clock += std::chrono::milliseconds{3'599'999};
    one.end_round(Last::yes);
    const Ages ages = one.finish();
    CHECK(load(written({ages}), "a file")[0].ranges[0].idle_seconds == 3599.999);
}

TEST_CASE("cold: foreign text is no danger to the result") {
    Ages ages = sample();
    ages.identity.comm = "a\"\n\x1b[31m\xff";
    ages.mappings[0].name = "/x\n\"}],[{";
    const auto back = load(written({ages}), "a file");
    CHECK(back[0].ranges == ages.ranges);
    CHECK(back[0].mappings[0].name.find('\n') == std::string::npos);
}

TEST_CASE("cold: a text that is no result is refused") {
    const std::string good = written({sample()});
    for (const char* text :
         {"", "{", "null", "{}", "[1]", "[[]]", "[{}]", R"([{"schema":1}])",
          R"([{"schema":"pagesift.inspect/1"}])", R"([{"schema":"pagesift.cold/2"}])"})
        CHECK_MESSAGE(error_of_load(text) == ErrorKind::bad_input, text);
    for (std::size_t cut = 0; cut + 3 < good.size(); cut += 97)
        CHECK(error_of_load(good.substr(0, cut)) == ErrorKind::bad_input);
    CHECK(error_of_load(std::string(200'000, '[')) == ErrorKind::bad_input);
    CHECK(error_of_load(std::string(2000, '[') + std::string(2000, ']')) == ErrorKind::bad_input);
}

TEST_CASE("cold: a member that is gone, or is something else, is refused") {
    const json good = json::parse(written({sample()}))[0];
    const auto refused_without = [&](const json& object, const json::json_pointer& where) {
        for (const auto& item : object.items()) {
            // What follows from the ranges is made anew.
            if (item.key() == "totals" || item.key() == "histogram" || item.key() == "bytes" ||
                item.key() == "source" || item.key() == "name")
                continue;
            json changed = good;
            changed[where].erase(item.key());
            CHECK_MESSAGE(error_of_load(json::array({changed}).dump()) == ErrorKind::bad_input,
                          item.key());
            changed = good;
            changed[where][item.key()] = json::object();
            CHECK_MESSAGE(error_of_load(json::array({changed}).dump()) == ErrorKind::bad_input,
                          item.key());
        }
    };
    refused_without(good, json::json_pointer{""});
    refused_without(good["clear"], json::json_pointer{"/clear"});
    refused_without(good["source"], json::json_pointer{"/source"});
    refused_without(good["mappings"][0], json::json_pointer{"/mappings/0"});
    refused_without(good["ranges"][0], json::json_pointer{"/ranges/0"});
    refused_without(good["gaps"][0], json::json_pointer{"/gaps/0"});
}

TEST_CASE("cold: values that cannot be are refused") {
    const auto bad = ErrorKind::bad_input;
    CHECK(error_after([](json& p) { p["pid"] = 0; }) == bad);
    CHECK(error_after([](json& p) { p["pid"] = std::uint64_t{1} << 33; }) == bad);
    CHECK(error_after([](json& p) { p["pid"] = -1; }) == bad);
    CHECK(error_after([](json& p) { p["page_size"] = 0; }) == bad);
    CHECK(error_after([](json& p) { p["page_size"] = 5000; }) == bad);
    CHECK(error_after([](json& p) { p["rounds"] = 1; }) == bad);
    CHECK(error_after([](json& p) { p["rounds"] = ~std::uint64_t{0}; }) == bad);
    CHECK(error_after([](json& p) { p["window_seconds"] = 1e300; }) == bad);
    CHECK(error_after([](json& p) { p["window_seconds"] = -1; }) == bad);
    CHECK(error_after([](json& p) {
              std::swap(p["idle_steps_seconds"][0], p["idle_steps_seconds"][1]);
          }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["mapping"] = 7; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["mapping"] = 1; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["end"] = p["ranges"][0]["start"]; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["start"] = "0x10001"; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["start"] = "65536"; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["start"] = "0xg"; }) == bad);
    CHECK(error_after([](json& p) { std::swap(p["ranges"][0], p["ranges"][1]); }) == bad);
    CHECK(error_after([](json& p) { std::swap(p["mappings"][0], p["mappings"][1]); }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["state"] = "hot"; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["kind"] = "hot"; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["idle_seconds"] = 5; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["idle_seconds"] = nullptr; }) == bad);
    CHECK(error_after([](json& p) { p["ranges"][0]["activity"] = "unknown"; }) == bad);
    CHECK(error_after([](json& p) { p["failed"] = true; }) == bad);
    CHECK(error_after([](json& p) { p["gaps"][0]["range"] = json::array({"0x1"}); }) == bad);
}

TEST_CASE("cold: sums are made anew") {
    json document = json::parse(written({sample()}));
    document[0]["totals"]["cold_bytes"] = 1;
    document[0]["histogram"] = json::array();
    Ages expected = sample();
    expected.sighted_unix_milliseconds = document[0]["sighted_unix_milliseconds"];
    CHECK(load(document.dump(), "a file")[0] == expected);
}

TEST_CASE("cold: json and ndjson have exactly the members that their schemas list") {
    const json array = schema("cold.schema.json"), record = schema("cold-record.schema.json");
    const json doc = json::parse(written({sample()}))[0];
    const auto same = [&](const json& object, const std::string& name) {
        CHECK_MESSAGE(keys(object) == keys(array[name]["properties"]), name);
    };
    same(doc, "process");
    same(doc["source"], "source");
    same(doc["clear"], "clear");
    same(doc["mappings"][0], "mapping");
    same(doc["ranges"][0], "range");
    same(doc["totals"], "totals");
    same(doc["histogram"][0], "histogram");
    same(doc["gaps"][0], "gap");
    std::istringstream lines{written({sample()}, report::Format::ndjson)};
    std::set<std::string> seen;
    for (std::string line; std::getline(lines, line);) {
        const json one = json::parse(line);
        const std::string name = one["record"];
        seen.insert(name);
        CHECK_MESSAGE(keys(one) == keys(record["record_" + name]["properties"]), name);
    }
    CHECK(seen == std::set<std::string>{"range", "histogram", "gap", "process"});
    const auto words = [](const json& list) {
        std::set<std::string> set;
        for (const json& word : list)
            if (word.is_string()) set.insert(word);
        return set;
    };
    const auto names = [](const auto& table) {
        std::set<std::string> set;
        for (const Word& word : table) set.insert(std::string{word.name});
        return set;
    };
    for (const json& definitions : {array, record}) {
        CHECK(words(definitions["state"]["enum"]) == names(state_table()));
        CHECK(words(definitions["kind"]["enum"]) == names(kind_table()));
        CHECK(words(definitions["activity"]["enum"]) == names(activity_table()));
        CHECK(words(definitions["grain"]["enum"]) == names(grain_table()));
    }
}

TEST_CASE("cold: csv has a row a range, and as many fields in each") {
    std::istringstream lines{written({sample()}, report::Format::csv)};
    std::size_t rows = 0;
    for (std::string line; std::getline(lines, line); ++rows)
        CHECK(std::count(line.begin(), line.end(), ',') == 11);
    CHECK(rows == 6);
}

TEST_CASE("cold: the table names the source, what it cannot tell, and what clearing cost") {
    const std::string text = written({sample()}, report::Format::table);
    for (const char* word : {"made up", "everything", "cleared 2 times", "IDLE: not accessed",
                             "IN PART", "idle >= ", "accessed", "unknown", "[heap]", "swapped"})
        CHECK_MESSAGE(text.find(word) != std::string::npos, word);
    CHECK(text.find("blind for") == std::string::npos);
    const std::string blind = written({sample(true)}, report::Format::table);
    CHECK(blind.find("blind for") != std::string::npos);
    CHECK(blind.find("IN PART") == std::string::npos);
}

TEST_CASE("cold: what says to be idle since before a blind time is refused") {
    CHECK(load(written({sample(true)}), "a file")[0].ranges[0].idle_seconds == 10.0);
    CHECK(error_after([](json& p) { p["clear"]["blind_seconds"] = 0.1; }) == ErrorKind::bad_input);
}
