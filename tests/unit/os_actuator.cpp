// SPDX-License-Identifier: MIT
// Who may be acted on. What the kernel then does is for the live tests.
#include "error_of.hpp"
#include "os_fake_root.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <csignal>
#include <cstdlib>
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace pagesift;
using namespace pagesift::os;
using namespace pagesift::test;

namespace {

std::string refusal(std::uint32_t pid, Protect protect = Protect::all,
                    std::uint64_t start_time = 0) {
    const auto error = error_of([&] { open_actuator(pid, start_time, protect, {}); });
    return error ? error->what() : "";
}

bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

/// Emulators of a single program may lack pidfd_open(2).
bool can_open() {
    const auto error = error_of(
        [] { open_actuator(static_cast<std::uint32_t>(::getpid()), 0, Protect::kernel_only, {}); });
    if (!error || error->kind() != ErrorKind::unsupported) return true;
    MESSAGE("skipped: " << error->what());
    return false;
}

/// A child that sleeps; ended at the end of the block.
struct Sleeper {
    pid_t pid = ::fork();
    Sleeper() {
        if (pid == 0)
            for (;;) ::pause();
    }
    ~Sleeper() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
    Sleeper(const Sleeper&) = delete;
    Sleeper& operator=(const Sleeper&) = delete;
    std::uint32_t number() const { return static_cast<std::uint32_t>(pid); }
};

} // namespace

TEST_CASE("actuator: init, this process and those above it are refused unless forced") {
    if (!can_open()) return;
    const auto own = static_cast<std::uint32_t>(::getpid());
    const auto parent = static_cast<std::uint32_t>(::getppid());
    CHECK(has(refusal(1), "is init"));
    CHECK(has(refusal(own), "pagesift itself or started it"));
    if (parent > 1) CHECK(has(refusal(parent), "pagesift itself or started it"));
    CHECK(refusal(own, Protect::kernel_only).empty());
}

TEST_CASE("actuator: another start time is another process") {
    if (!can_open()) return;
    const Sleeper child;
    CHECK(refusal(child.number()).empty());
    CHECK(has(refusal(child.number(), Protect::all, 1), "another one has its number"));
}

TEST_CASE("actuator: what has ended is gone, also before anybody has waited for it") {
    if (!can_open()) return;
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
    CHECK(has(refusal(static_cast<std::uint32_t>(child)), "zombie"));
    ::waitpid(child, nullptr, 0);
    CHECK(has(refusal(static_cast<std::uint32_t>(child)), "no such process"));
}

TEST_CASE("actuator: it notices that its process has ended") {
    if (!can_open()) return;
    auto child = std::make_unique<Sleeper>();
    const auto actuator = open_actuator(child->number(), 0, Protect::all, {});
    CHECK(actuator->is_same());
    child.reset();
    CHECK_FALSE(actuator->is_same());
    const int error = actuator->advise(abi::advice::cold, {}).error;
    CHECK((error == ESRCH || error == ENOSYS)); // emulators lack the call
}

TEST_CASE("actuator: no range at all says what stands in the way, and does nothing") {
    if (!can_open()) return;
    const Sleeper child;
    const auto actuator = open_actuator(child.number(), 0, Protect::all, {});
    const auto cold = actuator->advise(abi::advice::cold, {});
    CHECK(cold.done_bytes == 0);
    // Root may, others lack CAP_SYS_NICE, and emulators lack the call.
    CHECK((cold.error == 0 || cold.error == EPERM || cold.error == ENOSYS));
    if (cold.error == 0) CHECK(actuator->advise(4 /* MADV_DONTNEED */, {}).error == EINVAL);
}

TEST_CASE("actuator: files of a saved tree cannot be acted on") {
    const FakeRoot root;
    OpenOptions options;
    options.root = root.path();
    const auto error = error_of([&] { open_actuator(7, 0, Protect::all, options); });
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::unsupported);
}

TEST_CASE("pressure: of the process' cgroup where it has one, else of the machine") {
    FakeRoot root;
    OpenOptions options;
    options.root = root.path();
    const auto none = error_of([&] { read_pressure(7, options); });
    REQUIRE(none);
    CHECK(none->kind() == ErrorKind::unsupported);
    CHECK(has(none->hint(), "psi=1"));
    const auto text = [](const char* percent) {
        return std::string{"some avg10="} + percent + " avg60=0.00 avg300=0.00 total=0\n";
    };
    root.write("proc/pressure/memory", text("1.50"));
    CHECK(error_of([&] { read_pressure(7, options); }));
    root.write("proc/pressure/io", text("2.00"));
    auto pressure = read_pressure(7, options);
    CHECK(pressure.memory == 1.5);
    CHECK(pressure.io == 2.0);
    CHECK(pressure.of == "the machine");
    root.write("proc/7/cgroup", "1:memory:/old\n0::/a/b\n");
    CHECK(read_pressure(7, options).of == "the machine");
    root.write("sys/fs/cgroup/a/b/memory.pressure", text("30.00"));
    root.write("sys/fs/cgroup/a/b/io.pressure", text("0.10"));
    pressure = read_pressure(7, options);
    CHECK(pressure.memory == 30.0);
    CHECK(pressure.io == 0.1);
    CHECK(pressure.of == "cgroup /a/b");
}

TEST_CASE("swap allowance: the least of the process' cgroup and of those above it") {
    FakeRoot root;
    OpenOptions options;
    options.root = root.path();
    const auto allowance = [&] { return read_swap_allowance(7, options); };
    const auto limit = [&](const std::string& folder, const char* most, const char* now) {
        root.write(folder + "/memory.swap.max", std::string{most} + "\n");
        root.write(folder + "/memory.swap.current", std::string{now} + "\n");
    };
    CHECK_FALSE(allowance());
    root.write("proc/7/cgroup", "0::/\n");
    CHECK_FALSE(allowance());
    root.write("proc/7/cgroup", "4:memory:/old\n0::/a/b/c\n");
    CHECK_FALSE(allowance());
    limit("sys/fs/cgroup/a/b/c", "max", "8192");
    CHECK_FALSE(allowance());
    limit("sys/fs/cgroup/a", "40960", "12288");
    REQUIRE(allowance());
    CHECK(allowance()->bytes == 28672);
    CHECK(allowance()->cgroup == "/a");
    limit("sys/fs/cgroup/a/b", "65536", "8192");
    CHECK(allowance()->bytes == 28672);
    limit("sys/fs/cgroup/a/b/c", "16384", "8192");
    CHECK(allowance()->bytes == 8192);
    CHECK(allowance()->cgroup == "/a/b/c");
    // A limit that was lowered below what there is.
    limit("sys/fs/cgroup/a/b", "4096", "8192");
    CHECK(allowance()->bytes == 0);
    CHECK(allowance()->cgroup == "/a/b");
    // Outside of what a cgroup namespace shows, and hybrid mounts.
    root.write("proc/7/cgroup", "0::/../a\n");
    CHECK_FALSE(allowance());
    root.write("proc/7/cgroup", "0::/d\n");
    limit("sys/fs/cgroup/unified/d", "4096", "0");
    REQUIRE(allowance());
    CHECK(allowance()->bytes == 4096);
}
