// SPDX-License-Identifier: MIT
// As much of SQLite as a history needs. Every refusal becomes an Error that names the file.
#pragma once

#include "pagesift/base.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace pagesift::report {

class Statement;

class Database {
public:
    enum class Use { write, read };
    /// Write: made where there is none. Throws Error.
    Database(const std::string& file, Use use, std::chrono::milliseconds patience);

    /// One statement or several, without values.
    void run(const std::string& sql);
    Statement prepare(const std::string& sql);
    /// The first column of the first row as a number; 0: there is none.
    std::int64_t number(const std::string& sql);
    std::int64_t last_id() const;
    const std::string& file() const { return file_; }
    /// Whether @p error, which one of these threw, says that another connection has a lock.
    static bool is_busy(const Error& error);
    /// Throws what went wrong last.
    [[noreturn]] void fail(int code) const;

private:
    struct Close {
        void operator()(sqlite3* handle) const;
    };
    void open(const std::string& name, int flags);
    void distrust();

    std::string file_;
    std::unique_ptr<sqlite3, Close> handle_;
};

/// Begins when made, and takes everything back unless it is committed.
class Transaction {
public:
    explicit Transaction(Database& database) : database_(&database) {
        // The lock is taken before anything is read, so that nothing has to be done twice.
        database.run("BEGIN IMMEDIATE");
    }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction();
    void commit() {
        database_->run("COMMIT");
        done_ = true;
    }

private:
    Database* database_;
    bool done_ = false;
};

/// Values are numbered from 1, columns from 0.
class Statement {
public:
    Statement(Database& database, sqlite3_stmt* handle) : database_(&database), handle_(handle) {}

    void bind(int place, std::int64_t number);
    void bind(int place, double number);
    void bind(int place, std::string_view text);
    void bind_null(int place);
    /// To the next row; false: there is none, and the statement can be used again.
    bool step();

    bool is_null(int column) const;
    std::int64_t integer(int column) const;
    double real(int column) const;
    std::string text(int column) const;

private:
    struct Finalise {
        void operator()(sqlite3_stmt* handle) const;
    };
    Database* database_;
    std::unique_ptr<sqlite3_stmt, Finalise> handle_;
};

} // namespace pagesift::report
