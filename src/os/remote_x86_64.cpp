// SPDX-License-Identifier: MIT
#include "os/remote_arch.hpp"

#if defined(__x86_64__)

#include <cstring>
#include <linux/audit.h>
#include <sys/syscall.h>

// The detour. `mov` rather than `xor`, and no arithmetic: the flags stay as they are. Every address
// is relative to the instruction, so the bytes run anywhere. The words at the end are filled in.
asm(R"(
        .pushsection .rodata
        .balign 8
detour_begin:
        mov     $2, %edi                        # rt_sigprocmask(SIG_SETMASK, &all, NULL, 8)
        lea     detour_all(%rip), %rsi
        mov     $0, %edx
        mov     $8, %r10d
        mov     $14, %eax
        syscall
detour_masked:
        mov     $0x4100, %edi                   # clone(CLONE_VM | CLONE_VFORK, 0, 0, 0, 0)
        mov     $0, %esi
        mov     $0, %edx
        mov     $0, %r10d
        mov     $0, %r8d
        mov     $56, %eax
detour_call:
        syscall
detour_cloned:
        mov     %rax, %rcx
        jrcxz   detour_child
        mov     $1, %edi                        # waitid(P_PID, child, NULL, WEXITED | __WALL, NULL)
        mov     %rax, %rsi
        mov     $0, %edx
        mov     $0x40000004, %r10d
        mov     $0, %r8d
        mov     $247, %eax
        syscall
detour_last:
        mov     $2, %edi                        # rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8)
        lea     detour_mask(%rip), %rsi
        mov     $0, %edx
        mov     $8, %r10d
        mov     $14, %eax
        syscall
        mov     detour_rax(%rip), %rax
        mov     detour_rcx(%rip), %rcx
        mov     detour_rdx(%rip), %rdx
        mov     detour_rsi(%rip), %rsi
        mov     detour_rdi(%rip), %rdi
        mov     detour_r8(%rip), %r8
        mov     detour_r10(%rip), %r10
        mov     detour_r11(%rip), %r11
        jmp     *detour_rip(%rip)
detour_child:
        mov     $0, %edi                        # exit(0)
        mov     $60, %eax
        syscall
        jmp     detour_child
        .balign 8
detour_words:
detour_all:  .quad -1
detour_mask: .quad 0
detour_rax:  .quad 0
detour_rcx:  .quad 0
detour_rdx:  .quad 0
detour_rsi:  .quad 0
detour_rdi:  .quad 0
detour_r8:   .quad 0
detour_r10:  .quad 0
detour_r11:  .quad 0
detour_rip:  .quad 0
detour_end:
        .popsection
)");

// The errand. r12: the place in the list; rbp: its end; rbx: the argument.
asm(R"(
        .pushsection .rodata
        .balign 8
errand_begin:
errand_seize:
        cmp     %rbp, %r12
        je      errand_trap
        mov     $0x4206, %edi                   # ptrace(PTRACE_SEIZE, thread, 0, 0)
        mov     (%r12), %esi
        mov     $0, %edx
        mov     $0, %r10d
        mov     $101, %eax
        syscall
        test    %rax, %rax
        jnz     errand_trap
        mov     $0x4207, %edi                   # ptrace(PTRACE_INTERRUPT, thread, 0, 0)
        mov     $101, %eax
        syscall
        test    %rax, %rax
        jnz     errand_trap
        add     $4, %r12
        jmp     errand_seize
errand_wait:
        cmp     %rbp, %r12
        je      errand_trap
        mov     (%r12), %edi                    # wait4(thread, NULL, __WALL, NULL)
        mov     $0, %esi
        mov     $0x40000000, %edx
        mov     $0, %r10d
        mov     $61, %eax
        syscall
        add     $4, %r12
        jmp     errand_wait
errand_advise:
        cmp     %rbp, %r12
        je      errand_trap
        mov     (%r12), %rdi                    # madvise(page, pages * 4096, argument)
        mov     %rdi, %rsi
        and     $0xfff, %esi
        sub     %rsi, %rdi
        shl     $12, %rsi
        mov     %rbx, %rdx
        mov     $28, %eax
        syscall
        test    %rax, %rax
        jnz     errand_trap
        add     $8, %r12
        jmp     errand_advise
errand_trap:
        int3
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

constexpr std::uint64_t user_code_64 = 0x33; // __USER_CS (arch/x86/include/asm/segment.h)
constexpr std::uint64_t x32_bit = 0x40000000;
constexpr std::uint64_t syscall_bytes = 2;

/// What restarts an interrupted system call from user code: arch/x86/kernel/signal.c,
/// arch_do_signal_or_restart, for the case that no signal is delivered.
Registers restarted(Registers registers) {
    if (!in_system_call(registers)) return registers;
    switch (static_cast<std::int64_t>(registers.rax)) {
    case -512: // ERESTARTSYS
    case -513: // ERESTARTNOINTR
    case -514: // ERESTARTNOHAND
        registers.rax = registers.orig_rax;
        registers.rip -= syscall_bytes;
        break;
    case -516: // ERESTART_RESTARTBLOCK
        registers.rax = SYS_restart_syscall | (registers.orig_rax & x32_bit);
        registers.rip -= syscall_bytes;
        break;
    default: break;
    }
    return registers;
}

} // namespace

