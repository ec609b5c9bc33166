// SPDX-License-Identifier: MIT
#include "report/text.hpp"

#include "pagesift/figures.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

struct Interval32 {
    std::uint32_t first, last;
};

/// Blocks rather than single characters: names in these scripts line up, and that is all we need.
constexpr std::array wide_blocks{
    Interval32{0x1100, 0x115f},   Interval32{0x2e80, 0x303e},   Interval32{0x3041, 0xa4cf},
    Interval32{0xa960, 0xa97f},   Interval32{0xac00, 0xd7a3},   Interval32{0xf900, 0xfaff},
    Interval32{0xfe30, 0xfe6f},   Interval32{0xff00, 0xff60},   Interval32{0xffe0, 0xffe6},
    Interval32{0x1f300, 0x1f64f}, Interval32{0x1f680, 0x1f6ff}, Interval32{0x1f900, 0x1f9ff},
    Interval32{0x20000, 0x3fffd},
};
constexpr std::array combining_blocks{
    Interval32{0x300, 0x36f},   Interval32{0x483, 0x489},     Interval32{0x591, 0x5bd},
    Interval32{0x610, 0x61a},   Interval32{0x64b, 0x65f},     Interval32{0xe31, 0xe31},
    Interval32{0xe34, 0xe3a},   Interval32{0xe47, 0xe4e},     Interval32{0x1ab0, 0x1aff},
    Interval32{0x1dc0, 0x1dff}, Interval32{0x20d0, 0x20ff},   Interval32{0xfe00, 0xfe0f},
    Interval32{0xfe20, 0xfe2f}, Interval32{0xe0100, 0xe01ef},
};

template <std::size_t Count>
bool contains(const std::array<Interval32, Count>& blocks, std::uint32_t c) {
    return std::any_of(blocks.begin(), blocks.end(),
                       [&](Interval32 b) { return b.first <= c && c <= b.last; });
}

struct Glyph {
    std::size_t bytes;
    std::size_t columns;
};

Glyph next_glyph(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) return {1, 1};
    const std::size_t bytes = std::min<std::size_t>(lead >= 0xf0   ? 4
                                                    : lead >= 0xe0 ? 3
                                                                   : 2,
                                                    text.size());
    std::uint32_t c = lead & (0xffu >> (bytes + 1));
    for (std::size_t i = 1; i < bytes; ++i)
        c = c << 6 | (static_cast<unsigned char>(text[i]) & 0x3fu);
    return {bytes, contains(combining_blocks, c) ? 0u : contains(wide_blocks, c) ? 2u : 1u};
}

/// Middle tones of the 256-colour cube, readable on black and on white: blue and green for memory
/// in ordinary use, violet for merged, orange for what may be waste, red for swap, grey for
/// nothing.
constexpr std::array<std::uint8_t, class_count> palette{
    244, // none
    108, // cached
    245, // uncached
    68,  // present
    167, // swapped
    169, // shmem-swapped
    136, // marker
    137, // migrating
    245, // unknown
    180, // zero-page
    172, // zero-filled
    97,  // ksm
    133, // ksm-sole
    139, // ksm-zero
    62,  // thp
    25,  // hugetlb
    68,  // anon
    71,  // file
    73,  // shmem
    245, // special
    245, // unknown
};
constexpr std::array<std::uint8_t, 7> dark_tones{25, 62, 68, 97, 133, 167, 136};
constexpr std::string_view letters = ".CU=SWXG?ZOKLQTHAFMP?";
static_assert(letters.size() == class_count);

} // namespace

std::size_t display_width(std::string_view text) {
    std::size_t width = 0;
    for (std::size_t i = 0; i < text.size();) {
        const Glyph glyph = next_glyph(text.substr(i));
        i += glyph.bytes;
        width += glyph.columns;
    }
    return width;
}

