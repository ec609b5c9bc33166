// SPDX-License-Identifier: MIT
// Two pictures of made-up processes, and what became of each page.
#include "made_up_source.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/diff.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::abi;
using pagesift::test::MadeUpPage;
using pagesift::test::MadeUpSource;

namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t base = 0x10000000;

MadeUpPage present(Content content) {
    return {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | 0x1234,
            .flags = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED) | kpf(KPF_UPTODATE),
            .map_count = 1,
            .content = content};
}
MadeUpPage zeroes() { return present(Content::zero); }
MadeUpPage data() { return present(Content::other); }
MadeUpPage unread() { return present(Content::refused); }
MadeUpPage swapped() { return {.entry = PM_SWAP | 5 << 5}; }
MadeUpPage zero_page() {
    return {.entry = PM_PRESENT | 3, .flags = kpf(KPF_ZERO_PAGE) | kpf(KPF_UPTODATE)};
}
MadeUpPage merged() {
    MadeUpPage p = data();
    p.flags |= kpf(KPF_KSM);
    return p;
}

/// Pages one behind the other from @p start on.
void put(MadeUpSource& source, std::uint64_t start, std::vector<MadeUpPage> pages) {
    for (std::size_t i = 0; i < pages.size(); ++i) source.pages[start + i * page] = pages[i];
}

MadeUpSource with(std::vector<MadeUpPage> pages, std::uint64_t size = 16) {
    MadeUpSource source;
    source.text.exe = "/bin/made-up";
    source.map(base, base + size * page);
    put(source, base, std::move(pages));
    return source;
}

DiffOptions reading() {
    DiffOptions options;
    options.want_before.zero = options.want_after.zero = ZeroTest::all;
    options.jobs = 1;
    return options;
}

std::uint64_t transition(const ProcessDiff& diff, const Sighting& from, const Sighting& to) {
    for (const Transition& t : diff.transitions)
        if (t.from == from && t.to == to) return t.pages;
    return 0;
}

constexpr Sighting unmapped{};
constexpr Sighting none{true, State::none, Kind::not_present};
constexpr Sighting anon{true, State::present, Kind::anon};
constexpr Sighting zero_filled{true, State::present, Kind::zero_filled};
constexpr Sighting in_swap{true, State::swapped, Kind::not_present};

/// Every page of both pictures is in exactly one transition, every page of a sort has one fate.
void check_sums(const ProcessDiff& diff) {
    std::uint64_t before = 0, after = 0;
    for (const Transition& t : diff.transitions) {
        before += t.from.mapped ? t.pages : 0;
        after += t.to.mapped ? t.pages : 0;
    }
    CHECK(before == diff.before.totals.pages());
    CHECK(after == diff.after.totals.pages());
    for (const Fates* fates : {&diff.zero_filled, &diff.anon}) {
        std::uint64_t sum = 0;
        for (const std::uint64_t pages : fates->to) sum += pages;
        CHECK(sum == fates->pages);
    }
    CHECK(diff.zero_filled.pages == diff.before.totals.kind_pages(Kind::zero_filled));
}

} // namespace

TEST_CASE("diff: every fate of a zero-filled page has a word of its own") {
    auto before = with(std::vector<MadeUpPage>(9, zeroes()));
    auto after = with({zeroes(), zeroes(), data(), swapped(), zero_page(), merged(), unread(),
                       MadeUpPage{}, MadeUpPage{.entry = PM_SWAP | PM_GUARD_REGION}});
    const ProcessDiff diff = compare(before, after, reading());
    const Fates& f = diff.zero_filled;
    CHECK(f.pages == 9);
    CHECK(f.of(Fate::zero_filled) == 2);
    CHECK(f.of(Fate::other_content) == 1);
    CHECK(f.of(Fate::swapped) == 1);
    CHECK(f.of(Fate::zero_page) == 1);
    CHECK(f.of(Fate::merged) == 1);
    CHECK(f.of(Fate::contents_unread) == 1);
    CHECK(f.of(Fate::freed) == 1);
    CHECK(f.of(Fate::other) == 1);
    CHECK(f.unread_pages == 0);
    CHECK(transition(diff, zero_filled, in_swap) == 1);
    CHECK(transition(diff, none, none) == 7);
    check_sums(diff);
}

