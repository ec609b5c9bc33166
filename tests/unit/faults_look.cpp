// SPDX-License-Identifier: MIT
// A source that fails, at every call and in every way: whatever looks through it gives the right
// answer, a marked partial one, or the source's own error.
#include "error_of.hpp"
#include "faults.hpp"
#include "made_up_access.hpp"
#include "made_up_advice.hpp"
#include "made_up_zoo.hpp"
#include "pagesift/diff.hpp"
#include "pagesift/figures.hpp"
#include "pagesift/scan.hpp"
#include "recordings.hpp"

#include <sstream>

using namespace pagesift;
using namespace pagesift::test;

namespace {

LookOptions closely(unsigned jobs = 1) {
    LookOptions options;
    options.want = want_all;
    options.jobs = jobs;
    return options;
}

/// What a census may say of a process that looks like @p whole when nothing fails.
void check_against(const Census& census, const Census& whole, SourceFault fault, bool hit) {
    check_sums(census);
    const auto states = [](const Census& c, State s) { return c.totals.state_pages(s); };
    for (std::size_t i = 0; i < state_count; ++i) {
        const auto state = static_cast<State>(i);
        if (state != State::unknown) CHECK(states(census, state) <= states(whole, state));
    }
    const KnownKinds known{census};
    const bool vanished = fault == SourceFault::no_mapping;
    if (!hit || fault == SourceFault::short_block) {
        check_same_states(census, whole);
        check_same_kinds(census, whole);
        CHECK_FALSE(is_partial(census));
        CHECK(census.totals.pss_shifted == whole.totals.pss_shifted);
        CHECK(census.tables.empty_tables == whole.tables.empty_tables);
        return;
    }
    if (fault == SourceFault::empty_block) CHECK(is_partial(census));
    if (!is_partial(census) && !vanished) CHECK(census.totals.pages() == whole.totals.pages());
    switch (fault) {
    case SourceFault::no_entries: // all that is missing is unknown, and no table passes for empty
        CHECK_FALSE(census.tables.empty_tables);
        break;
    case SourceFault::no_cache:
    case SourceFault::no_swap_entries: check_same_kinds(census, whole); break;
    case SourceFault::no_flags:
        check_same_states(census, whole);
        // Kinds are only what they were where they are said to be known.
        if (census.frames_known) check_same_kinds(census, whole);
        break;
    case SourceFault::no_map_counts:
        check_same_states(census, whole);
        check_same_kinds(census, whole);
        if (census.totals.pss_unknown_pages == 0)
            CHECK(census.totals.pss_shifted == whole.totals.pss_shifted);
        break;
    case SourceFault::no_content:
        check_same_states(census, whole);
        CHECK(census.totals.content_candidates == whole.totals.content_candidates);
        CHECK(census.totals.kind_pages(Kind::zero_filled) <=
              whole.totals.kind_pages(Kind::zero_filled));
        CHECK((census.totals.kind_pages(Kind::zero_filled) ==
                   whole.totals.kind_pages(Kind::zero_filled) ||
               census.totals.content_asked < whole.totals.content_asked));
        break;
    case SourceFault::no_folio_orders:
    case SourceFault::no_pmd_mapped:
        check_same_states(census, whole);
        check_same_kinds(census, whole);
        break;
    case SourceFault::no_text:
        check_same_states(census, whole);
        check_same_kinds(census, whole);
        CHECK(
            (!census.tables.total_bytes || census.tables.total_bytes == whole.tables.total_bytes));
        break;
    case SourceFault::no_tables:
        check_same_states(census, whole);
        CHECK_FALSE(census.tables.located_tables);
        break;
    default: break;
    }
}

Census record(Source& source, std::string& bytes) {
    std::ostringstream out;
    snapshot::RecordingWriter writer{out, snapshot::Encoding::text, source.host()};
    snapshot::Recorder recorder{source, writer};
    const Census census = look(recorder, closely());
    recorder.end();
    writer.finish();
    bytes = std::move(out).str();
    return census;
}

} // namespace

TEST_CASE("faults: a look at every sort of page says so where it is not whole") {
    for (const unsigned jobs : {1u, 3u}) {
        MadeUpSource source;
        make_zoo(source);
        const Census whole = look(source, closely());
        check_sums(whole);
        REQUIRE(whole.totals.kind_pages(Kind::thp) == slot / page);
        REQUIRE(whole.totals.state_pages(State::shmem_swapped) == 6);
        for_each_source_fault(
            source, [&](Source& counted) { look(counted, closely()); },
            [&](FaultySource& faulty, SourceFault fault) {
                std::optional<Census> census;
                const auto error = error_of([&] { census = look(faulty, closely(jobs)); });
                CHECK(error.has_value() == (throws(fault) && faulty.hit()));
                if (error) CHECK(error->kind() == kind_of(fault));
                if (census) check_against(*census, whole, fault, faulty.hit());
            });
    }
}

