// SPDX-License-Identifier: MIT
// Remote calls into targets to which other things happen at the same time.
#include "harness.hpp"
#include "torture/remote_tests.hpp"

#include <array>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <linux/io_uring.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

/// A process beside the test that does something again and again, until the end of the block.
class Again {
public:
    explicit Again(const std::function<void()>& what)
        : child_([&](const auto& ready) {
              ready();
              for (;;) what();
          }) {}

private:
    Child child_;
};

/// Runs the calls for a while, cut short at random. How many came to their end.
int call_for_a_while(const Victim& victim, double seconds, std::uint64_t seed) {
    int done = 0;
    const double end = seconds_now() + seconds;
    // A slow machine gets more time for the first.
    while (seconds_now() < end || (done == 0 && seconds_now() < end + 20)) {
        ToolPlan plan;
        if (next_random(seed) % 2 == 0)
            plan.kill_at_step = static_cast<int>(next_random(seed) % 80 + 1);
        const auto which = next_random(seed) % static_cast<std::uint64_t>(victim.report().threads);
        plan.thread = victim.report().ledgers[which].thread;
        const auto tool = run_tool(victim, plan);
        CHECK(tool.kind != ToolEnd::Kind::hung);
        done += tool.kind == ToolEnd::Kind::done ? 1 : 0;
    }
    return done;
}

} // namespace

TEST_CASE("remote call: a target that is stopped and continued meanwhile ends as it was told") {
    if (!can_call()) return;
    Victim victim{VictimKind::sleepy};
    const pid_t pid = victim.pid();
    {
        std::uint64_t random = 4711;
        const Again again{[&] {
            ::kill(pid, SIGSTOP);
            nap(static_cast<unsigned>(next_random(random) % 3000));
            ::kill(pid, SIGCONT);
            nap(static_cast<unsigned>(next_random(random) % 6000));
        }};
        CHECK(call_for_a_while(victim, 2, 4711) > 0);
    }
    ::kill(pid, SIGCONT);
    check_unharmed(victim);
}

TEST_CASE("remote call: a target that is stopped meanwhile stays so") {
    if (!can_call()) return;
    Victim victim{VictimKind::sleepy};
    const pid_t pid = victim.pid();
    for (int i = 0; i < 20; ++i) {
        const auto target = open_target(pid);
        target->with_all_stopped([&](os::StoppedProcess&) { ::kill(pid, SIGSTOP); }, patient());
        wait_until_stopped(pid);
        const std::uint64_t turns = victim.report().ledgers[0].turns;
        nap(5000);
        CHECK(victim.report().ledgers[0].turns == turns);
        ::kill(pid, SIGCONT);
        REQUIRE(victim.trouble() == "");
    }
    check_unharmed(victim);
}

TEST_CASE("remote call: signals to the target's process group reach the target, and once") {
    if (!can_call()) return;
    SharedNumbers numbers;
    static std::atomic<std::uint64_t>* handled = nullptr;
    handled = &numbers[0];
    const Child child{[&](const auto& ready) {
        ::setpgid(0, 0);
        ::signal(SIGINT, [](int) { ++*handled; });
        ready();
        for (;;) nap(1000);
    }};
    const auto target = open_target(child.pid());
    for (int i = 0; i < 50; ++i) {
        const std::uint64_t before = numbers[0];
        target->with_all_stopped(
            [&](os::StoppedProcess& stopped) {
                ::kill(-child.pid(), SIGINT);
                stopped.advise({Address{0}, Address{4096}}, MADV_NORMAL);
            },
            patient());
        for (int tries = 0; tries < 2000 && numbers[0] == before; ++tries) nap(500);
        CHECK(numbers[0] == before + 1);
    }
}

TEST_CASE("remote call: two programs at once do not meet in one target") {
    if (!can_call()) return;
    Victim victim{VictimKind::full};
    const double end = seconds_now() + 2;
    {
        const Again again{[&] {
            ToolPlan plan;
            static std::uint64_t random = 4711;
            plan.kill_after_us = static_cast<unsigned>(next_random(random) % 4000);
            run_tool(victim, plan);
        }};
        for (std::uint64_t seed = 4711; seconds_now() < end; ++seed)
            call_for_a_while(victim, 0.5, seed);
    }
    check_unharmed(victim);
}

TEST_CASE("remote call: a target that runs other programs comes to its end") {
    if (!can_call()) return;
    // A thread other than the first replaces the program by itself, 30 times.
    const Background target{{"/proc/self/exe", "--generations", "30"}};
    const pid_t pid = target.pid();
    int calls = 0;
    std::uint64_t random = 4711;
    for (const double end = seconds_now() + 60; seconds_now() < end && ::kill(pid, 0) == 0;) {
        const pid_t tool = ::fork();
        if (tool == 0) {
            int steps = static_cast<int>(next_random(random) % 120);
            os::StopOptions options = patient();
            options.after_step = [&](std::string_view) {
                if (--steps == 0) ::kill(::getpid(), SIGKILL);
            };
            why_refused(pid, options);
            _exit(0);
        }
        next_random(random);
        ::waitpid(tool, nullptr, 0);
        ++calls;
        int status = 0;
        if (::waitpid(pid, &status, WNOHANG) == pid) {
            CHECK(WIFEXITED(status));
            CHECK(WEXITSTATUS(status) == 42);
            CHECK(calls > 0); // how many depends on the machine
            return;
        }
    }
    CHECK_MESSAGE(false, "it did not come to its end");
}

TEST_CASE("remote call: threads that the kernel has made in the target stand still too") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        io_uring_params parameters{};
        parameters.flags = IORING_SETUP_SQPOLL;
        parameters.sq_thread_idle = 100000;
        numbers[0] = ::syscall(SYS_io_uring_setup, 8, &parameters) >= 0 ? 1 : 0;
        ready();
        for (;; nap(500)) ++numbers[1];
    }};
    if (numbers[0] == 0) return skip("no io_uring");
    nap(20000);
    unsigned threads = 0;
    try {
        threads = open_target(child.pid())
                      ->with_all_stopped([](os::StoppedProcess&) {}, patient())
                      .threads;
        CHECK(threads >= 1);
        MESSAGE("threads with one of the kernel's: ", threads);
    } catch (const Error& error) {
        MESSAGE(error.what());
        CHECK(error.kind() != ErrorKind::gone);
    }
    CHECK(numbers.grows(1));
}

} // namespace pagesift::live
