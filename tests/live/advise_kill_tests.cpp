// SPDX-License-Identifier: MIT
// pagesift is killed outright while it acts on a process, again and again: the process carries on,
// and its memory holds what it wrote.
#include "advise.hpp"
#include "harness.hpp"
#include "worker/fixture.hpp"
#include "zoo/machine.hpp"
#include "zoo/witness.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

using Clock = std::chrono::steady_clock;

/// PAGESIFT_KILL_SECONDS makes it a long test.
std::chrono::seconds length_of_torture() {
    const char* wanted = std::getenv("PAGESIFT_KILL_SECONDS");
    return std::chrono::seconds{wanted != nullptr ? std::strtol(wanted, nullptr, 10) : 5};
}

using Actions = std::vector<std::vector<std::string>>;

/// Those that this kernel takes.
Actions find_actions() {
    Actions actions = {
        {"pageout"},
        {"willneed"},
        {"cold"},
        {"collapse",
         "--force-fill"}, // small pages are not worth it, but it is work to be killed in
    };
    std::erase_if(actions, [](const auto& action) { return !takes(action[0]); });
    return actions;
}

std::vector<std::string> command_of(const std::vector<std::string>& action, pid_t pid) {
    std::vector<std::string> command = {program_of("PAGESIFT_BIN"), "advise"};
    command.insert(command.end(), action.begin(), action.end());
    command.insert(command.end(), {"--apply", "--quiet", "--format", "json", "-o", "/dev/null",
                                   std::to_string(pid)});
    return command;
}

constexpr int least_kills = 5;

struct Tally {
    int killed = 0, ended = 0, failed = 0;
};

/// Starts an action and kills it after @p delay, unless it has ended by itself.
void start_and_kill(const std::vector<std::string>& action, pid_t pid, double delay, Tally& tally) {
    Background program(command_of(action, pid));
    usleep(static_cast<useconds_t>(delay * 1e6));
    program.signal(SIGKILL);
    const int status = program.wait(30);
    if (WIFSIGNALED(status)) {
        CHECK(WTERMSIG(status) == SIGKILL);
        ++tally.killed;
        return;
    }
    ++tally.ended;
    tally.failed += WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3;
}

} // namespace

TEST_CASE("advise kill: a kill at any moment loses nothing") {
    if (!have_root()) return;
    const Actions actions = find_actions();
    if (actions.empty()) return;
    release_zoo();
    zoo::Machine machine;
    try {
        machine.add_swap_file(std::uint64_t{256} << 20);
    } catch (const zoo::Unavailable& reason) {
        return skip(std::string("no swap file: ") + reason.what());
    }
    machine.release();
    WorkerProcess worker({"--no-tight", "--warm-period", "0.5"});
    REQUIRE(worker.ready());
    const auto out = zoo::witness::vmstat("pswpout");

    // How long each of them takes when it is left alone.
    std::vector<double> length(actions.size());
    for (std::size_t i = 0; i < actions.size(); ++i) {
        const auto began = Clock::now();
        const auto outcome = run(command_of(actions[i], worker.pid()));
        CHECK_MESSAGE((outcome.exit_code == 0 || outcome.exit_code == 3),
                      actions[i][0] << ": exit code " << outcome.exit_code << ": " << outcome.err);
        length[i] = std::chrono::duration<double>(Clock::now() - began).count();
    }

    std::mt19937 random{4711};
    std::vector<Tally> tallies(actions.size());
    const auto killed = [&] {
        return std::accumulate(tallies.begin(), tallies.end(), 0,
                               [](int sum, const Tally& one) { return sum + one.killed; });
    };
    // An emulated machine has not done much by then.
    for (const auto end = Clock::now() + length_of_torture(), last = end + std::chrono::minutes{1};
         Clock::now() < end || (killed() < least_kills && Clock::now() < last);) {
        const std::size_t i = random() % actions.size();
        const double delay = length[i] * std::uniform_real_distribution<>{0, 1.1}(random);
        start_and_kill(actions[i], worker.pid(), delay, tallies[i]);
        REQUIRE(kill(worker.pid(), 0) == 0);
    }
    int ended = 0;
    for (std::size_t i = 0; i < actions.size(); ++i) {
        const Tally& one = tallies[i];
        MESSAGE(actions[i][0] << ": " << one.killed << " killed, " << one.ended << " ended, "
                              << length[i] << " s alone");
        CHECK(one.failed == 0);
        ended += one.ended;
    }
    CHECK(killed() > ended / 4);
    CHECK(killed() >= least_kills);
    CHECK(zoo::witness::vmstat("pswpout") > out);
    worker.finish(); // compares every page
}

} // namespace pagesift::live
