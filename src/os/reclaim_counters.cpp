// SPDX-License-Identifier: MIT
#include "os/reclaim_counters.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

namespace pagesift::os {
namespace {

constexpr std::array<std::string_view, 6> prefixes{"pgscan",     "pgrefill",   "pgdeactivate",
                                                   "pageoutrun", "allocstall", "pgmigrate_success"};

bool is_meant(std::string_view name) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](std::string_view prefix) { return name.starts_with(prefix); });
}

} // namespace

std::optional<std::uint64_t> ReclaimCounters::read() const {
    const std::string text = root_.read_text("proc/vmstat").text;
    std::optional<std::uint64_t> sum;
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        const auto space = line.find(' ');
        if (space == line.npos || !is_meant(line.substr(0, space))) continue;
        std::uint64_t value = 0;
        const auto [end, error] =
            std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
        if (error == std::errc{}) sum = sum.value_or(0) + value;
    }
    return sum;
}

} // namespace pagesift::os
