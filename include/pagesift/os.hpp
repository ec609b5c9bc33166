// SPDX-License-Identifier: MIT
// The os room's door: a live process as a `Source`, and what this machine can do. Everything is
// found below a root folder: "/" in production, a folder of files in tests.
//
//     auto machine = os::open_machine(options);
//     auto source = os::open_process(4711, machine, options);
#pragma once

#include "pagesift/source.hpp"

#include <memory>
#include <set>
#include <string>
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
    std::vector<Gap> gaps = {};            ///< why it is not the exact one, where that was wanted
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

/// From here on SIGINT sets a flag instead of ending the process; a second one ends it.
void catch_interrupts();
bool interrupted();

} // namespace pagesift::os
