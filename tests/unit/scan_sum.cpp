// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <doctest/doctest.h>
#include <random>
#include <set>

using namespace pagesift;
using namespace pagesift::scan;
using namespace std::chrono_literals;

namespace {

constexpr procfs::Device disk{8, 1};

Record process(std::uint64_t pid, std::uint64_t rss) {
    Record r;
    r.set("pid", pid);
    r.set("comm", std::string{"made up"});
    r.set("processes", std::uint64_t{1});
    r.set("complete", true);
    r.set("rss_bytes", rss);
    return r;
}

Record nameless(std::uint64_t pid) {
    Record r;
    r.set("pid", pid);
    return r;
}

std::vector<std::uint64_t> pids(const std::vector<Record>& records) {
    std::vector<std::uint64_t> result;
    for (const Record& r : records) result.push_back(std::get<std::uint64_t>(r.at("pid")));
    return result;
}

using Pids = std::vector<std::uint64_t>;
using Windows = std::vector<FileWindows::Window>;

FilePart part(std::uint64_t from, std::uint64_t to, std::uint64_t cached) {
    FilePart p;
    p.device = disk;
    p.inode = 7;
    p.window = {from, to};
    p.cached_bytes = cached;
    return p;
}

Share with_cached(std::uint64_t pid, std::vector<FilePart> files) {
    Share share{process(pid, 4096), std::move(files)};
    std::uint64_t cached = 0;
    for (const FilePart& p : share.files) cached += p.cached_bytes;
    share.record.set("cached_bytes", cached);
    return share;
}

} // namespace

TEST_CASE("scan: numbers fall and text rises, a minus turns that around, unknown is last") {
    std::vector<Record> records{process(3, 10), nameless(9), process(1, 30), process(2, 20),
                                nameless(4)};
    const auto sorted = [&](const char* key) {
        Ranking ranking{SortKey::parse(key), 0};
        for (const Record& r : records) ranking.add(r);
        return pids(ranking.take());
    };
    CHECK(sorted("rss_bytes") == Pids{1, 2, 3, 4, 9});
    CHECK(sorted("-rss_bytes") == Pids{3, 2, 1, 4, 9});
    CHECK(sorted("pid") == Pids{9, 4, 3, 2, 1});
    CHECK(sorted("-pid") == Pids{1, 2, 3, 4, 9});
    records[0].set("comm", std::string{"zsh"});
    CHECK(sorted("comm") == Pids{1, 2, 3, 4, 9});
    CHECK(sorted("-comm") == Pids{3, 1, 2, 4, 9});
}

TEST_CASE("scan: a key that is no field is refused") {
    for (const char* key : {"", "-", "rss", "--pid", "\x1b"}) {
        INFO(key);
        try {
            SortKey::parse(key);
            FAIL("accepted");
        } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::usage);
        }
    }
}

TEST_CASE("scan: the first of many are the same as the first after sorting all") {
    std::mt19937 random{1};
    for (const std::size_t most : {1u, 7u, 100u, 500u}) {
        Ranking all{SortKey::parse("rss_bytes"), 0}, first{SortKey::parse("rss_bytes"), most};
        for (std::uint64_t pid = 0; pid < 300; ++pid) {
            const Record r = random() % 10 == 0 ? nameless(pid) : process(pid, random() % 50);
            all.add(r);
            first.add(r);
        }
        auto expected = pids(all.take());
        expected.resize(std::min(most, expected.size()));
        CHECK(pids(first.take()) == expected);
        CHECK(first.left_out() == 300 - expected.size());
        CHECK(all.left_out() == 0);
    }
}

TEST_CASE("scan: a part of a file is seen once, however the windows overlap") {
    FileWindows windows;
    windows.add(disk, 7, {100, 200});
    windows.add(disk, 7, {300, 400});
    CHECK(windows.unseen(disk, 7, {0, 500}) == Windows{{0, 100}, {200, 300}, {400, 500}});
    CHECK(windows.unseen(disk, 7, {150, 350}) == Windows{{200, 300}});
    CHECK(windows.unseen(disk, 7, {100, 200}).empty());
    CHECK(windows.unseen(disk, 7, {50, 60}) == Windows{{50, 60}});
    CHECK(windows.unseen(disk, 8, {100, 200}) == Windows{{100, 200}});
    CHECK(windows.unseen({8, 2}, 7, {100, 200}) == Windows{{100, 200}});
    CHECK(windows.unseen(disk, 7, {20, 20}).empty());
    windows.add(disk, 7, {200, 300});
    CHECK(windows.unseen(disk, 7, {0, 500}) == Windows{{0, 100}, {400, 500}});
}

TEST_CASE("scan: windows agree with a set of pages") {
    std::mt19937 random{2};
    FileWindows windows;
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 400; ++i) {
        const std::uint64_t start = random() % 1000, end = start + random() % 30;
        std::uint64_t expected = 0, got = 0;
        for (std::uint64_t at = start; at < end; ++at) expected += seen.count(at) == 0;
        for (const auto& [a, b] : windows.unseen(disk, 1, {start, end})) got += b - a;
        CHECK(got == expected);
        windows.add(disk, 1, {start, end});
        for (std::uint64_t at = start; at < end; ++at) seen.insert(at);
    }
}

