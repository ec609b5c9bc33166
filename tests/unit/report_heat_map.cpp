// SPDX-License-Identifier: MIT
#include "made_up_census.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::report;
using pagesift::test::lines_of;
using pagesift::test::MadeUpCensus;

namespace {

std::string draw(const MadeUpCensus& census, unsigned width = 80) {
    ReportOptions options;
    options.map = true;
    options.width = width;
    return census.render(options);
}

/// Lines that begin with an address: digits, two blanks, cells.
std::vector<std::string> rows_of(const std::string& text) {
    std::vector<std::string> rows;
    for (const std::string& line : lines_of(text)) {
        const auto start = line.find_first_not_of(' ');
        const auto end = line.find_first_not_of("0123456789abcdef", start);
        if (start == line.npos || end == line.npos || end < 12 || start == end) continue;
        if (line.substr(end, 2) == "  ") rows.push_back(line);
    }
    return rows;
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("report: a small process is drawn page by page") {
    MadeUpCensus census;
    census.mapping(0x7f0000000000)
        .present(3, Kind::anon)
        .absent(2, State::swapped)
        .absent(4, State::none);
    census.present(1, Kind::thp);
    const auto rows = rows_of(draw(census));
    REQUIRE(rows.size() == 1);
    CHECK(rows[0] == "7f0000000000  AAASS....T");
    CHECK(has(draw(census), "One cell is 4 KiB (1 page)"));
}

TEST_CASE("report: gaps between mappings are folded and say how large they are") {
    MadeUpCensus census;
    census.mapping(0x100000000000).present(1, Kind::file);
    census.mapping(0x110000000000).present(1, Kind::anon);
    const std::string text = draw(census);
    CHECK(rows_of(text).size() == 2);
    CHECK(has(text, "...  1.0 TiB unmapped"));
}

TEST_CASE("report: stretches of nothing inside a mapping are folded too") {
    MadeUpCensus census;
    census.mapping(0x100000000000)
        .present(1, Kind::anon)
        .absent(1 << 28, State::none)
        .present(1, Kind::anon);
    const std::string text = draw(census);
    CHECK(rows_of(text).size() == 2);
    CHECK(has(text, "TiB none"));
    CHECK_FALSE(has(text, "unmapped"));
}

TEST_CASE("report: the map fits one screen however large the process is") {
    for (const unsigned width : {40u, 80u, 120u, 200u}) {
        MadeUpCensus dense;
        dense.mapping(0x100000000000).present(1 << 22, Kind::anon).absent(1 << 22, State::swapped);
        CHECK(rows_of(draw(dense, width)).size() <= 24);
        MadeUpCensus scattered;
        for (std::uint64_t i = 1; i < 2000; ++i)
            scattered.mapping(i << 28).present(1 + i % 50, i % 2 ? Kind::anon : Kind::file);
        CHECK(lines_of(draw(scattered, width)).size() <= 40);
        CHECK(rows_of(draw(scattered, width)).size() >= 6);
    }
}

TEST_CASE("report: a cell shows what most of its pages are, small when most of it is none") {
    MadeUpCensus census;
    census.mapping(0x100000000000);
    // 16 GiB in blocks: a cell is many pages.
    for (int i = 0; i < 64; ++i)
        census.absent(40000, State::swapped).present(25000, Kind::anon).absent(536, State::none);
    for (const std::string& row : rows_of(draw(census)))
        CHECK(row.find_first_of("SsAa", 14) != row.npos);
    MadeUpCensus sparse;
    sparse.mapping(0x100000000000);
    for (int i = 0; i < 4096; ++i) sparse.present(1, Kind::anon).absent(1023, State::none);
    const std::string text = draw(sparse);
    CHECK(has(rows_of(text)[0], "aaaa"));
    CHECK(has(text, "A small letter"));
}

TEST_CASE("report: the legend has what occurs and nothing else") {
    MadeUpCensus census;
    census.mapping(0x7f0000000000).present(3, Kind::anon).absent(2, State::swapped);
    const std::string text = draw(census);
    CHECK(has(text, "A anon 12 KiB"));
    CHECK(has(text, "S swapped 8 KiB"));
    CHECK_FALSE(has(text, "thp"));
    CHECK_FALSE(has(text, ". none"));
}

TEST_CASE("report: the top of the address space is drawn without overflow") {
    MadeUpCensus census;
    census.mapping(0x7f0000000000).present(3, Kind::anon);
    census.mapping(0xffffffffff600000, "[vsyscall]", Backing::special)
        .present(1, Kind::special, Backing::special);
    const std::string text = draw(census);
    CHECK(rows_of(text).size() == 2);
    CHECK(has(text, "EiB unmapped"));
}

TEST_CASE("report: a map of a selection does not call the rest none") {
    MadeUpCensus census;
    census.mapping(0x100000000000)
        .present(1, Kind::anon)
        .absent(1 << 28, State::none)
        .present(1, Kind::anon);
    census.census.mappings[0].whole = false;
    CHECK(has(draw(census), "not selected or none"));
    CHECK_FALSE(has(draw(census), ". none"));
}
