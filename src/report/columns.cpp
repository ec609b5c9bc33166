// SPDX-License-Identifier: MIT
#include "report/columns.hpp"

namespace pagesift::report {

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
