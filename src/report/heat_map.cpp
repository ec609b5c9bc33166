// SPDX-License-Identifier: MIT
#include "report/heat_map.hpp"

#include "pagesift/figures.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <fmt/format.h>

namespace pagesift::report {

/// A resolution, and the picture at that resolution.
struct HeatMap::Plan {
    unsigned shift = 0;
    std::uint64_t cells_a_row = 0;
    std::size_t digits = 0;
    std::vector<Cell> cells;
    std::vector<std::uint64_t> rows;  ///< those that are drawn
    std::vector<AddressRange> mapped; ///< neighbours joined
    bool selected = false;            ///< --where or --address left pages out

    std::uint64_t row_bytes() const { return cells_a_row << shift; }
    std::uint64_t mapped_bytes(AddressRange range) const {
        std::uint64_t bytes = 0;
        auto m = std::partition_point(mapped.begin(), mapped.end(),
                                      [&](const AddressRange& r) { return r.end <= range.start; });
        for (; m != mapped.end() && m->start < range.end; ++m)
            bytes += m->intersect(range).size().value;
        return bytes;
    }
    /// How many lines the rows and the folds between them take.
    std::size_t lines() const {
        std::size_t n = rows.size();
        for (std::size_t i = 1; i < rows.size(); ++i) n += rows[i] != rows[i - 1] + 1;
        return n;
    }
};

namespace {

constexpr std::size_t none_class = static_cast<std::size_t>(State::none);

AddressRange row_range(std::uint64_t row, std::uint64_t row_bytes) {
    const std::uint64_t start = row * row_bytes;
    const std::uint64_t end = start + row_bytes;
    return {Address{start}, Address{end < start ? ~std::uint64_t{0} : end}};
}

std::vector<AddressRange> join(const Census& census) {
    std::vector<AddressRange> ranges;
    for (const MappingCensus& m : census.mappings) {
        const AddressRange& r = m.mapping.range;
        if (!ranges.empty() && ranges.back().end == r.start)
            ranges.back().end = r.end;
        else
            ranges.push_back(r);
    }
    return ranges;
}

} // namespace

HeatMap::HeatMap(std::uint64_t page_size)
    : page_size_(page_size), shift_(static_cast<unsigned>(std::countr_zero(page_size))) {}

std::vector<HeatMap::Cell> HeatMap::cells_at(unsigned shift) const {
    std::vector<Cell> merged;
    for (const Cell& cell : cells_) {
        const std::uint64_t index = cell.index >> (shift - shift_);
        if (merged.empty() || merged.back().index != index) merged.push_back({index, {}});
        for (std::size_t i = 0; i < class_count; ++i) merged.back().pages[i] += cell.pages[i];
    }
    return merged;
}

void HeatMap::coarsen(unsigned shift) {
    cells_ = cells_at(shift);
    shift_ = shift;
}

void HeatMap::add(const Run& run) {
    const std::size_t cls = class_of(run.state, run.kind);
    if (cls == none_class || run.range.empty()) return;
    const std::uint64_t start = run.range.start.value, end = run.range.end.value;
    while (cells_.size() + ((end - start) >> shift_) + 2 > most_cells) coarsen(shift_ + 1);
    for (std::uint64_t at = start; at < end;) {
        const std::uint64_t index = at >> shift_;
        const std::uint64_t room =
            (std::uint64_t{1} << shift_) - (at & ((std::uint64_t{1} << shift_) - 1));
        const std::uint64_t bytes = std::min(room, end - at);
        if (cells_.empty() || cells_.back().index != index) cells_.push_back({index, {}});
        cells_.back().pages[cls] += bytes / page_size_;
        at += bytes;
    }
}

HeatMap::Plan HeatMap::plan(const Screen& screen, const Census& census) const {
    const std::size_t most_lines = screen.options.verbose ? 200 : 24;
    Plan plan;
    plan.mapped = join(census);
    plan.selected = std::any_of(census.mappings.begin(), census.mappings.end(),
                                [](const MappingCensus& m) { return !m.whole; });
    plan.digits = 12;
    if (!cells_.empty()) {
        const auto last = fmt::format("{:x}", cells_.back().index << shift_);
        plan.digits = std::max(plan.digits, last.size());
    }
    const std::size_t room =
        screen.width() > plan.digits + 18 ? screen.width() - plan.digits - 2 : 16;
    plan.cells_a_row = room >= 128 ? 128 : room >= 32 ? room / 32 * 32 : 16;
    for (plan.shift = shift_; plan.shift < 63; ++plan.shift) {
        plan.cells = cells_at(plan.shift);
        plan.rows.clear();
        for (const Cell& cell : plan.cells) {
            const std::uint64_t row = cell.index / plan.cells_a_row;
            if (plan.rows.empty() || plan.rows.back() != row) plan.rows.push_back(row);
        }
        if (plan.lines() <= most_lines) break;
    }
    return plan;
}

std::string HeatMap::draw_row(const Screen& screen, const Plan& plan, std::uint64_t row) const {
    const Style& style = screen.style;
    const std::uint64_t first = row * plan.cells_a_row;
    const std::uint64_t whole = (std::uint64_t{1} << plan.shift) / page_size_;
    auto cell = std::partition_point(plan.cells.begin(), plan.cells.end(),
                                     [&](const Cell& c) { return c.index < first; });
    std::string line =
        style.dim(pad_left(fmt::format("{:x}", first << plan.shift), plan.digits)) + "  ";
    // Neighbours of one look share their escape sequence.
    std::string same;
    std::size_t look = class_count * 2 + 1; // class, filled
    const auto flush = [&] {
        if (same.empty()) return;
        const std::size_t cls = look / 2;
        line += cls >= class_count ? same
                : look % 2         ? style.fill(cls, same)
                                   : style.paint(cls, same);
        same.clear();
    };
    for (std::uint64_t i = first; i < first + plan.cells_a_row; ++i) {
        std::size_t next = class_count * 2;
        char glyph = ' ';
        if (cell != plan.cells.end() && cell->index == i) {
            const auto most = std::max_element(cell->pages.begin(), cell->pages.end());
            const auto cls = static_cast<std::size_t>(most - cell->pages.begin());
            std::uint64_t pages = 0;
            for (const std::uint64_t n : cell->pages) pages += n;
            const bool dense = pages * 2 >= whole;
            glyph = class_letter(cls);
            if (!dense) glyph = static_cast<char>(std::tolower(static_cast<unsigned char>(glyph)));
            next = cls * 2 + dense;
            ++cell;
        } else if (plan.mapped_bytes(row_range(i, std::uint64_t{1} << plan.shift)) != 0) {
            glyph = class_letter(none_class);
            next = none_class * 2;
        }
        if (next != look) flush();
        look = next;
        same += glyph;
    }
    if (look != class_count * 2) flush(); // blanks at the end are not worth writing
    return line;
}

void HeatMap::draw_fold(const Screen& screen, const Plan& plan, AddressRange range) const {
    const std::uint64_t mapped = plan.mapped_bytes(range);
    const std::uint64_t unmapped = range.size().value - mapped;
    std::string text;
    if (unmapped != 0) text = fmt::format("{} unmapped", human_bytes(unmapped));
    if (mapped != 0)
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", human_bytes(mapped),
                            plan.selected ? "not selected or none" : class_word(none_class));
    const std::string mark = pad_left(screen.style.unicode() ? "⋯" : "...", plan.digits);
    screen.line(screen.style.dim(shorten(fmt::format("{}  {}", mark, text), screen.width(),
                                         Keep::start, screen.style.unicode())));
}

