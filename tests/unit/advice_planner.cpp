// SPDX-License-Identifier: MIT
#include "made_up_advice.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::advice;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t base = 0x10000000; // a multiple of a slot

/// One mapping of @p pages anonymous pages, each in a frame of its own.
void fill(MadeUpSource& source, std::uint64_t at, std::uint64_t pages, std::uint64_t frame) {
    for (std::uint64_t i = 0; i < pages; ++i) source.pages[at + i * page] = anon_page(frame + i);
}

void fill_huge(MadeUpSource& source, std::uint64_t at, std::uint64_t frame, std::uint64_t first,
               std::uint64_t end) {
    for (std::uint64_t i = first; i < end; ++i)
        source.pages[at + i * page] = huge_page(frame, i, 9, true);
}

/// What an action would leave alone of one page, and why.
Reason why_left(Action action, const MadeUpPage& one,
                const std::function<void(Mapping&)>& change = {},
                const std::function<void(Situation&)>& arrange = {}) {
    MadeUpSource source;
    Mapping& mapping = source.map(base, base + page);
    if (change) change(mapping);
    source.pages[base] = one;
    Situation situation = roomy(source);
    if (arrange) arrange(situation);
    Request request;
    request.action = action;
    const Plan plan = make_plan(source, request, situation);
    CHECK(plan.ranges.empty());
    REQUIRE(plan.skipped.size() == 1);
    CHECK(plan.skipped[0].range == AddressRange{Address{base}, Address{base + page}});
    return plan.skipped[0].reason;
}

MadeUpPage with_flag(MadeUpPage one, abi::KpfBit bit) {
    one.flags |= abi::kpf(bit);
    return one;
}

MadeUpPage share(MadeUpPage one) {
    one.entry &= ~abi::PM_MMAP_EXCLUSIVE;
    one.map_count = 2;
    return one;
}

} // namespace

TEST_CASE("advice: private memory that is mapped once is paged out, and nothing else") {
    MadeUpSource source;
    source.map(base, base + 16 * page);
    fill(source, base + 2 * page, 4, 100);
    source.pages[base + 8 * page] = swapped_page(3);
    const Plan plan = make_plan(source, Action::pageout);
    REQUIRE(plan.ranges.size() == 1);
    const PlannedRange& range = plan.ranges[0];
    CHECK(range.range == AddressRange{Address{base + 2 * page}, Address{base + 6 * page}});
    CHECK(range.kind == Kind::anon);
    CHECK(range.swap);
    CHECK(range.unit_bytes == page);
    CHECK(plan.skipped.empty());
    CHECK(plan.forecast.bytes == 4 * page);
    CHECK(plan.forecast.swap_bytes == 4 * page);
    CHECK(plan.forecast.freed_bytes == 0u); // a swap file: copies stay
}

TEST_CASE("advice: what zram takes is free at once, what a mixture takes is unknown") {
    MadeUpSource source;
    source.map(base, base + 4 * page);
    fill(source, base, 4, 100);
    Situation situation = roomy(source);
    situation.swap_frees = Tri::yes;
    CHECK(make_plan(source, {}, situation).forecast.freed_bytes == 4 * page);
    situation.swap_frees = Tri::unknown;
    CHECK_FALSE(make_plan(source, {}, situation).forecast.freed_bytes);
}

