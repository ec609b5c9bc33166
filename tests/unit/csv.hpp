// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace pagesift::test {

/// Rows of RFC 4180.
inline std::vector<std::vector<std::string>> parse_csv(const std::string& text) {
    std::vector<std::vector<std::string>> rows{{""}};
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted) {
            if (c != '"')
                rows.back().back() += c;
            else if (i + 1 < text.size() && text[i + 1] == '"')
                rows.back().back() += text[++i];
            else
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == ',') {
            rows.back().emplace_back();
        } else if (c == '\r') {
            REQUIRE(text.at(++i) == '\n');
            rows.push_back({""});
        } else {
            REQUIRE(c != '\n');
            rows.back().back() += c;
        }
    }
    REQUIRE(rows.back() == std::vector<std::string>{""});
    rows.pop_back();
    return rows;
}

} // namespace pagesift::test
