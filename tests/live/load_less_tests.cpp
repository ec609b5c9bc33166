// SPDX-License-Identifier: MIT
// Less of everything than programs usually have: room in swap and on disks, files in /proc, other
// processes, system calls, a clock that can be relied on. What is missing is said to be missing,
// what is said is true, and nothing is lost that was complete.
#include "advise.hpp"
#include "harness.hpp"
#include "views.hpp"
#include "zoo/machine.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <set>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t MiB = 1 << 20;

/// What RunOptions::prepare ends a process with that it could not prepare.
constexpr int unprepared = 126;

bool contains(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

std::uint64_t number(const json& object, const char* name) {
    const auto value = field(object, name);
    return value.is_number() ? value.get<std::uint64_t>() : 0;
}

/// The answer of inspect by a program that may be another one, or may not see all.
struct Answer {
    Outcome outcome;
    json process; ///< null: none
    /// Whether a page of a file that nobody maps is cached changes at any moment.
    json states() const {
        json all = process["totals"]["states"];
        all["cached_bytes"] = number(all, "cached_bytes") + number(all, "uncached_bytes");
        all.erase("uncached_bytes");
        return all;
    }
    const json& kinds() const { return process["totals"]["kinds"]; }
    /// Reasons for what is missing.
    std::string gaps() const { return field(process, "gaps").dump(); }
};

Answer look(const std::string& program, Words arguments, const RunOptions& options) {
    arguments.insert(arguments.begin(), {program, "inspect", "--format", "json"});
    Answer answer{run(arguments, options), {}};
    CHECK_FALSE(answer.outcome.timed_out);
    CHECK_MESSAGE(answer.outcome.signal == 0, "signal ", answer.outcome.signal);
    const auto all = json::parse(answer.outcome.out, nullptr, false);
    if (all.is_array() && all.size() == 1) answer.process = all[0];
    if (!answer.process.is_null()) check_invariants(answer.process);
    return answer;
}

/// Memory of every common kind, which stands still and which nobody else changes.
struct Mixture {
    Mixture()
        : child([](const auto& ready) {
              const auto map = [](std::size_t bytes, int flags) {
                  void* const at =
                      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
                  if (at == MAP_FAILED) _exit(1);
                  madvise(at, bytes, MADV_NOHUGEPAGE);
                  return static_cast<char*>(at);
              };
              std::memset(map(4 * MiB, MAP_PRIVATE), 'x', 3 * MiB);
              std::memset(map(2 * MiB, MAP_PRIVATE), 0, 2 * MiB);
              std::memset(map(2 * MiB, MAP_SHARED), 'y', MiB);
              volatile char sum = 0;
              char* const zeros = map(MiB, MAP_PRIVATE);
              for (std::size_t i = 0; i < MiB; i += 4096) sum = sum + zeros[i];
              ready();
          }) {
        child.stop();
    }
    std::string pid() const { return std::to_string(child.pid()); }
    Child child;
};

} // namespace

// --- No room -------------------------------------------------------------------------------------

TEST_CASE("load: page-out into swap that is too small says how far it came, and loses nothing") {
    if (!have_root() || !takes("pageout")) return;
    if (has_swap()) return skip("the machine has swap of its own");
    const auto machine = with_swap(SwapOn::file, 8 * MiB);
    if (!machine) return;
    const Target target(32 * MiB, map_private);
    const auto done = advise({"pageout", "--apply", "-a", target.address(), target.pid_text()});
    CHECK((done.outcome.exit_code == 0 || done.outcome.exit_code == 3));
    const std::uint64_t truth = target.swapped() * witness::page_size();
    const auto moved = done.effect("moved_bytes");
    CHECK(truth > 0);
    CHECK(truth <= 8 * MiB);
    CHECK(moved <= truth);
    CHECK(moved * 10 >= truth * 9);
    // All that was planned has come to something, or is said to have stayed.
    std::uint64_t stayed = 0;
    const auto reasons = field(field(done.process, "effect"), "stayed");
    for (const auto& [reason, bytes] : reasons.items())
        if (bytes.is_number()) stayed += bytes.get<std::uint64_t>();
    CHECK(moved + stayed == done.total("bytes"));
    MESSAGE("moved " << moved << " of " << target.bytes << ": " << reasons.dump());
    // There is none left now.
    const auto again = advise({"pageout", "--apply", "-a", target.address(), target.pid_text()});
    CHECK(again.effect("moved_bytes") <= MiB);
    CHECK(target.intact());
}

