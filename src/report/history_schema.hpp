// SPDX-License-Identifier: MIT
// The tables and views of a history, made from the table of fields.
#pragma once

#include "pagesift/scan.hpp"
#include "report/sqlite.hpp"

#include <set>
#include <vector>

namespace pagesift::report {

/// "psft": how SQLite and file(1) tell a history from other databases.
inline constexpr std::int64_t history_application = 0x70736674;
inline constexpr std::int64_t history_version = 1;

/// Fields that say who a process is, and are kept once for all its records; all others are columns
/// of `record`.
const std::vector<std::size_t>& history_identity();
const std::vector<std::size_t>& history_figures();

/// "a, b, c": the names of fields, each after @p prefix.
std::string history_names(const std::vector<std::size_t>& fields, std::string_view prefix = {});

/// Columns of a table, which may be fewer than there are fields where an older program made it.
std::set<std::string> columns_of(Database& database, const std::string& table);

enum class HistoryKind { none, older_fields, current };
/// Whether there is a history, and of these fields. Throws Error: it is something else, or of a
/// later version.
HistoryKind check_history(Database& database);
/// Makes what is missing; within a transaction.
void make_history(Database& database);

} // namespace pagesift::report
