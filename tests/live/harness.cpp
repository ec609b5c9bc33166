// SPDX-License-Identifier: MIT
#include "harness.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

using Clock = std::chrono::steady_clock;

// What may be missing even where PAGESIFT_LIVE=require, each for a reason of its own.
constexpr std::array allowed_skips = {
    "pid 2 is no kernel thread", // a container sees only its own processes
    "the file system below /var/tmp uses no large folios",
    "proc/kcore: no such file",        // without CONFIG_PROC_KCORE
    "the machine has swap of its own", // and then nothing can be without
    "no cgroup with a limit on swap: needs version 2",
    "an emulated machine", // is too slow to be held to milliseconds
    "a sanitizer's build",
    "the BPF JIT cannot be switched off", // CONFIG_BPF_JIT_ALWAYS_ON
    "a broken page frame stays broken until the machine restarts",
    "page-types cannot be built here",            // without Debian's source of the kernel
    "no addresses beyond those of every program", // needs five levels of tables, or 52 bits
};

constexpr uid_t nobody = 65534;

std::vector<std::string>& skips() {
    static std::vector<std::string> all;
    return all;
}

Clock::time_point after(double seconds) {
    return Clock::now() +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

int milliseconds_until(Clock::time_point deadline) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return static_cast<int>(std::max<long long>(0, left));
}

/// Becomes user nobody, who keeps these capabilities over an exec, and can get no others.
void become_nobody(std::uint64_t capabilities) {
    for (unsigned long one = 0; one < 64; ++one)
        if ((capabilities >> one & 1) == 0) prctl(PR_CAPBSET_DROP, one, 0, 0, 0);
    prctl(PR_SET_KEEPCAPS, 1);
    if (setgroups(0, nullptr) != 0 || setgid(nobody) != 0 || setuid(nobody) != 0) _exit(126);
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; ++i)
        sets[i].effective = sets[i].permitted = sets[i].inheritable =
            static_cast<std::uint32_t>(capabilities >> (32 * i));
    if (syscall(SYS_capset, &header, sets) != 0) _exit(126);
    for (unsigned long one = 0; one < 64; ++one)
        if ((capabilities >> one & 1) != 0 &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, one, 0, 0) != 0)
            _exit(126);
}

[[noreturn]] void become(const std::vector<std::string>& command, bool as_nobody,
                         std::uint64_t capabilities = 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (as_nobody) become_nobody(capabilities);
    std::vector<char*> words;
    for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execvp(words[0], words.data());
    _exit(127);
}

void replace(int fd, int target) {
    dup2(fd, target);
    if (fd != target) close(fd);
}

void set_output(Output output, int pipe_end) {
    switch (output) {
    case Output::captured: dup2(pipe_end, STDOUT_FILENO); break;
    case Output::closed: close(STDOUT_FILENO); break;
    case Output::full_device: replace(open("/dev/full", O_WRONLY), STDOUT_FILENO); break;
    case Output::broken_pipe: {
        int ends[2];
        if (pipe(ends) != 0) _exit(126);
        close(ends[0]);
        replace(ends[1], STDOUT_FILENO);
        break;
    }
    }
}

/// Reads both pipes to their ends or the deadline.
bool drain(std::array<int, 2> fds, std::array<std::string*, 2> texts, Clock::time_point deadline) {
    std::array<pollfd, 2> polls{pollfd{fds[0], POLLIN, 0}, pollfd{fds[1], POLLIN, 0}};
    std::vector<char> bytes(1 << 16);
    while (polls[0].fd >= 0 || polls[1].fd >= 0) {
        if (poll(polls.data(), polls.size(), milliseconds_until(deadline)) <= 0) return false;
        for (std::size_t i = 0; i < polls.size(); ++i) {
            if (polls[i].revents == 0) continue;
            const ssize_t n = read(polls[i].fd, bytes.data(), bytes.size());
            if (n > 0)
                texts[i]->append(bytes.data(), static_cast<std::size_t>(n));
            else
                polls[i].fd = -1;
        }
    }
    return true;
}

} // namespace

// Words and files --------------------------------------------------------------------------------

Words operator+(Words a, const Words& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>{file}, {}};
}

std::vector<json> parse_lines(const std::string& text) {
    std::vector<json> all;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        all.push_back(json::parse(line, nullptr, false));
        CHECK_MESSAGE(all.back().is_object(), "a line that is no object: " << line.substr(0, 200));
    }
    return all;
}

void skip(const std::string& reason) {
    skips().push_back(reason);
    const char* mode = std::getenv("PAGESIFT_LIVE");
    const bool required = mode != nullptr && std::string(mode) == "require";
    const bool allowed = std::any_of(allowed_skips.begin(), allowed_skips.end(), [&](auto text) {
        return reason.find(text) != std::string::npos;
    });
    if (required && !allowed)
        FAIL_CHECK("skipped, and PAGESIFT_LIVE=require: " << reason);
    else
        MESSAGE("skipped: " << reason);
}

