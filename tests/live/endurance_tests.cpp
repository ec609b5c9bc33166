// SPDX-License-Identifier: MIT
// A scan that goes on for hours must not grow. PAGESIFT_ENDURANCE_SCANS: how many there are of each
// sort, one right after the other; 1440 are what two hours at an interval of five seconds have.
#include "harness.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

int scans() {
    const char* wanted = std::getenv("PAGESIFT_ENDURANCE_SCANS");
    return wanted != nullptr ? std::atoi(wanted) : 60;
}

double seconds_now() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/// Some twenty processes at a time, each with a name, memory and mappings of its own, and each for
/// a moment only.
[[noreturn]] void come_and_go(const std::function<void()>& ready) {
    static constexpr unsigned crowd = 20;
    signal(SIGCHLD, SIG_IGN); // they leave no zombies
    ready();
    for (unsigned n = 0;; ++n) {
        const pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            prctl(PR_SET_NAME, ("guest-" + std::to_string(n)).c_str());
            for (unsigned i = 0; i <= n % 16; ++i) {
                const std::size_t bytes = (1 + n % 64) * 65536;
                void* memory = mmap(nullptr, bytes, i % 2 == 0 ? PROT_READ | PROT_WRITE : PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (memory != MAP_FAILED && i == 0) std::memset(memory, 1, bytes);
            }
            usleep(crowd * 10'000);
            _exit(0);
        }
        usleep(10'000);
    }
}

struct Size {
    double seconds = 0;
    std::size_t anon_kib = 0, descriptors = 0, threads = 0;
};

/// Empty: the process has ended.
std::optional<Size> size_of(pid_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid);
    Size size;
    size.seconds = seconds_now();
    std::ifstream status{folder + "/status"};
    for (std::string line; std::getline(status, line);) {
        if (line.rfind("State:\tZ", 0) == 0) return {};
        std::sscanf(line.c_str(), "RssAnon: %zu", &size.anon_kib);
        std::sscanf(line.c_str(), "Threads: %zu", &size.threads);
    }
    std::error_code error;
    for (const auto& one : std::filesystem::directory_iterator{folder + "/fd", error})
        size.descriptors += !one.path().empty();
    if (error || size.threads == 0) return {};
    return size;
}

/// The largest sizes within a part of the time, from the share @p from to the share @p to.
Size largest(const std::vector<Size>& sizes, double from, double to) {
    Size largest;
    const double begin = sizes.front().seconds, whole = sizes.back().seconds - begin;
    for (const Size& one : sizes) {
        const double share = (one.seconds - begin) / whole;
        if (share < from || share > to) continue;
        largest.anon_kib = std::max(largest.anon_kib, one.anon_kib);
        largest.descriptors = std::max(largest.descriptors, one.descriptors);
        largest.threads = std::max(largest.threads, one.threads);
    }
    return largest;
}

void check_steady(std::vector<std::string> arguments) {
    const auto count = std::to_string(scans());
    // Of the others on the machine some have more to look at than all of ours, at times.
    std::vector<std::string> command{program_of("PAGESIFT_BIN"),
                                     "scan",
                                     "--interval",
                                     "1ms",
                                     "--count",
                                     count,
                                     "-q",
                                     "--children-of",
                                     std::to_string(getpid())};
    command.insert(command.end(), arguments.begin(), arguments.end());
    Background program(command);
    std::vector<Size> sizes;
    while (const auto size = size_of(program.pid())) {
        sizes.push_back(*size);
        usleep(3'000);
    }
    const int status = program.wait(60);
    REQUIRE(WIFEXITED(status));
    CHECK((WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3));
    REQUIRE(sizes.size() > 20);
    const Size early = largest(sizes, 0.2, 0.6), late = largest(sizes, 0.6, 1);
    const double seconds = sizes.back().seconds - sizes.front().seconds;
    MESSAGE(count << " scans in " << seconds << " s: " << early.anon_kib << " and then "
                  << late.anon_kib << " KiB, " << early.descriptors << " and then "
                  << late.descriptors << " descriptors, " << early.threads << " and then "
                  << late.threads << " threads");
    // The sizes of those that come and go differ, and so does what is kept of one scan.
    CHECK(late.anon_kib <= early.anon_kib + 256);
    CHECK(late.descriptors <= early.descriptors + 2);
    CHECK(late.threads <= early.threads);
}

} // namespace

TEST_CASE("endurance: a scan that is made again and again keeps its size") {
    if (!have_root()) return;
    const TemporaryDirectory folder;
    const Child others{come_and_go};
    check_steady({"--format", "openmetrics", "-o", folder.path() + "/metrics.prom"});
    check_steady({"--format", "ndjson", "-o", "/dev/null"});
    check_steady({"--format", "sqlite", "--depth", "totals", "-o", folder.path() + "/history.db"});
}

} // namespace pagesift::live
