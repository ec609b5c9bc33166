// SPDX-License-Identifier: MIT
#include "cli/advise.hpp"
#include "cli/cold.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace pagesift::cli {
namespace {

/// Empty: not a time, so a file.
std::optional<Nanoseconds> try_duration(const std::string& text) {
    try {
        return parse_duration(text, "--cold");
    } catch (const Error&) {
        return {};
    }
}

std::vector<advice::IdleRange> idle_ranges(const cold::Ages& ages) {
    std::vector<advice::IdleRange> ranges;
    ranges.reserve(ages.ranges.size());
    for (const cold::Range& one : ages.ranges) ranges.push_back({one.range, one.idle_seconds});
    return ranges;
}

} // namespace

IdleTimes::IdleTimes(const Options& options) : options_(options) {
    const AdviseArguments& given = options.advise;
    if (given.cold.empty()) return;
    window_ = try_duration(given.cold);
    if (window_ && !given.cold_for.empty())
        throw Error{ErrorKind::usage, "--idle", 0, "", "goes with --cold FILE only"};
    if (!given.cold_for.empty())
        least_ = std::chrono::duration<double>(parse_duration(given.cold_for, "--idle")).count();
    if (window_) return;
    ages_ = cold::load(read_whole_file(given.cold, "a time, such as 60s, or what cold --format "
                                                   "json wrote"),
                       given.cold);
}

void IdleTimes::measure(std::span<const std::uint32_t> pids, const os::Machine& machine,
                        const AdvisePlan& plan, const Environment& environment,
                        const Messages& messages) {
    if (!window_ || pids.empty()) return;
    MeasureOptions measure;
    measure.window = *window_;
    measure.jobs = plan.look.jobs;
    measure.only = plan.look.only;
    measure.open = plan.open;
    measure.messages = &messages;
    measure.quiet = options_.quiet;
    ages_ = cli::measure(pids, machine, measure, environment);
}

void IdleTimes::give(advice::Request& request, const advice::Identity& identity) const {
    if (!asked()) return;
    const auto found = std::find_if(ages_.begin(), ages_.end(), [&](const cold::Ages& ages) {
        return cold::is_of(ages, identity.pid, identity.start_time, identity.boot_id);
    });
    const std::string subject = fmt::format("pid {}", identity.pid);
    if (found == ages_.end())
        throw Error{ErrorKind::gone, subject, 0, window_ ? "" : "measure it: --cold 60s",
                    window_ ? "how long it has been idle could not be measured"
                            : "the file of --cold is not about this process"};
    if (found->interrupted)
        throw Error{ErrorKind::gone, subject, 0, "",
                    "measuring was interrupted, so nothing is done"};
    // What was idle all the time was so for the window as it was, which is never exactly the one
    // that was asked for.
    request.idle_for = least_.value_or(found->window_seconds);
    request.idle = idle_ranges(*found);
}

} // namespace pagesift::cli
