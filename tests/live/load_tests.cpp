// SPDX-License-Identifier: MIT
// More of everything than programs usually have, and less memory for pagesift itself. Counts are
// scaled down to what the machine can hold; PAGESIFT_LOAD=full takes the slow ones at full size.
#include "advise.hpp"
#include "control_group.hpp"
#include "harness.hpp"
#include "zoo/machine.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <pthread.h>
#include <set>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t MiB = 1 << 20, GiB = 1 << 30;

bool is_full() {
    const char* const size = std::getenv("PAGESIFT_LOAD");
    return size != nullptr && std::string(size) == "full";
}

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// An emulated machine has a tenth of the speed, and the memory of a small one.
bool is_small_machine() { return witness::meminfo("MemTotal") < 4 * GiB; }
std::size_t scaled(std::size_t count) { return is_small_machine() ? count / 10 : count; }

char* map(std::size_t bytes, int flags = 0) {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    if (at == MAP_FAILED) _exit(1);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return static_cast<char*>(at);
}

/// A page for each mapping, and no two neighbours alike.
void map_many(std::size_t count) {
    const std::size_t page = witness::page_size();
    char* const at = map(count * page);
    for (std::size_t i = 0; i < count; ++i) at[i * page] = 1;
    for (std::size_t i = 0; i < count; i += 2)
        if (mprotect(at + i * page, page, PROT_READ) != 0) _exit(1);
}

/// Gives back what a test needed to read large answers: later tests fork this process.
struct MemoryReturned {
    ~MemoryReturned() { malloc_trim(0); }
};

/// The figures of a scan's record that nobody else changes.
json figures(const Words& arguments, const RunOptions& options) {
    Words words = {"scan", "--format", "ndjson"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const auto outcome = run_pagesift(words, options);
    CHECK_MESSAGE(outcome.exit_code == 0, outcome.exit_code, ", signal ", outcome.signal, ": ",
                  outcome.err);
    const auto record = json::parse(outcome.out.substr(0, outcome.out.find('\n')), nullptr, false);
    json kept;
    for (const auto* name :
         {"size_bytes", "rss_bytes", "swap_bytes", "anonymous_bytes", "present_bytes",
          "swapped_bytes", "anon_bytes", "thp_bytes", "zero_page_bytes", "page_tables_bytes",
          "needed_tables", "empty_tables", "mappings"})
        kept[name] = field(record, name);
    return kept;
}

} // namespace

// --- Little memory of its own --------------------------------------------------------------------

