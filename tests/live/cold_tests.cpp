// SPDX-License-Identifier: MIT
// How long pages have been idle, against processes that write down what they touch.
#include "harness.hpp"
#include "zoo/machine.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <random>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

std::size_t page_bytes() {
    static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}
std::size_t slot_bytes() { return page_bytes() * page_bytes() / 8; }

double unix_now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

void rest(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

bool have_exact() {
    if (!have_root()) return false;
    const auto all = lenses();
    return std::find(all.begin(), all.end(), "exact") != all.end();
}

bool has_pagemap_scan() {
    const auto doctor = run_pagesift({"doctor", "--format", "json"});
    const json told = json::parse(doctor.out, nullptr, false);
    for (const json& one : field(told, "features"))
        if (field(one, "name") == "pagemap-scan" && field(one, "works") == true) return true;
    skip("no PAGEMAP_SCAN");
    return false;
}

/// Private memory of the process that maps it, aligned to a page-table slot, without huge pages.
char* map_pages(std::size_t bytes, int advice = MADV_NOHUGEPAGE) {
    auto* raw = static_cast<char*>(mmap(nullptr, bytes + 2 * slot_bytes(), PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (raw == MAP_FAILED) _exit(9);
    const auto start =
        (reinterpret_cast<std::uintptr_t>(raw) + slot_bytes() - 1) / slot_bytes() * slot_bytes();
    auto* const aligned = raw + (start - reinterpret_cast<std::uintptr_t>(raw));
    madvise(aligned, bytes, advice);
    return aligned;
}

void touch(const char* at) { static_cast<void>(*static_cast<const volatile char*>(at)); }

/// What a process has touched, in memory that the test shares with it.
struct Log {
    static constexpr std::size_t most = 200'000;
    struct Access {
        double before, after; ///< the access was in between
        std::size_t page;
    };
    std::atomic<std::uint64_t> start;
    std::atomic<std::size_t> count;
    std::atomic<bool> flag;
    Access accesses[most];
};

class SharedLog {
public:
    SharedLog()
        : log_(static_cast<Log*>(mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        REQUIRE(log_ != MAP_FAILED);
    }
    ~SharedLog() { munmap(log_, sizeof(Log)); }
    SharedLog(const SharedLog&) = delete;
    SharedLog& operator=(const SharedLog&) = delete;
    Log* operator->() const { return log_; }

private:
    Log* log_;
};

void note_and_touch(Log& log, const char* memory, std::size_t page) {
    const std::size_t index = log.count;
    if (index >= Log::most) return;
    log.accesses[index].before = unix_now();
    touch(memory + page * page_bytes());
    log.accesses[index].after = unix_now();
    log.accesses[index].page = page;
    log.count = index + 1;
}

json cold(const std::vector<std::string>& arguments, const std::vector<pid_t>& pids,
          int expected = 0) {
    std::vector<std::string> command{"cold", "--format", "json"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    for (const pid_t pid : pids) command.push_back(std::to_string(pid));
    const auto result = run_pagesift(command);
    CHECK_MESSAGE(result.exit_code == expected, result.err);
    return json::parse(result.out, nullptr, false);
}

/// The ranges below @p bytes from @p start on, a page after the other; null where there is none.
std::vector<json> pages_of(const json& process, std::uint64_t start, std::size_t bytes) {
    std::vector<json> pages(bytes / page_bytes());
    for (const json& range : process["ranges"]) {
        const auto from = std::max(address(range["start"]), start);
        const auto to = std::min(address(range["end"]), start + bytes);
        for (auto at = from; at < to; at += page_bytes())
            pages[(at - start) / page_bytes()] = range;
    }
    return pages;
}

/// How the claims of idle pages compare with what the process wrote down of those it logs.
struct Verdict {
    std::size_t claimed = 0, truly_cold = 0, right = 0;
    std::vector<double> wrong; ///< seconds before the last sighting at which a claim was broken
};

Verdict judge(const json& process, const Log& log, std::size_t first, std::size_t pages) {
    const double end = process["sighted_unix_milliseconds"].get<double>() / 1000;
    const double window = process["window_seconds"];
    // The clock of the machine is read a moment after the one that measures windows.
    const double slack = 0.004;
    std::vector<double> last(pages, -1e9);
    for (std::size_t i = 0; i < log.count; ++i) {
        const auto& access = log.accesses[i];
        if (access.after < end - slack)
            last[access.page] = std::max(last[access.page], access.before);
    }
    Verdict verdict;
    const auto answers = pages_of(process, log.start, pages * page_bytes());
    for (std::size_t i = first; i < pages; ++i) {
        if (answers[i].is_null()) continue;
        const json& idle = answers[i]["idle_seconds"];
        const bool claimed = idle.is_number() && idle >= window;
        const bool truly = last[i] < end - window;
        verdict.claimed += claimed;
        verdict.truly_cold += truly;
        verdict.right += claimed && last[i] < end - window + slack;
        if (idle.is_number() && idle > 0 && last[i] > end - idle.get<double>() + slack)
            verdict.wrong.push_back(end - last[i]);
    }
    return verdict;
}

constexpr std::size_t worker_pages = 4096;

/// A hot quarter that is touched all the time, a warm half of which a page is touched now and then,
/// and a cold quarter.
void work(Log& log, const std::function<void()>& ready) {
    char* const memory = map_pages(worker_pages * page_bytes());
    memset(memory, 1, worker_pages * page_bytes());
    log.start = reinterpret_cast<std::uintptr_t>(memory);
    ready();
    std::mt19937 random{7};
    for (std::size_t turn = 0;; ++turn) {
        for (std::size_t i = 0; i < worker_pages / 4; i += 4)
            touch(memory + (i + turn % 4) * page_bytes());
        note_and_touch(log, memory, worker_pages / 4 + random() % (worker_pages / 2));
        rest(0.002);
    }
}

} // namespace

TEST_CASE("cold: no page that was touched is called idle, with one round") {
    if (!have_exact()) return;
    SharedLog log;
    const Child worker{[&](const auto& ready) { work(*log.operator->(), ready); }};
    const json all =
        cold({"--source", "exact", "--window", "2s", "--interval", "2s"}, {worker.pid()});
    REQUIRE(all.size() == 1);
    const json& process = all[0];
    CHECK(process["rounds"] == 1);
    CHECK(process["window_seconds"] >= 2.0);
    CHECK(process["clear"]["times"] == 1);
    CHECK(process["clear"]["total_seconds"] > 0);
    CHECK(process["clear"]["blind_seconds"] == 0);
    const Verdict verdict = judge(process, *log.operator->(), worker_pages / 4, worker_pages);
    CHECK(verdict.wrong.empty());
    CHECK(verdict.truly_cold > worker_pages / 4);
    // Precision is 1 by the check above; recall:
    CHECK(verdict.claimed == verdict.right);
    CHECK(static_cast<double>(verdict.right) >= 0.99 * static_cast<double>(verdict.truly_cold));
    // The hot quarter, apart from what somebody else moved meanwhile.
    const auto answers = pages_of(process, log->start, worker_pages * page_bytes());
    const auto idle =
        std::count_if(answers.begin(), answers.begin() + worker_pages / 4,
                      [](const json& range) { return field(range, "activity") == "idle"; });
    CHECK(idle == 0);
    const auto accessed =
        std::count_if(answers.begin(), answers.begin() + worker_pages / 4,
                      [](const json& range) { return field(range, "activity") == "accessed"; });
    CHECK(accessed >= static_cast<std::ptrdiff_t>(0.99 * worker_pages / 4));
}

TEST_CASE("cold: with several rounds, nothing before the last clearing is claimed") {
    if (!have_exact()) return;
    SharedLog log;
    const Child worker{[&](const auto& ready) { work(*log.operator->(), ready); }};
    const json all =
        cold({"--source", "exact", "--window", "3s", "--interval", "1s"}, {worker.pid()});
    REQUIRE(all.size() == 1);
    const json& process = all[0];
    CHECK(process["rounds"] == 3);
    CHECK(process["idle_steps_seconds"].size() == 4);
    const Verdict verdict = judge(process, *log.operator->(), worker_pages / 4, worker_pages);
    CHECK(process["clear"]["blind_seconds"] > 0);
    CHECK(verdict.wrong.empty());
    CHECK(verdict.claimed == 0);
    std::size_t idle = 0;
    for (const json& range : process["ranges"]) {
        if (range["activity"] != "idle") continue;
        ++idle;
        CHECK(range["idle_seconds"] == process["idle_steps_seconds"][2]);
    }
    CHECK(idle > 0);
}

TEST_CASE("cold: pages in the TLB all the time are never called idle") {
    if (!have_exact()) return;
    static constexpr std::size_t hot = 16;
    SharedLog log;
    const Child worker{[&](const auto& ready) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
        sched_setaffinity(0, sizeof one, &one);
        setpriority(PRIO_PROCESS, 0, -20); // another program would flush the TLB for us
        char* const memory = map_pages(hot * page_bytes());
        memset(memory, 1, hot * page_bytes());
        log->start = reinterpret_cast<std::uintptr_t>(memory);
        ready();
        // A processor that is taken away touches nothing: each pause is written down.
        for (double last = unix_now();;) {
            for (std::size_t i = 0; i < hot; ++i) touch(memory + i * page_bytes());
            const double now = unix_now();
            const std::size_t index = log->count;
            if (now - last > 0.002 && index < Log::most) {
                log->accesses[index] = {last, now, 0};
                log->count = index + 1;
            }
            last = now;
        }
    }};
    const auto paused = [&](const json& process, const json& page) {
        const double end = process["sighted_unix_milliseconds"].get<double>() / 1000;
        const double start = end - page["idle_seconds"].get<double>();
        for (std::size_t i = 0; i < log->count; ++i)
            if (log->accesses[i].before <= start + 0.003 && log->accesses[i].after >= end - 0.003)
                return true;
        return false;
    };
    // Short windows: in long ones other programs take the processor, and with it the TLB. Many of
    // them, unless it takes long to start a program, as on an emulated machine.
    const double enough = unix_now() + 10;
    for (int i = 0; i < 30 && (i < 5 || unix_now() < enough); ++i) {
        const json all =
            cold({"--source", "exact", "--window", "10ms", "--interval", "10ms"}, {worker.pid()});
        REQUIRE(all.size() == 1);
        for (const json& page : pages_of(all[0], log->start, hot * page_bytes()))
            CHECK_MESSAGE((field(page, "activity") != "idle" || paused(all[0], page)), page.dump());
    }
}

TEST_CASE("cold: an answer for a huge entry is one for all of its pages, and says so") {
    if (!have_exact()) return;
    SharedLog log;
    const Child worker{[&](const auto& ready) {
        char* const memory = map_pages(4 * slot_bytes(), MADV_HUGEPAGE);
        memset(memory, 1, 4 * slot_bytes());
        log->start = reinterpret_cast<std::uintptr_t>(memory);
        ready();
        while (true) {
            touch(memory + 5 * page_bytes());
            rest(0.001);
        }
    }};
    std::uint64_t huge = 0;
    for (const auto& mapping : zoo::witness::smaps(worker.pid()))
        if (mapping.start <= log->start && log->start < mapping.end)
            huge = mapping.bytes.count("AnonHugePages") ? mapping.bytes.at("AnonHugePages") : 0;
    if (huge < 4 * slot_bytes()) return skip("no transparent huge pages to be had");
    const json all =
        cold({"--source", "exact", "--window", "300ms", "--interval", "300ms"}, {worker.pid()});
    REQUIRE(all.size() == 1);
    const auto pages = pages_of(all[0], log->start, 4 * slot_bytes());
    const std::size_t first = slot_bytes() / page_bytes();
    for (std::size_t i = 0; i < pages.size(); ++i) {
        // khugepaged, or whoever splits huge pages, may have been at work.
        CHECK(field(pages[i], "grain") == "huge");
        CHECK(field(pages[i], "activity") == (i < first ? "accessed" : "idle"));
    }
}

TEST_CASE("cold: what fault-around maps beside a page is not called accessed, nor idle") {
    if (!have_exact()) return;
    static constexpr std::size_t count = 64;
    SharedLog log;
    const Child worker{[&](const auto& ready) {
        const int fd = memfd_create("pagesift", MFD_CLOEXEC);
        const std::vector<char> filled(count * page_bytes(), 1);
        if (write(fd, filled.data(), filled.size()) < 0) _exit(9);
        auto* const memory = static_cast<char*>(
            mmap(nullptr, filled.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        log->start = reinterpret_cast<std::uintptr_t>(memory);
        ready();
        while (!log->flag) rest(0.001);
        touch(memory + 5 * page_bytes());
        while (true) rest(1);
    }};
    std::thread later{[&] {
        rest(0.5);
        log->flag = true;
    }};
    const json all =
        cold({"--source", "exact", "--window", "1s", "--interval", "1s"}, {worker.pid()});
    later.join();
    REQUIRE(all.size() == 1);
    std::size_t there = 0;
    for (const json& page : pages_of(all[0], log->start, count * page_bytes())) {
        if (page.is_null()) continue;
        ++there;
        CHECK(page["activity"] == "unknown");
        CHECK(page["idle_seconds"].is_null());
    }
    CHECK(there >= 1);
}

TEST_CASE("cold: pages that were paged out meanwhile are not called idle") {
    if (!have_exact()) return;
    static constexpr std::size_t count = 256;
    SharedLog log;
    // Whether it happened within the window: how long the program takes to begin is not known.
    const auto run = [&](double delay) {
        log->flag = false;
        log->count = 0;
        const Child worker{[&](const auto& ready) {
            char* const memory = map_pages(count * page_bytes());
            memset(memory, 1, count * page_bytes());
            log->start = reinterpret_cast<std::uintptr_t>(memory);
            ready();
            while (!log->flag) rest(0.001);
            for (std::size_t i = 0; i < count; ++i) note_and_touch(*log.operator->(), memory, i);
            madvise(memory, count * page_bytes(), 21); // MADV_PAGEOUT
            while (true) rest(1);
        }};
        std::thread later{[&] {
            rest(delay);
            log->flag = true;
        }};
        const json all =
            cold({"--source", "exact", "--window", "1s", "--interval", "1s"}, {worker.pid()});
        later.join();
        REQUIRE(all.size() == 1);
        const double end = all[0]["sighted_unix_milliseconds"].get<double>() / 1000;
        const double start = end - all[0]["window_seconds"].get<double>();
        if (log->count < count || log->accesses[0].before < start + 0.003 ||
            log->accesses[count - 1].after > end - 0.1)
            return false;
        std::size_t swapped = 0;
        for (const json& page : pages_of(all[0], log->start, count * page_bytes())) {
            if (page.is_null()) continue;
            swapped += page["state"] == "swapped";
            CHECK(page["activity"] != "idle");
        }
        CHECK(swapped > 0);
        // Nobody touches them now, and the process has no page fault.
        const json again = cold({"--source", "exact", "--window", "500ms"}, {worker.pid()});
        REQUIRE(again.size() == 1);
        for (const json& page : pages_of(again[0], log->start, count * page_bytes()))
            if (field(page, "state") == "swapped") CHECK(page["activity"] != "accessed");
        return true;
    };
    try {
        zoo::Machine machine;
        machine.add_swap_file(64 << 20);
        machine.release();
        bool has_run = false;
        for (double delay = 0.5; !has_run && delay < 6; delay += 0.4) has_run = run(delay);
        CHECK(has_run);
    } catch (const zoo::Unavailable& unavailable) {
        skip(unavailable.what());
    }
}

TEST_CASE("cold: --passive leaves accessed bits alone, and other sources do not") {
    if (!have_root()) return;
    SharedLog log;
    const Child worker{[&](const auto& ready) {
        char* const memory = map_pages(256 * page_bytes());
        memset(memory, 1, 256 * page_bytes());
        log->start = reinterpret_cast<std::uintptr_t>(memory);
        ready();
    }};
    const auto referenced = [&]() -> std::uint64_t {
        for (const auto& mapping : zoo::witness::smaps(worker.pid()))
            if (mapping.start <= log->start && log->start < mapping.end)
                return mapping.bytes.at("Referenced");
        return 0;
    };
    const auto before = referenced();
    REQUIRE(before >= 256 * page_bytes());
    const json passive = cold(
        {"--passive", "--window", "300ms"}, {worker.pid()},
        // Under MGLRU the hints mean nothing, and the answer is in part.
        zoo::read_setting("/sys/kernel/mm/lru_gen/enabled").value_or("0x0000") == "0x0000" ? 0 : 3);
    REQUIRE(passive.size() == 1);
    CHECK(referenced() == before);
    CHECK(passive[0]["source"]["name"] == "lru");
    CHECK(passive[0]["source"]["writes"] == false);
    CHECK(passive[0]["clear"]["times"] == 0);
    CHECK(passive[0]["totals"]["cold_bytes"] == 0);
    const json active = cold({"--source", "referenced", "--window", "300ms", "--interval", "300ms"},
                             {worker.pid()});
    REQUIRE(active.size() == 1);
    CHECK(referenced() < before);
    CHECK(active[0]["source"]["name"] == "referenced");
}

TEST_CASE("cold: Referenced tells idle mappings from those in use") {
    if (!have_root()) return;
    static constexpr std::size_t count = 64;
    SharedLog log;
    const Child worker{[&](const auto& ready) {
        char* const idle = map_pages(count * page_bytes());
        char* const used = map_pages(count * page_bytes());
        memset(idle, 1, count * page_bytes());
        memset(used, 1, count * page_bytes());
        // Neighbours of one kind would be one mapping.
        mprotect(used, count * page_bytes(), PROT_READ);
        log->start = reinterpret_cast<std::uintptr_t>(idle);
        log->accesses[0].page = reinterpret_cast<std::uintptr_t>(used);
        ready();
        while (true) {
            touch(used);
            rest(0.001);
        }
    }};
    const json all = cold({"--source", "referenced", "--window", "500ms"}, {worker.pid()});
    REQUIRE(all.size() == 1);
    for (const json& page : pages_of(all[0], log->accesses[0].page, count * page_bytes())) {
        CHECK(field(page, "activity") == "accessed");
        CHECK(field(page, "grain") == "mapping");
    }
    std::size_t idle = 0;
    for (const json& page : pages_of(all[0], log->start, count * page_bytes()))
        idle += field(page, "activity") == "idle";
    CHECK(idle == count);
}

TEST_CASE("cold: terabytes that are only reserved take no time, by any source") {
    if (!have_root() || !has_pagemap_scan()) return;
    static constexpr std::uint64_t reserved = std::uint64_t{1} << 43;
    SharedLog log;
    const Child worker{[&](const auto& ready) {
        auto* const memory =
            static_cast<char*>(mmap(nullptr, reserved, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (memory == MAP_FAILED) _exit(9);
        memory[reserved / 2] = 1;
        log->start = reinterpret_cast<std::uintptr_t>(memory) + reserved / 2;
        ready();
    }};
    for (const char* source : {"exact", "referenced", "lru"}) {
        if (std::string(source) == "exact" && !have_exact()) continue;
        CAPTURE(source);
        const auto begin = unix_now();
        const auto run = run_pagesift({"cold", "--source", source, "--window", "200ms", "--format",
                                       "json", std::to_string(worker.pid())});
        // Page by page it would be minutes.
        CHECK(unix_now() - begin < 20);
        const json all = json::parse(run.out, nullptr, false);
        REQUIRE(all.size() == 1);
        CHECK_FALSE(pages_of(all[0], log->start, page_bytes())[0].is_null());
    }
}

TEST_CASE("cold: SIGINT ends the window, and what was measured is printed") {
    if (!have_root()) return;
    const Child worker{[&](const auto& ready) { ready(); }};
    Background program{{std::getenv("PAGESIFT_BIN"), "cold", "--window", "60s", "--format",
                        "ndjson", std::to_string(worker.pid())}};
    rest(1.5);
    program.signal(SIGINT);
    std::optional<std::string> line;
    json last;
    while ((line = program.wait_for_line(60))) last = json::parse(*line);
    const int status = program.wait(60);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 130);
    REQUIRE(field(last, "record") == "process");
    CHECK(last["interrupted"] == true);
    CHECK(last["window_seconds"] < 30.0);
    CHECK(last["totals"]["bytes"] > 0);
}

TEST_CASE("cold: a process that ends or executes another program meanwhile is no answer") {
    if (!have_root()) return;
    for (const bool executes : {false, true}) {
        SharedLog log;
        const Child stays{[&](const auto& ready) { ready(); }};
        const Child leaves{[&](const auto& ready) {
            ready();
            while (!log->flag) rest(0.001);
            if (executes) execl("/proc/self/exe", "live_tests", "--exec-again", "1", nullptr);
            _exit(0);
        }};
        std::thread later{[&] {
            rest(0.5);
            log->flag = true;
        }};
        const json all = cold({"--window", "1s"}, {leaves.pid(), stays.pid()}, 3);
        later.join();
        REQUIRE(all.size() == 1);
        CHECK(all[0]["pid"] == stays.pid());
    }
    const json none = cold({"--window", "1s"}, {0x3ffffff}, 1);
    CHECK(none.empty());
}

TEST_CASE("cold: several processes are watched in the same window") {
    if (!have_root()) return;
    const Child one{[&](const auto& ready) { ready(); }};
    const Child other{[&](const auto& ready) { ready(); }};
    const double begin = unix_now();
    const json all = cold({"--window", "1s"}, {one.pid(), other.pid()});
    CHECK(unix_now() - begin < 30);
    REQUIRE(all.size() == 2);
    for (const json& process : all) CHECK(process["window_seconds"] >= 1.0);
    CHECK(std::abs(all[0]["sighted_unix_milliseconds"].get<double>() -
                   all[1]["sighted_unix_milliseconds"].get<double>()) < 1000);
}

} // namespace pagesift::live
