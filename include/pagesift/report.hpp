// SPDX-License-Identifier: MIT
// The report room: a census, its runs and its pages as text for people or for programs. It decides
// nothing about pages and reads nothing; it writes to the stream it is given. All foreign text goes
// through escape_text (tables, csv) or a JSON string.
//
//     auto sink = make_json_sink(out, options);
//     sink.begin(mappings); sink.run(run); sink.end(census); sink.finish();
#pragma once

#include "pagesift/advice.hpp"
#include "pagesift/classify.hpp"
#include "pagesift/cold.hpp"
#include "pagesift/diff.hpp"
#include "pagesift/scan.hpp"
#include "pagesift/scan_diff.hpp"

#include <chrono>
#include <functional>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace pagesift::report {

enum class Format { table, json, ndjson, csv, openmetrics };
enum class Unit { automatic, bytes, pages };

struct ReportOptions {
    Format format = Format::table;
    Unit unit = Unit::automatic;
    bool colour = false;
    unsigned width = 80; ///< columns of the terminal
    /// Mappings in the table of people, 0: none. Of a scan in openmetrics: groups that have series
    /// of their own, 0: all.
    std::size_t top = 10;
    bool mappings = false; ///< all mappings, in address order
    bool ranges = false;
    bool pages = false;
    bool map = false; ///< heat map
    bool verbose = false;

    // Of scans.
    std::optional<std::size_t> sort; ///< the field of --sort, see scan::fields()
};

/// Receives what a look produces, process by process, and writes it out in one format. The
/// members are functions so that no second hierarchy of classes is needed.
struct Sink {
    std::function<void(const ProcessText&, std::span<const Mapping>)> begin;
    std::function<void(const Run&)> run;
    std::function<void(const Page&)> page;
    std::function<void(const Census&)> end;
    std::function<void()> finish; ///< after the last process: closes what is open
};

/// Writes to @p out, which must outlive the sink. A failed write throws Error(failed).
Sink make_sink(std::ostream& out, const ReportOptions& options);

/// Receives what a comparison produces, process by process.
struct DiffSink {
    std::function<void(const ProcessText& before, const ProcessText& after)> begin;
    std::function<void(const ChangedRange&)> range;
    std::function<void(const ProcessDiff&)> end;
    std::function<void(const ProcessText&, Picture)> only; ///< a process that one picture has
    std::function<void()> finish;                          ///< after the last process
};

/// Where the two pictures come from, in the words of the command line.
struct PictureNames {
    std::string before, after;
};

/// Writes to @p out, which must outlive the sink; options.pages and options.map say nothing here.
DiffSink make_diff_sink(std::ostream& out, const ReportOptions& options, PictureNames names);

/// Receives plans, and what came of them.
struct AdviseSink {
    /// @param effect null: nothing was done
    std::function<void(const advice::Plan&, const advice::Effect* effect)> process;
    std::function<void()> finish; ///< after the last one
};

/// Writes to @p out, which must outlive the sink; options.mappings, pages and map say nothing here.
AdviseSink make_advise_sink(std::ostream& out, const ReportOptions& options);

/// A comparison of two scans, in one format. A failed write throws Error(failed).
void render_scan_diff(std::ostream& out, const ScanDiff& diff, const PictureNames& names,
                      const ReportOptions& options);

/// Receives the ages of processes, one after another: begin, its ranges, end.
struct ColdSink {
    std::function<void(const cold::Ages&)> begin; ///< without ranges, sums and gaps
    std::function<void(const cold::Ages&, const cold::Range&)> range;
    std::function<void(const cold::Ages&)> end;
    std::function<void()> finish; ///< after the last process: closes what is open
};

/// Writes to @p out, which must outlive the sink. A failed write throws Error(failed). Formats for
/// programs always have the ranges. Json is what cold::load reads.
ColdSink make_cold_sink(std::ostream& out, const ReportOptions& options);

/// The features of this machine, for `pagesift doctor`; @p format is table or json.
void render_doctor(std::ostream& out, const HostFacts& host, std::span<const Feature> features,
                   std::span<const SelfCheck> checks, const ReportOptions& options);

/// What could be given back, in order of gain: the first screen of `inspect` and its json.
struct Saving {
    std::string what; ///< "empty page tables"
    std::uint64_t bytes = 0;
    std::string command; ///< the command that would do it
    std::string note;    ///< what it costs or what must hold
};
std::vector<Saving> find_savings(const Census& census);

// --- Scans ---------------------------------------------------------------------------------------

/// Receives scans, one after another: begin, its records, end. What summaries say of counts and
/// totals is read in `end` only.
struct ScanSink {
    std::function<void(const scan::Summary&)> begin;
    std::function<void(const scan::Record&)> record;
    std::function<void(const scan::Summary&)> end;
    std::function<void()> finish; ///< after the last scan: closes what is open
};

/// Writes to @p out, which must outlive the sink. A failed write throws Error(failed). For
/// openmetrics the sink is to be given every record: it chooses `top` groups itself, by `sort`, and
/// adds up the rest as "other", and each scan is an exposition of its own, which ends with "# EOF".
ScanSink make_scan_sink(std::ostream& out, const ReportOptions& options);

/// Scans of many days in one SQLite file. A scan is appended whole or not at all, whenever the
/// program is killed, and readers do not wait for it. Tables, views: pagesift-history(5).
class History {
public:
    enum class Use { append, read };
    struct Options {
        /// Tells processes of one boot from those of another; empty: not known.
        std::string boot_id;
        /// How long to wait for another writer.
        std::chrono::milliseconds patience{30'000};
    };
    struct Entry {
        std::int64_t id = 0;
        scan::Summary summary; ///< with totals
        std::string boot_id;   ///< empty: not known
    };

    /// Throws Error: no such file (read), not a history, of a later version, no access.
    History(const std::string& file, Use use, Options options);
    History(const std::string& file, Use use) : History(file, use, Options{}) {}
    ~History();
    History(History&&) noexcept;
    History& operator=(History&&) noexcept;

    /// Appends. Records wait in a temporary file of SQLite until `end` stores them in one
    /// transaction, so that a long scan does not keep other writers waiting. Outlives *this.
    ScanSink sink();
    /// Every scan, oldest first.
    std::vector<Entry> scans() const;
    /// The records of one scan, in the order in which they were appended.
    void records(std::int64_t scan, const std::function<void(const scan::Record&)>& take) const;

    class Store;

private:
    std::shared_ptr<Store> store_;
};

} // namespace pagesift::report
