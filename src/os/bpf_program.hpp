// SPDX-License-Identifier: MIT
// The program that runs in the kernel: it copies pieces of kernel memory into an area shared with
// this process, and does nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/bpf.h>
#include <vector>

namespace pagesift::os {

/// What the program is asked and what it answers; one element of a memory-mapped array map.
struct BpfArea {
    static constexpr std::size_t most_pieces = 64;
    /// A call costs as much as copying two pages, and copying is what a zero test waits for.
    static constexpr std::size_t most_bytes = std::size_t{64} * 4096;
    static constexpr std::size_t longest_piece = 4096;

    struct Request {
        std::uint64_t address;
        std::uint32_t bytes;
        std::uint32_t offset; ///< into copied
    };

    std::uint64_t pieces; ///< 0: only say who is running
    std::uint64_t task;   ///< address of the caller's task_struct
    std::uint64_t ids;    ///< the caller's thread-group id and, below 32 bits, its thread id
    Request requests[most_pieces];
    std::uint8_t good[most_pieces];
    /// Beyond most_bytes lies what a request at the last offset could reach after its masks.
    alignas(4096) std::byte copied[most_bytes + 2 * longest_piece];
};

/// The licence that the kernel is told. bpf_probe_read_kernel and bpf_get_current_task are for
/// programs that say they are GPL-compatible; the text of this program is under both the MIT
/// licence and the GPL, version 2.
inline constexpr char bpf_program_licence[] = "Dual MIT/GPL";

/// The program, for the map behind @p map_fd. It returns the number of pieces it tried. A bounded
/// loop without callbacks, which the interpreter runs as well as the JIT (kernels from 5.5).
/// Written here by instruction, so that no build needs a compiler for BPF, and loaded without
/// libbpf, which takes three times as long for the same program.
std::vector<bpf_insn> bpf_program(int map_fd);

} // namespace pagesift::os
