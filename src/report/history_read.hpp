// SPDX-License-Identifier: MIT
// What a history holds, as scans and records again.
#pragma once

#include "pagesift/report.hpp"
#include "report/sqlite.hpp"

namespace pagesift::report {

/// What escape_text made, as it was.
std::string unescape_text(std::string_view text);

std::vector<History::Entry> read_scans(Database& database);
void read_records(Database& database, std::int64_t scan,
                  const std::function<void(const scan::Record&)>& take);

} // namespace pagesift::report
