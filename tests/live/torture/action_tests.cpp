// SPDX-License-Identifier: MIT
// Whole actions on a victim that checks itself. PAGESIFT_TORTURE_ACTIONS and PAGESIFT_TORTURE_KILLS
// (of each kind of action) make it last until all of them are done (./dev torture);
// PAGESIFT_TORTURE_STOP is what a stop may take, in seconds.
#include "harness.hpp"
#include "torture/actions.hpp"
#include "torture/remote_tests.hpp"
#include "zoo/machine.hpp"

#include <cstdlib>
#include <optional>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

double number(const char* variable, double otherwise) {
    const char* text = std::getenv(variable);
    return text != nullptr ? std::strtod(text, nullptr) : otherwise;
}

/// All that was asked for, however long it takes.
bool full() { return std::getenv("PAGESIFT_TORTURE_ACTIONS") != nullptr; }

/// Those that this kernel has: tried on a process that has nothing to lose.
std::vector<std::string> actions() {
    std::vector<std::string> found;
    const Child child{[](const auto& ready) {
        ready();
        for (;;) ::pause();
    }};
    for (const char* action : {"pt-reclaim", "zero-drop", "merge", "unmerge"}) {
        const auto end = run_action(child.pid(), {.action = action, .max_stop = 0.5});
        if (end.kind == ActionEnd::Kind::done) {
            found.emplace_back(action);
            continue;
        }
        const auto line = end.reason.substr(0, end.reason.find('\n'));
        skip(line.substr(line.rfind(": ") + 2));
    }
    return found;
}

/// ksmd for the length of a block, where there is one: without it unmerge finds nothing.
class KsmRuns {
public:
    KsmRuns() {
        try {
            machine_.emplace();
            pages_.emplace(*machine_, "/sys/kernel/mm/ksm/pages_to_scan", "4000");
            sleep_.emplace(*machine_, "/sys/kernel/mm/ksm/sleep_millisecs", "20");
            // Of pages that change often, ksmd would pass over most (6.7).
            if (::access(smart_scan, F_OK) == 0) skipping_.emplace(*machine_, smart_scan, "0");
            run_.emplace(*machine_, "/sys/kernel/mm/ksm/run", "1");
            // Others need the machine if this lasts long.
            if (full()) machine_->release();
        } catch (const zoo::Unavailable& reason) {
            skip(reason.what());
        }
    }

private:
    static constexpr const char* smart_scan = "/sys/kernel/mm/ksm/smart_scan";
    std::optional<zoo::Machine> machine_;
    std::optional<zoo::Setting> pages_, sleep_, skipping_, run_;
};

} // namespace

TEST_CASE("remote actions: their victim notices nothing, killed or not") {
    if (!can_call()) return;
    const auto all = actions();
    if (all.empty()) return;
    const KsmRuns ksm;
    ActionGoals goals;
    goals.actions = static_cast<int>(number("PAGESIFT_TORTURE_ACTIONS", 1e6));
    goals.kills = static_cast<int>(number("PAGESIFT_TORTURE_KILLS", 1e6));
    goals.seconds = torture_seconds(full() ? 8 * 3600 : 12);
    // Other tests, and whoever uses this machine, may keep a stop from ending in time.
    goals.max_stop = number("PAGESIFT_TORTURE_STOP", full() ? 0.01 : 0.2);
    const auto end = torture_by_actions(all, goals, 4714);
    MESSAGE(end.text());
    CHECK_MESSAGE(end.toll.harmless(), end.text());
    for (const auto& action : all) {
        const ActionSum& sum = end.sums.at(action);
        CAPTURE(action);
        CHECK(sum.done > 0);
        CHECK(sum.killed() > 0);
        // Refused is who has a child that shares its memory at that moment, and little else.
        CHECK(sum.refusals() < (sum.done + sum.killed()) / 2 + 10);
    }
}

} // namespace pagesift::live
