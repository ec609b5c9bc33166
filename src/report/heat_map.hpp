// SPDX-License-Identifier: MIT
// The address space as a picture: one cell for so many pages, the letter and colour of what is most
// in it. Memory is bounded: when there are too many cells, neighbours merge.
#pragma once

#include "report/columns.hpp"

#include <array>
#include <vector>

namespace pagesift::report {

class HeatMap {
public:
    explicit HeatMap(std::uint64_t page_size);
    /// Runs in address order.
    void add(const Run& run);
    void render(const Screen& screen, const Census& census) const;

private:
    static constexpr std::size_t most_cells = 16384;

    /// A cell with anything but none in it.
    struct Cell {
        std::uint64_t index; ///< address over cell size
        std::array<std::uint64_t, class_count> pages{};
    };
    struct Plan;

    Plan plan(const Screen& screen, const Census& census) const;
    std::vector<Cell> cells_at(unsigned shift) const;
    void coarsen(unsigned shift);
    std::string draw_row(const Screen& screen, const Plan& plan, std::uint64_t row) const;
    void draw_fold(const Screen& screen, const Plan& plan, AddressRange range) const;
    void draw_legend(const Screen& screen, const Plan& plan, const Census& census) const;

    std::uint64_t page_size_;
    unsigned shift_;
    std::vector<Cell> cells_;
};

} // namespace pagesift::report
