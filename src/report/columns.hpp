// SPDX-License-Identifier: MIT
// Rows of a table for people: fixed columns, and a last one that takes what is left.
#pragma once

#include "report/json_writer.hpp"
#include "report/text.hpp"

#include <vector>

namespace pagesift::report {

/// What the parts of the table format share.
struct Screen {
    Output* out;
    ReportOptions options;
    Style style;
    Amounts amounts;

    std::size_t width() const { return options.width; }
    void line(std::string_view text = {}) const {
        out->put(text);
        out->put('\n');
        out->flush_if_full();
    }
    /// A line that is broken where it is too long.
    void wrapped(std::string_view text, std::size_t indent) const {
        line(wrap(text, width(), indent));
    }
    /// Foreign text, safe and at most @p width columns wide.
    std::string foreign(std::string_view text, std::size_t width) const {
        static constexpr std::string_view deleted = " (deleted)";
        if (text.size() > width && text.ends_with(deleted)) text.remove_suffix(deleted.size());
        return shorten(escape_text(text), width, Keep::end, style.unicode());
    }
};

/// "? source: reason, detail; would show it: remedy".
std::string gap_text(const Gap& gap, std::string_view detail = {});
/// The first few of such texts, all of them with --verbose.
void render_gap_texts(const Screen& screen, std::span<const std::string> texts);

enum class Align { left, right };

class Columns {
public:
    explicit Columns(std::size_t total_width) : total_(total_width) {}

    void add(std::string_view title, std::size_t width, Align align = Align::left) {
        columns_.push_back({std::string{title}, width, align});
        used_ += width + 2;
    }
    /// What is left for the last column; 0, which leaves it out, where that is hardly anything.
    std::size_t rest() const { return total_ >= used_ + 6 ? total_ - used_ : 0; }

    std::string header(std::string_view last) const;
    /// @p cells without the last column; a cell may carry colours when it is as wide as the column.
    std::string row(const std::vector<std::string>& cells, std::string_view last) const;

private:
    struct Column {
        std::string title;
        std::size_t width;
        Align align;
    };
    std::vector<Column> columns_;
    std::size_t total_;
    std::size_t used_ = 0;
};

} // namespace pagesift::report
