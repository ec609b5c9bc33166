// SPDX-License-Identifier: MIT
// The address space as a picture of ages: one cell for so many pages, the sign of the age that most
// of them have. Memory is bounded: when there are too many cells, neighbours merge.
#pragma once

#include "pagesift/cold.hpp"
#include "report/columns.hpp"

#include <array>

namespace pagesift::report {

class ColdMap {
public:
    explicit ColdMap(std::uint64_t page_size);
    /// Ranges in address order.
    void add(const cold::Ages& ages, const cold::Range& range);
    void render(const Screen& screen) const;

private:
    /// 0 accessed, 1 to 9 tenths of the window, 10 the whole window, 11 no sign, 12 unknown.
    static constexpr std::size_t signs = 13;
    static constexpr std::size_t most_cells = 16384;

    /// A cell in which there is anything.
    struct Cell {
        std::uint64_t index; ///< address over cell size
        std::array<std::uint64_t, signs> bytes{};
        std::size_t most() const;
    };

    static std::size_t sign_of(const cold::Ages& ages, const cold::Range& range);
    static std::string paint(const Screen& screen, std::size_t sign);
    std::vector<Cell> cells_at(unsigned shift) const;
    std::string draw_row(const Screen& screen, std::span<const Cell> cells, std::uint64_t first,
                         std::uint64_t count) const;

    unsigned page_shift_;
    unsigned shift_;
    std::vector<Cell> cells_;
};

} // namespace pagesift::report
