// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::scan;

namespace {

Record made_up() {
    Record r;
    r.set("pid", std::uint64_t{42});
    r.set("comm", std::string{"java main"});
    r.set("cgroup", std::string{"/system.slice/a.service"});
    r.set("rss_bytes", std::uint64_t{64} << 20);
    r.set("empty_tables", std::uint64_t{1000});
    r.set("sampled_share", 0.25);
    r.set("elapsed_seconds", 1.5);
    r.set("complete", true);
    r.set("start", std::uint64_t{0x7f0000000000});
    return r;
}

Tri ask(std::string_view expression) {
    const Record record = made_up();
    return Where::parse(expression).matches(record);
}

std::string refused(std::string_view expression) {
    try {
        Where::parse(expression);
    } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::usage);
        return error.what();
    }
    FAIL("accepted: ", expression);
    return {};
}

bool mentions(const std::string& text, std::string_view part) {
    INFO(text);
    return text.find(part) != text.npos;
}

} // namespace

TEST_CASE("scan where: sizes with suffixes and all comparisons") {
    CHECK(ask("rss_bytes = 64M") == Tri::yes);
    CHECK(ask("rss_bytes == 67108864") == Tri::yes);
    CHECK(ask("rss_bytes != 64M") == Tri::no);
    CHECK(ask("rss_bytes > 64M") == Tri::no);
    CHECK(ask("rss_bytes >= 64M") == Tri::yes);
    CHECK(ask("rss_bytes < 1G") == Tri::yes);
    CHECK(ask("rss_bytes<=63.9M") == Tri::no);
    CHECK(ask("rss_bytes < 1T") == Tri::yes);
    CHECK(ask("empty_tables > 999 and empty_tables < 1K") == Tri::yes);
    CHECK(ask("start = 0x7f0000000000") == Tri::yes);
    CHECK(ask("pid = 42") == Tri::yes);
}

TEST_CASE("scan where: texts, globs, shares, seconds and flags") {
    CHECK(ask("comm = 'java main'") == Tri::yes);
    CHECK(ask("comm = java") == Tri::no);
    CHECK(ask("comm ~ \"java*\"") == Tri::yes);
    CHECK(ask("comm !~ 'java*'") == Tri::no);
    CHECK(ask("comm != java") == Tri::yes);
    CHECK(ask("cgroup ~ '/system.slice/*'") == Tri::yes);
    CHECK(ask("sampled_share < 0.5") == Tri::yes);
    CHECK(ask("sampled_share = '25%'") == Tri::yes);
    CHECK(ask("elapsed_seconds > 1.25") == Tri::yes);
    CHECK(ask("complete") == Tri::yes);
    CHECK(ask("not complete") == Tri::no);
    CHECK(ask("complete = false") == Tri::no);
    CHECK(ask("complete != no") == Tri::yes);
}

TEST_CASE("scan where: a comparison with an unknown value decides nothing") {
    CHECK(ask("zero_filled_bytes > 64M") == Tri::unknown);
    CHECK(ask("zero_filled_bytes = 0") == Tri::unknown);
    CHECK(ask("zero_filled_bytes != 0") == Tri::unknown);
    CHECK(ask("not zero_filled_bytes > 0") == Tri::unknown);
    CHECK(ask("exe ~ '*'") == Tri::unknown);
    CHECK(ask("exe != x") == Tri::unknown);
    CHECK(ask("zero_filled_bytes > 64M or empty_tables >= 1000") == Tri::yes);
    CHECK(ask("zero_filled_bytes > 64M or empty_tables > 1000") == Tri::unknown);
    CHECK(ask("zero_filled_bytes > 64M and empty_tables > 1000") == Tri::no);
    CHECK(ask("zero_filled_bytes > 64M and complete") == Tri::unknown);
    CHECK(Where{}.matches(made_up()) == Tri::yes);
}

TEST_CASE("scan where: and binds closer than or, brackets closest") {
    CHECK(ask("complete or complete and pid = 1") == Tri::yes);
    CHECK(ask("(complete or complete) and pid = 1") == Tri::no);
    CHECK(ask("! (pid = 1 || pid = 2) && complete") == Tri::yes);
}

TEST_CASE("scan where: knows the least depth that it needs") {
    CHECK(Where{}.needs() == Depth::totals);
    CHECK(Where::parse("pss_bytes > 1G and comm = java").needs() == Depth::totals);
    CHECK(Where::parse("pss_bytes > 1G or not swapped_bytes > 0").needs() == Depth::pages);
    CHECK(Where::parse("empty_tables > 1000").needs() == Depth::pages);
    CHECK(Where::parse("(zero_filled_bytes > 64M or empty_tables > 1) and pid > 1").needs() ==
          Depth::content);
}

TEST_CASE("scan where: an error points at the word and its column") {
    CHECK(mentions(refused("rss_byte > 1"), "'rss_byte' (column 1)"));
    CHECK(mentions(refused("pid > 1 and rss_byte > 1"), "'rss_byte' (column 13)"));
    CHECK(mentions(refused("rss_bytes > many"), "'many' (column 13)"));
    CHECK(mentions(refused("rss_bytes > -1"), "'-1' (column 13)"));
    CHECK(mentions(refused("rss_bytes > 99999999999999999999"), "(column 13)"));
    CHECK(mentions(refused("rss_bytes"), "the end (column 10)"));
    CHECK(mentions(refused("rss_bytes >"), "the end (column 12)"));
    CHECK(mentions(refused("rss_bytes ~ '1*'"), "'~' (column 11)"));
    CHECK(mentions(refused("comm < a"), "'<' (column 6)"));
    CHECK(mentions(refused("complete > true"), "'>' (column 10)"));
    CHECK(mentions(refused("complete = maybe"), "'maybe' (column 12)"));
    CHECK(mentions(refused("sampled_share > nan"), "'nan' (column 17)"));
    CHECK(mentions(refused("comm = 'java"), "a quote is not closed"));
    CHECK(mentions(refused("(complete"), "expected ')'"));
    CHECK(mentions(refused("complete complete"), "(column 10)"));
    CHECK(mentions(refused(""), "the end (column 1)"));
    CHECK(mentions(refused("\x1b[31m"), "(column 1)"));
    CHECK(mentions(refused(std::string(500, '(') + "complete"), "nested too deeply"));
}
