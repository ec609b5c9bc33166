// SPDX-License-Identifier: MIT
// System calls that fail while pagesift acts on a process. Whatever it says then, the process has
// all that it had, goes on, and is as it was for the next one who acts.
#include "advise.hpp"
#include "faults.hpp"
#include "zoo/witness.hpp"

#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

constexpr std::size_t some = 2 << 20;

const Fault fault_list[] = {
    {"process_madvise", "error=EINTR"},
    {"process_madvise", "error=EAGAIN"},
    {"process_madvise", "error=EPERM"},
    {"process_madvise", "error=ESRCH"},
    {"process_madvise", "error=EINVAL"},
    {"process_madvise", "error=ENOMEM"},
    {"process_madvise", "retval=0"},
    {"ptrace", "error=EPERM"},
    {"ptrace", "error=ESRCH"},
    {"ptrace", "error=EIO"},
    {"waitid", "error=EINTR"},
    {"wait4", "error=EINTR"},
    {"process_vm_readv", "error=EPERM"},
    {"process_vm_readv", "error=EFAULT"},
    {"pread64", "error=EIO"},
    {"pwrite64", "error=EIO"},
    {"read", "error=EIO"},
    {"openat", "error=EMFILE"},
    {"getdents64", "error=EIO"},
    {"kcmp", "error=EPERM"},
    {"pidfd_open", "error=EMFILE"},
    {"flock", "error=EAGAIN"},
    {"timer_create", "error=EAGAIN"},
    {"setpriority", "error=EACCES"},
    {"clone3", "error=EAGAIN"},
    {"mmap", "error=ENOMEM"},
};

/// Something for an action to do: how it is made, and whether nothing of it was lost.
struct Work {
    std::string action;
    std::function<std::unique_ptr<Target>()> make;
    std::function<bool(const Target&)> intact;
    /// Bytes that have really moved; none: nobody else can tell.
    std::function<std::uint64_t(const Target&)> moved = {};
};

bool whole(const Target& target) { return target.intact(); }

/// Bytes of another process' memory are all zero.
bool is_zero(pid_t pid, std::uint64_t at, std::size_t bytes) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/mem", std::ios::binary);
    std::string text(bytes, 'x');
    in.seekg(static_cast<std::streamoff>(at));
    return in.read(text.data(), static_cast<std::streamsize>(bytes)) &&
           text.find_first_not_of('\0') == text.npos;
}

/// Half of it zeros.
std::unique_ptr<Target> with_zeros() {
    return std::make_unique<Target>(some, [](std::uint64_t at, std::size_t bytes) {
        map_private(at, bytes);
        std::memset(reinterpret_cast<void*>(at + bytes / 2), 0, bytes / 2);
    });
}
bool half_is_zero(const Target& target) {
    const std::size_t half = target.bytes / 2;
    return is_filled(target.pid(), target.at, half) &&
           is_zero(target.pid(), target.at + half, half);
}

std::unique_ptr<Target> filled() { return std::make_unique<Target>(some, map_private); }

/// A slot that is filled, and one of which nothing but the table is left.
std::unique_ptr<Target> with_empty_table() {
    return std::make_unique<Target>(
        2 * witness::slot_size(), [](std::uint64_t at, std::size_t all) {
            const std::size_t half = all / 4;
            map_private(at, all);
            // In two halves, so that the kernel leaves the table.
            for (const std::uint64_t part : {at + 2 * half, at + 3 * half})
                ::madvise(reinterpret_cast<void*>(part), half, MADV_DONTNEED);
        });
}
bool half_is_filled(const Target& target) {
    return is_filled(target.pid(), target.at, target.bytes / 2);
}

/// Memory of one content.
std::unique_ptr<Target> alike() {
    return std::make_unique<Target>(some, [](std::uint64_t at, std::size_t bytes) {
        map_private(at, bytes);
        std::memset(reinterpret_cast<void*>(at), 0, bytes);
    });
}
bool all_is_zero(const Target& target) { return is_zero(target.pid(), target.at, target.bytes); }

std::uint64_t not_present(const Target& target) {
    return target.bytes - target.present() * witness::page_size();
}
std::uint64_t in_swap(const Target& target) { return target.swapped() * witness::page_size(); }

