// SPDX-License-Identifier: MIT
// The os room's door: a live process as a `Source`, and what this machine can do. Everything is
// found below a root folder: "/" in production, a folder of files in tests.
//
//     auto machine = os::open_machine(options);
//     auto source = os::open_process(4711, machine, options);
#pragma once

#include "pagesift/access.hpp"
#include "pagesift/actuator.hpp"
#include "pagesift/source.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::os {

struct OpenOptions {
    std::string root = "/";
    /// Interfaces not to use although the kernel has them: "pagemap-scan", "procmap-query",
    /// "cachestat", "kpageflags", "map-files"; "bpf", "bpf-syscall", "kcore" for the kernel's
    /// memory. For tests of the fallbacks.
    std::set<std::string> without;
    enum class Smaps { automatic, on, off } smaps = Smaps::automatic;
    /// exact: the kernel's own memory beside procfs. automatic: exact where it can be had.
    enum class Lens { automatic, proc, exact } lens = Lens::automatic;
};

/// Facts about the machine, from probes on this process itself; below another root than "/" only
/// what files say. Takes well under a millisecond, needs no privilege and changes nothing.
std::shared_ptr<const HostFacts> read_host(const OpenOptions& options);

class ExactLens;

/// The machine, and the lens for looking at its processes.
struct Machine {
    std::shared_ptr<const HostFacts> host; ///< its `lens` names the one that is used
    std::shared_ptr<ExactLens> exact = {}; ///< none: the proc lens
    /// KPF_KSM means nothing in kpageflags here; the exact lens sees to it that flags are true.
    bool ksm_flag_mended = false;
    std::vector<Gap> gaps = {}; ///< why it is not the exact one, where that was wanted
};

/// read_host, and the lens that @p options ask for. The exact lens takes about 2 ms and needs
/// CAP_BPF and CAP_PERFMON, or access to kcore, both with CAP_SYS_ADMIN.
/// Call it in the process' first thread.
/// @throws Error (denied, unsupported) where Lens::exact was asked for and cannot be had
Machine open_machine(const OpenOptions& options);

/// Opens a process for looking. Needs PTRACE_MODE_READ on it; frames and swap numbers need
/// CAP_SYS_ADMIN. A process whose first thread has exited is read through another one.
/// Throws Error: gone, denied, unsupported (kernel thread, zombie).
std::unique_ptr<Source> open_process(std::uint32_t pid, const Machine& machine,
                                     const OpenOptions& options);

/// How accesses are to be seen; see AccessTraits::name. automatic: the first that works, from the
/// most to the least that it can tell.
enum class AccessKind { automatic, exact, idle_bitmap, referenced, soft_dirty, lru };

/// What open_access found.
struct Access {
    std::unique_ptr<AccessSource> source;
    std::vector<Gap>
        passed_over; ///< the kinds that were tried before it, and why they would not do
};

/// Opens a process to see what it accesses. Whatever the kind, PTRACE_MODE_READ on it is needed;
/// to forget accesses (all but lru), to be its owner or root; exact: the exact lens of @p machine
/// with page flags; idle_bitmap and lru: CAP_SYS_ADMIN.
/// Nothing is written before AccessSource::forget, and nothing is left behind whenever we end.
/// Throws Error: gone, denied, unsupported (that kind, or any, cannot be had; the reasons in it).
Access open_access(std::uint32_t pid, AccessKind kind, const Machine& machine,
                   const OpenOptions& options);

/// A process as a list shows it, before its memory is looked at.
struct ProcessEntry {
    std::uint32_t pid = 0, parent = 0;
    std::uint64_t start_time = 0;           ///< clock ticks since boot
    std::optional<std::uint32_t> uid;       ///< effective, as ps(1) and pgrep(1) -u have it
    std::string user;                       ///< its name; empty: it has none
    std::string comm;                       ///< any bytes
    std::string exe;                        ///< empty: not asked for, or not readable
    std::string cgroup;                     ///< likewise; to which memory is charged, of v1 or v2
    std::optional<std::uint64_t> rss_bytes; ///< as stat has it
};

/// What costs more calls a process than it must.
struct ListWant {
    bool exe = false, cgroup = false;
};

/// Every process that has memory, by pid: without kernel threads and zombies. About four system
/// calls each, one more for each of @p want; needs no privilege but for exe of other users. Throws
/// Error where somebody may be missing.
std::vector<ProcessEntry> list_processes(const OpenOptions& options, ListWant want);

