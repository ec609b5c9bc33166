// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "pagesift/scan_diff.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace pagesift;
using scan::Per;
using scan::Record;

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

Record process(std::uint64_t pid, std::uint64_t rss, std::uint64_t swap = 0,
               std::uint64_t start_time = 7) {
    Record r;
    r.set("pid", pid);
    r.set("start_time_ticks", start_time);
    r.set("comm", fmt::format("p{}", pid));
    r.set("processes", std::uint64_t{1});
    r.set("complete", true);
    r.set("rss_bytes", rss);
    r.set("swap_bytes", swap);
    r.set("unknown_state_bytes", std::uint64_t{0});
    r.set("swapped_bytes", swap);
    r.set("anon_bytes", rss);
    r.set("zero_filled_bytes", std::uint64_t{0});
    return r;
}

Record group(std::string comm, std::uint64_t rss) {
    Record r = process(1, rss);
    r.set("pid", {});
    r.set("start_time_ticks", {});
    r.set("comm", std::move(comm));
    return r;
}

ScanSide side(std::vector<Record> records, std::string boot = "b", Per per = Per::process) {
    ScanSide s;
    s.picture.boot = std::move(boot);
    s.picture.summary.host_name = "h";
    s.picture.summary.lens = "exact";
    s.picture.summary.per = per;
    scan::Sum sum;
    for (const Record& record : records) sum.add(record);
    s.picture.summary.totals = sum.record();
    s.records = std::move(records);
    return s;
}

std::optional<std::int64_t> change(const std::vector<FieldChange>& changes, std::string_view name) {
    for (const FieldChange& c : changes)
        if (scan::fields()[c.field].name == name) return c.delta();
    throw std::out_of_range{std::string{name}};
}

/// "1 2 | 3 | 4": pids in both, only before, only after.
std::string pids(const ScanDiff& diff) {
    std::string text;
    for (const auto* list : {&diff.both, &diff.only_before, &diff.only_after}) {
        if (list != &diff.both) text += " |";
        for (const RecordPair& pair : *list)
            text += fmt::format("{}{}", text.empty() ? "" : " ",
                                std::get<std::uint64_t>(pair.newest().at("pid")));
    }
    return text;
}

bool says(const ScanDiff& diff, std::string_view words) {
    for (const std::string& note : diff.notes)
        if (note.find(words) != note.npos) return true;
    return false;
}

} // namespace

TEST_CASE("diff: records are paired by pid and start time, largest change first") {
    const ScanDiff diff =
        compare_scans(side({process(1, mib), process(2, 9 * mib, mib), process(3, mib),
                            process(4, mib), process(5, 2 * mib)}),
                      side({process(1, 2 * mib), process(2, 4 * mib, 0), process(3, mib),
                            process(4, mib, 0, 8), process(6, mib), process(7, 3 * mib)}));
    CHECK(pids(diff) == "2 1 3 | 5 4 | 7 4 6");
    CHECK(diff.both[0].memory_change() == -6 * static_cast<std::int64_t>(mib));
    CHECK(change(diff.both[0].changes(), "swap_bytes") == -static_cast<std::int64_t>(mib));
    CHECK(diff.both[2].memory_change() == 0);
    CHECK(change(diff.totals, "processes") == 1);
    CHECK(change(diff.totals, "rss_bytes") == (12 - 14) * static_cast<std::int64_t>(mib));
    CHECK(diff.notes.empty());
    CHECK_FALSE(diff.partial);
}

TEST_CASE("diff: a record of one scan has no differences, not those to zero") {
    const ScanDiff diff = compare_scans(side({process(1, mib)}), side({process(2, mib)}));
    REQUIRE(diff.only_before.size() == 1);
    CHECK_FALSE(diff.only_before[0].memory_change());
    for (const FieldChange& c : diff.only_after.at(0).changes()) CHECK_FALSE(c.delta());
}

