// SPDX-License-Identifier: MIT
// What people type: sizes and ranges; and what any text looks like once it is escaped.
#include "fuzz.hpp"

#include "pagesift/base.hpp"

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

/// The value, or nothing where an Error refuses the text; nothing else may come out.
template <class Parse> auto try_parse(Parse&& parse, std::string_view text) {
    std::optional<decltype(parse(text, text))> result;
    try {
        result = parse(text, "--option");
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::usage, "the command line is to blame");
        require(is_printable(error.what()), "the message can be printed");
    }
    return result;
}

void check_escape(std::string_view text) {
    const std::string safe = escape_text(text);
    require(is_printable(safe), "escaped text has no control characters");
    // Were anything but backslashes left to escape, more than those would change.
    std::string doubled;
    for (const char c : safe) doubled += c == '\\' ? std::string{"\\\\"} : std::string{c};
    require(escape_text(safe) == doubled, "escaped text holds nothing but backslashes to escape");
}

void check_size(std::string_view text) {
    const auto size = try_parse(parse_size, text);
    if (!size) return;
    require(is_printable(human_bytes(*size)), "a size can be printed");
    const auto range = try_parse(parse_address_range, "1000+" + std::string{text});
    if (!range) return;
    require(range->size().value == *size, "START+SIZE is as long as SIZE");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = as_text(data, size);
    check_escape(text);
    check_size(text);
    if (const auto range = try_parse(parse_address_range, text))
        require(!range->empty(), "no range is empty");
    if (const auto bytes = try_parse(parse_size, text); bytes && text.find('.') == text.npos) {
        // A number of the same text with a fraction behind it is not smaller.
        const auto digits = text.substr(0, text.find_first_not_of("0123456789"));
        if (digits.empty() || text.starts_with("0x") || text.starts_with("0X")) return 0;
        const std::string longer =
            std::string{digits} + ".99999999999999999999" + std::string{text.substr(digits.size())};
        if (const auto more = try_parse(parse_size, longer))
            require(*more >= *bytes, "a fraction adds to a size");
    }
    return 0;
}
