// SPDX-License-Identifier: MIT
// What becomes of pages between two pictures: a process that does a known thing to a known number
// of pages, and the figures of `pagesift diff`.
#include "harness.hpp"
#include "zoo/machine.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <poll.h>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
constexpr std::size_t mib = std::size_t{1} << 20;

/// What is done to pages that were zero-filled, and to how many of them, in address order.
enum Deed { write_to, page_out, free_and_leave, free_and_read, unmap, leave };
constexpr std::array<std::size_t, 6> pages_of{61, 97, 43, 29, 37, 83};
constexpr std::size_t written_before = 23; ///< pages behind them that never were zero-filled
/// A size that no other mapping has, so that --where can choose this one by it.
constexpr std::size_t all_pages = 61 + 97 + 43 + 29 + 37 + 83 + written_before;

std::size_t offset_of(Deed deed) {
    std::size_t pages = 0;
    for (std::size_t i = 0; i < deed; ++i) pages += pages_of[i];
    return pages * page;
}

/// Pages of one's own memory that are in swap, by the entries' bit 62 (pagemap.rst).
std::size_t swapped_pages(const char* start, std::size_t pages) {
    std::vector<std::uint64_t> entries(pages);
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(start) / page * 8);
    const ssize_t got = pread(fd, entries.data(), pages * 8, at);
    close(fd);
    if (got != static_cast<ssize_t>(pages * 8)) return 0;
    std::size_t swapped = 0;
    for (const std::uint64_t entry : entries) swapped += entry >> 62 & 1;
    return swapped;
}