/// Whether /proc keeps processes of other users from us (mount option hidepid), so that the list is
/// not of all. False for a saved tree.
bool hides_processes(const OpenOptions& options);

/// The uid of a user's name, or of a number in decimal. Empty: there is no such user.
std::optional<std::uint32_t> find_user(const std::string& name, const OpenOptions& options);

/// Texts that tell sums of a process without a look at its pages.
struct RollupText {
    std::string smaps_rollup; ///< empty: the kernel has none, see gaps
    std::string status;
    std::vector<Gap> gaps;
};

/// Of the process that had @p pid when it was listed; one that took its number since is never read.
/// Needs PTRACE_MODE_READ on it. Throws Error: gone, denied.
RollupText read_rollup(std::uint32_t pid, std::uint64_t start_time, const OpenOptions& options);

/// Whether the process with this number is still the one that was listed, and has not exited.
/// Throws Error(denied) where that cannot be found out.
bool is_same_process(std::uint32_t pid, std::uint64_t start_time, const OpenOptions& options);

/// Whom pagesift acts on only when told to by force: init, itself, and whoever started it.
enum class Protect { all, kernel_only };

/// Opens a process for acting. Throws Error: gone (no such process, a zombie, or @p start_time,
/// unless 0, is another's), denied (a protected one), unsupported (a kernel thread, or its first
/// thread has exited, which is the only one that process_madvise(2) can reach). Has no effect on
/// the process. Whether advice is allowed shows Actuator::advise with no range at all.
std::unique_ptr<Actuator> open_actuator(std::uint32_t pid, std::uint64_t start_time,
                                        Protect protect, const OpenOptions& options);

/// Whether this process owns the file behind a mapping of @p pid, or may write to it (mm/madvise.c:
/// can_do_file_pageout). Asks for it by map_files, unless capabilities answer. Empty: not known.
std::optional<bool> owns_file(std::uint32_t pid, const Mapping& mapping,
                              const OpenOptions& options);

/// Bytes of pages of @p range that are in memory, private, and equal to another one of it; without
/// zeros. An estimate: the process runs meanwhile. Reads them by process_vm_readv(2), which marks
/// them as referenced; what is not in memory is not touched. Needs PTRACE_MODE_ATTACH. Empty: could
/// not be read. 8 bytes a page of memory.
std::optional<std::uint64_t> read_equal_bytes(std::uint32_t pid, AddressRange range,
                                              const OpenOptions& options);

/// /proc/swaps as it is now.
std::vector<procfs::SwapArea> read_swaps(const OpenOptions& options);
/// Bytes that a process' cgroup may still have in swap: the least of memory.swap.max less
/// memory.swap.current of its own and of each above it that can be seen (cgroup-v2). A page counts
/// where it was charged, which is elsewhere if the process has been moved since.
struct SwapAllowance {
    std::uint64_t bytes = 0;
    std::string cgroup; ///< whose limit it is, "/a/b"
};
/// Empty: nothing limits it but the size of swap, or that is not known. Version 1 limits memory and
/// swap together, so that page-out never meets the limit.
std::optional<SwapAllowance> read_swap_allowance(std::uint32_t pid, const OpenOptions& options);
/// MemAvailable; empty: not known.
std::optional<std::uint64_t> read_available_bytes(const OpenOptions& options);

/// Percent of the last 10 seconds in which something waited for memory, and for I/O.
struct Pressure {
    double memory = 0, io = 0;
    std::string of; ///< "the machine", or the cgroup
};
/// Of the process' own cgroup (version 2) where that has one, else of the machine.
/// Throws Error unsupported where the kernel does not measure it.
Pressure read_pressure(std::uint32_t pid, const OpenOptions& options);

/// Tells this boot of the machine from every other; empty: not known.
std::string read_boot_id(const OpenOptions& options);

/// The page tables of one address space.
struct ProcessTables {
    std::uint32_t pid = 0; ///< of several processes that share it, the first that was met
    std::string comm;      ///< verbatim
    unsigned sharers = 1;  ///< processes that share it, this one included
    std::array<std::uint64_t, 5> tables{}; ///< by level: [0] PTE tables, [1] PMD …, the top last
    std::uint64_t empty_tables = 0;        ///< PTE tables whose entries are all none; a page each
    std::uint64_t marker_only_tables = 0;  ///< PTE tables with markers and nothing else
    /// Tables that VmPTE counts and no entry names: each huge anonymous page keeps one for the time
    /// when it is split. Of a process that runs meanwhile, off by what it has made since.
    std::uint64_t deposited_tables = 0;
    std::optional<std::uint64_t> vm_pte_bytes; ///< VmPTE
    std::uint64_t unknown = 0;                 ///< stretches that changed at every look
};

