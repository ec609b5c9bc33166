// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "made_up_access.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::cold;
using pagesift::test::made_up_page;
using pagesift::test::MadeUpWatch;

namespace {

constexpr std::uint64_t base = 0x10000;

std::uint64_t at(std::uint64_t page) { return base + page * made_up_page; }

/// One page after the other, each with its own history.
Ages ages_of(const std::vector<std::string>& histories) {
    MadeUpWatch watch;
    watch.source.map(base, at(16));
    for (std::size_t i = 0; i < histories.size(); ++i) watch.page(at(i), histories[i]);
    return watch.run(static_cast<unsigned>(histories.front().size()));
}

std::optional<double> idle_of(const std::string& history) {
    const Ages ages = ages_of({history});
    REQUIRE(ages.ranges.size() == 1);
    return ages.ranges[0].idle_seconds;
}

} // namespace

TEST_CASE("cold: a page is idle since the clearing behind the last round it was accessed in") {
    // Rounds of 10 s, each begun by a clearing of 0.5 s: at 0.5, 11, 21.5; sighted at 10.5,
    // 21, 31.5.
    const Ages ages = ages_of({"iii"});
    CHECK(ages.steps == std::vector<double>{31, 20.5, 10, 0});
    CHECK(ages.window_seconds == 31);
    CHECK(ages.rounds == 3);
    CHECK(idle_of("iii") == 31.0);
    CHECK(idle_of("aii") == 20.5);
    CHECK(idle_of("iai") == 10.0);
    CHECK(idle_of("aai") == 10.0);
    CHECK(idle_of("iia") == 0.0);
    CHECK(idle_of("aaa") == 0.0);
}

TEST_CASE("cold: what is unknown in a round counts as accessed in it for later rounds") {
    CHECK(idle_of("?ii") == 20.5);
    CHECK(idle_of("i?i") == 10.0);
    CHECK(!idle_of("ii?"));
    CHECK(ages_of({"ii?"}).ranges[0].activity == Activity::unknown);
    CHECK(ages_of({"?ii"}).ranges[0].activity == Activity::idle);
    CHECK(ages_of({"iia"}).ranges[0].activity == Activity::accessed);
}

TEST_CASE("cold: a page that was away is idle only since it was back") {
    CHECK(idle_of("-ii") == 20.5);
    CHECK(idle_of("i-i") == 10.0);
    // There when its kind is asked for, but not at the last sighting: it came since.
    CHECK(!idle_of("ii-"));
}

TEST_CASE("cold: nothing before a blind time is claimed") {
    const auto idle_when_blind = [](const std::string& history) {
        MadeUpWatch watch;
        watch.access.blind = true;
        watch.source.map(base, at(4));
        watch.page(at(0), history);
        const Ages ages = watch.run(static_cast<unsigned>(history.size()));
        REQUIRE(ages.ranges.size() == 1);
        CHECK(ages.steps.size() == history.size() + 1);
        return ages.ranges[0].idle_seconds;
    };
    CHECK(idle_when_blind("i") == 10.0);
    CHECK(idle_when_blind("iii") == 10.0);
    CHECK(idle_when_blind("aii") == 10.0);
    CHECK(idle_when_blind("iai") == 10.0);
    CHECK(idle_when_blind("iia") == 0.0);
    MadeUpWatch watch;
    watch.access.blind = true;
    watch.access.cost = {0.001, 0};
    watch.source.map(base, at(4));
    watch.page(at(0), "ii");
    const Ages ages = watch.run(2);
    CHECK(ages.first_step() == 1);
    CHECK(ages.cold_bytes() == 0);
}

TEST_CASE("cold: idle times are never rounded up") {
    MadeUpWatch watch;
    watch.source.map(base, at(4));
    watch.page(at(0), "i");
    Watch one{watch.source, watch.access, watch.options};
    one.begin();
    watch.clock += std::chrono::microseconds{1'999'999};
    one.end_round(Last::yes);
    const Ages ages = one.finish();
    CHECK(ages.window_seconds == 1.999);
    CHECK(ages.ranges[0].idle_seconds == 1.999);
}

TEST_CASE("cold: in a window too short to be told from none, accessed pages are not cold") {
    MadeUpWatch watch;
    watch.source.map(base, at(4));
    watch.page(at(0), "a");
    Watch one{watch.source, watch.access, watch.options};
    one.begin();
    watch.clock += std::chrono::microseconds{100};
    one.end_round(Last::yes);
    const Ages ages = one.finish();
    CHECK(ages.window_seconds == 0);
    CHECK(ages.cold_bytes() == 0);
    CHECK(ages.all_bytes() == made_up_page);
}

