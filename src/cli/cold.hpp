// SPDX-License-Identifier: MIT
// Measuring how long the pages of processes have been idle, for every command that wants to know.
#pragma once

#include "cli/commands.hpp"
#include "pagesift/cold.hpp"

#include <chrono>
#include <span>

namespace pagesift::cli {

struct MeasureOptions {
    std::chrono::nanoseconds window{std::chrono::seconds{30}};
    /// Of a round; empty: the window, so there is one.
    std::optional<std::chrono::nanoseconds> interval;
    std::string source = "auto"; ///< a word of `cold --source`
    bool passive = false;        ///< nothing is written: the same as source "lru"
    unsigned jobs = 2;
    std::vector<AddressRange> only;
    Filter where;
    os::OpenOptions open;
    const Messages* messages = nullptr; ///< for what went wrong with single processes
    bool quiet = false;                 ///< no line on what it costs, no progress bar
};

/// Watches all @p pids in the same window and returns the ages of those of which there are any, in
/// the order given. An error of one process is a message, and the others go on. SIGINT ends the
/// window: what was measured until then is returned, marked as interrupted.
/// Needs what os::open_access needs. What it does to the processes: see AccessTraits.
/// Throws Error (usage, unsupported, denied) where no process can be measured this way.
std::vector<cold::Ages> measure(std::span<const std::uint32_t> pids, const os::Machine& machine,
                                const MeasureOptions& options, const Environment& environment);

} // namespace pagesift::cli
