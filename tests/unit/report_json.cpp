// SPDX-License-Identifier: MIT
#include "made_up_census.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace pagesift;
using namespace pagesift::report;
using nlohmann::json;
using pagesift::test::lines_of;
using pagesift::test::MadeUpCensus;
using pagesift::test::typical;

namespace {

json parsed(const MadeUpCensus& census, ReportOptions options = {}) {
    options.format = Format::json;
    return json::parse(census.render(options));
}

const std::string hostile = "a\nb\t\"c\\d\033[31m\xff\xc0\x80 \u202eevil\u200b=1";
const std::string hostile_escaped =
    "a\\x0ab\\x09\"c\\\\d\\x1b[31m\\xff\\xc0\\x80 \\u{202e}evil\\u{200b}=1";

} // namespace

TEST_CASE("report: json is an array with one object a process") {
    const json doc = parsed(typical());
    REQUIRE(doc.size() == 1);
    CHECK(doc[0]["schema"] == "pagesift.inspect/1");
    CHECK(doc[0]["pid"] == 42);
    CHECK(doc[0]["comm"] == "made-up");
    CHECK(doc[0]["page_size"] == 4096);
    CHECK(doc[0]["slot_bytes"] == 2 << 20);
    CHECK_FALSE(doc[0].contains("ranges"));
    CHECK_FALSE(doc[0].contains("pages"));
}

TEST_CASE("report: json totals are the sums of the census and of the mappings") {
    const MadeUpCensus census = typical();
    const json doc = parsed(census)[0];
    const json& totals = doc["totals"];
    for (std::size_t i = 0; i < state_count; ++i) {
        const std::string field = std::string{state_table()[i].field} + "_bytes";
        std::uint64_t sum = 0;
        for (const json& m : doc["mappings"]) sum += m["states"][field].get<std::uint64_t>();
        CHECK(totals["states"][field] == sum);
        CHECK(sum == census.census.totals.state_pages(static_cast<State>(i)) * 4096);
    }
    std::uint64_t states = 0;
    for (const auto& [name, bytes] : totals["states"].items()) states += bytes.get<std::uint64_t>();
    CHECK(states == totals["size_bytes"]);
    CHECK(totals["kinds"]["thp_bytes"] == 512 * 4096);
    CHECK(totals["rss_bytes"] == (100 + 300 + 512 + 10) * 4096);
    CHECK(totals["swap_bytes"] == 230 * 4096);
    CHECK(totals["anonymous_bytes"] == (300 + 512) * 4096);
    CHECK(totals["markers"]["guard_bytes"] == 16 * 4096);
    CHECK(totals["page_tables"]["empty_tables"] == 2);
}

TEST_CASE("report: json says null for what was not looked for, and never zero") {
    const json kinds = parsed(typical())[0]["totals"]["kinds"];
    CHECK(kinds["zero_filled_bytes"].is_null());
    CHECK(kinds["ksm_zero_bytes"].is_null());
    CHECK(kinds["ksm_bytes"] == 0);

    MadeUpCensus hidden = typical();
    hidden.census.frames_known = false;
    const json without = parsed(hidden)[0]["totals"]["kinds"];
    for (const char* field : {"ksm_bytes", "ksm_sole_bytes", "ksm_zero_bytes", "thp_bytes"})
        CHECK_MESSAGE(without[field].is_null(), field);
    CHECK(without["anon_bytes"].is_number());

    MadeUpCensus read = typical();
    read.census.want.zero = ZeroTest::all;
    CHECK(parsed(read)[0]["totals"]["kinds"]["zero_filled_bytes"] == 0);
}

TEST_CASE("report: a mapping without present pages has no unknown kinds") {
    MadeUpCensus census;
    census.mapping(0x1000).absent(4, State::none);
    CHECK(parsed(census)[0]["mappings"][0]["kinds"]["zero_filled_bytes"] == 0);
}

