// SPDX-License-Identifier: MIT
// Writing a history. Readers see whole scans only and do not wait for one to be stored, because the
// journal is a write-ahead log; a rollback journal would lock them out. It is on the disk with
// every commit (synchronous=FULL), so that neither a kill nor a power cut loses a scan that was
// reported as stored.
#include "report/history_read.hpp"
#include "report/history_schema.hpp"
#include "report/scan_sinks.hpp"

#include <fmt/format.h>
#include <thread>

namespace pagesift::report {
namespace {

using scan::Record;
using scan::Summary;

void bind_value(Statement& statement, int place, std::size_t field, const scan::Value& value) {
    const auto* whole = std::get_if<std::uint64_t>(&value);
    if (whole != nullptr && is_address(field))
        statement.bind(place, fmt::format("0x{:x}", *whole));
    else if (whole != nullptr)
        statement.bind(place, static_cast<std::int64_t>(*whole));
    else if (const auto* real = std::get_if<double>(&value))
        statement.bind(place, *real);
    else if (const auto* flag = std::get_if<bool>(&value))
        statement.bind(place, std::int64_t{*flag});
    else if (const auto* text = std::get_if<std::string>(&value))
        statement.bind(place, escape_text(*text));
    else
        statement.bind_null(place);
}

std::string question_marks(std::size_t count) {
    std::string text = "?";
    for (std::size_t i = 1; i < count; ++i) text += ", ?";
    return text;
}

/// "a IS b.a AND …": unlike =, this holds for two unknown values as well.
std::string same_process(std::string_view process, std::string_view other) {
    std::string text = fmt::format("{}.host = ?1 AND {}.boot = ?2", process, process);
    for (const std::size_t i : history_identity())
        text +=
            fmt::format(R"( AND {0}."{2}" IS {1}."{2}")", process, other, scan::fields()[i].name);
    return text;
}

/// Records wait here: in a table of this connection alone, in a file that SQLite deletes.
std::string waiting_tables() {
    std::string columns;
    for (const scan::Field& field : scan::fields()) columns += fmt::format("\"{}\", ", field.name);
    columns.resize(columns.size() - 2);
    return fmt::format(R"(
PRAGMA temp_store = FILE;
CREATE TEMP TABLE waiting (id INTEGER PRIMARY KEY, {});
CREATE TEMP TABLE waiting_gap (source, reason, remedy, incomplete, records,
  UNIQUE (source, reason, remedy, incomplete));
)",
                       columns);
}

double seconds_of(std::chrono::system_clock::time_point time) {
    return std::chrono::duration<double>{time.time_since_epoch()}.count();
}

} // namespace

class History::Store {
public:
    Store(const std::string& file, Use use, Options options)
        : options_(std::move(options)),
          database_(file, use == Use::read ? Database::Use::read : Database::Use::write,
                    options_.patience) {
        if (use == Use::read) {
            check();
            return;
        }
        check_history(database_);
        prepare();
    }

    Database& database() { return database_; }

    void begin() {
        take_back();
        database_.run("DELETE FROM waiting; DELETE FROM waiting_gap");
        database_.run("BEGIN"); // of the waiting tables alone: nothing else is touched
        filling_ = true;
    }

    void record(const Record& record) {
        int place = 0;
        for (std::size_t i = 0; i < scan::fields().size(); ++i)
            bind_value(*insert_, ++place, i, value_at(record, i));
        insert_->step();
        for (const Gap& gap : record.gaps) add_gap(gap, 1);
    }

    void end(const Summary& summary) {
        for (const Gap& gap : summary.gaps) add_gap(gap, 0);
        database_.run("COMMIT");
        filling_ = false;
        {
            Transaction transaction{database_};
            make_history(database_);
            const std::int64_t scan = insert_scan(summary);
            insert_records(summary, scan);
            insert_totals(summary, scan);
            database_.run(fmt::format("INSERT INTO gap SELECT {}, * FROM waiting_gap", scan));
            transaction.commit();
        }
        try {
            // Brings the log into the file, as far as no reader needs what is there.
            database_.run("PRAGMA wal_checkpoint(PASSIVE)");
        } catch (const Error&) {
            // The scan is stored, in the log; the next one tries again.
        }
    }

    /// Forgets a scan that did not come to its end.
    void take_back() {
        if (filling_) database_.run("ROLLBACK");
        filling_ = false;
    }

private:
    void check() {
        if (check_history(database_) == HistoryKind::none)
            throw Error{ErrorKind::bad_input, database_.file(), 0, {}, "is an empty history"};
    }

