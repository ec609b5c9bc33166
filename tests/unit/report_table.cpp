// SPDX-License-Identifier: MIT
#include "made_up_census.hpp"
#include "report/text.hpp"

#include <algorithm>
#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::report;
using pagesift::test::lines_of;
using pagesift::test::MadeUpCensus;
using pagesift::test::typical;

namespace {

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::string line_with(const std::string& text, const std::string& start) {
    for (const std::string& line : lines_of(text))
        if (line.starts_with(start)) return line;
    return {};
}

std::string without_escapes(const std::string& text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\033')
            i = text.find('m', i);
        else
            plain += text[i];
    }
    return plain;
}

const std::string hostile = "\033]0;owned\a\r\n\u202e\xff"
                            "name";

} // namespace

TEST_CASE("report: no line of a table is wider than the terminal") {
    MadeUpCensus census = typical();
    census.census.process.comm = hostile;
    census.census.gaps.push_back({"kpageflags",
                                  {},
                                  "frame flags need a privilege that this process does not have",
                                  "run as root, or give CAP_SYS_ADMIN",
                                  false});
    census.mapping(0x7fff00000000, "/日本語/" + std::string(300, 'x')).present(3, Kind::ksm_sole);
    for (const unsigned width : {40u, 50u, 59u, 60u, 72u, 79u, 80u, 100u, 120u, 200u}) {
        for (int form = 0; form < 5; ++form) {
            for (const bool colour : {false, true}) {
                ReportOptions options;
                options.width = width;
                options.colour = colour;
                options.mappings = form == 1;
                options.ranges = form == 2;
                options.pages = form == 3;
                options.map = form == 4;
                for (const std::string& line : lines_of(without_escapes(census.render(options)))) {
                    INFO(width, " form ", form, ": ", line);
                    CHECK(display_width(line) <= width);
                    CHECK((line.empty() || line.back() != ' '));
                }
            }
        }
    }
}

TEST_CASE("report: the summary is one screen") {
    CHECK(lines_of(typical().render({})).size() <= 40);
}

TEST_CASE("report: without colour a table is plain ascii") {
    for (int form = 0; form < 5; ++form) {
        ReportOptions options;
        options.mappings = form == 1;
        options.ranges = form == 2;
        options.pages = form == 3;
        options.map = form == 4;
        const std::string text = typical().render(options);
        CHECK(std::all_of(text.begin(), text.end(),
                          [](char c) { return c == '\n' || (c >= ' ' && c < 0x7f); }));
    }
}

TEST_CASE("report: colour adds escape sequences and changes no figure") {
    ReportOptions options;
    options.colour = true;
    const std::string text = typical().render(options);
    CHECK(has(text, "\033["));
    CHECK(has(text, "█"));
    const std::string plain = without_escapes(text);
    CHECK(line_with(plain, "present").substr(0, 30) ==
          line_with(typical().render({}), "present").substr(0, 30));
}

TEST_CASE("report: hostile names never reach the terminal as they are") {
    MadeUpCensus census;
    census.census.process.comm = hostile;
    census.census.process.exe = hostile;
    census.census.lens = hostile;
    census.census.gaps.push_back({hostile, {}, hostile, hostile, false});
    census.mapping(0x1000, hostile).present(1, Kind::anon);
    for (int form = 0; form < 5; ++form) {
        ReportOptions options;
        options.width = 200;
        options.mappings = form == 1;
        options.ranges = form == 2;
        options.pages = form == 3;
        options.map = form == 4;
        const std::string text = census.render(options);
        for (const char* bad : {"\033", "\a", "\r", "\u202e", "\xff"}) CHECK_FALSE(has(text, bad));
        CHECK(has(text, "\\x1b]0;owned\\x07\\x0d\\x0a\\u{202e}\\xffname"));
    }
}

TEST_CASE("report: what is not known is a question mark with a reason, never zero") {
    MadeUpCensus census = typical();
    census.census.frames_known = false;
    census.census.tables.total_bytes = {};
    census.census.tables.empty_tables = {};
    census.census.tables.located_tables = {};
    census.census.tables.reclaimable_bytes = {};
    census.census.totals.pss_unknown_pages = 3;
    census.census.gaps.push_back({"kpageflags", {}, "cannot be opened", "CAP_SYS_ADMIN", false});
    const std::string text = census.render({});
    CHECK(has(line_with(text, "  zero-filled"), "?"));
    CHECK(has(line_with(text, "  empty"), "?"));
    CHECK(has(line_with(text, "page tables"), "?"));
    CHECK(has(text, "PSS ?"));
    CHECK(has(line_with(text, "  ksm "), "?"));
    CHECK(has(text, "? kpageflags: cannot be opened; would show it: CAP_SYS_ADMIN"));
}

TEST_CASE("report: states and kinds that do not occur have no line") {
    const std::string text = typical().render({});
    CHECK(line_with(text, "migrating").empty());
    CHECK(line_with(text, "  hugetlb").empty());
    CHECK_FALSE(line_with(text, "swapped").empty());
    CHECK(has(line_with(text, "none"), "3.9 MiB"));
}

TEST_CASE("report: the same gap in many places is one line") {
    MadeUpCensus census = typical();
    for (std::uint64_t i = 1; i < 100; ++i)
        census.census.gaps.push_back({"map_files",
                                      AddressRange{Address{i << 12}, Address{(i + 1) << 12}},
                                      "cannot be opened", "CAP_CHECKPOINT_RESTORE", false});
    const std::string text = census.render({});
    CHECK(has(text, "(99 ranges)"));
    CHECK(std::count(text.begin(), text.end(), '?') < 8);
}

