// SPDX-License-Identifier: MIT
#include "os/file.hpp"
#include "os/frames.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

using Clock = std::chrono::steady_clock;

/// The process' place in the hierarchy of version 2, from what is mounted, without a slash before
/// it. Empty: it is at the top, in no such hierarchy, or outside of what can be seen from here.
std::string unified_group(const Root& root, std::uint32_t pid) {
    const std::string groups = root.read_text(fmt::format("proc/{}/cgroup", pid)).text;
    for (const auto& membership : procfs::parse_cgroup(groups))
        if (membership.unified() && !membership.path.starts_with("/.."))
            return std::string{membership.path.substr(1)};
    return {};
}

/// Where the hierarchy of version 2 is mounted.
constexpr std::array<const char*, 2> unified_mounts{"sys/fs/cgroup/", "sys/fs/cgroup/unified/"};

std::optional<SwapAllowance> swap_allowance(const Root& root, std::uint32_t pid) {
    std::optional<SwapAllowance> least;
    const auto number = [&](const std::string& path) {
        const std::string text = root.read_text(path).text;
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc{} ? std::optional{value} : std::nullopt; // "max": none
    };
    const std::string own = unified_group(root, pid);
    for (std::size_t end = own.size(); end != 0 && end != own.npos; end = own.rfind('/', end - 1)) {
        const std::string group = own.substr(0, end);
        for (const char* mount : unified_mounts) {
            const auto most = number(fmt::format("{}{}/memory.swap.max", mount, group));
            const auto now = number(fmt::format("{}{}/memory.swap.current", mount, group));
            if (!most || !now) continue;
            const std::uint64_t left = *most - std::min(*most, *now);
            if (!least || left < least->bytes) least = SwapAllowance{left, "/" + group};
        }
    }
    return least;
}

class ProcessActuator final : public Actuator {
public:
    ProcessActuator(std::uint32_t pid, std::uint64_t start_time, Fd pidfd,
                    const OpenOptions& options)
        : root_(options.root),
          pid_(pid),
          start_time_(start_time),
          pidfd_(std::move(pidfd)),
          flags_(options.without.contains("kpageflags")
                     ? Fd{}
                     : root_.open("proc/kpageflags", O_RDONLY).fd) {}

    bool is_same() override {
        // Readable once it has exited, even before anybody has waited for it (pidfd_open(2)).
        pollfd waiting{pidfd_.get(), POLLIN, 0};
        if (::poll(&waiting, 1, 0) != 0) return false;
        const auto stat = root_.read_text(fmt::format("proc/{}/stat", pid_));
        return procfs::parse_start_time(stat.text) == start_time_;
    }

    AdviseResult advise(int advice, std::span<const AddressRange> ranges) override {
        std::vector<iovec> vectors;
        vectors.reserve(ranges.size());
        for (const AddressRange& range : ranges)
            vectors.push_back({reinterpret_cast<void*>(range.start.value), // of another process
                               range.size().value});
        AdviseResult result;
        const auto begin = Clock::now();
        const long done = ::syscall(SYS_process_madvise, pidfd_.get(), vectors.data(),
                                    vectors.size(), advice, 0u);
        result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
        if (done < 0)
            result.error = errno;
        else
            result.done_bytes = static_cast<std::uint64_t>(done);
        return result;
    }