void report_skips() {
    const std::set<std::string> all(skips().begin(), skips().end());
    std::cout << "[live] " << all.size() << " skipped\n";
    for (const auto& reason : all) std::cout << "[live]   " << reason << '\n';
}

TemporaryDirectory::TemporaryDirectory() {
    char path[] = "/tmp/pagesift-live-XXXXXX";
    REQUIRE(mkdtemp(path) != nullptr);
    chmod(path, 0755);
    path_ = path;
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::string program_of(const std::string& variable) {
    const char* value = std::getenv(variable.c_str());
    REQUIRE_MESSAGE(value != nullptr, variable << " names the program to be tested");
    REQUIRE_MESSAGE(access(value, X_OK) == 0, std::string(value) << " can be executed");
    return value;
}

std::string executable_by_all() {
    static const TemporaryDirectory directory;
    const std::string path = directory.path() + "/pagesift";
    if (access(path.c_str(), X_OK) != 0) {
        std::filesystem::copy_file(program_of("PAGESIFT_BIN"), path);
        chmod(path.c_str(), 0755);
    }
    return path;
}

Outcome run(const std::vector<std::string>& command, const RunOptions& options) {
    int out[2], err[2];
    REQUIRE(pipe2(out, O_CLOEXEC) == 0);
    REQUIRE(pipe2(err, O_CLOEXEC) == 0);
    const auto deadline = after(options.seconds);
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        replace(open("/dev/null", O_RDONLY), STDIN_FILENO);
        dup2(err[1], STDERR_FILENO);
        set_output(options.output, out[1]);
        if (options.prepare) options.prepare();
        become(command, options.as_nobody, options.capabilities);
    }
    close(out[1]);
    close(err[1]);
    Outcome outcome;
    outcome.timed_out = !drain({out[0], err[0]}, {&outcome.out, &outcome.err}, deadline);
    int status = 0;
    // Both pipes can end long before the process does.
    while (!outcome.timed_out && waitpid(pid, &status, WNOHANG) == 0) {
        if (Clock::now() > deadline)
            outcome.timed_out = true;
        else
            usleep(500);
    }
    if (outcome.timed_out) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    } else if (WIFEXITED(status)) {
        outcome.exit_code = WEXITSTATUS(status);
    }
    if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
    close(out[0]);
    close(err[0]);
    return outcome;
}

Outcome run_pagesift(const std::vector<std::string>& arguments, const RunOptions& options) {
    std::vector<std::string> command = {options.as_nobody ? executable_by_all()
                                                          : program_of("PAGESIFT_BIN")};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return run(command, options);
}

json inspect(pid_t pid, const std::vector<std::string>& arguments, const RunOptions& options) {
    std::vector<std::string> all = {"inspect", "--format", "json"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.insert(all.end(), {"-p", std::to_string(pid)});
    const auto outcome = run_pagesift(all, options);
    CHECK_FALSE(outcome.timed_out);
    CHECK_MESSAGE((outcome.exit_code == 0 || outcome.exit_code == 3),
                  "exit code " << outcome.exit_code << ", signal " << outcome.signal << ": "
                               << outcome.err.substr(0, 2000));
    const auto answer = json::parse(outcome.out, nullptr, false);
    CHECK_MESSAGE((answer.is_array() && answer.size() == 1), "one object for one process");
    return answer.is_array() && answer.size() == 1 ? answer[0] : json();
}

std::vector<std::string> lenses() {
    static const auto attempt = run_pagesift({"inspect", "--lens", "exact", "--top", "0", "self"});
    if (attempt.exit_code == 0 || attempt.exit_code == 3) return {"proc", "exact"};
    skip("no exact lens: " + attempt.err.substr(0, attempt.err.find('\n')));
    return {"proc"};
}

Background::Background(const std::vector<std::string>& command, bool as_nobody) {
    int in[2], out[2];
    REQUIRE(pipe2(in, O_CLOEXEC) == 0);
    REQUIRE(pipe2(out, O_CLOEXEC) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        become(command, as_nobody);
    }
    close(in[0]);
    close(out[1]);
    input_ = in[1];
    output_ = out[0];
}

Background::~Background() {
    close_input();
    if (!reaped_) {
        kill(pid_, SIGKILL);
        waitpid(pid_, &status_, 0);
    }
    close(output_);
}

std::optional<std::string> Background::wait_for_line(double seconds) {
    const auto deadline = after(seconds);
    std::vector<char> bytes(1 << 16);
    for (;;) {
        if (const auto end = buffer_.find('\n'); end != std::string::npos) {
            const auto line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            return line;
        }
        pollfd ready{output_, POLLIN, 0};
        if (poll(&ready, 1, milliseconds_until(deadline)) <= 0) return std::nullopt;
        const ssize_t n = read(output_, bytes.data(), bytes.size());
        if (n <= 0) return std::nullopt;
        buffer_.append(bytes.data(), static_cast<std::size_t>(n));
    }
}

bool Background::wait_for_end_of_output(double seconds) {
    std::string rest, none;
    return drain({output_, -1}, {&rest, &none}, after(seconds));
}

void Background::close_input() {
    if (input_ >= 0) close(input_);
    input_ = -1;
}

int Background::wait(double seconds) {
    const auto deadline = after(seconds);
    while (!reaped_) {
        if (Clock::now() > deadline) kill(pid_, SIGKILL);
        if (waitpid(pid_, &status_, WNOHANG) == pid_)
            reaped_ = true;
        else
            usleep(2000);
    }
    return status_;
}

void Background::signal(int number) const { kill(pid_, number); }

Child::Child(const std::function<void(const std::function<void()>&)>& body) {
    int ready[2];
    REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ready[0]);
        bool told = false;
        const auto tell = [&] {
            if (told) return;
            // A byte: the end of the pipe would not be seen where the body has forked.
            if (write(ready[1], "", 1) != 1) _exit(1);
            close(ready[1]);
            told = true;
        };
        body(tell);
        tell();
        for (;;) pause();
    }
    close(ready[1]);
    pollfd told{ready[0], POLLIN, 0};
    poll(&told, 1, 20'000);
    close(ready[0]);
}

