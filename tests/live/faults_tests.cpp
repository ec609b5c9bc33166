// SPDX-License-Identifier: MIT
// System calls of pagesift that fail, one at a time, wherever they are made. Each answer is right,
// a marked part, or a clear error; never a wrong figure, a hang or a crash. A few of all places are
// tried; all of them with PAGESIFT_FAULTS=all, which takes hours.
#include "faults.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <sstream>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

using Clock = std::chrono::steady_clock;

// ENOENT ends a walk through mappings, and a retval of 0 a file, so these are no faults where they
// are answers; brk(2) never answers with an error. What is answered with one is not done. A call
// that this strace does not know yet (cachestat) is left out.
const Fault fault_list[] = {
    {"openat", "error=EIO"},
    {"openat", "error=EMFILE"},
    {"openat", "error=EPERM"},
    {"openat", "error=ESRCH"},
    {"openat", "error=ENOMEM"},
    {"read", "error=EIO"},
    {"read", "error=EINTR"},
    {"read", "error=ESRCH"},
    {"read", "error=ENOMEM"},
    {"pread64", "error=EIO"},
    {"pread64", "error=EINTR"},
    {"pread64", "error=EPERM"},
    {"pread64", "retval=0"},
    {"ioctl", "error=EIO"},
    {"ioctl", "error=EINTR"},
    {"ioctl", "error=ESRCH"},
    {"ioctl", "error=ENOMEM"},
    {"process_vm_readv", "error=EPERM"},
    {"process_vm_readv", "error=ESRCH"},
    {"process_vm_readv", "error=EINTR"},
    {"process_vm_readv", "error=EFAULT"},
    {"process_madvise", "error=EINTR"},
    {"process_madvise", "error=EAGAIN"},
    {"process_madvise", "error=EPERM"},
    {"process_madvise", "error=ESRCH"},
    {"process_madvise", "error=EIO"},
    {"getdents64", "error=EIO"},
    {"getdents64", "error=EINTR"},
    {"mmap", "error=ENOMEM"},
    {"munmap", "error=ENOMEM"},
    {"madvise", "error=ENOMEM"},
    {"mincore", "error=EAGAIN"},
    {"write", "error=EIO"},
    {"write", "error=EINTR"},
    {"write", "error=ENOSPC"},
    {"bpf", "error=EPERM"},
    {"bpf", "error=ENOMEM"},
    {"bpf", "error=EINTR"},
    {"newfstatat", "error=EIO"},
    {"fstat", "error=EIO"},
    {"fstatfs", "error=EIO"},
    {"statx", "error=EIO"},
    {"lseek", "error=EIO"},
    {"readlink", "error=EIO"},
    {"readlinkat", "error=EIO"},
    {"cachestat", "error=EIO"},
    {"cachestat", "error=EPERM"},
    {"kcmp", "error=EPERM"},
    {"memfd_create", "error=EMFILE"},
    {"pidfd_open", "error=EMFILE"},
    {"poll", "error=EINTR"},
    {"clone3", "error=EAGAIN"},
    {"clone", "error=EAGAIN"},
    {"futex", "error=EINTR"},
    {"dup", "error=EMFILE"},
    {"wait4", "error=EINTR"},
    {"pipe2", "error=EMFILE"},
    {"sched_getaffinity", "error=EPERM"},
    {"sched_setaffinity", "error=EINVAL"},
};

/// A program that has a bit of everything and stands still.
class Still {
public:
    Still() : process_({"/proc/self/exe", "--keep-still"}) {
        ready_ = process_.wait_for_line(20) == "ready";
        if (!ready_) return;
        process_.signal(SIGSTOP);
        wait_until_stopped(process_.pid());
    }
    bool ready() const { return ready_; }
    pid_t pid() const { return process_.pid(); }
    std::string pid_text() const { return std::to_string(process_.pid()); }
    /// Goes on, and finds its memory as it was.
    bool is_sound() {
        process_.signal(SIGCONT);
        process_.close_input();
        return process_.wait(20) == 0;
    }

private:
    Background process_;
    bool ready_ = false;
};

std::uint64_t number(const json& value) {
    return value.is_number() ? value.get<std::uint64_t>() : 0;
}