/// Frames that kpageflags calls page tables (KPF_PGTABLE).
struct TypedFrames {
    std::uint64_t all = 0;
    std::uint64_t of_processes = 0; ///< of tables that the walks met
    std::uint64_t of_kernel = 0;    ///< of tables of the kernel's own part of the address space
};

/// The page tables of the whole machine.
struct PageTableCensus {
    std::vector<ProcessTables> processes; ///< those with the most empty tables first
    std::uint64_t frames = 0;             ///< of tables that the walks met, each once
    std::uint64_t not_read = 0;           ///< processes that are there and could not be read
    std::uint64_t not_read_tables = 0;    ///< what VmPTE says that these have
    std::optional<TypedFrames> typed;     ///< none: see the gaps
    std::vector<Gap> gaps;

    std::uint64_t deposited_tables() const {
        std::uint64_t sum = 0;
        for (const auto& process : processes) sum += process.deposited_tables;
        return sum;
    }
    /// Frames of page tables that are nobody's as far as was seen; negative where tables were freed
    /// meanwhile.
    std::int64_t unattributed() const {
        const TypedFrames found = typed.value_or(TypedFrames{});
        return static_cast<std::int64_t>(found.all - found.of_processes - found.of_kernel -
                                         deposited_tables() - not_read_tables);
    }
};

/// Walks the page tables of every process below /proc, once for each address space, then looks
/// through all of RAM for frames of page tables.
///
/// What is a page table and not of a process, or the other way round:
/// - Tables above PMD level need not have the type: on 5.10 and 6.1 none has, on 6.12 PUD tables
///   have, and on 6.18 all have (pagetable_pud_ctor, pagetable_p4d_ctor, pagetable_pgd_ctor).
/// - Of the kernel's own tables, some of those have it that it made after its start: on 6.1 two, on
///   6.18 over a hundred.
/// - unattributed(): the address space in which the kernel patches its text (text_poke_mm, up to 4
///   tables); the top tables of processes that could not be read, and of those that have ended
///   while somebody still holds what was their address space; processes in PID namespaces that are
///   not seen from here; and what was made or freed between the walks and the look at the frames.
/// - A PMD table of hugetlb pages may be shared: each of its processes counts it, it is one frame.
///
/// It takes about 0.2 ms a process and, for all of RAM, 30 ms a GiB and thread, of which there are
/// up to 8; without kpageflags (OpenOptions::without) only the walks. Memory: 8 bytes a table.
/// Needs the exact lens, PTRACE_MODE_READ on the processes, and kpageflags for `typed`. Nothing
/// changes for the processes.
/// @throws Error unsupported without the exact lens; failed if the kernel's memory can no longer be
///         read
PageTableCensus count_page_tables(const Machine& machine, const OpenOptions& options);

struct Findings {
    std::vector<Feature> features;
    std::vector<SelfCheck> self_checks; ///< of the exact lens, as far as they could be made
};

/// Tries every interface on this process itself and says what each is good for and how to get it.
/// Never compares version numbers. Side effects: touches some memory of its own, no other; loads
/// an eBPF program for its length, where it may.
/// Call it in the process' first thread.
Findings probe_features(const OpenOptions& options);

/// This process and its terminal.
struct Surroundings {
    bool out_is_terminal = false;
    bool err_is_terminal = false;
    unsigned columns = 80;
    unsigned processors = 1;
    std::uint32_t own_pid = 0;
};

/// Also makes sure that descriptors 0 to 2 are taken, so that no file of ours becomes standard
/// output; a missing one is replaced by one that refuses to be written to.
Surroundings read_surroundings();

/// A new file beside @p target, under its name and ".tmp", that takes its place when it is whole.
/// Nothing that lies there already is written to or followed, however it came there. It gets the
/// permissions that the target has, and its owner where the caller may give files away.
/// publish() and write() throw Error(failed).
class Replacement {
public:
    explicit Replacement(const std::string& target);
    ~Replacement(); ///< without publish(), nothing is left behind
    Replacement(const Replacement&) = delete;
    Replacement& operator=(const Replacement&) = delete;
    void write(std::string_view bytes);
    /// What is written later is written to the target.
    void publish();

private:
    struct File;
    std::unique_ptr<File> file_;
};

/// From here on SIGINT sets a flag instead of ending the process; a second one ends it.
void catch_interrupts();
bool interrupted();

} // namespace pagesift::os
