// SPDX-License-Identifier: MIT
// Real programs: whatever they do with their memory, the answer is whole and adds up.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <csignal>
#include <cstdlib>
#include <cstring>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

/// Inspects a program while it runs, then while it stands still.
void check_program(const Background& program) {
    check_invariants(inspect(program.pid(), {"--ranges", "--zero", "all"}));
    program.signal(SIGSTOP);
    wait_until_stopped(program.pid());
    const auto seen = inspect(program.pid(), {"--ranges", "--zero", "off"});
    const auto rollup = zoo::witness::smaps_rollup(program.pid());
    program.signal(SIGCONT);
    REQUIRE(seen.is_object());
    check_invariants(seen);
    CHECK(seen["totals"]["rss_bytes"] == json(rollup.at("Rss")));
    CHECK(seen["totals"]["swap_bytes"] == json(rollup.at("Swap")));
    CHECK(seen["totals"]["states"]["present_bytes"].get<std::uint64_t>() > 0);
}

/// A connection to a unix socket, tried until the server is there; -1 after the time limit.
int connect_to(const std::string& path, double seconds) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, path.c_str(), sizeof name.sun_path - 1);
    for (int tries = 0; tries < seconds * 50; ++tries, usleep(20'000)) {
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0) return fd;
        close(fd);
    }
    return -1;
}

/// Sends one command in redis's inline form and waits for the first bytes of the answer.
std::string ask(int fd, const std::string& command) {
    const std::string line = command + "\r\n";
    if (write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) return {};
    char answer[256];
    const ssize_t n = read(fd, answer, sizeof answer);
    return n > 0 ? std::string(answer, static_cast<std::size_t>(n)) : std::string();
}

} // namespace

TEST_CASE("programs: a Python interpreter") {
    if (!have_root()) return;
    const auto python = find_program({"/usr/bin/python3", "/usr/local/bin/python3"});
    if (!python) return skip("python3 is not installed");
    Background program({*python, "-c",
                        "import json, sys\n"
                        "kept = {str(i): list(range(50)) for i in range(20000)}\n"
                        "freed = bytearray(50 << 20)\n"
                        "del freed\n"
                        "print('ready', flush=True)\n"
                        "sys.stdin.read()\n"});
    REQUIRE(program.wait_for_line(30) == "ready");
    check_program(program);
}

TEST_CASE("programs: a shell") {
    if (!have_root()) return;
    const auto shell = find_program({"/bin/bash", "/bin/sh"});
    if (!shell) return skip("no shell is installed");
    Background program({*shell, "-c", "echo ready; read line"});
    REQUIRE(program.wait_for_line(30) == "ready");
    check_program(program);
}

TEST_CASE("programs: a Redis server") {
    if (!have_root()) return;
    const auto server = find_program({"/usr/bin/redis-server"});
    if (!server) return skip("redis-server is not installed");
    const TemporaryDirectory directory;
    const std::string socket_path = directory.path() + "/socket";
    Background program({*server, "--port", "0", "--unixsocket", socket_path, "--save", "",
                        "--appendonly", "no", "--daemonize", "no", "--dir", directory.path(),
                        "--enable-debug-command", "yes"});
    const int fd = connect_to(socket_path, 20);
    REQUIRE(fd >= 0);
    CHECK(ask(fd, "DEBUG POPULATE 50000 key 200").rfind("+OK", 0) == 0);
    check_program(program);
    CHECK(ask(fd, "PING").rfind("+PONG", 0) == 0); // it works on
    close(fd);
}

TEST_CASE("programs: an ordinary user sees its own process, and is told what is hidden") {
    if (!have_root()) return;
    const RunOptions ordinary{.seconds = 60, .as_nobody = true};
    const auto outcome = run_pagesift(
        {"inspect", "--format", "json", "--ranges", "--zero", "all", "self"}, ordinary);
    CHECK_FALSE(outcome.timed_out);
    CHECK_MESSAGE((outcome.exit_code == 0 || outcome.exit_code == 3),
                  "exit code " << outcome.exit_code << ": " << outcome.err);
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    CHECK(json::parse(answer.dump()) == answer);
    CHECK(answer[0]["totals"]["states"]["present_bytes"].get<std::uint64_t>() > 0);
    CHECK_FALSE(answer[0]["gaps"].empty());
    for (const auto& gap : answer[0]["gaps"]) CHECK_FALSE(gap["reason"].get<std::string>().empty());
    check_invariants(answer[0]);

    const auto shell = find_program({"/bin/bash", "/bin/sh"});
    REQUIRE(shell);
    Background program({*shell, "-c", "echo ready; read line"}, true);
    REQUIRE(program.wait_for_line(30) == "ready");
    check_invariants(inspect(program.pid(), {"--ranges", "--zero", "all"}, ordinary));
}

TEST_CASE("programs: an ordinary user is refused what belongs to others, with a hint") {
    if (!have_root()) return;
    const auto outcome = run_pagesift({"inspect", "--format", "json", std::to_string(getpid())},
                                      {.seconds = 60, .as_nobody = true});
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err.find("permission denied") != std::string::npos);
    CHECK(outcome.err.find("hint: ") != std::string::npos);
}

} // namespace pagesift::live
