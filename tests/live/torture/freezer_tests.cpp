// SPDX-License-Identifier: MIT
// Remote calls into targets of a control group that is frozen meanwhile, as `docker pause` does:
// for whoever calls, all threads of it, the child included, come to nothing all of a sudden.
#include "harness.hpp"
#include "torture/remote_tests.hpp"
#include "torture/torture.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

namespace fs = std::filesystem;

/// A control group of its own, of version 1 or 2, in which processes can be frozen.
class Freezer {
public:
    struct Kind {
        std::string root, file, on, off;
    };
    static std::vector<Kind> kinds() {
        std::vector<Kind> found;
        for (const char* root : {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"})
            if (fs::exists(std::string{root} + "/cgroup.controllers"))
                found.push_back({root, "cgroup.freeze", "1", "0"});
        if (const std::string root = "/sys/fs/cgroup/freezer"; fs::exists(root + "/cgroup.procs"))
            found.push_back({root, "freezer.state", "FROZEN", "THAWED"});
        return found;
    }

    explicit Freezer(const Kind& kind)
        : kind_(kind), path_(kind.root + "/pagesift-freezer-" + std::to_string(::getpid())) {
        fs::create_directory(path_);
    }
    ~Freezer() {
        thaw();
        std::error_code busy;
        for (int tries = 0; tries < 1000 && !fs::remove(path_, busy); ++tries) nap(10'000);
    }
    Freezer(const Freezer&) = delete;
    Freezer& operator=(const Freezer&) = delete;

    void add(pid_t process) const { write("cgroup.procs", std::to_string(process)); }
    void freeze() const { write(kind_.file, kind_.on); }
    void thaw() const { write(kind_.file, kind_.off); }

private:
    void write(const std::string& file, const std::string& text) const {
        std::ofstream{path_ + "/" + file} << text << std::flush;
    }

    Kind kind_;
    std::string path_;
};

enum class Moment { before, at_work, done };

/// A program that calls into the victim, which is frozen at some moment.
pid_t start_tool(const Victim& victim, const Freezer& freezer, Moment moment) {
    const pid_t tool = ::fork();
    REQUIRE(tool >= 0);
    if (tool != 0) return tool;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    os::StopOptions options;
    options.patience = std::chrono::milliseconds{200};
    options.dead_man = std::chrono::milliseconds{1500};
    try {
        open_target(victim.pid())
            ->with_all_stopped(
                [&](os::StoppedProcess& stopped) {
                    const auto& report = victim.report();
                    const Address start{report.slots_address};
                    if (moment == Moment::at_work) freezer.freeze();
                    stopped.advise({start, start + Bytes{report.slot_bytes}}, MADV_NORMAL);
                    if (moment == Moment::done) freezer.freeze();
                },
                options);
    } catch (const Error&) {
        ::_exit(3);
    }
    ::_exit(0);
}

/// The wait status; nothing if it has not ended after so many seconds.
std::optional<int> wait_for(pid_t process, double seconds) {
    int status = 0;
    for (const double end = seconds_now() + seconds; ::waitpid(process, &status, WNOHANG) == 0;) {
        if (seconds_now() > end) {
            ::kill(process, SIGKILL);
            ::waitpid(process, nullptr, 0);
            return {};
        }
        nap(1000);
    }
    return status;
}

void freeze_at(Moment moment, const Freezer::Kind& kind, bool thaws_soon) {
    CAPTURE(static_cast<int>(moment));
    CAPTURE(kind.file);
    CAPTURE(thaws_soon);
    const Freezer freezer{kind};
    Victim victim{VictimKind::sleepy};
    freezer.add(victim.pid());
    if (moment == Moment::before) freezer.freeze();
    nap(20'000);
    const pid_t tool = start_tool(victim, freezer, moment);
    if (thaws_soon) {
        nap(100'000);
        freezer.thaw();
    }
    const auto status = wait_for(tool, 10);
    CHECK(status.has_value());
    // It cannot have come to its end while the target was frozen.
    CHECK((thaws_soon || status != 0));
    freezer.thaw();
    CHECK(victim.trouble() == "");
    for (int i = 0; i < victim.report().threads; ++i) {
        const Ledger& ledger = victim.report().ledgers[i];
        CHECK_MESSAGE(ledger.wrong == 0, ledger.name, ": ", ledger.what);
        CHECK_MESSAGE(ledger.lost == 0, ledger.name);
    }
    CHECK(why_refused(victim.pid()) == "");
}

} // namespace

TEST_CASE("remote call: a target that is frozen meanwhile is unharmed when it thaws") {
    if (!can_call()) return;
    const auto kinds = Freezer::kinds();
    if (kinds.empty()) return skip("no control groups that can be frozen");
    for (const auto& kind : kinds)
        for (const Moment moment : {Moment::before, Moment::at_work, Moment::done})
            for (const bool thaws_soon : {true, false}) freeze_at(moment, kind, thaws_soon);
}

} // namespace pagesift::live
