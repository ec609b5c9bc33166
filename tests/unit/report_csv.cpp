// SPDX-License-Identifier: MIT
#include "csv.hpp"
#include "made_up_census.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::report;
using pagesift::test::MadeUpCensus;
using pagesift::test::parse_csv;
using pagesift::test::typical;

namespace {

std::vector<std::vector<std::string>> table(const MadeUpCensus& census,
                                            ReportOptions options = {}) {
    options.format = Format::csv;
    return parse_csv(census.render(options));
}

std::size_t column(const std::vector<std::vector<std::string>>& rows, const std::string& title) {
    for (std::size_t i = 0; i < rows[0].size(); ++i)
        if (rows[0][i] == title) return i;
    FAIL("no column " << title);
    return 0;
}

} // namespace

TEST_CASE("report: csv is one table, chosen by what was asked for") {
    const MadeUpCensus census = typical();
    ReportOptions options;
    CHECK(table(census, options).size() == 1 + census.census.mappings.size());
    options.ranges = true;
    CHECK(table(census, options).size() == 1 + census.runs.size());
    options.pages = true;
    CHECK(table(census, options).size() == 1 + census.listed.size());
}

TEST_CASE("report: every csv row has as many fields as the header") {
    MadeUpCensus census = typical();
    census.census.process.comm = "a,\"b\"\r\n\xff";
    census.mapping(0x7fff00000000, "x,\"y\"\nz").present(2, Kind::anon);
    for (int form = 0; form < 3; ++form) {
        ReportOptions options;
        options.ranges = form == 1;
        options.pages = form == 2;
        const auto rows = table(census, options);
        for (const auto& row : rows) CHECK(row.size() == rows[0].size());
        CHECK(rows.back().back() == "x,\"y\"\\x0az");
        CHECK(rows[1][column(rows, "comm")] == "a,\"b\"\\x0d\\x0a\\xff");
    }
}

TEST_CASE("report: names that look like formulas are quoted and kept") {
    MadeUpCensus census;
    census.mapping(0x1000, "=cmd|'/c calc'!A1").present(1, Kind::anon);
    ReportOptions options;
    options.format = Format::csv;
    CHECK(census.render(options).find(",\"=cmd|'/c calc'!A1\"\r\n") != std::string::npos);
}

TEST_CASE("report: unknown is an empty csv field") {
    const auto rows = table(typical());
    CHECK(rows[1][column(rows, "kind_zero_filled_bytes")].empty());
    CHECK(rows[1][column(rows, "kind_file_bytes")] == "409600");
    CHECK(rows[1][column(rows, "state_swapped_bytes")] == "0");
}

TEST_CASE("report: csv has its header even when there is nothing under it, and only once") {
    std::ostringstream none;
    ReportOptions options;
    options.format = Format::csv;
    make_sink(none, options).finish();
    CHECK(parse_csv(none.str()).size() == 1);
    std::ostringstream two;
    const Sink sink = make_sink(two, options);
    typical().play(sink);
    typical().play(sink);
    sink.finish();
    CHECK(parse_csv(two.str()).size() == 9);
}
