// SPDX-License-Identifier: MIT
// Whether a remote call may be made in a process, and who else shares its memory.
#pragma once

#include "os/file.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <sys/types.h>
#include <vector>

namespace pagesift::os {

/// @throws Error with the reason why no call may be made in that process (see RemoteTarget)
void check_target(const Root& root, std::uint32_t pid, std::uint64_t start_time);

/// Whether that is the process, now. One of its threads being stopped by us, it stays so.
bool is_process(const Root& root, std::uint32_t pid, std::uint64_t start_time);

std::vector<pid_t> list_threads(const Root& root, std::uint32_t pid);
/// A thread to make the child: of those that sleep in a system call the first, else one that runs.
/// @throws Error failed where all of them wait for a device or the like
pid_t choose_thread(const Root& root, std::uint32_t pid);

bool has_ended(const Root& root, pid_t thread);
/// In a tracer's stop, or at its end: it writes to no memory any more.
bool stands_still(const Root& root, pid_t thread);

/// The processes that share a target's memory (kcmp(2), KCMP_VM; those that may not be compared are
/// told apart by their size). Sharing begins with a process' own
/// begin (clone(2) with CLONE_VM) and never later, so that only new ones are to be looked at again.
/// A process whose first thread has ended is seen as sharing nothing.
class Sharers {
public:
    explicit Sharers(const Root& root) : root_(root) {}

    /// Looks at every process. Before the stop, as this takes some microseconds a process.
    /// @throws Error unsupported without kcmp; denied where a process may not be compared and is of
    ///         the same size
    void look(std::uint32_t target);
    /// All that share the memory, the target first, @p puppet not among them. Looks at those that
    /// are new.
    std::vector<std::uint32_t> look_again(std::uint32_t target, pid_t puppet);
    unsigned count() const { return static_cast<unsigned>(sharers_.size()); }

private:
    void compare_new(std::uint32_t target, pid_t puppet);

    const Root& root_;
    std::set<std::uint32_t> seen_;
    std::set<std::uint32_t> sharers_;
};

} // namespace pagesift::os
