// SPDX-License-Identifier: MIT
#include "os/file.hpp"
#include "pagesift/os.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

std::optional<std::uint32_t> to_number(std::string_view text) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return {};
    return number;
}

/// The rows of a password file that are well formed, as name and number.
std::vector<std::pair<std::string, std::uint32_t>> parse_users(std::string_view text) {
    std::vector<std::pair<std::string, std::uint32_t>> users;
    while (!text.empty()) {
        auto line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        std::array<std::string_view, 3> fields; // name, password, number
        for (auto& field : fields) {
            field = line.substr(0, line.find(':'));
            line.remove_prefix(std::min(line.size(), field.size() + 1));
        }
        const auto uid = to_number(fields[2]);
        if (uid && !fields[0].empty()) users.emplace_back(fields[0], *uid);
    }
    return users;
}

#ifdef PAGESIFT_STATIC
// The C library would load the directory service's modules, which must be of its own version. A
// program that brings its own along runs on machines that have another.
std::optional<std::string> directory_name(std::uint32_t) { return {}; }
std::optional<std::uint32_t> directory_uid(const std::string&) { return {}; }
#else
/// Calls a getpw*_r function with room enough for its answer.
template <class Call> std::optional<passwd> ask_for_user(std::vector<char>& room, Call&& call) {
    room.resize(1024);
    passwd entry{};
    passwd* found = nullptr;
    while (call(&entry, room.data(), room.size(), &found) == ERANGE && room.size() < (1 << 20))
        room.resize(room.size() * 4);
    return found ? std::optional{entry} : std::nullopt;
}

std::optional<std::string> directory_name(std::uint32_t uid) {
    std::vector<char> room;
    const auto entry = ask_for_user(room, [&](auto... rest) { return ::getpwuid_r(uid, rest...); });
    return entry ? std::optional<std::string>{entry->pw_name} : std::nullopt;
}

std::optional<std::uint32_t> directory_uid(const std::string& name) {
    std::vector<char> room;
    const auto entry =
        ask_for_user(room, [&](auto... rest) { return ::getpwnam_r(name.c_str(), rest...); });
    return entry ? std::optional{entry->pw_uid} : std::nullopt;
}
#endif

/// Names of users, each asked for once. The machine's own directory service is only asked for what
/// the password file does not have: that may be far away.
class Users {
public:
    explicit Users(const Root& root) : live_(root.live()) {
        for (auto& [name, uid] : parse_users(root.read_text("etc/passwd").text))
            names_.emplace(uid, std::move(name));
    }

    const std::string& name(std::uint32_t uid) {
        const auto known = names_.find(uid);
        if (known != names_.end()) return known->second;
        std::string name;
        if (live_) name = directory_name(uid).value_or("");
        return names_.emplace(uid, std::move(name)).first->second;
    }

private:
    bool live_;
    std::map<std::uint32_t, std::string> names_;
};

/// Whether a file of a process is not there because the process is gone, or is not shown to us.
bool is_hidden(int error) {
    return error == ENOENT || error == ESRCH || error == EACCES || error == EPERM;
}