TEST_CASE("cold: pages of one age are one range; kinds, states and mappings part them") {
    MadeUpWatch watch;
    watch.source.map(base, at(8)).name = "first";
    watch.source.map(at(8), at(16)).name = "second";
    for (const std::uint64_t i : {0, 1, 7, 8}) watch.page(at(i), "i");
    watch.page(at(2), "a");
    watch.page(at(3), "i", abi::PM_SWAP | 7 << 5);
    watch.source.pages[at(3)].flags = 0;
    const Ages ages = watch.run(1);
    REQUIRE(ages.ranges.size() == 5);
    CHECK(ages.ranges[0].range == AddressRange{Address{at(0)}, Address{at(2)}});
    CHECK(ages.ranges[0].kind == Kind::anon);
    CHECK(ages.ranges[1].activity == Activity::accessed);
    CHECK(ages.ranges[2].state == State::swapped);
    CHECK(ages.ranges[2].kind == Kind::not_present);
    CHECK(ages.ranges[3].mapping == 0);
    CHECK(ages.ranges[4].mapping == 1);
    CHECK(ages.mappings[1].name == "second");
    CHECK(ages.mappings[1].permissions == "rw-p");
}

TEST_CASE("cold: the histogram adds up to the ranges") {
    const Ages ages = ages_of({"ii", "ii", "ai", "ia", "i?", "??"});
    REQUIRE(ages.histogram.size() == 1);
    const HistogramRow& row = ages.histogram[0];
    CHECK(row.bytes == std::vector<std::uint64_t>{2 * made_up_page, made_up_page, made_up_page});
    CHECK(row.unknown_bytes == 2 * made_up_page);
    CHECK(ages.cold_bytes() == 2 * made_up_page);
    CHECK(ages.unknown_bytes() == 2 * made_up_page);
    CHECK(ages.all_bytes() == 6 * made_up_page);
}

TEST_CASE("cold: where a source proves nothing by it, no sign of access is no idle time") {
    MadeUpWatch watch;
    watch.access.about.proves_idle = false;
    watch.source.map(base, at(4));
    watch.page(at(0), "ii");
    watch.page(at(1), "ia");
    const Ages ages = watch.run(2);
    CHECK(ages.ranges[0].activity == Activity::idle);
    CHECK(!ages.ranges[0].idle_seconds);
    CHECK(ages.cold_bytes() == 0);
    CHECK(ages.unknown_bytes() == 0);
    CHECK(ages.histogram[0].no_sign_bytes == made_up_page);
    CHECK(ages.all_bytes() == 2 * made_up_page);
}

TEST_CASE("cold: clearing is counted, and so is the time in which nothing is seen") {
    MadeUpWatch watch;
    watch.access.blind = true;
    watch.source.map(base, at(4));
    watch.page(at(0), "iii");
    const Ages ages = watch.run(3);
    CHECK(ages.clear.times == 3);
    CHECK(ages.clear.total_seconds == 1.5);
    CHECK(ages.clear.locked_seconds == 0.75);
    CHECK(ages.clear.longest_locked_seconds == 0.25);
    CHECK(ages.clear.blind_seconds == 1.0); // behind the first round and behind the second
    MadeUpWatch alone;
    alone.source.map(base, at(4));
    alone.page(at(0), "i");
    CHECK(alone.run(1).clear.blind_seconds == 0);
    MadeUpWatch passive;
    passive.access.about.writes = false;
    passive.source.map(base, at(4));
    CHECK(passive.run(2).clear == ClearCost{});
}

TEST_CASE("cold: a source notes what is there once, before the first clearing") {
    MadeUpWatch watch;
    watch.source.map(base, at(4));
    watch.run(2);
    CHECK(watch.access.calls == std::vector<std::string>{"prepare", "note", "forget", "prepare",
                                                         "judge", "forget", "prepare", "judge"});
}

TEST_CASE("cold: the last sighting may be the look at what pages are") {
    MadeUpWatch watch;
    watch.access.judges = true;
    watch.source.map(base, at(8));
    for (const std::uint64_t i : {0, 1, 2, 3}) watch.page(at(i), i % 2 ? "ia" : "ii");
    const Ages ages = watch.run(2);
    CHECK(watch.access.calls == std::vector<std::string>{"prepare", "note", "forget", "prepare",
                                                         "judge", "forget", "prepare", "block"});
    CHECK(ages.cold_bytes() == 2 * made_up_page);
    CHECK(ages.ranges.size() == 4);
    // What it cannot judge it sights.
    MadeUpWatch other;
    other.access.judges = other.access.judges_none = true;
    other.source.map(base, at(8));
    other.page(at(0), "i");
    CHECK(other.run(1).cold_bytes() == made_up_page);
    CHECK(other.access.calls.back() == "judge");
}

