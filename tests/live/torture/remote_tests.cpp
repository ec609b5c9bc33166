// SPDX-License-Identifier: MIT
// What remote calls do when nobody kills them: their effect, what stands still, and that the target
// is as it was.
#include "torture/remote_tests.hpp"

#include "harness.hpp"

#include <array>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

using os::RemoteTarget;
using os::StoppedProcess;

bool can_call() {
    if (!have_root()) return false;
    const Child child{[](const auto& ready) {
        ready();
        for (;;) ::pause();
    }};
    const std::string refusal = why_refused(child.pid());
    if (refusal.empty()) return true;
    skip(refusal.substr(refusal.find(':') + 2));
    return false;
}

SharedNumbers::SharedNumbers()
    : numbers_(static_cast<std::atomic<std::uint64_t>*>(
          ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}

SharedNumbers::~SharedNumbers() { ::munmap(numbers_, 4096); }

bool SharedNumbers::grows(std::size_t i) const {
    const std::uint64_t before = numbers_[i];
    for (int tries = 0; tries < 5000 && numbers_[i] == before; ++tries) nap(1000);
    return numbers_[i] != before;
}

std::unique_ptr<RemoteTarget> open_target(pid_t pid) {
    return std::make_unique<RemoteTarget>(static_cast<std::uint32_t>(pid), start_time(pid));
}

os::StopOptions patient() {
    os::StopOptions options;
    options.patience = std::chrono::seconds{5};
    options.dead_man = std::chrono::seconds{30};
    return options;
}

std::string why_refused(pid_t pid, const os::StopOptions& options) {
    try {
        open_target(pid)->with_all_stopped([](StoppedProcess&) {}, options);
        return {};
    } catch (const Error& error) {
        return error.what();
    }
}

void check_unharmed(Victim& victim) {
    CHECK(victim.trouble() == "");
    for (int i = 0; i < victim.report().threads; ++i) {
        const Ledger& ledger = victim.report().ledgers[i];
        CHECK_MESSAGE(ledger.wrong == 0, ledger.name, ": ", ledger.what);
        CHECK_MESSAGE(ledger.lost == 0, ledger.name);
    }
}

namespace {

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

void* map(std::uint64_t bytes) {
    void* memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    ::madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

AddressRange range_of(std::uint64_t start, std::uint64_t bytes) {
    return {Address{start}, Address{start + bytes}};
}

/// VmFlags of the mapping that holds the address.
std::string flags_of(pid_t pid, std::uint64_t address) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/smaps"};
    bool there = false;
    for (std::string line; std::getline(file, line);) {
        unsigned long start = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2 &&
            line.find('-') < line.find(' '))
            there = start <= address && address < end;
        if (there && line.rfind("VmFlags:", 0) == 0) return line;
    }
    return {};
}

/// All bytes of the target's vdso.
std::string vdso_of(pid_t pid) {
    std::ifstream maps{"/proc/" + std::to_string(pid) + "/maps"};
    for (std::string line; std::getline(maps, line);) {
        unsigned long start = 0, end = 0;
        if (line.find("[vdso]") == std::string::npos ||
            std::sscanf(line.c_str(), "%lx-%lx", &start, &end) != 2)
            continue;
        std::string bytes(end - start, '\0');
        const int memory =
            ::open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
        const auto got = ::pread(memory, bytes.data(), bytes.size(), static_cast<off_t>(start));
        ::close(memory);
        REQUIRE(got == static_cast<ssize_t>(bytes.size()));
        return bytes;
    }
    return {};
}

/// Fields of status that a call must leave as they are.
std::string lasting_status(pid_t pid) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/status"};
    std::string kept;
    for (std::string line; std::getline(file, line);)
        for (const auto* key : {"State", "TracerPid", "Threads", "SigQ", "SigPnd", "ShdPnd",
                                "SigBlk", "SigIgn", "SigCgt", "VmSize", "Seccomp"})
            if (line.rfind(key, 0) == 0) kept += line + '\n';
    return kept;
}

} // namespace

