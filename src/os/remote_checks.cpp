// SPDX-License-Identifier: MIT
#include "os/remote_checks.hpp"

#include "os/remote_arch.hpp"
#include "pagesift/procfs.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <initializer_list>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <memory>
#include <optional>
#include <sys/syscall.h>
#include <unistd.h>

namespace pagesift::os {

namespace {

std::optional<std::uint32_t> parse_pid(const std::string& text) {
    std::uint32_t pid = 0;
    const auto* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, pid);
    return parsed.ec == std::errc{} && parsed.ptr == end ? std::optional{pid} : std::nullopt;
}

std::optional<procfs::Stat> read_stat(const Root& root, std::uint64_t pid) {
    const auto text = root.read_text(fmt::format("proc/{}/stat", pid));
    return text.error == 0 ? procfs::parse_stat(text.text) : std::nullopt;
}

struct ThreadStat {
    std::optional<procfs::Stat> stat;
    int error = 0; ///< an errno value where there is none
};

/// Of one thread, by its number alone. /proc/THREAD/stat would add up all threads of its process,
/// at every question (fs/proc/array.c:do_task_stat).
ThreadStat read_thread_stat(const Root& root, pid_t thread) {
    const auto text = root.read_text(fmt::format("proc/{0}/task/{0}/stat", thread));
    if (text.error != 0) return {{}, text.error};
    return {procfs::parse_stat(text.text), 0};
}

/// Names in a folder of /proc that are numbers. Root::list will not do: what cannot be listed is
/// not empty here. Empty if the folder is gone.
std::vector<std::uint32_t> list_numbers(const Root& root, const std::string& path) {
    auto folder = root.open(path, O_RDONLY | O_DIRECTORY);
    if (folder.error == ENOENT || folder.error == ESRCH) return {};
    const std::unique_ptr<DIR, int (*)(DIR*)> stream{
        folder.fd ? ::fdopendir(::dup(folder.fd.get())) : nullptr, ::closedir};
    std::vector<std::uint32_t> numbers;
    while (stream) {
        errno = 0;
        const dirent* entry = ::readdir(stream.get());
        if (entry == nullptr && (errno == 0 || errno == ENOENT)) return numbers;
        if (entry == nullptr) break;
        if (const auto number = parse_pid(entry->d_name)) numbers.push_back(*number);
    }
    throw Error{ErrorKind::failed, path, folder.fd ? errno : folder.error};
}

/// The number behind "Key:" in a status text.
std::optional<std::uint32_t> status_number(const std::string& status, const std::string& key) {
    const auto at = status.find('\n' + key + ":\t");
    if (at == std::string::npos) return {};
    const auto begin = at + key.size() + 3;
    return parse_pid(status.substr(begin, status.find_first_of(" \t\n", begin) - begin));
}

Error refused(std::uint32_t pid, const std::string& reason, const std::string& hint = {}) {
    return {ErrorKind::unsupported, fmt::format("process {}", pid), 0, hint, reason};
}

void check_relation(const Root& root, std::uint32_t pid) {
    if (pid == 1) throw refused(pid, "is init");
    const auto own = static_cast<std::uint32_t>(::getpid());
    if (pid == own) throw refused(pid, "is pagesift itself");
    for (std::uint32_t at = own; at > 1;) {
        const auto stat = read_stat(root, at);
        if (!stat) return;
        at = stat->parent;
        if (at == pid) throw refused(pid, "is a process that started pagesift");
    }
}

/// Control groups, where systemd and container engines mount them: a thread that is sent away would
/// come back only when it thaws.
void check_frozen(const Root& root, std::uint32_t pid) {
    const auto reads = [&](const std::string& path, std::initializer_list<std::string_view> words) {
        const std::string text = '\n' + root.read_text(path).text;
        return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
            return text.find(word) != std::string::npos;
        });
    };
    const auto text = root.read_text(fmt::format("proc/{}/cgroup", pid)).text;
    for (const auto& group : procfs::parse_cgroup(text)) {
        bool frozen = false;
        if (group.has("freezer"))
            frozen = reads(fmt::format("sys/fs/cgroup/freezer{}/freezer.state", group.path),
                           {"\nFROZEN\n", "\nFREEZING\n"});
        for (const char* mounted : {"sys/fs/cgroup", "sys/fs/cgroup/unified"})
            if (group.unified() && !frozen)
                frozen =
                    reads(fmt::format("{}{}/cgroup.events", mounted, group.path), {"\nfrozen 1\n"});
        if (frozen)
            throw refused(pid,
                          fmt::format("is frozen with control group {}", escape_text(group.path)),
                          "what has frozen it can thaw it: docker unpause, systemctl thaw");
    }
}

