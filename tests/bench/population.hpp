// SPDX-License-Identifier: MIT
//
// Many processes at once, all of them gone with the object, and also when their parent is killed
// outright: each sleeps in a read of a pipe whose other end only the parent has.
#pragma once

#include "pressure.hpp"

#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <climits>

namespace pagesift::bench {

class Pipe {
public:
    Pipe() {
        if (pipe2(ends_, O_CLOEXEC) != 0) fail("pipe2");
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        close_end(0);
        close_end(1);
    }
    int reading() const { return ends_[0]; }
    int writing() const { return ends_[1]; }
    void close_reading() { close_end(0); }
    void close_writing() { close_end(1); }

private:
    void close_end(int which) {
        if (ends_[which] >= 0) close(ends_[which]);
        ends_[which] = -1;
    }
    int ends_[2] = {-1, -1};
};

class Population {
public:
    Population() = default;
    Population(const Population&) = delete;
    Population& operator=(const Population&) = delete;
    ~Population() {
        life_.close_writing();
        ready_.close_reading();
        for (const pid_t pid : pids_)
            while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
            }
    }

    // Returns when each of them has written to all of its memory.
    void start(std::uint64_t count, std::uint64_t bytes_each) {
        const std::string program = folder_of_this_program() + "/bench_process";
        for (std::uint64_t number = 0; number < count; ++number) {
            check_stop();
            spawn(program, std::to_string(bytes_each));
        }
        ready_.close_writing(); // so that one that failed is noticed
        for (std::uint64_t number = 0; number < count;) {
            char bytes[256];
            const ssize_t got = read(ready_.reading(), bytes, sizeof bytes);
            check_stop();
            if (got == 0) throw std::runtime_error("a process did not come up");
            if (got < 0 && errno != EINTR) fail("read from the processes");
            if (got > 0) number += static_cast<std::uint64_t>(got);
        }
    }

    const std::vector<pid_t>& pids() const { return pids_; }

private:
    static std::string folder_of_this_program() {
        char path[PATH_MAX];
        const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
        if (length <= 0) fail("/proc/self/exe");
        const std::string whole(path, static_cast<std::size_t>(length));
        return whole.substr(0, whole.rfind('/'));
    }

    void spawn(const std::string& program, std::string bytes) {
        std::string name = "bench_process";
        char* arguments[] = {name.data(), bytes.data(), nullptr};
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, life_.reading(), STDIN_FILENO);
        posix_spawn_file_actions_adddup2(&actions, ready_.writing(), STDOUT_FILENO);
        pid_t pid = 0;
        errno = posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments, environ);
        posix_spawn_file_actions_destroy(&actions);
        if (errno != 0) fail(program);
        pids_.push_back(pid);
    }

    Pipe life_, ready_;
    std::vector<pid_t> pids_;
};

} // namespace pagesift::bench
