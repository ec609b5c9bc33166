// SPDX-License-Identifier: MIT
#include "pagesift/procfs.hpp"

#include <doctest/doctest.h>
#include <string>

using namespace pagesift;
using namespace pagesift::procfs;

namespace {

struct Parsed {
    std::vector<MappingText> mappings;
    std::size_t ignored = 0;
    std::size_t overlapping = 0;
};

Parsed parse(std::string_view text, std::size_t piece = std::string_view::npos) {
    Parsed parsed;
    MapsParser parser;
    const auto keep = [&](MappingText&& m) { parsed.mappings.push_back(std::move(m)); };
    while (!text.empty()) {
        parser.feed(text.substr(0, piece), keep);
        text.remove_prefix(std::min(piece, text.size()));
    }
    parser.finish(keep);
    parsed.ignored = parser.ignored_lines();
    parsed.overlapping = parser.overlapping_lines();
    return parsed;
}

std::string name_of(std::string_view line) {
    const auto mapping = parse_maps_line(line);
    return mapping ? mapping->name : "(no mapping)";
}

constexpr std::string_view three_lines =
    "55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]\n"
    "7f1200000000-7f1200200000 r-xs 00003000 fe:01 1234567                    /usr/lib/a b.so\n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

} // namespace

TEST_CASE("maps: a line is its range, permissions, offset, device, inode and name") {
    const auto m = parse_maps_line(
        "7f1200000000-7f1200200000 r-xs 00003000 fe:1f 1234567                    /usr/lib/a b.so");
    REQUIRE(m);
    CHECK(m->range == AddressRange{Address{0x7f1200000000}, Address{0x7f1200200000}});
    CHECK(m->permissions() == "r-xs");
    CHECK(m->offset == 0x3000);
    CHECK(m->device == Device{0xfe, 0x1f});
    CHECK(m->inode == 1234567);
    CHECK(m->name == "/usr/lib/a b.so");
}

TEST_CASE("maps: a line without a name ends behind the inode, with or without blanks") {
    CHECK(name_of("1000-2000 rw-p 00000000 00:00 0 ") == "");
    CHECK(name_of("1000-2000 rw-p 00000000 00:00 0") == "");
}

TEST_CASE("maps: [vsyscall] lies above every process and is a line like any other") {
    const auto parsed = parse(three_lines);
    REQUIRE(parsed.mappings.size() == 3);
    CHECK(parsed.mappings[2].mapping.range.start.value == 0xffffffffff600000);
    CHECK(parsed.mappings[2].mapping.name == "[vsyscall]");
    CHECK(parsed.ignored == 0);
}

TEST_CASE("maps: an escaped newline is turned back, and other backslashes stay") {
    CHECK(name_of("1000-2000 r--p 0 00:01 5 /tmp/two\\012lines") == "/tmp/two\nlines");
    CHECK(name_of("1000-2000 r--p 0 00:01 5 /tmp/\\012") == "/tmp/\n");
    CHECK(name_of("1000-2000 r--p 0 00:01 5 /tmp/back\\slash\\01") == "/tmp/back\\slash\\01");
}

TEST_CASE("maps: the name keeps ' (deleted)', blanks at its end and bytes of any value") {
    CHECK(name_of("1000-2000 rw-s 0 00:01 5 /memfd:x (deleted)") == "/memfd:x (deleted)");
    CHECK(name_of("1000-2000 r--p 0 00:01 5 /a \t ") == "/a \t ");
    CHECK(name_of("1000-2000 r--p 0 00:01 5 \xff\x1b[2J") == "\xff\x1b[2J");
    CHECK(name_of("1000-2000 r--p 0 00:01 5 1000-2000 r--p") == "1000-2000 r--p");
}

TEST_CASE("maps: what is no mapping is refused whole") {
    for (const char* line :
         {"", " ", "1000", "1000-2000", "1000-2000 rw-p", "2000-1000 rw-p 0 00:00 0",
          "1000-1000 rw-p 0 00:00 0", "1000-2000 rw-x 0 00:00 0", "1000-2000 rwp 0 00:00 0",
          "1000-2000 rw-p g 00:00 0", "1000-2000 rw-p 0 0000 0", "1000-2000 rw-p 0 00:00 x",
          "1000-20000000000000000 rw-p 0 00:00 0", "0x1000-0x2000 rw-p 0 00:00 0",
          "1000-2000 rw-p 0 00:00 99999999999999999999", "-1000-2000 rw-p 0 00:00 0",
          "1000-2000 rw-p 0 100000000:00 0"})
        CHECK_MESSAGE(!parse_maps_line(line), "'", std::string{line}, "'");
}

TEST_CASE("maps: five-level addresses and the end of the address space are ordinary") {
    CHECK(parse_maps_line("ff00000000000000-ff00000000001000 rw-p 0 00:00 0"));
    CHECK(parse_maps_line("fffffffffffff000-ffffffffffffffff rw-p 0 00:00 0"));
}

TEST_CASE("maps: pieces of every size give the same mappings") {
    const auto whole = parse(three_lines);
    for (std::size_t piece = 1; piece <= three_lines.size(); ++piece) {
        const auto parsed = parse(three_lines, piece);
        REQUIRE(parsed.mappings.size() == 3);
        for (std::size_t i = 0; i < 3; ++i)
            CHECK(parsed.mappings[i].mapping == whole.mappings[i].mapping);
    }
}

TEST_CASE("maps: a text that was cut in the middle of a line loses that line and says so") {
    const auto second_line = three_lines.find('\n') + 1;
    const auto parsed = parse(three_lines.substr(0, second_line + 30));
    CHECK(parsed.mappings.size() == 1);
    CHECK(parsed.ignored == 1);
}

TEST_CASE("maps: a line that grew and is printed again is clipped to what is new") {
    const auto parsed = parse("1000-3000 rw-p 00000000 00:00 0 \n"
                              "1000-5000 rw-p 00000000 00:00 0 \n"
                              "5000-6000 rw-p 00000000 00:00 0 \n");
    REQUIRE(parsed.mappings.size() == 3);
    CHECK(parsed.mappings[1].mapping.range == AddressRange{Address{0x3000}, Address{0x5000}});
    CHECK(parsed.overlapping == 1);
}

TEST_CASE("maps: a clipped file mapping keeps its bytes at their offset") {
    const auto parsed = parse("1000-3000 rw-p 00010000 08:01 7 /f\n"
                              "1000-5000 rw-p 00010000 08:01 7 /f\n");
    REQUIRE(parsed.mappings.size() == 2);
    CHECK(parsed.mappings[1].mapping.offset == 0x12000);
}

TEST_CASE("maps: a line inside what was already delivered is dropped") {
    const auto parsed = parse("1000-5000 rw-p 00000000 00:00 0 \n"
                              "2000-3000 rw-p 00000000 00:00 0 \n"
                              "1000-5000 rw-p 00000000 00:00 0 \n"
                              "5000-6000 rw-p 00000000 00:00 0 \n");
    CHECK(parsed.mappings.size() == 2);
    CHECK(parsed.overlapping == 2);
}

TEST_CASE("maps: mappings are disjoint and in order whatever the lines say") {
    std::string text;
    for (unsigned i = 0; i < 2000; ++i) {
        const unsigned start = i * 2654435761u % 100000;
        text += std::to_string(start) + "000-" + std::to_string(start + i % 40) +
                "000 rw-p 0 00:00 0\n";
    }
    Address last;
    for (const auto& m : parse(text).mappings) {
        CHECK(last <= m.mapping.range.start);
        CHECK_FALSE(m.mapping.range.empty());
        last = m.mapping.range.end;
    }
}
