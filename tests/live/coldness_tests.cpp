// SPDX-License-Identifier: MIT
// What `pagesift cold` says of a process that notes each of its own accesses, by every source and
// under memory pressure: page by page, what is called idle must be idle.
#include "control_group.hpp"
#include "harness.hpp"
#include "worker/fixture.hpp"
#include "worker/verdict.hpp"
#include "zoo/machine.hpp"
#include "zoo/witness.hpp"

#include <memory>
#include <string>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

namespace witness = zoo::witness;

constexpr std::uint64_t MiB = 1 << 20;

/// A worker that is measured while it works, and its history afterwards.
class Experiment {
public:
    /// @param measurements that are to be made at most
    explicit Experiment(int measurements, std::vector<std::string> arguments = {},
                        std::vector<std::string> wrapper = {})
        : worker_(with_log(measurements, std::move(arguments)), std::move(wrapper)) {
        for (const json& absent : worker_.absent())
            MESSAGE("no " << absent["kind"].get<std::string>() << ": "
                          << absent["reason"].get<std::string>());
    }

    bool ready() const { return worker_.ready(); }
    WorkerProcess& worker() { return worker_; }
    const History& history() const { return history_; }
    /// The worker has ended, its pages were right, and its history is here.
    void finish() {
        REQUIRE(worker_.finish().is_object());
        REQUIRE(history_.load(directory_.path() + "/history"));
    }

private:
    std::vector<std::string> with_log(int measurements, std::vector<std::string> arguments) const {
        // A third of the warm pages is left alone for a window.
        arguments.insert(arguments.end(),
                         {"--log", directory_.path() + "/history", "--seconds",
                          std::to_string(measurements * (window_seconds() + 10) + 60),
                          "--warm-period", std::to_string(window_seconds())});
        return arguments;
    }

    TemporaryDirectory directory_;
    WorkerProcess worker_;
    History history_;
};

/// The sum over ranges of some heat.
Score sum_of(const Scores& scores, const std::string& heat) {
    Score sum;
    for (const auto& [name, score] : scores)
        if (name.size() > heat.size() && name.substr(name.size() - heat.size()) == heat)
            sum += score;
    return sum;
}

/// Whether accesses can be told from those before and after the window: not if the program took
/// much longer than that.
bool is_telling(const Measured& measured) {
    const auto surely_within =
        static_cast<double>(measured.earliest_end()) - static_cast<double>(measured.latest_begin());
    if (surely_within > 0.5e9 * measured.window) return true;
    skip("an emulated machine");
    return false;
}

/// There were enough accesses for a wrong answer to show.
void check_that_it_can_fail(const Measured& measured, const Scores& scores) {
    if (!is_telling(measured)) return;
    CHECK(sum_of(scores, " hot").touched > 500);
    CHECK(sum_of(scores, " warm").touched > 500);
    CHECK(sum_of(scores, " tight").touched > 0);
    CHECK(sum_of(scores, " cold").touched == 0);
    CHECK(sum_of(scores, " cold").cold > 500);
}

/// The share of a window between a look and the end of the clearing behind it, when an access
/// leaves no trace. One round has no such time.
double blind_share(const Measured& measured) {
    const json clear = field(measured.process, "clear");
    const json seconds = clear.is_object() ? field(clear, "blind_seconds") : json();
    return seconds.is_number() ? seconds.get<double>() / measured.window : 0;
}

bool has_exact_lens() { return lenses().back() == "exact"; }

/// Where there is the lens, the source of ages may be missing all the same.
bool is_refused(const Measured& measured) {
    if (measured.exit_code != 1) return false;
    skip("no exact ages: " + measured.err.substr(0, measured.err.find('\n')));
    return true;
}

/// Before the measurement: then pages that are in use are on the active list, and what is cold has
/// begun to go.
constexpr double hard_seconds = 2;

/// Uses memory of its control group, which has no more than it needs already, so that the kernel
/// takes from everybody in it: hard at first, then some 32 MiB a second, which ages pages rather
/// than driving them out.
[[noreturn]] void press(std::uint64_t bytes) {
    void* const at =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) _exit(1);
    const std::uint64_t gentle_from = now_ns() + static_cast<std::uint64_t>(hard_seconds * 1e9);
    for (std::uint64_t turn = 1;; ++turn)
        for (std::uint64_t i = 0; i < bytes; i += witness::page_size()) {
            *reinterpret_cast<volatile std::uint64_t*>(static_cast<char*>(at) + i) = turn;
            if (i % (MiB / 4) == 0) usleep(now_ns() < gentle_from ? 1'000 : 8'000);
        }
}

