// SPDX-License-Identifier: MIT
#include "views.hpp"

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <grp.h>
#include <iterator>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

constexpr int newtime = 0x80; // CLONE_NEWTIME, which the C library may not know
constexpr unsigned nobody = 65534;

void require(bool done) {
    if (!done) _exit(126);
}

void write_file(const char* path, const std::string& text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    require(fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    close(fd);
}

void have_own_mounts() {
    require(unshare(CLONE_NEWNS) == 0);
    require(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
}

} // namespace

void cover(const std::string& path, const std::string& file) {
    have_own_mounts();
    require(mount(file.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) == 0);
}

void mount_proc(const std::string& options) {
    have_own_mounts();
    require(mount("proc", "/proc", "proc", 0, options.empty() ? nullptr : options.c_str()) == 0);
}

void go_on_as_child() {
    const pid_t child = fork();
    require(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    int status = 0;
    while (waitpid(child, &status, 0) != child) {
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

void enter_container() {
    require(setgroups(0, nullptr) == 0 && setgid(nobody) == 0 && setuid(nobody) == 0);
    // Another user now, whose files in /proc would belong to root.
    prctl(PR_SET_DUMPABLE, 1);
    require(unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0);
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", "0 65534 1");
    write_file("/proc/self/gid_map", "0 65534 1");
    go_on_as_child();
    mount_proc("");
    go_on_as_child();
}

void enter_pid_namespace() {
    require(unshare(CLONE_NEWPID) == 0);
    go_on_as_child();
    go_on_as_child();
}

void enter_time_namespace(long seconds) {
    require(unshare(newtime) == 0);
    const auto text = std::to_string(seconds);
    write_file("/proc/self/timens_offsets", "monotonic " + text + " 0\nboottime " + text + " 0\n");
    go_on_as_child();
}

void forbid(const Forbidden& call) {
    const auto answer = static_cast<std::uint32_t>(SECCOMP_RET_ERRNO | call.error);
    const auto load = [](std::size_t offset) {
        return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
    };
    const auto unless = [](std::uint32_t value, std::uint8_t skipped) {
        return sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, skipped, value};
    };
    // The request of ioctl is its second argument, the low half of which comes first.
    sock_filter code[] = {load(offsetof(seccomp_data, nr)),
                          unless(static_cast<std::uint32_t>(call.number), 3),
                          load(offsetof(seccomp_data, args) + sizeof(__u64)),
                          unless(call.request, 1),
                          {BPF_RET | BPF_K, 0, 0, answer},
                          {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
    if (call.request == 0) code[2] = code[3] = code[4]; // whatever the arguments are
    const sock_fprog filter{static_cast<unsigned short>(std::size(code)), code};
    require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    require(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0);
}

} // namespace pagesift::live
