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

/// @throws Error where the kernel writes to its memory from threads that cannot be stopped: vhost
///         before 6.4. Takes some microseconds for each file that it has open
void check_writers(const Root& root, std::uint32_t pid);

/// Whether that is the process, now. One of its threads being stopped by us, it stays so.
bool is_process(const Root& root, std::uint32_t pid, std::uint64_t start_time);

/// All threads, or fewer: where one ends meanwhile the kernel may leave out those behind it
/// (fs/proc/base.c:next_tid). Empty if the process is gone. @throws Error where it cannot be listed
std::vector<pid_t> list_threads(const Root& root, std::uint32_t pid);
/// How many there are; 0 if the process is gone.
std::uint64_t count_threads(const Root& root, std::uint32_t pid);
/// A thread to make the child: of those that sleep in a system call the first, else one that runs.
/// @throws Error failed where all of them wait for a device or the like
pid_t choose_thread(const Root& root, std::uint32_t pid);
/// As in /proc: 'S' sleeps, 'R' runs or would like to. 'X': it is gone. '?': not known, for want of
/// descriptors, say.
char state_of(const Root& root, pid_t thread);

/// SECCOMP_MODE_ of linux/seccomp.h: 0 where there is none.
std::uint32_t seccomp_mode(const Root& root, pid_t thread);
bool is_gone(const Root& root, pid_t thread);
/// Is gone, or there only until somebody takes note of its end.
bool has_ended(const Root& root, pid_t thread);
/// Has ended, or is about to, whatever anybody does: it has been killed, or runs its last.
bool is_ending(const Root& root, pid_t thread);
/// In a tracer's stop, or at its end: it writes to no memory any more.
bool stands_still(const Root& root, pid_t thread);

/// The processes that share a target's memory (kcmp(2), KCMP_VM; those that may not be compared are
/// told apart by their size). Sharing begins with a process' own
/// begin (clone(2) with CLONE_VM) and never later, so that only new ones are to be looked at again.
class Sharers {
public:
    explicit Sharers(const Root& root) : root_(root) {}

    /// Looks at every process. Before the stop, as this takes some microseconds a process.
    /// @param thread of the process, with memory; it must not end
    /// @throws Error unsupported without kcmp; denied where a process may not be compared and is of
    ///         the same size; gone
    void look(std::uint32_t process, pid_t thread);
    /// All that share the memory, the process first, @p puppet not among them. Looks at those that
    /// are new.
    std::vector<std::uint32_t> look_again(std::uint32_t process, pid_t puppet);
    unsigned count() const { return static_cast<unsigned>(sharers_.size()); }

private:
    void look_at_new(std::uint32_t process, pid_t puppet);
    bool shares(std::uint32_t process) const;

    const Root& root_;
    pid_t target_ = 0;
    std::set<std::uint32_t> seen_;
    std::set<std::uint32_t> sharers_;
};

} // namespace pagesift::os