void check_thread(const Root& root, std::uint32_t pid, pid_t thread) {
    const auto text = root.read_text(fmt::format("proc/{}/task/{}/status", pid, thread));
    if (text.error == ENOENT || text.error == ESRCH) return; // has ended
    if (text.error != 0)
        throw Error{ErrorKind::denied, fmt::format("thread {}", thread), text.error};
    const auto status = procfs::parse_status(text.text);
    if (status.tracer.value_or(0) != 0)
        throw refused(pid, fmt::format("is traced by process {}", *status.tracer),
                      "a process has one tracer at a time");
    if (status.state == 'T') throw refused(pid, "is stopped by a signal", "SIGCONT lets it go on");
    // What filters let pass is looked at when a thread is stopped (Parent).
    if (status_number(text.text, "Seccomp").value_or(0) == SECCOMP_MODE_STRICT)
        throw refused(pid,
                      "is under strict seccomp, which would end it for the calls it has to make");
}

} // namespace

void check_writers(const Root& root, std::uint32_t pid) {
    // Since 6.4 the workers are threads of the process, with this name (kernel/vhost_task.c).
    const std::string worker = fmt::format("vhost-{}", pid);
    for (const pid_t thread : list_threads(root, pid)) {
        const auto stat = read_thread_stat(root, thread).stat;
        if (stat && stat->comm == worker) return;
    }
    const auto folder = fmt::format("proc/{}/fd", pid);
    for (const auto number : list_numbers(root, folder))
        if (root.read_link(fmt::format("{}/{}", folder, number)).rfind("/dev/vhost", 0) == 0)
            throw refused(pid, "has a device of which the kernel writes to its memory (vhost)");
}

bool is_process(const Root& root, std::uint32_t pid, std::uint64_t start_time) {
    const auto stat = read_stat(root, pid);
    return stat && stat->start_time == start_time;
}

void check_target(const Root& root, std::uint32_t pid, std::uint64_t start_time) {
    if (!root.live()) throw refused(pid, "is not of the machine that pagesift runs on");
    if (!proc_has_own_pids()) throw refused(pid, "is shown by the /proc of another PID namespace");
    if (const char* reason = arch::refusal()) throw refused(pid, reason);
    const auto stat = read_stat(root, pid);
    if (!stat || stat->start_time != start_time)
        throw Error{ErrorKind::gone, fmt::format("process {}", pid), ESRCH};
    if (stat->kernel_thread()) throw refused(pid, "is a kernel thread");
    if (!stat->may_have_memory()) throw refused(pid, "has no memory: it has ended");
    check_relation(root, pid);
    check_frozen(root, pid);
    const auto own_space = root.read_link("proc/self/ns/user");
    const auto its_space = root.read_link(fmt::format("proc/{}/ns/user", pid));
    if (its_space.empty())
        throw Error{ErrorKind::denied, fmt::format("process {}", pid), EACCES,
                    "needs the target's uid or CAP_SYS_PTRACE"};
    if (own_space != its_space) throw refused(pid, "is in another user namespace");
    for (const pid_t thread : list_threads(root, pid)) check_thread(root, pid, thread);
}

std::vector<pid_t> list_threads(const Root& root, std::uint32_t pid) {
    std::vector<pid_t> threads;
    for (const auto number : list_numbers(root, fmt::format("proc/{}/task", pid)))
        threads.push_back(static_cast<pid_t>(number));
    return threads;
}

std::uint64_t count_threads(const Root& root, std::uint32_t pid) {
    const auto stat = read_stat(root, pid);
    return stat ? stat->threads : 0;
}

pid_t choose_thread(const Root& root, std::uint32_t pid) {
    // PF_IO_WORKER, PF_USER_WORKER (linux/sched.h): such a thread has no user code to come home to.
    static constexpr std::uint32_t works_for_kernel = 0x10 | 0x4000;
    pid_t running = 0;
    for (const pid_t thread : list_threads(root, pid)) {
        const auto stat = read_thread_stat(root, thread).stat;
        if (!stat || (stat->flags & works_for_kernel) != 0) continue;
        if (stat->state == 'S') return thread;
        if (stat->state == 'R' && running == 0) running = thread;
    }
    if (running != 0) return running;
    throw Error{ErrorKind::failed, fmt::format("process {}", pid), 0, "try again later",
                "no thread of it can be stopped"};
}

