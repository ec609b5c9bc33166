// SPDX-License-Identifier: MIT
// An answer of `pagesift cold` held against what the worker noted: page by page, what is called
// idle must be, and what is idle must be called so.
//
//     const auto measured = measure(worker.pid(), Rounds::one, {"--source", "exact"});
//     worker.finish();
//     const auto scores = judge_all(worker, history, measured, measured.window);
#pragma once

#include "harness.hpp"
#include "worker/fixture.hpp"
#include "worker/history.hpp"

#include <cstdint>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pagesift::live {

inline constexpr double round_seconds = 1; ///< where there are several rounds

/// Three seconds; PAGESIFT_COLD_SECONDS makes it a long test.
double window_seconds();

/// One answer of `pagesift cold`, and when it can have been measured.
struct Measured {
    int exit_code = -1;
    std::string err;
    json process;                     ///< null: there is no answer
    std::uint64_t begin = 0, end = 0; ///< start and end of the program
    double window = 0;                ///< as the answer says, in seconds
    std::vector<double> steps;        ///< the idle times that it tells apart, longest first

    struct Age {
        std::uint64_t start, end;
        std::optional<double> idle_seconds;
        bool said; ///< that it was accessed, or idle as far as could be seen
    };
    std::vector<Age> ages;

    /// The window began before this, and ended after that.
    std::uint64_t latest_begin() const;
    std::uint64_t earliest_end() const;
    /// What is said of a page; null if nothing is.
    const Age* find(std::uint64_t address) const;
};

enum class Rounds { one, several };

/// Runs `pagesift cold` with more arguments, and waits.
Measured measure(pid_t pid, Rounds rounds, const std::vector<std::string>& arguments);

/// What of some pages was right.
struct Score {
    std::uint64_t pages = 0;
    std::uint64_t touched = 0; ///< surely, while the program was measuring
    std::uint64_t unknown = 0;
    std::uint64_t unclear = 0;          ///< accessed about when it looked, so left out of the rest
    std::uint64_t idle_but_touched = 0; ///< the one thing that must not be
    std::uint64_t idle_but_written = 0;
    std::uint64_t cold = 0, called_cold = 0, both = 0;

    Score& operator+=(const Score& other);
    double precision() const; ///< of what is called cold, how much is
    double recall() const;    ///< of what is cold, how much is called so
};

std::ostream& operator<<(std::ostream& out, const Score& score);

using Scores = std::map<std::string, Score>; ///< by name of a range; and "all"

/// How well "idle for at least @p least seconds" was told, of each range. Prints it.
Scores judge_all(const WorkerProcess& worker, const History& history, const Measured& measured,
                 double least);

} // namespace pagesift::live
