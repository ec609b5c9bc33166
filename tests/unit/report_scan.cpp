// SPDX-License-Identifier: MIT
#include "csv.hpp"
#include "made_up_census.hpp"
#include "made_up_scan.hpp"

#include <algorithm>
#include <doctest/doctest.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

using namespace pagesift;
using namespace pagesift::report;
using namespace pagesift::test;
using nlohmann::json;

namespace {

ReportOptions as(Format format) {
    ReportOptions options;
    options.format = format;
    return options;
}

json schema(const std::string& name) {
    std::ifstream file{std::string{PAGESIFT_SCHEMA_DIR} + "/" + name};
    REQUIRE_MESSAGE(file, name);
    return json::parse(file);
}

std::set<std::string> keys(const json& object) {
    std::set<std::string> set;
    for (const auto& item : object.items()) set.insert(item.key());
    return set;
}

std::set<std::string> field_names(bool parts) {
    std::set<std::string> names;
    for (const scan::Field& field : scan::fields())
        if (parts || !field.of_part) names.insert(field.name);
    return names;
}

/// One of each: a whole process, a mapping, and gaps.
MadeUpScan with_gaps(scan::Per per) {
    MadeUpScan scan = typical_scan();
    scan.summary.per = per;
    scan.summary.gaps.push_back({"kpageflags", {}, "hidden", "root", false});
    scan.records[0].gaps.push_back({"contents", {}, "not readable", "", true});
    scan.records[0].set("start", std::uint64_t{0x7f0000001000});
    scan.records[0].set("rss_bytes", {});
    return scan;
}

} // namespace

TEST_CASE("scan: json is an array of scans with every field by its name") {
    const json doc = json::parse(with_gaps(scan::Per::process).render(as(Format::json)));
    REQUIRE(doc.size() == 1);
    CHECK(doc[0]["schema"] == "pagesift.scan/1");
    CHECK(doc[0]["scan"]["time"] == "2023-11-14T22:13:20.123Z");
    CHECK(doc[0]["scan"]["host"] == "made-up");
    REQUIRE(doc[0]["records"].size() == 3);
    CHECK(doc[0]["records"][0]["rss_bytes"].is_null());
    CHECK(doc[0]["records"][0]["gaps"][0]["reason"] == "not readable");
    const scan::Record second = with_gaps(scan::Per::process).records[1];
    for (const scan::Field& field : scan::fields()) {
        if (field.of_part) continue;
        const auto* number = std::get_if<std::uint64_t>(&second.at(field.name));
        if (number != nullptr) CHECK(doc[0]["records"][1][field.name] == *number);
    }
    CHECK(doc[0]["totals"]["processes"] == 3);
}

TEST_CASE("scan: several scans in one output are one document") {
    std::ostringstream out;
    const ScanSink sink = make_scan_sink(out, as(Format::json));
    typical_scan().play(sink);
    MadeUpScan{}.play(sink);
    sink.finish();
    const json doc = json::parse(out.str());
    CHECK(doc.size() == 2);
    CHECK(doc[1]["records"].empty());
    std::ostringstream none;
    make_scan_sink(none, as(Format::json)).finish();
    CHECK(json::parse(none.str()).empty());
}

TEST_CASE("scan: every ndjson line says host and time; totals and the scan come last") {
    const auto lines = lines_of(with_gaps(scan::Per::mapping).render(as(Format::ndjson)));
    REQUIRE(lines.size() == 5);
    std::vector<std::string> what;
    for (const std::string& line : lines) {
        const json record = json::parse(line);
        what.push_back(record["record"]);
        CHECK(record["host"] == "made-up");
        CHECK(record["time"] == "2023-11-14T22:13:20.123Z");
    }
    CHECK(what == std::vector<std::string>{"mapping", "mapping", "mapping", "totals", "scan"});
    CHECK(json::parse(lines[0])["start"] == "0x7f0000001000");
    CHECK(json::parse(lines[4])["gaps"][0]["source"] == "kpageflags");
}

TEST_CASE("scan: the schemas list exactly the members that are written, and the table's fields") {
    const json whole = schema("scan.schema.json")["definitions"];
    const json line = schema("scan-record.schema.json")["definitions"];
    CHECK(keys(whole["process"]["properties"]) == [] {
        auto names = field_names(false);
        names.insert("gaps");
        return names;
    }());
    for (const auto per : {scan::Per::process, scan::Per::mapping, scan::Per::range,
                           scan::Per::cgroup, scan::Per::comm}) {
        const bool parts = per == scan::Per::mapping || per == scan::Per::range;
        const json doc = json::parse(with_gaps(per).render(as(Format::json)))[0];
        CHECK(keys(doc) == keys(whole["scan_document"]["properties"]));
        CHECK(keys(doc["scan"]) == keys(whole["scan"]["properties"]));
        CHECK(keys(doc["records"][0]) == keys(whole[parts ? "part" : "process"]["properties"]));
        CHECK(keys(doc["totals"]) == keys(whole["process"]["properties"]));
        CHECK(keys(doc["gaps"][0]) == keys(whole["gap"]["properties"]));
        for (const std::string& text : lines_of(with_gaps(per).render(as(Format::ndjson)))) {
            const json record = json::parse(text);
            const std::string name = record["record"];
            const std::string kind = name == "scan"              ? "line_scan"
                                     : parts && name != "totals" ? "line_part"
                                                                 : "line_process";
            CHECK_MESSAGE(keys(record) == keys(line[kind]["properties"]), name);
        }
    }
    // What is not in the table is in neither schema.
    for (const scan::Field& field : scan::fields()) {
        const json& property = whole["part"]["properties"][field.name];
        CHECK_MESSAGE(property["description"] == field.meaning, field.name);
    }
}