std::uint32_t seccomp_mode(const Root& root, pid_t thread) {
    const auto text = root.read_text(fmt::format("proc/{}/status", thread));
    if (text.error != 0) throw Error{ErrorKind::gone, fmt::format("thread {}", thread), text.error};
    return status_number(text.text, "Seccomp").value_or(SECCOMP_MODE_DISABLED);
}

char state_of(const Root& root, pid_t thread) {
    const auto [stat, error] = read_thread_stat(root, thread);
    if (error == ENOENT || error == ESRCH) return 'X';
    return stat ? stat->state : '?';
}

bool is_gone(const Root& root, pid_t thread) { return state_of(root, thread) == 'X'; }

bool has_ended(const Root& root, pid_t thread) {
    const char state = state_of(root, thread);
    return state == 'Z' || state == 'X';
}

bool is_ending(const Root& root, pid_t thread) {
    static constexpr std::uint32_t exiting = 0x4; // PF_EXITING (linux/sched.h)
    const auto [stat, error] = read_thread_stat(root, thread);
    if (error == ENOENT || error == ESRCH) return true;
    if (stat && (stat->state == 'Z' || stat->state == 'X' || (stat->flags & exiting) != 0))
        return true;
    // Each thread of a killed process has the signal for itself (kernel/signal.c:complete_signal).
    const auto text = root.read_text(fmt::format("proc/{0}/task/{0}/status", thread));
    const auto pending = procfs::parse_status(text.text).pending_signals;
    return pending && (*pending >> (SIGKILL - 1) & 1) != 0;
}

bool stands_still(const Root& root, pid_t thread) {
    return state_of(root, thread) == 't' || has_ended(root, thread);
}

namespace {

/// Tells two address spaces apart by their sizes, which anyone may read. A target that runs may
/// change them meanwhile, so they are read twice.
bool differs_in_size(const Root& root, pid_t target, std::uint32_t other) {
    for (int tries = 0; tries < 10; ++tries) {
        const auto before = read_thread_stat(root, target).stat;
        const auto its = read_stat(root, other);
        const auto after = read_thread_stat(root, target).stat;
        if (!its) return true; // it has ended
        if (before && after && before->vm_size_bytes == after->vm_size_bytes &&
            before->rss_pages == after->rss_pages)
            return its->vm_size_bytes != after->vm_size_bytes || its->rss_pages != after->rss_pages;
    }
    return false;
}

/// As kcmp(2) answers: 0 for the same memory; -errno.
long compare_memory(pid_t target, pid_t other) {
    const long order = ::syscall(SYS_kcmp, target, other, KCMP_VM, 0, 0);
    return order < 0 ? -errno : order;
}

} // namespace

bool Sharers::shares(std::uint32_t process) const {
    const long order = compare_memory(target_, static_cast<pid_t>(process));
    if (order == 0) return true;
    if (order == -ESRCH) return false;
    if (order == -ENOSYS || order == -EOPNOTSUPP)
        throw refused(process, "may share the target's memory: this kernel cannot tell",
                      "needs CONFIG_KCMP");
    if (order == -EPERM && differs_in_size(root_, target_, process)) return false;
    if (order < 0)
        throw Error{ErrorKind::denied, fmt::format("process {}", process), static_cast<int>(-order),
                    "needs CAP_SYS_PTRACE", "may share the target's memory and cannot be compared"};
    // A first thread that has ended has no memory, but others of its process may have.
    if (state_of(root_, static_cast<pid_t>(process)) != 'Z') return false;
    for (const pid_t thread : list_threads(root_, process))
        if (compare_memory(target_, thread) == 0) return true;
    return false;
}

void Sharers::look_at_new(std::uint32_t process, pid_t puppet) {
    const auto all = list_numbers(root_, "proc");
    for (const std::uint32_t pid : all)
        if (pid != static_cast<std::uint32_t>(puppet) && seen_.insert(pid).second && shares(pid))
            sharers_.insert(pid);
    if (std::find(all.begin(), all.end(), process) == all.end())
        throw Error{ErrorKind::gone, fmt::format("process {}", process), ESRCH};
}

void Sharers::look(std::uint32_t process, pid_t thread) {
    target_ = thread;
    seen_ = {process};
    sharers_ = {process};
    look_at_new(process, 0);
}

std::vector<std::uint32_t> Sharers::look_again(std::uint32_t process, pid_t puppet) {
    look_at_new(process, puppet);
    std::vector<std::uint32_t> processes{process};
    for (const std::uint32_t pid : sharers_)
        if (pid != process) processes.push_back(pid);
    return processes;
}

} // namespace pagesift::os