TEST_CASE("diff: a page whose contents were not read may have been zero-filled") {
    auto before = with({zeroes(), unread(), unread(), data(), merged(), swapped()});
    auto after = with({swapped(), swapped(), data(), data(), merged(), data()});
    const ProcessDiff diff = compare(before, after, reading());
    CHECK(diff.zero_filled.pages == 1);
    CHECK(diff.zero_filled.unread_pages == 2);
    CHECK(diff.anon.pages == 3);
    CHECK(diff.anon.of(Fate::swapped) == 1);
    CHECK(diff.anon.of(Fate::other_content) == 2);
    REQUIRE(diff.gaps.size() == 1);
    CHECK(diff.gaps[0].source == "contents");
    check_sums(diff);
}

TEST_CASE("diff: what one picture did not read is unknown, and the remedy is named") {
    auto before = with({zeroes(), zeroes(), data()});
    auto after = with({present(Content::not_read), swapped(), present(Content::not_read)});
    DiffOptions options = reading();
    options.want_after.zero = ZeroTest::off;
    const ProcessDiff diff = compare(before, after, options);
    CHECK(diff.zero_filled.of(Fate::contents_unread) == 1);
    CHECK(diff.zero_filled.of(Fate::swapped) == 1);
    CHECK(diff.zero_filled.of(Fate::other_content) == 0);
    CHECK(diff.anon.of(Fate::contents_unread) == 1);
    REQUIRE(diff.gaps.size() == 1);
    CHECK(diff.gaps[0].remedy.find("record --zero all") != std::string::npos);
}

TEST_CASE("diff: hidden swap entries are unknown, not swapped") {
    auto before = with({zeroes()});
    auto after = with({MadeUpPage{.entry = PM_SWAP}});
    after.facts.frames_visible = false;
    const ProcessDiff diff = compare(before, after, reading());
    CHECK(diff.zero_filled.of(Fate::unknown) == 1);
}

TEST_CASE("diff: pages that could not be looked at are unknown, not unmapped") {
    auto before = with({zeroes(), zeroes()});
    auto after = with({zeroes(), zeroes()});
    after.before_block = [](AddressRange) { return false; };
    const ProcessDiff diff = compare(before, after, reading());
    CHECK(diff.zero_filled.of(Fate::unknown) == 2);
    CHECK(diff.zero_filled.of(Fate::unmapped) == 0);
    const ProcessDiff back = compare(after, before, reading());
    CHECK(transition(back, {true, State::unknown, Kind::not_present}, zero_filled) == 2);
}

TEST_CASE("diff: changed bounds compare on what both have; the rest came or went") {
    MadeUpSource before, after;
    before.map(base, base + 8 * page);
    put(before, base, std::vector<MadeUpPage>(8, zeroes()));
    after.map(base + 2 * page, base + 10 * page);
    put(after, base + 2 * page, std::vector<MadeUpPage>(8, data()));
    const ProcessDiff diff = compare(before, after, reading());
    CHECK(transition(diff, zero_filled, unmapped) == 2);
    CHECK(transition(diff, zero_filled, anon) == 6);
    CHECK(transition(diff, unmapped, anon) == 2);
    CHECK(diff.zero_filled.of(Fate::unmapped) == 2);
    REQUIRE(diff.mappings.size() == 1);
    CHECK(diff.mappings[0].change == MappingChange::moved);
    CHECK(diff.mappings[0].common_bytes == 6 * page);
    check_sums(diff);
}

TEST_CASE("diff: a mapping of another name at the same addresses takes no pages over") {
    auto before = with({zeroes(), data()}), after = with({zeroes(), data()});
    after.maps[0].name = "[anon: other]";
    const ProcessDiff diff = compare(before, after, reading());
    CHECK(diff.zero_filled.of(Fate::unmapped) == 1);
    CHECK(transition(diff, unmapped, zero_filled) == 1);
    CHECK(transition(diff, none, none) == 0);
    check_sums(diff);
}

TEST_CASE("diff: after an exec everything is new, also at the same addresses") {
    auto before = with({zeroes(), data()}), after = with({zeroes(), data()});
    after.text.exe = "/bin/another";
    const ProcessDiff diff = compare(before, after, reading());
    CHECK(diff.executed);
    CHECK(diff.zero_filled.of(Fate::unmapped) == 1);
    CHECK(diff.mappings.size() == 2);
    CHECK(diff.notes.size() == 1);
    check_sums(diff);
}