TEST_CASE("diff: no process of another start of the machine, or of another one, is the same") {
    const auto one = [](std::string boot) { return side({process(1, mib)}, std::move(boot)); };
    CHECK(pids(compare_scans(one("b"), one("c"))) == " | 1 | 1");
    CHECK(says(compare_scans(one("b"), one("c")), "started anew"));
    const ScanDiff unsure = compare_scans(one("b"), one(""));
    CHECK(pids(unsure) == "1 | |");
    CHECK(says(unsure, "not known whether the machine"));
    ScanSide other = one("b");
    other.picture.summary.host_name = "\033[31m";
    const ScanDiff diff = compare_scans(one("b"), std::move(other));
    CHECK(pids(diff) == " | 1 | 1");
    CHECK(says(diff, "different machines, h and \\x1b[31m"));
}

TEST_CASE("diff: without a start time the name has to agree") {
    Record old = process(1, mib), renamed = process(1, mib);
    old.set("start_time_ticks", {});
    renamed.set("start_time_ticks", {});
    CHECK(pids(compare_scans(side({old}), side({renamed}))) == "1 | |");
    renamed.set("comm", std::string{"else"});
    CHECK(pids(compare_scans(side({old}), side({renamed}))) == " | 1 | 1");
    Record started = process(1, mib);
    started.set("comm", std::string{"execed"});
    CHECK(pids(compare_scans(side({process(1, mib)}), side({started}))) == "1 | |");
}

TEST_CASE("diff: groups are paired by name, over machines and starts") {
    const std::string hostile = "a\"\r\n\033[31m\xff";
    ScanSide before = side({group("java", mib), group(hostile, mib)}, "b", Per::comm);
    ScanSide after = side({group(hostile, 3 * mib), group("new", mib)}, "c", Per::comm);
    after.picture.summary.host_name = "other";
    const ScanDiff diff = compare_scans(std::move(before), std::move(after));
    REQUIRE(diff.both.size() == 1);
    CHECK(diff.both[0].memory_change() == 2 * mib);
    CHECK(std::get<std::string>(diff.both[0].newest().at("comm")) == hostile);
    CHECK(diff.only_before.size() == 1);
    CHECK(diff.only_after.size() == 1);
    CHECK(says(diff, "groups are paired by name"));
}

TEST_CASE("diff: mappings are paired by address and name, ranges not at all") {
    const auto mapping = [](std::uint64_t start, const char* name, std::uint64_t rss) {
        Record r = process(1, rss);
        r.set("start", start);
        r.set("name", std::string{name});
        return r;
    };
    const ScanDiff diff = compare_scans(
        side({mapping(0x1000, "", mib), mapping(0x9000, "/a", mib)}, "b", Per::mapping),
        side({mapping(0x1000, "", 2 * mib), mapping(0x9000, "/b", mib)}, "b", Per::mapping));
    CHECK(pids(diff) == "1 | 1 | 1");
    CHECK(diff.both[0].memory_change() == mib);
    const auto refusal = [](Per first, Per second) {
        const auto error =
            test::error_of([&] { compare_scans(side({}, "b", first), side({}, "b", second)); });
        return error ? std::string{error->what()} : std::string{};
    };
    CHECK(refusal(Per::range, Per::range) == "scans: records of ranges cannot be paired");
    CHECK(refusal(Per::process, Per::comm) ==
          "scans: the first has records per process, the second per comm");
}

TEST_CASE("diff: an unknown value makes the difference unknown, never zero") {
    Record less = process(1, mib, mib);
    less.set("swap_bytes", {});
    const ScanDiff diff = compare_scans(side({process(1, mib, mib)}), side({less}));
    CHECK_FALSE(diff.both[0].memory_change());
    CHECK_FALSE(change(diff.both[0].changes(), "swap_bytes"));
    CHECK(change(diff.both[0].changes(), "rss_bytes") == 0);
    CHECK_FALSE(change(diff.totals, "swap_bytes"));
    // What a damaged history holds is no amount of memory.
    const Record huge = process(1, ~std::uint64_t{0} - 5);
    const ScanDiff broken = compare_scans(side({process(1, mib)}), side({huge}));
    CHECK_FALSE(broken.both[0].memory_change());
}

