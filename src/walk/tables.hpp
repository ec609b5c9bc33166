// SPDX-License-Identifier: MIT
// One way down the page tables, for the walk's second looks and for single addresses.
#pragma once

#include "pagesift/walk.hpp"

namespace pagesift::walk {

/// The last entry on the way to an address.
struct Place {
    std::uint64_t named_at = 0; ///< where the entry is
    std::uint64_t entry = 0;
    unsigned level = 0;
    Naming naming;
};

/// Goes from the top table towards @p address to the entry of level @p stop_level + 1, which names
/// the table of @p stop_level, or ends early where no table goes further. All entries on the way
/// were the same at a second reading; empty where they were not or could not be read.
std::optional<Place> locate(KernelMemory& memory, const Kernel& kernel, std::uint64_t pgd,
                            std::uint64_t address, unsigned stop_level);

} // namespace pagesift::walk
