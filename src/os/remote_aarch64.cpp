// SPDX-License-Identifier: MIT
// Proved in guests of 4 and of 16 KiB pages (tests/kernels); on no machine of this kind.
#include "os/remote_arch.hpp"

#if defined(__aarch64__)

#include <bit>
#include <cstring>
#include <linux/audit.h>
#include <set>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

// The detour. Every address is relative to the instruction, so the bytes run anywhere; no flags
// change. The one call that x86_64 has not, getpid with the first argument of the call at home, is
// there because of what the kernel remembers of it: see Parent::go_home. The last jump takes x17,
// see spares_register(). It is a `ret` as that needs no landing pad (BTI) where it leads to.
asm(R"(
        .pushsection .rodata
        .balign 8
        .irp label, begin, masked, call, cloned, last, words, end
        .globl  detour_\label                   // the linker's table has no room for local ones
        .hidden detour_\label
        .endr
detour_begin:
        mov     x0, #2                          // rt_sigprocmask(SIG_SETMASK, &all, NULL, 8)
        adr     x1, detour_all
        mov     x2, #0
        mov     x3, #8
        mov     x8, #135
        svc     #0
detour_masked:
        mov     x0, #0x4100                     // clone(CLONE_VM | CLONE_VFORK, 0, 0, 0, 0)
        mov     x1, #0
        mov     x2, #0
        mov     x3, #0
        mov     x4, #0
        mov     x8, #220
detour_call:
        svc     #0
detour_cloned:
        cbz     x0, detour_child
        mov     x1, x0                          // waitid(P_PID, child, NULL, WEXITED | __WALL, NULL)
        mov     x0, #1
        mov     x2, #0
        mov     x3, #4
        movk    x3, #0x4000, lsl #16
        mov     x4, #0
        mov     x8, #95
        svc     #0
        ldr     x0, detour_x0                   // getpid()
        mov     x8, #172
        svc     #0
detour_last:
        mov     x0, #2                          // rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8)
        adr     x1, detour_mask
        mov     x2, #0
        mov     x3, #8
        mov     x8, #135
        svc     #0
        ldr     x0, detour_x0
        ldr     x1, detour_x1
        ldr     x2, detour_x2
        ldr     x3, detour_x3
        ldr     x4, detour_x4
        ldr     x8, detour_x8
        ldr     x17, detour_pc
        ret     x17
detour_child:
        mov     x0, #0                          // exit(0)
        mov     x8, #93
        svc     #0
        b       detour_child
        .balign 8
detour_words:
detour_all:  .quad -1
detour_mask: .quad 0
detour_x0:   .quad 0
detour_x1:   .quad 0
detour_x2:   .quad 0
detour_x3:   .quad 0
detour_x4:   .quad 0
detour_x8:   .quad 0
detour_pc:   .quad 0
detour_end:
        .popsection
)");

// The errand. x19: the place in the list; x20: its end; x21: the argument; x22: bits of a page.
asm(R"(
        .pushsection .rodata
        .balign 8
        .irp label, begin, seize, wait, advise, end
        .globl  errand_\label
        .hidden errand_\label
        .endr
errand_begin:
errand_seize:
        cmp     x19, x20
        b.eq    errand_trap
        mov     x0, #0x4206                     // ptrace(PTRACE_SEIZE, thread, 0, 0)
        ldr     w1, [x19]
        mov     x2, #0
        mov     x3, #0
        mov     x8, #117
        svc     #0
        cbnz    x0, errand_trap
        mov     x0, #0x4207                     // ptrace(PTRACE_INTERRUPT, thread, 0, 0)
        svc     #0
        cbnz    x0, errand_trap
        add     x19, x19, #4
        b       errand_seize
errand_wait:
        cmp     x19, x20
        b.eq    errand_trap
        ldr     w0, [x19]                       // wait4(thread, NULL, __WALL, NULL)
        mov     x1, #0
        mov     x2, #0x40000000
        mov     x3, #0
        mov     x8, #260
        svc     #0
        add     x19, x19, #4
        b       errand_wait
errand_advise:
        cmp     x19, x20
        b.eq    errand_trap
        ldr     x0, [x19]                       // madvise(page, pages << bits, argument)
        and     x1, x0, #0xfff
        sub     x0, x0, x1
        lsl     x1, x1, x22
        mov     x2, x21
        mov     x8, #233
        svc     #0
        cbnz    x0, errand_trap
        add     x19, x19, #8
        b       errand_advise
errand_trap:
        brk     #0
errand_end:
        .popsection
)");

