// SPDX-License-Identifier: MIT
#include "os/remote_tracer.hpp"

#include <cerrno>
#include <csignal>
#include <ctime>
#include <elf.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::os {

namespace {

// linux/ptrace.h and sys/ptrace.h cannot be included together, and the latter lacks the last one.
constexpr int GETSIGMASK = 0x420a;
constexpr int SETSIGMASK = 0x420b;
constexpr int SECCOMP_GET_FILTER = 0x420c;
constexpr int GET_SYSCALL_INFO = 0x420e;
constexpr int GET_RSEQ_CONFIGURATION = 0x420f;           // 5.13
constexpr int GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211; // 6.4
constexpr std::uint8_t SYSCALL_INFO_ENTRY = 1, SYSCALL_INFO_EXIT = 2;
constexpr int system_call_trap = SIGTRAP | 0x80; // PTRACE_O_TRACESYSGOOD

template <class T> std::uint64_t word(T* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
}

/// ptrace(2) without glibc's macros: 0 or more, or -errno.
long raw(int request, pid_t thread, std::uint64_t address, std::uint64_t data) {
    const long result = ::syscall(SYS_ptrace, request, thread, address, data);
    return result < 0 ? -errno : result;
}

std::string name_of(pid_t thread) { return fmt::format("thread {}", thread); }

Stop parse_stop(int status) {
    const int event = status >> 16, signal = WSTOPSIG(status);
    if (event == PTRACE_EVENT_STOP)
        return {signal == SIGTRAP ? StopKind::interrupted : StopKind::group_stop, 0};
    if (event == PTRACE_EVENT_VFORK) return {StopKind::vfork, 0};
    if (event != 0) return {StopKind::other, 0};
    if (signal == system_call_trap) return {StopKind::system_call, 0};
    return {StopKind::signal, signal};
}

} // namespace

void Patience::pause() {
    static constexpr unsigned busy_rounds = 200;
    if (++rounds_ < busy_rounds) {
        ::sched_yield();
        return;
    }
    const timespec little{0, 50'000};
    ::nanosleep(&little, nullptr);
}

void Tracer::call(std::string_view name, int request, pid_t thread, std::uint64_t address,
                  std::uint64_t data) {
    const long result = raw(request, thread, address, data);
    step(name);
    if (result >= 0) return;
    const int error = static_cast<int>(-result);
    if (error == ESRCH) throw Error{ErrorKind::gone, name_of(thread), error};
    throw Error{error == EPERM ? ErrorKind::denied : ErrorKind::failed, name_of(thread), error, "",
                fmt::format("{} was refused ({})", name, errno_name(error))};
}

void Tracer::hurry(pid_t thread) {
    static constexpr int first = -20;
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(thread), first);
}

void Tracer::seize(pid_t thread, std::uint64_t options) {
    call("seize", PTRACE_SEIZE, thread, 0, options);
    interrupt(thread);
}

void Tracer::interrupt(pid_t thread) { call("interrupt", PTRACE_INTERRUPT, thread, 0, 0); }

void Tracer::set_options(pid_t thread, std::uint64_t options) {
    call("set options", PTRACE_SETOPTIONS, thread, 0, options);
}

int Tracer::wait_status(pid_t thread) {
    const auto end = deadline();
    for (Patience patience;; patience.pause()) {
        int status = 0;
        const pid_t got = ::waitpid(thread, &status, __WALL | WNOHANG);
        if (got == thread) {
            step("wait");
            return status;
        }
        if (got < 0 && errno != EINTR) throw Error{ErrorKind::gone, name_of(thread), ESRCH};
        if (Clock::now() > end)
            throw Error{ErrorKind::failed, name_of(thread), 0,
                        "try again later; many threads take a longer --max-stop",
                        "did not stop in time"};
    }
}

Stop Tracer::wait(pid_t thread) {
    const int status = wait_status(thread);
    if (!WIFSTOPPED(status)) throw Error{ErrorKind::gone, name_of(thread), ESRCH};
    return parse_stop(status);
}

Stop Tracer::wait_for_interrupt(pid_t thread) {
    while (true) {
        const Stop stop = wait(thread);
        if (stop.kind == StopKind::interrupted || stop.kind == StopKind::group_stop) return stop;
        // In this order: the thread cannot run on without the stop being asked for.
        interrupt(thread);
        resume(thread, stop.signal);
    }
}

void Tracer::wait_for_end(pid_t process) {
    while (WIFSTOPPED(wait_status(process))) resume(process);
}

void Tracer::resume(pid_t thread, int signal) {
    call("resume", PTRACE_CONT, thread, 0, static_cast<std::uint64_t>(signal));
}

void Tracer::resume_to_system_call(pid_t thread, int signal) {
    call("resume to system call", PTRACE_SYSCALL, thread, 0, static_cast<std::uint64_t>(signal));
}

