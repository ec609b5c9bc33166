// SPDX-License-Identifier: MIT
// Kernel memory through /proc/kcore, for kernels that do not let BPF read it.
#pragma once

#include "os/file.hpp"
#include "pagesift/walk.hpp"

#include <vector>

namespace pagesift::os {

/// A PT_LOAD segment: kernel addresses and where the file has them.
struct KcoreSegment {
    std::uint64_t start = 0, end = 0;
    std::uint64_t offset = 0; ///< in the file
    bool operator==(const KcoreSegment&) const = default;
};

/// What the headers of the file say (fs/proc/kcore.c).
struct KcoreHeaders {
    std::vector<KcoreSegment> segments; ///< sorted by start
    std::uint64_t notes_offset = 0, notes_bytes = 0;
    bool operator==(const KcoreHeaders&) const = default;
};

inline constexpr std::size_t elf_header_bytes = 64;

/// How many bytes of the file hold its headers, from its first elf_header_bytes.
/// @throws Error bad_input where it is no 64-bit core file of this machine's byte order
std::size_t parse_kcore_size(std::span<const std::byte> start_of_file);

/// @param headers as many bytes of the file as parse_kcore_size() asked for
/// @throws Error bad_input
KcoreHeaders parse_kcore(std::span<const std::byte> headers);

/// The note in which the file shows the reading thread's own task_struct; empty: there is none.
std::span<const std::byte> find_task_note(std::span<const std::byte> notes);

/// Needs CAP_SYS_RAWIO and no lockdown. A piece outside every segment is not good; within one, the
/// kernel gives zeros for what is not there (a hole in vmalloc, a page out of use), so that a piece
/// of zeros says less than it does through BPF.
class KcoreReader final : public walk::KernelMemory {
public:
    /// @throws Error denied, unsupported or bad_input
    explicit KcoreReader(const Root& root);

    std::size_t most_pieces() const override { return 64; }
    std::size_t most_bytes() const override { return std::size_t{16} * 4096; }
    /// @throws Error also when memory was added or removed, which moves the segments in the file
    walk::Copied read(std::span<const walk::Piece> pieces) override;

    /// A copy of the calling thread's task_struct; empty where the file has none.
    std::vector<std::byte> own_task() const;

private:
    bool copy(const walk::Piece& piece, std::span<std::byte> to) const;

    Fd file_;
    std::vector<std::byte> start_; ///< the first header, to notice a change
    KcoreHeaders headers_;
    std::vector<std::byte> copied_;
    std::vector<std::uint8_t> good_;
};

} // namespace pagesift::os