TEST_CASE("faults: pieces that several threads read stop at the first error") {
    MadeUpSource source;
    source.text.status = "VmRSS:\t 1048576 kB\n";
    constexpr std::uint64_t pages = 600'000; // ten pieces
    source.map(zoo_base, zoo_base + pages * page);
    for (std::uint64_t i = 0; i < pages; i += 30'000)
        source.pages[zoo_base + i * page] = anon_page(i + 1);
    const Census whole = look(source, closely(4));
    REQUIRE(whole.totals.state_pages(State::present) == 20);
    for_each_source_fault(
        source, [&](Source& counted) { look(counted, closely(4)); },
        [&](FaultySource& faulty, SourceFault fault) {
            std::optional<Census> census;
            const auto error = error_of([&] { census = look(faulty, closely(4)); });
            CHECK(error.has_value() == (throws(fault) && faulty.hit()));
            if (census) check_against(*census, whole, fault, faulty.hit());
        });
}

TEST_CASE("faults: runs and stretches of a faulty look lie where they must") {
    MadeUpSource source;
    make_zoo(source);
    const auto drive = [&](Source& from) {
        auto options = closely();
        Address last{0};
        std::uint64_t bytes = 0;
        options.on_run = [&](const Run& run) {
            CHECK(last <= run.range.start);
            CHECK(run.range.start < run.range.end);
            last = run.range.end;
            bytes += run.range.size().value;
        };
        options.on_stretch = [](const Stretch& stretch) { CHECK_FALSE(stretch.range.empty()); };
        options.on_page = [](const Page&) {};
        const Census census = look(from, options);
        CHECK(bytes == census.totals.pages() * page);
    };
    for_each_source_fault(source, drive, [&](FaultySource& faulty, SourceFault fault) {
        const auto error = error_of([&] { drive(faulty); });
        CHECK(error.has_value() == (throws(fault) && faulty.hit()));
    });
}

TEST_CASE("faults: what is recorded of a source that fails is what was seen of it") {
    MadeUpSource source;
    make_zoo(source);
    std::string bytes;
    const Census whole = record(source, bytes);
    for_each_source_fault(
        source, [&](Source& counted) { record(counted, bytes); },
        [&](FaultySource& faulty, SourceFault fault) {
            std::optional<Census> census;
            bytes.clear();
            const auto error = error_of([&] { census = record(faulty, bytes); });
            CHECK(error.has_value() == (throws(fault) && faulty.hit()));
            if (!census) return;
            check_against(*census, whole, fault, faulty.hit());
            const auto replayed = load_one(bytes);
            const Census again = look(*replayed, closely());
            check_sums(again);
            // What was not read is counted there, as unknown.
            for (std::size_t i = 0; i < state_count; ++i) {
                const auto state = static_cast<State>(i);
                const auto now = again.totals.state_pages(state);
                const auto then = census->totals.state_pages(state);
                const bool fits =
                    state == State::unknown && is_partial(again) ? now >= then : now == then;
                CHECK(fits);
            }
            check_same_kinds(again, *census);
            CHECK(again.totals.pss_shifted == census->totals.pss_shifted);
            CHECK(again.tables.empty_tables == census->tables.empty_tables);
            CHECK(is_partial(again) == is_partial(*census));
        });
}

TEST_CASE("faults: a process that is compared with itself has not changed") {
    MadeUpSource source;
    make_zoo(source);
    const auto drive = [&](Source& before, Source& after) {
        DiffOptions options;
        options.want_before = options.want_after = want_all;
        options.jobs = 1;
        return compare(before, after, options);
    };
    for (const bool first : {true, false}) {
        MadeUpSource other;
        make_zoo(other);
        const auto pair = [&](Source& faulty) {
            return first ? drive(faulty, other) : drive(other, faulty);
        };
        for_each_source_fault(
            source, [&](Source& counted) { pair(counted); },
            [&](FaultySource& faulty, SourceFault fault) {
                std::optional<ProcessDiff> diff;
                const auto error = error_of([&] { diff = pair(faulty); });
                CHECK(error.has_value() == (throws(fault) && faulty.hit()));
                if (!diff) return;
                check_sums(diff->before);
                check_sums(diff->after);
                // These change what the source says of pages and mappings, which is no silence.
                if (fault == SourceFault::no_mapping || fault == SourceFault::no_flags ||
                    fault == SourceFault::no_content)
                    return;
                for (const Transition& transition : diff->transitions) {
                    const bool known = transition.from.state != State::unknown &&
                                       transition.to.state != State::unknown;
                    if (known) CHECK(transition.from == transition.to);
                }
                CHECK(diff->anon.of(Fate::freed) == 0);
                CHECK(diff->anon.of(Fate::unmapped) == 0);
            });
    }
}

TEST_CASE("faults: a record of a process that was not read whole is not complete") {
    MadeUpSource source;
    make_zoo(source);
    const scan::Identity who{.pid = 42, .start_time = 777, .comm = "made up"};
    for_each_source_fault(
        source, [&](Source& counted) { look(counted, closely()); },
        [&](FaultySource& faulty, SourceFault fault) {
            std::optional<Census> census;
            const auto error = error_of([&] { census = look(faulty, closely()); });
            CHECK(error.has_value() == (throws(fault) && faulty.hit()));
            if (!census) return;
            const auto record = scan::make_record(who, *census, scan::Depth::content);
            CHECK(record.at("complete") == scan::Value{!is_partial(*census)});
            if (is_partial(*census))
                for (const char* field : {"rss_bytes", "pss_bytes", "swap_bytes"})
                    CHECK_FALSE(scan::is_known(record.at(field)));
            scan::Sum sum;
            sum.add(scan::share_of(record, *census));
            sum.add(scan::share_of(record, *census));
            CHECK(sum.processes() == 2);
            CHECK(scan::is_known(sum.record().at("size_bytes")));
            for (const MappingCensus& entry : census->mappings)
                scan::make_record(who, *census, entry, scan::Depth::content);
        });
}

TEST_CASE("faults: a plan over a source that fails takes nothing that a whole look would leave") {
    for (const auto action :
         {advice::Action::pageout, advice::Action::cold, advice::Action::willneed,
          advice::Action::collapse, advice::Action::zero_drop, advice::Action::merge}) {
        CAPTURE(advice::info_of(action).name);
        MadeUpSource source;
        make_zoo(source);
        for (Mapping& mapping : source.maps) give_flags(mapping, "rd wr mr mw me ac");
        advice::Request request;
        request.action = action;
        LookOptions with;
        with.want.zero = ZeroTest::all;
        const auto drive = [&](Source& from) {
            const advice::Situation situation = roomy(source);
            advice::Planner planner{request, situation};
            LookOptions options = closely();
            options.on_mappings = [&](const ProcessText&, std::span<const Mapping> mappings) {
                planner.begin(mappings);
            };
            options.on_stretch = [&](const Stretch& stretch) { planner.add(stretch); };
            look(from, options);
            return planner.finish();
        };
        const advice::Plan whole = drive(source);
        for_each_source_fault(
            source, [&](Source& counted) { drive(counted); },
            [&](FaultySource& faulty, SourceFault fault) {
                std::optional<advice::Plan> plan;
                const auto error = error_of([&] { plan = drive(faulty); });
                CHECK(error.has_value() == (throws(fault) && faulty.hit()));
                if (!plan) return;
                // To collapse once more does nothing, and what KSM is worth is a share of what was
                // seen.
                if (action == advice::Action::collapse && fault == SourceFault::no_pmd_mapped)
                    return;
                const bool unseen =
                    fault == SourceFault::empty_block || fault == SourceFault::no_entries;
                if (action == advice::Action::merge && unseen) return;
                for (const advice::PlannedRange& range : plan->ranges) {
                    std::uint64_t covered = 0;
                    for (const advice::PlannedRange& meant : whole.ranges)
                        covered += meant.range.intersect(range.range).size().value;
                    CHECK(covered == range.bytes());
                }
            });
    }
}

TEST_CASE("faults: pages are never called idle because a source failed") {
    const auto set_up = [](MadeUpWatch& watch) {
        for (std::uint64_t i = 0; i < 12; ++i) {
            const std::uint64_t at = 0x10000 + i / 3 * 0x10000 + i * made_up_page;
            watch.page(at, i % 2 == 0 ? "iii" : "aia");
        }
        watch.source.map(0x10000, 0x60000);
    };
    const auto drive = [](MadeUpWatch& watch, Source& source) {
        cold::Watch run{source, watch.access, watch.options};
        run.begin();
        for (unsigned i = 1; i <= 3; ++i) {
            watch.clock += std::chrono::seconds{10};
            run.end_round(i == 3 ? cold::Last::yes : cold::Last::no);
        }
        return run.finish();
    };
    MadeUpWatch calm;
    set_up(calm);
    const cold::Ages whole = drive(calm, calm.source);
    REQUIRE(whole.cold_bytes() == 6 * made_up_page);
    MadeUpWatch counted;
    set_up(counted);
    FaultySource counter{counted.source, SourceFault::gone, ~std::size_t{0}};
    drive(counted, counter);
    for (std::size_t at = 0; at < counter.calls(); ++at)
        for (int i = 0; i < source_faults; ++i) {
            CAPTURE(at);
            CAPTURE(i);
            MadeUpWatch watch;
            set_up(watch);
            const auto fault = static_cast<SourceFault>(i);
            FaultySource faulty{watch.source, fault, at};
            std::optional<cold::Ages> ages;
            const auto error = error_of([&] { ages = drive(watch, faulty); });
            injected_faults() += faulty.hit();
            CHECK(error.has_value() == (throws(fault) && faulty.hit()));
            if (ages) CHECK(ages->cold_bytes() <= whole.cold_bytes());
        }
}