TEST_CASE("report: a KSM flag that cannot be trusted makes KSM kinds unknown") {
    MadeUpCensus census = typical();
    census.census.host.ksm_flag_true = false;
    census.census.want.zero = ZeroTest::all;
    const json kinds = parsed(census)[0]["totals"]["kinds"];
    CHECK(kinds["ksm_bytes"].is_null());
    CHECK(kinds["ksm_zero_bytes"].is_null());
    CHECK(kinds["zero_filled_bytes"] == 0);
}

TEST_CASE("report: a sample of zero-filled pages has its interval and no figure") {
    MadeUpCensus census = typical();
    census.census.want.zero = ZeroTest::sample;
    census.census.totals.content_asked = 100;
    census.census.totals.content_zero = 20;
    census.census.totals.content_candidates = 800;
    const json totals = parsed(census)[0]["totals"];
    CHECK(totals["kinds"]["zero_filled_bytes"].is_null());
    CHECK(totals["zero_sample"]["asked_pages"] == 100);
    CHECK(totals["zero_sample"]["share_low"].get<double>() == doctest::Approx(0.133).epsilon(0.01));
    CHECK(totals["zero_sample"]["share_high"].get<double>() ==
          doctest::Approx(0.289).epsilon(0.01));
    CHECK(parsed(typical())[0]["totals"]["zero_sample"].is_null());
}

TEST_CASE("report: missing ranges and hidden swap make the sums over them unknown") {
    MadeUpCensus partial = typical();
    partial.census.gaps.push_back(
        {"pagemap", AddressRange{Address{0x1000}, Address{0x2000}}, "mapping vanished", "", true});
    CHECK(parsed(partial)[0]["totals"]["rss_bytes"].is_null());
    CHECK(parsed(partial)[0]["gaps"][0]["range"] == json({"0x1000", "0x2000"}));
    CHECK(parsed(partial)[0]["gaps"][0]["remedy"].is_null());
    MadeUpCensus hidden = typical();
    hidden.absent(3, State::unknown);
    CHECK(parsed(hidden)[0]["totals"]["swap_bytes"].is_null());
    CHECK(parsed(hidden)[0]["totals"]["rss_bytes"].is_number());
    MadeUpCensus counts = typical();
    counts.census.totals.pss_unknown_pages = 1;
    CHECK(parsed(counts)[0]["totals"]["pss_bytes"].is_null());
}

TEST_CASE("report: ranges and pages stream into json, one or both") {
    const MadeUpCensus census = typical();
    ReportOptions options;
    options.ranges = true;
    json doc = parsed(census, options)[0];
    CHECK(doc["ranges"].size() == census.runs.size());
    CHECK(doc["ranges"][0]["start"] == "0x555500000000");
    CHECK(doc["ranges"][0]["state"] == "present");
    CHECK(doc["ranges"][1]["kind"].is_null());
    CHECK_FALSE(doc.contains("pages"));
    options.pages = true;
    doc = parsed(census, options)[0];
    CHECK(doc["ranges"].size() == census.runs.size());
    CHECK(doc["pages"].size() == census.listed.size());
    std::uint64_t pages = 0;
    for (const json& range : doc["ranges"]) pages += range["pages"].get<std::uint64_t>();
    CHECK(pages == census.census.totals.pages());
}

TEST_CASE("report: attributes are yes, no, unknown or, over a range, mixed") {
    MadeUpCensus census;
    PageClass cls{.state = State::present, .kind = Kind::anon};
    cls.set(Attribute::dirty, Tri::yes);
    cls.set(Attribute::young, Tri::unknown);
    census.mapping(0x1000).pages(2, cls);
    census.runs[0].attributes |= 3u << (2 * static_cast<unsigned>(Attribute::active));
    ReportOptions options;
    options.ranges = options.pages = true;
    const json doc = parsed(census, options)[0];
    const json& range = doc["ranges"][0]["attributes"];
    CHECK(range["dirty"] == true);
    CHECK(range["young"].is_null());
    CHECK(range["exclusive"] == false);
    CHECK(range["active"] == "mixed");
    CHECK(doc["pages"][0]["attributes"]["dirty"] == true);
    CHECK(doc["totals"]["attributes"]["dirty_bytes"] == 8192);
    CHECK(doc["totals"]["attributes"]["young_bytes"].is_null());
}