    void prepare() {
        // What SQLite answers is the mode that it is now. Where there can be no write-ahead log (a
        // network file system), the old mode is as safe, and readers wait for a moment.
        ask_for_log();
        database_.run("PRAGMA journal_size_limit = 0;"
                      "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;" +
                      waiting_tables() +
                      // Records wait on the disk, whatever their number; this is in KiB.
                      "PRAGMA main.cache_size = -128; PRAGMA temp.cache_size = -128;");
        std::string columns;
        for (const scan::Field& field : scan::fields())
            columns += fmt::format("{}\"{}\"", columns.empty() ? "" : ", ", field.name);
        insert_.emplace(
            database_.prepare(fmt::format("INSERT INTO waiting ({}) VALUES ({})", columns,
                                          question_marks(scan::fields().size()))));
        insert_gap_.emplace(
            database_.prepare("INSERT INTO waiting_gap VALUES (?, ?, ?, ?, ?)"
                              " ON CONFLICT DO UPDATE SET records = records + excluded.records"));
    }

    /// Of two programs that find a new file and ask at the same time, SQLite refuses one without
    /// waiting, because each has a lock that the other one needs.
    void ask_for_log() {
        const auto until = std::chrono::steady_clock::now() + options_.patience;
        for (;;) {
            try {
                return database_.run("PRAGMA journal_mode = WAL");
            } catch (const Error& error) {
                const bool late = std::chrono::steady_clock::now() >= until;
                if (late || !Database::is_busy(error)) throw;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds{10});
        }
    }

    void add_gap(const Gap& gap, std::int64_t records) {
        insert_gap_->bind(1, escape_text(gap.source));
        insert_gap_->bind(2, escape_text(gap.reason));
        insert_gap_->bind(3, escape_text(gap.remedy));
        insert_gap_->bind(4, std::int64_t{gap.incomplete});
        insert_gap_->bind(5, records);
        insert_gap_->step();
    }

    std::int64_t insert_scan(const Summary& s) {
        Statement statement = database_.prepare(
            "INSERT INTO scan (host, kernel, boot, depth, per, lens, time, elapsed_seconds,"
            " cpu_seconds, chosen, answered, partial, ended, denied, skipped, left_out,"
            " interrupted) VALUES (" +
            question_marks(17) + ")");
        int place = 0;
        for (const std::string_view text :
             {std::string_view{s.host_name}, std::string_view{s.release},
              std::string_view{options_.boot_id}, scan::depth_word(s.depth), scan::per_word(s.per),
              std::string_view{s.lens}})
            statement.bind(++place, escape_text(text));
        for (const double real : {seconds_of(s.begin), s.elapsed_seconds, s.cpu_seconds})
            statement.bind(++place, real);
        for (const std::uint64_t count : {s.chosen, s.answered, s.partial, s.ended, s.denied,
                                          s.skipped, s.left_out, std::uint64_t{s.interrupted}})
            statement.bind(++place, static_cast<std::int64_t>(count));
        statement.step();
        return database_.last_id();
    }

    void insert_records(const Summary& summary, std::int64_t scan) {
        const std::string names = history_names(history_identity());
        Statement processes = database_.prepare(fmt::format(
            "INSERT INTO process (host, boot, {0}) SELECT DISTINCT ?1, ?2, {0} FROM waiting"
            " WHERE NOT EXISTS (SELECT 1 FROM process WHERE {1})",
            names, same_process("process", "waiting")));
        Statement records = database_.prepare(
            fmt::format("INSERT INTO record (scan, process, {0}) SELECT ?3, (SELECT min(process.id)"
                        " FROM process WHERE {1}), {0} FROM waiting ORDER BY waiting.id",
                        history_names(history_figures()), same_process("process", "waiting")));
        const std::string host = escape_text(summary.host_name);
        const std::string boot = escape_text(options_.boot_id);
        for (Statement* statement : {&processes, &records}) {
            statement->bind(1, host);
            statement->bind(2, boot);
        }
        records.bind(3, scan);
        processes.step();
        records.step();
    }

    void insert_totals(const Summary& summary, std::int64_t scan) {
        Statement statement = database_.prepare(fmt::format(
            "INSERT INTO total (scan, {}) VALUES ({})", history_names(history_figures()),
            question_marks(1 + history_figures().size())));
        int place = 1;
        statement.bind(place, scan);
        for (const std::size_t i : history_figures())
            bind_value(statement, ++place, i, value_at(summary.totals, i));
        statement.step();
    }

    Options options_;
    Database database_;
    std::optional<Statement> insert_, insert_gap_;
    bool filling_ = false;
};

History::History(const std::string& file, Use use, Options options)
    : store_(std::make_shared<Store>(file, use, std::move(options))) {}
History::~History() = default;
History::History(History&&) noexcept = default;
History& History::operator=(History&&) noexcept = default;

ScanSink History::sink() {
    return {
        .begin = [store = store_](const Summary&) { store->begin(); },
        .record = [store = store_](const Record& record) { store->record(record); },
        .end = [store = store_](const Summary& summary) { store->end(summary); },
        .finish = [store = store_] { store->take_back(); },
    };
}

std::vector<History::Entry> History::scans() const { return read_scans(store_->database()); }

void History::records(std::int64_t scan,
                      const std::function<void(const scan::Record&)>& take) const {
    read_records(store_->database(), scan, take);
}

} // namespace pagesift::report
