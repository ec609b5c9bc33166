// SPDX-License-Identifier: MIT
#include "report/columns.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace pagesift::report {

std::string gap_text(const Gap& gap, std::string_view detail) {
    std::string text =
        fmt::format("? {}: {}{}", escape_text(gap.source), escape_text(gap.reason), detail);
    if (!gap.remedy.empty()) text += "; would show it: " + escape_text(gap.remedy);
    return text;
}

void render_gap_texts(const Screen& screen, std::span<const std::string> texts) {
    static constexpr std::size_t most = 6;
    const std::size_t shown = screen.options.verbose ? texts.size() : std::min(most, texts.size());
    for (const std::string& text : texts.first(shown)) screen.wrapped(text, 2);
    if (shown < texts.size())
        screen.line(fmt::format("? {} more; --verbose shows all", texts.size() - shown));
}

std::string Columns::header(std::string_view last) const {
    std::vector<std::string> titles;
    for (const Column& column : columns_) titles.push_back(column.title);
    return row(titles, rest() == 0 ? "" : last);
}

std::string Columns::row(const std::vector<std::string>& cells, std::string_view last) const {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        const Column& column = columns_[i];
        // Coloured cells were padded by whoever coloured them.
        if (cells[i].find('\033') != std::string::npos)
            line += cells[i];
        else if (column.align == Align::right)
            line += pad_left(cells[i], column.width);
        else
            line += pad_right(cells[i], column.width);
        line += "  ";
    }
    line += last;
    line.erase(line.find_last_not_of(' ') + 1);
    return line;
}

} // namespace pagesift::report
