// SPDX-License-Identifier: MIT
// Which processes the selectors mean.
#pragma once

#include "cli/commands.hpp"
#include "pagesift/scan.hpp"

namespace pagesift::cli {

/// The selectors and --pid. Throws Error(usage).
scan::Selection parse_selection(const Options& options, const Environment& environment,
                                const os::OpenOptions& open);
/// Whether any selector but --pid is given.
bool has_selectors(const Options& options);

/// Every process that has memory.
std::vector<scan::Identity> list_everyone(const os::OpenOptions& open, os::ListWant want);

} // namespace pagesift::cli
