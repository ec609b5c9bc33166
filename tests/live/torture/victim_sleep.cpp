// SPDX-License-Identifier: MIT
// Threads of the victim that wait in system calls: each must take its time, and return what it
// must.
#include "torture/victim.hpp"
#include "torture/victim_threads.hpp"

#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern char** environ;

namespace pagesift::live {

namespace {

/// A call that lasts for @p wanted seconds must have returned that, in that time.
void check_wait(Ledger& ledger, long result, int error, double began, double wanted,
                long right_result = 0, int right_error = 0) {
    const double taken = seconds_now() - began;
    if (result != right_result || (result < 0 && error != right_error)) {
        if (result < 0 && error == EINTR)
            ++ledger.interrupted;
        else
            note_wrong(ledger, 1000 + static_cast<std::uint64_t>(error));
    } else if (taken < wanted * 0.98) {
        note_wrong(ledger, __LINE__);
    } else if (taken > wanted + 10) { // a stop is long where everything is emulated
        note_wrong(ledger, __LINE__);
    }
    ++ledger.turns;
}

void sleep_relative(Ledger& ledger) {
    while (true) {
        const double began = seconds_now();
        const timespec time{0, 3'000'000};
        const int result = ::nanosleep(&time, nullptr);
        check_wait(ledger, result, errno, began, 0.003);
    }
}

void sleep_absolute(Ledger& ledger) {
    while (true) {
        const double began = seconds_now();
        timespec time{};
        ::clock_gettime(CLOCK_MONOTONIC, &time);
        time.tv_nsec += 3'000'000;
        if (time.tv_nsec >= 1'000'000'000) {
            ++time.tv_sec;
            time.tv_nsec -= 1'000'000'000;
        }
        const int error = ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
        check_wait(ledger, error == 0 ? 0 : -1, error, began, 0.003);
    }
}

int silent_pipe() {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) std::abort();
    return ends[0];
}

void wait_in_poll(Ledger& ledger) {
    pollfd one{silent_pipe(), POLLIN, 0};
    while (true) {
        const double began = seconds_now();
        const int result = ::poll(&one, 1, 4);
        check_wait(ledger, result, errno, began, 0.004);
    }
}

void wait_in_select(Ledger& ledger) {
    const int fd = silent_pipe();
    while (true) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        timeval time{0, 4000};
        const double began = seconds_now();
        const int result = ::select(fd + 1, &set, nullptr, nullptr, &time);
        check_wait(ledger, result, errno, began, 0.004);
    }
}

void wait_in_epoll(Ledger& ledger) {
    const int fd = ::epoll_create1(EPOLL_CLOEXEC);
    while (true) {
        epoll_event event{};
        const double began = seconds_now();
        const int result = ::epoll_wait(fd, &event, 1, 4);
        check_wait(ledger, result, errno, began, 0.004);
    }
}

void wait_in_futex(Ledger& ledger) {
    std::uint32_t word = 7;
    while (true) {
        const timespec time{0, 4'000'000};
        const double began = seconds_now();
        const long result = ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 7, &time, nullptr, 0);
        check_wait(ledger, result, errno, began, 0.004, -1, ETIMEDOUT);
    }
}

std::array<int, 2> numbers{}; // a pipe

void write_numbers(Ledger& ledger) {
    for (std::uint64_t number = 1;; ++number) {
        if (::write(numbers[1], &number, sizeof number) != sizeof number)
            note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(2500);
    }
}

void read_numbers(Ledger& ledger) {
    for (std::uint64_t wanted = 1;;) {
        std::uint64_t number = 0;
        const auto got = ::read(numbers[0], &number, sizeof number);
        if (got < 0 && errno == EINTR) {
            ++ledger.interrupted;
            continue;
        }
        if (got != sizeof number || number != wanted) note_wrong(ledger, __LINE__);
        wanted = number + 1;
        ++ledger.turns;
    }
}

pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
std::uint64_t turn = 0;
std::atomic<std::uint64_t> turn_takers{0};

