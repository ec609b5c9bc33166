// SPDX-License-Identifier: MIT
#include "torture/actions.hpp"

#include "harness.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <fcntl.h>
#include <iomanip>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sstream>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

// One action --------------------------------------------------------------------------------------

namespace {

std::vector<std::string> command_of(pid_t target, const ActionPlan& plan, const std::string& out) {
    return {program_of("PAGESIFT_BIN"),
            "advise",
            plan.action,
            "--apply",
            "--quiet",
            "--max-stop",
            std::to_string(static_cast<int>(plan.max_stop * 1e3)) + "ms",
            "--format",
            "json",
            "-o",
            out,
            std::to_string(target)};
}

[[noreturn]] void execute(const std::vector<std::string>& command, int words) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(words, STDERR_FILENO);
    std::vector<char*> arguments;
    for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(99);
}

/// From here on the calls that have an effect on another process are told to the tracer.
void announce_calls() {
    std::vector<sock_filter> program{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    for (const long number : {SYS_ptrace, SYS_pwrite64, SYS_process_vm_writev, SYS_kill, SYS_wait4,
                              SYS_process_vm_readv}) {
        program.push_back(
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1));
        program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    sock_fprog all{static_cast<unsigned short>(program.size()), program.data()};
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) != 0) ::_exit(98);
}

/// Starts the program and kills it before one of its calls. Exits as it does, or with 100 when it
/// was killed. A process of its own, because it waits for whatever there is.
[[noreturn]] void trace_and_kill(const std::vector<std::string>& command, const ActionPlan& plan,
                                 int words) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const pid_t tool = ::fork();
    if (tool == 0) {
        ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        ::raise(SIGSTOP);
        announce_calls();
        execute(command, words);
    }
    int status = 0;
    ::waitpid(tool, &status, 0);
    const long options = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                         PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP;
    ::ptrace(PTRACE_SETOPTIONS, tool, nullptr, options);
    ::ptrace(PTRACE_CONT, tool, nullptr, nullptr);
    for (int calls = 0;;) {
        const pid_t who = ::waitpid(-1, &status, __WALL);
        if (who < 0) ::_exit(97);
        if (!WIFSTOPPED(status)) {
            if (who == tool) ::_exit(WIFSIGNALED(status) ? 100 : WEXITSTATUS(status));
            continue;
        }
        const int event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP && ++calls == plan.kill_at_call) {
            for (const double end = seconds_now() + plan.call_delay_us * 1e-6; seconds_now() < end;)
                continue;
            ::kill(tool, SIGKILL);
            continue;
        }
        const int signal = WSTOPSIG(status);
        const bool real = event == 0 && signal != SIGSTOP && signal != SIGTRAP;
        ::ptrace(PTRACE_CONT, who, nullptr, real ? signal : 0);
    }
}

void read_effect(const std::string& path, ActionEnd& end) {
    const auto answer = json::parse(read_file(path), nullptr, false);
    if (!answer.is_array() || answer.empty()) return;
    const json effect = field(answer[0], "effect");
    const auto bytes = [&](const char* name) {
        const json value = field(effect, name);
        return value.is_number() ? value.get<std::uint64_t>() : 0;
    };
    end.advised_bytes = bytes("advised_bytes");
    end.moved_bytes = bytes("moved_bytes");
    const json stops = field(effect, "stops");
    if (!stops.is_object()) return;
    end.stops = stops.value("count", 0);
    end.longest_stop = stops.value("longest_seconds", 0.0);
    end.total_stop = stops.value("total_seconds", 0.0);
}

} // namespace

