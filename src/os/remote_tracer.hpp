// SPDX-License-Identifier: MIT
// Single ptrace(2) calls on threads of another process, and waiting for them with a time limit.
// A traced thread belongs to the thread that traced it, so one `Tracer` is used on one thread. When
// that thread ends, by return or by SIGKILL, the kernel lets all of its tracees go on
// (kernel/ptrace.c:exit_ptrace): every failure may be left by an exception.
#pragma once

#include "os/remote_arch.hpp"
#include "pagesift/base.hpp"

#include <chrono>
#include <functional>
#include <linux/filter.h>
#include <optional>
#include <string_view>
#include <vector>

namespace pagesift::os {

/// Why a traced thread stands still (ptrace(2), "Stopped states").
enum class StopKind {
    interrupted, ///< PTRACE_EVENT_STOP: inside the kernel's signal code, before it restarts
                 ///< anything
    group_stop,  ///< the same, while its process is stopped by SIGSTOP or the like
    system_call, ///< at the begin or the end of one
    signal,      ///< before a signal is delivered, or after a single step (SIGTRAP)
    vfork,       ///< PTRACE_EVENT_VFORK: the child is there
    other,
};

struct Stop {
    StopKind kind = StopKind::other;
    int signal = 0; ///< to hand on when the thread goes on, so that it gets what was meant for it
};

class Tracer {
public:
    using Clock = std::chrono::steady_clock;

    /// @param patience for every single wait
    Tracer(std::chrono::nanoseconds patience, std::function<void(std::string_view)> after_step)
        : patience_(patience), after_step_(std::move(after_step)) {}

    /// Gives a thread, 0 for this one, more of the processors than most others have, as far as that
    /// is allowed (CAP_SYS_NICE): nothing is more urgent while the target stands still. Never for
    /// threads that outlive this program.
    void hurry(pid_t thread);

    /// PTRACE_SEIZE with @p options, then PTRACE_INTERRUPT. The thread still runs.
    /// @throws Error gone; denied where the kernel refuses
    void seize(pid_t thread, std::uint64_t options);
    void interrupt(pid_t thread);
    void set_options(pid_t thread, std::uint64_t options);

    /// The next stop. @throws Error gone if the thread has ended; failed after the patience
    Stop wait(pid_t thread);
    /// Waits for the stop that interrupt() asked for; signals that come before are delivered.
    /// @return interrupted or group_stop
    Stop wait_for_interrupt(pid_t thread);
    /// Waits until a traced process has ended, and takes note of it in its parent's stead.
    void wait_for_end(pid_t process);

    /// The thread goes on: to the next stop, to the next system call's begin or end, for one
    /// instruction, or for good.
    void resume(pid_t thread, int signal = 0);
    void resume_to_system_call(pid_t thread, int signal = 0);
    void single_step(pid_t thread);
    void detach(pid_t thread, int signal = 0);

    arch::Registers registers(pid_t thread);
    void set_registers(pid_t thread, const arch::Registers& registers, std::string_view step_name);
    /// The mask that holds after the system call that it is in (kernel/ptrace.c:ptrace_request).
    std::uint64_t signal_mask(pid_t thread);
    void set_signal_mask(pid_t thread, std::uint64_t mask);
    /// Of PTRACE_EVENT_VFORK: the child.
    pid_t event_child(pid_t thread);
    /// Stands at the end of a system call, behind the instruction before @p address.
    bool is_at_call_end(pid_t thread, std::uint64_t address);
    /// Stands at the begin of a system call.
    bool is_at_call_begin(pid_t thread);
    /// Whether the kernel made the signal that is to be delivered, for what the thread did.
    bool is_fault(pid_t thread);

    /// Where the restartable sequence of a thread is described; 0: none. Empty: not known (< 5.13).
    std::optional<std::uint64_t> rseq_area(pid_t thread);
    /// Whether system calls of the thread are sent back to itself (syscall user dispatch); kernels
    /// before 6.4 cannot tell and say no.
    bool dispatches_to_itself(pid_t thread);

    /// Its seccomp filters, each of which must let a system call pass.
    /// @throws Error unsupported where they cannot be read: that takes CAP_SYS_ADMIN in a program
    ///         that is under no filter itself, and CONFIG_CHECKPOINT_RESTORE
    std::vector<std::vector<sock_filter>> seccomp_filters(pid_t thread);
    /// Whether the addresses that a thread returns to are guarded (aarch64: GCS, 6.13).
    bool guards_returns(pid_t thread);

    /// Every effect on the target ends here.
    void step(std::string_view name) {
        if (after_step_) after_step_(name);
    }
    /// From here on, for every single wait.
    void be_patient(std::chrono::nanoseconds patience) {
        patience_ = patience;
        end_.reset();
    }
    /// From here on, for all waits together.
    void be_done_by(Clock::time_point end) { end_ = end; }
    Clock::time_point deadline() const { return end_.value_or(Clock::now() + patience_); }

private:
    void call(std::string_view name, int request, pid_t thread, std::uint64_t address,
              std::uint64_t data);
    int wait_status(pid_t thread);

    std::chrono::nanoseconds patience_;
    std::optional<Clock::time_point> end_;
    std::function<void(std::string_view)> after_step_;
};

/// Lets others run, and sleeps a little once that has not helped. Between looks at something.
class Patience {
public:
    void pause();

private:
    unsigned rounds_ = 0;
};

} // namespace pagesift::os
