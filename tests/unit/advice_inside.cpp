// SPDX-License-Identifier: MIT
#include "made_up_advice.hpp"
#include "made_up_inside.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::advice;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t base = 0x10000000; // a multiple of a slot
const std::string plain = "rd wr mr mw me ac";

AddressRange slots(std::uint64_t first, std::uint64_t count) {
    return {Address{base + first * slot}, Address{base + (first + count) * slot}};
}
AddressRange pages(std::uint64_t first, std::uint64_t count) {
    return {Address{base + first * page}, Address{base + (first + count) * page}};
}

struct Rig {
    MadeUpSource source;
    MadeUpInside inside{source};
    Census census;
    ApplyOptions options;

    Mapping& map(AddressRange range) {
        Mapping& mapping = source.map(range.start.value, range.end.value);
        give_flags(mapping, plain);
        return mapping;
    }
    void table(std::uint64_t number, SlotState state = SlotState::empty, bool whole = true) {
        census.tables.slots.push_back({slots(number, 1), state, whole, !whole});
        census.tables.located_tables = census.tables.slots.size();
        if (!source.tables) source.tables.emplace();
        source.tables->push_back(slots(number, 1));
    }
    Plan tables(const Request& request = {}, std::vector<AddressRange> only = {}) {
        census.mappings.clear();
        for (const Mapping& mapping : source.maps) {
            census.mappings.emplace_back();
            census.mappings.back().mapping = mapping;
        }
        return plan_tables(request, roomy(source), census, only);
    }
    void zeros(std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = first; i < first + count; ++i) {
            source.pages[base + i * page] = anon_page(100 + i);
            source.pages[base + i * page].content = Content::zero;
        }
    }
    Effect apply(const Plan& plan) { return apply_inside(plan, source, inside, options); }
};

} // namespace

TEST_CASE("advice inside: empty tables of one mapping are taken, side by side as one range") {
    Rig rig;
    rig.map(slots(0, 8));
    for (const std::uint64_t i : {1u, 2u, 5u}) rig.table(i);
    const Plan plan = rig.tables();
    REQUIRE(plan.ranges.size() == 2);
    CHECK(plan.ranges[0].range == slots(1, 2));
    CHECK(plan.ranges[1].range == slots(5, 1));
    CHECK(plan.ranges[0].unit_bytes == slot);
    CHECK(plan.forecast.freed_bytes == 3 * page);
    CHECK(plan.gaps.empty());
    CHECK(rig.tables({}, {slots(2, 5)}).forecast.bytes == 2 * slot);
    CHECK(
        rig.tables({}, {{Address{base + slot + page}, Address{base + 3 * slot}}}).forecast.bytes ==
        slot);
    Request limited;
    limited.max_bytes = 2 * slot + page;
    CHECK(rig.tables(limited).skipped_bytes(Reason::limit) == slot);
}

TEST_CASE("advice inside: tables that cannot go, or must not, are left alone") {
    Rig rig;
    rig.map(slots(0, 1));
    rig.map(slots(1, 1));
    give_flags(rig.map(slots(2, 1)), plain + " um");
    give_flags(rig.map(slots(3, 1)), plain + " lo");
    rig.map(slots(4, 1)).smaps = nullptr;
    give_flags(rig.map(slots(5, 1)), plain + " ht");
    rig.table(0, SlotState::marker_only);
    rig.table(1, SlotState::empty, false);
    for (const std::uint64_t i : {2u, 3u, 4u, 5u}) rig.table(i);
    const Plan plan = rig.tables();
    CHECK(plan.ranges.empty());
    for (const Reason reason : {Reason::markers, Reason::spanning, Reason::userfaultfd,
                                Reason::mlocked, Reason::flags_unknown, Reason::hugetlb})
        CHECK(plan.skipped_bytes(reason) == slot);
}

TEST_CASE("advice inside: where no place of an empty table is known, the plan says so") {
    Rig rig;
    rig.map(slots(0, 8));
    rig.census.tables.empty_tables = 3;
    CHECK(rig.tables().gaps.size() == 1);
    rig.census.tables.empty_tables = 0;
    CHECK(rig.tables().gaps.empty());
}

