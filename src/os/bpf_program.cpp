// SPDX-License-Identifier: MIT
#include "os/bpf_program.hpp"

#include <bit>

namespace pagesift::os {
namespace {

/// Instructions by name, with an immediate value (BPF_K, 0) where no second register is given;
/// Documentation/bpf/standardization/instruction-set.rst has their codes.
class Assembler {
public:
    enum Register : unsigned { r0, r1, r2, r3, r4, r5, r6, r7, r8, r9 };
    using Place = std::size_t;

    /// register = address of the map's one element
    void map_value(Register to, int map_fd) {
        static_assert(BPF_LD == 0 && BPF_IMM == 0);
        add(BPF_DW, to, BPF_PSEUDO_MAP_VALUE, 0, map_fd);
        add(0, 0, 0, 0, 0);
    }
    void load64(Register to, Register base, std::size_t at) {
        add(BPF_LDX | BPF_MEM | BPF_DW, to, base, at, 0);
    }
    void load32(Register to, Register base, std::size_t at) {
        add(BPF_LDX | BPF_MEM | BPF_W, to, base, at, 0);
    }
    void store64(Register base, std::size_t at, Register from) {
        add(BPF_STX | BPF_MEM | BPF_DW, base, from, at, 0);
    }
    void store8(Register base, std::size_t at, Register from) {
        add(BPF_STX | BPF_MEM | BPF_B, base, from, at, 0);
    }
    void move(Register to, Register from) { compute(BPF_MOV | BPF_X, to, from, 0); }
    void set(Register to, int value) { compute(BPF_MOV, to, r0, value); }
    void plus(Register to, Register from) { compute(BPF_ADD | BPF_X, to, from, 0); }
    void plus(Register to, int value) { compute(BPF_ADD, to, r0, value); }
    void mask(Register to, int value) { compute(BPF_AND, to, r0, value); }
    void shift_left(Register to, int bits) { compute(BPF_LSH, to, r0, bits); }
    /// All bits become the sign bit: 0, or -1 for a negative number.
    void spread_sign(Register to) { compute(BPF_ARSH, to, r0, 63); }
    /// r0 = the helper's answer; r1 to r5 are its arguments and lost.
    void call(bpf_func_id helper) { add(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
    void exit() { add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

    // Jumps are written before their goal is known; land() fills it in.
    Place here() const { return code_.size(); }
    Place jump_if_not_zero(Register what) { return jump(BPF_JNE, what, r0); }
    Place jump_if_equal(Register a, Register b) { return jump(BPF_JEQ | BPF_X, a, b); }
    Place jump_if_at_least(Register what, int value) { return jump(BPF_JGE, what, r0, value); }
    Place jump_always() { return jump(BPF_JA, r0, r0); }
    void land(Place jump, Place goal) {
        // Distances count from the instruction after the jump.
        code_[jump].off = static_cast<__s16>(static_cast<std::ptrdiff_t>(goal) -
                                             static_cast<std::ptrdiff_t>(jump) - 1);
    }

    std::vector<bpf_insn> take() { return std::move(code_); }

private:
    void compute(unsigned operation, Register to, Register from, int value) {
        add(BPF_ALU64 | operation, to, from, 0, value);
    }
    Place jump(unsigned condition, Register a, Register b, int value = 0) {
        add(BPF_JMP | condition, a, b, 0, value);
        return code_.size() - 1;
    }
    void add(unsigned code, unsigned to, unsigned from, std::size_t at, int value) {
        bpf_insn instruction{};
        instruction.code = static_cast<__u8>(code);
        instruction.dst_reg = to & 0xf;
        instruction.src_reg = from & 0xf;
        instruction.off = static_cast<__s16>(at);
        instruction.imm = value;
        code_.push_back(instruction);
    }

    std::vector<bpf_insn> code_;
};

// The masks stand for the checks that the verifier asks for, without a branch. They change nothing
// in what the reader asks, and whatever they let through stays inside the area.
constexpr int bytes_mask = 2 * BpfArea::longest_piece - 1;
constexpr int offset_mask = BpfArea::most_bytes - 1;
static_assert(std::has_single_bit(BpfArea::most_bytes));
static_assert(std::has_single_bit(BpfArea::longest_piece));
static_assert(offset_mask + bytes_mask < static_cast<int>(sizeof(BpfArea::copied)));
static_assert(sizeof(BpfArea::Request) == 16);

} // namespace

std::vector<bpf_insn> bpf_program(int map_fd) {
    using enum Assembler::Register;
    Assembler code;
    // These outlive the helpers' calls.
    const auto area = r6, wanted = r7, done = r8, place = r9;

    code.map_value(area, map_fd);
    code.load64(wanted, area, offsetof(BpfArea, pieces));
    const auto has_pieces = code.jump_if_not_zero(wanted);
    code.call(BPF_FUNC_get_current_task);
    code.store64(area, offsetof(BpfArea, task), r0);
    code.call(BPF_FUNC_get_current_pid_tgid);
    code.store64(area, offsetof(BpfArea, ids), r0);
    code.set(r0, 0);
    code.exit();

    code.land(has_pieces, code.here());
    code.set(done, 0);
    const auto loop = code.here();
    const auto all_done = code.jump_if_equal(done, wanted);
    const auto full = code.jump_if_at_least(done, BpfArea::most_pieces);
    // bpf_probe_read_kernel(r1 = to, r2 = bytes, r3 = from) is 0, or negative after it has filled
    // the place with zeros.
    code.move(place, done);
    code.shift_left(place, std::countr_zero(sizeof(BpfArea::Request)));
    code.plus(place, area);
    code.load64(r3, place, offsetof(BpfArea, requests) + offsetof(BpfArea::Request, address));
    code.load32(r2, place, offsetof(BpfArea, requests) + offsetof(BpfArea::Request, bytes));
    code.mask(r2, bytes_mask);
    code.load32(r1, place, offsetof(BpfArea, requests) + offsetof(BpfArea::Request, offset));
    code.mask(r1, offset_mask);
    code.plus(r1, area);
    code.plus(r1, offsetof(BpfArea, copied));
    code.call(BPF_FUNC_probe_read_kernel);
    // good[done] = 1 + (-1 where it failed)
    code.spread_sign(r0);
    code.plus(r0, 1);
    code.move(place, done);
    code.plus(place, area);
    code.store8(place, offsetof(BpfArea, good), r0);
    code.plus(done, 1);
    code.land(code.jump_always(), loop);

    code.land(all_done, code.here());
    code.land(full, code.here());
    code.move(r0, done);
    code.exit();
    return code.take();
}

} // namespace pagesift::os
