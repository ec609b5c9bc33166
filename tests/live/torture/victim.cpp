// SPDX-License-Identifier: MIT
#include "torture/victim.hpp"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "torture/victim_threads.hpp"

namespace pagesift::live {

namespace {

VictimReport* the_report = nullptr;

struct Start {
    VictimBody body;
    Ledger* ledger;
};

void* run_thread(void* argument) {
    const Start start = *static_cast<Start*>(argument);
    delete static_cast<Start*>(argument);
    start.ledger->thread = static_cast<int>(::syscall(SYS_gettid));
    start.body(*start.ledger);
    return nullptr;
}

/// Memory in which each slot has a page table without entries.
void make_slots(VictimReport& report, int slots) {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    const std::uint64_t slot = page * page / 8;
    const auto count = static_cast<std::uint64_t>(slots);
    void* memory = ::mmap(nullptr, (count + 1) * slot, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    ::madvise(memory, (count + 1) * slot, MADV_NOHUGEPAGE);
    const auto first = (reinterpret_cast<std::uintptr_t>(memory) + slot - 1) / slot * slot;
    report.slots_address = first;
    report.slot_bytes = slot;
    report.slots = slots;
    for (std::uint64_t i = 0; i < count; ++i) {
        auto* at = reinterpret_cast<char*>(first + i * slot);
        *at = 1;
        ::madvise(at, page, MADV_DONTNEED);
    }
}

} // namespace

void forbid_calls(std::initializer_list<int> numbers) {
    std::vector<sock_filter> filter{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    for (const int number : numbers) {
        filter.push_back(
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1));
        filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    }
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(9);
}

VictimReport& victim_report() { return *the_report; }

void note_wrong(Ledger& ledger, std::uint64_t what) {
    if (ledger.wrong++ == 0) ledger.what = what;
}

double seconds_now() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void nap(unsigned microseconds) {
    const timespec time{0, static_cast<long>(microseconds) * 1000};
    ::nanosleep(&time, nullptr);
}

std::uint64_t next_random(std::uint64_t& state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 20;
}

void bind_to_processor(unsigned number) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    ::sched_setaffinity(0, sizeof set, &set); // on a machine with fewer it stays where it is
}

void start_thread(const char* name, VictimBody body, bool interruption_is_normal) {
    Ledger& ledger = the_report->ledgers[the_report->threads++];
    std::strncpy(ledger.name, name, sizeof ledger.name - 1);
    ledger.interruption_is_normal = interruption_is_normal;
    pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_t thread{};
    if (::pthread_create(&thread, &attributes, run_thread, new Start{body, &ledger}) != 0)
        std::abort();
    while (ledger.thread == 0) nap(50);
}

void run_victim(VictimReport& report, VictimKind kind) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::prctl(PR_SET_NAME, "victim");
    // Those of the test's framework must not report the victim's death as the test's.
    for (const int signal : {SIGSEGV, SIGILL, SIGFPE, SIGABRT, SIGBUS, SIGTRAP})
        ::signal(signal, SIG_DFL);
    the_report = &report;
    make_slots(report, kind == VictimKind::racing ? 512 : 24);
    Ledger& own = report.ledgers[report.threads++];
    std::strncpy(own.name, "main", sizeof own.name - 1);
    own.thread = static_cast<int>(::syscall(SYS_gettid));
    switch (kind) {
    case VictimKind::advised: start_area_threads(); [[fallthrough]];
    case VictimKind::full:
        start_common_threads();
        start_machine_threads();
        break;
    case VictimKind::sleepy: start_sleeping_threads(); break;
    case VictimKind::racing: start_racing_threads(); break;
    case VictimKind::filtered:
        forbid_calls({SYS_ptrace, SYS_wait4, SYS_madvise});
        start_sleeping_threads();
        break;
    }
    report.ready = 1;
    run_main_thread(own);
}

} // namespace pagesift::live
