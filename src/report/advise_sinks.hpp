// SPDX-License-Identifier: MIT
// Plans and what came of them: one sink a format, and the words that all have in common.
#pragma once

#include "report/sinks.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace pagesift::report {

inline constexpr std::string_view advise_schema = "pagesift.advise/1";

AdviseSink make_advise_json_sink(std::ostream& out, bool lines);
AdviseSink make_advise_csv_sink(std::ostream& out);
AdviseSink make_advise_table_sink(std::ostream& out, const ReportOptions& options);

/// Bytes by reason, the most first; of ranges that have one.
template <class Ranges>
std::vector<std::pair<advice::Reason, std::uint64_t>> by_reason(const Ranges& ranges) {
    std::vector<std::pair<advice::Reason, std::uint64_t>> sums;
    for (const auto& one : ranges) {
        const auto known = std::find_if(sums.begin(), sums.end(),
                                        [&](const auto& sum) { return sum.first == one.reason; });
        if (known == sums.end())
            sums.emplace_back(one.reason, one.range.size().value);
        else
            known->second += one.range.size().value;
    }
    std::stable_sort(sums.begin(), sums.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    return sums;
}

} // namespace pagesift::report