bool is_partial(const json& answer) {
    return std::any_of(answer["gaps"].begin(), answer["gaps"].end(),
                       [](const json& gap) { return field(gap, "incomplete") == true; });
}

/// What an answer about the same memory may not say; empty: nothing of it.
std::string wrong_figures(const json& answer, const json& whole) {
    std::ostringstream wrong;
    const auto &totals = answer["totals"], &truth = whole["totals"];
    const bool partial = is_partial(answer);
    const bool more_gaps = answer["gaps"].size() > whole["gaps"].size();
    for (const auto& [name, value] : totals["states"].items())
        if (name != "unknown_bytes" && number(value) > number(truth["states"][name]))
            wrong << "\n  more " << name << ": " << value << ", not " << truth["states"][name];
    if (!partial && totals["size_bytes"] != truth["size_bytes"])
        wrong << "\n  size " << totals["size_bytes"] << ", not " << truth["size_bytes"];
    for (const auto& [name, value] : totals["kinds"].items()) {
        const auto& known = truth["kinds"][name];
        if (value.is_null() || value == known) continue;
        // What is not told apart counts as one of these.
        const bool takes_in = name == "anon_bytes" || name == "file_bytes" ||
                              name == "shmem_bytes" || name == "special_bytes" ||
                              name == "unknown_bytes";
        if (!partial && !more_gaps)
            wrong << "\n  " << name << ' ' << value << ", not " << known << ", and no gap";
        else if (!takes_in && number(value) > number(known))
            wrong << "\n  more " << name << ": " << value << ", not " << known;
    }
    for (const char* name : {"rss_bytes", "swap_bytes", "anonymous_bytes", "ksm_bytes",
                             "anon_huge_pages_bytes", "shared_hugetlb_bytes"})
        if (!totals[name].is_null() && !truth[name].is_null() && totals[name] != truth[name])
            wrong << "\n  " << name << ' ' << totals[name] << ", not " << truth[name];
    for (const char* name : {"total_bytes", "empty_tables", "located_tables"}) {
        const auto &value = totals["page_tables"][name], &known = truth["page_tables"][name];
        if (!value.is_null() && !known.is_null() && value != known)
            wrong << "\n  page_tables." << name << ' ' << value << ", not " << known;
    }
    return wrong.str();
}

/// One command of pagesift, and what must hold of its output.
struct Command {
    std::string name;
    Words arguments;
    /// What is wrong with an answer that came with exit code 0 or 3.
    std::function<std::string(const Outcome&)> wrong;
};

json parse_one(const std::string& text) {
    const auto answer = json::parse(text, nullptr, false);
    return answer.is_array() && answer.size() == 1 ? answer[0] : json();
}

std::string wrong_inspection(const Outcome& outcome, const json& whole) {
    const json answer = parse_one(outcome.out);
    if (answer.is_null()) return "no answer";
    auto wrong = broken_invariants(answer) + wrong_figures(answer, whole);
    if (is_partial(answer) != (outcome.exit_code == 3)) wrong += "\n  exit code and gaps disagree";
    return wrong;
}

struct Tried {
    std::size_t faults = 0, right = 0, partial = 0, refused = 0;
};

/// Runs a command with one fault; what is wrong, or nothing.
std::string try_fault(const Command& command, const Fault& fault, std::size_t at, Tried& tried) {
    const auto outcome = run(with_fault(fault, at, command.arguments), {.seconds = 30});
    ++tried.faults;
    if (outcome.timed_out) return "it hangs";
    if (outcome.signal != 0) return "signal " + std::to_string(outcome.signal);
    if (outcome.err.find("strace: ") != std::string::npos)
        return "strace fails: " + outcome.err.substr(0, 300);
    if (outcome.exit_code == 0 || outcome.exit_code == 3) {
        ++(outcome.exit_code == 0 ? tried.right : tried.partial);
        return command.wrong(outcome);
    }
    ++tried.refused;
    const bool message = outcome.err.find("pagesift: ") != std::string::npos;
    if (!message && fault.call != "write") return "no message";
    return outcome.exit_code == 1 || outcome.exit_code == 2
               ? ""
               : "exit code " + std::to_string(outcome.exit_code);
}

