// SPDX-License-Identifier: MIT
#include "report/history_schema.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

constexpr std::array<std::string_view, 7> identity_names{
    "pid", "start_time_ticks", "comm", "exe", "user", "uid", "cgroup"};

std::vector<std::size_t> choose(bool identity) {
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < scan::fields().size(); ++i) {
        const bool named = std::find(identity_names.begin(), identity_names.end(),
                                     scan::fields()[i].name) != identity_names.end();
        if (named == identity) chosen.push_back(i);
    }
    return chosen;
}

std::string_view type_of(const scan::Field& field) {
    switch (field.unit) {
    case scan::Unit::text:
    case scan::Unit::address: return "TEXT";
    case scan::Unit::seconds:
    case scan::Unit::share: return "REAL";
    default: return "INTEGER";
    }
}

std::string definitions(const std::vector<std::size_t>& fields) {
    std::string text;
    for (const std::size_t i : fields)
        text += fmt::format(",\n  \"{}\" {}", scan::fields()[i].name, type_of(scan::fields()[i]));
    return text;
}

std::string tables() {
    return fmt::format(R"(
CREATE TABLE scan (
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  kernel TEXT NOT NULL,
  boot TEXT NOT NULL,
  time REAL NOT NULL,
  elapsed_seconds REAL NOT NULL,
  cpu_seconds REAL NOT NULL,
  depth TEXT NOT NULL,
  per TEXT NOT NULL,
  lens TEXT NOT NULL,
  chosen INTEGER NOT NULL,
  answered INTEGER NOT NULL,
  partial INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  denied INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  left_out INTEGER NOT NULL,
  interrupted INTEGER NOT NULL
);
CREATE TABLE process (
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  boot TEXT NOT NULL{0}
);
CREATE INDEX process_identity ON process (pid, start_time_ticks, comm, cgroup);
CREATE TABLE record (
  id INTEGER PRIMARY KEY,
  scan INTEGER NOT NULL REFERENCES scan (id) ON DELETE CASCADE,
  process INTEGER NOT NULL REFERENCES process (id){1}
);
CREATE INDEX record_scan ON record (scan);
CREATE INDEX record_process ON record (process);
CREATE TABLE total (
  scan INTEGER PRIMARY KEY REFERENCES scan (id) ON DELETE CASCADE{1}
);
CREATE TABLE gap (
  scan INTEGER NOT NULL REFERENCES scan (id) ON DELETE CASCADE,
  source TEXT NOT NULL,
  reason TEXT NOT NULL,
  remedy TEXT NOT NULL,
  incomplete INTEGER NOT NULL,
  records INTEGER NOT NULL
);
CREATE INDEX gap_scan ON gap (scan);
)",
                       definitions(history_identity()), definitions(history_figures()));
}

/// What stands in a process' last record less what stood in its first one.
std::string growth() {
    std::string differences;
    for (const std::size_t i : history_figures()) {
        const scan::Field& field = scan::fields()[i];
        if (field.additive && field.unit != scan::Unit::seconds)
            differences += fmt::format(",\n  newer.\"{0}\" - older.\"{0}\" AS \"{0}\"", field.name);
    }
    return fmt::format(R"(
CREATE VIEW growth AS
WITH known AS (
  SELECT min(record.id) AS first, max(record.id) AS last, count(*) AS scans
  FROM record
  JOIN scan ON scan.id = record.scan AND scan.per = 'process'
  JOIN process ON process.id = record.process
  GROUP BY process.host, process.boot, process.pid, process.start_time_ticks
  HAVING count(*) > 1
)
SELECT process.host, process.pid, process.start_time_ticks, process.comm, process.cgroup,
  known.scans, earlier.time AS first_time, later.time AS last_time{}
FROM known
JOIN record AS older ON older.id = known.first
JOIN record AS newer ON newer.id = known.last
JOIN scan AS earlier ON earlier.id = older.scan
JOIN scan AS later ON later.id = newer.scan
JOIN process ON process.id = newer.process;
)",
                       differences);
}