TEST_CASE("cold: what does not stand is unknown") {
    for (const bool judges : {false, true}) {
        MadeUpWatch watch;
        watch.access.judges = judges;
        watch.access.falls = {2};
        watch.source.map(base, at(8));
        watch.page(at(0), "ii");
        watch.page(at(1), "ia");
        const Ages ages = watch.run(2);
        REQUIRE(ages.ranges.size() == 2);
        CHECK(ages.ranges[0].activity == Activity::unknown);
        CHECK(ages.ranges[1].activity == Activity::accessed);
    }
    MadeUpWatch large; // of several pieces
    large.access.judges = true;
    large.access.falls = {1};
    large.source.map(base, at(3 * 65536));
    for (const std::uint64_t i : {0, 65536, 2 * 65536}) large.page(at(i), "i");
    CHECK(large.run(1).cold_bytes() == 0);
    CHECK(large.access.asked == 1); // it may sleep each time
    MadeUpWatch before;
    before.access.falls = {1};
    before.source.map(base, at(8));
    before.page(at(0), "ii");
    CHECK(before.run(2).ranges[0].idle_seconds == 10.0); // of the round that stands
}

TEST_CASE("cold: a mapping that went takes what was known along") {
    MadeUpWatch watch;
    watch.source.map(base, at(4));
    watch.page(at(0), "iii");
    Watch one{watch.source, watch.access, watch.options};
    one.begin();
    watch.clock += std::chrono::seconds{10};
    one.end_round(Last::no);
    const auto kept = watch.source.maps;
    watch.source.maps.clear();
    watch.source.map(at(8), at(9));
    watch.clock += std::chrono::seconds{10};
    one.end_round(Last::no);
    watch.source.maps = kept;
    watch.clock += std::chrono::seconds{10};
    one.end_round(Last::yes);
    const Ages ages = one.finish();
    REQUIRE(ages.ranges.size() == 1);
    CHECK(ages.ranges[0].idle_seconds == 10.0); // of the last round only
}

TEST_CASE("cold: a process that ends is an error, not idle") {
    MadeUpWatch watch;
    watch.source.map(base, at(4));
    watch.page(at(0), "i");
    Watch one{watch.source, watch.access, watch.options};
    one.begin();
    watch.access.gone = true;
    const auto error = test::error_of([&] { one.end_round(Last::yes); });
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::gone);
}

TEST_CASE("cold: what takes no memory has no age") {
    MadeUpWatch watch;
    watch.source.map(base, at(4));
    watch.page(at(0), "i");
    watch.source.pages[at(0)].flags = abi::kpf(abi::KPF_ZERO_PAGE) | abi::kpf(abi::KPF_RESERVED);
    watch.access.script[at(1)] = "i"; // none by now
    watch.source.map(at(8), at(9), Backing::special);
    CHECK(watch.run(1).ranges.empty());
}

TEST_CASE("cold: --where and --address choose pages") {
    MadeUpWatch watch;
    watch.source.map(base, at(8));
    watch.page(at(0), "i");
    watch.page(at(1), "i", abi::PM_SWAP | 7 << 5);
    watch.page(at(2), "i");
    watch.options.where = Filter::parse("present");
    watch.options.only = {{Address{at(1)}, Address{at(8)}}};
    const Ages ages = watch.run(1);
    REQUIRE(ages.ranges.size() == 1);
    CHECK(ages.ranges[0].range.start.value == at(2));
}

TEST_CASE("cold: many pages keep their own ages across chunks") {
    MadeUpWatch watch;
    watch.source.map(base, at(3000));
    for (std::uint64_t i = 0; i < 3000; ++i) watch.page(at(i), i % 3 ? "ii" : "ia");
    const Ages ages = watch.run(2);
    CHECK(ages.ranges.size() == 2000);
    CHECK(ages.cold_bytes() == 2000 * made_up_page);
    for (const Range& range : ages.ranges) {
        const std::uint64_t first = (range.range.start.value - base) / made_up_page;
        CHECK((range.activity == Activity::accessed) == (first % 3 == 0));
    }
}

TEST_CASE("cold: the grain of an answer is kept") {
    MadeUpWatch watch;
    watch.access.grain = Grain::huge;
    watch.source.map(base, at(4));
    watch.page(at(0), "i");
    CHECK(watch.run(1).ranges[0].grain == Grain::huge);
}

TEST_CASE("cold: ages are of a process by pid, start time and boot") {
    const Ages ages = ages_of({"i"});
    CHECK(ages.identity.start_time == 777);
    CHECK(is_of(ages, 42, 777, "boot"));
    CHECK(!is_of(ages, 43, 777, "boot"));
    CHECK(!is_of(ages, 42, 778, "boot"));
    CHECK(!is_of(ages, 42, 777, "another"));
    CHECK(is_of(ages, 42, 0, ""));
}