TEST_CASE("advice inside: tables are proven empty, and those that went are named") {
    Rig rig;
    rig.map(slots(0, 8));
    for (std::uint64_t i = 0; i < 6; ++i) rig.table(i);
    const Plan plan = rig.tables();
    rig.inside.outcomes[base + 2 * slot] = InsidePart::Outcome::not_proven;
    rig.inside.outcomes[base + 4 * slot] = InsidePart::Outcome::refused;
    const Effect effect = rig.apply(plan);
    CHECK(rig.inside.requests.at(0).proof == Proof::empty);
    CHECK(rig.inside.requests.at(0).sole_writer);
    CHECK(rig.inside.requests.at(0).advice == abi::advice::dontneed);
    CHECK(effect.moved_bytes == 4 * slot);
    CHECK(effect.freed_bytes == 4 * page);
    CHECK(effect.stayed_bytes(Reason::state_changed) == slot);
    CHECK(effect.stayed_bytes(Reason::refused) == slot);
    CHECK(effect.freed_tables == std::vector<AddressRange>{slots(0, 2), slots(3, 1), slots(5, 1)});
}

TEST_CASE("advice inside: a table that stays although it was advised is named") {
    Rig rig;
    rig.map(slots(0, 8));
    for (std::uint64_t i = 0; i < 4; ++i) rig.table(i);
    const Plan plan = rig.tables();
    rig.options.max_stop = std::chrono::milliseconds{3};
    rig.inside.before_stop = [&] {
        // Made again right after the call.
        rig.source.tables->push_back(slots(2, 2));
    };
    const Effect effect = rig.apply(plan);
    CHECK(effect.moved_bytes == 2 * slot);
    CHECK(effect.stayed_bytes(Reason::in_use) > 0);
    CHECK(effect.freed_tables == std::vector<AddressRange>{slots(0, 2)});
    CHECK(rig.inside.requests.at(0).max_stop == std::chrono::milliseconds{3});
}

TEST_CASE("advice inside: of shared memory nothing is lost whoever writes") {
    Rig rig;
    rig.map(slots(0, 4)).shared = true;
    rig.table(1);
    CHECK_FALSE(inside_request(rig.tables(), {}).sole_writer);
    rig.map(slots(4, 4));
    rig.table(5);
    CHECK(inside_request(rig.tables(), {}).sole_writer);
}

TEST_CASE("advice inside: work goes on in the next stop, and stops are counted") {
    Rig rig;
    rig.map(slots(0, 200));
    for (std::uint64_t i = 0; i < 100; ++i) rig.table(i * 2);
    rig.inside.bytes_a_stop = slot;
    const Effect effect = rig.apply(rig.tables());
    CHECK(effect.moved_bytes == 100 * slot);
    REQUIRE(effect.stops);
    CHECK(effect.stops->seconds.size() == 100);
    CHECK(effect.stops->longest() == doctest::Approx(0.1));
    CHECK(effect.stops->percentile(0.99) == doctest::Approx(0.099));
    CHECK(effect.stops->total() == doctest::Approx(5.05));
    CHECK(effect.stops->threads == 3);
    CHECK(Stops{}.percentile(0.99) == 0);
}

TEST_CASE("advice inside: an interrupt ends it between two stops") {
    Rig rig;
    rig.map(slots(0, 8));
    for (std::uint64_t i = 0; i < 8; ++i) rig.table(i);
    rig.inside.bytes_a_stop = slot;
    rig.options.interrupted = [&] { return rig.inside.requests.size() >= 3; };
    const Effect effect = rig.apply(rig.tables());
    CHECK(effect.interrupted);
    CHECK(effect.moved_bytes == 3 * slot);
    CHECK(effect.stayed_bytes(Reason::interrupted) == 5 * slot);
}

TEST_CASE("advice inside: who does not stand still in time is tried again, but not for ever") {
    for (const bool always : {false, true}) {
        Rig rig;
        rig.map(slots(0, 8));
        rig.table(1);
        const Error late{ErrorKind::failed, "thread 7", 0, "", "did not stop in time"};
        for (std::size_t i = 1; i <= (always ? 100u : 3u); ++i)
            rig.inside.failures.emplace(i, late);
        if (always) {
            CHECK_THROWS_AS(rig.apply(rig.tables()), Error);
            continue;
        }
        CHECK(rig.apply(rig.tables()).moved_bytes == slot);
        CHECK(rig.inside.requests.size() == 4);
    }
    Rig rig;
    rig.map(slots(0, 8));
    rig.table(1);
    rig.inside.bytes_a_stop = 0;
    const Effect effect = rig.apply(rig.tables());
    CHECK(effect.stayed_bytes(Reason::no_time) == slot);
    CHECK(effect.moved_bytes == 0);
}

