// SPDX-License-Identifier: MIT
#include "made_up_source.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/scan.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::scan;
using pagesift::test::MadeUpPage;
using pagesift::test::MadeUpSource;

namespace {

constexpr std::uint64_t page = 4096, slot = 2 << 20, GiB = 1 << 30;
constexpr std::uint64_t anon_flags = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED) | kpf(KPF_LRU);

std::uint64_t bytes_of(std::span<const AddressRange> ranges) {
    std::uint64_t sum = 0;
    for (const AddressRange& range : ranges) sum += range.size().value;
    return sum;
}

bool are_disjoint_and_inside(std::span<const AddressRange> blocks, std::span<const Mapping> maps) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (blocks[i].empty()) return false;
        if (i > 0 && blocks[i].start < blocks[i - 1].end) return false;
        bool inside = false;
        for (const Mapping& m : maps) inside = inside || m.range.intersect(blocks[i]) == blocks[i];
        if (!inside) return false;
    }
    return true;
}

Census look_at(MadeUpSource& source, std::uint64_t one_in, const Want& want = {}) {
    LookOptions options;
    options.want = want;
    options.choose = [&](std::span<const Mapping> maps) {
        return sample_blocks(maps, source.host(), one_in, 1);
    };
    return look(source, options);
}

} // namespace

TEST_CASE("scan: blocks of a sample are spread over every mapping") {
    MadeUpSource source;
    source.map(0x10000000, 0x10000000 + 3 * page); // less than a block
    source.map(0x20000000 + 5 * page, 0x20000000 + GiB + 7 * page);
    source.map(0x7f0000000000, 0x7f0000000000 + 10 * slot);
    for (const std::uint64_t one_in : {2u, 7u, 100u, 100000u})
        for (const std::uint64_t seed : {1u, 2u, 3u}) {
            const auto blocks = sample_blocks(source.maps, source.facts, one_in, seed);
            CHECK(are_disjoint_and_inside(blocks, source.maps));
            for (const Mapping& m : source.maps) {
                std::uint64_t inside = 0;
                for (const AddressRange& block : blocks) inside += m.range.contains(block.start);
                CHECK(inside >= 1);
            }
            if (one_in <= 7)
                CHECK(static_cast<double>(bytes_of(blocks)) ==
                      doctest::Approx(1.02 * GiB / static_cast<double>(one_in)).epsilon(0.05));
        }
    CHECK(sample_blocks(source.maps, source.facts, 7, 1) ==
          sample_blocks(source.maps, source.facts, 7, 1));
    CHECK(sample_blocks(source.maps, source.facts, 7, 1) !=
          sample_blocks(source.maps, source.facts, 7, 2));
    CHECK(bytes_of(sample_blocks(source.maps, source.facts, 1, 1)) ==
          GiB + 2 * page + 3 * page + 10 * slot);
}

TEST_CASE("scan: a reservation of terabytes has not more blocks than one can keep") {
    MadeUpSource source;
    source.map(0x100000000000, 0x100000000000 + 20 * 1024 * GiB);
    const auto blocks = sample_blocks(source.maps, source.facts, 3, 1);
    CHECK(blocks.size() <= 65537);
    CHECK(are_disjoint_and_inside(blocks, source.maps));
    CHECK(static_cast<double>(bytes_of(blocks)) ==
          doctest::Approx(20.0 * 1024 * GiB / 3).epsilon(0.01));
}

TEST_CASE("scan: what a sample shows is taken for the whole mapping") {
    MadeUpSource source;
    constexpr std::uint64_t start = 0x10000000, pages = 64 * slot / page;
    source.map(start, start + pages * page);
    source.map(0x7f0000000000, 0x7f0000000000 + 100 * page);
    for (std::uint64_t i = 0; i < pages; i += 2)
        source.pages[start + i * page] = {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | (i + 1),
                                          .flags = anon_flags,
                                          .content = Content::zero};
    Want want;
    want.zero = ZeroTest::all;
    Census census = look_at(source, 8, want);
    CHECK(census.totals.pages() == pages / 8 + 100);
    const std::uint64_t asked = census.totals.content_asked;
    extrapolate(census);
    CHECK(census.totals.pages() == pages + 100);
    CHECK(census.totals.state_pages(State::present) == pages / 2);
    CHECK(census.mappings[0].tally.pages() == pages);
    CHECK(census.mappings[1].tally.pages() == 100);
    CHECK(census.looked_share == doctest::Approx(0.125).epsilon(0.05));
    const Record record = make_record({}, census, Depth::content);
    CHECK(record.at("size_bytes") == Value{(pages + 100) * page});
    CHECK(record.at("zero_filled_bytes") == Value{pages / 2 * page});
    // What was not read may be zero or not.
    CHECK(record.at("zero_filled_low_bytes") == Value{asked * page});
    CHECK(record.at("zero_filled_high_bytes") == Value{pages / 2 * page});
    // The kernel knows sums better, and nobody knows what the other tables hold.
    CHECK(record.at("rss_bytes") == Value{});
    CHECK(record.at("empty_tables") == Value{});
    CHECK(std::get<double>(record.at("looked_share")) == census.looked_share);
}

TEST_CASE("scan: rounding of an estimate loses no page") {
    Tally tally;
    PageClass present, none;
    present.state = State::present;
    none.state = State::none;
    tally.add(present, 1);
    tally.add(none, 2);
    for (const std::uint64_t pages : {3u, 4u, 5u, 100u, 1000003u}) {
        Tally grown = tally;
        grown.extrapolate(pages);
        CHECK(grown.pages() == pages);
    }
    Tally nothing;
    nothing.extrapolate(10);
    CHECK(nothing.pages() == 0);
}