extern "C" {
extern const std::uint8_t detour_begin[], detour_masked[], detour_call[], detour_cloned[],
    detour_last[], detour_words[], detour_end[];
extern const std::uint8_t errand_begin[], errand_seize[], errand_wait[], errand_advise[],
    errand_end[];
}

namespace pagesift::os::arch {

namespace {

constexpr std::uint64_t mode_32 = 0x10; // PSR_MODE32_BIT (asm/ptrace.h)
constexpr std::uint64_t system_call_restart = 128;
constexpr std::uint32_t svc = 0xd4000001;
constexpr unsigned jump_register = 17;

std::uint32_t bits(std::uint32_t word, unsigned low, unsigned count) {
    return (word >> low) & ((std::uint32_t{1} << count) - 1);
}

/// Where a branch leads that counts in words: the field is signed.
std::uint64_t branch_target(std::uint64_t at, std::uint32_t word, unsigned low, unsigned count) {
    std::int64_t words = bits(word, low, count);
    if ((words >> (count - 1)) != 0) words -= std::int64_t{1} << count;
    return at + static_cast<std::uint64_t>(words * 4);
}

/// A field of an instruction that can name a register names x16 or x17. It may be part of a number
/// instead: then too much is taken for a use. x16 counts as some instructions name the first of two
/// registers.
bool may_name_jump_register(std::uint32_t word) {
    const auto names = [&](unsigned low) {
        return bits(word, low, 5) == jump_register || bits(word, low, 5) == jump_register - 1;
    };
    if (names(0)) return true;
    if (bits(word, 24, 5) == 0b10000 || bits(word, 23, 6) == 0b100101) return false; // adr, mov
    if (names(5)) return true;
    // add, logic and bit fields with a number; loads and stores at a number of bytes
    if (bits(word, 24, 5) == 0b10001 || bits(word, 23, 6) == 0b100100 ||
        bits(word, 23, 6) == 0b100110 || (word & 0x3b000000) == 0x39000000)
        return false;
    return names(10) || names(16);
}

enum class Way {
    on,     ///< to the next instruction
    both,   ///< there, or to the target
    target, ///< to the target
    out,    ///< into another function, or back into the caller
    unknown
};

struct Step {
    Way way = Way::on;
    std::uint64_t target = 0;
};

/// Does nothing to x16 and x17: of the hints nop and the like, those that sign the return address,
/// and landing pads; barriers.
bool is_harmless_hint(std::uint32_t word) {
    if ((word & 0xfffff01f) == 0xd503301f) return true;
    const auto kind = bits(word, 8, 4);
    return (word & 0xfffff01f) == 0xd503201f && (kind == 0 || kind == 3 || kind == 4);
}

/// Arm Architecture Reference Manual, C4.1: branches, exceptions and system instructions. At a call
/// and at a return x16 and x17 are anybody's (Procedure Call Standard, 6.1.1).
Step decode(std::uint64_t at, std::uint32_t word) {
    const bool names_it = bits(word, 0, 5) == jump_register;
    if (bits(word, 26, 5) == 0b00101) // b, bl
        return {bits(word, 31, 1) != 0 ? Way::out : Way::target, branch_target(at, word, 0, 26)};
    if (bits(word, 24, 8) == 0b01010100) // b.cond
        return {Way::both, branch_target(at, word, 5, 19)};
    if (bits(word, 25, 6) == 0b011010 && !names_it) // cbz, cbnz
        return {Way::both, branch_target(at, word, 5, 19)};
    if (bits(word, 25, 6) == 0b011011 && !names_it) // tbz, tbnz
        return {Way::both, branch_target(at, word, 5, 14)};
    const bool returns = (word & 0xfffffc1f) == 0xd65f0000,
               calls = (word & 0xfffffc1f) == 0xd63f0000;
    if ((returns || calls) && !may_name_jump_register(word)) return {Way::out};
    if (word == 0xd65f0bff || word == 0xd65f0fff) return {Way::out}; // retaa, retab
    if (word == svc || is_harmless_hint(word)) return {};
    // mrs, msr: the number of a system register is where others are named elsewhere.
    if ((word & 0xffd00000) == 0xd5100000 && !names_it) return {};
    if (bits(word, 26, 3) == 0b101 || may_name_jump_register(word)) return {Way::unknown};
    return {};
}

} // namespace

bool spares_register(std::uint64_t address, const ReadInstruction& read) {
    static constexpr std::size_t most_instructions = 400;
    std::vector<std::uint64_t> open{address};
    std::set<std::uint64_t> seen;
    while (!open.empty()) {
        const std::uint64_t at = open.back();
        open.pop_back();
        if (!seen.insert(at).second) continue;
        if (seen.size() > most_instructions) return false;
        const auto word = read(at);
        if (!word) return false;
        const Step step = decode(at, *word);
        if (step.way == Way::unknown) return false;
        if (step.way == Way::on || step.way == Way::both) open.push_back(at + 4);
        if (step.way == Way::target || step.way == Way::both) open.push_back(step.target);
    }
    return true;
}

const char* refusal() { return nullptr; }

const char* refusal(const Registers& registers) {
    return (registers.pstate & mode_32) == 0 ? nullptr : "it runs 32-bit code";
}

// Others are sent nowhere: see Parent.
bool in_system_call(const Registers&) { return true; }

bool is_system_call(std::uint32_t word) { return word == svc; }

Registers going_on(const Registers& shown, const Registers& called) {
    Registers registers = shown;
    if (static_cast<std::int64_t>(called.regs[0]) == -516) // ERESTART_RESTARTBLOCK
        registers.regs[8] = system_call_restart;
    return registers;
}

Registers with_result(Registers shown, const Registers& called) {
    shown.pc = called.pc;
    shown.regs[0] = called.regs[0];
    return shown;
}

std::uint64_t instruction(const Registers& registers) { return registers.pc; }
std::uint64_t stack(const Registers& registers) { return registers.sp; }

Registers moved(Registers registers, std::uint64_t address) {
    registers.pc = address;
    return registers;
}

Registers aborted(Registers registers, std::uint64_t address) {
    registers.pc = address;
    return registers;
}

Detour make_detour(const Registers& home, std::uint64_t mask) {
    Detour detour;
    detour.code.assign(detour_begin, detour_end);
    detour.masked = static_cast<std::uint64_t>(detour_masked - detour_begin);
    detour.call = static_cast<std::uint64_t>(detour_call - detour_begin);
    detour.cloned = static_cast<std::uint64_t>(detour_cloned - detour_begin);
    detour.last = static_cast<std::uint64_t>(detour_last - detour_begin);
    const std::uint64_t words[] = {~std::uint64_t{0}, mask,         home.regs[0],
                                   home.regs[1],      home.regs[2], home.regs[3],
                                   home.regs[4],      home.regs[8], home.pc};
    std::memcpy(detour.code.data() + (detour_words - detour_begin), words, sizeof words);
    return detour;
}

std::span<const FilteredCall> calls_on_detour() {
    static constexpr std::uint32_t us = AUDIT_ARCH_AARCH64;
    static const std::array calls{
        FilteredCall{SYS_rt_sigprocmask, us, {2, {}, 0, 8, {}, {}}},
        FilteredCall{SYS_clone, us, {0x4100, 0, 0, 0, 0, {}}},
        FilteredCall{SYS_exit, us, {0, {}, {}, {}, {}, {}}},
        FilteredCall{SYS_waitid, us, {1, {}, 0, 0x40000004, 0, {}}},
        FilteredCall{SYS_getpid, us, {}},
        FilteredCall{SYS_restart_syscall, us, {}},
    };
    return calls;
}

Errand make_errand() {
    Errand errand;
    errand.code.assign(errand_begin, errand_end);
    errand.seize = static_cast<std::uint64_t>(errand_seize - errand_begin);
    errand.wait = static_cast<std::uint64_t>(errand_wait - errand_begin);
    errand.advise = static_cast<std::uint64_t>(errand_advise - errand_begin);
    errand.end = errand.code.size() - 4; // brk stays where it is
    return errand;
}

Registers on_errand(Registers base, std::uint64_t address, std::uint64_t first, std::uint64_t last,
                    std::uint64_t argument) {
    Registers registers = moved(base, address);
    registers.regs[19] = first;
    registers.regs[20] = last;
    registers.regs[21] = argument;
    registers.regs[22] =
        static_cast<std::uint64_t>(std::countr_zero(static_cast<unsigned>(::getpagesize())));
    return registers;
}

std::uint64_t errand_position(const Registers& registers) { return registers.regs[19]; }

Registers system_call(Registers base, std::uint64_t address, long number,
                      const std::array<std::uint64_t, 4>& arguments) {
    Registers registers = moved(base, address);
    registers.regs[8] = static_cast<std::uint64_t>(number);
    for (std::size_t i = 0; i < arguments.size(); ++i) registers.regs[i] = arguments[i];
    return registers;
}

std::int64_t result(const Registers& registers) {
    return static_cast<std::int64_t>(registers.regs[0]);
}

} // namespace pagesift::os::arch

#endif
