// SPDX-License-Identifier: MIT
// A second door of the os room: advice that only the target itself can give. process_madvise(2)
// refuses MADV_DONTNEED, MADV_MERGEABLE and MADV_UNMERGEABLE on another process, so the target is
// stopped as a whole, and a short-lived child of its own makes the calls.
//
//     RemoteTarget target{pid, start_time};
//     auto report = target.with_all_stopped([&](StoppedProcess& stopped) {
//         if (stopped.is_empty(slot)) error = stopped.advise(slot, MADV_DONTNEED);
//     });
//
// What holds at any instant, whatever happens to this program (src/os/remote_parent.hpp says how):
// - If this program dies, the target goes on by itself, with all registers, its signal mask and the
//   system calls it was in as if nothing had been. Calls of the batch that were not made are not
//   made any more once a thread of the target runs again.
// - No thread of the target, and of no process that shares its memory, runs between the first line
//   of the work and its last.
#pragma once

#include "pagesift/actuator.hpp"
#include "pagesift/source.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace pagesift::os {

class Puppet;

struct StopOptions {
    /// How long it may take until every thread stands still, and then any one call. After that the
    /// target is let go and Error(failed) names the thread: it sleeps where nothing wakes it (state
    /// D), for instance.
    std::chrono::nanoseconds patience = std::chrono::milliseconds{100};
    /// If the work is not over by then SIGKILL ends this program, so that the target goes on
    /// although this program is stopped or stuck itself.
    std::chrono::nanoseconds dead_man = std::chrono::seconds{3};
    /// The thread that makes the child; 0: one that sleeps in a system call, where there is one.
    std::uint32_t thread = 0;
    /// For tests: called after every single effect on the target, with its name.
    std::function<void(std::string_view)> after_step = {};
};

struct StopReport {
    /// From before the first thread was stopped until after the last one was let go; so no thread
    /// stood still for longer.
    std::chrono::nanoseconds stopped{};
    unsigned threads = 0;   ///< that stood still
    unsigned processes = 0; ///< that share the memory, the target included
};

/// A process of which no thread runs. Lives as long as the call of the work, on whose thread alone
/// it may be used.
class StoppedProcess {
public:
    explicit StoppedProcess(Puppet& puppet) : puppet_(puppet) {}

    /// The child that makes the calls. It shares the target's address space, so
    /// proc/WITNESS/pagemap and maps are those of the memory that advise() acts on. Files of the
    /// target that were opened before the stop may be those of an address space that it has left by
    /// execve(2).
    std::uint32_t witness() const;

    /// All that stand still, of the target and of processes that share its memory; without the
    /// child.
    std::vector<std::uint32_t> threads() const;

    /// Whether no page of @p range, which lies on page borders, has an entry of any kind, markers
    /// included (every word of the witness' page map is 0 but for soft-dirty, which says nothing).
    /// Changes nothing. False where the page map cannot be read.
    bool is_empty(AddressRange range);

    /// madvise(2) in the target: 0 or an errno. MADV_DONTNEED discards what is there: ask is_empty
    /// first, under this same stop. What writes without being a thread of the target is not
    /// stopped: a device, process_vm_writev(2) of another process, a userfaultfd monitor.
    /// @throws Error gone if the target was killed; failed if the call took longer than the
    ///         patience (it may still have its effect, while every thread still stands)
    int advise(AddressRange range, int advice);

    /// Begins the same for up to most_together() ranges, one after the other. Until
    /// finish_advice(), which must come, nothing of this may be called but is_empty() and
    /// elapsed(). False, and nothing has begun: there are too many, or one is of 4096 pages or
    /// more.
    bool begin_advice(std::span<const AddressRange> ranges, int advice);
    std::size_t most_together() const;
    /// 0 or an errno for each; one that was refused is passed over. The patience is for all of them
    /// together. @throws as advise()
    std::vector<int> finish_advice();

    /// Since the first thread was stopped: for work in slices.
    std::chrono::nanoseconds elapsed() const;

private:
    Puppet& puppet_;
};

class RemoteTarget {
public:
    /// Looks whether it may be done, and keeps every other pagesift away from the process. The
    /// target is not touched.
    ///
    /// Needs PTRACE_MODE_ATTACH on it: the target's uid, or CAP_SYS_PTRACE.
    /// @param start_time as /proc/PID/stat has it, so that one that took the number is not touched
    /// @throws Error gone; unsupported or denied, with the reason in words: this program itself or
    ///         one that it descends from, init, a kernel thread, a process that is stopped, traced,
    ///         under strict seccomp, in another user namespace, with a vhost device, without a
    ///         64-bit vdso or room behind it; failed where another pagesift is at work on it
    RemoteTarget(std::uint32_t pid, std::uint64_t start_time);
    ~RemoteTarget();
    RemoteTarget(const RemoteTarget&) = delete;
    RemoteTarget& operator=(const RemoteTarget&) = delete;

    /// Stops every thread of the target and of all processes that share its memory, calls @p work,
    /// and lets them go. May be called again and again, so that single stops are short.
    ///
    /// Before and after, the target runs as if nothing had been, but for what any tracer does to
    /// it: epoll_wait(2) and the like (signal(7)) return EINTR. Afterwards one page of its vdso is
    /// its own copy, with the bytes of the original.
    ///
    /// @p work runs on a thread of its own; what it throws comes out of here after the target was
    /// let go. All signals are blocked on the calling thread meanwhile, so that ^C and ^Z come
    /// after it; other threads of this program should have none unblocked.
    /// @throws Error as the constructor does, where the target has changed since; unsupported
    ///         (32-bit code, syscall user dispatch, seccomp that may not let a call pass); denied
    ///         (its own child may not trace it); failed (a thread does not stand still in time, no
    ///         process can be made in the target). All of it before @p work was called, or thrown
    ///         by StoppedProcess
    StopReport with_all_stopped(const std::function<void(StoppedProcess&)>& work,
                                const StopOptions& options = {});

private:
    struct Files;
    std::unique_ptr<Files> files_;
};

/// The remote call as an `InsideActuator`. As RemoteTarget's constructor: no effect on the process,
/// the same errors. What an InsideRequest::sole_writer refuses is listed in
/// src/os/remote_writers.hpp; what it cannot see are processes that write by process_vm_writev(2)
/// or /proc/PID/mem, which whoever runs them must hold back.
///
/// A proof of zeros reads pages by process_vm_readv(2), which marks them as referenced.
std::unique_ptr<InsideActuator> open_inside(std::uint32_t pid, std::uint64_t start_time,
                                            std::shared_ptr<const HostFacts> host);

} // namespace pagesift::os
