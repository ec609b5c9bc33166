// SPDX-License-Identifier: MIT
// Targets that are not there, not processes, or not the same for two moments; and an output that
// takes nothing. A clear error or a marked partial answer; never a crash, a hang, a wrong figure.
#include "harness.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

using Clock = std::chrono::steady_clock;

/// Nothing useful can be said of the target: an exit code of 1, a message, no answer.
void check_refused(const Outcome& outcome) {
    CHECK_FALSE(outcome.timed_out);
    CHECK(outcome.signal == 0);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err.rfind("pagesift: ", 0) == 0);
}

/// What may come of a target that is changing or going away.
enum class Gone { possible, impossible };

/// The answer, if there is one, is whole; if there is none, there is a message. True for an answer.
bool check_survived(const Outcome& outcome, Gone gone) {
    REQUIRE_FALSE(outcome.timed_out);
    REQUIRE(outcome.signal == 0);
    if (outcome.exit_code == 1 && gone == Gone::possible) {
        REQUIRE(outcome.err.rfind("pagesift: ", 0) == 0);
        return false;
    }
    REQUIRE_MESSAGE((outcome.exit_code == 0 || outcome.exit_code == 3),
                    "exit code " << outcome.exit_code << ": " << outcome.err.substr(0, 1000));
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    const auto broken = broken_invariants(answer[0]);
    REQUIRE_MESSAGE(broken.empty(), broken << "\nexit code " << outcome.exit_code << ": "
                                           << outcome.err.substr(0, 1000));
    return true;
}

Outcome look(pid_t pid, double seconds = 20) {
    return run_pagesift(
        {"inspect", "--format", "json", "--ranges", "--zero", "all", "-p", std::to_string(pid)},
        {.seconds = seconds});
}

/// Goes on for five seconds, and on a slow or busy machine until there were enough looks.
constexpr std::size_t enough_looks = 5; // on an emulated machine, one may take seconds

bool goes_on(Clock::time_point start, std::size_t looks) {
    const auto seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return seconds < 3 || (looks < enough_looks && seconds < 60);
}

/// Maps, touches, splits and unmaps for ever, and counts what it did.
[[noreturn]] void churn(std::atomic<std::uint64_t>& events, unsigned seed) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::mt19937 random(seed);
    std::vector<std::pair<char*, std::size_t>> held(64);
    for (;;) {
        auto& [at, length] = held[random() % held.size()];
        if (at != nullptr) munmap(at, length);
        length = (1 + random() % 64) * page;
        void* fresh =
            mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        at = fresh == MAP_FAILED ? nullptr : static_cast<char*>(fresh);
        if (at == nullptr) continue;
        for (std::size_t i = 0; i < length; i += page * (1 + random() % 4)) at[i] = 1;
        if (random() % 4 == 0) mprotect(at + length / page / 2 * page, page, PROT_READ);
        if (random() % 4 == 0) madvise(at, length, MADV_DONTNEED);
        events += 2;
    }
}

} // namespace

TEST_CASE("bad input: pids that are none") {
    const std::string values[] = {
        "abc",        "12x",        "",         " ",          "-1", "0", "99999999999999999999",
        "4294967297", "2147483647", "\x1b[31m", "/etc/passwd"};
    for (const std::string& value : values) {
        INFO("pid '" << value << "'");
        const auto outcome = run_pagesift({"inspect", "--format", "json", "--pid=" + value});
        CHECK_FALSE(outcome.timed_out);
        CHECK(outcome.signal == 0);
        CHECK((outcome.exit_code == 1 || outcome.exit_code == 2));
        CHECK_FALSE(outcome.err.empty());
        CHECK(outcome.err.find('\x1b') == std::string::npos);
    }
}

TEST_CASE("bad input: one of two processes does not exist") {
    if (!have_root()) return;
    const auto outcome = run_pagesift({"inspect", "--format", "json", "self", "2147483647"});
    CHECK(outcome.exit_code == 3);
    CHECK(outcome.err.find("2147483647") != std::string::npos);
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    check_invariants(answer[0]);
}

TEST_CASE("bad input: a kernel thread") {
    std::string name;
    std::getline(std::ifstream("/proc/2/comm"), name);
    if (name != "kthreadd") return skip("pid 2 is no kernel thread");
    check_refused(look(2));
}