TEST_CASE(
    "remote call: advice has its effect on the target, and reads of the witness are its own") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        auto* memory = static_cast<char*>(map(8 * mebibyte));
        memory[0] = 7;
        numbers[0] = reinterpret_cast<std::uintptr_t>(memory);
        ready();
        for (;;) {
            numbers[1] = static_cast<std::uint64_t>(memory[0]);
            nap(1000);
        }
    }};
    const std::uint64_t address = numbers[0];
    const auto target = open_target(child.pid());
    const auto whole = range_of(address, 8 * mebibyte);
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    int merge = -1, bad = -1;
    bool first_empty = true, rest_empty = false, misaligned = true;
    std::string witness_map;
    const auto report = target->with_all_stopped(
        [&](StoppedProcess& stopped) {
            merge = stopped.advise(whole, MADV_MERGEABLE);
            bad = stopped.advise(whole, 4711);
            first_empty = stopped.is_empty(range_of(address, page));
            rest_empty = stopped.is_empty(range_of(address + page, 8 * mebibyte - page));
            misaligned = stopped.is_empty(range_of(address + page + 1, page));
            witness_map = read_file("/proc/" + std::to_string(stopped.witness()) + "/maps");
        },
        patient());
    CHECK(report.threads == 1);
    CHECK(report.processes == 1);
    CHECK(report.stopped.count() > 0);
    CHECK(bad == EINVAL);
    CHECK_FALSE(first_empty);
    CHECK(rest_empty);
    CHECK_FALSE(misaligned);
    CHECK(witness_map == read_file("/proc/" + std::to_string(child.pid()) + "/maps"));
    if (merge == 0) {
        CHECK(flags_of(child.pid(), address).find(" mg") != std::string::npos);
        int unmerge = -1;
        target->with_all_stopped(
            [&](StoppedProcess& stopped) { unmerge = stopped.advise(whole, MADV_UNMERGEABLE); },
            patient());
        CHECK(unmerge == 0);
        CHECK(flags_of(child.pid(), address).find(" mg") == std::string::npos);
    } else {
        skip("MADV_MERGEABLE: " + errno_name(merge));
    }
    int discard = -1;
    target->with_all_stopped(
        [&](StoppedProcess& stopped) { discard = stopped.advise(whole, MADV_DONTNEED); },
        patient());
    CHECK(discard == 0);
    for (int i = 0; i < 2000 && numbers[1] != 0; ++i) nap(1000);
    CHECK(numbers[1] == 0);
}

TEST_CASE("remote call: the target is as it was, to the byte of its vdso") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        ::signal(SIGCHLD, [](int) { _exit(1); });
        ::signal(SIGUSR1, [](int) {});
        sigset_t some;
        ::sigemptyset(&some);
        ::sigaddset(&some, SIGUSR2);
        ::sigprocmask(SIG_SETMASK, &some, nullptr);
        ::raise(SIGUSR2); // stays pending
        ready();
        for (;;) {
            const timespec time{1000, 0};
            if (::nanosleep(&time, nullptr) != 0) ++numbers[0];
        }
    }};
    const auto sleeps = [&] {
        return lasting_status(child.pid()).find("(sleeping)") != std::string::npos;
    };
    for (int i = 0; i < 500 && !sleeps(); ++i) nap(10000);
    const auto vdso = vdso_of(child.pid());
    const auto status = lasting_status(child.pid());
    const auto target = open_target(child.pid());
    for (int i = 0; i < 50; ++i) target->with_all_stopped([](StoppedProcess&) {}, patient());
    for (int i = 0; i < 500 && lasting_status(child.pid()) != status; ++i) nap(10000);
    CHECK(vdso_of(child.pid()) == vdso);
    CHECK(lasting_status(child.pid()) == status);
    CHECK(numbers[0] == 0); // the sleep went on
    ::kill(child.pid(), SIGUSR1);
    for (int i = 0; i < 2000 && numbers[0] == 0; ++i) nap(1000);
    CHECK(numbers[0] == 1);
}

TEST_CASE("remote call: no thread runs, and none of another process in the same memory") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        for (std::size_t i = 0; i < 3; ++i)
            std::thread{[&numbers, i] {
                for (;;) ++numbers[i];
            }}.detach();
        auto* stack = static_cast<char*>(map(mebibyte));
        const auto body = [](void* all) -> int {
            auto& shared = *static_cast<SharedNumbers*>(all);
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) ++shared[3];
        };
        ::clone(body, stack + mebibyte, CLONE_VM | SIGCHLD, &numbers);
        ready();
        for (;;) nap(1000);
    }};
    nap(50000);
    const auto target = open_target(child.pid());
    std::array<std::uint64_t, 4> first{}, last{};
    const auto look = [&](std::array<std::uint64_t, 4>& values) {
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = numbers[i];
    };
    std::chrono::nanoseconds seen{};
    const auto report = target->with_all_stopped(
        [&](StoppedProcess& stopped) {
            look(first);
            nap(100000);
            look(last);
            seen = stopped.elapsed();
        },
        patient());
    CHECK(first == last);
    CHECK(report.threads == 5);
    CHECK(report.processes == 2);
    CHECK(seen >= std::chrono::milliseconds{100});
    CHECK(report.stopped >= seen);
    nap(300000);
    std::array<std::uint64_t, 4> later{};
    look(later);
    for (std::size_t i = 0; i < later.size(); ++i) CHECK(later[i] > last[i]);
}