/// What is not as before an action of the process itself; empty: nothing. A child that pagesift had
/// it make may take a moment to end.
std::string disturbance(pid_t pid) {
    const auto folder = "/proc/" + std::to_string(pid);
    std::string wrong;
    for (int tries = 0; tries < 300; ++tries, usleep(10'000)) {
        wrong.clear();
        const auto status = read_file(folder + "/status");
        if (status.find("\nState:\tS") == status.npos) wrong += " does not sleep";
        if (status.find("\nTracerPid:\t0\n") == status.npos) wrong += " is traced";
        if (status.find("\nThreads:\t1\n") == status.npos) wrong += " has threads";
        if (!read_file(folder + "/task/" + std::to_string(pid) + "/children").empty())
            wrong += " has children";
        if (wrong.empty()) break;
    }
    return wrong;
}

struct Tried {
    std::size_t faults = 0, done = 0, partial = 0, refused = 0;
};

Words arguments_of(const Work& work, const Target& target) {
    return {"advise", work.action, "--apply",        "--format",
            "json",   "-a",        target.address(), target.pid_text()};
}

std::string try_fault(const Work& work, const Target& target, const Fault& fault, std::size_t at,
                      Tried& tried) {
    const auto outcome = run(with_fault(fault, at, arguments_of(work, target)), {.seconds = 30});
    ++tried.faults;
    std::string wrong;
    if (outcome.timed_out) wrong += "\n  it hangs";
    if (outcome.signal != 0) wrong += "\n  signal " + std::to_string(outcome.signal);
    if (outcome.exit_code == 0 || outcome.exit_code == 3) {
        ++(outcome.exit_code == 0 ? tried.done : tried.partial);
        const auto answers = json::parse(outcome.out, nullptr, false);
        if (!answers.is_array() || answers.size() != 1) return wrong + "\n  no answer";
        const auto effect = field(answers[0], "effect");
        const auto planned = field(field(answers[0], "totals"), "bytes");
        const auto moved = field(effect, "moved_bytes");
        if (field(effect, "advised_bytes") > planned) wrong += "\n  more was advised than planned";
        if (moved.is_number() && work.moved) {
            auto accounted = moved.get<std::uint64_t>();
            // What could not be looked at afterwards is unknown, and not said to have moved.
            const auto truth = work.moved(target);
            const auto unknown = field(field(effect, "stayed"), "unknown_bytes");
            const auto open = unknown.is_number() ? unknown.get<std::uint64_t>() : 0;
            if (accounted > truth || accounted + open < truth)
                wrong +=
                    "\n  " + moved.dump() + " moved, it says, and not " + std::to_string(truth);
            const auto stayed = field(effect, "stayed");
            for (const auto& [reason, bytes] : stayed.items())
                if (bytes.is_number()) accounted += bytes.get<std::uint64_t>();
            if (accounted != planned) wrong += "\n  part of it is not accounted for";
        }
    } else {
        ++tried.refused;
        if (outcome.err.find("pagesift: ") == std::string::npos)
            wrong += "\n  no message: " + outcome.err.substr(0, 300);
        if (outcome.exit_code > 2) wrong += "\n  exit code " + std::to_string(outcome.exit_code);
    }
    if (const auto what = disturbance(target.pid()); !what.empty()) wrong += "\n  it" + what;
    if (!work.intact(target)) wrong += "\n  its memory is another";
    return wrong;
}

void try_all(const Work& work, std::size_t most) {
    Tried tried;
    const auto calls = count_calls(arguments_of(work, *work.make()));
    auto target = work.make();
    for (const Fault& fault : fault_list) {
        const auto found = calls.find(fault.call);
        if (found == calls.end()) continue;
        for (const std::size_t at : places(found->second, most)) {
            // What has been done need not be done again.
            target = work.make();
            const auto wrong = try_fault(work, *target, fault, at, tried);
            CHECK_MESSAGE(wrong.empty(), work.action << ", " << fault.call << " " << fault.answer
                                                     << " at call " << at << ": " << wrong);
        }
    }
    // Also on one that has just gone through a fault.
    const auto after = run_pagesift(arguments_of(work, *target));
    CHECK_MESSAGE(after.exit_code == 0, after.err);
    CHECK(work.intact(*target));
    MESSAGE(work.action << ": " << tried.faults << " faults: " << tried.done << " done, "
                        << tried.partial << " in part, " << tried.refused << " errors");
    CHECK(tried.faults > 20);
    CHECK(tried.refused + tried.partial > 0);
}

} // namespace

TEST_CASE("faults: advise that acts from outside") {
    if (!can_inject()) return;
    const auto machine = with_swap(SwapOn::file);
    if (!machine) return;
    const auto swapped_out = [] {
        auto target = filled();
        run_pagesift(
            {"advise", "pageout", "--apply", "-q", "-a", target->address(), target->pid_text()});
        return target;
    };
    const Work works[] = {{"pageout", filled, whole, in_swap}, {"willneed", swapped_out, whole}};
    for (const Work& work : works)
        if (takes(work.action)) try_all(work, 2);
}

TEST_CASE("faults: advise that acts from inside") {
    if (!can_inject()) return;
    const Work works[] = {{"zero-drop", with_zeros, half_is_zero, not_present},
                          {"pt-reclaim", with_empty_table, half_is_filled},
                          {"merge", alike, all_is_zero}};
    for (const Work& work : works)
        if (can_do(work.action.c_str())) try_all(work, 3);
}

} // namespace pagesift::live