namespace {

/// 1 GiB of it is there, 4 GiB are nearly empty, and 40,000 mappings have a page each.
void be_large() {
    const bool small = is_small_machine();
    const std::size_t dense = small ? 128 * MiB : GiB;
    std::memset(map(dense), 1, dense);
    char* const sparse = map(4 * GiB);
    for (std::size_t i = 0; i < 4 * GiB; i += 2 * MiB) sparse[i] = 1;
    map_many(40'000);
}

} // namespace

TEST_CASE("load: in 64 MiB of memory, a large process is answered as ever") {
    if (!have_root()) return;
    const ControlGroup group;
    if (!group.ready()) return skip("no control groups");
    if (!group.limit_below(64 * MiB)) return skip("no limit for memory");
    const Child large([](const auto& ready) {
        be_large();
        ready();
    });
    large.stop();
    const RunOptions inside{.seconds = 120, .prepare = [&] { group.add_below(getpid()); }};
    const auto pid = std::to_string(large.pid());
    for (const auto& lens : lenses()) {
        INFO("the " << lens << " lens");
        json outer, inner;
        for (int tries = 0; tries < 3; ++tries) { // an ager may move pages meanwhile
            outer = figures({"-p", pid, "--lens", lens}, {.seconds = 120});
            inner = figures({"-p", pid, "--lens", lens}, inside);
            if (outer == inner) break;
        }
        CHECK(outer["rss_bytes"].get<std::uint64_t>() > 128 * MiB);
        CHECK_MESSAGE(outer == inner, outer.dump(), "\n", inner.dump());
    }
    const TemporaryDirectory folder;
    const Words commands[] = {
        {"inspect", "--format", "json", pid},
        {"inspect", "--ranges", "--zero", "all", "--format", "csv", pid},
        {"inspect", "--ranges", "--zero", "all", "--format", "csv", "--lens", "proc", pid},
        {"scan", "-p", pid, "--depth", "content", "--format", "ndjson"},
        {"scan", "-p", pid, "--per", "range", "--format", "csv"},
        {"scan", "-p", pid, "--format", "sqlite", "-o", folder.path() + "/history.db"},
        {"record", "-o", "/dev/null", pid},
        {"advise", "pageout", "--format", "json", pid},
        {"cold", "--window", "100ms", pid},
    };
    for (const Words& command : commands) {
        const auto begin = Clock::now();
        const auto outcome = run_pagesift(command, inside);
        CHECK_MESSAGE(outcome.exit_code == 0, command[0], " ", command[1], " ", command[2],
                      ": exit code ", outcome.exit_code, ", signal ", outcome.signal, ": ",
                      outcome.err.substr(0, 500));
        MESSAGE(command[0] << " " << command[1] << ": " << seconds_since(begin) << " s");
    }
}

// --- Many processes ------------------------------------------------------------------------------

namespace {

/// So many children of one process, every fifth called "crowd-few", the others "crowd".
class Crowd {
public:
    explicit Crowd(std::size_t wanted)
        : shared_(static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                                            MAP_SHARED | MAP_ANONYMOUS, -1, 0))),
          parent_([&](const auto& ready) {
              signal(SIGCHLD, SIG_IGN); // they leave no zombies
              signal(SIGTERM, SIG_IGN);
              setpgid(0, 0);
              ready(); // Child does not wait for as long as this may take
              for (std::size_t i = 0; i < wanted && make_one(i) > 0; ++i) ++shared_->made;
              shared_->complete = true;
              while (!shared_->leave) usleep(10'000);
              kill(0, SIGTERM);                     // all of its group but itself
              while (waitpid(-1, nullptr, 0) > 0) { // returns when all have ended
              }
              shared_->left = true;
          }) {
        // On a slow machine, longer than Child waits.
        for (int tries = 0; tries < 6000 && !shared_->complete; ++tries) usleep(10'000);
    }
    ~Crowd() {
        shared_->leave = true;
        for (int tries = 0; tries < 6000 && !shared_->left; ++tries) usleep(10'000);
    }
    Crowd(const Crowd&) = delete;
    Crowd& operator=(const Crowd&) = delete;

    std::size_t size() const { return shared_->made; }
    std::string parent() const { return std::to_string(parent_.pid()); }

private:
    struct Shared {
        std::atomic<std::size_t> made;
        std::atomic<bool> complete, leave, left;
    };

    static pid_t make_one(std::size_t i) {
        const pid_t parent = getpid(), pid = fork();
        if (pid != 0) return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_NAME, i % 5 == 0 ? "crowd-few" : "crowd");
        for (;;) pause();
    }

    Shared* shared_;
    Child parent_;
};

struct Scan {
    Outcome outcome;
    std::vector<pid_t> pids; ///< of the records
    json summary;
    double seconds = 0;
    std::uint64_t count(const char* name) const { return summary[name].get<std::uint64_t>(); }
};

Scan scan(Words arguments) {
    arguments.insert(arguments.begin(), {"scan", "--format", "ndjson"});
    Scan result;
    const auto begin = Clock::now();
    result.outcome = run_pagesift(arguments, {.seconds = 280});
    result.seconds = seconds_since(begin);
    CHECK_FALSE(result.outcome.timed_out);
    for (const json& line : parse_lines(result.outcome.out)) {
        REQUIRE(line.is_object());
        if (line["record"] == "scan")
            result.summary = line;
        else if (line["record"] != "totals")
            result.pids.push_back(line["pid"].get<pid_t>());
    }
    REQUIRE_MESSAGE(result.summary.is_object(), result.outcome.err);
    return result;
}

} // namespace

TEST_CASE("load: 10,000 processes have a record each, also while half of them are killed") {
    if (!have_root()) return;
    const std::size_t wanted = scaled(10'000);
    const Crowd crowd(wanted);
    if (crowd.size() < wanted)
        return skip("no more than " + std::to_string(crowd.size()) + " processes");
    const auto sums = scan({"--depth", "totals", "--children-of", crowd.parent()});
    CHECK(sums.outcome.exit_code == 0);
    CHECK(sums.pids.size() == wanted);
    CHECK(std::set<pid_t>(sums.pids.begin(), sums.pids.end()).size() == wanted);
    CHECK(sums.count("answered") == wanted);
    MESSAGE("totals of " << wanted << ": " << sums.seconds << " s");

    const std::string some = is_full() ? "crowd*" : "crowd-few";
    const auto pages = scan({"--children-of", crowd.parent(), "--comm", some});
    CHECK(pages.outcome.exit_code == 0);
    CHECK(pages.pids.size() == (is_full() ? wanted : (wanted + 4) / 5));
    CHECK(pages.count("partial") == 0);
    MESSAGE("pages of " << pages.pids.size() << ": " << pages.seconds << " s");

    const auto cut = scan({"--children-of", crowd.parent(), "--max-time", "500ms", "--cpu", "20"});
    CHECK(cut.outcome.exit_code == 3);
    CHECK(cut.count("chosen") == wanted);
    CHECK(cut.count("answered") + cut.count("skipped") + cut.count("ended") == wanted);
    CHECK(cut.count("answered") == cut.pids.size());
    CHECK(cut.count("skipped") > 0);
    // What comes before and after the looks is to list and to write, of a number of processes.
    CHECK(cut.summary["elapsed_seconds"].get<double>() < 2 + sums.seconds);

    std::set<pid_t> killed, spared;
    for (std::size_t i = 0; i < sums.pids.size(); ++i)
        (i % 2 == 0 ? killed : spared).insert(sums.pids[i]);
    std::thread killer([&] {
        for (const pid_t pid : killed) {
            kill(pid, SIGKILL);
            if (pid % 32 == 0) usleep(1000);
        }
    });
    const auto halved = scan({"--depth", "totals", "--children-of", crowd.parent()});
    killer.join();
    CHECK(halved.outcome.exit_code == 0);
    CHECK(halved.outcome.err == "");
    CHECK(halved.count("answered") + halved.count("ended") == halved.count("chosen"));
    const std::set<pid_t> seen(halved.pids.begin(), halved.pids.end());
    CHECK(seen.size() == halved.pids.size());
    CHECK(std::includes(seen.begin(), seen.end(), spared.begin(), spared.end()));
    MESSAGE(halved.count("ended") << " of " << killed.size() << " ended under the scan's eyes");
}

// --- Many mappings -------------------------------------------------------------------------------

TEST_CASE("load: 100,000 mappings of one process are all there") {
    if (!have_root()) return;
    const MemoryReturned later;
    const std::size_t wanted = scaled(100'000);
    try {
        zoo::Machine machine;
        const zoo::Setting limit(machine, "/proc/sys/vm/max_map_count",
                                 std::to_string(wanted + 30'000));
        const Child many([&](const auto& ready) {
            map_many(wanted);
            ready();
        });
        many.stop();
        const auto pid = std::to_string(many.pid());
        const auto seen = inspect(many.pid(), {}, {.seconds = 120});
        REQUIRE(seen.is_object());
        CHECK(seen["mappings"].size() >= wanted);
        check_invariants(seen);
        const auto rollup = witness::smaps_rollup(many.pid());
        CHECK(seen["totals"]["rss_bytes"] == json(rollup.at("Rss")));
        const auto count = " in " + std::to_string(seen["mappings"].size()) + " mappings";
        for (const auto& lens : lenses()) {
            const auto begin = Clock::now();
            const auto outcome = run_pagesift({"inspect", "--top", "0", "--lens", lens, pid});
            CHECK(outcome.exit_code == 0);
            CHECK_MESSAGE(outcome.out.find(count) != std::string::npos, outcome.out.substr(0, 300));
            MESSAGE(lens << ": " << seconds_since(begin) << " s");
        }
        const TemporaryDirectory folder;
        const auto file = folder.path() + "/many.psr";
        CHECK(run_pagesift({"record", "-q", "-o", file, pid}).exit_code == 0);
        const auto again = run_pagesift({"inspect", "--top", "0", file});
        CHECK_MESSAGE(again.out.find(count) != std::string::npos, again.out.substr(0, 300));
        for (const Words& command :
             {Words{"advise", "pageout", "--format", "json", pid}, Words{"scan", "-p", pid},
              Words{"cold", "--window", "100ms", pid}, Words{"diff", file, pid}}) {
            const auto begin = Clock::now();
            const auto outcome = run_pagesift(command, {.seconds = 120});
            CHECK_MESSAGE(outcome.exit_code == 0, command[0], ": ", outcome.err.substr(0, 500));
            MESSAGE(command[0] << ": " << seconds_since(begin) << " s");
        }
    } catch (const zoo::Unavailable& reason) {
        skip(reason.what());
    }
}

// --- Many threads --------------------------------------------------------------------------------

namespace {

/// What the test sees of a process with many threads.
struct Threads {
    std::atomic<std::size_t> running;
    std::atomic<std::uint64_t> ticks, longest_gap_us;
};

void* sleep_for_ever(void* shared) {
    ++static_cast<Threads*>(shared)->running;
    for (;;) pause();
}

/// Counts how long it did not run.
void tick(Threads& shared) {
    for (auto last = Clock::now();;) {
        usleep(200);
        const auto now = Clock::now();
        const auto gap = static_cast<std::uint64_t>(
            std::chrono::duration_cast<std::chrono::microseconds>(now - last).count());
        if (gap > shared.longest_gap_us) shared.longest_gap_us = gap;
        last = now;
        ++shared.ticks;
    }
}

/// Stacks beside each other, so that they are one mapping.
void start_threads(std::size_t count, Threads& shared) {
    constexpr std::size_t stack_bytes = 32768;
    char* const stacks = map(count * stack_bytes, MAP_STACK);
    for (std::size_t i = 0; i < count; ++i) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstack(&attributes, stacks + i * stack_bytes, stack_bytes);
        pthread_t thread;
        const int error = pthread_create(&thread, &attributes, sleep_for_ever, &shared);
        pthread_attr_destroy(&attributes);
        if (error != 0) return;
    }
}

struct SharedThreads {
    SharedThreads()
        : all(static_cast<Threads*>(mmap(nullptr, sizeof(Threads), PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
    ~SharedThreads() { munmap(all, sizeof(Threads)); }
    SharedThreads(const SharedThreads&) = delete;
    SharedThreads& operator=(const SharedThreads&) = delete;
    Threads* all;
};

} // namespace

TEST_CASE("load: of 20,000 threads none is lost, and they are not held up for longer than agreed") {
    if (!have_root()) return;
    const std::size_t wanted = scaled(20'000);
    const SharedThreads shared;
    const std::uint64_t at = free_addresses(witness::slot_size());
    const Child threads([&](const auto& ready) {
        map_private(at, witness::slot_size());
        // In two halves, so that the kernel leaves the table, which is empty then.
        for (const std::uint64_t half : {at, at + witness::slot_size() / 2})
            madvise(reinterpret_cast<void*>(half), witness::slot_size() / 2, MADV_DONTNEED);
        ready();
        start_threads(wanted, *shared.all);
        tick(*shared.all);
    });
    for (int tries = 0; tries < 600 && shared.all->running < wanted; ++tries) usleep(100'000);
    if (shared.all->running < wanted)
        return skip("no more than " + std::to_string(shared.all->running) + " threads");
    const auto pid = std::to_string(threads.pid());

    auto begin = Clock::now();
    const auto seen = inspect(threads.pid(), {});
    MESSAGE("inspect: " << seconds_since(begin) << " s");
    check_invariants(seen);
    CHECK(run_pagesift({"scan", "-p", pid}).exit_code == 0);
    if (!can_do("pt-reclaim")) return;

    shared.all->longest_gap_us = 0;
    begin = Clock::now();
    const auto done = advise({"pt-reclaim", "--apply", pid}, {.seconds = 120});
    MESSAGE("advise pt-reclaim: " << seconds_since(begin) << " s, exit code "
                                  << done.outcome.exit_code << ", longest gap "
                                  << shared.all->longest_gap_us.load()
                                  << " us: " << done.outcome.err.substr(0, 300) << remark_of(done));
    CHECK(done.outcome.signal == 0);
    const auto freed = [](const Advised& one) {
        return field(field(one.process, "effect"), "freed_tables").size();
    };
    CHECK(freed(done) == 0);
    CHECK(done.outcome.exit_code == 1);
    CHECK(done.outcome.err.find("threads cannot all be stopped within --max-stop") !=
          std::string::npos);
    // It is not even tried, and the machine has other things to do than to run this thread.
    CHECK(shared.all->longest_gap_us < (is_small_machine() ? 5'000'000 : 100'000));
    const auto patient = advise({"pt-reclaim", "--apply", "--max-stop", "5s", pid});
    CHECK_MESSAGE(patient.outcome.exit_code == 0, patient.outcome.err);
    CHECK(freed(patient) > 0);
    MESSAGE("a patient one stopped it for "
            << field(field(field(patient.process, "effect"), "stops"), "longest_seconds").dump()
            << " s");
    const auto ticks = shared.all->ticks.load();
    usleep(200'000);
    CHECK(shared.all->ticks > ticks);
    CHECK(witness::status(threads.pid(), "Threads") == wanted + 1);
}

} // namespace pagesift::live
