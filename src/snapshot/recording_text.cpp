// SPDX-License-Identifier: MIT
#include "snapshot/recording_text.hpp"

namespace pagesift::snapshot {
namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";

void append_hex_byte(std::string& out, unsigned char byte) {
    out += "\\x";
    out += hex_digits[byte >> 4];
    out += hex_digits[byte & 15];
}

void append_byte(std::string& out, unsigned char byte) {
    if (byte == '\n')
        out += "\\n";
    else if (byte == '\t')
        out += "\\t";
    else if (byte == '\\')
        out += "\\\\";
    else if (byte < 0x20 || byte >= 0x7f)
        append_hex_byte(out, byte);
    else
        out += static_cast<char>(byte);
}

} // namespace

void append_escaped(std::string& out, std::string_view text) {
    const bool blank_end = text.ends_with(' ');
    if (blank_end) text.remove_suffix(1);
    for (const char c : text) append_byte(out, static_cast<unsigned char>(c));
    if (blank_end) append_hex_byte(out, ' ');
}

void append_word(std::string& out, std::string_view text) {
    for (const char c : text) {
        if (c == ' ')
            append_hex_byte(out, ' ');
        else
            append_byte(out, static_cast<unsigned char>(c));
    }
}

std::optional<std::string> unescape(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const auto at = text.find('\\');
        out.append(text.substr(0, at));
        if (at == text.npos) break;
        text.remove_prefix(at + 1);
        if (text.empty()) return {};
        const char code = text[0];
        text.remove_prefix(1);
        if (code == 'n')
            out += '\n';
        else if (code == 't')
            out += '\t';
        else if (code == '\\')
            out += '\\';
        else if (code == 'x' && text.size() >= 2) {
            const auto byte = parse_number<std::uint8_t>(text.substr(0, 2), 16);
            if (!byte) return {};
            out += static_cast<char>(*byte);
            text.remove_prefix(2);
        } else {
            return {};
        }
    }
    return out;
}

std::optional<AddressRange> parse_range(std::string_view text) {
    const auto dash = text.find('-');
    if (dash == text.npos) return {};
    const auto start = parse_number(text.substr(0, dash), 16);
    const auto end = parse_number(text.substr(dash + 1), 16);
    if (!start || !end || *end <= *start) return {};
    return AddressRange{Address{*start}, Address{*end}};
}

} // namespace pagesift::snapshot
