// SPDX-License-Identifier: MIT
// Threads of the victim in instructions of x86_64: every register is kept in sight, and restartable
// sequences are.
#include "torture/victim.hpp"

#include <array>
#include <cstdlib>
#include <limits>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)

#include <sys/rseq.h>

// unsigned long keep_registers(const RegisterPattern*): puts known values into every general
// register, the carry flag, the red zone and the vector registers, turns around for a while, and
// compares. 0: all of them are there.
asm(R"(
        .text
        .type keep_registers, @function
keep_registers:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        sub     $40, %rsp
        mov     %rdi, (%rsp)
        mov     120(%rdi), %rax                 # turns
        mov     %rax, 8(%rsp)
        cmpq    $0, 128(%rdi)                   # vectors?
        je      1f
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu (192+32*\n)(%rdi), %ymm\n
        .endr
1:
        .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16
        movq    $(0x5a5a00+\n), -8*\n(%rsp)
        .endr
        mov     0(%rdi), %rax
        mov     8(%rdi), %rbx
        mov     16(%rdi), %rcx
        mov     24(%rdi), %rdx
        mov     32(%rdi), %rsi
        mov     48(%rdi), %rbp
        mov     56(%rdi), %r8
        mov     64(%rdi), %r9
        mov     72(%rdi), %r10
        mov     80(%rdi), %r11
        mov     88(%rdi), %r12
        mov     96(%rdi), %r13
        mov     104(%rdi), %r14
        mov     112(%rdi), %r15
        mov     40(%rdi), %rdi
        stc
2:      decq    8(%rsp)                         # leaves the carry flag
        jnz     2b
        mov     %rdi, 16(%rsp)
        mov     (%rsp), %rdi
        jnc     9f
        .macro same register, offset
        cmp     \register, \offset(%rdi)
        jne     9f
        .endm
        same    %rax, 0
        same    %rbx, 8
        same    %rcx, 16
        same    %rdx, 24
        same    %rsi, 32
        same    %rbp, 48
        same    %r8, 56
        same    %r9, 64
        same    %r10, 72
        same    %r11, 80
        same    %r12, 88
        same    %r13, 96
        same    %r14, 104
        same    %r15, 112
        mov     16(%rsp), %rax
        same    %rax, 40
        .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16
        cmpq    $(0x5a5a00+\n), -8*\n(%rsp)
        jne     9f
        .endr
        cmpq    $0, 128(%rdi)
        je      3f
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vpcmpeqq (192+32*\n)(%rdi), %ymm\n, %ymm\n
        vpmovmskb %ymm\n, %eax
        cmp     $-1, %eax
        jne     8f
        .endr
        vzeroupper
3:      xor     %eax, %eax
        jmp     10f
8:      vzeroupper
9:      mov     $1, %eax
10:     add     $40, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size keep_registers, . - keep_registers
)");

namespace {

struct RegisterPattern {
    std::uint64_t general[15];
    std::uint64_t turns;
    std::uint64_t vectors;
    std::uint64_t unused[7];
    std::uint64_t vector[16][4];
};
static_assert(offsetof(RegisterPattern, vector) == 192);

} // namespace

extern "C" unsigned long keep_registers(const RegisterPattern* pattern);