TEST_CASE("advice: every reason to leave a page alone") {
    using enum Reason;
    const auto pageout = [](const MadeUpPage& one, const std::function<void(Mapping&)>& change = {},
                            const std::function<void(Situation&)>& arrange = {}) {
        return why_left(Action::pageout, one, change, arrange);
    };
    const auto flags = [](const char* codes) {
        return [codes](Mapping& mapping) { give_flags(mapping, codes); };
    };
    const auto backing = [](Backing kind, bool is_shared) {
        return [=](Mapping& mapping) {
            mapping.backing = kind;
            mapping.shared = is_shared;
        };
    };
    const MadeUpPage plain = anon_page(7);
    CHECK(pageout(plain, flags("rd wr lo")) == mlocked);
    CHECK(pageout(with_flag(plain, abi::KPF_MLOCKED)) == mlocked);
    CHECK(pageout(with_flag(plain, abi::KPF_UNEVICTABLE)) == mlocked);
    CHECK(pageout(plain, flags("rd wr um")) == userfaultfd);
    CHECK(pageout(plain, flags("rd wr uw")) == userfaultfd);
    CHECK(pageout(plain, flags("rd wr ui")) == userfaultfd);
    CHECK(pageout(plain, flags("rd wr io pf")) == special);
    CHECK(pageout(plain, flags("rd wr pf")) == special);
    CHECK(pageout(plain, flags("rd wr io")) == special);
    CHECK(pageout(plain, flags("rd wr ht")) == hugetlb);
    CHECK(pageout(plain, backing(Backing::hugetlb, false)) == hugetlb);
    CHECK(pageout(plain, backing(Backing::device, false)) == special);
    CHECK(pageout(share(plain)) == shared);
    CHECK(pageout({.entry = abi::PM_PRESENT | 1,
                   .flags = abi::kpf(abi::KPF_ZERO_PAGE) | abi::kpf(abi::KPF_RESERVED)}) ==
          zero_page);
    MadeUpPage free = plain;
    free.flags &= ~abi::kpf(abi::KPF_SWAPBACKED);
    CHECK(pageout(free) == lazyfree);
    CHECK(pageout(file_page(7), backing(Backing::file, true)) == shared_file);
    CHECK(pageout(file_page(7), backing(Backing::file, false), [](Situation& situation) {
              situation.owns_file = [](const Mapping&) { return Tri::no; };
          }) == file_not_ours);
    CHECK(pageout(file_page(7), backing(Backing::file, false), [](Situation& situation) {
              situation.owns_file = [](const Mapping&) { return Tri::unknown; };
          }) == file_not_ours);
    CHECK(pageout(plain, {}, [](Situation& situation) { situation.swap_present = false; }) ==
          no_swap);
    CHECK(pageout(file_page(7), backing(Backing::shmem, true),
                  [](Situation& situation) { situation.swap_present = false; }) == no_swap);
    CHECK(pageout(plain, {}, [](Situation& situation) { situation.swap_free_bytes = 0; }) ==
          swap_full);
    CHECK(why_left(Action::willneed, swapped_page(3), backing(Backing::file, false)) ==
          private_file);
    CHECK(why_left(Action::willneed, swapped_page(3), {},
                   [](Situation& situation) { situation.available_bytes = 100; }) == no_memory);
}

TEST_CASE("advice: pages whose map count or kind is not known are left alone") {
    MadeUpSource source;
    source.map(base, base + page);
    source.flags_readable = false;
    auto one = anon_page(7);
    one.entry &= ~abi::PM_MMAP_EXCLUSIVE;
    one.map_count = 0;
    source.pages[base] = one;
    const Plan plan = make_plan(source, Action::pageout);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::unknown) == page);
}

TEST_CASE("advice: a page of a known kind that nobody has counted is left alone") {
    MadeUpSource source;
    source.map(base, base + 2 * page);
    source.pages[base] = anon_page(7);
    source.pages[base].entry &= ~abi::PM_MMAP_EXCLUSIVE;
    source.pages[base].map_count = 0;
    source.pages[base + page] = anon_page(8);
    const Plan plan = make_plan(source, Action::pageout);
    CHECK(planned_bytes(plan) == page);
    CHECK(plan.skipped_bytes(Reason::unknown) == page);
}

TEST_CASE("advice: cold works without swap, and on what page-out would discard") {
    MadeUpSource source;
    source.map(base, base + 2 * page);
    fill(source, base, 2, 100);
    source.pages[base].flags &= ~abi::kpf(abi::KPF_SWAPBACKED);
    Situation situation = roomy(source);
    situation.swap_present = false;
    situation.swap_free_bytes = 0;
    Request request;
    request.action = Action::cold;
    CHECK(make_plan(source, request, situation).forecast.bytes == 2 * page);
}

TEST_CASE("advice: pages of files cost no swap") {
    MadeUpSource source;
    Mapping& mapping = source.map(base, base + 2 * page, Backing::file);
    mapping.writable = false;
    source.pages[base] = file_page(9);
    source.pages[base + page] = anon_page(10); // a copy of its own
    Situation situation = roomy(source);
    situation.swap_free_bytes = 0;
    const Plan plan = make_plan(source, {}, situation);
    REQUIRE(plan.ranges.size() == 1);
    CHECK(plan.ranges[0].kind == Kind::file);
    CHECK(plan.forecast.file_bytes == page);
    CHECK(plan.forecast.freed_bytes == page);
    CHECK(plan.skipped_bytes(Reason::swap_full) == page);
}

