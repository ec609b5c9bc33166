// SPDX-License-Identifier: MIT
// Written by the kernel's source, compiled, and not run on any machine yet: refused until it is.
#include "os/remote_arch.hpp"

#if defined(__aarch64__)

#include <bit>
#include <cstring>
#include <unistd.h>

// The detour. Every address is relative to the instruction, so the bytes run anywhere; no flags
// change. The last jump takes x17, which needs no veneer: the thread goes home by `br`, so one
// register is lost. See refusal().
asm(R"(
        .pushsection .rodata
        .balign 8
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
detour_reaped:
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
        br      x17
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
    detour_reaped[], detour_words[], detour_end[];
extern const std::uint8_t errand_begin[], errand_seize[], errand_wait[], errand_advise[],
    errand_end[];
}

namespace pagesift::os::arch {

namespace {

constexpr std::uint64_t mode_32 = 0x10; // PSR_MODE32_BIT (asm/ptrace.h)

} // namespace

// Two things are open. A register is lost on the way home alone, unless the thread was in a system
// call, where x16 and x17 may be (the procedure call standard does not promise it). And a call with
// a relative time limit begins it anew: the kernel decides about that before a tracer sees the
// thread (arch/arm64/kernel/signal.c:do_signal), and what it decided is not seen from outside.
const char* refusal() { return "the remote call has not been tried on aarch64"; }

const char* refusal(const Registers& registers) {
    return (registers.pstate & mode_32) == 0 ? nullptr : "it runs 32-bit code";
}

bool in_system_call(const Registers& registers) {
    // Not to be seen in the registers; do_signal has already forgotten it.
    (void)registers;
    return false;
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
    detour.reaped = static_cast<std::uint64_t>(detour_reaped - detour_begin);
    // do_signal has set x0 and pc to begin an interrupted call anew.
    const std::uint64_t words[] = {~std::uint64_t{0}, mask,         home.regs[0],
                                   home.regs[1],      home.regs[2], home.regs[3],
                                   home.regs[4],      home.regs[8], home.pc};
    std::memcpy(detour.code.data() + (detour_words - detour_begin), words, sizeof words);
    return detour;
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
