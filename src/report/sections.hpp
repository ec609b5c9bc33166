// SPDX-License-Identifier: MIT
// The parts of the table format, from top to bottom.
#pragma once

#include "pagesift/figures.hpp"
#include "report/columns.hpp"

namespace pagesift::report {

/// Name, pid and executable: one line.
void render_title(const Screen& screen, const ProcessText& process);
/// Title, sizes, and how it was looked at.
void render_heading(const Screen& screen, const Census& census);
/// Bars of states and kinds, page tables, savings.
void render_summary(const Screen& screen, const Census& census);
/// The options.top mappings with the most resident memory.
void render_top_mappings(const Screen& screen, const Census& census);
/// Every mapping in address order.
void render_all_mappings(const Screen& screen, const Census& census);
/// What is not known, and what would show it.
void render_footer(const Screen& screen, const Census& census);
void render_gaps(const Screen& screen, std::span<const Gap> gaps);

/// Runs or pages, a line each, as they stream in.
class Listing {
public:
    enum class Of { ranges, pages };
    Listing(const Screen& screen, Of of, std::span<const Mapping> mappings,
            std::uint64_t page_size);
    void add(const Run& run);
    void add(const Page& page);
    void finish(); ///< the legend of the attribute letters

private:
    Screen screen_;
    Columns columns_;
    std::span<const Mapping> mappings_;
    std::uint64_t page_size_;
    std::size_t address_width_;
    bool with_end_, with_attributes_, with_folio_, with_details_;
    std::uint64_t lines_ = 0;
};

} // namespace pagesift::report
