// SPDX-License-Identifier: MIT
#include "error_of.hpp"

#include <doctest/doctest.h>
#include <limits>

using namespace pagesift;
using pagesift::test::error_of;

namespace {

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

AddressRange range(std::uint64_t start, std::uint64_t end) {
    return {Address{start}, Address{end}};
}

bool is_refused_size(std::string_view text) {
    const auto error = error_of([&] { parse_size(text, "--size"); });
    return error && error->kind() == ErrorKind::usage;
}

bool is_refused_range(std::string_view text) {
    const auto error = error_of([&] { parse_address_range(text, "--address"); });
    return error && error->kind() == ErrorKind::usage;
}

} // namespace

TEST_CASE("range: it contains its start and not its end") {
    const auto r = range(0x1000, 0x3000);
    CHECK(r.contains(Address{0x1000}));
    CHECK(r.contains(Address{0x2fff}));
    CHECK_FALSE(r.contains(Address{0x3000}));
    CHECK(r.size() == Bytes{0x2000});
}

TEST_CASE("range: one that ends before it starts is empty and has no size") {
    CHECK(range(2, 1).empty());
    CHECK(range(2, 1).size() == Bytes{0});
    CHECK(range(2, 2).empty());
}

TEST_CASE("range: what two ranges share is empty where they only touch") {
    CHECK(range(0, 10).intersect(range(5, 20)) == range(5, 10));
    CHECK(range(0, 10).intersect(range(10, 20)).empty());
    CHECK(range(0, 10).intersect(range(12, 20)).empty());
    CHECK(range(0, 10).intersect(range(2, 3)) == range(2, 3));
}

TEST_CASE("size: every suffix is a power of 1024, in both cases, with or without B and iB") {
    CHECK(parse_size("0", "s") == 0);
    CHECK(parse_size("4096", "s") == 4096);
    CHECK(parse_size("64K", "s") == 65536);
    CHECK(parse_size("64k", "s") == 65536);
    CHECK(parse_size("2MiB", "s") == 2 << 20);
    CHECK(parse_size("2MB", "s") == 2 << 20);
    CHECK(parse_size("1.5G", "s") == std::uint64_t{3} << 29);
    CHECK(parse_size("0.5k", "s") == 512);
    CHECK(parse_size("1T", "s") == std::uint64_t{1} << 40);
    CHECK(parse_size("0x1000", "s") == 4096);
    CHECK(parse_size("10B", "s") == 10);
}

TEST_CASE("size: the largest one fits and one more is refused") {
    CHECK(parse_size("18446744073709551615", "s") == most);
    CHECK(is_refused_size("18446744073709551616"));
    CHECK(parse_size("15E", "s") == std::uint64_t{15} << 60);
    CHECK(is_refused_size("16E"));
    CHECK(is_refused_size("99999999P"));
}

TEST_CASE("size: what is no size is refused, naming the option and the text") {
    for (const char* text : {"", "K", "-1", "+1", " 1", "1 ", "1Q", "1KiBs", "0x", "0xg", "1e3",
                             "0x10K", "1iB", ".5", "\n", "1.", "1..5"})
        CHECK_MESSAGE(is_refused_size(text), "'", std::string{text}, "'");
    const auto error = error_of([] { parse_size("many\x1b[2J", "--size"); });
    REQUIRE(error);
    CHECK(std::string{error->what()}.starts_with("--size: 'many\\x1b[2J' is not"));
}

TEST_CASE("size: a long fraction neither overflows nor turns negative") {
    CHECK(parse_size("1.99999999999999999999999999999999999K", "s") <= 2048);
    CHECK(parse_size("15.99999999999999999999E", "s") >= std::uint64_t{15} << 60);
}

TEST_CASE("address range: addresses are hexadecimal with and without 0x") {
    CHECK(parse_address_range("7f00-7fff", "a") == range(0x7f00, 0x7fff));
    CHECK(parse_address_range("0x7f00-0x7fff", "a") == range(0x7f00, 0x7fff));
    CHECK(parse_address_range("0-ffffffffffffffff", "a") == range(0, most));
}

TEST_CASE("address range: a size behind + is decimal, and hexadecimal with 0x") {
    CHECK(parse_address_range("1000+16", "a") == range(0x1000, 0x1010));
    CHECK(parse_address_range("1000+0x10", "a") == range(0x1000, 0x1010));
    CHECK(parse_address_range("1000+2M", "a") == range(0x1000, 0x201000));
}

TEST_CASE("address range: empty, backward, endless and overflowing ones are refused") {
    for (const char* text : {"", "-", "1000", "1000-", "-2000", "1000-1000", "2000-1000", "1000+0",
                             "1000+", "ffffffffffffffff+1K", "10000000000000000-20000000000000000",
                             "1000-2000 ", "1000_2000", "x-y", "1000-2000-3000"})
        CHECK_MESSAGE(is_refused_range(text), "'", std::string{text}, "'");
}
