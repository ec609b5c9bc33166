// SPDX-License-Identifier: MIT
// kpageflags and kpagecount for the frames of a block, in sorted runs of frames.
#pragma once

#include "os/file.hpp"
#include "pagesift/source.hpp"

#include <vector>

namespace pagesift::os {

/// Consecutive frames behind consecutive pages of a block.
struct FrameRun {
    std::uint64_t pfn = 0;
    std::uint32_t index = 0; ///< of the first page in the block
    std::uint32_t count = 0;
};

/// The frames of all present entries with a visible frame, sorted by frame.
std::vector<FrameRun> sorted_frame_runs(std::span<const std::uint64_t> entries);

class FrameReader {
public:
    FrameReader(const Root& root, bool use);
    int flags_error() const { return flags_error_; } ///< 0: kpageflags can be read
    int counts_error() const { return counts_error_; }

    /// Fills flags, folio_orders and map_counts of @p block from its entries. Flags of a folio that
    /// older kernels show on its head only (fs/proc/page.c:stable_page_flags before 6.12) are
    /// copied to its tails. Where flags cannot be read, the block has none and no folio_orders.
    /// Returns 0, or errno of what could not be read; ENODATA: there is a frame without a page.
    int read(PageBlock& block) const;

private:
    class Folios;
    int read_counts(PageBlock& block, std::span<const FrameRun> runs) const;

    Fd flags_, counts_;
    int flags_error_ = 0, counts_error_ = 0;
};

} // namespace pagesift::os
