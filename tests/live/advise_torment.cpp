// SPDX-License-Identifier: MIT
#include "advise_torment.hpp"

#include "zoo/witness.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <vector>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

const std::vector<std::string> from_inside = {"pt-reclaim", "zero-drop", "merge", "unmerge"};

bool is_from_inside(const std::string& action) {
    return std::find(from_inside.begin(), from_inside.end(), action) != from_inside.end();
}

/// In the order of a round: what is paged out leaves page tables empty where memory is shared.
const std::vector<std::string>& actions() {
    static const auto found = [] {
        std::vector<std::string> all = {"pageout", "pt-reclaim", "willneed",  "merge",
                                        "cold",    "unmerge",    "zero-drop", "collapse"};
        std::erase_if(all, [](const std::string& action) {
            return is_from_inside(action) ? !can_do(action.c_str()) : !takes(action);
        });
        return all;
    }();
    return found;
}

std::vector<pid_t> with_children(pid_t pid) {
    std::vector<pid_t> all{pid};
    std::ifstream in("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
    for (pid_t child = 0; in >> child;) all.push_back(child);
    return all;
}

/// A refusal that says "not now": the program goes on, and may be asked again.
bool is_for_now(const std::string& said) {
    for (const char* words : {"did not stop in time", "open files of its own", "try again",
                              "no such process", "has ended", "another one has its number"})
        if (said.find(words) != std::string::npos) return true;
    return false;
}

std::uint64_t number(const json& object, const char* name) {
    const json value = field(object, name);
    return value.is_number() ? value.get<std::uint64_t>() : 0;
}

void add(Torment::Sum& sum, const json& answers) {
    if (!answers.is_array()) return;
    for (const json& process : answers) {
        const json effect = field(process, "effect");
        sum.advised_bytes += number(effect, "advised_bytes");
        sum.moved_bytes += number(effect, "moved_bytes");
        const json stops = field(effect, "stops");
        if (stops.is_object())
            sum.longest_stop = std::max(sum.longest_stop, stops.value("longest_seconds", 0.0));
    }
}

void act(const std::string& action, pid_t pid, Torment::Sum& sum) {
    std::vector<std::string> arguments = {"advise", action, "--apply", "--format", "json"};
    if (is_from_inside(action)) arguments.insert(arguments.end(), {"--max-stop", "200ms"});
    if (action == "collapse") arguments.emplace_back("--force-fill");
    for (const pid_t one : with_children(pid)) arguments.push_back(std::to_string(one));
    const auto outcome = run_pagesift(arguments);
    ++sum.times;
    add(sum, json::parse(outcome.out, nullptr, false));
    // A child may be gone meanwhile: then the answer is in part.
    if (outcome.exit_code == 0 || outcome.exit_code == 3) return;
    ++sum.refused;
    CHECK_MESSAGE((outcome.exit_code == 1 && is_for_now(outcome.err)),
                  action << ": exit code " << outcome.exit_code << ", signal " << outcome.signal
                         << ": " << outcome.err.substr(0, 2000));
}

} // namespace

Rack::Rack() {
    if (actions().empty()) return;
    release_zoo();
    try {
        machine_ = std::make_unique<zoo::Machine>();
        machine_->add_swap(std::uint64_t{512} << 20);
        ksm_ = std::make_unique<Ksm>(*machine_);
        ready_ = true;
    } catch (const zoo::Unavailable& reason) {
        skip(std::string("no swap, or no KSM: ") + reason.what());
    }
}

double torment_seconds() {
    const char* wanted = std::getenv("PAGESIFT_PROGRAM_SECONDS");
    return wanted != nullptr ? std::strtod(wanted, nullptr) : 2.5;
}

Torment torment(pid_t pid) {
    using Clock = std::chrono::steady_clock;
    Torment toll;
    const auto out = witness::vmstat("pswpout"), in = witness::vmstat("pswpin");
    const auto end = Clock::now() + std::chrono::duration<double>(torment_seconds());
    for (; Clock::now() < end || toll.rounds < 2; ++toll.rounds)
        for (const auto& action : actions()) {
            act(action, pid, toll.sums[action]);
            REQUIRE(kill(pid, 0) == 0);
        }
    toll.paged_out = witness::vmstat("pswpout") - out;
    toll.paged_in = witness::vmstat("pswpin") - in;
    return toll;
}

void check_moved(const Torment& toll) {
    std::ostringstream text;
    text << toll.rounds << " rounds, " << toll.paged_out << " pages out, " << toll.paged_in
         << " pages in" << std::setprecision(3);
    for (const auto& [action, sum] : toll.sums) {
        text << "; " << action << ": " << sum.times << " times, " << (sum.moved_bytes >> 10)
             << " KiB of " << (sum.advised_bytes >> 10) << " KiB, refused " << sum.refused;
        if (sum.longest_stop > 0) text << ", stops up to " << sum.longest_stop * 1e3 << " ms";
        CHECK_MESSAGE(sum.refused < sum.times, action << " never succeeded");
    }
    MESSAGE(text.str());
    CHECK(toll.paged_out > 1000);
    CHECK(toll.paged_in > 1000);
    for (const char* action : {"zero-drop", "merge"})
        if (const auto found = toll.sums.find(action); found != toll.sums.end())
            CHECK_MESSAGE(found->second.moved_bytes > 0, action);
}

} // namespace pagesift::live
