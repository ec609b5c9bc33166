// SPDX-License-Identifier: MIT
// The exact lens: a view of the kernel's memory for every thread that looks, and the questions
// about a process that it answers better than /proc.
#pragma once

#include "os/kernel_view.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace pagesift::os {

/// Safe to call from several threads. A view serves one thread at a time, so more are made as they
/// are needed, and kept.
class ExactLens {
public:
    explicit ExactLens(std::unique_ptr<KernelView> view);

    /// A view for the thread that asked, until this goes.
    class Lease {
    public:
        Lease(ExactLens& lens, std::unique_ptr<KernelView> view)
            : lens_(lens), view_(std::move(view)) {}
        ~Lease() { lens_.take_back(std::move(view_)); }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        const KernelView& operator*() const { return *view_; }
        const KernelView* operator->() const { return view_.get(); }

    private:
        ExactLens& lens_;
        std::unique_ptr<KernelView> view_;
    };
    Lease lease();

private:
    std::unique_ptr<KernelView> take();
    void take_back(std::unique_ptr<KernelView> view);

    std::mutex mutex_;
    std::condition_variable returned_;
    const KernelView* origin_; ///< the first, idle or lent: the others are copies of it
    std::vector<std::unique_ptr<KernelView>> idle_;
    bool more_ = true; ///< another view can still be had
};

/// What a walk over parts of the address space found.
struct LocatedTables {
    std::vector<AddressRange> empty;   ///< parts in slots whose table holds nothing at all
    std::vector<AddressRange> unknown; ///< parts that changed at every look
};

/// Walks the page tables below @p top over @p ranges, which are in address order and disjoint.
/// @throws Error as KernelMemory::read does
LocatedTables locate_empty_tables(const KernelView& view, std::uint64_t top,
                                  std::span<const AddressRange> ranges);

/// Fills @p bits with EntryBits of the pages of @p range, whose pagemap entries are @p entries:
/// known where an entry still maps the same frame.
/// @throws Error as KernelMemory::read does
void read_entry_bits(const KernelView& view, std::uint64_t top, AddressRange range,
                     std::span<const std::uint64_t> entries, std::span<std::uint8_t> bits);

} // namespace pagesift::os
