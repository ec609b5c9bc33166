// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "report/text.hpp"

#include <doctest/doctest.h>
#include <set>

using namespace pagesift;
using namespace pagesift::report;

TEST_CASE("report: wide and combining characters count as the columns they take") {
    CHECK(display_width("abc") == 3);
    CHECK(display_width("日本") == 4);
    CHECK(display_width("e\u0301") == 1);
    CHECK(display_width("") == 0);
}

TEST_CASE("report: a shortened text fits and keeps the end that was asked for") {
    CHECK(shorten("/usr/lib/libc.so.6", 10, Keep::end, true) == "…libc.so.6");
    CHECK(shorten("/usr/lib/libc.so.6", 10, Keep::end, false) == "...bc.so.6");
    CHECK(shorten("registered", 6, Keep::start, true) == "regis…");
    CHECK(shorten("short", 5, Keep::start, true) == "short");
    for (std::size_t width = 0; width < 12; ++width) {
        CHECK(display_width(shorten("日本語日本語", width, Keep::end, true)) <= width);
        CHECK(display_width(shorten("日本語日本語", width, Keep::start, false)) <= width);
    }
}

TEST_CASE("report: wrapped lines fit and continue under an indent") {
    CHECK(wrap("one two three", 7, 2) == "one two\n  three");
    CHECK(wrap("incompressible", 4, 2) == "incompressible");
    CHECK(wrap("", 10, 2).empty());
}

TEST_CASE("report: a share that exists is never shown as nothing") {
    CHECK(percent(1, 1'000'000) == "<0.1%");
    CHECK(percent(999'999, 1'000'000) == "99.9%");
    CHECK(percent(5, 5) == "100%");
    CHECK(percent(0, 5) == "0.0%");
    ReportOptions plain;
    CHECK(Style{plain}.bar(3, 1e-9, 8) == "#       ");
    CHECK(Style{plain}.bar(3, 1.0, 8) == "########");
    CHECK(Style{plain}.bar(3, 0.0, 8) == "        ");
}

TEST_CASE("report: without colour no escape sequence and no block character is written") {
    ReportOptions plain;
    const Style style{plain};
    CHECK(style.bold("x") == "x");
    CHECK(style.paint(3, "x") == "x");
    CHECK(style.fill(3, "x") == "x");
    ReportOptions colourful;
    colourful.colour = true;
    CHECK(Style{colourful}.paint(3, "x").find("\033[") == 0);
}

TEST_CASE("report: every class has a letter of its own, and unknown is a question mark") {
    std::set<char> letters;
    for (std::size_t cls = 0; cls < class_count; ++cls) letters.insert(class_letter(cls));
    CHECK(letters.size() == class_count - 1); // unknown state and unknown kind share theirs
    CHECK(class_letter(class_of(State::unknown, Kind::not_present)) == '?');
    CHECK(class_letter(class_of(State::present, Kind::unknown)) == '?');
    CHECK(class_word(class_of(State::unknown, Kind::not_present)) == "?");
}

TEST_CASE("report: amounts follow the unit, and unknown is a question mark") {
    CHECK(Amounts{Unit::automatic, 4096}(8192) == "8 KiB");
    CHECK(Amounts{Unit::bytes, 4096}(8192) == "8192");
    CHECK(Amounts{Unit::pages, 4096}(8192) == "2");
    CHECK(Amounts{Unit::bytes, 4096}(std::optional<std::uint64_t>{}) == "?");
}

TEST_CASE("report: every backing and slot state has its word") {
    std::set<std::string_view> words;
    for (const Backing backing : all_backings) words.insert(backing_word(backing));
    CHECK(words.size() == all_backings.size());
    words.clear();
    for (const SlotState state : all_slot_states) words.insert(slot_word(state));
    CHECK(words.size() == all_slot_states.size());
}
