// SPDX-License-Identifier: MIT
// Threads of the victim that work: with floating point, memory, and signals.
#include "torture/victim.hpp"
#include "torture/victim_threads.hpp"

#include <array>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace pagesift::live {

namespace {

long double accumulate() {
    long double wide = 1;
    double middle = 1;
    float narrow = 1;
    for (int i = 1; i < 4000; ++i) {
        wide = wide * 1.0000001L + 1.0L / i;
        middle = middle * 0.999999 + std::sqrt(static_cast<double>(i));
        narrow = narrow * 0.5F + static_cast<float>(middle);
    }
    return wide + middle + narrow;
}

void calculate(Ledger& ledger) {
    const long double right = accumulate();
    while (true) {
        if (accumulate() != right) note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(1800);
    }
}

/// Words that add up to 0, written all the time.
void shift_words(Ledger& ledger) {
    std::vector<std::uint64_t> words(std::size_t{1} << 15);
    std::uint64_t random = 4711;
    while (true) {
        for (int i = 0; i < 4000; ++i) {
            const auto amount = next_random(random);
            words[next_random(random) % words.size()] += amount;
            words[next_random(random) % words.size()] -= amount;
        }
        std::uint64_t sum = 0;
        for (const auto word : words) sum += word;
        if (sum != 0) {
            note_wrong(ledger, __LINE__);
            words.assign(words.size(), 0);
        }
        ++ledger.turns;
        nap(1000);
    }
}

struct Block {
    unsigned char* bytes = nullptr;
    std::size_t size = 0;
    unsigned char value = 0;
};

void churn(Ledger& ledger) {
    std::array<Block, 64> blocks;
    auto random = static_cast<std::uint64_t>(ledger.thread);
    while (true) {
        for (int i = 0; i < 40; ++i) {
            Block& block = blocks[next_random(random) % blocks.size()];
            for (std::size_t at = 0; at < block.size; at += 61)
                if (block.bytes[at] != block.value) note_wrong(ledger, __LINE__);
            std::free(block.bytes);
            block.size = 16 + next_random(random) % 6000;
            if (next_random(random) % 50 == 0) block.size = 300000; // a mapping of its own
            block.value = static_cast<unsigned char>(next_random(random));
            block.bytes = static_cast<unsigned char*>(std::malloc(block.size));
            std::memset(block.bytes, block.value, block.size);
        }
        ++ledger.turns;
        nap(2000);
    }
}

// Signals -----------------------------------------------------------------------------------------

thread_local volatile std::uint64_t signals_seen = 0;

void on_signal(int) {
    std::array<char, 256> frame{};
    asm volatile("" : : "r"(frame.data()) : "memory"); // it takes room on the stack
    signals_seen = signals_seen + 1;
}

stack_t use_own_stack() {
    stack_t stack{};
    stack.ss_size = 65536;
    stack.ss_sp = std::malloc(stack.ss_size);
    ::sigaltstack(&stack, nullptr);
    return stack;
}

void check_own_stack(Ledger& ledger, const stack_t& stack) {
    stack_t now{};
    ::sigaltstack(nullptr, &now);
    if (now.ss_sp != stack.ss_sp || now.ss_size != stack.ss_size || now.ss_flags != 0)
        note_wrong(ledger, __LINE__);
}

void signal_every(int signal, long nanoseconds) {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
    timer_t timer{};
    if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) std::abort();
    const itimerspec spec{{0, nanoseconds}, {0, nanoseconds}};
    ::timer_settime(timer, 0, &spec, nullptr);
}

void wait_for_signals(Ledger& ledger) {
    const stack_t stack = use_own_stack();
    const int signal = SIGRTMIN + 1;
    sigset_t waiting, own;
    ::sigemptyset(&own);
    ::sigaddset(&own, signal);
    ::pthread_sigmask(SIG_BLOCK, &own, nullptr);
    ::pthread_sigmask(SIG_SETMASK, nullptr, &waiting);
    ::sigdelset(&waiting, signal);
    signal_every(signal, 3'000'000);
    while (true) {
        const std::uint64_t before = signals_seen;
        if (::sigsuspend(&waiting) != -1 || errno != EINTR) note_wrong(ledger, __LINE__);
        if (signals_seen == before) note_wrong(ledger, __LINE__);
        ::pthread_sigmask(SIG_SETMASK, nullptr, &own);
        if (::sigismember(&own, signal) != 1 || ::sigismember(&own, SIGUSR1) != 0)
            note_wrong(ledger, __LINE__);
        check_own_stack(ledger, stack);
        ++ledger.turns;
    }
}