TEST_CASE("report: units are bytes, pages, or whatever reads best") {
    MadeUpCensus census;
    census.mapping(0x1000).present(512, Kind::anon);
    ReportOptions options;
    CHECK(has(census.render(options), "2 MiB"));
    options.unit = Unit::bytes;
    CHECK(has(census.render(options), "2097152"));
    options.unit = Unit::pages;
    CHECK(has(line_with(census.render(options), "present"), " 512 "));
}

TEST_CASE("report: --top limits the mappings of the summary") {
    ReportOptions options;
    options.top = 2;
    CHECK(has(typical().render(options), "2 of 4"));
    options.top = 0;
    CHECK_FALSE(has(typical().render(options), "Mappings"));
}

TEST_CASE("report: savings come in order of gain and only where there are any") {
    MadeUpCensus census = typical();
    census.census.tables.reclaimable_bytes = 4096;
    auto savings = find_savings(census.census);
    REQUIRE(savings.size() == 1);
    CHECK(savings[0].what == "empty page tables");
    census.census.want.zero = ZeroTest::all;
    census.mapping(0x7fff00000000).present(1000, Kind::zero_filled);
    census.census.totals.content_asked = census.census.totals.content_candidates = 1000;
    census.census.totals.content_zero = 1000;
    savings = find_savings(census.census);
    REQUIRE(savings.size() == 2);
    CHECK(savings[0].bytes == 1000 * 4096);
    CHECK(savings[0].what == "zero-filled pages");
    census.mapping(0x7ffe00000000).present(1000, Kind::ksm_sole);
    census.census.process.pid = 4711;
    savings = find_savings(census.census);
    REQUIRE(savings.size() == 3);
    CHECK(savings[0].command == "pagesift advise zero-drop --apply 4711");
    CHECK(has(savings[0].note, "'pagesift advise merge 4711'"));
    CHECK(savings[1].command == "pagesift advise unmerge --apply 4711");
    CHECK(savings[2].command == "pagesift advise pt-reclaim --apply 4711");
    CHECK(find_savings(Census{}).empty());
}

TEST_CASE("report: commands are not dimmed, notes are") {
    ReportOptions options;
    options.colour = true;
    const std::string text = typical().render(options);
    CHECK(has(text, "\n            pagesift advise pt-reclaim --apply "));
    CHECK(has(text, "\n            \033[2m--format json"));
}

TEST_CASE("report: only empty tables whose place is unknown are an upper bound") {
    MadeUpCensus census = typical();
    census.census.tables.located_tables = census.census.tables.reclaimable_bytes = {};
    const auto savings = find_savings(census.census);
    REQUIRE(savings.size() == 1);
    CHECK(has(savings[0].what, "at most"));
    CHECK(has(savings[0].command, "in the program: madvise"));
    CHECK(savings[0].bytes == 2 * 4096);
}

TEST_CASE("report: a sample's saving is the private part of what it found") {
    MadeUpCensus census;
    census.census.tables.reclaimable_bytes = 0;
    census.census.want.zero = ZeroTest::sample;
    census.mapping(0x1000).present(5, Kind::zero_filled).present(1000, Kind::anon);
    census.mapping(0x10000000, "/memfd:x", Backing::shmem)
        .present(15, Kind::zero_filled, Backing::shmem);
    census.census.totals.content_asked = 100;
    census.census.totals.content_zero = 20;
    census.census.totals.content_candidates = 1000;
    const auto savings = find_savings(census.census);
    REQUIRE(savings.size() == 1);
    CHECK(savings[0].bytes == 50 * 4096);
    CHECK(has(savings[0].note, "95 %"));
}

TEST_CASE("report: zero-filled file pages are no saving") {
    MadeUpCensus census;
    census.census.want.zero = ZeroTest::all;
    census.mapping(0x1000, "/file", Backing::file).present(1000, Kind::zero_filled, Backing::file);
    census.census.totals.content_zero = census.census.totals.content_asked = 1000;
    census.census.tables.reclaimable_bytes = 0;
    CHECK(find_savings(census.census).empty());
}

TEST_CASE("report: an interrupted look says so") {
    MadeUpCensus census = typical();
    census.census.interrupted = true;
    CHECK(has(census.render({}), "interrupted"));
}

TEST_CASE("report: an empty selection says so") {
    MadeUpCensus census;
    ReportOptions options;
    options.ranges = true;
    CHECK(has(census.render(options), "nothing matches"));
    options.ranges = false;
    options.map = true;
    CHECK(has(census.render(options), "nothing to draw"));
}

TEST_CASE("report: attribute letters stand in a legend") {
    MadeUpCensus census;
    PageClass cls{.state = State::present, .kind = Kind::anon};
    cls.set(Attribute::dirty, Tri::yes);
    cls.set(Attribute::young, Tri::unknown);
    census.mapping(0x1000).pages(2, cls);
    census.runs[0].attributes |= 3u << (2 * static_cast<unsigned>(Attribute::active));
    ReportOptions options;
    options.ranges = true;
    const std::string text = census.render(options);
    CHECK(has(text, " d--?+-------"));
    CHECK(has(text, "d=dirty"));
    CHECK(has(text, "?=unknown"));
}