TEST_CASE("advice: a large folio is taken whole or not at all") {
    MadeUpSource source;
    source.map(base, base + 2 * slot);
    fill_huge(source, base, 0x10000, 0, 512);
    fill_huge(source, base + slot, 0x20000, 0, 512);
    const Plan both = make_plan(source, Action::pageout);
    REQUIRE(both.ranges.size() == 1);
    CHECK(both.ranges[0].bytes() == 2 * slot);
    CHECK(both.ranges[0].unit_bytes == slot);

    LookOptions look;
    look.only = {{Address{base + page}, Address{base + 2 * slot}}};
    const Plan part = make_plan(source, {}, roomy(source), look);
    REQUIRE(part.ranges.size() == 1);
    CHECK(part.ranges[0].range == AddressRange{Address{base + slot}, Address{base + 2 * slot}});
    CHECK(part.skipped_bytes(Reason::folio_split) == slot - page);

    look.only = {{Address{base}, Address{base + 2 * slot - page}}};
    const Plan head = make_plan(source, {}, roomy(source), look);
    CHECK(head.forecast.bytes == slot);
    CHECK(head.skipped_bytes(Reason::folio_split) == slot - page);
}

TEST_CASE("advice: a folio that is mapped in part, or in another order, is not whole") {
    MadeUpSource source;
    source.map(base, base + slot);
    fill_huge(source, base, 0x10000, 0, 511); // its last page was given back
    CHECK(make_plan(source, Action::pageout).skipped_bytes(Reason::folio_split) == 511 * page);
    // The last page stems from another folio, though it is the last page of that.
    source.pages[base + 511 * page] = huge_page(0x20000, 511, 9, false);
    const Plan plan = make_plan(source, Action::pageout);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::folio_split) == slot);
}

TEST_CASE("advice: a folio in which one page is shared is left alone") {
    MadeUpSource source;
    source.map(base, base + slot);
    fill_huge(source, base, 0x10000, 0, 512);
    source.pages[base + 100 * page] = share(source.pages[base + 100 * page]);
    const Plan plan = make_plan(source, Action::pageout);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::shared) == page);
    CHECK(plan.skipped_bytes(Reason::folio_split) == slot - page);
}

TEST_CASE("advice: --min-run counts what lies side by side, of whatever kind") {
    MadeUpSource source;
    source.map(base, base + 64 * page);
    fill(source, base, 3, 100);
    fill(source, base + 10 * page, 2, 200);
    source.pages[base + 2 * page].entry = abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | 102;
    Request request;
    request.min_run_bytes = 3 * page;
    const Plan plan = make_plan(source, request, roomy(source));
    CHECK(plan.forecast.bytes == 3 * page);
    CHECK(plan.skipped_bytes(Reason::too_short) == 2 * page);
}

TEST_CASE("advice: --max-bytes and free swap cut at whole pages and whole folios") {
    MadeUpSource source;
    source.map(base, base + 4 * slot);
    fill_huge(source, base, 0x10000, 0, 512);
    fill(source, base + slot, 8, 100);
    Request request;
    request.max_bytes = slot / 2;
    const Plan plan = make_plan(source, request, roomy(source));
    // The folio does not fit; the small pages do.
    REQUIRE(plan.ranges.size() == 1);
    CHECK(plan.ranges[0].range.start.value == base + slot);
    CHECK(plan.skipped_bytes(Reason::limit) == slot);

    request.max_bytes.reset();
    Situation situation = roomy(source);
    situation.swap_free_bytes = slot + 3 * page + 100;
    const Plan tight = make_plan(source, request, situation);
    CHECK(tight.forecast.bytes == slot + 3 * page);
    CHECK(tight.skipped_bytes(Reason::swap_full) == 5 * page);
}

TEST_CASE("advice: only what is idle for long enough, and the coldest first") {
    MadeUpSource source;
    source.map(base, base + 16 * page);
    fill(source, base, 16, 100);
    const auto at = [&](std::uint64_t first, std::uint64_t end) {
        return AddressRange{Address{base + first * page}, Address{base + end * page}};
    };
    Request request;
    request.idle_for = 30;
    request.idle = {
        {at(0, 4), 10.0}, {at(4, 8), 40.0}, {at(8, 10), std::nullopt}, {at(12, 16), 90.0}};
    const Plan plan = make_plan(source, request, roomy(source));
    REQUIRE(plan.ranges.size() == 2);
    CHECK(plan.ranges[0].range == at(4, 8));
    CHECK(plan.ranges[0].idle_seconds == 40.0);
    CHECK(plan.ranges[1].range == at(12, 16));
    CHECK(plan.skipped_bytes(Reason::not_idle) == 4 * page);
    CHECK(plan.skipped_bytes(Reason::idle_unknown) == 4 * page); // two asked, two not measured
    request.max_bytes = 4 * page;
    const Plan coldest = make_plan(source, request, roomy(source));
    REQUIRE(coldest.ranges.size() == 1);
    CHECK(coldest.ranges[0].range == at(12, 16));
}