std::uint64_t hash_long() {
    std::uint64_t hash = 1;
    for (std::uint64_t i = 0; i < 60000; ++i) hash = hash * 6364136223846793005u + i;
    return hash;
}

void work_under_signals(Ledger& ledger) {
    const stack_t stack = use_own_stack();
    const int signal = SIGRTMIN + 2;
    const std::uint64_t right = hash_long();
    signal_every(signal, 2'000'000);
    while (true) {
        if (hash_long() != right) note_wrong(ledger, __LINE__);
        check_own_stack(ledger, stack);
        sigset_t mask;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        if (::sigismember(&mask, signal) != 0) note_wrong(ledger, __LINE__);
        ++ledger.turns;
        timespec time{0, 1'200'000};
        while (::nanosleep(&time, &time) != 0) continue; // its handler interrupts it
    }
}

// Slots -------------------------------------------------------------------------------------------

pthread_mutex_t slot_lock = PTHREAD_MUTEX_INITIALIZER;

/// Writes a word somewhere into the slots, looks at it for a while, and discards it.
void write_once(Ledger& ledger, std::uint64_t& random, double seconds) {
    const VictimReport& report = victim_report();
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    const std::uint64_t pages = report.slot_bytes / page * static_cast<std::uint64_t>(report.slots);
    auto* word = reinterpret_cast<volatile std::uint64_t*>(report.slots_address +
                                                           next_random(random) % pages * page);
    const std::uint64_t value = random | 1;
    if (*word != 0) note_wrong(ledger, __LINE__);
    *word = value;
    const double end = seconds_now() + seconds;
    do {
        for (int i = 0; i < 500; ++i)
            if (*word != value) {
                ++ledger.lost;
                *word = value;
                break;
            }
    } while (seconds_now() < end);
    ::madvise(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(word) / page * page), page,
              MADV_DONTNEED);
}

/// What was made mergeable in part is several mappings, and a table between two is not empty for
/// either.
void join_slots() {
    const VictimReport& report = victim_report();
    ::madvise(reinterpret_cast<void*>(report.slots_address),
              report.slot_bytes * static_cast<std::uint64_t>(report.slots), MADV_UNMERGEABLE);
}

void write_slots(Ledger& ledger) {
    static constexpr int turns_merged = 16;
    auto random = static_cast<std::uint64_t>(ledger.thread) * 77777;
    for (int turn = 0;; ++turn) {
        if (turn % turns_merged == 0) join_slots();
        for (int i = 0; i < 12; ++i) {
            ::pthread_mutex_lock(&slot_lock);
            write_once(ledger, random, 40e-6);
            ::pthread_mutex_unlock(&slot_lock);
        }
        ++ledger.turns;
        nap(1000);
    }
}

/// Never rests: a call that comes after it goes on finds something to lose.
void race(Ledger& ledger) {
    bind_to_processor(1);
    auto random = static_cast<std::uint64_t>(ledger.thread) * 77777;
    while (true) {
        write_once(ledger, random, 60e-6);
        ++ledger.turns;
    }
}

void idle(Ledger& ledger) {
    while (true) {
        nap(300);
        ++ledger.turns;
    }
}

} // namespace

void start_common_threads() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    ::sigaction(SIGRTMIN + 1, &action, nullptr);
    ::sigaction(SIGRTMIN + 2, &action, nullptr);
    start_waiting_threads();
    start_thread("floats", calculate);
    start_thread("words", shift_words);
    start_thread("malloc", churn);
    start_thread("malloc too", churn);
    start_thread("sigsuspend", wait_for_signals);
    start_thread("signals", work_under_signals);
    start_thread("slots", write_slots);
    start_thread("slots too", write_slots);
}

void start_racing_threads() {
    start_thread("idle", idle);
    start_thread("race", race);
}

} // namespace pagesift::live
