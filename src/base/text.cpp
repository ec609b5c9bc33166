// SPDX-License-Identifier: MIT
#include "pagesift/base.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace pagesift {
namespace {

struct CodePoint {
    std::uint32_t value;
    std::size_t length; ///< 0: not UTF-8
};

CodePoint decode_utf8(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
    if (length == 0 || lead > 0xf4 || text.size() < length) return {0, 0};
    std::uint32_t value = lead & (0xffu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return {0, 0};
        value = (value << 6) | (byte(i) & 0x3fu);
    }
    static constexpr std::uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = value >= 0xd800 && value <= 0xdfff;
    if (value < smallest[length] || value > 0x10ffff || surrogate) return {0, 0};
    return {value, length};
}

/// C1 controls, zero-width and bidirectional controls, line separators, byte-order mark, tags.
bool is_invisible(std::uint32_t c) {
    return (c >= 0x80 && c < 0xa0) || c == 0xad || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

} // namespace

std::string escape_text(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const CodePoint c = decode_utf8(text);
        if (c.length == 0) {
            out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
        } else if (c.value == '\\') {
            out += "\\\\";
        } else if (c.value < 0x20 || c.value == 0x7f) {
            out += fmt::format("\\x{:02x}", c.value);
        } else if (is_invisible(c.value)) {
            out += fmt::format("\\u{{{:04x}}}", c.value);
        } else {
            out.append(text.substr(0, c.length));
        }
        text.remove_prefix(c.length == 0 ? 1 : c.length);
    }
    return out;
}

std::string human_bytes(std::uint64_t bytes) {
    static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes == 0) return "0";
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 999.5 && unit + 1 < std::size(units)) {
        value /= 1024;
        ++unit;
    }
    if (unit == 0) return fmt::format("{} B", bytes);
    const bool whole = value >= 99.95 || std::floor(value) == value;
    return fmt::format("{:.{}f} {}", value, whole ? 0 : 1, units[unit]);
}

namespace {

[[noreturn]] void refuse(std::string_view subject, std::string_view text, const char* expected) {
    throw Error{ErrorKind::usage,
                std::string{subject},
                0,
                {},
                fmt::format("'{}' is not {}", escape_text(text), expected)};
}

int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

/// Digits of @p base from the front of @p text; empty optional: none, or more than 64 bits.
std::optional<std::uint64_t> take_number(std::string_view& text, unsigned base) {
    std::uint64_t value = 0;
    std::size_t used = 0;
    while (used < text.size() && digit_value(text[used]) < static_cast<int>(base)) {
        const auto digit = static_cast<std::uint64_t>(digit_value(text[used]));
        if (value > (std::numeric_limits<std::uint64_t>::max() - digit) / base) return {};
        value = value * base + digit;
        ++used;
    }
    if (used == 0) return {};
    text.remove_prefix(used);
    return value;
}

std::optional<unsigned> suffix_shift(std::string_view suffix) {
    if (suffix.empty() || suffix == "B") return 0;
    static constexpr std::string_view letters = "KMGTPE";
    const char first = suffix[0] >= 'a' ? static_cast<char>(suffix[0] - 32) : suffix[0];
    const auto index = letters.find(first);
    const auto rest = suffix.substr(1);
    if (index == letters.npos || !(rest.empty() || rest == "iB" || rest == "B")) return {};
    return static_cast<unsigned>(10 * (index + 1));
}

std::optional<std::uint64_t> try_parse_size(std::string_view text) {
    if (text.starts_with("0x") || text.starts_with("0X")) {
        text.remove_prefix(2);
        const auto value = take_number(text, 16);
        return text.empty() ? value : std::nullopt;
    }
    const auto whole = take_number(text, 10);
    if (!whole) return {};
    // The fraction as digits / scale; more digits than 64 bits can hold change nothing.
    static constexpr std::uint64_t most_scale = 1'000'000'000'000'000'000;
    std::uint64_t digits = 0, scale = 1;
    if (text.starts_with(".")) {
        text.remove_prefix(1);
        if (text.empty() || digit_value(text[0]) > 9) return {};
        for (; !text.empty() && digit_value(text[0]) <= 9; text.remove_prefix(1)) {
            if (scale == most_scale) continue;
            digits = digits * 10 + static_cast<std::uint64_t>(digit_value(text[0]));
            scale *= 10;
        }
    }
    const auto shift = suffix_shift(text);
    if (!shift || (*shift != 0 && *whole >> (64 - *shift) != 0)) return {};
    __extension__ using Wide = unsigned __int128;
    return (*whole << *shift) + static_cast<std::uint64_t>((Wide{digits} << *shift) / scale);
}

} // namespace

std::uint64_t parse_size(std::string_view text, std::string_view subject) {
    if (const auto value = try_parse_size(text)) return *value;
    refuse(subject, text, "a size such as 4096, 64K or 1.5G");
}

AddressRange parse_address_range(std::string_view text, std::string_view subject) {
    static constexpr auto expected = "an address range such as 7f0000000000-7f0000200000 or "
                                     "0x7f0000000000+2M";
    std::string_view rest = text;
    const auto address = [&]() -> std::uint64_t {
        if (rest.starts_with("0x") || rest.starts_with("0X")) rest.remove_prefix(2);
        const auto value = take_number(rest, 16);
        if (!value) refuse(subject, text, expected);
        return *value;
    };
    const std::uint64_t start = address();
    if (rest.empty()) refuse(subject, text, expected);
    const char separator = rest[0];
    rest.remove_prefix(1);
    std::uint64_t end = 0;
    if (separator == '-') {
        end = address();
        if (!rest.empty()) refuse(subject, text, expected);
    } else if (separator == '+') {
        const auto size = try_parse_size(rest);
        if (!size || *size > std::numeric_limits<std::uint64_t>::max() - start)
            refuse(subject, text, expected);
        end = start + *size;
    } else {
        refuse(subject, text, expected);
    }
    if (end <= start) refuse(subject, text, "a range that ends behind its start");
    return {Address{start}, Address{end}};
}

} // namespace pagesift
