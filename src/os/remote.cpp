// SPDX-License-Identifier: MIT
#include "pagesift/remote.hpp"

#include "os/remote_parent.hpp"
#include "os/remote_puppet.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <exception>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <system_error>
#include <thread>

namespace pagesift::os {

namespace {

/// Ends this program after a while, unless it is destroyed before.
class DeadMan {
public:
    explicit DeadMan(std::chrono::nanoseconds time) {
        sigevent event{};
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGKILL;
        if (::timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0)
            throw Error{ErrorKind::failed, "timer_create", errno};
        const auto whole = std::chrono::duration_cast<std::chrono::seconds>(time);
        const itimerspec spec{{0, 0}, {whole.count(), (time - whole).count()}};
        ::timer_settime(timer_, 0, &spec, nullptr);
    }
    ~DeadMan() { ::timer_delete(timer_); }
    DeadMan(const DeadMan&) = delete;
    DeadMan& operator=(const DeadMan&) = delete;

private:
    timer_t timer_{};
};

/// No signal reaches this thread, and those that it starts.
class SignalsBlocked {
public:
    SignalsBlocked() {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

private:
    sigset_t before_{};
};

} // namespace

struct RemoteTarget::Files {
    const Root& root;
    std::uint32_t pid;
    std::uint64_t start_time;
    Fd lock; ///< of all pagesifts, on the process' folder; the kernel lets go of it when we die