/// @param make the command for a process, with the figures of it that nothing disturbed
/// @param most about so many places of each call, unless all are wanted
void try_all(const std::function<Command(const Still&)>& make, std::size_t most = 3) {
    auto still = std::make_unique<Still>();
    REQUIRE(still->ready());
    auto command = make(*still);
    const auto calls = count_calls(command.arguments);
    Tried tried;
    const auto begin = Clock::now();
    for (const Fault& fault : fault_list) {
        const auto found = calls.find(fault.call);
        if (found == calls.end()) continue;
        for (const std::size_t at : places(found->second, most)) {
            auto wrong = try_fault(command, fault, at, tried);
            if (!wrong.empty()) {
                // Memory may have been aged meanwhile: a process of now decides.
                CHECK(still->is_sound());
                still = std::make_unique<Still>();
                REQUIRE(still->ready());
                command = make(*still);
                wrong = try_fault(command, fault, at, tried);
            }
            CHECK_MESSAGE(wrong.empty(), command.name << ", " << fault.call << " " << fault.answer
                                                      << " at call " << at << ": " << wrong);
        }
    }
    CHECK(still->is_sound());
    const auto seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    MESSAGE(command.name << ": " << tried.faults << " faults in " << seconds
                         << " s: " << tried.right << " answers, " << tried.partial << " partial, "
                         << tried.refused << " errors");
    CHECK(tried.faults > 20);
}

json inspect_still(const Still& still, const Words& more) { return inspect(still.pid(), more); }

} // namespace

TEST_CASE("faults: inspect") {
    if (!can_inject()) return;
    for (const std::string& lens : lenses()) {
        try_all([&](const Still& still) {
            const Words how = {"--zero", "all", "--ranges", "--lens", lens};
            const json whole = inspect_still(still, how);
            Words arguments = {"inspect",  "--format", "json", "--zero", "all",
                               "--ranges", "--jobs",   "1",    "-p",     still.pid_text()};
            // The lens that is asked for by name has nothing to fall back on.
            if (lens == "proc") arguments.insert(arguments.end(), {"--lens", "proc"});
            return Command{
                lens == "proc" ? "inspect, proc lens" : "inspect", arguments,
                [whole](const Outcome& outcome) { return wrong_inspection(outcome, whole); }};
        });
    }
}

TEST_CASE("faults: inspect without newer interfaces") {
    if (!can_inject()) return;
    try_all([](const Still& still) {
        const Words how = {"--lens",    "proc",         "--without", "procmap-query",
                           "--without", "pagemap-scan", "--smaps",   "on",
                           "--without", "cachestat",    "--jobs",    "2"};
        const json whole = inspect_still(still, how);
        Words arguments = {"inspect", "--format", "json"};
        arguments.insert(arguments.end(), how.begin(), how.end());
        arguments.insert(arguments.end(), {"-p", still.pid_text()});
        return Command{"inspect, old interfaces", arguments, [whole](const Outcome& outcome) {
                           return wrong_inspection(outcome, whole);
                       }};
    });
}

TEST_CASE("faults: record") {
    if (!can_inject()) return;
    const TemporaryDirectory folder;
    const std::string file = folder.path() + "/recording";
    try_all([&](const Still& still) {
        const json whole = inspect_still(still, {});
        return Command{"record",
                       {"record", "-o", file, still.pid_text()},
                       [whole, file](const Outcome& outcome) {
                           auto replayed = run_pagesift({"inspect", "--format", "json", file});
                           if (replayed.exit_code != outcome.exit_code)
                               return "the recording is read with exit code " +
                                      std::to_string(replayed.exit_code) + ": " + replayed.err;
                           return wrong_inspection(replayed, whole);
                       }};
    });
}