void Tracer::single_step(pid_t thread) { call("single step", PTRACE_SINGLESTEP, thread, 0, 0); }

void Tracer::detach(pid_t thread, int signal) {
    call("detach", PTRACE_DETACH, thread, 0, static_cast<std::uint64_t>(signal));
}

arch::Registers Tracer::registers(pid_t thread) {
    arch::Registers registers{};
    iovec all{&registers, sizeof registers};
    call("get registers", PTRACE_GETREGSET, thread, NT_PRSTATUS, word(&all));
    return registers;
}

void Tracer::set_registers(pid_t thread, const arch::Registers& registers,
                           std::string_view step_name) {
    arch::Registers copy = registers;
    iovec all{&copy, sizeof copy};
    call(step_name, PTRACE_SETREGSET, thread, NT_PRSTATUS, word(&all));
}

std::uint64_t Tracer::signal_mask(pid_t thread) {
    std::uint64_t mask = 0;
    call("get mask", GETSIGMASK, thread, sizeof mask, word(&mask));
    return mask;
}

void Tracer::set_signal_mask(pid_t thread, std::uint64_t mask) {
    call("set mask", SETSIGMASK, thread, sizeof mask, word(&mask));
}

pid_t Tracer::event_child(pid_t thread) {
    unsigned long child = 0;
    call("get child", PTRACE_GETEVENTMSG, thread, 0, word(&child));
    return static_cast<pid_t>(child);
}

namespace {

struct CallInfo {
    std::uint8_t op, pad[3];
    std::uint32_t arch;
    std::uint64_t instruction, stack, rest[7];
};

CallInfo call_info(pid_t thread) {
    CallInfo info{};
    const long got = raw(GET_SYSCALL_INFO, thread, sizeof info, word(&info));
    if (got < 0) throw Error{ErrorKind::gone, name_of(thread), static_cast<int>(-got)};
    return info;
}

} // namespace

bool Tracer::is_at_call_end(pid_t thread, std::uint64_t address) {
    const CallInfo info = call_info(thread);
    return info.op == SYSCALL_INFO_EXIT && info.instruction == address;
}

bool Tracer::is_at_call_begin(pid_t thread) { return call_info(thread).op == SYSCALL_INFO_ENTRY; }

bool Tracer::is_fault(pid_t thread) {
    siginfo_t info{};
    if (raw(PTRACE_GETSIGINFO, thread, 0, word(&info)) < 0) return false;
    const int signal = info.si_signo;
    return info.si_code > 0 && (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL ||
                                signal == SIGFPE || signal == SIGTRAP || signal == SIGSYS);
}

std::optional<std::uint64_t> Tracer::rseq_area(pid_t thread) {
    struct {
        std::uint64_t address;
        std::uint32_t size, signature, flags, pad;
    } configuration{};
    const long got =
        raw(GET_RSEQ_CONFIGURATION, thread, sizeof configuration, word(&configuration));
    if (got < 0) return std::nullopt;
    return configuration.address;
}

bool Tracer::dispatches_to_itself(pid_t thread) {
    struct {
        std::uint64_t mode, selector, offset, length;
    } configuration{};
    return raw(GET_SYSCALL_USER_DISPATCH_CONFIG, thread, sizeof configuration,
               word(&configuration)) >= 0 &&
           configuration.mode != 0;
}

std::vector<std::vector<sock_filter>> Tracer::seccomp_filters(pid_t thread) {
    std::vector<std::vector<sock_filter>> filters;
    while (true) {
        long got = raw(SECCOMP_GET_FILTER, thread, filters.size(), 0);
        if (got == -ENOENT && !filters.empty()) return filters;
        if (got > 0) {
            auto& filter = filters.emplace_back(static_cast<std::size_t>(got));
            got = raw(SECCOMP_GET_FILTER, thread, filters.size() - 1, word(filter.data()));
        }
        if (got <= 0)
            throw Error{got == -ESRCH ? ErrorKind::gone : ErrorKind::unsupported, name_of(thread),
                        static_cast<int>(-got),
                        "needs CAP_SYS_ADMIN, CONFIG_CHECKPOINT_RESTORE, and that pagesift is "
                        "under no seccomp filter itself",
                        fmt::format("is under seccomp, and its filters cannot be read ({})",
                                    errno_name(static_cast<int>(-got)))};
    }
}

bool Tracer::guards_returns(pid_t thread) {
#if defined(__aarch64__)
    constexpr std::uint64_t NT_ARM_GCS = 0x410; // linux/elf.h
    struct {
        std::uint64_t enabled, locked, pointer;
    } state{};
    iovec all{&state, sizeof state};
    return raw(PTRACE_GETREGSET, thread, NT_ARM_GCS, word(&all)) >= 0 && state.enabled != 0;
#else
    (void)thread; // nothing that a detour does returns
    return false;
#endif
}

} // namespace pagesift::os