std::string views() {
    return fmt::format(R"(
DROP VIEW IF EXISTS latest;
DROP VIEW IF EXISTS growth;
CREATE VIEW latest AS
SELECT scan.host, scan.time, scan.per, {}, {}
FROM scan
JOIN record ON record.scan = scan.id
JOIN process ON process.id = record.process
WHERE scan.id IN (SELECT max(id) FROM scan GROUP BY host, per);
)",
                       history_names(history_identity(), "process."),
                       history_names(history_figures(), "record.")) +
           growth();
}

/// Fields that a later version of the program brought are added; what older scans say of them is
/// unknown.
bool add_columns(Database& database, const std::string& table,
                 const std::vector<std::size_t>& fields, bool really) {
    const auto there = columns_of(database, table);
    bool missing = false;
    for (const std::size_t i : fields) {
        const scan::Field& field = scan::fields()[i];
        if (there.contains(field.name)) continue;
        missing = true;
        if (really)
            database.run(fmt::format("ALTER TABLE {} ADD COLUMN \"{}\" {}", table, field.name,
                                     type_of(field)));
    }
    return missing;
}

bool add_all_columns(Database& database, bool really) {
    bool missing = add_columns(database, "process", history_identity(), really);
    missing |= add_columns(database, "record", history_figures(), really);
    missing |= add_columns(database, "total", history_figures(), really);
    return missing;
}

/// A view or a virtual table under the name of one of ours would be a program that runs when it is
/// read, for ever perhaps.
void refuse_disguises(Database& database) {
    static constexpr const char* sql =
        "SELECT count(*) FROM sqlite_master WHERE name COLLATE NOCASE IN"
        " ('scan', 'process', 'record', 'total', 'gap')"
        " AND (type = 'view' OR (type = 'table' AND rootpage = 0))";
    if (database.number(sql) != 0)
        throw Error{ErrorKind::bad_input, database.file(), 0, {}, "has a view for a table"};
}

} // namespace

std::set<std::string> columns_of(Database& database, const std::string& table) {
    std::set<std::string> names;
    Statement statement = database.prepare(fmt::format("PRAGMA table_info({})", table));
    while (statement.step()) names.insert(statement.text(1));
    return names;
}

const std::vector<std::size_t>& history_identity() {
    static const auto fields = choose(true);
    return fields;
}

const std::vector<std::size_t>& history_figures() {
    static const auto fields = choose(false);
    return fields;
}

std::string history_names(const std::vector<std::size_t>& fields, std::string_view prefix) {
    std::string text;
    for (const std::size_t i : fields) {
        if (!text.empty()) text += ", ";
        text += fmt::format("{}\"{}\"", prefix, scan::fields()[i].name);
    }
    return text;
}

HistoryKind check_history(Database& database) {
    // Another writer may make the history between any two of these, all of it at once: with the
    // application's mark read last, what was read before is right or older.
    const bool empty = database.number("SELECT count(*) FROM sqlite_master") == 0;
    const std::int64_t version = database.number("PRAGMA user_version");
    const std::int64_t application = database.number("PRAGMA application_id");
    if (empty && application == 0 && version == 0) return HistoryKind::none;
    if (application != history_application)
        throw Error{ErrorKind::bad_input, database.file(), 0, "name a file that does not exist yet",
                    "is a database, but no history of pagesift"};
    if (version > history_version)
        throw Error{
            ErrorKind::bad_input, database.file(), 0, "it needs a later pagesift",
            fmt::format("is a history of version {}; {} is known", version, history_version)};
    refuse_disguises(database);
    return add_all_columns(database, false) ? HistoryKind::older_fields : HistoryKind::current;
}

void make_history(Database& database) {
    switch (check_history(database)) {
    case HistoryKind::none:
        database.run(tables() + views() +
                     fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {};",
                                 history_application, history_version));
        break;
    case HistoryKind::older_fields:
        add_all_columns(database, true);
        database.run(views());
        break;
    case HistoryKind::current: break;
    }
}

} // namespace pagesift::report
