// SPDX-License-Identifier: MIT
#include "report/sqlite.hpp"

#include <cerrno>
#include <filesystem>
#include <fmt/format.h>
#include <sqlite3.h>
#include <utility>

namespace pagesift::report {
namespace {

/// A name that SQLite takes for a file, whatever it looks like (":memory:").
std::string as_path(const std::string& file) {
    return file.starts_with('/') || file.starts_with("./") ? file : "./" + file;
}

std::string as_uri(const std::string& file) {
    std::string uri = "file:";
    for (const char c : as_path(file)) {
        const auto byte = static_cast<unsigned char>(c);
        const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                           (byte >= '0' && byte <= '9') || c == '/' || c == '.' || c == '-' ||
                           c == '_';
        uri += plain ? std::string(1, c) : fmt::format("%{:02x}", byte);
    }
    return uri;
}

/// A name has a few KiB at most, and a record a hundred numbers beside it.
constexpr int longest_value = 1 << 20;

constexpr std::string_view busy_hint = "another process keeps it locked; try again";

int errno_of(int code, int system) {
    switch (code & 0xff) {
    case SQLITE_FULL: return ENOSPC;
    case SQLITE_NOMEM: return ENOMEM;
    case SQLITE_PERM:
    case SQLITE_AUTH: return EACCES;
    case SQLITE_READONLY: return system != 0 ? system : EROFS;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR: return system;
    default: return 0;
    }
}

} // namespace

void Database::Close::operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
void Statement::Finalise::operator()(sqlite3_stmt* handle) const { sqlite3_finalize(handle); }

void Database::fail(int code) const {
    const int system = handle_ ? sqlite3_system_errno(handle_.get()) : 0;
    const int number = errno_of(code, system);
    const std::string detail =
        number != 0 ? ""
                    : escape_text(handle_ ? sqlite3_errmsg(handle_.get()) : sqlite3_errstr(code));
    switch (code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_TOOBIG:
    case SQLITE_CORRUPT: throw Error{ErrorKind::bad_input, file_, 0, {}, detail};
    case SQLITE_BUSY: throw Error{ErrorKind::failed, file_, 0, std::string{busy_hint}, detail};
    default: break;
    }
    const bool denied = number == EACCES || number == EPERM || number == EROFS;
    throw Error{denied ? ErrorKind::denied : ErrorKind::failed, file_, number, {}, detail};
}

bool Database::is_busy(const Error& error) { return error.hint() == busy_hint; }

void Database::open(const std::string& name, int flags) {
    sqlite3* handle = nullptr;
    const int code = sqlite3_open_v2(name.c_str(), &handle, flags | SQLITE_OPEN_EXRESCODE, nullptr);
    handle_.reset(handle);
    if (code != SQLITE_OK) fail(code);
    distrust();
}

/// Whoever wrote the file may have written anything: sqlite.org/security.html, "Untrusted SQLite
/// Database Files". No program of it runs (triggers) or reaches a function with effects, no page of
/// it is believed unchecked, and no value of it takes much memory.
void Database::distrust() {
    for (const auto& [option, on] : {std::pair{SQLITE_DBCONFIG_DEFENSIVE, 1},
                                     {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
                                     {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}})
        sqlite3_db_config(handle_.get(), option, on, nullptr);
    sqlite3_limit(handle_.get(), SQLITE_LIMIT_LENGTH, longest_value);
    sqlite3_exec(handle_.get(), "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0", nullptr,
                 nullptr, nullptr);
}

Database::Database(const std::string& file, Use use, std::chrono::milliseconds patience)
    : file_(file) {
    namespace fs = std::filesystem;
    if (file.empty()) throw Error{ErrorKind::usage, "history", 0, {}, "needs the name of a file"};
    std::error_code ignored;
    if (use == Use::write) {
        open(as_path(file), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    } else {
        if (!fs::exists(file, ignored)) throw Error{ErrorKind::bad_input, file, ENOENT};
        open(as_path(file), SQLITE_OPEN_READONLY);
        // A file that was brought to where nothing can be written lacks its companions, and
        // nobody can be writing to it.
        const bool alone = !fs::exists(file + "-wal", ignored);
        if (alone && sqlite3_exec(handle_.get(), "SELECT 1 FROM sqlite_master", nullptr, nullptr,
                                  nullptr) == SQLITE_CANTOPEN)
            open(as_uri(file) + "?immutable=1", SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
    }
    sqlite3_busy_timeout(handle_.get(), static_cast<int>(patience.count()));
    if (use != Use::write) return;
    // The last writer to leave would lock out readers for a moment, and delete the companions,
    // which who may read the file but not write to its folder could not make again.
    sqlite3_db_config(handle_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
}

void Database::run(const std::string& sql) {
    const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) fail(code);
}

Statement Database::prepare(const std::string& sql) {
    sqlite3_stmt* handle = nullptr;
    const int code = sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                        &handle, nullptr);
    if (code != SQLITE_OK) fail(code);
    return {*this, handle};
}

std::int64_t Database::number(const std::string& sql) {
    Statement statement = prepare(sql);
    return statement.step() ? statement.integer(0) : 0;
}

std::int64_t Database::last_id() const { return sqlite3_last_insert_rowid(handle_.get()); }

Transaction::~Transaction() {
    if (done_) return;
    try {
        database_->run("ROLLBACK");
    } catch (const Error&) {
        // SQLite has already taken it back, which is what made the transaction fail.
    }
}

void Statement::bind(int place, std::int64_t number) {
    sqlite3_bind_int64(handle_.get(), place, number);
}
void Statement::bind(int place, double number) {
    sqlite3_bind_double(handle_.get(), place, number);
}
void Statement::bind(int place, std::string_view text) {
    sqlite3_bind_text(handle_.get(), place, text.data(), static_cast<int>(text.size()),
                      SQLITE_TRANSIENT);
}
void Statement::bind_null(int place) { sqlite3_bind_null(handle_.get(), place); }

bool Statement::step() {
    const int code = sqlite3_step(handle_.get());
    if (code == SQLITE_ROW) return true;
    sqlite3_reset(handle_.get());
    if (code != SQLITE_DONE) database_->fail(code);
    return false;
}

bool Statement::is_null(int column) const {
    return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL;
}
std::int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(handle_.get(), column);
}
double Statement::real(int column) const { return sqlite3_column_double(handle_.get(), column); }
std::string Statement::text(int column) const {
    const unsigned char* begin = sqlite3_column_text(handle_.get(), column);
    const auto bytes = static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column));
    std::string text;
    for (std::size_t i = 0; begin != nullptr && i < bytes; ++i)
        text.push_back(static_cast<char>(begin[i]));
    return text;
}

} // namespace pagesift::report