TEST_CASE("scan: csv has the table's fields, and unknown is empty") {
    const auto rows = parse_csv(with_gaps(scan::Per::range).render(as(Format::csv)));
    REQUIRE(rows.size() == 4);
    std::vector<std::string> header{"host", "time"};
    for (const scan::Field& field : scan::fields()) header.push_back(field.name);
    CHECK(rows[0] == header);
    for (const auto& row : rows) CHECK(row.size() == header.size());
    const auto cell = [&](std::size_t row, const std::string& name) {
        const auto column = std::find(header.begin(), header.end(), name) - header.begin();
        return rows[row][static_cast<std::size_t>(column)];
    };
    CHECK(cell(1, "rss_bytes").empty());
    CHECK(cell(1, "start") == "0x7f0000001000");
    CHECK(cell(2, "comm") == "java");
    CHECK(cell(2, "host") == "made-up");
    CHECK(cell(1, "complete") == "true");
    CHECK(parse_csv(typical_scan().render(as(Format::csv)))[0].size() ==
          2 + field_names(false).size());
}

TEST_CASE("scan: csv has one header, however many scans there are") {
    std::ostringstream two, none;
    const ScanSink sink = make_scan_sink(two, as(Format::csv));
    typical_scan().play(sink);
    typical_scan().play(sink);
    sink.finish();
    CHECK(parse_csv(two.str()).size() == 7);
    make_scan_sink(none, as(Format::csv)).finish();
    CHECK(parse_csv(none.str()).size() == 1);
}

TEST_CASE("scan: hostile names are safe in every format") {
    MadeUpScan scan;
    scan.add(full_record(1, hostile_name));
    scan.records[0].set("exe", hostile_name);
    scan.summary.host_name = hostile_name;
    const std::string escaped = escape_text(hostile_name);
    for (const Format format :
         {Format::table, Format::json, Format::ndjson, Format::csv, Format::openmetrics}) {
        ReportOptions options = as(format);
        options.width = 400;
        const std::string text = scan.render(options);
        CHECK(text.find('\033') == text.npos);
        CHECK(text.find('\xff') == text.npos);
        CHECK(text.find("\xe2\x80\xae") == text.npos);
    }
    const json doc = json::parse(scan.render(as(Format::json)));
    CHECK(doc[0]["records"][0]["comm"] == escaped);
    CHECK(doc[0]["scan"]["host"] == escaped);
    const auto rows = parse_csv(scan.render(as(Format::csv)));
    REQUIRE(rows.size() == 2);
    CHECK(rows[1][0] == escaped);
}

TEST_CASE("scan: the table shows what is wasted only where there is any") {
    MadeUpScan scan;
    scan::Record record = full_record(7, "seven");
    record.set("rss_bytes", std::uint64_t{8} << 20);
    record.set("zero_filled_bytes", {});
    record.set("empty_tables", std::uint64_t{1234});
    record.set("shmem_swapped_bytes", std::uint64_t{0});
    record.set("ksm_sole_bytes", std::uint64_t{0});
    record.set("pss_bytes", {});
    record.set("complete", false);
    scan.add(record);
    scan.summary.denied = 2;
    scan.summary.ended = 3;
    scan.summary.left_out = 4;
    ReportOptions options;
    options.width = 120;
    const std::string text = scan.render(options);
    CHECK(text.find("E-TABLES") != text.npos);
    CHECK(text.find("ZERO") == text.npos);
    CHECK(text.find("SHM-SWAP") == text.npos);
    CHECK(text.find("8 MiB         ?") != text.npos);
    CHECK(text.find("1234  partial") != text.npos);
    CHECK(text.find("1 process: RSS 8 MiB, PSS ?") != text.npos);
    CHECK(text.find("2 may not be looked at") != text.npos);
    CHECK(text.find("3 ended") != text.npos);
    CHECK(text.find("4 not shown") != text.npos);
    options.sort = scan::find_field("marker_only_tables");
    CHECK(scan.render(options).find("MARKER-ONLY-TABLES") != std::string::npos);
    options.width = 80;
    for (const std::string& line : lines_of(typical_scan().render(options)))
        CHECK_MESSAGE(line.size() <= 100, line);
}
