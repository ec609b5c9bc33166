// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <string>

namespace pagesift::walk {

inline std::string hex(std::uint64_t value) {
    std::array<char, 16> digits;
    const auto [end, error] =
        std::to_chars(digits.data(), digits.data() + digits.size(), value, 16);
    return "0x" + std::string{digits.data(), end};
}

} // namespace pagesift::walk
