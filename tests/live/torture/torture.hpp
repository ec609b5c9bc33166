// SPDX-License-Identifier: MIT
// Remote calls into a victim by a program that is killed in the middle of them, and what the victim
// noticed.
#pragma once

#include "torture/victim.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pagesift::live {

/// A victim in a process of its own, killed at the end of the block.
class Victim {
public:
    explicit Victim(VictimKind kind);
    ~Victim();
    Victim(const Victim&) = delete;
    Victim& operator=(const Victim&) = delete;

    pid_t pid() const { return pid_; }
    VictimReport& report() const { return *report_; }
    /// Its end, if it has ended: "signal 11", "exit 0".
    std::optional<std::string> ended();
    /// Waits until every thread has gone on. @return the first that has not, or what ended it
    std::string trouble(double seconds = 5);

private:
    VictimReport* report_;
    pid_t pid_ = -1;
    bool reaped_ = false;
    int status_ = 0;
};

std::uint64_t start_time(pid_t pid);

/// What the program does that makes the calls.
struct ToolPlan {
    enum class Way {
        product, ///< RemoteTarget
        naive    ///< registers saved by the program, set, and put back
    } way = Way::product;
    pid_t thread = 0;                      ///< 0: chosen
    int kill_at_step = 0;                  ///< 0: not
    unsigned step_delay_us = 0;            ///< before it is killed there
    std::optional<unsigned> kill_after_us; ///< by another process
    std::optional<unsigned> processor;
};

struct ToolEnd {
    enum class Kind { done, killed, refused, hung } kind = Kind::done;
    std::string reason; ///< why refused
    double seconds = 0; ///< from the first effect
    double stopped = 0; ///< seconds, as the program itself measured
};

/// Runs the calls in a process of their own: MADV_DONTNEED of every slot that is empty.
ToolEnd run_tool(const Victim& victim, const ToolPlan& plan);

/// The wait status of a child, looked for every @p pause_us; nothing if it has not ended after so
/// many seconds, and was killed for it.
std::optional<int> wait_for_end(pid_t process, double seconds, unsigned pause_us);

/// One call in the naive way (x86_64 alone). @p after_step as StopOptions has it.
void call_naively(pid_t pid, pid_t thread, std::uint64_t address, std::uint64_t bytes, int advice,
                  const std::function<void()>& after_step);

/// What a session did to its victims.
struct Toll {
    int runs = 0, killed = 0, done = 0;
    std::map<std::string, int> refused; ///< reasons, without numbers
    std::map<std::string, int> deaths;  ///< of victims, and threads that went on no more
    std::map<std::string, std::uint64_t> wrong;
    std::uint64_t interrupted = 0, lost = 0, left_children = 0, rseq_aborts = 0;
    double median_stop = 0, longest_stop = 0; ///< seconds
    std::string text() const;
    bool harmless() const {
        return deaths.empty() && wrong.empty() && interrupted == 0 && lost == 0 &&
               left_children == 0;
    }
};

std::string without_numbers(std::string text);
/// What the victim's threads have noted since the last time.
void absorb(VictimReport& report, Toll& toll);

/// Kills it at every step in turn, at random times, and not at all, for a while.
Toll torture(double seconds, ToolPlan::Way way, VictimKind kind, std::uint64_t seed);

/// PAGESIFT_TORTURE_SECONDS, or a default.
double torture_seconds(double otherwise);

} // namespace pagesift::live