TEST_CASE("diff: a process that was started anew shares no memory with the one before") {
    auto before = with({zeroes()}), after = with({zeroes()});
    DiffOptions options = reading();
    options.match = Match::replaced;
    CHECK(compare(before, after, options).zero_filled.of(Fate::unmapped) == 1);
    options.match = Match::assumed;
    const ProcessDiff diff = compare(before, after, options);
    CHECK(diff.zero_filled.of(Fate::zero_filled) == 1);
    CHECK(diff.notes.size() == 1);
}

TEST_CASE("diff: page sizes that differ are refused") {
    auto before = with({zeroes()}), after = with({zeroes()});
    after.facts.page_size = 65536;
    try {
        compare(before, after, reading());
        FAIL("was compared");
    } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::bad_input);
        CHECK(std::string{error.what()}.find("64 KiB") != std::string::npos);
    }
}

TEST_CASE("diff: with a condition, a page counts when it holds in either picture") {
    auto before = with({zeroes(), zeroes(), data(), data()});
    auto after = with({zeroes(), swapped(), zeroes(), data()});
    DiffOptions options = reading();
    options.where = Filter::parse("zero-filled");
    const ProcessDiff diff = compare(before, after, options);
    CHECK(diff.transitions.size() == 3);
    CHECK(transition(diff, zero_filled, in_swap) == 1);
    CHECK(transition(diff, anon, zero_filled) == 1);
    CHECK(transition(diff, zero_filled, zero_filled) == 1);
    CHECK(diff.before.totals.pages() == 2);
    CHECK(diff.after.totals.pages() == 2);
}

TEST_CASE("diff: changed ranges come in address order, put together, without what stayed") {
    auto before = with({zeroes(), zeroes(), data(), zeroes()});
    auto after = with({swapped(), swapped(), data(), data()}, 20);
    std::vector<ChangedRange> ranges;
    std::vector<std::uint64_t> pages;
    DiffOptions options = reading();
    options.on_range = [&](const ChangedRange& r) {
        ranges.push_back(r);
        pages.push_back(r.range.size().value / page);
        CHECK(r.mapping != nullptr);
    };
    compare(before, after, options);
    REQUIRE(ranges.size() == 3);
    CHECK(pages == std::vector<std::uint64_t>{2, 1, 4});
    CHECK(ranges[0].to == in_swap);
    CHECK(ranges[1].to == anon);
    CHECK(ranges[2].from == unmapped);
    CHECK(ranges[2].to == none);
}

TEST_CASE("diff: a failing look ends the comparison, whichever it is") {
    auto before = with({zeroes()}), after = with({zeroes()});
    const auto fail = [](AddressRange) -> bool {
        throw Error{ErrorKind::denied, "pid 42", 0, "", "no"};
    };
    before.before_block = fail;
    CHECK_THROWS_AS(compare(before, after, reading()), Error);
    before.before_block = nullptr;
    after.before_block = fail;
    CHECK_THROWS_AS(compare(before, after, reading()), Error);
}

TEST_CASE("diff: very many runs pass through, and a reader that stops early ends the other look") {
    constexpr std::uint64_t pages = 20000;
    MadeUpSource before, after;
    for (MadeUpSource* source : {&before, &after}) source->map(base, base + pages * page);
    for (std::uint64_t i = 0; i < pages; i += 2) {
        before.pages[base + i * page] = zeroes();
        after.pages[base + i * page] = i % 4 == 0 ? zeroes() : swapped();
    }
    DiffOptions options = reading();
    const ProcessDiff diff = compare(before, after, options);
    CHECK(diff.zero_filled.of(Fate::zero_filled) == pages / 4);
    CHECK(diff.zero_filled.of(Fate::swapped) == pages / 4);
    check_sums(diff);
    after.before_block = [](AddressRange range) {
        if (range.start.value > base + 100 * page)
            throw Error{ErrorKind::gone, "pid 42", 0, "", "gone"};
        return true;
    };
    CHECK_THROWS_AS(compare(before, after, options), Error);
}
