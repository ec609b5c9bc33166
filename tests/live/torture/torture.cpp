// SPDX-License-Identifier: MIT
#include "torture/torture.hpp"

#include "harness.hpp"
#include "pagesift/remote.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <new>
#include <set>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <doctest/doctest.h>

namespace pagesift::live {

// The victim --------------------------------------------------------------------------------------

Victim::Victim(VictimKind kind)
    : report_(new (::mmap(nullptr, sizeof(VictimReport), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0)) VictimReport{}) {
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) run_victim(*report_, kind);
    for (const double end = seconds_now() + 30; report_->ready == 0;) {
        REQUIRE(seconds_now() < end);
        nap(500);
    }
    nap(20000);
}

Victim::~Victim() {
    ::kill(pid_, SIGKILL);
    if (!reaped_) ::waitpid(pid_, nullptr, 0);
    ::munmap(report_, sizeof(VictimReport));
}

std::optional<std::string> Victim::ended() {
    if (!reaped_) reaped_ = ::waitpid(pid_, &status_, WNOHANG) == pid_;
    if (!reaped_) return {};
    return WIFSIGNALED(status_) ? "signal " + std::to_string(WTERMSIG(status_))
                                : "exit " + std::to_string(WEXITSTATUS(status_));
}

std::string Victim::trouble(double seconds) {
    const int threads = report_->threads;
    std::vector<std::uint64_t> before;
    for (int i = 0; i < threads; ++i) before.push_back(report_->ledgers[i].turns);
    for (const double end = seconds_now() + seconds;; nap(300)) {
        if (const auto end_of_it = ended()) return "victim ended: " + *end_of_it;
        int waiting = -1;
        for (int i = 0; i < threads; ++i)
            if (report_->ledgers[i].turns == before[static_cast<std::size_t>(i)]) waiting = i;
        if (waiting < 0) return {};
        if (seconds_now() > end)
            return std::string{"thread stands: "} + report_->ledgers[waiting].name;
    }
}

std::uint64_t start_time(pid_t pid) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/stat"};
    std::string text{std::istreambuf_iterator<char>{file}, {}};
    std::istringstream rest{text.substr(text.rfind(')') + 1)};
    std::string field;
    for (int i = 3; i <= 22; ++i) rest >> field;
    return std::strtoull(field.c_str(), nullptr, 10);
}

// The tool ----------------------------------------------------------------------------------------

namespace {

constexpr int exit_refused = 3;

/// Dies after a certain step, as if killed there by somebody else.
class StepCounter {
public:
    explicit StepCounter(const ToolPlan& plan) : plan_(plan) {}
    void count() {
        if (++steps_ != plan_.kill_at_step) return;
        for (const double end = seconds_now() + plan_.step_delay_us * 1e-6; seconds_now() < end;)
            continue;
        ::kill(::getpid(), SIGKILL);
        for (;;) ::pause();
    }

private:
    ToolPlan plan_;
    int steps_ = 0;
};

/// MADV_DONTNEED of all slots that are empty, neighbours in one call.
void reclaim_slots(os::StoppedProcess& stopped, const VictimReport& report) {
    AddressRange run;
    const auto call = [&] {
        if (!run.empty() && stopped.advise(run, MADV_DONTNEED) != 0) _exit(9);
    };
    for (int i = 0; i < report.slots; ++i) {
        const Address start{report.slots_address +
                            static_cast<std::uint64_t>(i) * report.slot_bytes};
        const AddressRange slot{start, start + Bytes{report.slot_bytes}};
        if (!stopped.is_empty(slot)) continue;
        if (run.end == slot.start && !run.empty()) {
            run.end = slot.end;
            continue;
        }
        call();
        run = slot;
    }
    call();
}

[[noreturn]] void be_tool(const Victim& victim, const ToolPlan& plan, int ready, int words) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (plan.processor) bind_to_processor(*plan.processor);
    const VictimReport& report = victim.report();
    StepCounter counter{plan};
    std::string reason;
    try {
        if (plan.way == ToolPlan::Way::naive) {
            (void)!::write(ready, "r", 1);
            call_naively(victim.pid(), plan.thread, report.slots_address, report.slot_bytes,
                         MADV_NORMAL, [&] { counter.count(); });
            _exit(0);
        }
        os::RemoteTarget target{static_cast<std::uint32_t>(victim.pid()), start_time(victim.pid())};
        os::StopOptions options;
        options.patience = std::chrono::seconds{2};
        options.dead_man = std::chrono::seconds{8};
        options.thread = static_cast<std::uint32_t>(plan.thread);
        bool begun = false;
        options.after_step = [&](std::string_view) {
            if (!std::exchange(begun, true)) (void)!::write(ready, "r", 1);
            counter.count();
        };
        const auto stop = target.with_all_stopped(
            [&](os::StoppedProcess& stopped) { reclaim_slots(stopped, report); }, options);
        const auto text = std::to_string(stop.stopped.count());
        (void)!::write(words, text.data(), text.size());
        _exit(0);
    } catch (const std::exception& error) {
        reason = error.what();
    }
    (void)!::write(words, reason.data(), reason.size());
    _exit(exit_refused);
}

} // namespace

