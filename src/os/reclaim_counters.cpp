// SPDX-License-Identifier: MIT
#include "os/reclaim_counters.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string_view>

namespace pagesift::os {
namespace {

constexpr std::array<std::string_view, 2> of_refills{"pgrefill", "pgdeactivate"};
constexpr std::array<std::string_view, 4> of_others{"pgscan", "pageoutrun", "allocstall",
                                                    "pgmigrate_success"};

bool starts_with_any(std::string_view name, std::span<const std::string_view> prefixes) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](std::string_view prefix) { return name.starts_with(prefix); });
}

} // namespace

ReclaimCounters::Sums ReclaimCounters::read() const {
    const std::string text = root_.read_text("proc/vmstat").text;
    Sums sums;
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        const auto space = line.find(' ');
        if (space == line.npos) continue;
        const std::string_view name = line.substr(0, space);
        const bool refill = starts_with_any(name, of_refills);
        if (!refill && !starts_with_any(name, of_others)) continue;
        std::uint64_t value = 0;
        const auto [end, error] =
            std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
        if (error != std::errc{}) continue;
        sums.all = sums.all.value_or(0) + value;
        if (refill) sums.refills = sums.refills.value_or(0) + value;
    }
    return sums;
}

} // namespace pagesift::os
