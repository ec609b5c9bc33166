// SPDX-License-Identifier: MIT
#include "snapshot/recording_columns.hpp"

#include "pagesift/abi.hpp"

#include <fmt/format.h>
#include <iterator>

namespace pagesift::snapshot {
namespace {

using Previous = std::optional<std::uint64_t>;

// ---- Page-table entries ------------------------------------------------------------------------

/// Bits 63 to 55 of a pagemap entry, from the top: present, swap, file, two without a meaning yet,
/// guard, uffd-wp, exclusive, soft-dirty.
constexpr std::string_view entry_letters = "psfzyguxd";
constexpr unsigned frame_bits = 55;
constexpr unsigned swap_type_bits = 5;

bool is_swap(std::uint64_t entry) {
    return (entry & abi::PM_SWAP) != 0 && (entry & abi::PM_PRESENT) == 0;
}

void append_entry(std::string& out, std::uint64_t entry, Previous previous) {
    if (entry == 0) {
        out += '0';
        return;
    }
    const std::uint64_t high = entry >> frame_bits;
    if (!previous || *previous >> frame_bits != high) {
        if (high == 0) out += '0';
        for (std::size_t i = 0; i < entry_letters.size(); ++i)
            if (high & (std::uint64_t{1} << (entry_letters.size() - 1 - i)))
                out += entry_letters[i];
    }
    auto to = std::back_inserter(out);
    if (is_swap(entry))
        fmt::format_to(to, ".{:x}:{:x}", abi::swap_type(entry), abi::swap_offset(entry));
    else
        fmt::format_to(to, ".{:x}", entry & abi::PM_PFRAME_MASK);
}

std::optional<std::uint64_t> parse_entry(std::string_view text, Previous previous) {
    if (text == "0") return 0;
    const auto dot = text.find('.');
    if (dot == text.npos || (dot == 0 && !previous)) return {};
    const auto letters = text.substr(0, dot);
    const auto frame = text.substr(dot + 1);
    std::uint64_t high = letters.empty() ? *previous >> frame_bits : 0;
    if (letters != "0") {
        for (const char letter : letters) {
            const auto at = entry_letters.find(letter);
            if (at == entry_letters.npos) return {};
            high |= std::uint64_t{1} << (entry_letters.size() - 1 - at);
        }
    }
    const std::uint64_t entry = high << frame_bits;
    if (!is_swap(entry)) {
        const auto number = parse_number(frame, 16);
        if (!number || *number > abi::PM_PFRAME_MASK) return {};
        return entry | *number;
    }
    const auto colon = frame.find(':');
    if (colon == frame.npos) return {};
    const auto type = parse_number(frame.substr(0, colon), 16);
    const auto offset = parse_number(frame.substr(colon + 1), 16);
    if (!type || !offset || *type >> swap_type_bits != 0 ||
        *offset >> (frame_bits - swap_type_bits) != 0)
        return {};
    return entry | *type | *offset << swap_type_bits;
}

// ---- Other values ------------------------------------------------------------------------------

void append_hex(std::string& out, std::uint64_t value, Previous) {
    fmt::format_to(std::back_inserter(out), "{:x}", value);
}
std::optional<std::uint64_t> parse_hex(std::string_view text, Previous) {
    return parse_number(text, 16);
}

void append_decimal(std::string& out, std::uint64_t value, Previous) {
    fmt::format_to(std::back_inserter(out), "{}", value);
}
template <class T> std::optional<std::uint64_t> parse_decimal(std::string_view text, Previous) {
    return parse_number<T>(text);
}

void append_order(std::string& out, std::uint64_t value, Previous previous) {
    if (value == PageBlock::unknown_order)
        out += '?';
    else
        append_decimal(out, value, previous);
}
std::optional<std::uint64_t> parse_order(std::string_view text, Previous previous) {
    if (text == "?") return PageBlock::unknown_order;
    const auto order = parse_decimal<std::uint8_t>(text, previous);
    return order && *order < 64 ? order : std::nullopt;
}

template <class Enum> void append_enum(std::string& out, std::uint64_t value, Previous) {
    out += to_word(static_cast<Enum>(value));
}
template <class Enum> std::optional<std::uint64_t> parse_enum(std::string_view text, Previous) {
    if (const auto value = parse_word<Enum>(text)) return static_cast<std::uint64_t>(*value);
    return {};
}

} // namespace

const std::array<Column, column_count>& column_table() {
    static constexpr std::array<Column, column_count> table{{
        {"entries", 8, append_entry, parse_entry, true},
        {"flags", 8, append_hex, parse_hex, false},
        {"map-counts", 4, append_decimal, parse_decimal<std::uint32_t>, false},
        {"folio-orders", 1, append_order, parse_order, false},
        {"pmd-mapped", 1, append_decimal, parse_decimal<std::uint8_t>, false},
        {"zero-page", 1, append_decimal, parse_decimal<std::uint8_t>, false},
        {"cache", 1, append_enum<Cache>, parse_enum<Cache>, false},
        {"content", 1, append_enum<Content>, parse_enum<Content>, false},
        {"swap-entries", 8, append_entry, parse_entry, true},
        {"entry-bits", 1, append_decimal, parse_decimal<std::uint8_t>, false},
    }};
    return table;
}

std::int64_t entry_step(std::uint64_t entry) {
    return is_swap(entry) ? std::int64_t{1} << swap_type_bits : 1;
}

std::optional<ValueRun> parse_run(const Column& column, std::string_view token, Previous previous) {
    const auto sign = token.find_last_of(column.counts_up ? "*+-" : "*");
    const auto value = column.parse(token.substr(0, sign), previous);
    if (!value) return {};
    if (sign == token.npos) return ValueRun{*value, 1, 0};
    const auto count = parse_number(token.substr(sign + 1));
    if (!count || *count == 0) return {};
    if (token[sign] == '*') return ValueRun{*value, *count, 0};
    const std::int64_t step = entry_step(*value);
    const auto unit = static_cast<std::uint64_t>(step);
    const std::uint64_t frame = *value & abi::PM_PFRAME_MASK;
    const std::uint64_t room =
        token[sign] == '+' ? (abi::PM_PFRAME_MASK - frame) / unit : frame / unit;
    if (*count - 1 > room) return {};
    return ValueRun{*value, *count, token[sign] == '+' ? step : -step};
}

// ---- ColumnEncoder -----------------------------------------------------------------------------

void ColumnEncoder::add(const Column& column, std::uint64_t value, std::uint64_t count) {
    if (run_.count != 0 && count == 1) {
        if (run_.count == 1) {
            const bool same_bits = value >> frame_bits == run_.value >> frame_bits;
            const std::int64_t step = entry_step(run_.value);
            if (value == run_.value)
                run_.step = 0;
            else if (column.counts_up && same_bits &&
                     value == run_.value + static_cast<std::uint64_t>(step))
                run_.step = step;
            else if (column.counts_up && same_bits &&
                     value + static_cast<std::uint64_t>(step) == run_.value)
                run_.step = -step;
        }
        if (value == run_.at(run_.count) &&
            (run_.step == 0 || value >> frame_bits == run_.value >> frame_bits)) {
            ++run_.count;
            return;
        }
    } else if (run_.count != 0 && value == run_.value && (run_.step == 0 || run_.count == 1)) {
        run_.step = 0;
        run_.count += count;
        return;
    }
    close_run(column);
    run_ = {value, count, 0};
}

void ColumnEncoder::close_run(const Column& column) {
    static constexpr std::size_t line_length = 96;
    if (run_.count == 0) return;
    if (text_.empty() || text_.size() - line_start_ > line_length) {
        if (!text_.empty()) text_ += '\n';
        line_start_ = text_.size();
        text_ += column.name;
        previous_.reset();
    }
    text_ += ' ';
    column.append(text_, run_.value, previous_);
    if (run_.count > 1) {
        text_ += run_.step == 0 ? '*' : run_.step > 0 ? '+' : '-';
        fmt::format_to(std::back_inserter(text_), "{}", run_.count);
    }
    previous_ = run_.value;
    run_ = {};
}

std::string ColumnEncoder::take(const Column& column) {
    close_run(column);
    std::string text = std::move(text_);
    if (!text.empty()) text += '\n';
    *this = {};
    return text;
}

// ---- ColumnRuns --------------------------------------------------------------------------------

void ColumnRuns::append(std::uint64_t page, const ValueRun& run) {
    static constexpr std::uint64_t shortest_run = 4;
    Segment* last = segments_.empty() ? nullptr : &segments_.back();
    if (last && last->page + last->run.count != page) last = nullptr;
    if (last && !last->literal && (last->run.step == run.step || run.count == 1) &&
        last->run.at(last->run.count) == run.value) {
        last->run.count += run.count;
        return;
    }
    if (run.count >= shortest_run) {
        segments_.push_back({page, run, false});
        return;
    }
    if (!last || !last->literal) {
        segments_.push_back({page, {literals_.size() / width_, 0, 0}, true});
        last = &segments_.back();
    }
    for (std::uint64_t i = 0; i < run.count; ++i) {
        const std::uint64_t value = run.at(i);
        for (std::size_t byte = 0; byte < width_; ++byte)
            literals_.push_back(static_cast<unsigned char>(value >> (8 * byte)));
    }
    last->run.count += run.count;
}

std::vector<ColumnRuns::Segment>::const_iterator ColumnRuns::find(std::uint64_t page) const {
    return std::prev(std::upper_bound(
        segments_.begin(), segments_.end(), page,
        [](std::uint64_t wanted, const Segment& segment) { return wanted < segment.page; }));
}

std::optional<ColumnRuns::Constant> ColumnRuns::constant_at(std::uint64_t page) const {
    const auto s = find(page);
    if (s->literal || s->run.step != 0) return {};
    return Constant{s->run.value, s->page + s->run.count};
}

} // namespace pagesift::snapshot
