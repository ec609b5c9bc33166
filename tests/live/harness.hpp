// SPDX-License-Identifier: MIT
// What the live tests share: other programs under a time limit, the zoo, skips that are counted.
// Nothing of pagesift is needed here: most tests know the program only by what it prints. (What is
// below exact/ is the exception.)
//
//     Zoo zoo;                                  // built and proved
//     zoo.stop();
//     auto run = run_pagesift({"inspect", "--format", "json", "-p", zoo.pid_text()});
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/types.h>

namespace pagesift::live {

using nlohmann::json;

// Words and files --------------------------------------------------------------------------------

using Words = std::vector<std::string>; ///< of a command line
Words operator+(Words a, const Words& b);

/// All of a file; empty if it cannot be read.
std::string read_file(const std::string& path);
/// Text with a JSON object a line. Checks that each is one.
std::vector<json> parse_lines(const std::string& text);

// Skips ------------------------------------------------------------------------------------------

/// Notes that a test, or a part of one, cannot run here. With PAGESIFT_LIVE=require it is a
/// failure, unless the reason is on the short list in harness.cpp.
void skip(const std::string& reason);
/// Prints how many skips there were, and why.
void report_skips();

/// A directory below /tmp that everybody may enter; removed with all there is in it.
class TemporaryDirectory {
public:
    TemporaryDirectory();
    ~TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

// Other programs ---------------------------------------------------------------------------------

struct Outcome {
    int exit_code = -1; ///< -1: ended by a signal, or by the time limit
    int signal = 0;
    bool timed_out = false;
    std::string out;
    std::string err;
};

enum class Output { captured, closed, broken_pipe, full_device };

struct RunOptions {
    double seconds = 60; ///< then SIGKILL
    Output output = Output::captured;
    bool as_nobody = false;
    std::uint64_t capabilities = 0; ///< that nobody has, one bit each (linux/capability.h)
    /// Called by the new process, as root, before it becomes the program (see views.hpp).
    std::function<void()> prepare = {};
};

Outcome run(const std::vector<std::string>& command, const RunOptions& options = {});

/// The path in an environment variable, which must name a program.
std::string program_of(const std::string& variable);

/// A copy of PAGESIFT_BIN that everybody may execute.
std::string executable_by_all();

/// PAGESIFT_BIN with arguments. A copy that everybody may execute is used for
/// RunOptions::as_nobody.
Outcome run_pagesift(const std::vector<std::string>& arguments, const RunOptions& options = {});
/// inspect --format json with more arguments; the parsed answer, or null if it is none. Checks that
/// the exit code is 0 or 3.
json inspect(pid_t pid, const std::vector<std::string>& arguments, const RunOptions& options = {});

/// The lenses that this machine has: "proc", and "exact" unless that cannot be had, which is
/// skipped with the reason.
std::vector<std::string> lenses();

/// A program that runs beside the test and is killed at the end of the block. Its standard input is
/// a pipe that stays open; its standard output is read by wait_for_line.
class Background {
public:
    explicit Background(const std::vector<std::string>& command, bool as_nobody = false);
    ~Background();
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    pid_t pid() const { return pid_; }
    /// The next line of output, without its end; nothing after the time limit or the last line.
    std::optional<std::string> wait_for_line(double seconds);
    /// Reads until the last holder of the output has closed it. False after the time limit.
    bool wait_for_end_of_output(double seconds);
    void close_input();
    /// Waits for the end; SIGKILL after the time limit. The wait status.
    int wait(double seconds);
    void signal(int number) const;

private:
    pid_t pid_ = -1;
    int input_ = -1;
    int output_ = -1;
    bool reaped_ = false;
    int status_ = 0;
    std::string buffer_;
};

/// A fork of the test that runs a function, then sleeps until it is killed at the end of the block.
class Child {
public:
    /// Returns when @p body has called the function that it is given, or has returned.
    explicit Child(const std::function<void(const std::function<void()>& ready)>& body);
    ~Child();
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    pid_t pid() const { return pid_; }
    void stop() const;

private:
    pid_t pid_ = -1;
};

// The zoo ----------------------------------------------------------------------------------------

class Zoo {
public:
    /// Starts PAGESIFT_ZOO and waits for its word. ready() is false if it gave none.
    explicit Zoo(const std::vector<std::string>& arguments = {});
    /// Ends it, and waits until the machine is as it was.
    ~Zoo();

    bool ready() const { return !description_.is_null(); }
    const json& description() const { return description_; }
    pid_t pid() const { return process_.pid(); }
    /// SIGSTOP, and waits until all of it stands still.
    void stop() const;
    Background& process() { return process_; }

private:
    Background process_;
    json description_;
};

/// A zoo that stands still, or nothing where the test is skipped. A zoo that disproves one of its
/// own exhibits fails the test. Building one takes seconds, so tests that leave it as it is share
/// it as long as it is young: whoever ages this machine's memory waits a minute before it acts.
enum class ZooAge { young, fresh };
std::shared_ptr<Zoo> stopped_zoo(ZooAge age = ZooAge::young);
/// Ends the shared zoo, and waits until the machine is as it was.
void release_zoo();

/// Waits until a process is stopped.
void wait_until_stopped(pid_t pid);

std::uint64_t address(const json& text); ///< "0x7f00" -> number
/// A member, or null where there is none.
json field(const json& object, const char* name);

/// Needed by nearly every test: root. Otherwise skips and returns false.
bool have_root();
/// The first of these that can be executed.
std::optional<std::string> find_program(const std::vector<std::string>& names);

// Invariants -------------------------------------------------------------------------------------

/// What must hold of every answer and does not, in words: states add up to mappings and totals,
/// kinds to present pages, ranges are sorted, disjoint and inside mappings, and the JSON survives
/// re-parsing. Empty if all of it holds.
std::string broken_invariants(const json& process);
/// CHECKs that nothing is broken.
void check_invariants(const json& process);

} // namespace pagesift::live
