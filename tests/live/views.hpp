// SPDX-License-Identifier: MIT
// What a program may be shown of the machine, and what it may do there: for RunOptions::prepare.
// Each function changes the calling process alone, and ends it with exit code 126 where it cannot.
//
//     run_pagesift({"scan"}, {.prepare = [] { mount_proc("hidepid=2"); }});
#pragma once

#include <string>
#include <sys/types.h>
#include <vector>

namespace pagesift::live {

/// Mounts of its own, in which @p file lies over @p path.
void cover(const std::string& path, const std::string& file);
/// Mounts of its own, with a new /proc.
void mount_proc(const std::string& options);

/// The caller's next children are in new namespaces (CLONE_NEWPID, CLONE_NEWTIME); this makes one,
/// which returns. The caller waits for it, ends as it does, and is the namespace's first process
/// only if it was made by this as well.
void go_on_as_child();
/// User, PID and mount namespaces, as `unshare --user --map-root-user --pid --fork --mount-proc`
/// makes them for user nobody. Its first process waits for the caller and can be looked at.
void enter_container();
/// A PID namespace without a /proc of its own.
void enter_pid_namespace();
/// A time namespace in which the machine is so much older.
void enter_time_namespace(long seconds);

/// A call that a seccomp filter answers with an error.
struct Forbidden {
    const char* name;
    long number;
    int error;
    unsigned request = 0; ///< of ioctl: only this one
};
void forbid(const Forbidden& call);

} // namespace pagesift::live