void HeatMap::draw_legend(const Screen& screen, const Plan& plan, const Census& census) const {
    const Figures figures = figures_of(census.totals, page_size_);
    std::array<bool, class_count> drawn{};
    bool sparse = false;
    for (const Cell& cell : plan.cells) {
        const auto most = std::max_element(cell.pages.begin(), cell.pages.end());
        drawn[static_cast<std::size_t>(most - cell.pages.begin())] = true;
        std::uint64_t pages = 0;
        for (const std::uint64_t n : cell.pages) pages += n;
        sparse = sparse || pages * 2 < (std::uint64_t{1} << plan.shift) / page_size_;
    }
    drawn[none_class] = !plan.selected && figures.of(State::none) != 0;
    screen.line();
    std::string line;
    std::size_t used = 0;
    for (std::size_t cls = 0; cls < class_count; ++cls) {
        if (!drawn[cls]) continue;
        const std::uint64_t bytes =
            cls < state_count ? figures.states[cls] : figures.kinds[cls - state_count];
        const std::string letter(1, class_letter(cls));
        const std::string word = cls >= state_count && class_word(cls) == "?" ? "kind unknown"
                                 : cls < state_count ? std::string{state_table()[cls].name}
                                                     : std::string{class_word(cls)};
        const std::string text = fmt::format(" {} {}   ", word, screen.amounts(bytes));
        if (used != 0 && used + 1 + text.size() > screen.width()) {
            line.erase(line.find_last_not_of(' ') + 1);
            screen.line(line);
            line.clear();
            used = 0;
        }
        line +=
            (cls == none_class ? screen.style.paint(cls, letter) : screen.style.fill(cls, letter)) +
            text;
        used += 1 + text.size();
    }
    line.erase(line.find_last_not_of(' ') + 1);
    screen.line(line);
    if (plan.selected)
        screen.line(fmt::format("{} not selected or none", class_letter(none_class)));
    if (sparse)
        screen.wrapped(screen.style.dim("A small letter: less than half of the cell is not none. "
                                        "Blank: not mapped."),
                       0);
}

void HeatMap::render(const Screen& screen, const Census& census) const {
    if (cells_.empty()) {
        screen.line("nothing to draw: no page that is not none");
        return;
    }
    const Plan plan = this->plan(screen, census);
    const std::uint64_t cell_bytes = std::uint64_t{1} << plan.shift;
    screen.wrapped(screen.style.dim(fmt::format("One cell is {} ({} page{}), one row {}.",
                                                human_bytes(cell_bytes), cell_bytes / page_size_,
                                                cell_bytes == page_size_ ? "" : "s",
                                                human_bytes(plan.row_bytes()))),
                   0);
    const auto fold = [&](Address start, Address end) {
        if (start < end) draw_fold(screen, plan, {start, end});
    };
    Address done = row_range(plan.rows.front(), plan.row_bytes()).start;
    if (!plan.selected && plan.mapped.front().start < done) fold(plan.mapped.front().start, done);
    for (const std::uint64_t row : plan.rows) {
        const AddressRange range = row_range(row, plan.row_bytes());
        fold(done, range.start);
        screen.line(draw_row(screen, plan, row));
        done = range.end;
    }
    if (!plan.selected) fold(done, plan.mapped.back().end);
    draw_legend(screen, plan, census);
}

} // namespace pagesift::report