void do_all_deeds(char* memory) {
    const auto bytes = [](Deed deed) { return pages_of[deed] * page; };
    std::memset(memory + offset_of(write_to), 1, bytes(write_to));
    char* const out = memory + offset_of(page_out);
    // The kernel refuses pages that are on their way to somewhere.
    for (int tries = 0; tries < 200; ++tries) {
        madvise(out, bytes(page_out), MADV_PAGEOUT);
        if (swapped_pages(out, pages_of[page_out]) == pages_of[page_out]) break;
        usleep(10'000);
    }
    madvise(memory + offset_of(free_and_leave), bytes(free_and_leave) + bytes(free_and_read),
            MADV_DONTNEED);
    for (std::size_t i = 0; i < pages_of[free_and_read]; ++i)
        static_cast<void>(
            *static_cast<volatile char*>(memory + offset_of(free_and_read) + i * page));
    munmap(memory + offset_of(unmap), bytes(unmap));
}

/// A fork that makes zero-filled pages, waits for a word, and acts.
class Actor {
public:
    Actor(const std::function<void()>& prepare, const std::function<void()>& act)
        : child_([&](const auto& ready) {
              prepare();
              ready();
              char word = 0;
              if (read(go_.end[0], &word, 1) != 1) return;
              act();
              static_cast<void>(!write(done_.end[1], "d", 1));
          }) {}
    /// False after the time limit.
    bool act() {
        if (write(go_.end[1], "g", 1) != 1) return false;
        pollfd done{done_.end[0], POLLIN, 0};
        return poll(&done, 1, 30'000) == 1;
    }
    std::string pid() const { return std::to_string(child_.pid()); }

private:
    struct Pipe {
        int end[2] = {-1, -1};
        Pipe() { REQUIRE(pipe2(end, O_CLOEXEC) == 0); }
        ~Pipe() {
            close(end[0]);
            close(end[1]);
        }
        Pipe(const Pipe&) = delete;
        Pipe& operator=(const Pipe&) = delete;
    };
    Pipe go_, done_;
    Child child_;
};

void record(const std::string& file, const std::string& pid, const std::string& lens) {
    const auto outcome =
        run_pagesift({"record", "-q", "--zero", "all", "--lens", lens, "-o", file, pid});
    INFO(outcome.err);
    const bool recorded = outcome.exit_code == 0 || outcome.exit_code == 3;
    REQUIRE(recorded);
}

/// The only process of a comparison, or of two scans.
json diff(const Words& arguments) {
    const auto outcome = run_pagesift(Words{"diff", "-q", "--format", "json"} + arguments);
    INFO(outcome.err);
    const bool answered = outcome.exit_code == 0 || outcome.exit_code == 3;
    CHECK(answered);
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    return answer[0];
}

/// The fates of all zero-filled pages that the actor had, as its deeds have them.
json expected_fates() {
    json fates;
    for (const char* name : {"merged", "cached", "other", "unknown", "contents_unread"})
        fates[std::string(name) + "_pages"] = 0;
    fates["unread_before_pages"] = 0;
    fates["all_pages"] = all_pages - written_before;
    fates["zero_filled_pages"] = pages_of[leave];
    fates["other_content_pages"] = pages_of[write_to];
    fates["zero_page_pages"] = pages_of[free_and_read];
    fates["swapped_pages"] = pages_of[page_out];
    fates["freed_pages"] = pages_of[free_and_leave];
    fates["unmapped_pages"] = pages_of[unmap];
    return fates;
}

void* reserve(std::size_t bytes) {
    // With a page on either side, so that the mapping has a size of its own.
    void* const place = mmap(nullptr, bytes + 2 * page, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(place != MAP_FAILED);
    return static_cast<char*>(place) + page;
}

void map_small_pages(void* at, std::size_t bytes) {
    mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(at, bytes, MADV_NOHUGEPAGE);
}

} // namespace

TEST_CASE("diff: every fate of zero-filled pages is counted to the page") {
    if (!have_root()) return;
    release_zoo();
    auto* const memory = static_cast<char*>(reserve(all_pages * page));
    zoo::Machine machine;
    try {
        machine.add_swap_file(2 * all_pages * page + 4 * mib);
    } catch (const zoo::Unavailable& reason) {
        return skip(std::string("no swap file: ") + reason.what());
    }
    machine.release();
    for (const std::string& lens : lenses()) {
        CAPTURE(lens);
        Actor actor(
            [&] {
                map_small_pages(memory, all_pages * page);
                std::memset(memory, 0, (all_pages - written_before) * page);
                std::memset(memory + offset_of(leave) + pages_of[leave] * page, 1,
                            written_before * page);
            },
            [&] { do_all_deeds(memory); });
        const TemporaryDirectory folder;
        const std::string before = folder.path() + "/before", after = folder.path() + "/after";
        const Words ours{"--where", "size = " + std::to_string(all_pages * page)};
        record(before, actor.pid(), lens);
        // Nothing has happened yet, whichever way one looks.
        const auto same = diff(ours + Words{"--lens", lens, before, actor.pid()});
        CHECK(same["fates"]["zero_filled"]["zero_filled_pages"] == all_pages - written_before);
        CHECK(same["fates"]["anon"]["other_content_pages"] == written_before);
        REQUIRE(actor.act());
        record(after, actor.pid(), lens);

        const auto seen = diff(ours + Words{before, after});
        CHECK(seen["match"] == "same");
        CHECK(seen["executed"] == false);
        CHECK(seen["fates"]["zero_filled"] == expected_fates());
        CHECK(seen["fates"]["anon"]["all_pages"] == written_before);
        CHECK(seen["fates"]["anon"]["other_content_pages"] == written_before);
        // One mapping became two, because a part in its middle is gone.
        bool split = false;
        for (const json& mapping : seen["mappings"])
            split = split || (mapping["change"] == "split" &&
                              mapping["common_bytes"] == (all_pages - pages_of[unmap]) * page);
        CHECK(split);
        // The live process tells the same as its recording.
        const auto live = diff(ours + Words{"--lens", lens, before, actor.pid()});
        CHECK(live["fates"] == seen["fates"]);
        CHECK(live["after"]["lens"] == seen["after"]["lens"]);
        // And the other way around, what is still zero-filled is all that may have been so before.
        const auto back = diff(ours + Words{after, before});
        CHECK(back["fates"]["zero_filled"]["all_pages"] == pages_of[leave]);
        CHECK(back["fates"]["zero_filled"]["zero_filled_pages"] == pages_of[leave]);
        CHECK(back["fates"]["anon"]["zero_filled_pages"] == pages_of[write_to]);
    }
    munmap(memory - page, (all_pages + 2) * page);
}

TEST_CASE("diff: after another program was executed, all memory is new") {
    if (!have_root()) return;
    const auto sleep = find_program({"/usr/bin/sleep", "/bin/sleep"});
    if (!sleep) return skip("no sleep");
    Background shell({"/bin/sh", "-c", "echo ready; read line; exec " + *sleep + " 100"});
    REQUIRE(shell.wait_for_line(20) == "ready");
    const TemporaryDirectory folder;
    const std::string before = folder.path() + "/before", pid = std::to_string(shell.pid());
    record(before, pid, "auto");
    CHECK(diff({before, pid})["executed"] == false);
    shell.close_input();
    const auto runs = [&] {
        // The file may be one for many programs.
        std::ifstream comm("/proc/" + pid + "/comm");
        std::string name;
        return std::getline(comm, name) && name == "sleep";
    };
    for (int tries = 0; tries < 500 && !runs(); ++tries) usleep(10'000);
    REQUIRE(runs());
    const auto seen = diff({before, pid});
    CHECK(seen["executed"] == true);
    CHECK(seen["match"] == "same");
    REQUIRE(!seen["mappings"].empty());
    for (const json& mapping : seen["mappings"]) {
        const bool alone = mapping["change"] == "new" || mapping["change"] == "gone";
        CHECK_MESSAGE(alone, mapping["name"].dump());
    }
    for (const json& transition : seen["transitions"]) {
        const bool apart =
            transition["from_state"] == "unmapped" || transition["to_state"] == "unmapped";
        CHECK(apart);
    }
}

TEST_CASE("diff: two scans of a history say by how much a process grew") {
    if (!have_root()) return;
    constexpr std::size_t growth = 7 * mib;
    void* const memory = reserve(growth);
    const auto grow = [&] {
        map_small_pages(memory, growth);
        std::memset(memory, 1, growth);
    };
    // Rehearsed, so that afterwards there is no code or stack to be faulted in as well.
    Actor actor(
        [&] {
            grow();
            mmap(memory, growth, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        },
        grow);
    const TemporaryDirectory folder;
    const std::string history = folder.path() + "/history";
    const auto scan = [&](const Words& more) {
        const auto outcome = run_pagesift(
            Words{"scan", "--format", "sqlite", "-o", history, "-p", actor.pid()} + more);
        INFO(outcome.err);
        REQUIRE(outcome.exit_code == 0);
    };
    scan({});
    scan({"--per", "comm"});
    REQUIRE(actor.act());
    scan({});
    scan({"--per", "comm", "--depth", "totals"});

    const auto change = [](const json& changes, const char* name) {
        for (const json& one : changes)
            if (one["field"] == name) return one["change"];
        return json{"not told"};
    };
    // By itself a history stands for its newest scan, here by name, and the one before of that
    // sort, which was at another depth.
    const auto names = diff({history});
    CHECK(names["per"] == "comm");
    CHECK(names["before"]["scan"] == 2);
    CHECK(names["after"]["scan"] == 4);
    CHECK(change(names["totals"]["changes"], "anon_bytes").is_null());
    const auto rss = change(names["totals"]["changes"], "rss_bytes").get<std::int64_t>();
    CHECK(rss >= static_cast<std::int64_t>(growth));

    const auto seen = diff({history + "@1", history + "@3"});
    CHECK(seen["per"] == "process");
    REQUIRE(seen["records"].size() == 1);
    const json& one = seen["records"][0];
    CHECK(one["only_in"].is_null());
    CHECK(std::to_string(one["pid"].get<pid_t>()) == actor.pid());
    // Pages of the program's files come and go as others read them.
    const auto number = [&](const char* name) {
        const json value = change(one["changes"], name);
        return value.is_number() ? value.get<std::int64_t>() : 0;
    };
    CAPTURE(one["changes"].dump());
    const auto grown = number("present_bytes");
    CHECK(number("anon_bytes") == growth);
    CHECK(grown > static_cast<std::int64_t>(growth - mib));
    CHECK(grown < static_cast<std::int64_t>(growth + mib));
    CHECK(one["memory_change_bytes"] == grown);
    CHECK(change(one["changes"], "none_bytes") == -static_cast<std::int64_t>(growth));
    CHECK(change(seen["totals"]["changes"], "size_bytes") == 0);
    CHECK(diff({history + "@-2"})["records"] == seen["records"]);
    munmap(static_cast<char*>(memory) - page, growth + 2 * page);
}

} // namespace pagesift::live