ActionEnd run_action(pid_t target, const ActionPlan& plan) {
    static const TemporaryDirectory directory;
    const std::string answer = directory.path() + "/answer", said = directory.path() + "/said";
    const auto command = command_of(target, plan, answer);
    const int words = ::open(said.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    REQUIRE(words >= 0);
    const double began = seconds_now();
    const pid_t started = ::fork();
    REQUIRE(started >= 0);
    if (started == 0) {
        if (plan.kill_at_call > 0) trace_and_kill(command, plan, words);
        execute(command, words);
    }
    ::close(words);
    ActionEnd end;
    if (plan.kill_after > 0) {
        while (seconds_now() < began + plan.kill_after) nap(50);
        ::kill(started, SIGKILL);
    }
    const auto ended = wait_for_end(started, 30, 200);
    const int status = ended.value_or(0);
    end.seconds = seconds_now() - began;
    if (!ended)
        end.kind = ActionEnd::Kind::hung;
    else if (WIFSIGNALED(status) || WEXITSTATUS(status) == 100)
        end.kind = ActionEnd::Kind::killed;
    else if (WEXITSTATUS(status) == 3)
        end.kind = ActionEnd::Kind::in_part;
    else if (WEXITSTATUS(status) != 0)
        end.kind = ActionEnd::Kind::refused;
    end.reason = read_file(said);
    if (end.kind == ActionEnd::Kind::refused)
        end.reason = "exit " + std::to_string(WEXITSTATUS(status)) + ": " + end.reason;
    if (end.kind == ActionEnd::Kind::done || end.kind == ActionEnd::Kind::in_part)
        read_effect(answer, end);
    return end;
}

// Many of them ------------------------------------------------------------------------------------

namespace {

class ActionSession {
public:
    ActionSession(ActionGoals goals, std::uint64_t seed)
        : goals_(goals), random_(seed), victim_(std::make_unique<Victim>(VictimKind::advised)) {}

    /// @param late no more than it takes
    void run_round(const std::string& action, bool late) {
        ActionSum& sum = toll_.sums[action];
        if (sum.acted < goals_.actions) leave_alone(action, sum);
        if (!wants_kills(sum)) return;
        kill_at_call(action, sum);
        if (!late || sum.killed() == 0) kill_at_random(action, sum);
    }
    /// Each of them came to its end once, and was killed once.
    bool has_all(const std::vector<std::string>& actions) const {
        return std::all_of(actions.begin(), actions.end(), [&](const std::string& action) {
            const auto found = toll_.sums.find(action);
            return found != toll_.sums.end() && found->second.done > 0 &&
                   found->second.killed() > 0;
        });
    }
    bool is_done(const std::string& action) const {
        const auto found = toll_.sums.find(action);
        return found != toll_.sums.end() && !wants_kills(found->second) &&
               found->second.acted >= goals_.actions;
    }
    ActionToll finish() {
        look();
        return std::move(toll_);
    }

private:
    bool wants_kills(const ActionSum& sum) const { return sum.killed() < goals_.kills; }

    void kill_at_call(const std::string& action, ActionSum& sum) {
        int& call = calls_[action];
        ActionPlan plan{action, goals_.max_stop};
        // The first one is somewhere, for sessions that do not get through all of them.
        plan.kill_at_call = call = call == 0 ? static_cast<int>(next() % 100) + 1 : call;
        plan.call_delay_us = next() % 2 == 0 ? 0 : static_cast<unsigned>(next() % 300);
        const auto end = run_action(victim_->pid(), plan);
        const bool killed = note(end, sum);
        sum.killed_at_call += killed ? 1 : 0;
        if (killed) sum.last_call = std::max(sum.last_call, call);
        // Past the last call it is done: from the beginning. Most of the calls of a long action are
        // alike, so the later ones are taken at random.
        if (killed)
            call += call < 200 ? 1 : static_cast<int>(next() % 50) + 1;
        else if (end.stops > 0 || end.kind == ActionEnd::Kind::refused)
            call = 1;
        look();
    }
    void kill_at_random(const std::string& action, ActionSum& sum) {
        ActionPlan plan{action, goals_.max_stop};
        const double typical = std::max(typical_[action], 0.005);
        plan.kill_after = typical * 1.1 * static_cast<double>(next() % 1000 + 1) / 1000;
        sum.killed_at_random += note(run_action(victim_->pid(), plan), sum) ? 1 : 0;
        look();
    }
    void leave_alone(const std::string& action, ActionSum& sum) {
        const auto end = run_action(victim_->pid(), {action, goals_.max_stop});
        sum.ended_itself += note(end, sum) ? 1 : 0;
        double& typical = typical_[action];
        typical = typical == 0 ? end.seconds : typical * 0.8 + end.seconds * 0.2;
        if (++unwatched_ >= 10) look();
    }

    /// Whether it was killed.
    bool note(const ActionEnd& end, ActionSum& sum) {
        ++toll_.toll.runs;
        switch (end.kind) {
        case ActionEnd::Kind::killed: ++toll_.toll.killed; return true;
        case ActionEnd::Kind::hung: ++toll_.toll.deaths["pagesift hung"]; break;
        case ActionEnd::Kind::refused: ++sum.refused[without_numbers(end.reason)]; break;
        case ActionEnd::Kind::in_part: ++sum.in_part; [[fallthrough]];
        case ActionEnd::Kind::done:
            ++toll_.toll.done;
            ++sum.done;
            sum.advised_bytes += end.advised_bytes;
            sum.moved_bytes += end.moved_bytes;
            sum.acted += end.stops > 0 ? 1 : 0;
            sum.stops += static_cast<std::uint64_t>(end.stops);
            if (end.stops > 0) sum.longest_stops.push_back(end.longest_stop);
            sum.late += end.longest_stop > goals_.max_stop ? 1 : 0;
            break;
        }
        return false;
    }

    void look() {
        unwatched_ = 0;
        const auto trouble = victim_->trouble();
        absorb(victim_->report(), toll_.toll);
        if (trouble.empty()) return;
        ++toll_.toll.deaths[trouble];
        victim_ = std::make_unique<Victim>(VictimKind::advised);
    }

    std::uint64_t next() { return next_random(random_); }

    ActionGoals goals_;
    std::uint64_t random_;
    std::unique_ptr<Victim> victim_;
    ActionToll toll_;
    std::map<std::string, int> calls_;
    std::map<std::string, double> typical_;
    int unwatched_ = 0;
};

} // namespace

ActionToll torture_by_actions(const std::vector<std::string>& actions, const ActionGoals& goals,
                              std::uint64_t seed) {
    ActionSession session{goals, seed};
    // A slow machine does not get far.
    for (const double end = seconds_now() + goals.seconds;
         seconds_now() < end || (seconds_now() < end + 60 && !session.has_all(actions));) {
        bool done = true;
        for (const auto& action : actions) {
            if (session.is_done(action)) continue;
            session.run_round(action, seconds_now() > end);
            done = false;
        }
        if (done) break;
    }
    return session.finish();
}

int ActionSum::refusals() const {
    int sum = 0;
    for (const auto& [reason, times] : refused) sum += times;
    return sum;
}

double ActionSum::longest_stop() const {
    return longest_stops.empty() ? 0
                                 : *std::max_element(longest_stops.begin(), longest_stops.end());
}

double ActionSum::percentile(double share) const {
    if (longest_stops.empty()) return 0;
    auto sorted = longest_stops;
    std::sort(sorted.begin(), sorted.end());
    const auto rank = static_cast<std::size_t>(share * static_cast<double>(sorted.size()));
    return sorted[std::min(rank, sorted.size() - 1)];
}

std::string ActionSum::text() const {
    std::ostringstream out;
    out << std::fixed << std::setprecision(2) << done << " done (" << in_part << " in part, "
        << acted << " with something to do), " << ended_itself << " ended by itself, "
        << killed_at_call << " killed at a call (up to number " << last_call << "), "
        << killed_at_random << " killed at random, " << (moved_bytes >> 10) << " KiB of "
        << (advised_bytes >> 10) << " KiB, " << stops
        << " stops; the longest of each action: " << percentile(0.5) * 1e3 << " ms (median), "
        << percentile(0.99) * 1e3 << " ms (p99), " << longest_stop() * 1e3 << " ms (longest), "
        << late << " times beyond the limit";
    for (const auto& [reason, times] : refused) out << "; " << times << " x " << reason;
    return out.str();
}

std::string ActionToll::text() const {
    std::string text = toll.text();
    for (const auto& [action, sum] : sums) text += "\n  " + action + ": " + sum.text();
    return text;
}

} // namespace pagesift::live