std::string shorten(std::string_view text, std::size_t width, Keep keep, bool unicode) {
    const std::size_t whole = display_width(text);
    if (whole <= width) return std::string{text};
    const std::string_view mark = unicode ? "…" : "...";
    const std::size_t mark_width = display_width(mark);
    if (width <= mark_width) return std::string(width, '.');
    const std::size_t room = width - mark_width;
    std::size_t i = 0, columns = 0;
    const std::size_t skip = keep == Keep::end ? whole - room : room;
    while (i < text.size()) {
        const Glyph glyph = next_glyph(text.substr(i));
        if (keep == Keep::end ? columns >= skip : columns + glyph.columns > skip) break;
        i += glyph.bytes;
        columns += glyph.columns;
    }
    if (keep == Keep::start) return fmt::format("{}{}", text.substr(0, i), mark);
    return fmt::format("{}{}", mark, text.substr(i));
}

std::string pad_left(std::string_view text, std::size_t width) {
    const std::size_t have = display_width(text);
    return std::string(width > have ? width - have : 0, ' ').append(text);
}

std::string pad_right(std::string_view text, std::size_t width) {
    const std::size_t have = display_width(text);
    return std::string{text}.append(width > have ? width - have : 0, ' ');
}

std::string wrap(std::string_view text, std::size_t width, std::size_t indent) {
    std::string out;
    std::size_t column = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, end);
        const std::size_t columns = display_width(word);
        if (column != 0 && column + 1 + columns > width) {
            out.append("\n").append(indent, ' ');
            column = indent;
        } else if (!out.empty()) {
            out.push_back(' ');
            ++column;
        }
        out.append(word);
        column += columns;
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out;
}

std::string_view class_word(std::size_t cls) {
    const std::string_view name =
        cls < state_count ? state_table()[cls].name : kind_table()[cls - state_count].name;
    return name == word_of(State::unknown).name ? "?" : name;
}

char class_letter(std::size_t cls) { return letters[cls]; }

std::string Style::sgr(std::string_view code, std::string_view text) const {
    if (!colour_ || text.empty()) return std::string{text};
    return fmt::format("\033[{}m{}\033[0m", code, text);
}

std::string Style::paint(std::size_t cls, std::string_view text) const {
    return sgr(fmt::format("38;5;{}", palette[cls]), text);
}

std::string Style::fill(std::size_t cls, std::string_view text) const {
    const bool dark =
        std::find(dark_tones.begin(), dark_tones.end(), palette[cls]) != dark_tones.end();
    return sgr(fmt::format("38;5;{};48;5;{}", dark ? 231 : 16, palette[cls]), text);
}

std::string Style::heat(double age, std::string_view text) const {
    static constexpr std::array<std::uint8_t, 5> tones{167, 172, 180, 73, 25};
    const auto tone = std::clamp(age, 0.0, 1.0) * static_cast<double>(tones.size() - 1);
    return sgr(fmt::format("38;5;{}", tones[static_cast<std::size_t>(tone)]), text);
}

std::string Style::bar(std::size_t cls, double share, std::size_t width) const {
    static constexpr std::array<std::string_view, 8> parts{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    if (share <= 0 || width == 0) return std::string(width, ' ');
    const std::size_t steps = unicode() ? 8 : 1;
    const auto wanted = std::llround(std::min(share, 1.0) * static_cast<double>(width * steps));
    const auto filled = static_cast<std::size_t>(std::max(wanted, 1LL));
    std::string text;
    for (std::size_t i = 0; i < filled / steps; ++i) text += unicode() ? "█" : "#";
    text += parts[filled % steps];
    const std::size_t columns = (filled + steps - 1) / steps;
    return paint(cls, text) + std::string(width - columns, ' ');
}

std::string Amounts::operator()(std::uint64_t bytes) const {
    switch (unit_) {
    case Unit::bytes: return fmt::format("{}", bytes);
    case Unit::pages: return fmt::format("{}", bytes / page_size_);
    case Unit::automatic: break;
    }
    return human_bytes(bytes);
}

std::size_t Amounts::width(std::uint64_t largest) const {
    return unit_ == Unit::automatic ? 8 : std::max<std::size_t>((*this)(largest).size(), 8);
}

std::string percent(std::uint64_t part, std::uint64_t whole) {
    if (whole == 0) return "";
    const double share = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
    if (part != 0 && share < 0.05) return "<0.1%";
    return part == whole ? "100%" : fmt::format("{:.1f}%", std::min(share, 99.9));
}

} // namespace pagesift::report
