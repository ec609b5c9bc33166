// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::scan;

namespace {

Identity process(std::uint32_t pid, std::uint32_t parent, std::string comm,
                 std::uint64_t start_time = 0) {
    Identity one;
    one.pid = pid;
    one.parent = parent;
    one.comm = std::move(comm);
    one.start_time = start_time ? start_time : pid * 10;
    return one;
}

std::vector<Identity> everyone() {
    std::vector<Identity> all{process(900, 1, "java"),      process(1, 0, "systemd"),
                              process(30, 1, "nginx"),      process(31, 30, "nginx"),
                              process(32, 31, "worker*"),   process(33, 32, "a\n\"b\xff"),
                              process(40, 2, "kworker/0:1")};
    all[0].exe = "/opt/jdk 21/bin/java";
    all[0].uid = 1000;
    all[0].cgroup = "/user.slice/user-1000.slice";
    all[0].rss_bytes = 8 << 20;
    all[1].uid = 0;
    all[1].exe = "/usr/lib/systemd/systemd";
    all[1].cgroup = "/init.scope";
    all[2].exe = "/usr/sbin/nginx (deleted)";
    all[2].uid = 0;
    all[2].cgroup = "/system.slice/nginx.service";
    all[2].rss_bytes = 4096;
    all[3].cgroup = "/system.slice/nginx.service/workers";
    all[4].cgroup = "/system.slice/nginx.service2";
    return all;
}

std::vector<std::uint32_t> chosen(const Selection& selection,
                                  const std::vector<Identity>& from = everyone()) {
    std::vector<std::uint32_t> pids;
    for (const Identity& one : select(from, selection)) pids.push_back(one.pid);
    return pids;
}

using Pids = std::vector<std::uint32_t>;

} // namespace

TEST_CASE("scan: without a condition all are chosen, by pid") {
    CHECK(chosen({}) == Pids{1, 30, 31, 32, 33, 40, 900});
    CHECK(chosen({}, {}).empty());
}

TEST_CASE("scan: within a condition any value will do, and all conditions must hold") {
    CHECK(chosen({.pids = {900, 31, 7777}}) == Pids{31, 900});
    CHECK(chosen({.comms = {"java", "nginx"}}) == Pids{30, 31, 900});
    CHECK(chosen({.pids = {30, 31}, .uids = {0}}) == Pids{30});
    CHECK(chosen({.uids = {0, 1000}}) == Pids{1, 30, 900});
}

TEST_CASE("scan: comm is a glob over the whole name, of any bytes") {
    CHECK(chosen({.comms = {"n*"}}) == Pids{30, 31});
    CHECK(chosen({.comms = {"ngin"}}).empty());
    CHECK(chosen({.comms = {"worker\\*"}}) == Pids{32});
    CHECK(chosen({.comms = {"worker?"}}) == Pids{32});
    CHECK(chosen({.comms = {"kworker/*"}}) == Pids{40});
    CHECK(chosen({.comms = {"[ab]*"}}) == Pids{33});
}

TEST_CASE("scan: exe matches the path or its last part, also after the file was deleted") {
    CHECK(chosen({.exes = {"java"}}) == Pids{900});
    CHECK(chosen({.exes = {"/opt/*"}}) == Pids{900});
    CHECK(chosen({.exes = {"nginx"}}) == Pids{30});
    CHECK(chosen({.exes = {"/usr/sbin/nginx"}}) == Pids{30});
    CHECK(chosen({.exes = {"*(deleted)"}}) == Pids{30});
    // What is not readable is not "*".
    CHECK(chosen({.exes = {"*"}}) == Pids{1, 30, 900});
    CHECK(chosen({.exes = {""}}).empty());
}

TEST_CASE("scan: a cgroup is a path and everything below it, not what begins alike") {
    CHECK(chosen({.cgroups = {"/system.slice/nginx.service"}}) == Pids{30, 31});
    CHECK(chosen({.cgroups = {"system.slice/nginx.service/"}}) == Pids{30, 31});
    CHECK(chosen({.cgroups = {"/system.slice"}}) == Pids{30, 31, 32});
    CHECK(chosen({.cgroups = {"/"}}) == Pids{1, 30, 31, 32, 900});
    CHECK(chosen({.cgroups = {"/init.scope", "/user.slice"}}) == Pids{1, 900});
    CHECK(chosen({.cgroups = {"/system"}}).empty());
}

TEST_CASE("scan: a process whose resident size is not known is not above any") {
    CHECK(chosen({.min_rss_bytes = 4096}) == Pids{30, 900});
    CHECK(chosen({.min_rss_bytes = 4097}) == Pids{900});
}

TEST_CASE("scan: children-of takes all generations and leaves the process itself out") {
    CHECK(chosen({.children_of = {30}}) == Pids{31, 32, 33});
    CHECK(chosen({.children_of = {33}}).empty());
    CHECK(chosen({.children_of = {31, 32}}) == Pids{32, 33});
    CHECK(chosen({.comms = {"nginx"}, .children_of = {1}}) == Pids{30, 31});
    // Kernel threads: their parent is not always in the list.
    CHECK(chosen({.children_of = {2}}) == Pids{40});
    CHECK(chosen({.children_of = {12345}}).empty());
}

TEST_CASE("scan: parents that form a circle are followed once") {
    const std::vector<Identity> circle{process(5, 7, "a", 1), process(6, 5, "b", 1),
                                       process(7, 6, "c", 1), process(8, 8, "d", 1)};
    CHECK(chosen({.children_of = {5}}, circle) == Pids{6, 7});
    CHECK(chosen({.children_of = {5, 6}}, circle) == Pids{5, 6, 7});
    CHECK(chosen({.children_of = {8}}, circle).empty());
}

TEST_CASE("scan: who is older than the process with its parent's number is not its child") {
    const std::vector<Identity> reused{
        process(10, 1, "old parent's number, reused", 500), process(11, 10, "born before", 400),
        process(12, 10, "born after", 600), process(13, 11, "grandchild of the old one", 700)};
    CHECK(chosen({.children_of = {10}}, reused) == Pids{12});
}

TEST_CASE("scan: a process that was listed twice is chosen once, a reused pid twice") {
    std::vector<Identity> twice{process(10, 1, "x", 5), process(10, 1, "x", 5),
                                process(10, 1, "y", 9)};
    const auto result = select(twice, {});
    REQUIRE(result.size() == 2);
    CHECK(result[0].start_time == 5);
    CHECK(result[1].comm == "y");
}
