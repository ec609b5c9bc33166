// SPDX-License-Identifier: MIT
#include "os/remote_filter.hpp"

#include <cstddef>
#include <linux/seccomp.h>

namespace pagesift::os {

namespace {

using Word = std::optional<std::uint32_t>; // empty: not known

/// A word of struct seccomp_data.
Word load(const FilteredCall& call, std::uint32_t offset) {
    if (offset == offsetof(seccomp_data, nr)) return call.number;
    if (offset == offsetof(seccomp_data, arch)) return call.architecture;
    constexpr std::uint32_t first = offsetof(seccomp_data, args);
    if (offset < first || offset >= sizeof(seccomp_data) || offset % 4 != 0) return {};
    const auto argument = call.arguments[(offset - first) / 8];
    if (!argument) return {};
    return static_cast<std::uint32_t>((offset - first) % 8 == 0 ? *argument : *argument >> 32);
}

/// net/core/filter.c: numbers of 32 bits without a sign.
Word calculate(std::uint16_t operation, std::uint32_t a, std::uint32_t b) {
    switch (operation) {
    case BPF_ADD: return a + b;
    case BPF_SUB: return a - b;
    case BPF_MUL: return a * b;
    case BPF_DIV: return b == 0 ? Word{} : a / b;
    case BPF_AND: return a & b;
    case BPF_OR: return a | b;
    case BPF_XOR: return a ^ b;
    case BPF_LSH: return b < 32 ? Word{a << b} : Word{};
    case BPF_RSH: return b < 32 ? Word{a >> b} : Word{};
    case BPF_NEG: return 0 - a;
    default: return {};
    }
}

std::optional<bool> compare(std::uint16_t operation, std::uint32_t a, std::uint32_t b) {
    switch (operation) {
    case BPF_JEQ: return a == b;
    case BPF_JGT: return a > b;
    case BPF_JGE: return a >= b;
    case BPF_JSET: return (a & b) != 0;
    default: return {};
    }
}

class Machine {
public:
    Machine(std::span<const sock_filter> program, const FilteredCall& call)
        : program_(program), call_(call) {}

    Word run() {
        // Jumps lead forward only, so it ends.
        while (at_ < program_.size()) {
            const sock_filter& step = program_[at_++];
            if (BPF_CLASS(step.code) == BPF_RET)
                return BPF_RVAL(step.code) == BPF_A ? a_ : Word{step.k};
            if (!do_step(step)) return {};
        }
        return {};
    }

private:
    bool do_step(const sock_filter& step) {
        switch (BPF_CLASS(step.code)) {
        case BPF_LD: return load_into(a_, step);
        case BPF_LDX: return load_into(x_, step);
        case BPF_ST: return store(a_, step.k);
        case BPF_STX: return store(x_, step.k);
        case BPF_ALU: {
            const Word other = operand(step);
            a_ = a_ && other ? calculate(BPF_OP(step.code), *a_, *other) : Word{};
            return true;
        }
        case BPF_JMP: return jump(step);
        case BPF_MISC:
            (BPF_MISCOP(step.code) == BPF_TAX ? x_ : a_) =
                BPF_MISCOP(step.code) == BPF_TAX ? a_ : x_;
            return true;
        default: return false;
        }
    }

    bool load_into(Word& target, const sock_filter& step) const {
        switch (BPF_MODE(step.code)) {
        case BPF_IMM: target = step.k; return true;
        case BPF_ABS: target = load(call_, step.k); return true;
        case BPF_LEN: target = sizeof(seccomp_data); return true;
        case BPF_MEM:
            if (step.k >= memory_.size()) return false;
            target = memory_[step.k];
            return true;
        default: return false;
        }
    }

    bool store(const Word& value, std::uint32_t place) {
        if (place >= memory_.size()) return false;
        memory_[place] = value;
        return true;
    }

    bool jump(const sock_filter& step) {
        if (BPF_OP(step.code) == BPF_JA) {
            at_ += step.k;
            return true;
        }
        const Word other = operand(step);
        if (!a_ || !other) return false;
        const auto holds = compare(BPF_OP(step.code), *a_, *other);
        if (holds) at_ += *holds ? step.jt : step.jf;
        return holds.has_value();
    }

    Word operand(const sock_filter& step) const {
        return BPF_SRC(step.code) == BPF_X ? x_ : Word{step.k};
    }

    std::span<const sock_filter> program_;
    const FilteredCall& call_;
    std::size_t at_ = 0;
    Word a_ = 0, x_ = 0;
    std::array<Word, BPF_MEMWORDS> memory_{};
};

} // namespace

std::optional<std::uint32_t> run_filter(std::span<const sock_filter> program,
                                        const FilteredCall& call) {
    return Machine{program, call}.run();
}

} // namespace pagesift::os
