// SPDX-License-Identifier: MIT
// The cli room: options (defined once, in build_app), what each command does, messages and exit
// codes. The only room that knows where things are: "/", standard streams, the terminal.
//
//     return pagesift::cli::run(argc, argv, pagesift::cli::real_environment());
#pragma once

#include "pagesift/report.hpp"

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace pagesift::cli {

enum class Colour { automatic, always, never };

/// Which processes, where they are not all named: of `scan` and `advise`.
struct SelectorArguments {
    std::vector<std::string> comms, exes, users, cgroups, children_of;
    std::string min_rss; ///< a size
};

/// What only `advise` takes.
struct AdviseArguments {
    std::string action;
    std::string min_run, max_bytes, rate; ///< sizes
    std::string cold;                     ///< a duration, or a file
    std::string cold_for;                 ///< a duration, with a file
    std::string plan;                     ///< a file
    std::optional<double> psi;            ///< percent
    std::string max_stop = "10ms";        ///< a duration
    unsigned retry = 1;
    bool apply = false, dry_run = false, force = false, force_fill = false;
};

/// What only `scan` takes.
struct ScanArguments {
    std::string max_process_bytes; ///< a size
    std::string depth = "pages";
    std::string zero = "sample=1%";
    std::string per; ///< empty: process
    std::string sort;
    std::string max_time, interval; ///< durations
    std::optional<std::size_t> top;
    std::optional<double> cpu; ///< percent of one core
    std::uint64_t count = 0;   ///< 0: until interrupted
};

/// What only `cold` takes.
struct ColdArguments {
    std::string window = "30s";
    std::string interval; ///< empty: a third of the window, at least 1 s
    std::string source = "auto";
    bool passive = false;
};

struct Options {
    std::vector<std::string> targets; ///< pids, "self", or recordings
    std::vector<std::string> pids;    ///< -p
    std::vector<std::string> addresses;
    std::string where;
    std::string zero = "off";
    std::string file_cache = "on";
    std::string smaps = "auto";
    std::string lens = "auto";
    std::string output;
    std::string format = "table";
    std::string unit = "auto";
    std::string colour = "auto";
    std::string root = "/";
    std::vector<std::string> without; ///< interfaces not to use, for tests of the fallbacks
    unsigned width = 0;
    unsigned jobs = 0;
    std::size_t top = 10;
    bool mappings = false, ranges = false, pages = false, map = false;
    bool text = false;
    bool quiet = false;
    int verbose = 0;
    bool version = false;
    SelectorArguments select;
    ScanArguments scan;
    ColdArguments cold;
    AdviseArguments advise;
};

/// Defines every option of every command on @p app. Completions, the man pages' option lists and
/// the help all come from what this makes.
void build_app(CLI::App& app, Options& options);

/// What the outside world is, for one run.
struct Environment {
    std::ostream* out = nullptr;
    std::ostream* err = nullptr;
    bool out_is_terminal = false;
    bool err_is_terminal = false;
    bool no_color = false; ///< NO_COLOR is set and not empty
    unsigned columns = 80;
    unsigned processors = 1;
    std::uint32_t own_pid = 0;
    std::function<bool()> interrupted;
};

/// Standard streams, the terminal, NO_COLOR, SIGINT.
Environment real_environment();

/// The whole program. Returns the exit code: 0 complete, 1 failed, 2 wrong usage, 3 in part,
/// 130 interrupted. Never throws.
int run(int argc, const char* const* argv, const Environment& environment);

} // namespace pagesift::cli