void take_turns(Ledger& ledger) {
    for (std::uint64_t mine = turn_takers++;; mine += 2) {
        ::pthread_mutex_lock(&turn_lock);
        while (turn != mine) {
            timespec time{};
            ::clock_gettime(CLOCK_REALTIME, &time);
            time.tv_sec += 5;
            if (::pthread_cond_timedwait(&turn_changed, &turn_lock, &time) != 0)
                note_wrong(ledger, __LINE__);
        }
        ++turn;
        ::pthread_cond_broadcast(&turn_changed);
        ::pthread_mutex_unlock(&turn_lock);
        ++ledger.turns;
        nap(1000);
    }
}

void call_quickly(Ledger& ledger) {
    const int zero = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    const long own = ::getpid();
    while (true) {
        for (int i = 0; i < 150; ++i) {
            std::array<char, 64> bytes;
            bytes.fill(1);
            if (::syscall(SYS_getpid) != own) note_wrong(ledger, __LINE__);
            if (::read(zero, bytes.data(), 40) != 40 || bytes[39] != 0 || bytes[40] != 1)
                note_wrong(ledger, __LINE__);
            if (::write(null, bytes.data(), 33) != 33) note_wrong(ledger, __LINE__);
            if (::syscall(SYS_lseek, -1, 0L, 0) != -1 || errno != EBADF)
                note_wrong(ledger, __LINE__);
        }
        ++ledger.turns;
        nap(1500);
    }
}

void* triple(void* argument) {
    auto& number = *static_cast<int*>(argument);
    number = number * 3 + 1;
    return argument;
}

void make_threads(Ledger& ledger) {
    for (int i = 0;; ++i) {
        int number = i & 0xffff;
        pthread_t thread{};
        void* back = nullptr;
        if (::pthread_create(&thread, nullptr, triple, &number) != 0 ||
            ::pthread_join(thread, &back) != 0 || back != &number || number != (i & 0xffff) * 3 + 1)
            note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(3000);
    }
}

// Both wait for any child: one that is not theirs must not be seen. So they take turns.
pthread_mutex_t child_lock = PTHREAD_MUTEX_INITIALIZER;

void wait_for_child(Ledger& ledger, pid_t child, int exit_code) {
    int status = 0;
    pid_t got = 0;
    do {
        got = ::waitpid(-1, &status, 0);
        if (got < 0 && errno == EINTR) ++ledger.interrupted;
    } while (got < 0 && errno == EINTR);
    if (got != child || !WIFEXITED(status) || WEXITSTATUS(status) != exit_code)
        note_wrong(ledger, __LINE__);
}

void make_processes(Ledger& ledger) {
    while (true) {
        ::pthread_mutex_lock(&child_lock);
        const pid_t child = ::fork();
        if (child == 0) _exit(7);
        wait_for_child(ledger, child, 7);
        ::pthread_mutex_unlock(&child_lock);
        ++ledger.turns;
        nap(6000);
    }
}

void run_programs(Ledger& ledger) {
    char name[] = "/bin/true";
    char* arguments[] = {name, nullptr};
    while (true) {
        ::pthread_mutex_lock(&child_lock);
        pid_t child = 0;
        const int error = ::posix_spawn(&child, name, nullptr, nullptr, arguments, environ);
        if (error == 0) wait_for_child(ledger, child, 0);
        ::pthread_mutex_unlock(&child_lock);
        if (error != 0 && error != ENOENT) note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(9000);
    }
}

} // namespace

void start_waiting_threads() {
    if (::pipe(numbers.data()) != 0) std::abort();
    start_thread("sleep", sleep_relative);
    start_thread("sleep until", sleep_absolute);
    start_thread("poll", wait_in_poll);
    start_thread("select", wait_in_select);
    start_thread("epoll", wait_in_epoll, true);
    start_thread("futex", wait_in_futex);
    start_thread("write pipe", write_numbers);
    start_thread("read pipe", read_numbers);
    start_thread("turns", take_turns);
    start_thread("turns too", take_turns);
    start_thread("calls", call_quickly);
    start_thread("threads", make_threads);
    start_thread("fork", make_processes);
    start_thread("spawn", run_programs);
}

void start_sleeping_threads() {
    start_thread("sleep", sleep_relative);
    start_thread("poll", wait_in_poll);
    start_thread("futex", wait_in_futex);
}

void run_main_thread(Ledger& ledger) {
    while (true) {
        const double began = seconds_now();
        const timespec time{0, 2'000'000};
        const int result = ::nanosleep(&time, nullptr);
        check_wait(ledger, result, errno, began, 0.002);
    }
}

} // namespace pagesift::live