TEST_CASE("report: hostile text stays inside its json string") {
    MadeUpCensus census;
    census.census.process.comm = hostile;
    census.census.process.exe = hostile;
    census.census.gaps.push_back({hostile, {}, hostile, hostile, false});
    census.mapping(0x1000, hostile).present(1, Kind::anon);
    ReportOptions options;
    options.ranges = options.pages = true;
    const json doc = parsed(census, options)[0];
    CHECK(doc["comm"] == hostile_escaped);
    CHECK(doc["mappings"][0]["name"] == hostile_escaped);
    CHECK(doc["ranges"][0]["name"] == hostile_escaped);
    CHECK(doc["gaps"][0]["reason"] == hostile_escaped);
    options.format = Format::ndjson;
    for (const std::string& line : lines_of(census.render(options))) CHECK(json::accept(line));
}

TEST_CASE("report: every line of ndjson stands alone and says what it is") {
    MadeUpCensus census = typical();
    census.census.gaps.push_back({"kpageflags", {}, "hidden", "CAP_SYS_ADMIN", false});
    census.census.tables.slots.push_back(
        {{Address{0x200000}, Address{0x400000}}, SlotState::empty, true, false});
    ReportOptions options;
    options.format = Format::ndjson;
    options.ranges = options.pages = true;
    std::map<std::string, std::size_t> count;
    for (const std::string& line : lines_of(census.render(options))) {
        const json record = json::parse(line);
        CHECK(record["schema"] == "pagesift.inspect/1");
        CHECK(record["pid"] == 42);
        ++count[record["record"]];
    }
    CHECK(count["process"] == 1);
    CHECK(count["mapping"] == 4);
    CHECK(count["range"] == census.runs.size());
    CHECK(count["page"] == census.listed.size());
    CHECK(count["gap"] == 1);
    CHECK(count["slot"] == 1);
}

TEST_CASE("report: a look that fails half way leaves valid json that says so") {
    for (const bool pages : {false, true}) {
        std::ostringstream out;
        ReportOptions options;
        options.format = Format::json;
        options.ranges = true;
        options.pages = pages;
        const Sink sink = make_sink(out, options);
        const MadeUpCensus census = typical();
        const std::vector<Mapping> mappings{census.census.mappings[0].mapping};
        sink.begin(census.census.process, mappings);
        sink.run(census.runs[0]);
        census.play(sink);
        sink.begin(census.census.process, mappings);
        sink.finish();
        const json doc = json::parse(out.str());
        REQUIRE(doc.size() == 3);
        CHECK(doc[0]["failed"] == true);
        CHECK(doc[0]["ranges"].size() == 1);
        CHECK_FALSE(doc[1].contains("failed"));
        CHECK(doc[2]["failed"] == true);
    }
}

TEST_CASE("report: no process gives an empty array") {
    std::ostringstream out;
    ReportOptions options;
    options.format = Format::json;
    make_sink(out, options).finish();
    CHECK(json::parse(out.str()).empty());
}

TEST_CASE("report: output that cannot be written is an error, not silence") {
    for (const Format format : {Format::table, Format::json, Format::ndjson, Format::csv}) {
        std::ostringstream out;
        out.setstate(std::ios::badbit);
        ReportOptions options;
        options.format = format;
        const Sink sink = make_sink(out, options);
        CHECK_THROWS_AS(typical().play(sink), Error);
    }
}

TEST_CASE("report: 64-bit figures and large offsets survive json") {
    MadeUpCensus census;
    census.mapping(0xffffffffff600000, "[vsyscall]").present(1, Kind::special, Backing::special);
    census.census.mappings[0].mapping.offset = ~std::uint64_t{0};
    const json m = parsed(census)[0]["mappings"][0];
    CHECK(m["offset"] == ~std::uint64_t{0});
    CHECK(m["start"] == "0xffffffffff600000");
}
