// SPDX-License-Identifier: MIT
// The parts of count_page_tables (pagesift/os.hpp) that its tests look at by themselves.
#pragma once

#include "os/kernel_view.hpp"
#include "pagesift/os.hpp"

#include <array>
#include <vector>

namespace pagesift::os {

/// Frames of page tables, by level: [0] of PTE tables, [1] of PMD tables …, the top table last.
using TableFrames = std::array<std::vector<std::uint64_t>, 5>;

/// Which entries of the top table: those of user addresses, or all the others. What these name
/// belongs to the kernel and is shared by all processes.
enum class Half { user, kernel };

/// Adds the frames of the tables below @p top; that of @p top itself only with Half::user. PTE
/// tables are not read. A table is believed when the entry that named it is the same afterwards;
/// what is below others is left out.
/// @throws Error as KernelMemory::read does
void add_table_frames(const KernelView& view, std::uint64_t top, Half half, TableFrames& frames);

} // namespace pagesift::os
