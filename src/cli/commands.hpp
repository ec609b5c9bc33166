// SPDX-License-Identifier: MIT
// What the commands share. Each command is one file and one function.
#pragma once

#include "pagesift/cli.hpp"
#include "pagesift/os.hpp"

#include <chrono>
#include <fstream>
#include <optional>

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

std::optional<std::uint32_t> parse_pid(const std::string& text);
Want parse_want(const Options& options);
Want parse_want(const std::string& zero, const std::string& file_cache);
/// "10", "1.5s", "500ms", "5m", "2h". Throws Error(usage) naming @p subject.
std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view subject);
os::OpenOptions open_options(const Options& options);
unsigned jobs(const Options& options, const Environment& environment);
report::ReportOptions report_options(const Options& options, const Environment& environment);

/// All of a file that the command line names.
std::string read_whole_file(const std::string& path, const std::string& hint);
/// @p ranges in whole pages around what they are.
std::vector<AddressRange> in_whole_pages(std::vector<AddressRange> ranges, std::uint64_t page_size);

/// A file that readers see whole, as it was or as it will be: written beside it under another name,
/// then renamed. What is no ordinary file is written to as it is.
class ReplacedFile {
public:
    /// What to do where nothing can be written beside it (its folder is not ours).
    enum class InPlace { never, if_need_be };
    explicit ReplacedFile(const std::string& file, InPlace in_place = InPlace::never);
    ~ReplacedFile(); ///< without publish() or commit(), nothing is left behind
    ReplacedFile(const ReplacedFile&) = delete;
    ReplacedFile& operator=(const ReplacedFile&) = delete;
    std::ostream& stream();
    /// From now on the file is what has been written, and what will be. Throws Error(failed) when
    /// something was not written.
    void publish();
    void commit(); ///< publishes, and closes

private:
    class Beside;
    void require_written();

    std::string name_;
    std::unique_ptr<Beside> beside_; ///< none: stream_ is the file
    std::ofstream stream_;
};

/// Where results go: standard output or --output, which is what it was until publish() or close().
/// These throw Error when something was not written.
class Output {
public:
    Output(const std::string& file, std::ostream& standard);
    ~Output();
    std::ostream& stream() { return *stream_; }
    void publish(); ///< for whoever reads along
    void close();

private:
    std::unique_ptr<ReplacedFile> file_;
    std::ostream* stream_;
};

Exit run_inspect(const Options& options, const Environment& environment, const Messages& messages);
Exit run_scan(const Options& options, const Environment& environment, const Messages& messages);
Exit run_advise(const Options& options, const Environment& environment, const Messages& messages);
Exit run_record(const Options& options, const Environment& environment, const Messages& messages);
Exit run_diff(const Options& options, const Environment& environment, const Messages& messages);
Exit run_cold(const Options& options, const Environment& environment, const Messages& messages);
Exit run_doctor(const Options& options, const Environment& environment, const Messages& messages);

} // namespace pagesift::cli
