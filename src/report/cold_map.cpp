// SPDX-License-Identifier: MIT
#include "report/cold_map.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

constexpr std::string_view glyphs = "A123456789Cn?";
constexpr std::size_t whole_window = 10, no_sign = 11, not_known = 12;
constexpr std::size_t lines_at_most = 24;

} // namespace

ColdMap::ColdMap(std::uint64_t page_size)
    : page_shift_(static_cast<unsigned>(std::countr_zero(page_size))), shift_(page_shift_) {}

std::size_t ColdMap::Cell::most() const {
    return static_cast<std::size_t>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin());
}

std::size_t ColdMap::sign_of(const cold::Ages& ages, const cold::Range& range) {
    if (!range.idle_seconds) return range.activity == cold::Activity::idle ? no_sign : not_known;
    if (range.activity == cold::Activity::accessed || ages.window_seconds <= 0) return 0;
    if (*range.idle_seconds >= ages.window_seconds) return whole_window;
    const double tenths = *range.idle_seconds / ages.window_seconds * 10;
    return std::clamp<std::size_t>(static_cast<std::size_t>(tenths), 1, whole_window - 1);
}

std::vector<ColdMap::Cell> ColdMap::cells_at(unsigned shift) const {
    std::vector<Cell> merged;
    for (const Cell& cell : cells_) {
        const std::uint64_t index = cell.index >> (shift - shift_);
        if (merged.empty() || merged.back().index != index) merged.push_back({index, {}});
        for (std::size_t i = 0; i < signs; ++i) merged.back().bytes[i] += cell.bytes[i];
    }
    return merged;
}

void ColdMap::add(const cold::Ages& ages, const cold::Range& range) {
    const std::size_t sign = sign_of(ages, range);
    const std::uint64_t start = range.range.start.value, end = range.range.end.value;
    while (cells_.size() + ((end - start) >> shift_) + 2 > most_cells) {
        cells_ = cells_at(shift_ + 1);
        ++shift_;
    }
    for (std::uint64_t at = start; at < end;) {
        const std::uint64_t cell = std::uint64_t{1} << shift_;
        const std::uint64_t bytes = std::min(cell - (at & (cell - 1)), end - at);
        if (cells_.empty() || cells_.back().index != at >> shift_)
            cells_.push_back({at >> shift_, {}});
        cells_.back().bytes[sign] += bytes;
        at += bytes;
    }
}

std::string ColdMap::paint(const Screen& screen, std::size_t sign) {
    const std::string_view glyph = glyphs.substr(sign, 1);
    if (sign > whole_window) return screen.style.dim(glyph);
    return screen.style.heat(static_cast<double>(sign) / whole_window, glyph);
}

std::string ColdMap::draw_row(const Screen& screen, std::span<const Cell> cells,
                              std::uint64_t first, std::uint64_t count) const {
    auto cell = std::partition_point(cells.begin(), cells.end(),
                                     [&](const Cell& c) { return c.index < first; });
    std::string line;
    std::size_t blanks = 0;
    for (std::uint64_t i = first; i < first + count; ++i) {
        if (cell == cells.end() || cell->index != i) {
            ++blanks;
            continue;
        }
        line.append(blanks, ' ');
        blanks = 0;
        line += paint(screen, cell->most());
        ++cell;
    }
    return line;
}

void ColdMap::render(const Screen& screen) const {
    if (cells_.empty()) return screen.line("nothing to draw: no page that is there");
    const std::size_t digits = 12;
    const std::size_t room = screen.width() > digits + 34 ? screen.width() - digits - 2 : 32;
    const std::uint64_t count = room >= 128 ? 128 : room / 32 * 32;
    const std::size_t most = screen.options.verbose ? 200 : lines_at_most;
    unsigned shift = shift_;
    std::vector<Cell> cells;
    std::vector<std::uint64_t> rows;
    for (; shift < 63; ++shift) {
        cells = cells_at(shift);
        rows.clear();
        for (const Cell& cell : cells)
            if (rows.empty() || rows.back() != cell.index / count)
                rows.push_back(cell.index / count);
        std::size_t lines = rows.size();
        for (std::size_t i = 1; i < rows.size(); ++i) lines += rows[i] != rows[i - 1] + 1;
        if (lines <= most) break;
    }
    const std::uint64_t cell_bytes = std::uint64_t{1} << shift;
    screen.wrapped(
        screen.style.dim(fmt::format("One cell is {}, one row {}.", human_bytes(cell_bytes),
                                     human_bytes(cell_bytes * count))),
        0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i > 0 && rows[i] != rows[i - 1] + 1)
            screen.line(screen.style.dim(
                fmt::format("{}  {}", pad_left(screen.style.unicode() ? "⋯" : "...", digits),
                            human_bytes((rows[i] - rows[i - 1] - 1) * (cell_bytes * count)))));
        const auto address = fmt::format("{:x}", rows[i] * count << shift);
        screen.line(screen.style.dim(pad_left(address, digits)) + "  " +
                    draw_row(screen, cells, rows[i] * count, count));
    }
    screen.line();
    screen.wrapped("A accessed in the last round; 1 to 9 idle for at least so many tenths of the "
                   "window; C idle for all of it; n no sign of an access; ? unknown; the most of "
                   "a cell counts. Blank: nothing there.",
                   0);
}

} // namespace pagesift::report
