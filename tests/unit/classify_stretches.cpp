// SPDX-License-Identifier: MIT
// Stretches: what an action may treat alike, wherever blocks and pieces begin.
#include "made_up_actuator.hpp"
#include "pagesift/classify.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t base = 0x40000000;

std::vector<Stretch> stretches_of(MadeUpSource& source, const LookOptions& with = {}) {
    std::vector<Stretch> stretches;
    LookOptions options = with;
    options.on_stretch = [&](const Stretch& stretch) { stretches.push_back(stretch); };
    look(source, options);
    return stretches;
}

std::uint64_t pages_of(const Stretch& stretch) { return stretch.range.size().value / page; }

} // namespace

TEST_CASE("stretches: all pages are handed on, in order and without holes") {
    MadeUpSource source;
    source.map(base, base + 100 * page);
    source.map(base + 100 * page, base + 120 * page, Backing::file);
    for (std::uint64_t i = 10; i < 20; ++i) source.pages[base + i * page] = anon_page(i);
    source.pages[base + 105 * page] = file_page(500);
    Address at{base};
    for (const Stretch& stretch : stretches_of(source)) {
        CHECK(stretch.range.start == at);
        at = stretch.range.end;
    }
    CHECK(at.value == base + 120 * page);
}

TEST_CASE("stretches: what is shared, fresh or locked is kept apart, what is young is not") {
    MadeUpSource source;
    source.map(base, base + 8 * page);
    for (std::uint64_t i = 0; i < 8; ++i) source.pages[base + i * page] = anon_page(100 + i);
    source.pages[base + page].flags |= abi::kpf(abi::KPF_ACTIVE);
    source.pages[base + 2 * page].flags &= ~abi::kpf(abi::KPF_LRU);
    source.pages[base + 4 * page].entry &= ~abi::PM_MMAP_EXCLUSIVE;
    source.pages[base + 4 * page].map_count = 2;
    source.pages[base + 6 * page].flags |= abi::kpf(abi::KPF_MLOCKED);
    const auto stretches = stretches_of(source);
    REQUIRE(stretches.size() == 7);
    CHECK(pages_of(stretches[0]) == 2); // active or not
    CHECK(stretches[1].on_lru == Tri::no);
    CHECK(stretches[3].sole == Tri::no);
    CHECK(stretches[5].cls.attribute(Attribute::mlocked) == Tri::yes);
    CHECK(stretches[0].sole == Tri::yes);
    CHECK(stretches[0].folio_pages == 1u);
}

TEST_CASE("stretches: without page flags nothing is claimed of them") {
    MadeUpSource source;
    source.flags_readable = false;
    source.map(base, base + page);
    auto one = anon_page(7);
    one.entry &= ~abi::PM_MMAP_EXCLUSIVE;
    one.map_count = 0;
    source.pages[base] = one;
    const auto stretches = stretches_of(source);
    REQUIRE(stretches.size() == 1);
    CHECK(stretches[0].sole == Tri::unknown);
    CHECK(stretches[0].on_lru == Tri::unknown);
    CHECK_FALSE(stretches[0].folio_pages);
}

TEST_CASE("stretches: large folios side by side are one, a missing page of one is seen") {
    MadeUpSource source;
    source.map(base, base + 48 * page);
    for (std::uint64_t folio = 0; folio < 3; ++folio)
        for (std::uint64_t i = 0; i < 16; ++i)
            source.pages[base + (folio * 16 + i) * page] =
                huge_page(0x1000 + folio * 0x100, i, 4, false);
    auto stretches = stretches_of(source);
    REQUIRE(stretches.size() == 1);
    CHECK(stretches[0].folio_pages == 16u);
    CHECK(stretches[0].folio_page == 0);
    CHECK(stretches[0].first_frame == 0x1000);
    CHECK(stretches[0].last_frame == 0x120f);
    // In the place of a page lies the same page of another folio.
    source.pages[base + 20 * page] = huge_page(0x5000, 4, 4, false);
    stretches = stretches_of(source);
    REQUIRE(stretches.size() == 3);
    CHECK(pages_of(stretches[0]) == 20);
    CHECK(stretches[1].folio_page == 4);
    CHECK(stretches[2].folio_page == 5);
}

TEST_CASE("stretches: a folio of which the end is missing is not one with the next") {
    MadeUpSource source;
    source.map(base, base + 48 * page);
    for (std::uint64_t i = 0; i < 12; ++i)
        source.pages[base + i * page] = huge_page(0x1000, i, 4, false);
    for (std::uint64_t i = 0; i < 16; ++i)
        source.pages[base + (12 + i) * page] = huge_page(0x2000, i, 4, false);
    const auto stretches = stretches_of(source);
    REQUIRE(stretches.size() == 3);
    CHECK(pages_of(stretches[0]) == 12);
    CHECK(pages_of(stretches[1]) == 16);
    CHECK(stretches[1].first_frame == 0x2000);
}

TEST_CASE("stretches: a look at a part begins in the middle of a folio, and says so") {
    MadeUpSource source;
    source.map(base, base + 32 * page);
    for (std::uint64_t i = 0; i < 16; ++i)
        source.pages[base + i * page] = huge_page(0x1000, i, 4, false);
    LookOptions options;
    options.only = {{Address{base + 5 * page}, Address{base + 9 * page}}};
    const auto stretches = stretches_of(source, options);
    REQUIRE(stretches.size() == 1);
    CHECK(stretches[0].folio_page == 5);
    CHECK(stretches[0].last_frame == 0x1008);
}

TEST_CASE("stretches: a condition is told, and nothing is left out for it") {
    MadeUpSource source;
    source.map(base, base + 4 * page);
    source.pages[base] = anon_page(1);
    source.pages[base + page] = swapped_page(3);
    LookOptions options;
    options.where = Filter::parse("swapped");
    const auto stretches = stretches_of(source, options);
    REQUIRE(stretches.size() == 3);
    CHECK(stretches[0].matches == Tri::no);
    CHECK(stretches[1].matches == Tri::yes);
}

TEST_CASE("stretches: a second look has every frame and every attribute") {
    MadeUpSource source;
    source.map(base, base + 8 * page);
    for (std::uint64_t i = 0; i < 4; ++i) source.pages[base + i * page] = anon_page(100 + i);
    source.pages[base + 2 * page].flags |= abi::kpf(abi::KPF_ACTIVE);
    const AddressRange range{Address{base + page}, Address{base + 6 * page}};
    auto second = look_again(source, source.maps[0], range, {}, {});
    CHECK(second.complete);
    CHECK(second.frames == std::vector<std::uint64_t>{101, 102, 103, 0, 0});
    REQUIRE(second.stretches.size() == 4);
    CHECK(second.stretches[1].cls.attribute(Attribute::active) == Tri::yes);
    source.before_block = [](AddressRange) { return false; };
    second = look_again(source, source.maps[0], range, {}, {});
    CHECK_FALSE(second.complete);
}
