// SPDX-License-Identifier: MIT
#include "made_up_advice.hpp"

#include <algorithm>
#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::advice;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t base = 0x10000000;

struct Rig {
    MadeUpSource source;
    MadeUpActuator actuator{source};
    ApplyOptions options;

    Rig() { options.want.cache = true; }
    void fill(std::uint64_t at, std::uint64_t pages, std::uint64_t frame) {
        for (std::uint64_t i = 0; i < pages; ++i)
            source.pages[at + i * page] = anon_page(frame + i);
    }
    Effect apply(const Plan& plan) {
        const Situation situation = roomy(source);
        return advice::apply(plan, situation, source, actuator, options);
    }
    Effect plan_and_apply(Action action) { return apply(make_plan(source, action)); }
    bool present(std::uint64_t at) const {
        return (source.pages.at(at).entry & abi::PM_PRESENT) != 0;
    }
};

} // namespace

TEST_CASE("advice: what left memory and what is free now are measured") {
    for (const bool copies : {false, true}) {
        Rig rig;
        rig.source.map(base, base + 8 * page);
        rig.fill(base, 8, 100);
        rig.actuator.keeps_copies = copies;
        const Effect effect = rig.plan_and_apply(Action::pageout);
        CHECK(effect.calls == 1);
        CHECK(rig.actuator.advices == std::vector{abi::advice::pageout});
        CHECK(effect.advised_bytes == 8 * page);
        CHECK(effect.moved_bytes == 8 * page);
        CHECK(effect.freed_bytes == (copies ? 0 : 8 * page));
        CHECK(effect.kept_bytes == (copies ? 8 * page : 0));
        CHECK(effect.stayed.empty());
        REQUIRE(effect.moved.size() == 1);
        CHECK(effect.moved[0] == 8 * page);
    }
}

TEST_CASE("advice: success of the call is no success: pages that stayed are named") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.fill(base, 8, 100);
    rig.actuator.stubborn = {base + 2 * page, base + 3 * page};
    const Effect effect = rig.plan_and_apply(Action::pageout);
    CHECK(effect.advised_bytes == 8 * page);
    CHECK(effect.moved_bytes == 6 * page);
    REQUIRE(effect.stayed.size() == 1);
    CHECK(effect.stayed[0].reason == Reason::in_use);
    CHECK(effect.stayed[0].range ==
          AddressRange{Address{base + 2 * page}, Address{base + 4 * page}});
}

TEST_CASE("advice: what has no room in swap any more is not advised, and is said to have none") {
    for (const bool of_cgroup : {false, true}) {
        Rig rig;
        rig.source.map(base, base + 16 * page);
        rig.fill(base, 16, 100);
        rig.options.batch_bytes = 4 * page;
        const Plan plan = make_plan(rig.source, Action::pageout);
        rig.actuator.gauge.swap_free_bytes = of_cgroup ? 100 * page : 6 * page + 100;
        if (of_cgroup) rig.actuator.gauge.swap_allowance_bytes = 6 * page + 100;
        const Effect effect = rig.apply(plan);
        // The second batch has room for a half, and for the others nobody is called.
        CHECK(rig.actuator.calls.size() == 2);
        CHECK(effect.advised_bytes == 8 * page);
        CHECK(effect.moved_bytes == 6 * page);
        CHECK(effect.stayed_bytes(Reason::swap_full) == 10 * page);
        CHECK(effect.stayed_bytes(Reason::in_use) == 0);
    }
}

TEST_CASE("advice: swap that is full keeps no page of a file in memory, and is no excuse") {
    Rig rig;
    rig.source.map(base, base + 2 * page, Backing::file).writable = false;
    rig.source.pages[base] = file_page(7);
    rig.source.pages[base + page] = file_page(8);
    rig.actuator.stubborn = {base};
    rig.actuator.gauge.swap_free_bytes = 0;
    const Effect effect = rig.plan_and_apply(Action::pageout);
    CHECK(effect.moved_bytes == page);
    CHECK(effect.stayed_bytes(Reason::in_use) == page);
}

