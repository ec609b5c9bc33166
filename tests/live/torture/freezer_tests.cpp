// SPDX-License-Identifier: MIT
// Remote calls into targets of a control group that is frozen meanwhile, as `docker pause` does:
// for whoever calls, all threads of it, the child included, come to nothing all of a sudden.
#include "harness.hpp"
#include "torture/remote_tests.hpp"
#include "torture/torture.hpp"
#include "zoo/witness.hpp"

#include <csignal>
#include <cstdlib>
#include <cstring>
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
        : kind_(kind), path_(kind.root + "/pagesift-freezer-\x1b-" + std::to_string(::getpid())) {
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

/// It lets itself be stopped: soon, once its threads are where they were.
void expect_taken_again(pid_t process) {
    std::string reason = "?";
    for (int tries = 0; tries < 50 && !reason.empty(); ++tries) {
        nap(20'000);
        reason = why_refused(process);
    }
    CHECK(reason == "");
}

/// Whoever makes a group chooses its name.
void check_refusal(pid_t process) {
    const std::string reason = why_refused(process);
    CHECK(reason.find("is frozen with control group /") != std::string::npos);
    CHECK(reason.find('\x1b') == std::string::npos);
}

void freeze_at(Moment moment, const Freezer::Kind& kind, bool thaws_soon) {
    CAPTURE(static_cast<int>(moment));
    CAPTURE(kind.file);
    CAPTURE(thaws_soon);
    const Freezer freezer{kind};
    Victim victim{VictimKind::sleepy};
    freezer.add(victim.pid());
    if (moment == Moment::before) freezer.freeze();
    nap(100'000);
    if (moment == Moment::before && !thaws_soon) check_refusal(victim.pid());
    // Others come while the thread that the first one has sent away is not home yet.
    for (int tools = thaws_soon ? 1 : 4; tools > 0; --tools) {
        const pid_t tool = start_tool(victim, freezer, moment);
        if (thaws_soon) {
            nap(100'000);
            freezer.thaw();
        }
        const auto status = wait_for_end(tool, 10, 1000);
        CHECK(status.has_value());
        // It cannot have come to its end while the target was frozen.
        CHECK((thaws_soon || status != 0));
    }
    freezer.thaw();
    check_unharmed(victim);
    expect_taken_again(victim.pid());
}

/// Of a process that has one thread and changes nothing.
std::uint64_t anonymous_bytes(pid_t pid) {
    return zoo::witness::status(pid, "RssAnon").value_or(0);
}

/// Drops zeros, a process that is frozen in the middle of it.
void drop_and_freeze(const Freezer::Kind& kind) {
    CAPTURE(kind.file);
    constexpr std::uint64_t bytes = std::uint64_t{256} << 20, little = std::uint64_t{64} << 10;
    // Where each instruction is emulated nothing is done in less.
    const char* const stop_seconds = std::getenv("PAGESIFT_TORTURE_STOP");
    const Freezer freezer{kind};
    const Child child{[](const auto& ready) {
        void* zeros =
            ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ::madvise(zeros, bytes, MADV_NOHUGEPAGE);
        std::memset(zeros, 0, bytes);
        ready();
        for (;;) nap(1000);
    }};
    freezer.add(child.pid());
    const TemporaryDirectory folder;
    const std::string answer = folder.path() + "/answer";
    const auto before = anonymous_bytes(child.pid());
    Background tool{{program_of("PAGESIFT_BIN"), "advise", "zero-drop", "--apply", "--quiet",
                     "--max-stop", stop_seconds != nullptr ? stop_seconds : "0.1", "--format",
                     "json", "-o", answer, std::to_string(child.pid())}};
    for (int tries = 0; tries < 20'000 && anonymous_bytes(child.pid()) + bytes / 8 > before;
         ++tries)
        nap(500);
    freezer.freeze();
    CHECK(WIFEXITED(tool.wait(60)));
    const auto after = anonymous_bytes(child.pid());
    const json effect = field(json::parse(read_file(answer), nullptr, false).at(0), "effect");
    const auto advised = effect.value("advised_bytes", std::uint64_t{0});
    CHECK(advised >= bytes / 8);
    // A page or two of its stack come and go.
    CHECK(advised <= before - after + little);
    CHECK(advised + little >= before - after);
    freezer.thaw();
    expect_taken_again(child.pid());
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

TEST_CASE("remote actions: what was done before a target froze is in the report") {
    if (!can_call()) return;
    const auto kinds = Freezer::kinds();
    if (kinds.empty()) return skip("no control groups that can be frozen");
    drop_and_freeze(kinds.front());
}

} // namespace pagesift::live
