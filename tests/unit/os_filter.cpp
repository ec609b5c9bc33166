// SPDX-License-Identifier: MIT
#include "os/remote_filter.hpp"

#include <cstddef>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <vector>

#include <doctest/doctest.h>

using pagesift::os::FilteredCall;
using pagesift::os::run_filter;

namespace {

constexpr std::uint32_t allow = SECCOMP_RET_ALLOW, deny = SECCOMP_RET_KILL_PROCESS;

FilteredCall make_call(std::uint32_t number) {
    return {number, AUDIT_ARCH_X86_64, {0x1122334455667788, {}, 3, {}, {}, {}}};
}

sock_filter load(std::size_t offset) {
    return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
}
constexpr sock_filter returns(std::uint32_t value) { return BPF_STMT(BPF_RET | BPF_K, value); }
std::size_t argument(std::size_t i) { return offsetof(seccomp_data, args) + 8 * i; }

std::optional<std::uint32_t> run(const std::vector<sock_filter>& program,
                                 std::uint32_t number = 1) {
    return run_filter(program, make_call(number));
}

/// What a program has in its accumulator at the end.
std::optional<std::uint32_t> value_of(std::vector<sock_filter> program) {
    program.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
    return run(program);
}

} // namespace

TEST_CASE("a filter tells calls apart by their number and architecture") {
    const std::vector<sock_filter> program{
        load(offsetof(seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        returns(deny),
        load(offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
        returns(deny),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 59, 0, 1),
        returns(SECCOMP_RET_ERRNO | 1),
        returns(allow),
    };
    CHECK(run(program, 1) == allow);
    CHECK(run(program, 59) == (SECCOMP_RET_ERRNO | 1));
    CHECK(run(program, 0x40000001) == deny);
    FilteredCall call = make_call(1);
    call.architecture = AUDIT_ARCH_I386;
    CHECK(run_filter(program, call) == deny);
}

TEST_CASE("a filter sees both halves of an argument") {
    CHECK(value_of({load(argument(0))}) == 0x55667788);
    CHECK(value_of({load(argument(0) + 4)}) == 0x11223344);
    CHECK(value_of({load(argument(2) + 4)}) == 0);
}

TEST_CASE("what is not known decides nothing, and does no harm where nobody asks") {
    const auto unknown = load(argument(1));
    CHECK_FALSE(value_of({unknown}).has_value());
    CHECK_FALSE(value_of({load(offsetof(seccomp_data, instruction_pointer))}).has_value());
    CHECK_FALSE(
        run({unknown, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 7, 0, 0), returns(allow)}).has_value());
    CHECK_FALSE(value_of({unknown, BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 1)}).has_value());
    CHECK_FALSE(value_of({unknown, BPF_STMT(BPF_ST, 3), load(0), BPF_STMT(BPF_LD | BPF_MEM, 3)})
                    .has_value());
    CHECK(run({unknown, returns(allow)}) == allow);
    CHECK(value_of({unknown, BPF_STMT(BPF_LD | BPF_IMM, 5)}) == 5);
}

TEST_CASE("a filter calculates with 32 bits") {
    const auto with = [](std::uint16_t operation, std::uint32_t a, std::uint32_t b) {
        return value_of({BPF_STMT(BPF_LD | BPF_IMM, a),
                         BPF_STMT(static_cast<std::uint16_t>(BPF_ALU | operation | BPF_K), b)});
    };
    CHECK(with(BPF_ADD, 0xffffffff, 2) == 1);
    CHECK(with(BPF_SUB, 1, 2) == 0xffffffff);
    CHECK(with(BPF_MUL, 0x10000, 0x10001) == 0x10000);
    CHECK(with(BPF_DIV, 7, 2) == 3);
    CHECK_FALSE(with(BPF_DIV, 7, 0).has_value());
    CHECK(with(BPF_AND, 6, 3) == 2);
    CHECK(with(BPF_OR, 6, 3) == 7);
    CHECK(with(BPF_XOR, 6, 3) == 5);
    CHECK(with(BPF_LSH, 1, 31) == 0x80000000);
    CHECK(with(BPF_RSH, 0x80000000, 31) == 1);
    CHECK_FALSE(with(BPF_LSH, 1, 32).has_value());
    CHECK(value_of({BPF_STMT(BPF_LD | BPF_IMM, 1), BPF_STMT(BPF_ALU | BPF_NEG, 0)}) == 0xffffffff);
}

TEST_CASE("a filter has a second register and memory") {
    CHECK(value_of({BPF_STMT(BPF_LDX | BPF_IMM, 40), BPF_STMT(BPF_LD | BPF_IMM, 2),
                    BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0)}) == 42);
    CHECK(value_of({BPF_STMT(BPF_LD | BPF_IMM, 9), BPF_STMT(BPF_MISC | BPF_TAX, 0),
                    BPF_STMT(BPF_STX, 15), BPF_STMT(BPF_LD | BPF_IMM, 0),
                    BPF_STMT(BPF_LD | BPF_MEM, 15)}) == 9);
    CHECK(value_of({BPF_STMT(BPF_LDX | BPF_LEN, 0), BPF_STMT(BPF_MISC | BPF_TXA, 0)}) ==
          sizeof(seccomp_data));
    CHECK(run({load(0), BPF_STMT(BPF_LDX | BPF_IMM, 1),
               BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1), returns(allow), returns(deny)}) ==
          allow);
}

TEST_CASE("jumps lead where they say") {
    CHECK(run({BPF_STMT(BPF_JMP | BPF_JA, 1), returns(deny), returns(allow)}) == allow);
    CHECK(run({load(0), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 1, 0, 1), returns(deny),
               returns(allow)}) == allow);
    CHECK(run({load(0), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 3, 0, 1), returns(allow),
               returns(deny)}) == allow);
}

TEST_CASE("what is no filter decides nothing") {
    CHECK_FALSE(run({}).has_value());
    CHECK_FALSE(run({load(0)}).has_value());
    CHECK_FALSE(run({BPF_STMT(BPF_JMP | BPF_JA, 9), returns(allow)}).has_value());
    CHECK_FALSE(value_of({load(2)}).has_value());
    CHECK_FALSE(value_of({load(sizeof(seccomp_data))}).has_value());
    CHECK_FALSE(run({BPF_STMT(BPF_ST, 16), returns(allow)}).has_value());
    CHECK_FALSE(run({BPF_STMT(BPF_LD | BPF_MEM, 16), returns(allow)}).has_value());
    CHECK_FALSE(run({BPF_STMT(BPF_LD | BPF_B | BPF_IND, 0), returns(allow)}).has_value());
}