TEST_CASE("advice: fresh pages are put on their lists and tried again, if so wanted") {
    for (const unsigned retries : {0u, 2u}) {
        Rig rig;
        rig.source.map(base, base + 8 * page);
        rig.fill(base, 8, 100);
        rig.source.pages[base + 5 * page].flags &= ~abi::kpf(abi::KPF_LRU);
        rig.options.retries = retries;
        const Effect effect = rig.plan_and_apply(Action::pageout);
        CHECK(effect.retries == (retries == 0 ? 0 : 1));
        CHECK(effect.moved_bytes == (retries == 0 ? 7 : 8) * page);
        CHECK(effect.stayed_bytes(Reason::fresh) == (retries == 0 ? page : 0));
        CHECK(rig.actuator.visits == (retries == 0 ? 0 : 1));
        CHECK(effect.advised_bytes == 8 * page); // not twice
        CHECK(effect.moved[0] == effect.moved_bytes);
    }
}

TEST_CASE("advice: a range that fails in the middle does not keep the others from being done") {
    Rig rig;
    for (std::uint64_t i = 0; i < 3; ++i) {
        rig.source.map(base + i * slot, base + i * slot + 2 * page);
        rig.fill(base + i * slot, 2, 100 + 10 * i);
    }
    rig.actuator.refused[base + slot] = EINVAL;
    const Effect effect = rig.plan_and_apply(Action::pageout);
    // [ok, bad, ok], then [bad, ok], then [ok].
    REQUIRE(rig.actuator.calls.size() == 3);
    CHECK(rig.actuator.calls[1][0].start.value == base + slot);
    CHECK(rig.actuator.calls[2].size() == 1);
    CHECK(effect.moved_bytes == 4 * page);
    CHECK(effect.advised_bytes == 4 * page);
    REQUIRE(effect.stayed.size() == 1);
    CHECK(effect.stayed[0].reason == Reason::refused);
    CHECK(effect.stayed[0].error == EINVAL);
    CHECK(rig.present(base + slot));
    CHECK_FALSE(explain(Action::pageout, EINVAL).empty());
}

TEST_CASE("advice: a process that has gone is not called for each of its ranges") {
    Rig rig;
    for (std::uint64_t i = 0; i < 4; ++i) {
        rig.source.map(base + i * slot, base + i * slot + 2 * page);
        rig.fill(base + i * slot, 2, 100 + 10 * i);
    }
    rig.actuator.refused[base + slot] = ESRCH;
    const Effect effect = rig.plan_and_apply(Action::pageout);
    // The first call ends before the second range, and the next one tells why.
    CHECK(rig.actuator.calls.size() == 2);
    CHECK(effect.calls == 2);
    CHECK(effect.advised_bytes == 2 * page);
    std::uint64_t refused = 0;
    for (const auto& one : effect.stayed)
        if (one.reason == Reason::refused && one.error == ESRCH) refused += one.range.size().value;
    CHECK(refused == 6 * page);
}

TEST_CASE("advice: a huge page that was not to be had for a moment is tried again") {
    Rig rig;
    rig.source.map(base, base + slot);
    rig.fill(base, 512, 1000);
    rig.actuator.refused[base] = EAGAIN;
    bool paused = false;
    rig.options.pause = [&] {
        paused = true;
        rig.actuator.refused.clear();
    };
    const Effect effect = rig.plan_and_apply(Action::collapse);
    CHECK(paused);
    CHECK(effect.advised_bytes == slot);
    CHECK(effect.moved_bytes == slot);
    CHECK(effect.stayed.empty());
}

TEST_CASE("advice: no range crosses the border of a mapping") {
    Rig rig;
    rig.source.map(base, base + 4 * page);
    rig.source.map(base + 4 * page, base + 8 * page).executable = true;
    rig.fill(base, 8, 100);
    rig.plan_and_apply(Action::pageout);
    REQUIRE(rig.actuator.calls.size() == 1);
    REQUIRE(rig.actuator.calls[0].size() == 2);
    CHECK(rig.actuator.calls[0][0].end.value == base + 4 * page);
}