TEST_CASE("faults: scan") {
    if (!can_inject()) return;
    for (const std::string depth : {"pages", "totals"}) {
        try_all(
            [&](const Still& still) {
                const Words arguments = {"scan",   "--format", "json", "--depth",       depth,
                                         "--jobs", "1",        "-p",   still.pid_text()};
                const auto record_of = [](const std::string& text) {
                    const json scan = parse_one(text);
                    const auto records = field(scan, "records");
                    return records.is_array() && records.size() == 1 ? records[0] : json();
                };
                const json whole = record_of(run_pagesift(arguments).out);
                REQUIRE(whole.is_object());
                return Command{
                    depth == "pages" ? "scan" : "scan, totals", arguments,
                    [whole, record_of](const Outcome& outcome) {
                        const json record = record_of(outcome.out);
                        if (record.is_null()) return std::string("no record");
                        std::ostringstream wrong;
                        const bool complete = record["complete"] == true;
                        if (complete != (outcome.exit_code == 0))
                            wrong << "\n  exit code and completeness disagree";
                        for (const char* name :
                             {"rss_bytes", "swap_bytes", "anonymous_bytes", "present_bytes",
                              "swapped_bytes", "none_bytes", "cached_bytes", "size_bytes",
                              "page_tables_bytes", "empty_tables"}) {
                            const json value = field(record, name), known = field(whole, name);
                            if (value.is_null() || known.is_null()) continue;
                            const bool unknown = number(field(record, "unknown_state_bytes")) >
                                                 number(field(whole, "unknown_state_bytes"));
                            if (value != known &&
                                !((unknown || !complete) && number(value) < number(known)))
                                wrong << "\n  " << name << ' ' << value << ", not " << known;
                        }
                        return wrong.str();
                    }};
            },
            depth == "pages" ? 2 : 1); // all processes are listed each time
    }
}

TEST_CASE("faults: threads that cannot be had are done without") {
    if (!can_inject()) return;
    for (const std::string call : {"clone3", "clone"})
        for (std::size_t at = 1; at <= 4; ++at) {
            const auto outcome =
                run(with_fault({call, "error=EAGAIN"}, at,
                               {"scan", "--depth", "totals", "--jobs", "4", "--format", "json"}),
                    {.seconds = 60});
            INFO(call << " at call " << at << ": " << outcome.err.substr(0, 500));
            CHECK_FALSE(outcome.timed_out);
            CHECK((outcome.exit_code == 0 || outcome.exit_code == 3));
            CHECK(field(parse_one(outcome.out), "records").is_array());
        }
}

TEST_CASE("faults: advise") {
    if (!can_inject()) return;
    for (const bool apply : {false, true}) {
        try_all([&](const Still& still) {
            Words arguments = {"advise", "cold", "--format", "json",
                               "--jobs", "1",    "-p",       still.pid_text()};
            const json plan = parse_one(run_pagesift(arguments).out);
            REQUIRE(plan.is_object());
            const auto planned = number(field(field(plan, "totals"), "bytes"));
            if (apply) arguments.push_back("--apply");
            return Command{apply ? "advise cold --apply" : "advise cold", arguments,
                           [planned, apply](const Outcome& outcome) {
                               const json answer = parse_one(outcome.out);
                               if (answer.is_null()) return std::string("no answer");
                               std::ostringstream wrong;
                               if (number(field(field(answer, "totals"), "bytes")) > planned)
                                   wrong << "\n  more is planned than there is";
                               const json effect = field(answer, "effect");
                               if (apply != effect.is_object()) wrong << "\n  no effect";
                               if (number(field(effect, "advised_bytes")) > planned)
                                   wrong << "\n  more was advised than there is";
                               return wrong.str();
                           }};
        });
    }
}

TEST_CASE("faults: cold") {
    if (!can_inject()) return;
    try_all([](const Still& still) {
        return Command{
            "cold",
            {"cold", "--window", "50ms", "--format", "json", "--jobs", "1", "-p", still.pid_text()},
            [](const Outcome& outcome) {
                const auto answer = json::parse(outcome.out, nullptr, false);
                return std::string(answer.is_array() && answer.size() == 1 ? "" : "no answer");
            }};
    });
}

TEST_CASE("faults: doctor") {
    if (!can_inject()) return;
    try_all([](const Still&) {
        return Command{"doctor", {"doctor", "--format", "json"}, [](const Outcome& outcome) {
                           const auto answer = json::parse(outcome.out, nullptr, false);
                           return std::string(answer.is_discarded() ? "no answer" : "");
                       }};
    });
}

} // namespace pagesift::live