TEST_CASE("scan: a sum has the fields that add up, and what all have in common") {
    Sum sum;
    sum.add(process(1, 100));
    sum.add(process(2, 20));
    const Record r = sum.record();
    CHECK(r.at("rss_bytes") == Value{std::uint64_t{120}});
    CHECK(r.at("processes") == Value{std::uint64_t{2}});
    CHECK(r.at("comm") == Value{std::string{"made up"}});
    CHECK(r.at("pid") == Value{});
    CHECK(r.at("complete") == Value{true});
    CHECK(r.at("unknown_processes") == Value{std::uint64_t{0}});
    CHECK(r.at("swapped_bytes") == Value{}); // of no process: not 0
    CHECK(r.gaps.empty());
    Record other = process(3, 1);
    other.set("comm", std::string{"other"});
    other.set("complete", false);
    sum.add(other);
    sum.add(process(4, 1));
    CHECK(sum.record().at("comm") == Value{});
    CHECK(sum.record().at("complete") == Value{false});
}

TEST_CASE("scan: a sum keeps what is known and says of how many processes it is not") {
    Sum sum;
    Record unknown = process(1, 0);
    unknown.set("rss_bytes", {});
    unknown.set("swap_bytes", std::uint64_t{5});
    unknown.gaps = {{"smaps", AddressRange{Address{1}, Address{2}}, "denied", "root", true}};
    sum.add(unknown);
    unknown.gaps[0].range.reset();
    sum.add(unknown);
    sum.add(process(3, 40));
    const Record r = sum.record();
    CHECK(r.at("rss_bytes") == Value{std::uint64_t{40}});
    CHECK(r.at("swap_bytes") == Value{std::uint64_t{10}});
    CHECK(r.at("unknown_processes") == Value{std::uint64_t{2}});
    CHECK(sum.unknown(*find_field("rss_bytes")) == 2);
    REQUIRE(r.gaps.size() == 3);
    CHECK(r.gaps[0].reason.find("1 of 3 processes, and without them: swap_bytes") !=
          std::string::npos);
    CHECK(r.gaps[1].reason.find("2 of 3 processes, and without them: rss_bytes") !=
          std::string::npos);
    CHECK(r.gaps[2].reason == "denied (of 2 processes)");
    CHECK(r.gaps[2].incomplete);
}

TEST_CASE("scan: a sum that does not fit stays at the top, and a sum of nothing is unknown") {
    Sum sum;
    CHECK(sum.record().at("rss_bytes") == Value{});
    CHECK(sum.record().at("processes") == Value{std::uint64_t{0}});
    sum.add(process(1, ~std::uint64_t{0} - 1));
    sum.add(process(2, 100));
    CHECK(sum.record().at("rss_bytes") == Value{~std::uint64_t{0}});
}

TEST_CASE("scan: what is in the page cache of a shared file counts once in a sum") {
    const auto cached = [](const Sum& sum) {
        return std::get<std::uint64_t>(sum.record().at("cached_bytes"));
    };
    SUBCASE("the same window") {
        Sum sum;
        for (std::uint64_t pid = 1; pid < 5; ++pid)
            sum.add(with_cached(pid, {part(0, 1 << 20, 65536)}));
        CHECK(cached(sum) == 65536);
    }
    SUBCASE("windows that overlap by half") {
        Sum sum;
        sum.add(with_cached(1, {part(0, 8192, 8192)}));
        sum.add(with_cached(2, {part(4096, 12288, 8192)}));
        CHECK(cached(sum) == 12288);
    }
    SUBCASE("other parts, and one process that maps a part twice") {
        Sum sum;
        sum.add(with_cached(1, {part(0, 8192, 8192), part(0, 8192, 8192)}));
        CHECK(cached(sum) == 16384);
        sum.add(with_cached(2, {part(8192, 16384, 4096)}));
        CHECK(cached(sum) == 20480);
    }
}

TEST_CASE("scan: the pace rests until the share holds") {
    CHECK(Pace{0.1}.rest(1s, 1s) == 9s);
    CHECK(Pace{0.1}.rest(10s, 1s) == 0s);
    CHECK(Pace{0.1}.rest(20s, 1s) == 0s);
    CHECK(Pace{0.5}.rest(3s, 2s) == 1s);
    CHECK(Pace{1}.rest(1s, 3s) == 2s); // two threads
    CHECK(Pace{0}.rest(1s, 100s) == 0s);
    CHECK(Pace{0.1}.rest(0s, 0s) == 0s);
    CHECK(Pace{1e-300}.rest(1s, 100s) == 24h);
    // Resting as told, work of any size ends at the share.
    Pace::Duration elapsed{}, cpu{};
    for (int i = 0; i < 1000; ++i) {
        elapsed += 3ms;
        cpu += 3ms;
        elapsed += Pace{0.1}.rest(elapsed, cpu);
    }
    CHECK(cpu * 10 == elapsed);
}