Child::~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
}

void Child::stop() const {
    kill(pid_, SIGSTOP);
    wait_until_stopped(pid_);
}

Zoo::Zoo(const std::vector<std::string>& arguments)
    : process_([&] {
          std::vector<std::string> command = {program_of("PAGESIFT_ZOO")};
          command.insert(command.end(), arguments.begin(), arguments.end());
          return command;
      }()) {
    const auto line = process_.wait_for_line(60);
    if (!line) return;
    description_ = json::parse(*line, nullptr, false);
    if (description_.is_discarded()) description_ = nullptr;
}

Zoo::~Zoo() {
    process_.signal(SIGCONT);
    process_.close_input();
    process_.wait(30);
    process_.wait_for_end_of_output(30); // the guardian holds it until the machine is as it was
}

void Zoo::stop() const {
    process_.signal(SIGSTOP);
    wait_until_stopped(process_.pid());
}

namespace {

struct SharedZoo {
    std::shared_ptr<Zoo> zoo;
    Clock::time_point expires;
};
SharedZoo& shared_zoo() {
    static SharedZoo shared;
    return shared;
}

} // namespace

void release_zoo() { shared_zoo().zoo.reset(); }

std::shared_ptr<Zoo> stopped_zoo(ZooAge age) {
    static constexpr double youth_seconds = 30;
    if (!have_root()) return nullptr;
    SharedZoo& shared = shared_zoo();
    if (age == ZooAge::young && shared.zoo && Clock::now() < shared.expires) return shared.zoo;
    release_zoo();
    // Whoever ages this machine's memory may take a page while the zoo proves what it holds; a
    // fault of the zoo itself shows every time.
    static constexpr int most_tries = 5;
    std::shared_ptr<Zoo> zoo;
    std::set<std::string> failed_before;
    for (int tries = 0; tries < most_tries; ++tries) {
        zoo.reset(); // the one before puts the machine back first
        zoo = std::make_shared<Zoo>();
        REQUIRE_MESSAGE(zoo->ready(), "the zoo says what it has");
        std::set<std::string> failed;
        for (const auto& missing : zoo->description()["failed"]) failed.insert(missing["name"]);
        if (failed.empty() || failed == failed_before) break;
        failed_before = failed;
    }
    for (const auto& missing : zoo->description()["failed"])
        FAIL_CHECK("the zoo disproves itself: " << missing.dump());
    zoo->stop();
    shared = {zoo, after(youth_seconds)};
    return zoo;
}

void wait_until_stopped(pid_t pid) {
    for (int tries = 0; tries < 5000; ++tries, usleep(1000)) {
        std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
        std::string text;
        std::getline(in, text);
        const auto name_end = text.rfind(')');
        if (name_end != std::string::npos && text.size() > name_end + 2 &&
            text[name_end + 2] == 'T')
            return;
    }
    FAIL("the process does not stop");
}

std::uint64_t address(const json& text) {
    return std::strtoull(text.get<std::string>().c_str(), nullptr, 16);
}

json field(const json& object, const char* name) {
    return object.contains(name) ? object[name] : json();
}

bool have_root() {
    if (geteuid() == 0) return true;
    skip("not root");
    return false;
}

std::optional<std::string> find_program(const std::vector<std::string>& names) {
    for (const auto& name : names)
        if (access(name.c_str(), X_OK) == 0) return name;
    return std::nullopt;
}

} // namespace pagesift::live
