// SPDX-License-Identifier: MIT
#include "os/reclaim_counters.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string_view>

namespace pagesift::os {
namespace {

using Prefixes = std::span<const std::string_view>;

constexpr std::array<std::string_view, 6> all{"pgrefill",   "pgdeactivate", "pgscan",
                                              "pageoutrun", "allocstall",   "pgmigrate_success"};
constexpr Prefixes refills = Prefixes{all}.first(2);

std::optional<std::uint64_t> sum_of(const Root& root, Prefixes prefixes) {
    const std::string text = root.read_text("proc/vmstat").text;
    std::optional<std::uint64_t> sum;
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        const auto space = line.find(' ');
        const bool is_meant =
            space != line.npos &&
            std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view prefix) {
                return line.substr(0, space).starts_with(prefix);
            });
        if (!is_meant) continue;
        std::uint64_t value = 0;
        const auto [end, error] =
            std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
        if (error == std::errc{}) sum = sum.value_or(0) + value;
    }
    return sum;
}

} // namespace

std::optional<std::uint64_t> ReclaimCounters::read() const { return sum_of(root_, all); }
std::optional<std::uint64_t> ReclaimCounters::read_refills() const {
    return sum_of(root_, refills);
}

} // namespace pagesift::os