TEST_CASE("bad input: a zombie") {
    const pid_t zombie = fork();
    REQUIRE(zombie >= 0);
    if (zombie == 0) _exit(0);
    siginfo_t info{};
    REQUIRE(waitid(P_PID, static_cast<id_t>(zombie), &info, WEXITED | WNOWAIT) == 0);
    check_refused(look(zombie));
    waitpid(zombie, nullptr, 0);
}

TEST_CASE("bad input: a process whose first thread has exited is read through another") {
    if (!have_root()) return;
    Child child([](const std::function<void()>& ready) {
        std::thread([ready] {
            usleep(50'000); // the first thread is gone by then
            ready();
            for (;;) pause();
        }).detach();
        syscall(SYS_exit, 0); // ends this thread alone, and without unwinding the test
    });
    const auto outcome = look(child.pid());
    check_survived(outcome, Gone::impossible);
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    CHECK_FALSE(answer[0]["mappings"].empty());
    CHECK(answer[0]["totals"]["states"]["present_bytes"].get<std::uint64_t>() > 0);
}

TEST_CASE("bad input: processes that die while they are read") {
    if (!have_root()) return;
    std::mt19937 random(1);
    const auto start = Clock::now();
    std::size_t looks = 0, answers = 0;
    while (goes_on(start, looks)) {
        const auto life = random() % 12'000;
        const pid_t victim = fork();
        REQUIRE(victim >= 0);
        if (victim == 0) {
            std::vector<char> memory(8 << 20, 'x');
            usleep(static_cast<useconds_t>(life));
            kill(getpid(), SIGKILL);
        }
        usleep(2000);
        answers += check_survived(look(victim), Gone::possible) ? 1 : 0;
        kill(victim, SIGKILL);
        waitpid(victim, nullptr, 0);
        ++looks;
    }
    MESSAGE(looks << " looks, " << answers << " answers");
    CHECK(looks >= enough_looks);
}

TEST_CASE("bad input: a process that executes another program all the time") {
    if (!have_root()) return;
    const auto start = Clock::now();
    std::size_t looks = 0, answers = 0;
    Background target({"/proc/self/exe", "--exec-again", "100000"});
    while (goes_on(start, looks)) {
        answers += check_survived(look(target.pid()), Gone::possible) ? 1 : 0;
        ++looks;
    }
    MESSAGE(looks << " looks, " << answers << " answers");
    CHECK(looks >= enough_looks);
}

TEST_CASE("bad input: a process that maps and unmaps all the time") {
    if (!have_root()) return;
    void* shared = mmap(nullptr, sizeof(std::atomic<std::uint64_t>), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    auto& events = *new (shared) std::atomic<std::uint64_t>(0);
    std::size_t looks = 0, answers = 0;
    {
        Child child([&](const std::function<void()>& ready) {
            ready();
            std::thread([&] { churn(events, 1); }).detach();
            churn(events, 2);
        });
        const auto start = Clock::now();
        while (goes_on(start, looks)) {
            answers += check_survived(look(child.pid()), Gone::impossible) ? 1 : 0;
            ++looks;
        }
    }
    MESSAGE(looks << " looks, " << answers << " answers, " << events.load() << " maps and unmaps");
    CHECK(events.load() > 5000);
    CHECK(looks >= enough_looks);
    CHECK(answers == looks);
    munmap(shared, sizeof(std::atomic<std::uint64_t>));
}

TEST_CASE("bad input: an output that takes nothing is an error, not a hang") {
    for (auto output : {Output::closed, Output::broken_pipe, Output::full_device}) {
        for (const std::string format : {"table", "json", "ndjson", "csv"}) {
            INFO("output " << static_cast<int>(output) << ", format " << format);
            const auto outcome = run_pagesift({"inspect", "--format", format, "--ranges", "self"},
                                              {.seconds = 20, .output = output});
            CHECK_FALSE(outcome.timed_out);
            CHECK(outcome.exit_code != 0);
            CHECK((outcome.signal == 0 || outcome.signal == SIGPIPE));
        }
    }
}

} // namespace pagesift::live
