// SPDX-License-Identifier: MIT
#include "faults.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

bool all_wanted() {
    const char* const wanted = std::getenv("PAGESIFT_FAULTS");
    return wanted != nullptr && std::string(wanted) == "all";
}

} // namespace

bool can_inject() {
    if (!have_root()) return false;
    const auto program = find_program({"/usr/bin/strace", "/bin/strace"});
    if (!program) {
        skip("strace is not installed");
        return false;
    }
    const auto outcome = run({*program, "-f", "-o", "/dev/null", "--seccomp-bpf", "-e",
                              "inject=getppid:error=EIO", "/bin/true"},
                             {.seconds = 20});
    if (outcome.exit_code == 0) return true;
    skip("strace cannot inject faults: " + outcome.err.substr(0, 200));
    return false;
}

Words strace(const Words& options, const Words& arguments) {
    static const auto program = find_program({"/usr/bin/strace", "/bin/strace"});
    REQUIRE(program);
    const char* const asan = std::getenv("ASAN_OPTIONS");
    const std::string quiet = asan == nullptr ? "" : std::string(asan) + ":";
    Words command = {*program, "-f", "-qq", "-E", "ASAN_OPTIONS=" + quiet + "detect_leaks=0"};
    command.insert(command.end(), options.begin(), options.end());
    command.push_back(program_of("PAGESIFT_BIN"));
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
}

Words with_fault(const Fault& fault, std::size_t nth, const Words& arguments) {
    const auto inject =
        "inject=" + fault.call + ':' + fault.answer + ":when=" + std::to_string(nth);
    return strace({"-o", "/dev/null", "--seccomp-bpf", "-e", "trace=" + fault.call, "-e", inject},
                  arguments);
}

std::map<std::string, Calls> count_calls(const Words& arguments) {
    const TemporaryDirectory folder;
    const std::string file = folder.path() + "/calls";
    const auto outcome = run(strace({"-o", file}, arguments), {.seconds = 60});
    REQUIRE_MESSAGE(!outcome.timed_out, outcome.err.substr(0, 1000));
    std::map<std::string, std::map<std::string, std::size_t>> counts; // by name and thread
    std::map<std::string, Calls> calls;
    bool in_main = false;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const auto space = line.find_first_of(" ");
        const auto begin = line.find_first_not_of(" ", space);
        const auto end = line.find('(', begin == line.npos ? 0 : begin);
        if (space == line.npos || begin == line.npos || end == line.npos) continue;
        const std::string name = line.substr(begin, end - begin);
        if (name.find_first_of(" <+-") != name.npos) continue; // resumed, a signal, an exit
        // The first thing that main() does with files.
        in_main = in_main || line.find("\"/\", O_RDONLY|O_CLOEXEC|O_PATH") != line.npos ||
                  line.find("\"/\", O_RDONLY|O_PATH|O_DIRECTORY|O_CLOEXEC") != line.npos ||
                  (name == "openat" && line.find(" \"/\", ") != line.npos) ||
                  (name == "openat" && line.find(", \"/\", ") != line.npos);
        auto& count = counts[name][line.substr(0, space)];
        calls[name].all = std::max(calls[name].all, ++count);
        if (!in_main) ++calls[name].before_main;
    }
    CHECK(in_main);
    return calls;
}

std::vector<std::size_t> places(const Calls& calls, std::size_t most) {
    std::vector<std::size_t> chosen;
    if (calls.all <= calls.before_main) return chosen;
    const std::size_t first = calls.before_main + 1, last = calls.all;
    const std::size_t step = all_wanted() ? 1 : std::max<std::size_t>(1, (last - first + 1) / most);
    for (std::size_t at = first; at <= last; at += step) chosen.push_back(at);
    return chosen;
}

} // namespace pagesift::live