std::optional<int> wait_for_end(pid_t process, double seconds, unsigned pause_us) {
    int status = 0;
    for (const double end = seconds_now() + seconds; ::waitpid(process, &status, WNOHANG) == 0;) {
        if (seconds_now() > end) {
            ::kill(process, SIGKILL);
            ::waitpid(process, nullptr, 0);
            return {};
        }
        nap(pause_us);
    }
    return status;
}

ToolEnd run_tool(const Victim& victim, const ToolPlan& plan) {
    std::array<int, 2> ready{}, words{};
    REQUIRE(::pipe2(ready.data(), O_CLOEXEC) == 0);
    REQUIRE(::pipe2(words.data(), O_CLOEXEC) == 0);
    const pid_t tool = ::fork();
    REQUIRE(tool >= 0);
    if (tool == 0) be_tool(victim, plan, ready[1], words[1]);
    ::close(ready[1]);
    ::close(words[1]);
    char byte = 0;
    const bool began = ::read(ready[0], &byte, 1) == 1;
    const double start = seconds_now();
    if (began && plan.kill_after_us) {
        while (seconds_now() < start + *plan.kill_after_us * 1e-6) continue;
        ::kill(tool, SIGKILL);
    }
    ToolEnd end;
    const auto ended = wait_for_end(tool, 10, 30);
    const int status = ended.value_or(0);
    end.seconds = seconds_now() - start;
    std::array<char, 400> text{};
    const auto got = ::read(words[0], text.data(), text.size());
    if (got > 0) end.reason.assign(text.data(), static_cast<std::size_t>(got));
    ::close(ready[0]);
    ::close(words[0]);
    if (!ended)
        end.kind = ToolEnd::Kind::hung;
    else if (WIFSIGNALED(status))
        end.kind = ToolEnd::Kind::killed;
    else if (WEXITSTATUS(status) != 0)
        end.kind = ToolEnd::Kind::refused;
    if (end.kind == ToolEnd::Kind::done)
        end.stopped = std::strtod(end.reason.c_str(), nullptr) * 1e-9;
    if (end.kind == ToolEnd::Kind::refused && end.reason.empty())
        end.reason = "exit " + std::to_string(WEXITSTATUS(status));
    return end;
}

// The session -------------------------------------------------------------------------------------

std::string without_numbers(std::string text) {
    std::string result;
    for (const char c : text) {
        if (std::isdigit(static_cast<unsigned char>(c)) == 0)
            result += c;
        else if (result.empty() || result.back() != 'N')
            result += 'N';
    }
    return result;
}

void absorb(VictimReport& report, Toll& toll) {
    for (int i = 0; i < report.threads; ++i) {
        Ledger& ledger = report.ledgers[i];
        if (const auto wrong = ledger.wrong.exchange(0))
            toll.wrong[std::string{ledger.name} + ", " + std::to_string(ledger.what)] += wrong;
        const auto interrupted = ledger.interrupted.exchange(0);
        if (!ledger.interruption_is_normal) toll.interrupted += interrupted;
        toll.lost += ledger.lost.exchange(0);
    }
    toll.rseq_aborts += report.rseq_aborts.exchange(0);
}

namespace {

std::set<int> children_of(pid_t parent) {
    std::set<int> children;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
        const auto name = entry.path().filename().string();
        if (std::isdigit(static_cast<unsigned char>(name[0])) == 0) continue;
        std::ifstream file{entry.path() / "stat"};
        std::string text{std::istreambuf_iterator<char>{file}, {}};
        const auto bracket = text.rfind(')');
        if (bracket == std::string::npos) continue;
        std::istringstream rest{text.substr(bracket + 1)};
        char state = 0;
        int its_parent = 0;
        if (rest >> state >> its_parent && its_parent == parent) children.insert(std::stoi(name));
    }
    return children;
}

class Session {
public:
    Session(ToolPlan::Way way, VictimKind kind, std::uint64_t seed)
        : way_(way), kind_(kind), random_(seed), victim_(std::make_unique<Victim>(kind)) {}

