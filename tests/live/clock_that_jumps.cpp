// SPDX-License-Identifier: MIT
// To be preloaded (LD_PRELOAD): the time of day jumps by days at every question, back and forth.
// The machine's own clock, and clocks that cannot be set, stay as they are.
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

namespace {

long jump() {
    static long count = 0;
    constexpr long day = 86400;
    const long n = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
    return (n % 2 == 0 ? -n : n) * day;
}

} // namespace

// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): the C library's own names

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
    using Function = int (*)(clockid_t, timespec*);
    static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "clock_gettime"));
    const int result = real(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += jump();
    return result;
}

extern "C" int gettimeofday(timeval* time, void*) noexcept {
    timespec now{};
    const int result = clock_gettime(CLOCK_REALTIME, &now);
    *time = {now.tv_sec, now.tv_nsec / 1000};
    return result;
}

extern "C" time_t time(time_t* time) noexcept {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    if (time != nullptr) *time = now.tv_sec;
    return now.tv_sec;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