TEST_CASE("advice: what changed since the plan was made is left alone, with the reason") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.source.map(base + slot, base + slot + 4 * page);
    rig.source.map(base + 2 * slot, base + 2 * slot + 4 * page);
    rig.fill(base, 8, 100);
    rig.fill(base + slot, 4, 200);
    rig.fill(base + 2 * slot, 4, 300);
    const Plan plan = make_plan(rig.source, Action::pageout);
    CHECK(plan.forecast.bytes == 16 * page);
    rig.source.pages[base] = swapped_page(1);
    rig.source.pages[base + page].flags &= ~abi::kpf(abi::KPF_SWAPBACKED); // MADV_FREE
    rig.source.pages[base + 2 * page].flags |= abi::kpf(abi::KPF_MLOCKED);
    rig.source.maps[1].writable = false;
    rig.source.maps[2].range.end = Address{base + 2 * slot + 2 * page};
    const Effect effect = rig.apply(plan);
    CHECK(effect.moved_bytes == 5 * page);
    CHECK(effect.stayed_bytes(Reason::state_changed) == page);
    CHECK(effect.stayed_bytes(Reason::lazyfree) == page);
    CHECK(effect.stayed_bytes(Reason::mlocked) == page);
    CHECK(effect.stayed_bytes(Reason::mapping_changed) == 8 * page);
    CHECK(rig.present(base + page));
    CHECK(rig.present(base + slot));
}

TEST_CASE("advice: a mapping is the same if it grew, and is not if its file or place is another") {
    Mapping then;
    then.range = {Address{base}, Address{base + 4 * page}};
    then.backing = Backing::file;
    then.inode = 7;
    then.offset = 0x1000;
    const AddressRange part{Address{base + page}, Address{base + 2 * page}};
    std::vector<Mapping> now{then};
    CHECK(find_same(now, then, part) == now.data());
    now[0].range.start = Address{base - page};
    now[0].offset = 0;
    CHECK(find_same(now, then, part) != nullptr);
    now[0].offset = 0x1000; // the same file, moved by a page
    CHECK(find_same(now, then, part) == nullptr);
    now[0] = then;
    now[0].inode = 8;
    CHECK(find_same(now, then, part) == nullptr);
    now[0] = then;
    now[0].shared = true;
    CHECK(find_same(now, then, part) == nullptr);
    now[0] = then;
    now[0].range.end = Address{base + page};
    CHECK(find_same(now, then, part) == nullptr);
    CHECK(find_same({}, then, part) == nullptr);
}

TEST_CASE("advice: another process with the same number is not touched") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.fill(base, 8, 100);
    const Plan plan = make_plan(rig.source, Action::pageout);
    rig.actuator.same = false;
    const Effect effect = rig.apply(plan);
    CHECK(rig.actuator.calls.empty());
    REQUIRE(effect.ended);
    CHECK(effect.ended->kind() == ErrorKind::gone);
}

TEST_CASE("advice: identity is asked before every call, not only the first") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.fill(base, 8, 100);
    rig.options.batch_bytes = 2 * page;
    rig.options.after_batch = [&](std::uint64_t) {
        if (rig.actuator.calls.size() == 2) rig.actuator.same = false;
    };
    const Effect effect = rig.plan_and_apply(Action::pageout);
    CHECK(rig.actuator.calls.size() == 2);
    CHECK(effect.moved_bytes == 4 * page);
    CHECK(effect.ended);
    CHECK(effect.stayed_bytes(Reason::refused) == 4 * page);
}

TEST_CASE("advice: an interrupt lets the call in flight end, and says what was done") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.fill(base, 8, 100);
    rig.options.batch_bytes = 2 * page;
    bool asked = false;
    rig.options.interrupted = [&] { return asked; };
    rig.actuator.before_call = [&] { asked = true; };
    const Effect effect = rig.plan_and_apply(Action::pageout);
    CHECK(effect.interrupted);
    CHECK(effect.moved_bytes == 2 * page);
    CHECK(effect.stayed_bytes(Reason::interrupted) == 6 * page);
}

TEST_CASE("advice: a brake that fails ends it, and does nothing more") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.fill(base, 8, 100);
    rig.options.before_batch = [](std::uint64_t) {
        throw Error{ErrorKind::unsupported, "--psi", 0};
    };
    const Effect effect = rig.plan_and_apply(Action::pageout);
    CHECK(rig.actuator.calls.empty());
    CHECK(effect.ended);
    CHECK(effect.stayed_bytes(Reason::not_reached) == 8 * page);
}

