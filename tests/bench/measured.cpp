// SPDX-License-Identifier: MIT
//
// bench_measured COMMAND [ARG...]
//
// Runs a command without input and output and prints what the kernel says it used. The kernel
// starts a program's peak memory at that of whoever starts it, so this one must be small, which an
// interpreter is not. How much of its libraries' files a program has in memory depends on what else
// ran on the machine; it is told apart by a look at the program just before it is gone.

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

namespace {

double now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

double seconds(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

// A figure of /proc/PID/status; -1: there is none.
long status_kib(pid_t pid, const char* name) {
    const std::string path = "/proc/" + std::to_string(pid) + "/status";
    std::FILE* file = std::fopen(path.c_str(), "r");
    if (file == nullptr) return -1;
    long kib = -1;
    char line[256];
    while (std::fgets(line, sizeof line, file) != nullptr)
        if (std::strncmp(line, name, std::strlen(name)) == 0)
            std::sscanf(line + std::strlen(name), ": %ld", &kib);
    std::fclose(file);
    return kib;
}

struct Result {
    int status = 0;
    rusage usage{};
    long file_kib = -1;
};

// Waits for the end of a child that asked to be traced. False: the kernel said no.
bool follow(pid_t pid, Result& result) {
    bool started = false;
    while (wait4(pid, &result.status, 0, &result.usage) == pid) {
        if (!WIFSTOPPED(result.status)) return started;
        if (result.status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXIT << 8)))
            result.file_kib = status_kib(pid, "RssFile");
        if (!started && ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACEEXIT) != 0)
            return false;
        started = true;
        const int signal = WSTOPSIG(result.status) == SIGTRAP ? 0 : WSTOPSIG(result.status);
        if (ptrace(PTRACE_CONT, pid, nullptr, signal) != 0) return false;
    }
    return false;
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fputs("usage: bench_measured COMMAND [ARG...]\n", stderr);
        return 2;
    }
    const double begin = now();
    const pid_t pid = fork();
    if (pid == 0) {
        const int nothing = open("/dev/null", O_RDWR);
        dup2(nothing, STDIN_FILENO);
        dup2(nothing, STDOUT_FILENO);
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        execvp(argv[1], argv + 1);
        std::perror(argv[1]);
        _exit(127);
    }
    Result result;
    if (pid < 0 || !follow(pid, result)) {
        std::perror("bench_measured");
        return 1;
    }
    std::printf("{\"wall_seconds\":%.6f,\"cpu_seconds\":%.6f,\"peak_kib\":%ld,\"file_kib\":%ld}\n",
                now() - begin, seconds(result.usage.ru_utime) + seconds(result.usage.ru_stime),
                result.usage.ru_maxrss, result.file_kib);
    return WIFEXITED(result.status) ? WEXITSTATUS(result.status) : 1;
}
