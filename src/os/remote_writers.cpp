// SPDX-License-Identifier: MIT
#include "os/remote_writers.hpp"

#include "os/remote_checks.hpp"
#include "pagesift/procfs.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <memory>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

struct Named {
    std::string_view begin; ///< of what the link says
    std::string_view words;
};

/// Known to write, so that the message can say what it is.
constexpr std::array writers{
    Named{"anon_inode:[io_uring]", "io_uring"},
    Named{"anon_inode:[userfaultfd]", "userfaultfd: a monitor may fill pages"},
    Named{"/dev/vhost", "a vhost device"},
    Named{"/dev/vfio/", "a device of vfio"},
    Named{"/dev/iommu", "a device of iommufd"},
    Named{"/dev/infiniband/", "RDMA"},
    Named{"/dev/kvm", "KVM"},
    Named{"anon_inode:kvm", "KVM"},
    Named{"/dmabuf:", "a DMA buffer"},
};

/// Kernel objects that do not write to anybody's memory but in a call of the process' own, or to
/// mappings of their own only.
constexpr std::array<std::string_view, 15> harmless{
    "anon_inode:[eventfd]",   "anon_inode:[eventpoll]",  "anon_inode:[signalfd]",
    "anon_inode:[timerfd]",   "anon_inode:inotify",      "anon_inode:[fanotify]",
    "anon_inode:[pidfd]",     "anon_inode:bpf-prog",     "anon_inode:bpf_link",
    "anon_inode:btf",         "anon_inode:[perf_event]", "anon_inode:landlock-ruleset",
    "anon_inode:[fscontext]", "anon_inode:[mount_tree]", "anon_inode:seccomp notify"};

bool is_harmless_device(unsigned major, unsigned minor) {
    // Documentation/admin-guide/devices.txt: memory (null, zero, full, random, urandom, kmsg),
    // terminals, and both ends of pseudo terminals.
    if (major == 1) return minor == 3 || minor == 5 || (minor >= 7 && minor <= 11);
    return major == 4 || major == 5 || (major >= 128 && major <= 143);
}

Error cannot_look(std::uint32_t pid, int error) {
    return {error == ENOENT || error == ESRCH ? ErrorKind::gone : ErrorKind::denied,
            fmt::format("process {}", pid), error,
            "needs the target's uid, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            fmt::format("its open files cannot be looked at ({})", errno_name(error))};
}

/// Names in a folder of descriptors.
std::vector<std::string> list_files(const Root& root, const std::string& folder, int& error) {
    auto opened = root.open(folder, O_RDONLY | O_DIRECTORY);
    error = opened.error;
    std::vector<std::string> names;
    if (!opened.fd) return names;
    const std::unique_ptr<DIR, int (*)(DIR*)> stream{::fdopendir(::dup(opened.fd.get())),
                                                     ::closedir};
    if (!stream) {
        error = errno;
        return names;
    }
    errno = 0;
    while (const dirent* entry = ::readdir(stream.get()))
        if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    error = errno;
    return names;
}

/// A copy of a descriptor of @p process, for a moment (pidfd_getfd(2), 5.6).
std::optional<std::string> examine_socket(int process, const std::string& number) {
    int value = -1;
    std::from_chars(number.data(), number.data() + number.size(), value);
    static constexpr long getfd = 438; // the same everywhere
    const Fd copy{process < 0 ? -1 : static_cast<int>(::syscall(getfd, process, value, 0u))};
    int domain = 0;
    socklen_t size = sizeof domain;
    if (!copy || ::getsockopt(copy.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0)
        return "a socket of which the family is not known";
    if (domain == AF_UNIX || domain == AF_INET || domain == AF_INET6 || domain == AF_NETLINK)
        return {};
    return fmt::format("a socket of family {}, which memory may be registered with", domain);
}

std::optional<std::string> examine(const Root& root, const std::string& folder,
                                   const std::string& number, int process) {
    const std::string path = fmt::format("{}/{}", folder, number);
    const std::string link = root.read_link(path);
    for (const Named& one : writers)
        if (std::string_view{link}.starts_with(one.begin)) return std::string{one.words};
    if (std::find(harmless.begin(), harmless.end(), link) != harmless.end()) return {};
    const auto unknown = [&] {
        return fmt::format(
            "{}, of which it is not known whether the kernel writes to memory for it",
            link.empty() ? "an open file" : escape_text(link));
    };
    if (link.starts_with("anon_inode:")) return unknown();
    struct statx file {};
    // Without asking a server, which may not answer.
    if (::statx(root.fd(), path.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &file) != 0) {
        if (errno == ENOENT) return {}; // closed meanwhile
        return unknown();
    }
    switch (file.stx_mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFBLK: return {};
    case S_IFSOCK: return examine_socket(process, number);
    case S_IFCHR:
        if (is_harmless_device(file.stx_rdev_major, file.stx_rdev_minor)) return {};
        return unknown();
    default: return unknown();
    }
}

bool has_other_files(std::uint32_t one, std::uint32_t other) {
    return one != other && ::syscall(SYS_kcmp, one, other, KCMP_FILES, 0, 0) != 0;
}

bool has_requests(const Root& root, std::uint32_t pid) {
    const auto maps = root.read_text(fmt::format("proc/{}/maps", pid));
    if (maps.error != 0) throw cannot_look(pid, maps.error);
    return maps.text.find(" /[aio]") != std::string::npos;
}

} // namespace

std::optional<std::string> find_writer(const Root& root, std::uint32_t pid,
                                       std::span<const std::uint32_t> threads) {
    const auto status = root.read_text(fmt::format("proc/{}/status", pid));
    if (status.error != 0) throw cannot_look(pid, status.error);
    const auto pinned = procfs::parse_size_fields(status.text).find("VmPin");
    if (!pinned || *pinned != 0) return "VmPin: pages that devices or io_uring may write to";
    if (has_requests(root, pid)) return "asynchronous I/O (io_setup(2))";
    for (const std::uint32_t thread : threads)
        // One that has ended meanwhile has none at all.
        if (has_other_files(pid, thread) && !has_ended(root, static_cast<pid_t>(thread)))
            return fmt::format("thread {} with open files of its own", thread);
    const Fd process{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0u))};
    const auto folder = fmt::format("proc/{}/fd", pid);
    int error = 0;
    const auto files = list_files(root, folder, error);
    if (error != 0) throw cannot_look(pid, error);
    for (const std::string& number : files)
        if (auto found = examine(root, folder, number, process.get())) return found;
    return {};
}

std::optional<std::string> find_monitor(const Root& root, std::uint32_t pid) {
    int error = 0;
    const auto names = list_files(root, "proc", error);
    if (error != 0) throw cannot_look(pid, error);
    for (const std::string& name : names) {
        std::uint32_t other = 0;
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), other);
        if (parsed.ec != std::errc{} || parsed.ptr != name.data() + name.size() || other == pid)
            continue;
        const auto folder = fmt::format("proc/{}/fd", other);
        for (const std::string& number : list_files(root, folder, error))
            if (root.read_link(fmt::format("{}/{}", folder, number)) == "anon_inode:[userfaultfd]")
                return fmt::format("process {} has a userfaultfd, which may be for its memory",
                                   other);
        // Others may end, or be hidden from whoever is not root.
        if (error != 0 && error != ENOENT && error != ESRCH && error != EACCES && error != EPERM)
            throw cannot_look(other, error);
    }
    return {};
}

} // namespace pagesift::os
