// SPDX-License-Identifier: MIT
//
// Two ways to the same answer that take turns in one thread, so that whatever else the machine does
// meets both of them. A contest has
//   check()        compares both answers page by page and gives the number that they come to
//   run_lens()     the primitive; gives that number again
//   run_peer()     what it replaces
//   check_after()  what can be compared only once the turns are over
// and throws Wrong where something does not agree.
#pragma once

#include "peers/peer.hpp"

#include <algorithm>
#include <ctime>
#include <stdexcept>

namespace pagesift::bench {

/// An answer that is not what it has to be.
struct Wrong : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void expect(const std::string& what, std::uint64_t found, std::uint64_t expected) {
    if (found != expected)
        throw Wrong(what + ": " + std::to_string(found) + ", not " + std::to_string(expected));
}

struct Times {
    std::vector<double> wall, cpu;

    template <class Body> void measure(Body body) {
        const double began = cpu_seconds();
        const auto started = std::chrono::steady_clock::now();
        body();
        wall.push_back(seconds_since(started));
        cpu.push_back(cpu_seconds() - began);
    }

private:
    static double cpu_seconds() {
        timespec now{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
    }
};

inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

inline std::vector<double> ratios(const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> result;
    for (std::size_t i = 0; i < a.size(); ++i) result.push_back(a[i] / b[i]);
    return result;
}

inline void print_times(const char* name, const Times& times) {
    const auto print = [](const char* what, const std::vector<double>& values) {
        std::printf(",\"%s\":[", what);
        for (std::size_t i = 0; i < values.size(); ++i)
            std::printf("%s%.6f", i == 0 ? "" : ",", values[i]);
        std::printf("]");
    };
    print((std::string(name) + "_seconds").c_str(), times.wall);
    print((std::string(name) + "_cpu_seconds").c_str(), times.cpu);
}

/// Lets both sides of @p contest take turns, after their answers were compared, and prints it all
/// as one line of JSON.
template <class Contest> void take_turns(Contest& contest, unsigned rounds) {
    Times lens, peer;
    std::string wrong;
    std::uint64_t answer = 0;
    try {
        answer = contest.check();
        for (unsigned round = 0; round < rounds; ++round) {
            std::uint64_t found = 0;
            lens.measure([&] { found = contest.run_lens(); });
            peer.measure([&] { contest.run_peer(); });
            expect("the answer of another round", found, answer);
        }
        contest.check_after();
    } catch (const Wrong& error) {
        wrong = error.what();
    }
    std::printf("{\"peer\":\"%s\",\"pages\":%ju,\"answer\":%ju%s,\"wrong\":%s", Contest::peer,
                static_cast<std::uintmax_t>(contest.pages()), static_cast<std::uintmax_t>(answer),
                contest.facts().c_str(), wrong.empty() ? "null" : ("\"" + wrong + "\"").c_str());
    if (wrong.empty())
        // Of processor time: another load stretches a turn of 300 ms far more than one of 3 ms.
        std::printf(",\"time_ratio\":%.4f,\"throughput_ratio\":%.4f,\"wall_time_ratio\":%.4f",
                    median(ratios(lens.cpu, peer.cpu)), median(ratios(peer.cpu, lens.cpu)),
                    median(ratios(lens.wall, peer.wall)));
    print_times("lens", lens);
    print_times("peer", peer);
    std::printf("}\n");
}

} // namespace pagesift::bench
