// SPDX-License-Identifier: MIT
// The os room's door: a live process as a `Source`, and what this machine can do. Everything is
// found below a root folder: "/" in production, a folder of files in tests.
//
//     auto host = os::read_host(options);
//     auto source = os::open_process(4711, host, options);
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
    /// "cachestat", "kpageflags", "map-files". For tests of the fallbacks.
    std::set<std::string> without;
    enum class Smaps { automatic, on, off } smaps = Smaps::automatic;
};

/// Facts about the machine, from probes on this process itself; below another root than "/" only
/// what files say. Takes well under a millisecond, needs no privilege and changes nothing.
std::shared_ptr<const HostFacts> read_host(const OpenOptions& options);

/// Opens a process for looking. Needs PTRACE_MODE_READ on it; frames and swap numbers need
/// CAP_SYS_ADMIN. A process whose first thread has exited is read through another one.
/// Throws Error: gone, denied, unsupported (kernel thread, zombie).
std::unique_ptr<Source> open_process(std::uint32_t pid, std::shared_ptr<const HostFacts> host,
                                     const OpenOptions& options);

/// Tries every interface on this process itself and says what each is good for and how to get it.
/// Never compares version numbers. Side effects: touches some memory of its own, no other.
std::vector<Feature> probe_features(const OpenOptions& options);

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
