// SPDX-License-Identifier: MIT
// The parts of the scan command: what was asked for, what it may cost, how far it is, and where its
// records go.
#pragma once

#include "cli/selection.hpp"
#include "pagesift/scan.hpp"

#include <atomic>
#include <mutex>

namespace pagesift::cli {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;

/// The options of one `scan`, checked.
struct ScanPlan {
    os::OpenOptions open;
    scan::Selection selection;
    scan::Depth depth = scan::Depth::pages;
    scan::Per per = scan::Per::process;
    Want want;
    scan::Where where;
    std::optional<scan::SortKey> sort; ///< none: by pid, as they come
    std::size_t top = 0;               ///< 0: all
    unsigned jobs = 1;
    double cpu_share = 0; ///< of one core; 0: no limit
    std::optional<Nanoseconds> max_time, interval;
    std::uint64_t count = 1; ///< 0: until interrupted
    std::optional<std::uint64_t> max_process_bytes;
    os::ListWant list;
    bool rollup_too = false; ///< at a depth where smaps_rollup is not read anyway

    bool by_part() const { return per == scan::Per::mapping || per == scan::Per::range; }
    bool by_group() const { return per == scan::Per::cgroup || per == scan::Per::comm; }
};

/// Throws Error(usage).
ScanPlan make_plan(const Options& options, const Environment& environment);

/// Keeps a scan within --cpu and --max-time, and ends it soon after SIGINT. Safe to call from
/// several threads.
class Budget {
public:
    /// Begins now.
    Budget(const ScanPlan& plan, const Environment& environment);
    /// What there is to look at. Before the first share.
    void expect(std::size_t processes, std::uint64_t bytes);

    /// What one process may take.
    struct Share {
        std::optional<Clock::time_point> end;
        bool used_up = false; ///< it was cut off
    };
    Share share(std::uint64_t bytes);
    /// Asked between pieces of work: sleeps as --cpu demands, and says whether to stop here.
    bool stop(Share& share);
    /// Sleeps as --cpu demands.
    void rest();
    /// Whether there is time for another process.
    bool over() const;
    bool interrupted() const { return environment_.interrupted && environment_.interrupted(); }
    double elapsed_seconds() const;
    double cpu_seconds() const;

private:
    const Environment& environment_;
    scan::Pace pace_;
    bool paced_;
    unsigned jobs_;
    Clock::time_point begin_ = Clock::now();
    std::optional<Clock::time_point> end_;
    double cpu_begin_;
    std::atomic<std::uint64_t> bytes_left_{0};
    std::mutex mutex_;
    std::optional<Clock::time_point> interrupted_at_;
};

/// Sleeps until @p end, or until interrupted.
void sleep_until(Clock::time_point end, const Environment& environment);

/// "[####    ] 120/1000 processes, 1.2/8 GiB, 0:12 left" on the terminal, once a scan takes long
/// enough for anyone to wonder. Safe to call from several threads.
class Progress {
public:
    /// @param out none: says nothing
    Progress(std::ostream* out, std::size_t processes, std::uint64_t bytes);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    void add(std::uint64_t bytes);     ///< one more process is done
    void advance(std::uint64_t bytes); ///< a part of one
    void tick();                       ///< some time has passed

private:
    void draw();

    std::ostream* out_;
    std::mutex mutex_;
    std::size_t processes_, processes_done_ = 0;
    std::uint64_t bytes_, bytes_done_ = 0;
    Clock::time_point begin_ = Clock::now();
    Clock::time_point next_;
    bool drawn_ = false;
};

/// Where the records of all scans go, in whatever format.
class ScanOutput {
public:
    ScanOutput(const Options& options, const ScanPlan& plan, const Environment& environment);
    void begin(const scan::Summary& summary);
    void record(const scan::Record& record) const { sink_.record(record); }
    void end(const scan::Summary& summary);
    void finish();

private:
    const Options& options_;
    report::ReportOptions report_;
    std::optional<Output> output_; ///< none: a history, or a file that each scan replaces
    std::optional<ReplacedFile> replaced_;
    std::optional<report::History> history_;
    report::ScanSink sink_;
    bool replaces_ = false;
};

} // namespace pagesift::cli