namespace pagesift::live {

namespace {

void check_registers(Ledger& ledger) {
    RegisterPattern pattern{};
    auto random = static_cast<std::uint64_t>(ledger.thread);
    for (auto& value : pattern.general) value = next_random(random) * 0x9e3779b97f4a7c15u;
    for (auto& values : pattern.vector)
        for (auto& value : values) value = next_random(random) * 0x9e3779b97f4a7c15u;
    pattern.turns = 60000;
    pattern.vectors = __builtin_cpu_supports("avx2") ? 1 : 0;
    while (true) {
        if (keep_registers(&pattern) != 0) note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(1500);
    }
}

typedef double Vector __attribute__((vector_size(32)));

__attribute__((target("avx2"))) double accumulate_vectors() {
    std::array<Vector, 8> sums{};
    const Vector factor{0.999, 0.998, 0.997, 0.996};
    for (int i = 0; i < 3000; ++i)
        for (auto& sum : sums) {
            const double value = i;
            sum = sum * factor + value;
        }
    double all = 0;
    for (const auto& sum : sums) all += sum[0] + sum[1] + sum[2] + sum[3];
    return all;
}

void calculate_vectors(Ledger& ledger) {
    const double right = accumulate_vectors();
    while (true) {
        if (accumulate_vectors() != right) note_wrong(ledger, __LINE__);
        ++ledger.turns;
        nap(1700);
    }
}

// Two threads on one processor count together in a sequence that is long, and only right if the
// kernel aborts it whenever it is interrupted.
alignas(64) volatile long counted = 0;
std::array<std::atomic<long>, 2> counted_by;
std::atomic<unsigned> counters{0};

enum class Sequence { committed, aborted, unguarded };

/// Goes around while the word is what it was (@p turns at most), then adds one to the counter. The
/// kernel aborts it whenever the thread is interrupted, as long as it knows of the sequence; that
/// it does is looked at inside, where nothing can come between.
Sequence run_sequence(struct rseq* area, volatile long* counter, long turns,
                      const std::atomic<std::uint64_t>* word, std::uint64_t wait_while) {
    asm goto(R"(
        .pushsection __rseq_cs, "aw"
        .balign 32
3:      .long 0, 0
        .quad 1f, (2f - 1f), 4f
        .popsection
        leaq    3b(%%rip), %%rax
        movq    %%rax, 8(%[area])
1:      movq    (%[counter]), %%rcx
        movq    %[turns], %%rdx
5:      cmpq    %[value], (%[word])
        jne     6f
        decq    %%rdx
        jnz     5b
6:      cmpq    $0, 8(%[area])
        je      %l[unguarded]
        incq    %%rcx
        movq    %%rcx, (%[counter])
2:
        .pushsection __rseq_failure, "ax"
        .byte   0x0f, 0xb9, 0x3d
        .long   0x53053053
4:      jmp     %l[aborted]
        .popsection
)"
             :
             : [area] "r"(area), [counter] "r"(counter), [turns] "r"(turns), [word] "r"(word),
               [value] "r"(wait_while)
             : "rax", "rcx", "rdx", "memory", "cc"
             : aborted, unguarded);
    return Sequence::committed;
aborted:
    return Sequence::aborted;
unguarded:
    return Sequence::unguarded;
}

struct rseq* own_rseq() {
    return reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) +
                                          __rseq_offset);
}

void count_together(Ledger& ledger) {
    bind_to_processor(1);
    auto& mine = counted_by[counters++];
    static const std::atomic<std::uint64_t> word{0};
    while (true) {
        for (int i = 0; i < 8; ++i) {
            Sequence end = Sequence::aborted;
            while ((end = run_sequence(own_rseq(), &counted, 30000, &word, 0)) !=
                   Sequence::committed) {
                ++victim_report().rseq_aborts;
                if (end == Sequence::unguarded) note_wrong(ledger, __LINE__);
            }
            ++mine;
            const long sum = counted_by[0].load() + counted_by[1].load();
            const long seen = counted;
            if (sum > seen) {
                note_wrong(ledger, __LINE__);
                counted = seen + (sum - seen);
            }
        }
        ++ledger.turns;
        nap(1500);
    }
}

} // namespace

bool has_rseq() { return __rseq_size != 0; }

bool is_aborted_when_moved(const std::atomic<std::uint64_t>& word, std::uint64_t wait_while) {
    volatile long counter = 0;
    Sequence end = Sequence::aborted;
    while (end == Sequence::aborted)
        end =
            run_sequence(own_rseq(), &counter, std::numeric_limits<long>::max(), &word, wait_while);
    return end == Sequence::committed;
}

void start_machine_threads() {
    start_thread("registers", check_registers);
    start_thread("registers too", check_registers);
    if (__builtin_cpu_supports("avx2")) start_thread("vectors", calculate_vectors);
    if (__rseq_size == 0) return; // the kernel has none, or glibc was told not to
    start_thread("rseq", count_together);
    start_thread("rseq too", count_together);
}

} // namespace pagesift::live

#endif