    /// One run, and what came of it.
    ToolEnd run(ToolPlan plan) {
        VictimReport& report = victim_->report();
        const auto which = next_random(random_) % static_cast<std::uint64_t>(report.threads + 1);
        if (way_ == ToolPlan::Way::naive || which < static_cast<std::uint64_t>(report.threads))
            plan.thread = report.ledgers[which % static_cast<std::uint64_t>(report.threads)].thread;
        if (kind_ == VictimKind::racing) {
            plan.thread = report.ledgers[1].thread; // the one that sleeps
            plan.processor = 0;
        }
        plan.way = way_;
        const ToolEnd end = run_tool(*victim_, plan);
        note(end);
        nap(300);
        const auto trouble = victim_->trouble();
        absorb(victim_->report(), toll_);
        if (!trouble.empty()) ++toll_.deaths[trouble];
        if (!trouble.empty() || end.reason.find("room") != std::string::npos)
            victim_ = std::make_unique<Victim>(kind_);
        return end;
    }

    std::uint64_t random() { return next_random(random_); }
    int done() const { return toll_.done; }

    Toll finish() {
        nap(50000);
        auto left = children_of(victim_->pid());
        nap(200000);
        for (const int child : children_of(victim_->pid()))
            if (left.count(child) != 0) ++toll_.left_children;
        const auto trouble = victim_->trouble();
        if (!trouble.empty()) ++toll_.deaths[trouble];
        absorb(victim_->report(), toll_);
        std::sort(stops_.begin(), stops_.end());
        if (!stops_.empty()) {
            toll_.median_stop = stops_[stops_.size() / 2];
            toll_.longest_stop = stops_.back();
        }
        return toll_;
    }

private:
    void note(const ToolEnd& end) {
        ++toll_.runs;
        switch (end.kind) {
        case ToolEnd::Kind::killed: ++toll_.killed; break;
        case ToolEnd::Kind::done:
            ++toll_.done;
            stops_.push_back(end.stopped);
            break;
        case ToolEnd::Kind::refused: ++toll_.refused[without_numbers(end.reason)]; break;
        case ToolEnd::Kind::hung: ++toll_.deaths["the tool hung"]; break;
        }
    }

    ToolPlan::Way way_;
    VictimKind kind_;
    std::uint64_t random_;
    std::unique_ptr<Victim> victim_;
    Toll toll_;
    std::vector<double> stops_;
};

} // namespace

std::string Toll::text() const {
    std::ostringstream out;
    out << runs << " runs: " << killed << " killed, " << done << " done";
    for (const auto& [reason, times] : refused)
        out << ", " << times << " refused (" << reason << ")";
    out << "; victims: " << deaths.size() << " kinds of death";
    for (const auto& [death, times] : deaths) out << " [" << times << " x " << death << "]";
    for (const auto& [what, times] : wrong) out << " [" << times << " x wrong: " << what << "]";
    out << ", EINTR " << interrupted << ", writes lost " << lost << ", children left "
        << left_children << ", rseq aborts " << rseq_aborts << ", stops of "
        << static_cast<int>(median_stop * 1e6) << " us (median) to "
        << static_cast<int>(longest_stop * 1e6) << " us";
    return out.str();
}

Toll torture(double seconds, ToolPlan::Way way, VictimKind kind, std::uint64_t seed) {
    Session session{way, kind, seed};
    double typical = 0.002;
    const auto uncut = [&] {
        const auto end = session.run({});
        if (end.kind == ToolEnd::Kind::done)
            typical = std::clamp(typical * 0.8 + end.seconds * 0.2, 0.0005, 0.05);
    };
    uncut();
    // A slow machine does not get far.
    int step = static_cast<int>(session.random() % 10) + 1;
    for (const double end = seconds_now() + seconds; seconds_now() < end;) {
        ToolPlan at_step;
        at_step.kill_at_step = step;
        at_step.step_delay_us =
            session.random() % 2 == 0 ? 0 : static_cast<unsigned>(session.random() % 150);
        // Past the last step it is done: from the beginning.
        step = session.run(at_step).kind == ToolEnd::Kind::killed ? step + 1 : 1;
        ToolPlan at_random;
        at_random.kill_after_us =
            static_cast<unsigned>(session.random() % static_cast<unsigned>(typical * 1.1e6));
        session.run(at_random);
        if (session.random() % 8 != 0) continue;
        uncut();
    }
    for (int tries = 0; tries < 10 && session.done() == 0; ++tries) uncut();
    return session.finish();
}

double torture_seconds(double otherwise) {
    const char* text = std::getenv("PAGESIFT_TORTURE_SECONDS");
    return text != nullptr ? std::strtod(text, nullptr) : otherwise;
}

} // namespace pagesift::live
