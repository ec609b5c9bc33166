// SPDX-License-Identifier: MIT
// Races that are provoked: at each single step of a remote call something happens to the target.
#include "harness.hpp"
#include "torture/remote_tests.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <optional>
#include <sched.h>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

/// What came of a call.
struct Call {
    int steps = 0;
    std::optional<ErrorKind> refused;
    std::string reason;
};

/// Calls once, and does something at one step. In a process of its own, which is not the target's
/// parent, as pagesift is not.
Call call_with(pid_t pid, int at_step, const std::function<void()>& what) {
    std::array<int, 2> words{};
    REQUIRE(::pipe2(words.data(), O_CLOEXEC) == 0);
    const pid_t tool = ::fork();
    REQUIRE(tool >= 0);
    if (tool == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        Call call;
        os::StopOptions options = patient();
        options.after_step = [&](std::string_view) {
            if (++call.steps == at_step) what();
        };
        std::string answer;
        try {
            open_target(pid)->with_all_stopped(
                [](os::StoppedProcess& stopped) {
                    stopped.advise({Address{0}, Address{4096}}, MADV_NORMAL);
                },
                options);
            answer = std::to_string(call.steps) + " -1 ";
        } catch (const Error& error) {
            answer = std::to_string(call.steps) + ' ' +
                     std::to_string(static_cast<int>(error.kind())) + ' ' + error.what();
        }
        _exit(::write(words[1], answer.data(), answer.size()) > 0 ? 0 : 1);
    }
    ::close(words[1]);
    std::array<char, 1000> answer{};
    const auto got = ::read(words[0], answer.data(), answer.size() - 1);
    ::close(words[0]);
    int status = 0;
    ::waitpid(tool, &status, 0);
    Call call;
    int kind = -1, text = 0;
    REQUIRE(got > 0); // it has neither hung nor died
    REQUIRE(std::sscanf(answer.data(), "%d %d %n", &call.steps, &kind, &text) == 2);
    if (kind >= 0) call.refused = static_cast<ErrorKind>(kind);
    call.reason = answer.data() + text;
    return call;
}

/// For each step in turn, as long as there are more and time is left; at least for the first few,
/// however slow the machine is.
int at_each_step(double seconds, const std::function<int(int step)>& body) {
    static constexpr int at_least = 8;
    const double end = seconds_now() + seconds;
    int step = 1;
    while (body(step) >= step && (step < at_least || seconds_now() < end)) ++step;
    return step - 1;
}

std::vector<pid_t> threads_of(pid_t pid) {
    std::vector<pid_t> threads;
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator{"/proc/" + std::to_string(pid) + "/task", ignored})
        threads.push_back(std::stoi(entry.path().filename().string()));
    return threads;
}

/// Seizes what it gets, keeps it for a moment, and is gone. Running when this returns.
void start_tracer(pid_t pid) {
    const auto threads = threads_of(pid);
    std::array<int, 2> seized{};
    if (::pipe2(seized.data(), O_CLOEXEC) != 0) _exit(1);
    if (::fork() != 0) {
        ::close(seized[1]);
        char byte = 0;
        (void)!::read(seized[0], &byte, 1);
        ::close(seized[0]);
        return;
    }
    // Not the lock that keeps two pagesifts apart.
    for (int file = 3; file < 64; ++file)
        if (file != seized[1]) ::close(file);
    for (const pid_t thread : threads) ::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr);
    ::close(seized[1]);
    nap(20'000);
    _exit(0); // lets all of them go
}

void check_notes(Victim& victim) {
    CHECK(victim.trouble() == "");
    for (int i = 0; i < victim.report().threads; ++i) {
        const Ledger& ledger = victim.report().ledgers[i];
        CHECK_MESSAGE(ledger.wrong == 0, ledger.name, ": ", ledger.what);
        CHECK_MESSAGE(ledger.lost == 0, ledger.name);
        if (!ledger.interruption_is_normal) CHECK_MESSAGE(ledger.interrupted == 0, ledger.name);
    }
}

} // namespace