TEST_CASE("advice: ages that meet in the middle of a folio do not split it") {
    MadeUpSource source;
    source.map(base, base + slot);
    fill_huge(source, base, 0x10000, 0, 512);
    const AddressRange low{Address{base}, Address{base + slot / 2}};
    const AddressRange high{Address{base + slot / 2}, Address{base + slot}};
    Request request;
    request.idle_for = 30;
    request.idle = {{low, 40.0}, {high, 50.0}};
    CHECK(make_plan(source, request, roomy(source)).forecast.bytes == slot);
    request.idle = {{low, 40.0}, {high, 5.0}};
    const Plan plan = make_plan(source, request, roomy(source));
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::folio_split) == slot / 2);
    CHECK(plan.skipped_bytes(Reason::not_idle) == slot / 2);
}

TEST_CASE("advice: --where chooses, and what it cannot decide is left alone") {
    MadeUpSource source;
    source.map(base, base + 4 * page);
    fill(source, base, 4, 100);
    source.pages[base + page] = with_flag(source.pages[base + page], abi::KPF_ACTIVE);
    LookOptions look;
    look.where = Filter::parse("not active");
    const Plan plan = make_plan(source, {}, roomy(source), look);
    CHECK(plan.forecast.bytes == 3 * page);
    CHECK(plan.skipped.empty());
    look.where = Filter::parse("young");
    const Plan unknown = make_plan(source, {}, roomy(source), look);
    CHECK(unknown.ranges.empty());
    CHECK(unknown.skipped_bytes(Reason::undecided) == 4 * page);
}

TEST_CASE(
    "advice: a slot of which --where decides nothing is no huge page, nor is it passed over") {
    MadeUpSource source;
    source.map(base, base + 3 * slot);
    fill(source, base, 512, 1000);
    fill(source, base + slot, 512, 2000);
    Request request;
    request.action = Action::collapse;
    LookOptions look;
    look.where = Filter::parse("young");
    const Plan unknown = make_plan(source, request, roomy(source), look);
    CHECK(unknown.ranges.empty());
    CHECK(unknown.skipped_bytes(Reason::undecided) == 2 * slot);
    look.where = Filter::parse("active");
    CHECK(make_plan(source, request, roomy(source), look).skipped.empty());
}

TEST_CASE("advice: fresh pages are taken, and counted as such") {
    MadeUpSource source;
    source.map(base, base + 4 * page);
    fill(source, base, 4, 100);
    source.pages[base + page].flags &= ~abi::kpf(abi::KPF_LRU);
    const Plan plan = make_plan(source, Action::pageout);
    REQUIRE(plan.ranges.size() == 1);
    CHECK(plan.ranges[0].fresh_bytes == page);
    CHECK(plan.forecast.fresh_bytes == page);
}

TEST_CASE("advice: willneed takes what is in swap") {
    MadeUpSource source;
    source.map(base, base + 4 * page);
    source.pages[base] = swapped_page(1);
    source.pages[base + page] = swapped_page(2);
    source.pages[base + 2 * page] = anon_page(5);
    Mapping& memory = source.map(base + slot, base + slot + 4 * page, Backing::shmem);
    memory.shared = true;
    source.pages[base + slot] = {.cache = Cache::absent};
    source.pages[base + slot + page] = {.cache = Cache::cached};
    const Plan plan = make_plan(source, Action::willneed);
    REQUIRE(plan.ranges.size() == 2);
    CHECK(plan.ranges[0].state == State::swapped);
    CHECK(plan.ranges[0].bytes() == 2 * page);
    CHECK(plan.ranges[1].state == State::shmem_swapped);
    CHECK(plan.ranges[1].bytes() == page);
}

TEST_CASE("advice: willneed names what may be in swap, where swap numbers are hidden") {
    MadeUpSource source;
    source.facts.frames_visible = false;
    source.map(base, base + 4 * page);
    source.pages[base] = {.entry = abi::PM_SWAP};
    source.map(base + slot, base + slot + 4 * page, Backing::file);
    source.pages[base + slot] = {.cache = Cache::unknown};
    const Plan plan = make_plan(source, Action::willneed);
    CHECK(plan.ranges.empty());
    CHECK(plan.skipped_bytes(Reason::unknown) == page);
    CHECK(plan.skipped.size() == 1);
}

