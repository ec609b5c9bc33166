// SPDX-License-Identifier: MIT
// Small steps over foreign text, shared by this room's parsers.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pagesift::procfs {

/// The text up to @p end, which is removed together with it; all that is left where @p end is not.
inline std::string_view take_until(std::string_view& text, char end) {
    const auto at = text.find(end);
    const auto taken = text.substr(0, at);
    text.remove_prefix(at == text.npos ? text.size() : at + 1);
    return taken;
}

inline std::string_view trim(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == text.npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// The next word between blanks, removed; empty at the end.
inline std::string_view take_word(std::string_view& text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == text.npos) {
        text = {};
        return {};
    }
    text.remove_prefix(first);
    const auto end = text.find_first_of(" \t");
    const auto word = text.substr(0, end);
    text.remove_prefix(word.size());
    return word;
}

/// All of @p text as a number, or nothing.
template <class Number = std::uint64_t>
std::optional<Number> to_number(std::string_view text, int base = 10) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return {};
    return value;
}

/// Splits @p text into lines and hands each to @p sink; a last line without newline counts.
template <class Sink> void for_each_line(std::string_view text, Sink&& sink) {
    while (!text.empty()) sink(take_until(text, '\n'));
}

} // namespace pagesift::procfs
