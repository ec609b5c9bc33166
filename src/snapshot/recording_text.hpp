// SPDX-License-Identifier: MIT
// Words, numbers and escaped text of a recording's lines. Lines are printable ASCII: whatever else
// a name holds is escaped, so that a recording can be shown, mailed and compared.
#pragma once

#include "pagesift/source.hpp"

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pagesift::snapshot {

/// Appends @p text, escaped: \n \t \\ and \xNN; a blank at the end becomes \x20, because editors
/// take those away.
void append_escaped(std::string& out, std::string_view text);

/// As append_escaped, with every blank escaped: one word of a line.
void append_word(std::string& out, std::string_view text);

/// The bytes that were escaped; empty optional: not what append_escaped writes.
std::optional<std::string> unescape(std::string_view text);

/// The text up to the next blank, which is removed with it.
inline std::string_view take_field(std::string_view& line) {
    const auto at = line.find(' ');
    const auto field = line.substr(0, at);
    line.remove_prefix(at == line.npos ? line.size() : at + 1);
    return field;
}

/// All of @p text as a number, or nothing.
template <class Number = std::uint64_t>
std::optional<Number> parse_number(std::string_view text, int base = 10) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size()) return {};
    return value;
}

/// "7f00-7fff", hexadecimal and not empty.
std::optional<AddressRange> parse_range(std::string_view text);

/// "key=value" at the front of @p line, removed.
struct KeyValue {
    std::string_view key, value;
};
inline KeyValue take_key_value(std::string_view& line) {
    const auto field = take_field(line);
    const auto equals = field.find('=');
    if (equals == field.npos) return {field, {}};
    return {field.substr(0, equals), field.substr(equals + 1)};
}

/// The words of an enumeration, by value.
template <class Enum> struct EnumWords;
template <> struct EnumWords<Backing> {
    static constexpr std::string_view words[] = {"anon",    "file",    "shmem",
                                                 "hugetlb", "special", "device"};
};
template <> struct EnumWords<Cache> {
    static constexpr std::string_view words[] = {"not-asked", "hole", "cached", "absent",
                                                 "unknown"};
};
template <> struct EnumWords<Content> {
    static constexpr std::string_view words[] = {"not-read", "zero", "other", "changed", "refused"};
};
template <> struct EnumWords<ZeroTest> {
    static constexpr std::string_view words[] = {"off", "sample", "all"};
};

template <class Enum> std::string_view to_word(Enum value) {
    return EnumWords<Enum>::words[static_cast<std::size_t>(value)];
}

template <class Enum> std::optional<Enum> parse_word(std::string_view text) {
    std::size_t i = 0;
    for (const auto word : EnumWords<Enum>::words) {
        if (word == text) return static_cast<Enum>(i);
        ++i;
    }
    return {};
}

} // namespace pagesift::snapshot