    AdviseResult advise_everywhere(int advice, AddressRange range) override {
        static constexpr int most_processors = 8192;
        const std::size_t bytes = CPU_ALLOC_SIZE(most_processors);
        const auto allocate = [] {
            return std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)>{
                CPU_ALLOC(most_processors), [](cpu_set_t* set) { CPU_FREE(set); }};
        };
        const auto allowed = allocate(), one = allocate();
        if (!allowed || !one || ::sched_getaffinity(0, bytes, allowed.get()) != 0)
            return advise(advice, {&range, 1});
        AdviseResult result;
        for (int cpu = 0; cpu < most_processors; ++cpu) {
            if (!CPU_ISSET_S(cpu, bytes, allowed.get())) continue;
            CPU_ZERO_S(bytes, one.get());
            CPU_SET_S(cpu, bytes, one.get());
            if (::sched_setaffinity(0, bytes, one.get()) == 0) result = advise(advice, {&range, 1});
        }
        ::sched_setaffinity(0, bytes, allowed.get());
        return result;
    }

    std::vector<std::optional<std::uint64_t>>
    frame_flags(std::span<const std::uint64_t> frames) override {
        std::vector<std::optional<std::uint64_t>> flags(frames.size());
        if (!flags_) return flags;
        std::vector<std::uint64_t> entries(frames.size());
        for (std::size_t i = 0; i < frames.size(); ++i)
            if (frames[i] != 0) entries[i] = abi::PM_PRESENT | frames[i];
        std::vector<std::uint64_t> words;
        for (const FrameRun& run : sorted_frame_runs(entries)) {
            words.resize(run.count);
            const auto n = read_words(flags_.get(), run.pfn, words);
            for (std::int64_t i = 0; i < n; ++i)
                flags[run.index + static_cast<std::size_t>(i)] = words[static_cast<std::size_t>(i)];
        }
        return flags;
    }

    Gauges gauges() override {
        Gauges result;
        const auto memory = procfs::parse_size_fields(root_.read_text("proc/meminfo").text);
        result.swap_total_bytes = memory.find("SwapTotal");
        result.swap_free_bytes = memory.find("SwapFree");
        result.available_bytes = memory.find("MemAvailable");
        const auto counters = procfs::parse_key_values(root_.read_text("proc/vmstat").text);
        const auto add = [&](const char* name) {
            const auto found = counters.find(name);
            if (found != counters.end() && found->second >= 0)
                result.swapped_in_pages =
                    result.swapped_in_pages.value_or(0) + static_cast<std::uint64_t>(found->second);
        };
        add("pswpin");
        add("swpin_zero"); // 6.12: pages of zeroes that were only noted down
        if (const auto allowance = swap_allowance(root_, pid_))
            result.swap_allowance_bytes = allowance->bytes;
        return result;
    }

private:
    Root root_;
    std::uint32_t pid_;
    std::uint64_t start_time_;
    Fd pidfd_, flags_;
};

std::optional<procfs::Stat> read_stat(const Root& root, std::uint32_t pid) {
    return procfs::parse_stat(root.read_text(fmt::format("proc/{}/stat", pid)).text);
}

/// This process and everybody above it.
bool is_one_of_us(const Root& root, std::uint32_t pid) {
    auto at = static_cast<std::uint32_t>(::getpid());
    for (int depth = 0; at != 0 && depth < 1000; ++depth) {
        if (at == pid) return true;
        const auto stat = read_stat(root, at);
        if (!stat) return false;
        at = stat->parent;
    }
    return false;
}

std::uint64_t own_capabilities(const Root& root) {
    return procfs::parse_status(root.read_text("proc/self/status").text)
        .effective_capabilities.value_or(0);
}

void refuse_protected(const Root& root, std::uint32_t pid) {
    const auto refuse = [&](const char* who) {
        throw Error{ErrorKind::denied, fmt::format("pid {}", pid), 0, "--force, if you mean it",
                    who};
    };
    if (pid == 1) refuse("is init, which is not acted on");
    if (is_one_of_us(root, pid)) refuse("is pagesift itself or started it, and is not acted on");
}

std::string whole_path(const OpenOptions& options, const std::string& path) {
    return options.root + (options.root.ends_with('/') ? "" : "/") + path;
}

} // namespace

