// SPDX-License-Identifier: MIT
// A program that keeps checking itself: many threads in many states, each of which knows what it
// must find in its registers, its memory, its signals, and what its system calls must return. What
// is wrong it writes down where the test can read it.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <string>
#include <sys/types.h>

namespace pagesift::live {

/// What one thread of the victim has to say. In memory that it shares with the test.
struct Ledger {
    char name[16];
    std::atomic<int> thread;
    std::atomic<std::uint64_t> turns;       ///< grows as long as all is well
    std::atomic<std::uint64_t> wrong;       ///< something was not as it must be
    std::atomic<std::uint64_t> what;        ///< the first of these: a line of victim*.cpp
    std::atomic<std::uint64_t> interrupted; ///< calls that returned EINTR
    std::atomic<std::uint64_t> lost;        ///< writes that were gone
    /// signal(7): these calls return EINTR after any tracer's stop.
    bool interruption_is_normal;
};

struct VictimReport {
    static constexpr int most_threads = 48;
    std::atomic<int> threads;
    std::atomic<int> ready;
    std::atomic<std::uint64_t> rseq_aborts;
    /// Page-table slots with page tables and nothing in them but what a thread is just writing.
    std::uint64_t slots_address;
    std::uint64_t slot_bytes;
    int slots;
    Ledger ledgers[most_threads];
};

enum class VictimKind {
    full,    ///< every kind of thread
    sleepy,  ///< a few threads that sleep
    advised, ///< full, and memory in which every action finds something
    racing,  ///< one thread sleeps, another writes to the slots all the time
    /// as sleepy, and system calls that only the remote call's child makes would end it (seccomp)
    filtered,
};

/// Runs in a fresh child; never returns. The test's report must be in shared memory.
[[noreturn]] void run_victim(VictimReport& report, VictimKind kind);

using VictimBody = void (*)(Ledger&);

/// Starts a thread that lasts as long as the victim.
void start_thread(const char* name, VictimBody body, bool interruption_is_normal = false);
/// What needs instructions of its own, where this machine has them.
void start_machine_threads();

/// From now on these system calls end the process (seccomp).
void forbid_calls(std::initializer_list<int> numbers);

bool has_rseq();
/// Stays in a restartable sequence while the word is what it was. False: at its end the kernel no
/// longer knew of it, so that it ran on without its guard.
bool is_aborted_when_moved(const std::atomic<std::uint64_t>& word, std::uint64_t wait_while);

void note_wrong(Ledger& ledger, std::uint64_t what);
void nap(unsigned microseconds);
double seconds_now();
std::uint64_t next_random(std::uint64_t& state);
VictimReport& victim_report();
void bind_to_processor(unsigned number);

} // namespace pagesift::live