/// A measurement while a control group has less and less memory for the worker, and soon too
/// little.
void measure_under_pressure(const std::string& what) {
    INFO(what);
    const ControlGroup group;
    if (!group.ready()) return skip("no control groups");
    Experiment experiment(
        1, {"--pages", std::to_string(8 * MiB / witness::page_size())},
        {"/bin/sh", "-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"", group.below()});
    REQUIRE(experiment.ready());
    std::uint64_t bytes = 0;
    for (const auto& range : experiment.worker().ranges()) bytes += range.end - range.start;
    if (!group.limit_below(group.charged_below()))
        return skip("no limit of a control group's memory");
    auto presser = std::make_unique<Child>([&](const auto& ready) {
        group.add_below(getpid());
        ready();
        press(bytes / 3);
    });
    usleep(static_cast<useconds_t>(hard_seconds * 1e6));
    const auto before = witness::vmstat("pswpout");
    const auto measured = measure(experiment.worker().pid(), Rounds::one, {"--source", "exact"});
    const auto taken = witness::vmstat("pswpout") - before;
    presser.reset();
    experiment.finish();
    if (is_refused(measured)) return;
    CHECK_MESSAGE(measured.exit_code == 0, measured.err);
    const auto scores =
        judge_all(experiment.worker(), experiment.history(), measured, measured.window);
    MESSAGE(what << ": the kernel took " << taken << " pages meanwhile");
    CHECK(taken > 100);
    if (is_telling(measured)) {
        CHECK(sum_of(scores, " hot").touched > 500);
        CHECK(sum_of(scores, " warm").touched > 50); // what was taken away comes back slowly
    }
    CHECK(scores.at("all").idle_but_touched == 0);
    CHECK(scores.at("all").unknown > 0);
}

} // namespace

TEST_CASE("coldness: the exact source tells what is idle, and since when, page by page") {
    if (!have_root() || !has_exact_lens()) return;
    Experiment experiment(2);
    REQUIRE(experiment.ready());
    const pid_t pid = experiment.worker().pid();
    const auto once = measure(pid, Rounds::one, {"--source", "exact"});
    const auto often = measure(pid, Rounds::several, {"--source", "exact"});
    experiment.finish();
    if (is_refused(once)) return;
    CHECK_MESSAGE(once.exit_code == 0, once.err);
    CHECK_MESSAGE(often.exit_code == 0, often.err);

    const auto judge = [&](const Measured& measured, double least) {
        const auto scores = judge_all(experiment.worker(), experiment.history(), measured, least);
        check_that_it_can_fail(measured, scores);
        // What is accessed while the program is blind leaves no trace; an emulated machine is blind
        // for up to a sixth of the time.
        CHECK(scores.at("all").precision() >= 0.99 - blind_share(measured));
        CHECK(scores.at("all").recall() >= 0.99);
        CHECK(scores.at("all").idle_but_touched == 0);
    };
    judge(once, once.window);
    MESSAGE("several rounds, blind for " << blind_share(often) << " of the window");
    REQUIRE(often.steps.size() >= 3);
    // An access leaves no trace while the program is blind, so it claims the last round only.
    judge(often, often.steps[often.steps.size() - 2]);
    for (const Measured::Age& age : often.ages)
        CHECK(age.idle_seconds.value_or(0) <= often.steps[often.steps.size() - 2]);
}

TEST_CASE("coldness: other sources keep to their limits") {
    if (!have_root()) return;
    const std::vector<std::string> sources = {"idle-bitmap", "referenced", "soft-dirty", "lru"};
    Experiment experiment(static_cast<int>(sources.size()));
    REQUIRE(experiment.ready());
    std::vector<Measured> answers;
    for (const auto& source : sources)
        answers.push_back(measure(experiment.worker().pid(), Rounds::one, {"--source", source}));
    experiment.finish();
    for (std::size_t i = 0; i < sources.size(); ++i) {
        INFO(sources[i]);
        const Measured& answer = answers[i];
        if (answer.exit_code == 1) { // the kernel has no such thing
            MESSAGE(sources[i] << ": " << answer.err.substr(0, answer.err.find('\n')));
            CHECK(sources[i] != "referenced"); // every kernel has this one
            continue;
        }
        CHECK_MESSAGE((answer.exit_code == 0 || answer.exit_code == 3), answer.err);
        MESSAGE("the source is " << sources[i]);
        const auto scores =
            judge_all(experiment.worker(), experiment.history(), answer, answer.window);
        check_that_it_can_fail(answer, scores);
        // One of them sees writes alone.
        CHECK((sources[i] == "soft-dirty" ? scores.at("all").idle_but_written
                                          : scores.at("all").idle_but_touched) == 0);
        if (sources[i] == "lru") // no sign of an access is no proof
            for (const auto& age : answer.ages)
                CHECK((!age.idle_seconds || *age.idle_seconds == 0));
    }
}

TEST_CASE("coldness: nothing that was touched is called idle under memory pressure") {
    if (!have_root() || !has_exact_lens()) return;
    release_zoo();
    zoo::Machine machine;
    try {
        machine.add_swap(256 * MiB);
    } catch (const zoo::Unavailable& reason) {
        return skip(std::string("no swap file: ") + reason.what());
    }
    const std::string generations = "/sys/kernel/mm/lru_gen/enabled";
    if (!zoo::read_setting(generations)) {
        machine.release();
        return measure_under_pressure("classic reclaim");
    }
    {
        const zoo::Setting off(machine, generations, "0");
        measure_under_pressure("classic reclaim");
    }
    const zoo::Setting on(machine, generations, "7");
    measure_under_pressure("generations (MGLRU)");
}

} // namespace pagesift::live