TEST_CASE("advice: a huge page where it holds more than it costs") {
    MadeUpSource source;
    source.map(base, base + 4 * slot);
    fill(source, base, 512, 1000);            // full
    fill(source, base + slot, 256, 2000);     // half
    fill(source, base + 2 * slot, 255, 3000); // less
    fill_huge(source, base + 3 * slot, 0x10000, 0, 512);
    const Plan plan = make_plan(source, Action::collapse);
    CHECK(plan.forecast.bytes == 2 * slot);
    CHECK(plan.forecast.fill_bytes == 256 * page);
    CHECK(plan.skipped_bytes(Reason::costs_more) == slot);
    CHECK(plan.skipped_bytes(Reason::already_huge) == slot);
    Request request;
    request.action = Action::collapse;
    request.force_fill = true;
    CHECK(make_plan(source, request, roomy(source)).forecast.bytes == 3 * slot);
}

TEST_CASE("advice: zero pages and pages in swap count as cost of a huge page") {
    MadeUpSource source;
    source.map(base, base + slot);
    fill(source, base, 300, 1000);
    for (std::uint64_t i = 300; i < 400; ++i)
        source.pages[base + i * page] = {.entry = abi::PM_PRESENT | 1,
                                         .flags = abi::kpf(abi::KPF_ZERO_PAGE)};
    for (std::uint64_t i = 400; i < 512; ++i) source.pages[base + i * page] = swapped_page(i);
    const Plan plan = make_plan(source, Action::collapse);
    REQUIRE(plan.ranges.size() == 1);
    CHECK(plan.ranges[0].fill_bytes == 100 * page);
    CHECK(plan.ranges[0].copy_bytes == 112 * page);
}

TEST_CASE("advice: where no huge page can be") {
    const auto reason = [](const std::function<void(MadeUpSource&)>& make) {
        MadeUpSource source;
        make(source);
        const Plan plan = make_plan(source, Action::collapse);
        CHECK(plan.ranges.empty());
        REQUIRE(plan.skipped.size() == 1);
        return plan.skipped[0].reason;
    };
    CHECK(reason([](MadeUpSource& source) {
              source.map(base + page, base + slot);
              fill(source, base + page, 511, 1000);
          }) == Reason::unaligned);
    CHECK(reason([](MadeUpSource& source) {
              give_flags(source.map(base, base + slot), "rd wr nh");
              fill(source, base, 512, 1000);
          }) == Reason::no_huge_page);
    CHECK(reason([](MadeUpSource& source) {
              give_flags(source.map(base, base + slot), "rd wr um");
              fill(source, base, 512, 1000);
          }) == Reason::userfaultfd);
    CHECK(reason([](MadeUpSource& source) {
              source.map(base, base + slot);
              fill(source, base, 511, 1000);
              source.pages[base + 511 * page] = {
                  .entry = abi::pagemap_swap(abi::SWP_PTE_MARKER, abi::PTE_MARKER_GUARD)};
          }) == Reason::special);
}

TEST_CASE("advice: a terabyte of nothing is no list of empty slots") {
    MadeUpSource source;
    source.map(base, base + (std::uint64_t{1} << 40));
    fill(source, base + 10 * slot, 512, 1000);
    const Plan plan = make_plan(source, Action::collapse);
    CHECK(plan.forecast.bytes == slot);
    CHECK(plan.skipped.empty());
}

TEST_CASE("advice: a plan keeps the mappings that it names and no others") {
    MadeUpSource source;
    source.map(base, base + page);
    source.map(base + 16 * page, base + 17 * page);
    fill(source, base + 16 * page, 1, 100);
    const Plan plan = make_plan(source, Action::pageout);
    REQUIRE(plan.mappings.size() == 1);
    CHECK(plan.mappings[0].range.start.value == base + 16 * page);
    CHECK(plan.ranges[0].mapping == 0);
}

TEST_CASE("advice: batches keep to their size, whole units and 1024 ranges") {
    Plan plan;
    for (std::uint64_t i = 0; i < 3000; ++i) {
        PlannedRange range;
        range.range = {Address{base + 2 * i * page}, Address{base + (2 * i + 1) * page}};
        range.unit_bytes = page;
        plan.ranges.push_back(range);
    }
    auto batches = make_batches(plan, 1 << 30);
    REQUIRE(batches.size() == 3);
    CHECK(batches[0].ranges.size() == 1024);
    CHECK(batches[2].ranges.size() == 3000 - 2048);

    plan.ranges.resize(1);
    plan.ranges[0].range = {Address{base}, Address{base + 3 * slot}};
    plan.ranges[0].unit_bytes = slot;
    batches = make_batches(plan, slot + slot / 2);
    REQUIRE(batches.size() == 3);
    for (const Batch& batch : batches) CHECK(batch.bytes == slot);
    batches = make_batches(plan, page); // a unit at least
    CHECK(batches.size() == 3);
}