    StopReport stop(const std::function<void(StoppedProcess&)>& work, const StopOptions& options,
                    pid_t thread, Sharers& sharers) const;
    void wait_until_released(pid_t thread) const;
    [[noreturn]] void rethrow(const std::exception_ptr& failure) const;
};

RemoteTarget::RemoteTarget(std::uint32_t pid, std::uint64_t start_time)
    : files_(new Files{own_root(), pid, start_time, {}}) {
    const auto& root = files_->root;
    check_target(root, pid, start_time);
    check_writers(root, pid);
    auto folder = root.open(fmt::format("proc/{}", pid), O_RDONLY | O_DIRECTORY);
    if (!folder.fd || !is_process(root, pid, start_time))
        throw Error{ErrorKind::gone, fmt::format("process {}", pid), ESRCH};
    if (::flock(folder.fd.get(), LOCK_EX | LOCK_NB) != 0)
        throw Error{ErrorKind::failed, fmt::format("process {}", pid), 0, "try again later",
                    "another pagesift is at work on it"};
    files_->lock = std::move(folder.fd);
}

RemoteTarget::~RemoteTarget() = default;

/// Everything between the first effect on the target and the last.
StopReport RemoteTarget::Files::stop(const std::function<void(StoppedProcess&)>& work,
                                     const StopOptions& options, pid_t thread,
                                     Sharers& sharers) const {
    StopReport report;
    Tracer tracer{options.patience, options.after_step};
    tracer.hurry(0);
    const auto began = Tracer::Clock::now();
    tracer.be_done_by(began + options.patience);
    Parent parent{tracer, root, thread};
    // The thread stands still, so these stay true; its number and the process' may have been taken
    // by others before.
    if (!is_process(root, pid, start_time) ||
        root.read_text(fmt::format("proc/{}/task/{}/stat", pid, thread)).error != 0) {
        tracer.detach(thread);
        throw Error{ErrorKind::gone, fmt::format("process {}", pid), ESRCH};
    }
    const pid_t child = parent.make_child();
    tracer.hurry(child);
    Puppet puppet{tracer, root, child, parent, began};
    std::exception_ptr failure;
    try {
        puppet.hold_all(pid, thread, sharers);
        report.threads = puppet.held();
        report.processes = sharers.count();
        tracer.be_patient(options.patience);
        StoppedProcess stopped{puppet};
        work(stopped);
    } catch (...) {
        failure = std::current_exception();
    }
    // Nobody stands still any more but the parent, and only until it gets a processor.
    tracer.be_patient(std::max(options.patience, options.dead_man / 2));
    puppet.end();
    parent.go_home();
    report.stopped = Tracer::Clock::now() - began;
    if (failure) std::rethrow_exception(failure);
    return report;
}

/// The kernel lets go of what a thread traced a little after it has been joined.
void RemoteTarget::Files::wait_until_released(pid_t thread) const {
    const auto end = Tracer::Clock::now() + std::chrono::seconds{1};
    const auto path = fmt::format("proc/{}/status", thread);
    for (Patience patience; Tracer::Clock::now() < end; patience.pause()) {
        const auto status = root.read_text(path);
        if (status.error != 0 || status.text.find("\nTracerPid:\t0\n") != std::string::npos) return;
    }
}

/// Of a target that dies the first thing that fails may be anything, and may fail long before its
/// last thread has ended.
void RemoteTarget::Files::rethrow(const std::exception_ptr& failure) const {
    try {
        std::rethrow_exception(failure);
    } catch (const Error& error) {
        const auto end = Tracer::Clock::now() + std::chrono::milliseconds{100};
        for (Patience patience;; patience.pause()) {
            const auto threads = list_threads(root, pid);
            const auto ending = std::count_if(threads.begin(), threads.end(),
                                              [&](pid_t one) { return is_ending(root, one); });
            if (!is_process(root, pid, start_time) ||
                static_cast<std::size_t>(ending) == threads.size())
                throw Error{ErrorKind::gone, fmt::format("process {}", pid), ESRCH};
            // One thread may end by itself.
            const bool perhaps = ending > 0 || error.errnum() == ESRCH;
            if (!perhaps || Tracer::Clock::now() >= end) throw;
        }
    }
}

namespace {

/// One that a killed program has sent on a detour before, if it sleeps: so the place that was left
/// becomes free. Where all places are taken one that runs will do.
pid_t preferred_thread(const Root& root, std::uint32_t pid, std::span<const pid_t> threads) {
    try {
        const auto left = DetourRoom{root, static_cast<pid_t>(pid)}.left();
        for (const char state : {'S', 'R'})
            for (const pid_t thread : left.threads)
                if ((state == 'S' || left.full) && state_of(root, thread) == state &&
                    std::find(threads.begin(), threads.end(), thread) != threads.end())
                    return thread;
    } catch (const Error&) {
        // Whoever makes the child will say what is wrong.
    }
    return choose_thread(root, pid);
}

} // namespace

StopReport RemoteTarget::with_all_stopped(const std::function<void(StoppedProcess&)>& work,
                                          const StopOptions& options) {
    const Files& files = *files_;
    check_target(files.root, files.pid, files.start_time);
    const auto threads = list_threads(files.root, files.pid);
    const pid_t thread = options.thread != 0 ? static_cast<pid_t>(options.thread)
                                             : preferred_thread(files.root, files.pid, threads);
    if (std::find(threads.begin(), threads.end(), thread) == threads.end())
        throw Error{ErrorKind::gone, fmt::format("thread {}", thread), ESRCH};
    Sharers sharers{files.root};
    sharers.look(files.pid, thread);
    StopReport report;
    std::exception_ptr failure;
    const SignalsBlocked blocked;
    const DeadMan dead_man{options.dead_man};
    // A thread of its own: whatever goes wrong, its end is like the death of this program, of which
    // it is proved that the target survives it.
    std::thread window;
    try {
        window = std::thread{[&] {
            try {
                report = files.stop(work, options, thread, sharers);
            } catch (...) {
                failure = std::current_exception();
            }
        }};
    } catch (const std::system_error& error) {
        throw Error{ErrorKind::failed, "a thread of pagesift", error.code().value()};
    }
    window.join();
    if (!failure) return report;
    files.wait_until_released(thread);
    files.rethrow(failure);
}

} // namespace pagesift::os
