// SPDX-License-Identifier: MIT
#include "os/remote_parent.hpp"

#include "os/remote_checks.hpp"

#include <csignal>
#include <fmt/format.h>
#include <linux/seccomp.h>
#include <optional>
#include <sys/ptrace.h>
#include <thread>
#include <utility>

namespace pagesift::os {

namespace {

Error unsupported(pid_t thread, const std::string& reason, const std::string& hint = {}) {
    return {ErrorKind::unsupported, fmt::format("thread {}", thread), 0, hint, reason};
}

Error stopped_by_signal(pid_t thread) {
    return unsupported(thread, "is stopped by a signal", "SIGCONT lets it go on");
}

constexpr std::uint64_t parent_options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEVFORK;
constexpr std::uint64_t suspend_seccomp = PTRACE_O_SUSPEND_SECCOMP;

/// Seizes and stops a thread, before anything else is looked at.
void seize_and_stop(Tracer& tracer, pid_t thread) {
    // PTRACE_O_TRACEVFORK comes later: it might be about to call vfork(2) itself.
    tracer.seize(thread, PTRACE_O_TRACESYSGOOD);
    if (tracer.wait_for_interrupt(thread).kind == StopKind::group_stop) {
        tracer.detach(thread);
        throw stopped_by_signal(thread);
    }
}

/// Whether a restartable sequence that the thread may be in is known of.
bool tells_sequence(Tracer& tracer, pid_t thread) {
    return arch::in_system_call(tracer.registers(thread)) || tracer.rseq_area(thread).has_value();
}

/// Where stops hide a restart: has the thread make the call that it is about to begin anew, and
/// stops it at once. So the kernel's word for how the call is to go on is seen, which lasts until
/// the stop that follows.
/// @return the registers at the call's end; nothing if it was in no call, or a signal came between
std::optional<arch::Registers> learn_call(Tracer& tracer, pid_t thread, const DetourRoom& room) {
    std::uint32_t word = 0;
    const auto before = tracer.registers(thread);
    const auto at = arch::instruction(before);
    if (!room.read(at, &word, sizeof word) || !arch::is_system_call(word)) return {};
    tracer.resume_to_system_call(thread);
    const Stop begin = tracer.wait(thread);
    if (begin.kind == StopKind::group_stop) return {};
    if (begin.kind != StopKind::system_call || !tracer.is_at_call_begin(thread)) {
        tracer.interrupt(thread);
        tracer.resume(thread, begin.signal);
        tracer.wait_for_interrupt(thread);
        return {};
    }
    tracer.interrupt(thread);
    tracer.resume_to_system_call(thread);
    tracer.wait(thread);
    const auto called = tracer.registers(thread);
    tracer.interrupt(thread); // that stop has taken the place of the one that was asked for
    tracer.resume(thread);
    if (tracer.wait_for_interrupt(thread).kind == StopKind::group_stop) return {};
    const auto read = [&](std::uint64_t address) -> std::optional<std::uint32_t> {
        std::uint32_t there = 0;
        return room.read(address, &there, sizeof there) ? std::optional{there} : std::nullopt;
    };
    // execve(2) and rt_sigreturn(2) lead elsewhere.
    const bool came_back =
        arch::instruction(called) == at + sizeof word && arch::stack(called) == arch::stack(before);
    if (!came_back || !arch::spares_register(at + sizeof word, read)) return {};
    return called;
}

/// Whether the thread, which is stopped, can be sent somewhere from where it is. A kernel before
/// 5.13 does not tell about sequences; but in a system call it is in none.
bool may_be_sent(Tracer& tracer, const Root& root, pid_t thread, arch::Registers& called) {
    if (!arch::stop_hides_restart) return tells_sequence(tracer, thread);
    if (const char* reason = arch::refusal(tracer.registers(thread)))
        throw unsupported(thread, reason);
    const auto learned = learn_call(tracer, thread, DetourRoom{root, thread});
    called = learned.value_or(called);
    return learned.has_value();
}

/// As seize_and_stop, and waits until it can be sent somewhere.
pid_t stop_thread(Tracer& tracer, const Root& root, pid_t thread, arch::Registers& called) {
    static constexpr int tries = 50;
    for (int i = 0; i < tries; ++i) {
        seize_and_stop(tracer, thread);
        if (may_be_sent(tracer, root, thread, called)) {
            tracer.set_options(thread, parent_options);
            return thread;
        }
        tracer.detach(thread);
        std::this_thread::sleep_for(std::chrono::microseconds{300});
    }
    throw unsupported(thread,
                      arch::stop_hides_restart
                          ? "runs, or is in no system call that it can be taken away from"
                          : "runs, and this kernel does not tell in which sequence",
                      "a thread that sleeps will do");
}

} // namespace

Parent::Parent(Tracer& tracer, const Root& root, pid_t thread)
    : tracer_(tracer),
      root_(root),
      thread_(stop_thread(tracer, root, thread, called_)),
      room_(root, thread) {}

std::uint64_t Parent::rseq_abort() const {
    if (arch::in_system_call(home_)) return 0;
    const std::uint64_t area = tracer_.rseq_area(thread_).value_or(0);
    if (area == 0) return 0;
    // struct rseq and struct rseq_cs (linux/rseq.h): what the kernel does before it lets a thread
    // go anywhere else than on (kernel/rseq.c:rseq_ip_fixup).
    std::uint64_t sequence = 0;
    if (!room_.read(area + 8, &sequence, sizeof sequence) || sequence == 0) return 0;
    struct {
        std::uint32_t version, flags;
        std::uint64_t start, length, abort;
    } description{};
    if (!room_.read(sequence, &description, sizeof description)) return 0;
    const bool inside = arch::instruction(home_) - description.start < description.length;
    return inside ? description.abort : 0;
}

void Parent::restore() {
    if (masked_) tracer_.set_signal_mask(thread_, mask_);
    masked_ = false;
    tracer_.set_registers(thread_, home_, "registers restored");
}

void Parent::let_go() {
    restore();
    room_.clear();
    tracer_.detach(thread_);
}

/// If we die the parent makes the rest of its calls alone, so all of its filters must be known to
/// let all of these pass. What the child does takes no leave: its filters are passed over as long
/// as we trace it (PTRACE_O_SUSPEND_SECCOMP), and it does not outlive us.
void Parent::check_filters() {
    filtered_ = seccomp_mode(root_, thread_) != SECCOMP_MODE_DISABLED;
    if (!filtered_) return;
    const auto filters = tracer_.seccomp_filters(thread_);
    for (const auto& filter : filters)
        for (const FilteredCall& call : arch::calls_on_detour()) {
            const auto answer = run_filter(filter, call);
            if (answer && (*answer & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ALLOW) continue;
            throw unsupported(
                thread_,
                fmt::format("is under seccomp, which may not let system call {} pass", call.number),
                "it has to make that by itself if pagesift is killed");
        }
    // Tried on the parent, which stands still: so the child can have it for certain.
    tracer_.set_options(thread_, parent_options | suspend_seccomp);
    tracer_.set_options(thread_, parent_options);
}

void Parent::leave() {
    home_ = tracer_.registers(thread_);
    mask_ = tracer_.signal_mask(thread_);
    if (const char* reason = arch::refusal(home_)) throw unsupported(thread_, reason);
    if (tracer_.dispatches_to_itself(thread_))
        throw unsupported(thread_, "has its system calls sent back to itself");
    if (tracer_.guards_returns(thread_)) throw unsupported(thread_, "has a guarded control stack");
    check_filters();
    if (arch::stop_hides_restart) home_ = arch::going_on(home_, called_);
    if (const std::uint64_t abort = rseq_abort()) home_ = arch::aborted(home_, abort);
    detour_ = arch::make_detour(home_, mask_);
    if (code_ == 0) code_ = room_.take(detour_.code.size(), thread_, home_);
    room_.write(detour_.code, thread_, home_);
    tracer_.step("detour written");
    tracer_.set_registers(thread_, arch::moved(home_, code_), "sent on the detour");
}

Parent::Leg Parent::run_to_child() {
    for (int kept = 0;;) {
        tracer_.resume_to_system_call(thread_, std::exchange(kept, 0));
        const Stop stop = tracer_.wait(thread_);
        switch (stop.kind) {
        case StopKind::vfork: return Leg::child;
        case StopKind::system_call:
            if (tracer_.is_at_call_end(thread_, code_ + detour_.masked)) masked_ = true;
            if (tracer_.is_at_call_end(thread_, code_ + detour_.cloned)) fail_without_child();
            continue;
        case StopKind::group_stop: let_go(); throw stopped_by_signal(thread_);
        case StopKind::signal:
            if (block_again(stop.signal)) {
                kept = stop.signal;
                continue;
            }
            deliver(stop.signal);
            return Leg::again;
        case StopKind::interrupted:
        case StopKind::other: continue;
        }
    }
}

void Parent::fail_without_child() {
    const auto error = static_cast<int>(-arch::result(tracer_.registers(thread_)));
    go_home();
    throw Error{ErrorKind::failed, fmt::format("thread {}", thread_), error,
                "the limit of processes may be reached",
                fmt::format("can make no child ({})", errno_name(error))};
}

/// Where a stop hides a restart, a signal that came before the detour blocked it is blocked now, so
/// that the kernel puts it back (kernel/signal.c:ptrace_signal), and decides about it at home. What
/// the detour blocks and unblocks afterwards is the same as ever.
bool Parent::block_again(int signal) {
    if (!arch::stop_hides_restart || signal == SIGSTOP || tracer_.is_fault(thread_)) return false;
    tracer_.set_signal_mask(thread_, ~std::uint64_t{0});
    masked_ = true;
    return true;
}

/// A signal that came before the detour blocked it, or cannot be blocked: it is delivered to the
/// thread as it was, and the thread is stopped anew, wherever that has taken it.
void Parent::deliver(int signal) {
    const bool of_detour =
        tracer_.is_fault(thread_) && room_.contains(arch::instruction(tracer_.registers(thread_)));
    if (of_detour) {
        let_go();
        throw unsupported(thread_, fmt::format("may not make the calls (signal {})", signal));
    }
    restore();
    tracer_.interrupt(thread_);
    tracer_.resume(thread_, signal);
    if (tracer_.wait_for_interrupt(thread_).kind != StopKind::group_stop) return;
    room_.clear();
    tracer_.detach(thread_);
    throw stopped_by_signal(thread_);
}

pid_t Parent::make_child() {
    static constexpr int tries = 20;
    for (int i = 0; i < tries; ++i) {
        try {
            leave();
        } catch (const Error&) {
            room_.clear(); // the thread is where it was, and what an earlier try wrote is not
            throw;
        }
        if (run_to_child() == Leg::again) {
            if (arch::stop_hides_restart) break; // what learn_call saw holds no more
            continue;
        }
        const pid_t child = tracer_.event_child(thread_);
        tracer_.wait(child);
        // The child has the parent's options but for this one, which would kill the parent as well.
        tracer_.set_options(child, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL |
                                       (filtered_ ? suspend_seccomp : 0));
        return child;
    }
    room_.clear();
    tracer_.detach(thread_);
    throw Error{ErrorKind::failed, fmt::format("thread {}", thread_), 0, "try again",
                "gets signals without end"};
}

void Parent::go_home() {
    int signal = 0;
    do {
        tracer_.resume_to_system_call(thread_, signal);
        // Only SIGSTOP comes here, all else is blocked. It takes effect: the thread, like all of
        // its process, is in a group stop from then on, into which it falls when it is detached.
        signal = tracer_.wait(thread_).signal;
    } while (signal != 0 || !tracer_.is_at_call_end(thread_, code_ + detour_.last));
    masked_ = true;
    if (arch::stop_hides_restart) {
        // The first argument of the detour's last call is that of the call at home; so this is just
        // how the thread stood at the end of that one.
        home_ = arch::with_result(home_, called_);
        restore();
    }
    tracer_.interrupt(thread_);
    tracer_.resume(thread_);
    tracer_.wait_for_interrupt(thread_);
    if (!arch::stop_hides_restart) restore();
    room_.clear();
    tracer_.step("vdso restored");
    tracer_.detach(thread_);
}

} // namespace pagesift::os
