// SPDX-License-Identifier: MIT
#include "os_fake_root.hpp"
#include "pagesift/os.hpp"

#include <algorithm>
#include <doctest/doctest.h>
#include <fstream>
#include <unistd.h>

using namespace pagesift;
using namespace pagesift::os;
using pagesift::test::FakeRoot;

namespace {

OpenOptions below(const FakeRoot& root) {
    OpenOptions options;
    options.root = root.path();
    return options;
}

std::string stat_text(unsigned pid, const std::string& comm, const std::string& flags,
                      unsigned threads, unsigned start, unsigned vm_size) {
    return std::to_string(pid) + " (" + comm + ") S 1 1 1 0 -1 " + flags +
           " 1 0 0 0 0 0 0 0 20 0 " + std::to_string(threads) + " 0 " + std::to_string(start) +
           " " + std::to_string(vm_size) + " 3 1\n";
}

constexpr const char* program = "4194560";
constexpr const char* kernel_thread = "2129984";

} // namespace

TEST_CASE("processes: those with memory are listed by pid, with who they are") {
    FakeRoot root;
    root.write("etc/passwd", "root:x:0:0::/:/bin/sh\nbroken\nann:x:1000:1000::/:/bin/sh\n");
    root.write("proc/30/stat", stat_text(30, "b) S (", program, 1, 777, 4096));
    root.write("proc/30/status", "Uid:\t7\t1000\t0\t0\n");
    root.write("proc/30/cgroup", "3:cpu:/no\n2:cpuset,memory:/\n0::/a.slice/b:c\n");
    root.write("proc/4/stat", stat_text(4, "four", program, 1, 5, 4096));
    root.write("proc/4/cgroup", "3:cpu:/no\n2:cpuset,memory:/v1\n0::/v2\n");
    root.write("proc/2/stat", stat_text(2, "kthreadd", kernel_thread, 1, 1, 0));
    root.write("proc/9/stat", stat_text(9, "zombie", program, 1, 1, 0));
    root.write("proc/11/stat", "");
    root.write("proc/meminfo", "");
    root.write("proc/1x/stat", stat_text(1, "none", program, 1, 1, 4096));
    const auto listed = list_processes(below(root), {.exe = true, .cgroup = true});
    REQUIRE(listed.size() == 2);
    CHECK(listed[0].pid == 4);
    CHECK(listed[0].cgroup == "/v1");
    CHECK(listed[0].user.empty());
    CHECK(listed[1].pid == 30);
    CHECK(listed[1].comm == "b) S (");
    CHECK(listed[1].start_time == 777);
    CHECK(listed[1].uid == 1000);
    CHECK(listed[1].user == "ann");
    CHECK(listed[1].cgroup == "/a.slice/b:c");
    CHECK(listed[1].rss_bytes == 3 * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
}

TEST_CASE("processes: one whose first thread has exited is found by the others") {
    FakeRoot root;
    root.write("proc/8/stat", stat_text(8, "lead", program, 2, 1, 0));
    root.write("proc/8/task/8/stat", stat_text(8, "lead", program, 2, 1, 0));
    root.write("proc/8/task/9/stat", stat_text(9, "other", program, 2, 2, 4096));
    root.write("proc/8/status", "State:\tZ\n");
    root.write("proc/8/task/9/status", "VmSize:\t 64 kB\n");
    root.write("proc/8/task/9/smaps_rollup", "Rss:   8 kB\n");
    const auto listed = list_processes(below(root), {});
    REQUIRE(listed.size() == 1);
    CHECK(listed[0].comm == "lead");
    CHECK(listed[0].start_time == 1);
    CHECK(listed[0].rss_bytes > 0u);
    CHECK(read_rollup(8, 1, below(root)).smaps_rollup == "Rss:   8 kB\n");
}

TEST_CASE("processes: a pid that another process has since is noticed") {
    FakeRoot root;
    root.write("proc/30/stat", stat_text(30, "old", program, 1, 777, 4096));
    root.write("proc/30/status", "VmSize:\t 64 kB\n");
    root.write("proc/30/smaps_rollup", "Rss:   8 kB\n");
    CHECK(is_same_process(30, 777, below(root)));
    CHECK(read_rollup(30, 777, below(root)).smaps_rollup == "Rss:   8 kB\n");
    root.write("proc/30/stat", stat_text(30, "new", program, 1, 778, 4096));
    CHECK_FALSE(is_same_process(30, 777, below(root)));
    const auto kind = [&](std::uint32_t pid) {
        try {
            read_rollup(pid, 777, below(root));
        } catch (const Error& error) {
            return std::optional{error.kind()};
        }
        return std::optional<ErrorKind>{};
    };
    CHECK(kind(30) == ErrorKind::gone);
    CHECK(kind(31) == ErrorKind::gone);
}

TEST_CASE("processes: a kernel without smaps_rollup leaves a gap") {
    FakeRoot root;
    root.write("proc/30/stat", stat_text(30, "a", program, 1, 777, 4096));
    root.write("proc/30/status", "VmSize:\t 64 kB\n");
    const auto texts = read_rollup(30, 777, below(root));
    CHECK(texts.smaps_rollup.empty());
    REQUIRE(texts.gaps.size() == 1);
    CHECK(texts.gaps[0].source == "smaps_rollup");
}

TEST_CASE("processes: users go by name, then by number") {
    FakeRoot root;
    root.write("etc/passwd", "ann:x:1000:1000::/:/bin/sh\n77:x:5:5::/:/bin/sh\n");
    CHECK(find_user("ann", below(root)) == 1000u);
    CHECK(find_user("77", below(root)) == 5u);
    CHECK(find_user("1234", below(root)) == 1234u);
    CHECK_FALSE(find_user("bob", below(root)));
}

TEST_CASE("processes: this very one is listed with its start time and user") {
    const auto listed = list_processes({}, {.exe = true, .cgroup = true});
    const auto own = static_cast<std::uint32_t>(::getpid());
    const auto found = std::find_if(listed.begin(), listed.end(),
                                    [&](const ProcessEntry& entry) { return entry.pid == own; });
    REQUIRE(found != listed.end());
    CHECK(found->uid == ::geteuid());
    CHECK(found->parent == static_cast<std::uint32_t>(::getppid()));
    // In an emulator the process is that of the emulator.
    std::ifstream comm("/proc/self/comm");
    std::string name;
    std::getline(comm, name);
    CHECK(found->comm == name);
    CHECK(found->exe.starts_with("/"));
    if (name == "unit_os") CHECK(found->exe.ends_with("/unit_os"));
    CHECK(is_same_process(own, found->start_time, {}));
    CHECK_FALSE(is_same_process(own, found->start_time + 1, {}));
}
