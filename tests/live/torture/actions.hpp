// SPDX-License-Identifier: MIT
// Whole actions of pagesift on the victim: the program itself, left alone, or killed at any moment
// and at each of its calls that have an effect on another process.
#pragma once

#include "torture/torture.hpp"

#include <map>
#include <string>
#include <vector>

namespace pagesift::live {

struct ActionPlan {
    std::string action;
    double max_stop = 0.01; ///< seconds
    double kill_after = 0;  ///< seconds; 0: not
    int kill_at_call = 0;   ///< of ptrace(2) and its like; 0: not
    unsigned call_delay_us = 0;
};

struct ActionEnd {
    enum class Kind { done, in_part, killed, refused, hung } kind = Kind::done;
    std::string reason; ///< why refused, and whatever else was said
    double seconds = 0;
    std::uint64_t advised_bytes = 0, moved_bytes = 0;
    int stops = 0;
    double longest_stop = 0, total_stop = 0; ///< seconds
};

ActionEnd run_action(pid_t target, const ActionPlan& plan);

/// When a torture is over: when all of it was done, or at the end of the time whatever was done.
struct ActionGoals {
    int actions = 0; ///< of each kind, that came to their end and had something to do
    int kills = 0;   ///< of each kind
    double seconds = 0;
    double max_stop = 0.01;
};

struct ActionSum {
    int done = 0, in_part = 0;
    int acted = 0;        ///< of those that were done: there was something to do
    int late = 0;         ///< a stop was longer than it might be
    int ended_itself = 0; ///< a stop took so long that it was better to let go
    int killed_at_call = 0, killed_at_random = 0, last_call = 0;
    std::map<std::string, int> refused; ///< by reason, without numbers
    std::uint64_t advised_bytes = 0, moved_bytes = 0;
    std::uint64_t stops = 0;
    std::vector<double> longest_stops; ///< of each action that had any

    int killed() const { return killed_at_call + killed_at_random; }
    int refusals() const;
    double longest_stop() const;
    double percentile(double share) const; ///< of longest_stops
    std::string text() const;
};

struct ActionToll {
    Toll toll; ///< what the victims noticed
    std::map<std::string, ActionSum> sums;
    std::string text() const;
};

ActionToll torture_by_actions(const std::vector<std::string>& actions, const ActionGoals& goals,
                              std::uint64_t seed);

} // namespace pagesift::live