TEST_CASE("advice: a process that goes while it is looked at ends it") {
    Rig rig;
    rig.source.map(base, base + 8 * page);
    rig.fill(base, 8, 100);
    const Plan plan = make_plan(rig.source, Action::pageout);
    rig.actuator.before_call = [&] {
        rig.source.before_block = [](AddressRange) { return false; };
    };
    const Effect effect = rig.apply(plan);
    CHECK(effect.moved_bytes == 0u);
    CHECK(effect.stayed_bytes(Reason::unknown) == 8 * page);
}

TEST_CASE("advice: cold is measured by what is neither active nor accessed") {
    Rig rig;
    rig.source.map(base, base + 4 * page);
    rig.fill(base, 4, 100);
    for (std::uint64_t i = 0; i < 4; ++i)
        rig.source.pages[base + i * page].flags |= abi::kpf(abi::KPF_ACTIVE);
    rig.actuator.stubborn = {base};
    const Effect effect = rig.plan_and_apply(Action::cold);
    CHECK(effect.moved_bytes == 3 * page);
    CHECK(effect.stayed_bytes(Reason::in_use) == page);
    CHECK_FALSE(effect.freed_bytes);
}

TEST_CASE("advice: what has been used again since is not cold, on whatever list") {
    Rig rig;
    rig.source.entry_bits_read = true;
    rig.source.map(base, base + 4 * page);
    rig.fill(base, 4, 100);
    for (std::uint64_t i = 0; i < 4; ++i)
        rig.source.pages[base + i * page].entry_bits = EntryBits::known;
    const Plan plan = make_plan(rig.source, Action::cold);
    rig.actuator.before_call = [&] {
        rig.source.pages[base + page].entry_bits = EntryBits::known | EntryBits::young;
    };
    const Effect effect = rig.apply(plan);
    CHECK(effect.moved_bytes == 3 * page);
    CHECK(effect.stayed_bytes(Reason::in_use) == page);
}

TEST_CASE("advice: willneed is measured by the machine's counter") {
    Rig rig;
    rig.source.map(base, base + 4 * page);
    for (std::uint64_t i = 0; i < 4; ++i) rig.source.pages[base + i * page] = swapped_page(i + 1);
    Mapping& memory = rig.source.map(base + slot, base + slot + 2 * page, Backing::shmem);
    memory.shared = true;
    rig.source.pages[base + slot] = {.cache = Cache::absent};
    rig.source.pages[base + slot + page] = {.cache = Cache::absent};
    rig.actuator.stubborn = {base + slot + page};
    rig.actuator.gauge.swapped_in_pages = 1000;
    const Effect effect = rig.plan_and_apply(Action::willneed);
    CHECK(effect.advised_bytes == 6 * page);
    CHECK(effect.moved_bytes == 5 * page);
    CHECK_FALSE(effect.moved[0]);
    CHECK(effect.stayed.empty());
    // Others read as well: no more than was advised.
    rig.actuator.before_call = [&] { *rig.actuator.gauge.swapped_in_pages += 100; };
    CHECK(rig.plan_and_apply(Action::willneed).moved_bytes == 6 * page);
}

TEST_CASE("advice: without the machine's counter it is unknown what was read") {
    Rig rig;
    rig.source.map(base, base + page);
    rig.source.pages[base] = swapped_page(1);
    rig.actuator.stubborn = {base};
    CHECK_FALSE(rig.plan_and_apply(Action::willneed).moved_bytes);
}

TEST_CASE("advice: page-out of a clean page of a file frees it, unless the cache keeps it") {
    Rig rig;
    Mapping& mapping = rig.source.map(base, base + 2 * page, Backing::file);
    mapping.writable = false;
    rig.source.pages[base] = file_page(7);
    rig.source.pages[base + page] = file_page(8);
    const Plan plan = make_plan(rig.source, Action::pageout);
    rig.actuator.stubborn = {base + page};
    rig.actuator.before_call = [&] {
        rig.source.pages[base + page] = {.cache = Cache::cached}; // unmapped, and still cached
    };
    const Effect effect = rig.apply(plan);
    CHECK(effect.moved_bytes == 2 * page);
    CHECK(effect.freed_bytes == page);
    CHECK(effect.kept_bytes == page);
}