namespace {

/// A file system of 1 MiB that can be filled to the last byte.
class SmallDisk {
public:
    SmallDisk() : mounted_(mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=1m") == 0) {}
    ~SmallDisk() {
        if (mounted_) umount2(folder_.path().c_str(), MNT_DETACH);
    }
    SmallDisk(const SmallDisk&) = delete;
    SmallDisk& operator=(const SmallDisk&) = delete;

    bool ready() const { return mounted_; }
    std::string path(const char* name) const { return folder_.path() + "/" + name; }
    void fill() const {
        std::ofstream out(path("filler"), std::ios::binary);
        const std::string some(4096, 'x');
        while (out.write(some.data(), static_cast<std::streamsize>(some.size())).flush()) {
        }
    }
    void make_room() const { unlink(path("filler").c_str()); }
    std::size_t files() const {
        const std::filesystem::directory_iterator all(folder_.path());
        return static_cast<std::size_t>(std::distance(begin(all), end(all)));
    }

private:
    TemporaryDirectory folder_;
    bool mounted_;
};

} // namespace

TEST_CASE("load: on a full disk the old file stays as it was, and the message says why") {
    if (!have_root()) return;
    const SmallDisk disk;
    if (!disk.ready()) return skip("no tmpfs can be mounted");
    const Mixture target;
    const auto recording = disk.path("before.psr");
    REQUIRE(run_pagesift({"record", "-q", "-o", recording, target.pid()}).exit_code == 0);
    const auto file = disk.path("old");
    std::ofstream(file) << "old\n";
    disk.fill();
    const auto files = disk.files();
    Words commands[] = {
        {"record", "-q"},
        {"record", "-q", "--text"},
        {"inspect"},
        {"inspect", "--format", "json", "--pages"},
        {"inspect", "--format", "csv", "--pages"},
        {"scan", "--format", "csv", "-p"},
        {"scan", "--format", "json", "-p"},
        {"scan", "--format", "ndjson", "--per", "range", "-p"},
        {"scan", "--format", "openmetrics", "-p"},
        {"scan", "--format", "csv", "--interval", "10ms", "--count", "3", "-p"},
        {"advise", "pageout", "--format", "json"},
        {"cold", "--window", "100ms", "--format", "json"},
        {"diff", recording},
    };
    for (Words& command : commands) {
        command.insert(command.end(), {target.pid(), "-o", file});
        std::string text;
        for (const auto& word : command) text += word + " ";
        INFO(text);
        const auto outcome = run_pagesift(command);
        CHECK(outcome.signal == 0);
        CHECK(outcome.exit_code == 1);
        CHECK_MESSAGE(contains(outcome.err, "ENOSPC"), outcome.err);
        CHECK(read_file(file) == "old\n");
        CHECK(disk.files() == files);
    }
    CHECK(run_pagesift({"inspect", "--format", "json", recording}).exit_code == 0);
    disk.make_room();
    CHECK(run_pagesift({"inspect", target.pid(), "-o", file}).exit_code == 0);
    CHECK(contains(read_file(file), "present"));
    CHECK(disk.files() == files - 1);
}

TEST_CASE("load: a history on a full disk keeps the scans that it has") {
    if (!have_root()) return;
    const SmallDisk disk;
    if (!disk.ready()) return skip("no tmpfs can be mounted");
    const Mixture target;
    const auto file = disk.path("history.db");
    const Words append = {"scan", "--format", "sqlite", "-o", file, "-p", target.pid()};
    REQUIRE(run_pagesift(append).exit_code == 0);
    REQUIRE(run_pagesift(append).exit_code == 0);
    const auto difference = [&](const char* first, const char* last) {
        return run_pagesift({"diff", "--format", "json", file + "@" + first, file + "@" + last});
    };
    const auto before = difference("1", "2");
    CHECK(before.exit_code == 0);
    disk.fill();
    const auto refused = run_pagesift(append);
    CHECK(refused.exit_code == 1);
    CHECK_MESSAGE(contains(refused.err, "ENOSPC"), refused.err);
    const auto full = difference("1", "-1");
    CHECK_MESSAGE(full.exit_code == 0, full.err);
    CHECK(full.out == before.out);
    disk.make_room();
    CHECK(difference("1", "-1").out == before.out);
    CHECK(run_pagesift(append).exit_code == 0);
    CHECK(difference("1", "3").exit_code == 0);
}

// --- A /proc that shows less ---------------------------------------------------------------------

TEST_CASE("load: page flags that cannot be had, or say nothing, are unknown") {
    if (!have_root()) return;
    const Mixture target;
    const auto program = program_of("PAGESIFT_BIN");
    const Words arguments = {"--lens", "proc", "--zero", "off", "--pages", target.pid()};
    const auto whole = look(program, arguments, {});
    REQUIRE(whole.process.is_object());
    const TemporaryDirectory folder;
    const auto empty = folder.path() + "/empty";
    std::ofstream(empty) << "";
    const struct {
        const char* name;
        std::function<void()> prepare;
        Words more;
    } views[] = {
        {"--without", [] {}, {"--without", "kpageflags"}},
        {"empty kpageflags", [&] { cover("/proc/kpageflags", empty); }, {}},
        {"null kpageflags", [] { cover("/proc/kpageflags", "/dev/null"); }, {}},
        {"empty kpagecount", [&] { cover("/proc/kpagecount", empty); }, {}},
    };
    for (const auto& view : views) {
        INFO(std::string(view.name));
        auto words = arguments;
        words.insert(words.end(), view.more.begin(), view.more.end());
        const auto seen = look(program, words, {.prepare = view.prepare});
        CHECK(seen.outcome.exit_code == 0);
        REQUIRE(seen.process.is_object());
        CHECK(seen.states() == whole.states());
        CHECK_MESSAGE(contains(seen.gaps(), "kpage"), seen.gaps());
        // A page that is called something is that.
        std::size_t unknown = 0, wrong = 0;
        REQUIRE(seen.process["pages"].size() == whole.process["pages"].size());
        for (std::size_t i = 0; i < seen.process["pages"].size(); ++i) {
            const auto kind = field(seen.process["pages"][i], "kind");
            const auto truth = field(whole.process["pages"][i], "kind");
            unknown += kind != truth && kind == "unknown" ? 1 : 0;
            // Nobody can tell large folios then, which the sums say.
            if (truth == "thp" && seen.kinds()["thp_bytes"].is_null()) continue;
            if (kind != truth && kind != "unknown" && ++wrong == 1)
                MESSAGE(seen.process["pages"][i].dump() << whole.process["pages"][i].dump());
        }
        CHECK(wrong == 0);
        MESSAGE(std::string(view.name)
                << ": " << unknown << " of " << seen.process["pages"].size() << " unknown");
    }
}

TEST_CASE("load: hidepid hides others, and a scan says that it does") {
    if (!have_root()) return;
    const Background nobodys({"/bin/sh", "-c", "read line"}, true);
    const RunOptions nobody{.as_nobody = true, .prepare = [] { mount_proc("hidepid=2"); }};
    const RunOptions root{.prepare = [] { mount_proc("hidepid=2"); }};
    const auto all = run_pagesift({"scan", "--depth", "totals", "--format", "json"}, root);
    if (all.exit_code == unprepared) return skip("no /proc of its own can be mounted");
    CHECK((all.exit_code == 0 || all.exit_code == 3)); // some may be denied even to root
    CHECK_FALSE(contains(all.err, "hidepid"));
    const auto some = run_pagesift({"scan", "--depth", "totals", "--format", "json"}, nobody);
    CHECK(some.exit_code == 3);
    CHECK(contains(some.err, "hidepid"));
    const auto answer = json::parse(some.out, nullptr, false);
    REQUIRE(answer.is_array());
    CHECK(contains(answer[0]["gaps"].dump(), "hidepid"));
    bool found = false;
    for (const json& record : answer[0]["records"]) {
        CHECK(record["uid"] == 65534);
        found = found || record["pid"] == nobodys.pid();
    }
    CHECK(found);
    // What was asked for by name is there, so that nothing is missing.
    const auto own = std::to_string(nobodys.pid());
    CHECK(run_pagesift({"scan", "--depth", "totals", "-p", own}, nobody).exit_code == 0);
    for (const Words& command : {Words{"inspect", "1"}, Words{"scan", "-p", "1"}}) {
        const auto hidden = run_pagesift(command, nobody);
        CHECK(hidden.exit_code == 1);
        CHECK_MESSAGE(contains(hidden.err, "hidepid"), hidden.err);
    }
    // Without hidepid nobody is hidden, and is said to be denied.
    const auto denied =
        run_pagesift({"scan", "--depth", "totals", "--format", "json"}, {.as_nobody = true});
    CHECK(denied.exit_code == 3);
    CHECK_FALSE(contains(denied.err, "hidepid"));
}

// --- Containers ----------------------------------------------------------------------------------

TEST_CASE("load: in an unprivileged container the answer is partial, and true") {
    if (!have_root()) return;
    const auto program = executable_by_all();
    const RunOptions container{.prepare = enter_container};
    // The container's first process: a fork of this one that waits.
    const auto inside = look(program, {"--pages", "1"}, container);
    if (inside.outcome.exit_code == unprepared)
        return skip("no user, PID and mount namespaces without privileges");
    CHECK_MESSAGE(inside.outcome.exit_code == 0, inside.outcome.err);
    REQUIRE(inside.process.is_object());
    CHECK(inside.process["pid"] == 1);
    CHECK(inside.process["lens"] == "proc");
    CHECK(number(inside.states(), "present_bytes") > 0);
    CHECK(contains(inside.gaps(), "exact lens"));
    CHECK(contains(inside.gaps(), "kpageflags"));
    for (const json& page : inside.process["pages"]) CHECK(field(page, "pfn").is_null());

    const auto self = look(program, {"self"}, container);
    CHECK(self.outcome.exit_code == 0);
    CHECK(self.process["pid"] == 2);
    const auto scan = run(
        {program, "scan", "--format", "json", "--depth", "content", "--zero", "all"}, container);
    CHECK_MESSAGE(scan.exit_code == 0, scan.err);
    const auto answer = json::parse(scan.out, nullptr, false);
    REQUIRE(answer.is_array());
    CHECK(answer[0]["records"].size() == 2);
    const auto forced = run({program, "inspect", "--lens", "exact", "1"}, container);
    CHECK(forced.exit_code == 1);
    CHECK(contains(forced.err, "CAP_"));
    CHECK(run({program, "doctor"}, container).exit_code == 0);
    const auto missing = run({program, "inspect", std::to_string(getpid())}, container);
    CHECK(missing.exit_code == 1);
}

TEST_CASE("load: with the /proc of another PID namespace no process is taken for another") {
    if (!have_root()) return;
    const Mixture target;
    const auto program = program_of("PAGESIFT_BIN");
    const RunOptions lost{.prepare = enter_pid_namespace};
    // Its own number is 2 there, and another one in /proc.
    const auto self = look(program, {"self"}, lost);
    CHECK_MESSAGE(self.outcome.exit_code == 0, self.outcome.err);
    REQUIRE(self.process.is_object());
    CHECK(self.process["pid"].get<int>() > 2);
    CHECK(self.process["comm"] == "pagesift");
    for (const auto& lens : lenses()) {
        INFO("the " << lens << " lens");
        const Words arguments = {"--lens", lens, "--zero", "all", target.pid()};
        const auto outside = look(program, arguments, {}), inside = look(program, arguments, lost);
        CHECK(inside.outcome.exit_code == 0);
        CHECK(inside.states() == outside.states());
        CHECK(inside.kinds() == outside.kinds());
    }
    // The call would be for another process, or none.
    for (const char* action : {"pageout", "zero-drop"}) {
        const auto acted = run({program, "advise", action, "--apply", target.pid()}, lost);
        CHECK(acted.exit_code == 1);
        CHECK_MESSAGE(contains(acted.err, "PID namespace"), acted.err);
    }
}

// --- System calls that are refused ---------------------------------------------------------------

TEST_CASE("load: where seccomp refuses a call, another way is found or what is missing is said") {
    if (!have_root()) return;
    const Mixture target;
    const auto program = program_of("PAGESIFT_BIN");
    constexpr unsigned pagemap_scan = 0xc0606610, procmap_query = 0xc0686611;
    const Forbidden calls[] = {
        {"bpf", SYS_bpf, EPERM},
        {"process_vm_readv", SYS_process_vm_readv, EPERM},
        {"process_vm_readv", SYS_process_vm_readv, ENOSYS},
        {"PAGEMAP_SCAN", SYS_ioctl, ENOSYS, pagemap_scan},
        {"PAGEMAP_SCAN", SYS_ioctl, EPERM, pagemap_scan},
        {"PAGEMAP_SCAN", SYS_ioctl, ENOTTY, pagemap_scan},
        {"PROCMAP_QUERY", SYS_ioctl, EPERM, procmap_query},
        {"ioctl", SYS_ioctl, EPERM},
        {"perf_event_open", SYS_perf_event_open, EPERM},
        {"process_madvise", SYS_process_madvise, EPERM},
        {"ptrace", SYS_ptrace, EPERM},
        {"pidfd_open", SYS_pidfd_open, ENOSYS},
        {"cachestat", 451, ENOSYS},
        {"cachestat", 451, EPERM},
        {"mincore", SYS_mincore, EPERM},
        {"kcmp", SYS_kcmp, EPERM},
    };
    for (const auto& lens : lenses()) {
        const Words arguments = {"--zero", "all", target.pid(), "--lens",
                                 lens == "exact" ? "auto" : lens};
        const auto free = look(program, arguments, {});
        for (const Forbidden& call : calls) {
            INFO("the " << lens << " lens, " << std::string(call.name) << ", "
                        << std::string(std::strerror(call.error)));
            const auto held = look(program, arguments, {.prepare = [&] { forbid(call); }});
            CHECK_MESSAGE((held.outcome.exit_code == 0 || held.outcome.exit_code == 3),
                          held.outcome.exit_code, ": ", held.outcome.err);
            REQUIRE(held.process.is_object());
            const bool same = held.states() == free.states() && held.kinds() == free.kinds();
            if (!same)
                CHECK_MESSAGE(held.gaps() != free.gaps(), held.states().dump(), " ",
                              held.kinds().dump(), " instead of ", free.states().dump(), " ",
                              free.kinds().dump());
            // Contents have a second way, and so have all others but for what the lens alone sees.
            if (std::strcmp(call.name, "process_vm_readv") == 0) CHECK(same);
        }
    }
}

TEST_CASE("load: where seccomp refuses what acting takes, nothing is done, and it says why") {
    if (!have_root() || !takes("cold")) return;
    const Target target(4 * MiB, [](std::uint64_t at, std::size_t bytes) {
        map_private(at, bytes);
        std::memset(reinterpret_cast<void*>(at + bytes / 2), 0, bytes / 2);
    });
    const auto is_as_it_was = [&] { return is_filled(target.pid(), target.at, 2 * MiB); };
    const struct {
        Forbidden call;
        Words action;
    } cases[] = {
        {{"process_madvise", SYS_process_madvise, EPERM}, {"cold"}},
        {{"process_madvise", SYS_process_madvise, ENOSYS}, {"cold"}},
        {{"pidfd_open", SYS_pidfd_open, ENOSYS}, {"cold"}},
        {{"pidfd_open", SYS_pidfd_open, EPERM}, {"cold"}},
        {{"ptrace", SYS_ptrace, EPERM}, {"zero-drop"}},
        {{"kcmp", SYS_kcmp, ENOSYS}, {"zero-drop"}},
    };
    for (const auto& one : cases) {
        INFO(std::string(one.call.name) << ", " << std::string(std::strerror(one.call.error)));
        Words words = one.action;
        words.insert(words.end(), {"--apply", "-a", target.address(), target.pid_text()});
        const auto done = advise(words, {.prepare = [&] { forbid(one.call); }});
        CHECK(done.outcome.signal == 0);
        CHECK_MESSAGE((done.outcome.exit_code == 1 || done.outcome.exit_code == 3),
                      done.outcome.exit_code, ": ", done.outcome.out.substr(0, 1500));
        CHECK_FALSE(done.outcome.err.empty());
        CHECK(done.effect("moved_bytes") == 0);
        CHECK(is_as_it_was());
        CHECK(target.present() == target.bytes / witness::page_size());
    }
    const auto pid = target.pid_text();
    const auto watched = run_pagesift({"cold", "--window", "200ms", pid}, {.prepare = [] {
                                          forbid({"bpf", SYS_bpf, EPERM});
                                      }});
    CHECK_MESSAGE((watched.exit_code == 0 || watched.exit_code == 3), watched.err);
}

// --- Clocks --------------------------------------------------------------------------------------

namespace {

/// A library that makes CLOCK_REALTIME jump at every question (see clock_that_jumps.cpp); nothing
/// where pagesift would not load it.
std::optional<std::string> jumping_clock() {
    const char* const path = std::getenv("PAGESIFT_JUMPING_CLOCK");
    if (path == nullptr || access(path, R_OK) != 0) {
        skip("no clock that jumps: no preloaded library");
        return {};
    }
    return path;
}

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

} // namespace

TEST_CASE("load: a clock that jumps changes no duration") {
    if (!have_root()) return;
    const auto library = jumping_clock();
    if (!library) return;
    const Mixture target;
    const RunOptions jumping{.prepare = [&] { setenv("LD_PRELOAD", library->c_str(), 1); }};

    auto begin = Clock::now();
    const auto scans = run_pagesift(
        {"scan", "-p", target.pid(), "--interval", "0.2", "--count", "5", "--format", "ndjson"},
        jumping);
    auto took = seconds_since(begin);
    CHECK_MESSAGE(scans.exit_code == 0, scans.err);
    CHECK(took > 0.75);
    CHECK(took < 10);
    std::set<std::string> times;
    std::size_t count = 0;
    for (const json& line : parse_lines(scans.out)) {
        REQUIRE(line.is_object());
        if (line["record"] != "scan") continue;
        ++count;
        times.insert(line["time"].get<std::string>());
        CHECK(line["elapsed_seconds"].get<double>() >= 0);
        CHECK(line["elapsed_seconds"].get<double>() < took);
        CHECK(line["cpu_seconds"].get<double>() >= 0);
    }
    CHECK(count == 5);
    // By days, so that the library was asked at all.
    CHECK(std::set<std::string>(times).size() == 5);

    begin = Clock::now();
    const auto cut = run_pagesift({"scan", "-p", target.pid(), "--max-time", "30s"}, jumping);
    CHECK(cut.exit_code == 0);
    CHECK(seconds_since(begin) < 20);

    begin = Clock::now();
    const auto cold =
        run_pagesift({"cold", "--window", "1", "--format", "json", target.pid()}, jumping);
    took = seconds_since(begin);
    CHECK_MESSAGE((cold.exit_code == 0 || cold.exit_code == 3), cold.err);
    CHECK(took > 0.95);
    CHECK(took < 10);
    const auto ages = json::parse(cold.out, nullptr, false);
    REQUIRE(ages.is_array());
    const auto window = number(ages[0], "window_seconds") != 0 ? ages[0]["window_seconds"] : json();
    if (window.is_number()) CHECK(window.get<double>() < took);

    // In a history scans are in the order in which they were made.
    const TemporaryDirectory folder;
    const auto file = folder.path() + "/history.db";
    CHECK(run_pagesift({"scan", "-p", target.pid(), "--interval", "0.05", "--count", "4",
                        "--format", "sqlite", "-o", file},
                       jumping)
              .exit_code == 0);
    CHECK(run_pagesift({"diff", file + "@1", file + "@-1"}, jumping).exit_code == 0);
}

TEST_CASE("load: in a time namespace everything is as it was") {
    if (!have_root()) return;
    const Mixture target;
    const auto program = program_of("PAGESIFT_BIN");
    const RunOptions older{.prepare = [] { enter_time_namespace(10'000'000); }};
    const auto outside = look(program, {target.pid()}, {});
    const auto inside = look(program, {target.pid()}, older);
    if (inside.outcome.exit_code == unprepared) return skip("no time namespaces");
    CHECK(inside.outcome.exit_code == 0);
    CHECK(inside.states() == outside.states());
    const auto scan = run_pagesift({"scan", "-p", target.pid(), "--format", "ndjson"}, older);
    CHECK_MESSAGE(scan.exit_code == 0, scan.err);
    const auto begin = Clock::now();
    const auto cold =
        run_pagesift({"cold", "--window", "300ms", "--format", "json", target.pid()}, older);
    CHECK_MESSAGE((cold.exit_code == 0 || cold.exit_code == 3), cold.err);
    CHECK(seconds_since(begin) < 20);
    if (!takes("cold")) return;
    const Target acted(MiB, map_private);
    const auto done = advise({"cold", "--apply", "-a", acted.address(), acted.pid_text()}, older);
    CHECK(done.outcome.exit_code == 0);
    CHECK(done.effect("advised_bytes") == MiB);
}

} // namespace pagesift::live