TEST_CASE("diff: kinds that only one scan tells apart leave the others unknown") {
    Record shallow = process(1, 4 * mib);
    shallow.set("zero_filled_bytes", {});
    ScanSide after = side({shallow});
    after.picture.summary.depth = scan::Depth::pages;
    ScanSide before = side({process(1, mib)});
    before.picture.summary.depth = scan::Depth::content;
    after.picture.summary.lens = "proc";
    const ScanDiff diff = compare_scans(std::move(before), std::move(after));
    const auto changes = diff.both[0].changes();
    CHECK_FALSE(change(changes, "zero_filled_bytes"));
    CHECK_FALSE(change(changes, "anon_bytes"));
    CHECK(change(changes, "rss_bytes") == 3 * mib);
    CHECK(says(diff, "different depth, content and pages"));
    CHECK(says(diff, "different lenses, exact and proc"));
}

TEST_CASE("diff: states are not compared where some are unknown") {
    Record unsure = process(1, mib, mib);
    unsure.set("unknown_state_bytes", std::uint64_t{4096});
    const auto changes = field_changes(process(1, mib, mib), unsure);
    CHECK_FALSE(change(changes, "swapped_bytes"));
    CHECK(change(changes, "unknown_state_bytes") == 4096);
    CHECK(change(changes, "swap_bytes") == 0);
}

TEST_CASE("diff: of what was seen in part, no difference is known") {
    Record part = process(1, 2 * mib);
    part.set("complete", false);
    ScanSide after = side({part, process(2, 3 * mib)});
    after.picture.summary.partial = 1;
    const ScanDiff diff = compare_scans(side({process(1, mib), process(2, mib)}), std::move(after));
    CHECK(pids(diff) == "2 1 | |"); // unknown comes last
    CHECK_FALSE(change(diff.both[1].changes(), "rss_bytes"));
    CHECK(change(diff.totals, "rss_bytes") == 3 * mib);
    CHECK(says(diff, "second scan: 1 seen in part"));
    CHECK(diff.partial);
}

TEST_CASE("diff: totals that lack a process' figure are not compared, and only those") {
    Record shallow = process(2, mib);
    shallow.set("anon_bytes", {});
    const auto before = [] { return side({process(1, mib), process(2, mib)}); };
    const ScanDiff diff = compare_scans(before(), side({process(1, mib), shallow}));
    CHECK_FALSE(change(diff.totals, "anon_bytes"));
    CHECK(change(diff.totals, "rss_bytes") == 0);
    CHECK(says(diff, "1 of which the totals lack some figure"));
    // Where records were left out, nobody can say which figures those are.
    ScanSide some = side({process(1, mib), shallow});
    some.picture.summary.left_out = 1;
    some.records.pop_back();
    const ScanDiff blind = compare_scans(before(), std::move(some));
    CHECK_FALSE(change(blind.totals, "rss_bytes"));
    CHECK(change(blind.totals, "processes") == 0);
    CHECK(says(blind, "1 record of the second scan was left out"));
    CHECK_FALSE(blind.partial);
}

TEST_CASE("diff: a condition on records holds in one scan or in both") {
    const auto where = scan::Where::parse("rss_bytes > 2M");
    const ScanDiff diff =
        compare_scans(side({process(1, 3 * mib), process(2, mib), process(3, mib)}),
                      side({process(1, mib), process(2, mib), process(4, 5 * mib)}), where);
    CHECK(pids(diff) == "1 | | 4");
    CHECK(change(diff.totals, "rss_bytes") == 2 * mib);
}

TEST_CASE("diff: estimates are said to be estimates") {
    Record sampled = process(1, mib);
    sampled.set("sampled_share", 0.01);
    CHECK(says(compare_scans(side({process(1, mib)}), side({sampled})), "estimated"));
    Record in_part = process(1, mib);
    in_part.set("looked_share", 0.1);
    for (const bool first : {true, false})
        CHECK(says(compare_scans(side({first ? in_part : process(1, mib)}),
                                 side({first ? process(1, mib) : in_part})),
                   "looked at in part: figures of pages are estimated"));
    in_part.set("complete", false); // cut off, which is no estimate
    CHECK_FALSE(says(compare_scans(side({process(1, mib)}), side({in_part})), "estimated"));
}

TEST_CASE("diff: what is compared can be added up") {
    for (const std::size_t field : compared_fields()) {
        CHECK(scan::fields()[field].additive);
        CHECK(scan::fields()[field].unit != scan::Unit::seconds);
    }
    CHECK(compared_fields().size() > 40);
}
