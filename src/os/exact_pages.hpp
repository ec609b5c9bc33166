// SPDX-License-Identifier: MIT
// Page-table entries and page flags from the kernel's own memory, in the words of /proc.
#pragma once

#include "os/exact_lens.hpp"
#include "os/frames.hpp"
#include "pagesift/source.hpp"

#include <atomic>

namespace pagesift::os {

/// Fills the columns of blocks as pagemap, kpageflags and kpagecount would, at a fraction of their
/// time, and those that they do not have. Pages with rules of their own (large folios, huge
/// entries, zero pages, migration) are still asked of /proc; so is one page in some thousands that
/// has none, and where the two ever differ in what stays as it is, nothing is read this way again.
class ExactPages {
public:
    /// @param pagemap_fd of the process, whose top page table is @p top
    struct Kernel {
        bool has_soft_dirty = true;  ///< CONFIG_MEM_SOFT_DIRTY, or not known
        bool mends_ksm_flag = false; ///< kpageflags has KPF_KSM for pages that KSM never merged
    };
    ExactPages(ExactLens& lens, std::uint64_t top, int pagemap_fd, const FrameReader& frames,
               Kernel kernel);

    /// Whether this machine's kernel memory tells enough for read().
    bool works() const { return works_.load(std::memory_order_relaxed); }

    /// Fills entries, entry_bits, flags, map_counts, folio_orders and pmd_mapped of @p block, whose
    /// range is set, in mappings without frames that pagemap would hide: one, or those of
    /// @p mappings, which lie inside of the block.
    /// @return false: nothing is to be believed, because tables changed at every look or because
    ///         the two sources differ; ask /proc
    /// @throws Error as KernelMemory::read does
    bool read(PageBlock& block, std::span<const AddressRange> mappings = {});

    /// Takes KPF_KSM from the flags of pages that KSM did not merge.
    /// @throws Error as KernelMemory::read does
    void mend_ksm_flags(PageBlock& block) const;

private:
    class Reading;

    ExactLens& lens_;
    std::uint64_t top_;
    int pagemap_fd_;
    const FrameReader& frames_;
    Kernel kernel_;
    std::atomic<bool> works_;
};

} // namespace pagesift::os
