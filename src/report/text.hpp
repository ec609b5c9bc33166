// SPDX-License-Identifier: MIT
// Text in columns: how wide it is on a terminal, how it is shortened, and the palette.
#pragma once

#include "pagesift/report.hpp"

#include <string>
#include <string_view>

namespace pagesift::report {

/// Columns that @p text takes on a terminal; @p text is UTF-8 without control characters.
std::size_t display_width(std::string_view text);

/// At most @p width columns: the end is what tells paths apart, the start what tells words apart.
enum class Keep { start, end };
std::string shorten(std::string_view text, std::size_t width, Keep keep, bool unicode);

std::string pad_left(std::string_view text, std::size_t width);  ///< for numbers
std::string pad_right(std::string_view text, std::size_t width); ///< for words

/// Lines of at most @p width columns, broken at blanks; the second and later ones start with
/// @p indent blanks.
std::string wrap(std::string_view text, std::size_t width, std::size_t indent);

/// States, and kinds in the place of `present`, as one numbering: index into the palette.
inline constexpr std::size_t class_count = state_count + kind_count;
constexpr std::size_t class_of(State state, Kind kind) {
    return kind == Kind::not_present || state != State::present
               ? static_cast<std::size_t>(state)
               : state_count + static_cast<std::size_t>(kind);
}
/// "anon", "swapped"; "?" for unknown states and kinds.
std::string_view class_word(std::size_t cls);
/// A letter of its own for each class; upper case, '.' for none, '?' for unknown.
char class_letter(std::size_t cls);

/// What may be written: colours and block characters, or plain ASCII.
class Style {
public:
    explicit Style(const ReportOptions& options) : colour_(options.colour) {}
    bool unicode() const { return colour_; }
    std::string bold(std::string_view text) const { return sgr("1", text); }
    std::string dim(std::string_view text) const { return sgr("2", text); }
    std::string warn(std::string_view text) const { return sgr("38;5;172", text); }
    std::string good(std::string_view text) const { return sgr("38;5;71", text); }
    std::string bad(std::string_view text) const { return sgr("38;5;167", text); }
    /// In the colour of a class; filled: on it.
    std::string paint(std::size_t cls, std::string_view text) const;
    std::string fill(std::size_t cls, std::string_view text) const;
    /// In the colour of an age: hot 0 … cold 1.
    std::string heat(double age, std::string_view text) const;
    /// @p share of @p width columns, padded to them; what is there shows, however small.
    std::string bar(std::size_t cls, double share, std::size_t width) const;
    std::string_view ellipsis() const { return unicode() ? "…" : "..."; }

private:
    std::string sgr(std::string_view code, std::string_view text) const;
    bool colour_;
};

/// Sizes in the unit that was asked for.
class Amounts {
public:
    Amounts(Unit unit, std::uint64_t page_size) : unit_(unit), page_size_(page_size) {}
    std::string operator()(std::uint64_t bytes) const;
    std::string operator()(std::optional<std::uint64_t> bytes) const {
        return bytes ? (*this)(*bytes) : "?";
    }
    /// Columns that any size up to @p largest takes.
    std::size_t width(std::uint64_t largest) const;

private:
    Unit unit_;
    std::uint64_t page_size_;
};

std::string percent(std::uint64_t part, std::uint64_t whole); ///< "12.3%", "<0.1%"; at most 6 wide

} // namespace pagesift::report