TEST_CASE("advice inside: what is refused before anything was done is an error") {
    Rig rig;
    rig.map(slots(0, 8));
    rig.table(1);
    rig.inside.refusal = Error{ErrorKind::unsupported, "process 42", 0, "", "io_uring"};
    CHECK_THROWS_AS(rig.apply(rig.tables()), Error);
    CHECK(rig.inside.requests.empty());
    rig.inside.refusal.reset();
    rig.inside.same = false;
    const Effect effect = rig.apply(rig.tables());
    REQUIRE(effect.ended);
    CHECK(rig.inside.requests.empty());
}

TEST_CASE("advice inside: a mapping that is another one, or became special, is not touched") {
    Rig rig;
    rig.map(slots(0, 4));
    rig.table(1);
    const Plan plan = rig.tables();
    give_flags(rig.source.maps[0], plain + " uw");
    CHECK(rig.apply(plan).stayed_bytes(Reason::userfaultfd) == slot);
    rig.source.maps[0].shared = true;
    CHECK(rig.apply(plan).stayed_bytes(Reason::mapping_changed) == slot);
    CHECK(rig.inside.requests.empty());
}

// --- Zeros ---------------------------------------------------------------------------------------

namespace {

Plan plan_zeros(Rig& rig) {
    LookOptions look;
    look.want.zero = ZeroTest::all;
    Request request;
    request.action = Action::zero_drop;
    return make_plan(rig.source, request, roomy(rig.source), look);
}

} // namespace

TEST_CASE("advice inside: zeros are dropped, with proof, and measured") {
    Rig rig;
    rig.map(pages(0, 16));
    rig.zeros(0, 8);
    rig.source.pages[base + 9 * page] = anon_page(300);
    const Plan plan = plan_zeros(rig);
    CHECK(planned_bytes(plan) == 8 * page);
    CHECK(plan.forecast.freed_bytes == 8 * page);
    CHECK(plan.forecast.swap_bytes == 0);
    rig.inside.outcomes[base + 3 * page] = InsidePart::Outcome::not_proven;
    const Effect effect = rig.apply(plan);
    CHECK(rig.inside.requests.at(0).proof == Proof::zero);
    CHECK(rig.inside.requests.at(0).sole_writer);
    CHECK(effect.moved_bytes == 7 * page);
    CHECK(effect.freed_bytes == 7 * page);
    CHECK(effect.stayed_bytes(Reason::state_changed) == page);
    CHECK(rig.source.pages.count(base + 3 * page) == 1);
    // After each stop, before what came of it is looked at.
    CHECK(rig.source.forgotten == effect.stops->seconds.size());
}

TEST_CASE("advice inside: what was written again after it was dropped has not gone") {
    Rig rig;
    rig.map(pages(0, 8));
    rig.zeros(0, 8);
    const Plan plan = plan_zeros(rig);
    // At once; one was only read.
    rig.inside.after_part = [&](AddressRange part) {
        for (auto at = part.start.value; at < part.end.value; at += page) {
            if (at == base + 2 * page) rig.source.pages[at] = anon_page(400);
            if (at == base + 5 * page)
                rig.source.pages[at] = {.entry = abi::PM_PRESENT | 1,
                                        .flags = abi::kpf(abi::KPF_ZERO_PAGE)};
        }
    };
    const Effect effect = rig.apply(plan);
    CHECK(effect.advised_bytes == 8 * page);
    CHECK(effect.moved_bytes == 7 * page);
    REQUIRE(effect.stayed.size() == 1);
    CHECK(effect.stayed[0].range == pages(2, 1));
}

