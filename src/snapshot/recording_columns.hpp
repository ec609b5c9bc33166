// SPDX-License-Identifier: MIT
// The columns of a page block: what each is called in a recording, how its values are written as
// runs, and how runs are kept in memory so that any page of them is found by bisection.
#pragma once

#include "snapshot/recording_text.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::snapshot {

/// One column: its word, the bytes that a value takes, and how a value is written. What a value's
/// text leaves out it takes from @p previous, the value before it on the line.
struct Column {
    std::string_view name;
    std::size_t width;
    void (*append)(std::string& out, std::uint64_t value, std::optional<std::uint64_t> previous);
    std::optional<std::uint64_t> (*parse)(std::string_view text,
                                          std::optional<std::uint64_t> previous);
    bool counts_up; ///< runs may step: page-table and swap entries
};

inline constexpr std::size_t column_count = 10;
using ColumnMask = std::uint16_t;

/// In the order of PageBlock's members.
const std::array<Column, column_count>& column_table();

/// Calls visit(index, vector) for every column of @p block.
template <class Block, class Visit> void for_each_column(Block& block, Visit&& visit) {
    visit(std::size_t{0}, block.entries);
    visit(std::size_t{1}, block.flags);
    visit(std::size_t{2}, block.map_counts);
    visit(std::size_t{3}, block.folio_orders);
    visit(std::size_t{4}, block.pmd_mapped);
    visit(std::size_t{5}, block.zero_page);
    visit(std::size_t{6}, block.cache);
    visit(std::size_t{7}, block.content);
    visit(std::size_t{8}, block.swap_entries);
    visit(std::size_t{9}, block.entry_bits);
}

/// Values of consecutive pages: value, value + step, value + 2 * step ...
struct ValueRun {
    std::uint64_t value = 0;
    std::uint64_t count = 0;
    std::int64_t step = 0;
    std::uint64_t at(std::uint64_t i) const { return value + static_cast<std::uint64_t>(step) * i; }
};

/// What one page adds to an entry of a run that counts up: a frame, or a swap slot behind the five
/// bits of the swap type.
std::int64_t entry_step(std::uint64_t entry);

/// "px.1a2b+512": value, then *N (all the same), +N (up by one) or -N (down by one).
std::optional<ValueRun> parse_run(const Column& column, std::string_view token,
                                  std::optional<std::uint64_t> previous);

/// Writes the values of one column of a block as lines of runs.
class ColumnEncoder {
public:
    void add(const Column& column, std::uint64_t value, std::uint64_t count);
    /// All lines so far, the last run included; the encoder is empty afterwards.
    std::string take(const Column& column);
    std::size_t text_size() const { return text_.size(); }

private:
    void close_run(const Column& column);

    std::string text_;
    std::size_t line_start_ = 0;
    std::optional<std::uint64_t> previous_;
    ValueRun run_;
};

/// The values of one column over a whole process, compressed; pages are numbered by address.
class ColumnRuns {
public:
    explicit ColumnRuns(std::size_t width) : width_(width) {}

    /// @p page lies behind everything that was added before.
    void append(std::uint64_t page, const ValueRun& run);

    /// Appends the values of [first, last), all of which were added.
    template <class T>
    void copy(std::uint64_t first, std::uint64_t last, std::vector<T>& out) const {
        for (auto s = find(first); first < last; ++s) {
            const std::uint64_t end = std::min(last, s->page + s->run.count);
            for (std::uint64_t i = first - s->page; i < end - s->page; ++i)
                out.push_back(
                    static_cast<T>(s->literal ? literal(s->run.value + i) : s->run.at(i)));
            first = end;
        }
    }

    struct Constant {
        std::uint64_t value;
        std::uint64_t end; ///< the page behind the last one with this value
    };
    /// The stretch of one value that begins at @p page, where it was kept as one.
    std::optional<Constant> constant_at(std::uint64_t page) const;

    /// The first page in [first, last) where one value goes on for at least @p length pages and
    /// @p test holds for it; @p last where there is none.
    template <class Test>
    std::uint64_t find_constant(std::uint64_t first, std::uint64_t last, std::uint64_t length,
                                Test&& test) const {
        for (auto s = find(first); s != segments_.end() && s->page < last; ++s)
            if (!s->literal && s->run.step == 0 && s->run.count >= length && test(s->run.value))
                return std::max(first, s->page);
        return last;
    }

private:
    /// A run, or `count` literals from index `value` on.
    struct Segment {
        std::uint64_t page;
        ValueRun run;
        bool literal;
    };
    std::vector<Segment>::const_iterator find(std::uint64_t page) const;
    std::uint64_t literal(std::uint64_t index) const {
        std::uint64_t value = 0;
        for (std::size_t byte = width_; byte-- > 0;)
            value = value << 8 | literals_[index * width_ + byte];
        return value;
    }

    std::size_t width_;
    std::vector<Segment> segments_;
    std::vector<unsigned char> literals_;
};

} // namespace pagesift::snapshot
