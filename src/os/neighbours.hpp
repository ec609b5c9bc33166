// SPDX-License-Identifier: MIT
// Small mappings that lie side by side, read from the kernel's memory by one walk: to go down the
// page tables for each of them costs more than their pages.
#pragma once

#include "os/exact_pages.hpp"

#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace pagesift::os {

class Neighbours {
public:
    /// @param pages outlives this
    Neighbours(ExactPages& pages, const HostFacts& host)
        : pages_(pages), page_size_(host.page_size) {}

    /// Whether ExactPages can read mappings of that kind.
    static bool are_plain(Backing backing);

    /// All mappings of the process, by address. Not while another thread reads.
    void plan(std::span<const Mapping> mappings);

    /// What was read together with a block, and not handed out yet, is read again.
    void forget() { last_.reset(); }

    /// Fills the columns of @p block as ExactPages::read does, from what was read together with
    /// the block before it, or reads what follows as well. What is asked for again is read again.
    /// False: it is to be read alone.
    /// Safe to call from several threads.
    /// @throws Error as ExactPages::read does
    bool read(PageBlock& block);

private:
    struct Stretch {
        AddressRange range;
        std::vector<AddressRange> mappings;
    };
    std::shared_ptr<const PageBlock> take(AddressRange stretch, AddressRange part);
    std::shared_ptr<const PageBlock> read_whole(const Stretch& stretch, AddressRange part);

    ExactPages& pages_;
    std::uint64_t page_size_;
    std::vector<Stretch> stretches_; ///< by address
    std::mutex mutex_;
    std::shared_ptr<const PageBlock> last_; ///< without entries: it could not be read
    Address next_{0};                       ///< of last_, what was not handed out begins here
};

} // namespace pagesift::os
