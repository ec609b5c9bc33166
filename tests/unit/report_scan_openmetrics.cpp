// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "made_up_census.hpp"
#include "made_up_scan.hpp"

#include <doctest/doctest.h>
#include <map>
#include <set>

using namespace pagesift;
using namespace pagesift::report;
using namespace pagesift::test;

namespace {

struct Exposition {
    std::map<std::string, double> samples; ///< "name{labels}"
    std::map<std::string, std::string> units;
    std::set<std::string> families;
};

/// As strict as the text format: each family in one piece, its head first, "# EOF" last.
Exposition parse(const std::string& text) {
    Exposition result;
    std::string family;
    bool ended = false;
    REQUIRE(text.ends_with("# EOF\n"));
    for (const std::string& line : lines_of(text)) {
        REQUIRE_FALSE(ended);
        if (line == "# EOF") {
            ended = true;
            continue;
        }
        std::istringstream words{line};
        std::string hash, what, name, rest;
        if (line.starts_with("# ")) {
            words >> hash >> what >> name >> rest;
            if (what == "TYPE") {
                CHECK_MESSAGE(result.families.insert(name).second, name << " comes twice");
                CHECK(rest == "gauge");
                family = name;
            }
            if (what == "UNIT") {
                CHECK(name.ends_with("_" + rest));
                result.units[name] = rest;
            }
            CHECK(name == family);
            continue;
        }
        const std::size_t blank = line.rfind(' ');
        const std::string series = line.substr(0, blank);
        CHECK(series.substr(0, series.find('{')) == family);
        std::size_t used = 0;
        const std::string number = line.substr(blank + 1);
        const double value = std::stod(number, &used);
        CHECK(used == number.size());
        CHECK_MESSAGE(result.samples.emplace(series, value).second, series << " comes twice");
    }
    return result;
}

Exposition expose(const MadeUpScan& scan, ReportOptions options = {}) {
    options.format = Format::openmetrics;
    return parse(scan.render(options));
}

double number(const scan::Record& record, const std::string& field) {
    return static_cast<double>(std::get<std::uint64_t>(record.at(field)));
}

} // namespace

TEST_CASE("openmetrics: every additive field is a gauge by comm, with its unit") {
    MadeUpScan scan = typical_scan();
    scan.summary.per = scan::Per::comm;
    scan.records[2].set("comm", std::string{"perl"});
    const Exposition metrics = expose(scan);
    for (const scan::Field& field : scan::fields()) {
        const std::string name = "pagesift_" + field.name;
        CHECK_MESSAGE(metrics.families.contains(name) == field.additive, name);
        if (!field.additive || field.unit == scan::Unit::seconds) continue;
        CHECK(metrics.units.contains(name) == (field.unit == scan::Unit::bytes));
        CHECK(metrics.samples.at(name + "{comm=\"init\"}") == number(scan.records[0], field.name));
        CHECK(metrics.samples.at(name + "{comm=\"java\"}") == number(scan.records[1], field.name));
        CHECK(metrics.samples.at(name + "{comm=\"perl\"}") == number(scan.records[2], field.name));
        CHECK(metrics.samples.at("pagesift_all_" + field.name) ==
              number(scan.summary.totals, field.name));
    }
    CHECK(metrics.samples.at("pagesift_scan_processes{result=\"answered\"}") == 3);
    CHECK(metrics.samples.at("pagesift_scan_timestamp_seconds") ==
          doctest::Approx(1'700'000'000.123).epsilon(1e-12));
    CHECK(metrics.samples.at("pagesift_scan_duration_seconds") == 1.5);
    CHECK(
        metrics.samples.contains("pagesift_scan_info{depth=\"pages\",per=\"comm\",lens=\"proc\"}"));
}

TEST_CASE("openmetrics: groups beyond the greatest are added up, and no series comes twice") {
    MadeUpScan scan;
    scan.summary.per = scan::Per::comm;
    for (std::uint64_t pid = 1; pid <= 50; ++pid)
        scan.add(full_record(pid, pid == 50 ? "other" : "name " + std::to_string(pid)));
    ReportOptions options;
    options.top = 3;
    const Exposition metrics = expose(scan, options);
    double sum = 0;
    std::size_t series = 0;
    for (const auto& [name, value] : metrics.samples) {
        if (!name.starts_with("pagesift_rss_bytes{")) continue;
        ++series;
        sum += value;
    }
    CHECK(series == 4);
    CHECK(sum == number(scan.summary.totals, "rss_bytes"));
    // The greatest is called like the rest, and so it is in there.
    CHECK(metrics.samples.contains("pagesift_rss_bytes{comm=\"name 49\"}"));
    CHECK(metrics.samples.contains("pagesift_rss_bytes{comm=\"name 47\"}"));
    CHECK(metrics.samples.at("pagesift_processes{comm=\"other\"}") == 47);
    CHECK(metrics.samples.at("pagesift_scan_other_groups") == 46);
}

TEST_CASE("openmetrics: processes have their pids as labels") {
    const Exposition metrics = expose(typical_scan());
    CHECK(metrics.samples.contains("pagesift_rss_bytes{pid=\"2\",comm=\"java\"}"));
    CHECK(metrics.samples.contains("pagesift_rss_bytes{pid=\"3\",comm=\"java\"}"));
}

TEST_CASE("openmetrics: groups of the scan keep their label and figures, and parts have none") {
    MadeUpScan scan = typical_scan();
    scan.summary.per = scan::Per::cgroup;
    for (std::size_t i = 0; i < 3; ++i) {
        scan.records[i].set("cgroup", "/group." + std::to_string(i));
        scan.records[i].set("processes", std::uint64_t{10 + i});
    }
    ReportOptions options;
    options.top = 1;
    const Exposition metrics = expose(scan, options);
    CHECK(metrics.samples.at("pagesift_processes{cgroup=\"/group.2\"}") == 12);
    CHECK(metrics.samples.at("pagesift_processes{cgroup=\"other\"}") == 21);
    scan.summary.per = scan::Per::mapping;
    CHECK(error_of([&] { expose(scan); }).value().kind() == ErrorKind::usage);
}

TEST_CASE("openmetrics: label values are escaped, and unknown has no sample") {
    MadeUpScan scan;
    scan.summary.per = scan::Per::comm;
    scan::Record record = full_record(1, hostile_name);
    record.set("zero_filled_bytes", {});
    scan.add(record);
    const Exposition metrics = expose(scan);
    CHECK(metrics.samples.contains("pagesift_rss_bytes{comm=\"a\\\"b,\\\\x0d\\\\x0a\\\\x1b[31m"
                                   "\\\\xff\\\\\\\\n\\\\u{202e}{}'\"}"));
    CHECK_FALSE(metrics.families.contains("pagesift_zero_filled_bytes"));
    CHECK_FALSE(metrics.families.contains("pagesift_all_zero_filled_bytes"));
}