TEST_CASE("remote call: a target that dies at any step is gone, and nothing hangs") {
    if (!can_call()) return;
    int refused = 0;
    const int last = at_each_step(5, [&](int step) {
        Victim victim{VictimKind::sleepy};
        const double began = seconds_now();
        const auto call = call_with(victim.pid(), step, [&] { ::kill(victim.pid(), SIGKILL); });
        CHECK(seconds_now() - began < 8);
        if (call.steps < step) return call.steps;
        // At the last steps the call has been made already.
        if (call.refused) ++refused;
        CHECK_MESSAGE(call.refused.value_or(ErrorKind::gone) == ErrorKind::gone, "step ", step,
                      ": ", call.reason);
        CHECK(victim.trouble() == "victim ended: signal 9");
        return call.steps;
    });
    MESSAGE(last, " steps, ", refused, " times gone");
    CHECK(last > 5);
    CHECK(refused > 5);
}

TEST_CASE("remote call: another tracer that comes at any step gets in nobody's way") {
    if (!can_call()) return;
    Victim victim{VictimKind::sleepy};
    int refused = 0, done = 0;
    const int last = at_each_step(5, [&](int step) {
        const auto call = call_with(victim.pid(), step, [&] { start_tracer(victim.pid()); });
        ++(call.refused ? refused : done);
        CHECK_MESSAGE(
            (!call.refused ||
             call.reason.find("cannot be stopped by a child of its process") != std::string::npos ||
             call.reason.find("is traced by") != std::string::npos),
            "step ", step, ": ", call.reason);
        CHECK(victim.trouble() == "");
        // Refused at one step it may go further the next time.
        return call.refused ? std::max(call.steps, step) : call.steps;
    });
    MESSAGE(last, " steps, ", refused, " refused, ", done, " done");
    CHECK(last > 5);
    CHECK(refused > 0);
    CHECK(done > 0);
    check_notes(victim);
}

TEST_CASE("remote call: threads and processes that are made while others are stopped stop too") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        // Threads that live for a moment, made by several at once.
        for (std::size_t i = 0; i < 3; ++i)
            std::thread{[&numbers] {
                for (;;) {
                    std::thread{[&numbers] {
                        for (int turn = 0; turn < 200; ++turn) ++numbers[0];
                    }}.join();
                }
            }}.detach();
        // A process in the same memory, again and again.
        std::thread{[&numbers] {
            constexpr std::size_t bytes = 65536;
            static char stack[bytes];
            for (;;) {
                const auto body = [](void* all) -> int {
                    auto& shared = *static_cast<SharedNumbers*>(all);
                    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                    for (int turn = 0; turn < 2000; ++turn) ++shared[1];
                    ::_exit(0);
                };
                const pid_t made = ::clone(body, stack + bytes, CLONE_VM | SIGCHLD, &numbers);
                if (made > 0) ::waitpid(made, nullptr, 0);
            }
        }}.detach();
        ready();
        for (;;) nap(1000);
    }};
    const auto target = open_target(child.pid());
    int done = 0;
    const double end = seconds_now() + 2;
    for (; seconds_now() < end || (done == 0 && seconds_now() < end + 20);) {
        std::array<std::uint64_t, 2> first{}, last{};
        try {
            target->with_all_stopped(
                [&](os::StoppedProcess&) {
                    first = {numbers[0], numbers[1]};
                    nap(3000);
                    last = {numbers[0], numbers[1]};
                },
                patient());
        } catch (const Error& error) {
            // It may have made them faster than they could be stopped.
            CHECK_MESSAGE(error.kind() == ErrorKind::failed, error.what());
            continue;
        }
        CHECK(first == last);
        ++done;
    }
    MESSAGE(done, " calls");
    CHECK(done > 0);
    CHECK(numbers.grows(0));
    CHECK(numbers.grows(1));
}

} // namespace pagesift::live
