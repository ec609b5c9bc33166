// SPDX-License-Identifier: MIT
// The report room: a census, its runs and its pages as text for people or for programs. It decides
// nothing about pages and reads nothing; it writes to the stream it is given. All foreign text goes
// through escape_text (tables, csv) or a JSON string.
//
//     auto sink = make_json_sink(out, options);
//     sink.begin(mappings); sink.run(run); sink.end(census); sink.finish();
#pragma once

#include "pagesift/classify.hpp"

#include <functional>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

namespace pagesift::report {

enum class Format { table, json, ndjson, csv };
enum class Unit { automatic, bytes, pages };

struct ReportOptions {
    Format format = Format::table;
    Unit unit = Unit::automatic;
    bool colour = false;
    unsigned width = 80;   ///< columns of the terminal
    std::size_t top = 10;  ///< mappings in the table of people; 0: none
    bool mappings = false; ///< all mappings, in address order
    bool ranges = false;
    bool pages = false;
    bool map = false; ///< heat map
    bool verbose = false;
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

} // namespace pagesift::report