std::unique_ptr<Actuator> open_actuator(std::uint32_t pid, std::uint64_t start_time,
                                        Protect protect, const OpenOptions& options) {
    const Root root{options.root};
    const std::string subject = fmt::format("pid {}", pid);
    const auto gone = [&](const char* why) { return Error{ErrorKind::gone, subject, 0, "", why}; };
    if (!root.live())
        throw Error{ErrorKind::unsupported, subject, 0, "",
                    "files of a saved tree cannot be acted on"};
    if (!proc_has_own_pids())
        throw Error{ErrorKind::unsupported, subject, 0, "mount the /proc of this PID namespace",
                    "the numbers in /proc are of another PID namespace and cannot be acted on"};
    Fd pidfd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0u))};
    if (!pidfd && errno == ESRCH) throw gone("no such process");
    if (!pidfd && (errno == EINVAL || errno == ENOENT)) throw gone("not a process");
    if (!pidfd)
        throw Error{ErrorKind::unsupported, subject, errno, "needs pidfd_open(2): Linux 5.3"};
    const auto stat = read_stat(root, pid);
    if (!stat) throw gone("the process has ended");
    if (start_time != 0 && stat->start_time != start_time)
        throw gone("the process has ended, and another one has its number");
    if (stat->kernel_thread())
        throw Error{ErrorKind::unsupported, subject, 0, "",
                    "a kernel thread: it has no memory of its own"};
    if (protect == Protect::all) refuse_protected(root, pid);
    if (!stat->may_have_memory()) throw gone("a zombie: it has exited and its memory is gone");
    if (stat->vm_size_bytes == 0)
        throw Error{ErrorKind::unsupported, subject, 0, "",
                    "its first thread has exited, so process_madvise(2) cannot reach its memory"};
    auto actuator =
        std::make_unique<ProcessActuator>(pid, stat->start_time, std::move(pidfd), options);
    // What was read may be of another one than the descriptor is for, but not if that still lives.
    if (!actuator->is_same()) throw gone("the process has ended");
    return actuator;
}

std::optional<bool> owns_file(std::uint32_t pid, const Mapping& mapping,
                              const OpenOptions& options) {
    static const bool owns_all = [] {
        const std::uint64_t enough =
            std::uint64_t{1} << abi::CAP_FOWNER | std::uint64_t{1} << abi::CAP_DAC_OVERRIDE;
        return (own_capabilities(own_root()) & enough) != 0;
    }();
    if (owns_all) return true;
    const Root root{options.root};
    const auto path = fmt::format("proc/{}/map_files/{:x}-{:x}", pid, mapping.range.start.value,
                                  mapping.range.end.value);
    struct stat file {};
    if (::fstatat(root.fd(), path.c_str(), &file, 0) != 0) return {};
    return file.st_uid == ::geteuid() ||
           ::faccessat(root.fd(), path.c_str(), W_OK, AT_EACCESS) == 0;
}

std::vector<procfs::SwapArea> read_swaps(const OpenOptions& options) {
    return procfs::parse_swaps(Root{options.root}.read_text("proc/swaps").text);
}

std::optional<SwapAllowance> read_swap_allowance(std::uint32_t pid, const OpenOptions& options) {
    return swap_allowance(Root{options.root}, pid);
}

std::optional<std::uint64_t> read_available_bytes(const OpenOptions& options) {
    return procfs::parse_size_fields(Root{options.root}.read_text("proc/meminfo").text)
        .find("MemAvailable");
}

Pressure read_pressure(std::uint32_t pid, const OpenOptions& options) {
    const Root root{options.root};
    const auto read = [&](const std::string& folder, const char* what, const char* tail,
                          double& percent) {
        const auto text = root.read_text(fmt::format("{}/{}{}", folder, what, tail));
        const auto value = procfs::parse_pressure(text.text);
        if (value) percent = *value;
        return value ? 0 : text.error != 0 ? text.error : EOPNOTSUPP;
    };
    const std::string group = unified_group(root, pid);
    Pressure pressure;
    for (const char* mounted : unified_mounts)
        if (!group.empty() && read(mounted + group, "memory", ".pressure", pressure.memory) == 0 &&
            read(mounted + group, "io", ".pressure", pressure.io) == 0) {
            pressure.of = "cgroup /" + group;
            return pressure;
        }
    const int error = std::max(read("proc/pressure", "memory", "", pressure.memory),
                               read("proc/pressure", "io", "", pressure.io));
    if (error != 0)
        throw Error{ErrorKind::unsupported, "--psi", 0,
                    "needs CONFIG_PSI, and psi=1 on the kernel's command line where it is off",
                    fmt::format("the kernel does not measure pressure ({}: {})",
                                whole_path(options, "proc/pressure"), errno_name(error))};
    pressure.of = "the machine";
    return pressure;
}

} // namespace pagesift::os