// Of architectures where a stop hides a restart.
bool is_system_call(std::uint32_t) { return false; }
Registers going_on(const Registers& shown, const Registers&) { return shown; }
Registers with_result(Registers shown, const Registers&) { return shown; }
bool spares_register(std::uint64_t, const ReadInstruction&) { return true; }

const char* refusal() { return nullptr; }

const char* refusal(const Registers& registers) {
    return registers.cs == user_code_64 ? nullptr : "it runs 32-bit code";
}

bool in_system_call(const Registers& registers) {
    return static_cast<std::int64_t>(registers.orig_rax) >= 0;
}

std::uint64_t instruction(const Registers& registers) { return registers.rip; }
std::uint64_t stack(const Registers& registers) { return registers.rsp; }

Registers moved(Registers registers, std::uint64_t address) {
    registers.rip = address;
    registers.orig_rax = ~std::uint64_t{0};
    return registers;
}

Registers aborted(Registers registers, std::uint64_t address) {
    registers.rip = address;
    return registers;
}

Detour make_detour(const Registers& home, std::uint64_t mask) {
    Detour detour;
    detour.code.assign(detour_begin, detour_end);
    detour.masked = static_cast<std::uint64_t>(detour_masked - detour_begin);
    detour.call = static_cast<std::uint64_t>(detour_call - detour_begin);
    detour.cloned = static_cast<std::uint64_t>(detour_cloned - detour_begin);
    detour.last = static_cast<std::uint64_t>(detour_last - detour_begin);
    const Registers go_on = restarted(home);
    const std::uint64_t words[] = {~std::uint64_t{0}, mask,      go_on.rax, go_on.rcx,
                                   go_on.rdx,         go_on.rsi, go_on.rdi, go_on.r8,
                                   go_on.r10,         go_on.r11, go_on.rip};
    std::memcpy(detour.code.data() + (detour_words - detour_begin), words, sizeof words);
    return detour;
}

std::span<const FilteredCall> calls_on_detour() {
    static constexpr std::uint32_t us = AUDIT_ARCH_X86_64;
    static const std::array calls{
        FilteredCall{SYS_rt_sigprocmask, us, {2, {}, 0, 8, {}, {}}},
        FilteredCall{SYS_clone, us, {0x4100, 0, 0, 0, 0, {}}},
        FilteredCall{SYS_exit, us, {0, {}, {}, {}, {}, {}}},
        FilteredCall{SYS_waitid, us, {1, {}, 0, 0x40000004, 0, {}}},
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
    errand.end = errand.code.size();
    return errand;
}

Registers on_errand(Registers base, std::uint64_t address, std::uint64_t first, std::uint64_t last,
                    std::uint64_t argument) {
    Registers registers = moved(base, address);
    registers.r12 = first;
    registers.rbp = last;
    registers.rbx = argument;
    return registers;
}

std::uint64_t errand_position(const Registers& registers) { return registers.r12; }

Registers system_call(Registers base, std::uint64_t address, long number,
                      const std::array<std::uint64_t, 4>& arguments) {
    Registers registers = moved(base, address);
    registers.rax = static_cast<std::uint64_t>(number);
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    return registers;
}

std::int64_t result(const Registers& registers) { return static_cast<std::int64_t>(registers.rax); }

} // namespace pagesift::os::arch

#endif
