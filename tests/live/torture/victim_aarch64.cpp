// SPDX-License-Identifier: MIT
// Threads of the victim in instructions of aarch64: every register is kept in sight, while the
// thread calculates and while it sleeps in a system call.
#include "torture/victim.hpp"

#if defined(__aarch64__)

#include <cstddef>
#include <ctime>

// unsigned long keep_registers(const RegisterPattern*): puts known values into every general
// register but x28, which counts turns, into the flags and the vector registers, turns around for a
// while, and compares. 0: all of them are there.
//
// unsigned long keep_over_call(const RegisterPattern*): the same while it sleeps. Behind the call
// it uses neither x16 nor x17, so that the remote call may take it for free (os/remote_arch.hpp,
// spares_register).
asm(R"(
        .text
        .macro  enter
        sub     sp, sp, #192
        stp     x19, x20, [sp, #32]
        stp     x21, x22, [sp, #48]
        stp     x23, x24, [sp, #64]
        stp     x25, x26, [sp, #80]
        stp     x27, x28, [sp, #96]
        stp     x29, x30, [sp, #112]
        stp     d8, d9, [sp, #128]
        stp     d10, d11, [sp, #144]
        stp     d12, d13, [sp, #160]
        stp     d14, d15, [sp, #176]
        str     x0, [sp]
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        ldr     q\n, [x0, #(256+16*\n)]
        .endr
        mov     x1, #0x60000000                 // zero and carry
        msr     nzcv, x1
        .endm
        .macro  same register, offset           // uses x1
        ldr     x1, [x0, #\offset]
        sub     x1, x1, \register
        cbnz    x1, 9f
        .endm
        .macro  same_flags                      // uses x1, x2
        mov     x1, #0x60000000
        mrs     x2, nzcv
        sub     x1, x1, x2
        cbnz    x1, 9f
        .endm
        .macro  same_vector n                   // uses x1, x2
        mov     x2, v\n\().d[0]
        same    x2, 256+16*\n
        mov     x2, v\n\().d[1]
        same    x2, 264+16*\n
        .endm
        .macro  leave
        mov     x0, #0
        b       10f
9:      mov     x0, #1
10:     ldp     x19, x20, [sp, #32]
        ldp     x21, x22, [sp, #48]
        ldp     x23, x24, [sp, #64]
        ldp     x25, x26, [sp, #80]
        ldp     x27, x28, [sp, #96]
        ldp     x29, x30, [sp, #112]
        ldp     d8, d9, [sp, #128]
        ldp     d10, d11, [sp, #144]
        ldp     d12, d13, [sp, #160]
        ldp     d14, d15, [sp, #176]
        add     sp, sp, #192
        ret
        .endm

        .type keep_registers, %function
keep_registers:
        enter
        .irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,29,30
        ldr     x\n, [x0, #(8*\n)]
        .endr
        ldr     x28, [x0, #248]                 // turns
        ldr     x1, [x0, #8]
        ldr     x0, [x0]
2:      sub     x28, x28, #1
        cbnz    x28, 2b
        str     x0, [sp, #8]
        str     x1, [sp, #16]
        ldr     x0, [sp]
        .irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,29,30
        same    x\n, 8*\n
        .endr
        ldr     x2, [sp, #8]
        same    x2, 0
        ldr     x2, [sp, #16]
        same    x2, 8
        same_flags
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        same_vector \n
        .endr
        leave
        .size keep_registers, . - keep_registers

        .type keep_over_call, %function
keep_over_call:
        enter
        .irp n, 2,3,4,5,6,7,9,10,11,12,13,14,15,18,19,20,21,22,23,24,25,26,27,28,29,30
        ldr     x\n, [x0, #(8*\n)]
        .endr
        mov     x8, #101                        // nanosleep(&pattern.time, NULL)
        mov     x1, #0
        add     x0, x0, #768
        svc     #0
        cbnz    x0, 9f
        cbnz    x1, 9f
        ldr     x0, [sp]
        .irp n, 2,3,4,5,6,7,9,10,11,12,13,14,15,18,19,20,21,22,23,24,25,26,27,28,29,30
        same    x\n, 8*\n
        .endr
        same_flags
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        same_vector \n
        .endr
        leave
        .size keep_over_call, . - keep_over_call
)");

namespace {

struct RegisterPattern {
    std::uint64_t general[31];
    std::uint64_t turns;
    std::uint64_t vector[32][2];
    timespec time;
};
static_assert(offsetof(RegisterPattern, turns) == 248 && offsetof(RegisterPattern, vector) == 256 &&
              offsetof(RegisterPattern, time) == 768);

} // namespace

extern "C" unsigned long keep_registers(const RegisterPattern* pattern);
extern "C" unsigned long keep_over_call(const RegisterPattern* pattern);

namespace pagesift::live {

namespace {

RegisterPattern make_pattern(const Ledger& ledger) {
    RegisterPattern pattern{};
    auto random = static_cast<std::uint64_t>(ledger.thread);
    for (auto& value : pattern.general) value = next_random(random) * 0x9e3779b97f4a7c15u;
    for (auto& values : pattern.vector)
        for (auto& value : values) value = next_random(random) * 0x9e3779b97f4a7c15u;
    pattern.turns = 60000;
    pattern.time = {0, 2'000'000};
    return pattern;
}

void check_registers(Ledger& ledger) {
    const auto pattern = make_pattern(ledger);
    while (true) {
        if (keep_registers(&pattern) != 0) note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(1500);
    }
}

void check_registers_asleep(Ledger& ledger) {
    const auto pattern = make_pattern(ledger);
    while (true) {
        const double began = seconds_now();
        if (keep_over_call(&pattern) != 0) note_wrong(ledger, __LINE__);
        if (seconds_now() - began < 0.002 * 0.98) note_wrong(ledger, __LINE__);
        ++ledger.turns;
    }
}

} // namespace

// The remote call keeps away from restartable sequences here: it asks for a system call.
bool has_rseq() { return false; }
bool is_aborted_when_moved(const std::atomic<std::uint64_t>&, std::uint64_t) { return true; }

void start_machine_threads() {
    start_thread("registers", check_registers);
    start_thread("registers too", check_registers);
    start_thread("asleep", check_registers_asleep);
    start_thread("asleep too", check_registers_asleep);
}

} // namespace pagesift::live

#endif