/// The text of a small file, read with one call into @p buffer, which is as long as any of them.
/// Empty: it is not there, or not for us. Throws Error(denied) where that is not known.
std::string_view read_small(int folder, const std::string& path, std::span<char> buffer) {
    const Fd file{::openat(folder, path.c_str(), O_RDONLY | O_CLOEXEC)};
    ssize_t n = -1;
    if (file) {
        do {
            n = ::read(file.get(), buffer.data(), buffer.size());
        } while (n < 0 && errno == EINTR);
    }
    if (n < 0 && !is_hidden(errno)) throw Error{ErrorKind::denied, path, errno};
    return {buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

/// The group to which memory is charged: of the memory controller's hierarchy where that is one of
/// version 1, else of the unified one. Where version 1 is mounted but nobody uses it, the unified
/// one tells more.
std::string find_cgroup(std::string_view text) {
    std::string_view memory, unified;
    for (const auto& membership : procfs::parse_cgroup(text)) {
        if (membership.unified()) unified = membership.path;
        if (membership.has("memory")) memory = membership.path;
    }
    return std::string{memory.empty() || (memory == "/" && !unified.empty()) ? unified : memory};
}

/// The names in a folder, a few at a time: where processes come and go, those listed first would
/// be gone by the time that all are. Throws Error(failed) where it cannot be read to its end.
template <class Sink> void for_each_name(int folder, Sink&& sink) {
    alignas(dirent64) std::array<char, 1024> buffer;
    while (true) {
        const auto n = ::getdents64(folder, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw Error{ErrorKind::failed, "proc", errno};
        if (n == 0) return;
        for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
            std::uint16_t length = 0;
            std::memcpy(&length, buffer.data() + at + offsetof(dirent64, d_reclen), sizeof length);
            sink(std::string{buffer.data() + at + offsetof(dirent64, d_name)});
            at += length;
        }
    }
}

class Listing {
public:
    Listing(const Root& root, ListWant want)
        : root_(root), want_(want), users_(root), proc_(open_proc(root)) {}

    std::vector<ProcessEntry> read() {
        std::vector<ProcessEntry> entries;
        for_each_name(proc_.get(), [&](const std::string& name) {
            if (const auto pid = to_number(name))
                if (auto entry = read_process(*pid, name)) entries.push_back(std::move(*entry));
        });
        std::sort(entries.begin(), entries.end(),
                  [](const auto& a, const auto& b) { return a.pid < b.pid; });
        return entries;
    }

private:
    static Fd open_proc(const Root& root) {
        auto opened = root.open("proc", O_RDONLY | O_DIRECTORY);
        if (!opened.fd) throw Error{ErrorKind::failed, "proc", opened.error};
        return std::move(opened.fd);
    }

    /// Nothing where it has no memory, or is gone.
    std::optional<ProcessEntry> read_process(std::uint32_t pid, const std::string& name) {
        const auto stat = procfs::parse_stat(read_small(proc_.get(), name + "/stat", buffer_));
        if (!stat || stat->kernel_thread()) return {};
        if (!stat->may_have_memory()) return {};
        const auto memory = stat->vm_size_bytes > 0 ? stat : find_memory(name);
        if (!memory) return {};
        ProcessEntry entry;
        entry.pid = pid;
        entry.parent = stat->parent;
        entry.start_time = stat->start_time;
        entry.comm = stat->comm;
        entry.rss_bytes = memory->rss_pages * page_size_;
        entry.uid = read_uid(name);
        if (entry.uid) entry.user = users_.name(*entry.uid);
        if (want_.exe) entry.exe = read_exe(name);
        if (want_.cgroup) entry.cgroup = read_cgroup(name);
        return entry;
    }

    std::optional<procfs::Stat> find_memory(const std::string& name) {
        for (const auto& thread : root_.list("proc/" + name + "/task")) {
            const auto path = fmt::format("{}/task/{}/stat", name, thread);
            auto stat = procfs::parse_stat(read_small(proc_.get(), path, buffer_));
            if (stat && stat->vm_size_bytes > 0) return stat;
        }
        return {};
    }

    /// The folder's owner is the effective uid, even of a process that may not be dumped
    /// (fs/proc/base.c:task_dump_owner), and asking for it is much cheaper than status.
    std::optional<std::uint32_t> read_uid(const std::string& name) {
        if (!root_.live())
            return procfs::parse_status(read_small(proc_.get(), name + "/status", buffer_)).euid;
        struct stat owner {};
        if (::fstatat(proc_.get(), name.c_str(), &owner, 0) != 0) return {};
        return owner.st_uid;
    }

    std::string read_exe(const std::string& name) {
        const auto path = name + "/exe";
        const auto n = ::readlinkat(proc_.get(), path.c_str(), buffer_.data(), buffer_.size());
        return {buffer_.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
    }

    std::string read_cgroup(const std::string& name) {
        std::string text;
        const Fd file{::openat(proc_.get(), (name + "/cgroup").c_str(), O_RDONLY | O_CLOEXEC)};
        if (file) text = read_text(file.get()).text;
        return find_cgroup(text);
    }

    const Root& root_;
    ListWant want_;
    Users users_;
    Fd proc_;
    std::uint64_t page_size_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::vector<char> buffer_ = std::vector<char>(8192);
};

/// The folder that the options name. The machine's own is open for good; a scan asks in it for
/// every process.
class RootOf {
public:
    explicit RootOf(const OpenOptions& options) {
        if (options.root != "/") other_.emplace(options.root);
    }
    const Root& operator*() const { return other_ ? *other_ : own_root(); }

private:
    std::optional<Root> other_;
};

/// A folder below /proc that stays that of one process: once that has ended, nothing can be read
/// in it any more, whoever has its number.
Fd open_process_folder(const Root& root, std::uint32_t pid, std::uint64_t start_time) {
    const auto gone = [&](const char* why) {
        return Error{ErrorKind::gone, fmt::format("pid {}", pid), 0, "", why};
    };
    auto folder = root.open(fmt::format("proc/{}", pid), O_PATH | O_DIRECTORY);
    if (!folder.fd && !is_hidden(folder.error))
        throw Error{ErrorKind::denied, fmt::format("proc/{}", pid), folder.error};
    if (!folder.fd) throw gone("no such process");
    std::array<char, 2048> buffer;
    const auto stat = procfs::parse_start_time(read_small(folder.fd.get(), "stat", buffer));
    if (!stat) throw gone("the process has ended");
    if (*stat != start_time) throw gone("the process has ended, and another one has its number");
    return std::move(folder.fd);
}

} // namespace

std::vector<ProcessEntry> list_processes(const OpenOptions& options, ListWant want) {
    const Root root{options.root};
    return Listing{root, want}.read();
}

bool hides_processes(const OpenOptions& options) {
    return Root{options.root}.live() && proc_hides_processes();
}

std::optional<std::uint32_t> find_user(const std::string& name, const OpenOptions& options) {
    const Root root{options.root};
    // A name may consist of digits, so names go first.
    for (const auto& [known, uid] : parse_users(root.read_text("etc/passwd").text))
        if (known == name) return uid;
    if (root.live())
        if (const auto uid = directory_uid(name)) return uid;
    return to_number(name);
}

RollupText read_rollup(std::uint32_t pid, std::uint64_t start_time, const OpenOptions& options) {
    const RootOf root_of{options};
    const Root& root = *root_of;
    auto folder = open_process_folder(root, pid, start_time);
    RollupText texts;
    const auto read = [&](const std::string& path, std::string& text) {
        const Fd file{::openat(folder.get(), path.c_str(), O_RDONLY | O_CLOEXEC)};
        if (!file) return errno;
        auto result = read_text(file.get());
        if (result.error == 0) text = std::move(result.text);
        return result.error;
    };
    const auto has_memory = [&](const std::string& base) {
        read(base + "status", texts.status);
        return procfs::parse_status(texts.status).has_memory();
    };
    std::string base;
    if (!has_memory(base))
        for (const auto& thread : root.list(fmt::format("proc/{}/task", pid)))
            if (has_memory(base = fmt::format("task/{}/", thread))) break;
    const int error = read(base + "smaps_rollup", texts.smaps_rollup);
    if (error == 0 && !texts.smaps_rollup.empty()) return texts;
    // A process that ends meanwhile has no memory to show, and no start time either.
    if (error == ESRCH || !is_same_process(pid, start_time, options))
        throw Error{ErrorKind::gone, fmt::format("pid {}", pid), 0, "", "the process has ended"};
    if (error == EACCES || error == EPERM)
        throw Error{ErrorKind::denied, "/" + fmt::format("proc/{}/smaps_rollup", pid), error,
                    "needs the target's uid, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"};
    texts.gaps.push_back({"smaps_rollup", std::nullopt,
                          fmt::format("the kernel does not sum up smaps ({})", errno_name(error)),
                          "--depth pages", false});
    return texts;
}

bool is_same_process(std::uint32_t pid, std::uint64_t start_time, const OpenOptions& options) {
    const RootOf root_of{options};
    const Root& root = *root_of;
    std::array<char, 2048> buffer;
    const auto stat =
        procfs::parse_stat(read_small(root.fd(), fmt::format("proc/{}/stat", pid), buffer));
    return stat && stat->start_time == start_time && stat->may_have_memory();
}

} // namespace pagesift::os
