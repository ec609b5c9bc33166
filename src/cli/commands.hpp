// SPDX-License-Identifier: MIT
// What the commands share. Each command is one file and one function.
#pragma once

#include "pagesift/cli.hpp"
#include "pagesift/os.hpp"

namespace pagesift::cli {

/// Exit codes, worst last where several apply (see run).
enum class Exit : int { complete = 0, failed = 1, usage = 2, partial = 3, interrupted = 130 };

/// Messages on standard error: "pagesift: subject: what (ERRNO)" and "hint: …".
class Messages {
public:
    Messages(std::ostream& err, bool quiet) : err_(err), quiet_(quiet) {}
    void error(const Error& error) const;
    void warn(std::string_view subject, std::string_view text) const;

private:
    std::ostream& err_;
    bool quiet_;
};

/// Counts how the targets of a command went, for its exit code.
struct Outcome {
    std::size_t answered = 0, failed = 0;
    bool partial = false, interrupted = false;
    Exit code() const;
};

/// A pid, "self", or the path of a recording.
struct Target {
    std::string text;
    std::optional<std::uint32_t> pid;
};
std::vector<Target> parse_targets(const Options& options, const Environment& environment);

Want parse_want(const Options& options);
os::OpenOptions open_options(const Options& options);
unsigned jobs(const Options& options, const Environment& environment);
report::ReportOptions report_options(const Options& options, const Environment& environment);

/// Where results go: standard output or --output. close() throws Error when something was not
/// written.
class Output {
public:
    Output(const std::string& file, std::ostream& standard);
    ~Output();
    std::ostream& stream() { return *stream_; }
    void close();

private:
    std::string name_;
    std::unique_ptr<std::ostream> file_;
    std::ostream* stream_;
};

Exit run_inspect(const Options& options, const Environment& environment, const Messages& messages);
Exit run_record(const Options& options, const Environment& environment, const Messages& messages);
Exit run_doctor(const Options& options, const Environment& environment, const Messages& messages);

} // namespace pagesift::cli
