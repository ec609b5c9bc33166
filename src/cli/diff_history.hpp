// SPDX-License-Identifier: MIT
// The half of `pagesift diff` that compares scans of histories.
#pragma once

#include "cli/commands.hpp"

#include <optional>

namespace pagesift::cli {

/// "FILE", or "FILE@N": a scan of a history.
struct HistoryTarget {
    std::string file;
    std::optional<std::int64_t> scan; ///< an id, or below zero counted from the newest, which is -1
};
/// Empty: there is no database of SQLite in the file that @p text names.
std::optional<HistoryTarget> find_history(const std::string& text);

/// One target, which is compared with the scan before it, or two.
Exit diff_histories(const Options& options, const Environment& environment,
                    const std::vector<HistoryTarget>& targets);

} // namespace pagesift::cli