TEST_CASE("advice inside: what was done in a stop that ended badly is reported") {
    Rig rig;
    rig.map(pages(0, 8));
    rig.zeros(0, 8);
    const Plan plan = plan_zeros(rig);
    rig.inside.bytes_a_stop = 4 * page;
    rig.inside.late_failures.emplace(1, Error{ErrorKind::denied, "thread 7", EPERM});
    const Effect effect = rig.apply(plan);
    REQUIRE(effect.ended);
    CHECK(effect.ended->kind() == ErrorKind::denied);
    CHECK(effect.stops->seconds.size() == 1);
    CHECK(effect.moved_bytes == 4 * page);
    CHECK(effect.stayed_bytes(Reason::not_reached) == 4 * page);
}

TEST_CASE("advice inside: what was on its way when a stop ended badly is looked at") {
    Rig rig;
    rig.map(pages(0, 8));
    rig.zeros(0, 8);
    const Plan plan = plan_zeros(rig);
    rig.inside.outcomes[base + 2 * page] = InsidePart::Outcome::unanswered;
    rig.inside.outcomes[base + 3 * page] = InsidePart::Outcome::unanswered;
    // One of the two has come about.
    rig.inside.after_part = [&](AddressRange) { rig.source.pages.erase(base + 3 * page); };
    const Effect effect = rig.apply(plan);
    CHECK(effect.advised_bytes == 6 * page);
    CHECK(effect.moved_bytes == 7 * page);
    REQUIRE(effect.stayed.size() == 1);
    CHECK(effect.stayed[0].range == pages(2, 1));
}

TEST_CASE("advice inside: zeros stay in memory that is not plain") {
    const std::pair<std::string, Reason> cases[] = {
        {"lo", Reason::mlocked}, {"wf", Reason::wipe_on_fork}, {"um", Reason::userfaultfd},
        {"ht", Reason::hugetlb}, {"dc", Reason::special},      {"mt", Reason::special},
        {"ss", Reason::special}, {"gd", Reason::special},      {"xx", Reason::special},
    };
    for (const auto& one : cases) {
        const auto& flag = one.first;
        CAPTURE(flag);
        Rig rig;
        give_flags(rig.map(pages(0, 16)), plain + " " + flag);
        rig.zeros(0, 8);
        const Plan plan = plan_zeros(rig);
        CHECK(plan.ranges.empty());
        CHECK(plan.skipped_bytes(one.second) == 8 * page);
    }
    Rig rig;
    rig.map(pages(0, 8)).shared = true;
    rig.zeros(0, 8);
    rig.map(pages(8, 8)).inode = 7;
    rig.zeros(8, 8);
    rig.map(pages(16, 8)).smaps = nullptr;
    rig.zeros(16, 8);
    const Plan plan = plan_zeros(rig);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::not_private) == 16 * page);
    CHECK(plan.skipped_bytes(Reason::flags_unknown) == 8 * page);
}

TEST_CASE("advice inside: zeros that others share, and parts of large folios, stay") {
    Rig rig;
    rig.map({Address{base}, Address{base + 2 * slot}});
    for (std::uint64_t i = 0; i < slot / page; ++i) {
        auto huge = huge_page(512, i, 9, true);
        huge.content = i == 5 ? Content::other : Content::zero;
        rig.source.pages[base + i * page] = huge;
    }
    rig.source.pages[base + slot] = anon_page(5000);
    rig.source.pages[base + slot].content = Content::zero;
    rig.source.pages[base + slot].map_count = 2;
    rig.source.pages[base + slot].entry &= ~abi::PM_MMAP_EXCLUSIVE;
    const Plan plan = plan_zeros(rig);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::folio_split) == slot - page);
    CHECK(plan.skipped_bytes(Reason::shared) == page);
    rig.source.pages[base + 5 * page].content = Content::zero;
    const Plan whole = plan_zeros(rig);
    REQUIRE(whole.ranges.size() == 1);
    CHECK(whole.ranges[0].unit_bytes == slot);
}

// --- KSM -----------------------------------------------------------------------------------------