TEST_CASE("remote call: a restartable sequence is aborted, as by a signal") {
    if (!can_call()) return;
    if (!has_rseq()) return skip("no restartable sequences");
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        ready();
        for (std::uint64_t turn = 0;; ++turn) {
            numbers[1] = turn + 1;
            if (!is_aborted_when_moved(numbers[0], turn)) ++numbers[2];
        }
    }};
    const auto target = open_target(child.pid());
    for (std::uint64_t turn = 0; turn < 20; ++turn) {
        while (numbers[1] != turn + 1) nap(100);
        nap(1000); // it is inside
        try {
            target->with_all_stopped([](StoppedProcess&) {}, patient());
        } catch (const Error& error) {
            if (std::string{error.what()}.find("does not tell") == std::string::npos) throw;
            return skip("this kernel does not tell about restartable sequences");
        }
        ++numbers[0];
    }
    while (numbers[1] != 21) nap(100);
    CHECK(numbers[2] == 0);
}

TEST_CASE("remote call: what the work throws comes out, and the target goes on") {
    if (!can_call()) return;
    Victim victim{VictimKind::sleepy};
    const auto target = open_target(victim.pid());
    CHECK_THROWS_AS(target->with_all_stopped([](StoppedProcess&) { throw 4711; }, patient()), int);
    CHECK(victim.trouble() == "");
}

TEST_CASE("remote call: a program that is stopped itself is ended, and the target goes on") {
    if (!can_call()) return;
    Victim victim{VictimKind::sleepy};
    const pid_t tool = ::fork();
    if (tool == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        os::StopOptions options = patient();
        options.dead_man = std::chrono::milliseconds{600};
        open_target(victim.pid())
            ->with_all_stopped([](StoppedProcess&) { ::kill(::getpid(), SIGSTOP); }, options);
        _exit(0);
    }
    int status = 0;
    ::waitpid(tool, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL);
    CHECK(victim.trouble() == "");
}

TEST_CASE("remote call: what a killed program has left is put back by the next one") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        std::array<std::thread, 3> sleepers;
        for (std::size_t i = 0; i < sleepers.size(); ++i)
            sleepers[i] = std::thread{[&numbers, i, &ready] {
                numbers[i] = static_cast<std::uint64_t>(::gettid());
                if (i == 2) ready();
                for (;;) ::pause();
            }};
        for (;;) ::pause();
    }};
    const auto thread = static_cast<pid_t>(numbers[2]);
    const auto vdso = vdso_of(child.pid());
    const pid_t tool = ::fork();
    if (tool == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        os::StopOptions options = patient();
        options.thread = thread; // not the one that would be taken without need
        options.after_step = [](std::string_view step) {
            if (step == "sent on the detour") ::kill(::getpid(), SIGKILL);
        };
        why_refused(child.pid(), options);
        _exit(0);
    }
    int status = 0;
    ::waitpid(tool, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    CHECK(vdso_of(child.pid()) != vdso);
    // Its thread comes home by itself.
    const std::string stat =
        "/proc/" + std::to_string(child.pid()) + "/task/" + std::to_string(thread) + "/stat";
    for (int i = 0; i < 500 && read_file(stat).find(") S ") == std::string::npos; ++i) nap(10'000);
    nap(50'000);
    CHECK(why_refused(child.pid()) == "");
    CHECK(vdso_of(child.pid()) == vdso);
}

TEST_CASE("remote call: a target that is killed is gone") {
    if (!can_call()) return;
    Victim victim{VictimKind::sleepy};
    const auto target = open_target(victim.pid());
    std::optional<ErrorKind> kind;
    try {
        target->with_all_stopped(
            [&](StoppedProcess& stopped) {
                ::kill(victim.pid(), SIGKILL);
                nap(20000);
                stopped.advise(range_of(0, 4096), MADV_NORMAL); // its child is still there
            },
            patient());
    } catch (const Error& error) {
        kind = error.kind();
    }
    CHECK(kind == ErrorKind::gone);
    CHECK(victim.trouble() == "victim ended: signal 9");
    CHECK(why_refused(victim.pid()).find("no such process") != std::string::npos);
}

TEST_CASE("remote call: it works where the first thread has ended") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child child{[&](const auto& ready) {
        std::thread{[&] {
            nap(10000);
            ready();
            for (;; nap(500)) ++numbers[0];
        }}.detach();
        ::syscall(SYS_exit, 0);
    }};
    CHECK(why_refused(child.pid()) == "");
    CHECK(numbers.grows(0));
}

} // namespace pagesift::live
