// SPDX-License-Identifier: MIT
#include "made_up_source.hpp"

#include "pagesift/snapshot.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::snapshot;
using pagesift::test::MadeUpSource;

namespace {

constexpr std::uint64_t page = 4096;

std::vector<Mapping> mappings_of(const std::vector<std::uint64_t>& sizes_in_pages) {
    std::vector<Mapping> mappings;
    std::uint64_t at = 0x10000000;
    for (const auto pages : sizes_in_pages) {
        Mapping m;
        m.range = {Address{at}, Address{at + pages * page}};
        mappings.push_back(m);
        at += (pages + 1) * page;
    }
    return mappings;
}

/// The parts of all pieces cover the mappings page by page, in order.
void check_cover(const std::vector<Mapping>& mappings, const std::vector<Piece>& pieces) {
    std::size_t mapping = 0;
    Address at = mappings.empty() ? Address{} : mappings[0].range.start;
    for (const Piece& piece : pieces) {
        CHECK_FALSE(piece.parts.empty());
        for (const Part& part : piece.parts) {
            if (part.mapping != mapping) {
                CHECK(at == mappings[mapping].range.end);
                CHECK(part.mapping == mapping + 1);
                mapping = part.mapping;
                at = mappings[mapping].range.start;
            }
            CHECK(part.range.start == at);
            CHECK_FALSE(part.range.empty());
            at = part.range.end;
        }
    }
    if (!mappings.empty()) {
        CHECK(mapping == mappings.size() - 1);
        CHECK(at == mappings.back().range.end);
    }
}

} // namespace

TEST_CASE("pieces: small mappings share one, large ones are cut, and every page is in just one") {
    const HostFacts host;
    for (const auto& sizes : std::vector<std::vector<std::uint64_t>>{
             {1}, {1, 1, 1}, {65536}, {65537}, {65535, 2, 65535}, {200000, 3, 1, 70000}, {}}) {
        const auto mappings = mappings_of(sizes);
        const auto pieces = plan_pieces(mappings, {}, host, std::uint64_t{1} << 40);
        check_cover(mappings, pieces);
        for (const Piece& piece : pieces) {
            std::uint64_t pages = 0;
            for (const Part& part : piece.parts) pages += part.range.size().value / page;
            CHECK(pages <= 65536);
        }
    }
    CHECK(plan_pieces(mappings_of({1, 1, 1}), {}, host, 1 << 20).size() == 1);
}

TEST_CASE("pieces: a terabyte of which little is resident becomes few pieces") {
    const HostFacts host;
    const auto mappings = mappings_of({1, std::uint64_t{1} << 28, 1});
    const auto pieces = plan_pieces(mappings, {}, host, 1 << 20);
    check_cover(mappings, pieces);
    CHECK(pieces.size() <= 70);
}

TEST_CASE("pieces: only what was asked for is read") {
    const HostFacts host;
    const auto mappings = mappings_of({100, 100});
    const AddressRange only{mappings[0].range.start + Bytes{10 * page},
                            mappings[1].range.start + Bytes{page}};
    const auto pieces = plan_pieces(mappings, std::vector{only}, host, 1 << 20);
    REQUIRE(pieces.size() == 1);
    REQUIRE(pieces[0].parts.size() == 2);
    CHECK(pieces[0].parts[0].range == AddressRange{only.start, mappings[0].range.end});
    CHECK(pieces[0].parts[1].range == AddressRange{mappings[1].range.start, only.end});
}

TEST_CASE("pieces: reading one hands on every page, in as many blocks as the source likes") {
    MadeUpSource source;
    source.map(0x1000, 0x9000);
    source.pages[0x3000].entry = 1;
    source.pages[0x4000].entry = 2;
    source.pages[0x8000].entry = 3;
    Address at{0x1000};
    read_piece(source, source.maps, {{{0, {Address{0x1000}, Address{0x9000}}}}}, {},
               [&](std::size_t mapping, const PageBlock& block) {
                   CHECK(mapping == 0);
                   CHECK(block.range.start == at);
                   at = block.range.end;
               });
    CHECK(at == Address{0x9000});
}

TEST_CASE("pieces: a target that is gone ends the part and not the program") {
    MadeUpSource source;
    source.map(0x1000, 0x9000);
    source.before_block = [](AddressRange) { return false; };
    read_piece(source, source.maps, {{{0, {Address{0x1000}, Address{0x9000}}}}}, {},
               [](std::size_t, const PageBlock&) { FAIL("nothing was read"); });
}
