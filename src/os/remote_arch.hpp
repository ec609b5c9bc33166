// SPDX-License-Identifier: MIT
// What the remote call must know of an instruction set: registers, and a few instructions that run
// inside the target. One file for each: remote_x86_64.cpp, remote_aarch64.cpp.
#pragma once

#include "os/remote_filter.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <sys/types.h>
#include <sys/user.h>
#include <vector>

namespace pagesift::os::arch {

#if defined(__x86_64__)
using Registers = user_regs_struct;
#else
using Registers = user_regs_struct; // of aarch64: x0-x30, sp, pc, pstate
#endif

/// Why the remote call is not offered on this machine; null: it is.
const char* refusal();
/// Why a thread with these registers cannot be sent anywhere; null: it can.
const char* refusal(const Registers& registers);

/// Was in a system call when it stopped, so it is in no restartable sequence.
bool in_system_call(const Registers& registers);
std::uint64_t instruction(const Registers& registers);
std::uint64_t stack(const Registers& registers);

/// The same, but going on at @p address, and of no system call that the kernel could restart.
Registers moved(Registers registers, std::uint64_t address);
/// The same, but only the instruction: what the kernel does when it aborts a sequence.
Registers aborted(Registers registers, std::uint64_t address);

/// Whether a tracer's stop comes after the kernel has prepared the restart of an interrupted system
/// call (arch/arm64/kernel/signal.c:do_signal), so that the registers no longer tell of it. Then
/// only a thread in a system call is sent anywhere, and what the call gave is looked at on its end.
#if defined(__x86_64__)
inline constexpr bool stop_hides_restart = false;
#else
inline constexpr bool stop_hides_restart = true;
#endif
/// The rest is for such an architecture alone.
/// Whether a 32-bit word is the instruction that makes a system call.
bool is_system_call(std::uint32_t word);
/// With which a thread goes on by itself. @param shown in the stop; @param called at the call's end
Registers going_on(const Registers& shown, const Registers& called);
/// The same as at the call's end, so that the kernel prepares the restart once more. The first
/// argument, which it takes from elsewhere, must be that of the last call that was made.
Registers with_result(Registers shown, const Registers& called);
/// Whether the code at @p address, and all that it may lead to, does not use the register that the
/// detour's last jump takes. False: not proved.
using ReadInstruction = std::function<std::optional<std::uint32_t>(std::uint64_t address)>;
bool spares_register(std::uint64_t address, const ReadInstruction& read);

/// The detour that one thread of the target takes, as bytes that run wherever they are put. It uses
/// no stack, and changes neither flags nor vector registers. In the words of user code:
///
///     block all signals;
///     child = clone(CLONE_VM | CLONE_VFORK);        // at `call`; the parent waits for the child
///     if (child == 0) exit(0);                      // unless it is steered
///     waitid(child);                                // any error is passed over
///     unblock signals; load all registers; go home;
///
/// So a thread that was sent there comes home by itself from any instruction of it. Where a stop
/// hides a restart there is one more call before signals are unblocked.
struct Detour {
    std::vector<std::uint8_t> code;
    std::uint64_t masked = 0; ///< behind the call that blocks signals; all of these are offsets
    std::uint64_t call = 0;   ///< the instruction that makes a system call, for clone
    std::uint64_t cloned = 0; ///< behind it
    std::uint64_t last = 0;   ///< behind the last call before signals are unblocked
};

/// @param home what the thread had when it was stopped by PTRACE_INTERRUPT, or going_on() of it. A
///             system call that was interrupted is begun again by the instruction that began it
/// @param mask its signal mask
Detour make_detour(const Registers& home, std::uint64_t mask);

/// All system calls that the parent makes on the detour, and the child if nobody steers it, with
/// what of their arguments is known.
std::span<const FilteredCall> calls_on_detour();

/// What the child does many times at once, in parts that each go through a list and end at a trap.
/// Two of the lists are of 32-bit thread numbers, the third is of ranges: the address of a page
/// plus a number of pages, below errand_most_pages.
///
///     for (thread : list) if (ptrace(PTRACE_SEIZE, thread) || ptrace(PTRACE_INTERRUPT, thread))
///     trap; for (thread : list) wait4(thread, __WALL);    // until it stands still, or has ended
///     trap; for (range : list) if (madvise(range, pages * page_size, argument)) trap;
struct Errand {
    std::vector<std::uint8_t> code;
    std::uint64_t seize = 0, wait = 0, advise = 0; ///< where the parts begin; all are offsets
    std::uint64_t end = 0; ///< where the trap leaves the instruction pointer
};
inline constexpr std::uint64_t errand_most_pages = 0x1000; ///< pages are 4 KiB at least
Errand make_errand();
/// Registers with which the part at @p address goes through the list at [first, last).
Registers on_errand(Registers base, std::uint64_t address, std::uint64_t first, std::uint64_t last,
                    std::uint64_t argument);
/// Where in the list it was when it came to the trap: the end, or what result() is about.
std::uint64_t errand_position(const Registers& registers);

/// Registers with which the instruction at @p address makes a system call.
Registers system_call(Registers base, std::uint64_t address, long number,
                      const std::array<std::uint64_t, 4>& arguments);
/// What it gave: the value, or -errno.
std::int64_t result(const Registers& registers);

} // namespace pagesift::os::arch