TEST_CASE("advice inside: a mapping is offered to KSM where an eighth of it is worth it") {
    for (const std::uint64_t equal : {std::uint64_t{0}, 2 * page}) {
        Rig rig;
        rig.map(pages(0, 32));
        rig.zeros(4, 1);
        for (std::uint64_t i = 5; i < 25; ++i)
            rig.source.pages[base + i * page] = anon_page(900 + i);
        auto situation = roomy(rig.source);
        situation.host.settings = {{"ksm/run", "0"}, {"ksm/use_zero_pages", "1"}};
        situation.equal_bytes = [&](AddressRange range) {
            CHECK(range == pages(4, 21));
            return std::optional{equal};
        };
        LookOptions look;
        look.want.zero = ZeroTest::all;
        Request request;
        request.action = Action::merge;
        const Plan plan = make_plan(rig.source, request, situation, look);
        CHECK(plan.gaps.size() == 2);
        if (equal == 0) {
            CHECK(plan.skipped_bytes(Reason::no_gain) == 21 * page);
            continue;
        }
        REQUIRE(plan.ranges.size() == 1);
        CHECK(plan.ranges[0].range == pages(4, 21));
        CHECK(plan.forecast.gain_bytes == 3 * page);
        CHECK(plan.forecast.freed_bytes == 0);
        const Effect effect = rig.apply(plan);
        CHECK(rig.inside.requests.at(0).proof == Proof::none);
        CHECK_FALSE(rig.inside.requests.at(0).sole_writer);
        CHECK(rig.inside.requests.at(0).advice == abi::advice::mergeable);
        CHECK(effect.calls == 1);
        CHECK_FALSE(effect.freed_bytes);
    }
}

TEST_CASE("advice inside: only memory of its own, once, is offered to KSM") {
    const auto merge = [](Rig& rig) {
        auto situation = roomy(rig.source);
        situation.equal_bytes = [](AddressRange) { return std::optional<std::uint64_t>{0}; };
        LookOptions look;
        look.want.zero = ZeroTest::all;
        Request request;
        request.action = Action::merge;
        return make_plan(rig.source, request, situation, look);
    };
    Rig rig;
    rig.map(pages(0, 8)).shared = true;
    rig.zeros(0, 8);
    give_flags(rig.map(pages(8, 8)), plain + " mg");
    rig.zeros(8, 8);
    const Plan plan = merge(rig);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::not_private) == 8 * page);
    CHECK(plan.skipped_bytes(Reason::already_mergeable) == 8 * page);
    // What a child shares is one page already.
    Rig forked;
    forked.map(pages(0, 8));
    forked.zeros(0, 8);
    for (std::uint64_t i = 0; i < 6; ++i) {
        forked.source.pages[base + i * page].entry &= ~abi::PM_MMAP_EXCLUSIVE;
        forked.source.pages[base + i * page].map_count = 2;
    }
    CHECK(merge(forked).forecast.gain_bytes == 2 * page);
}

TEST_CASE("advice inside: zeros that a userfaultfd protects stay") {
    Rig rig;
    rig.map(pages(0, 8));
    rig.zeros(0, 8);
    rig.source.pages[base + 2 * page].entry |= abi::PM_UFFD_WP;
    const Plan plan = plan_zeros(rig);
    CHECK(planned_bytes(plan) == 7 * page);
    CHECK(plan.skipped_bytes(Reason::userfaultfd) == page);
}

TEST_CASE("advice inside: of KSM pages those of one user are unmerged, the longest ranges first") {
    Rig rig;
    rig.map({Address{base}, Address{base + 4 * slot}});
    const auto ksm = [&](std::uint64_t i, std::uint32_t users) {
        auto one = anon_page(5000 + i);
        one.flags |= abi::kpf(abi::KPF_KSM);
        one.map_count = users;
        if (users > 1) one.entry &= ~abi::PM_MMAP_EXCLUSIVE;
        rig.source.pages[base + i * page] = one;
    };
    ksm(0, 1);
    ksm(1, 2);
    Request request;
    request.action = Action::unmerge;
    const Plan plan = make_plan(rig.source, request, roomy(rig.source));
    REQUIRE(plan.ranges.size() == 1);
    CHECK(plan.ranges[0].range == pages(0, 1));
    for (std::uint64_t i = 10; i < 10 + 2 * 1001; i += 2) ksm(i, 1);
    ksm(11, 1);
    const Plan many = make_plan(rig.source, request, roomy(rig.source));
    REQUIRE(many.ranges.size() == 1000);
    CHECK(many.ranges[1].range == pages(10, 3));
    CHECK(many.skipped_bytes(Reason::limit) == page);
}
