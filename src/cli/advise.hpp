// SPDX-License-Identifier: MIT
// The parts of the advise command: what was asked for, what holds it back, and what the machine is
// like.
#pragma once

#include "cli/scan.hpp"
#include "pagesift/advice.hpp"
#include "pagesift/cold.hpp"

#include <map>

namespace pagesift::cli {

/// The options of one `advise`, checked.
struct AdvisePlan {
    os::OpenOptions open;
    std::optional<advice::Action> action; ///< none: the kept plan says it
    std::vector<Target> targets;          ///< with kept plans and with selectors only: none
    std::optional<scan::Selection> selection;
    advice::Request request;
    LookOptions look;
    bool apply = false;
    os::Protect protect = os::Protect::all;
    unsigned retries = 1;
    std::optional<std::uint64_t> rate_bytes; ///< a second
    std::optional<double> psi_percent;
    Nanoseconds max_stop = std::chrono::milliseconds{10};
};

/// Throws Error(usage).
AdvisePlan make_advise_plan(const Options& options, const Environment& environment);

/// What of the machine decides, now.
advice::Situation read_situation(const HostFacts& host, std::uint32_t pid,
                                 const os::OpenOptions& open);
/// Likewise of a recording, as if by root.
advice::Situation recorded_situation(const HostFacts& host);

/// What plans that are only shown count on having of swap, so that the next one does not as well.
class PromisedSwap {
public:
    /// Takes from what is free all that has been promised, and what the cgroup does not allow.
    void limit(advice::Situation& situation,
               const std::optional<os::SwapAllowance>& allowance) const;
    void add(const advice::Plan& plan, const std::optional<os::SwapAllowance>& allowance);

private:
    std::uint64_t bytes_ = 0;
    std::map<std::string, std::uint64_t> of_cgroup_; ///< whose limit it was
};

/// Why @p action cannot be given to that process: EPERM and the like, in words.
std::optional<Error> why_not(Actuator& actuator, advice::Action action, std::uint32_t pid);

/// Keeps to --rate and --psi.
class Brake {
public:
    Brake(const AdvisePlan& plan, const Environment& environment)
        : plan_(plan), environment_(environment) {}
    /// Bytes that one batch of an action should have.
    std::uint64_t batch_bytes(advice::Action action) const;
    /// Sleeps until @p bytes more may be done to that process. Returns early when interrupted.
    /// Throws Error(unsupported) where pressure is not measured.
    void wait(std::uint32_t pid, std::uint64_t bytes);
    double waited_seconds() const { return waited_; }

private:
    const AdvisePlan& plan_;
    const Environment& environment_;
    std::optional<Clock::time_point> next_; ///< when --rate allows more
    double waited_ = 0;
};

/// What --cold says of how long pages have been idle.
class IdleTimes {
public:
    /// Reads the file, where one is given. Throws Error(usage, bad_input).
    explicit IdleTimes(const Options& options);
    bool asked() const { return !options_.advise.cold.empty(); }
    /// Measures, where a time is given. Throws as cli::measure does.
    void measure(std::span<const std::uint32_t> pids, const os::Machine& machine,
                 const AdvisePlan& plan, const Environment& environment, const Messages& messages);
    /// Throws Error(gone) where nothing is known of that process.
    void give(advice::Request& request, const advice::Identity& identity) const;

private:
    const Options& options_;
    std::optional<Nanoseconds> window_; ///< none: a file
    std::optional<double> least_;       ///< of --idle
    std::vector<cold::Ages> ages_;
};

} // namespace pagesift::cli
