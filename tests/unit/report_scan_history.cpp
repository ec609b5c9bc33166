// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "made_up_scan.hpp"
#include "report/history_read.hpp"
#include "report/sqlite.hpp"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <sqlite3.h>
#include <thread>

using namespace pagesift;
using namespace pagesift::report;
using namespace pagesift::test;

namespace {

namespace fs = std::filesystem;

class Folder {
public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "pagesift-history-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~Folder() { fs::remove_all(path_); }
    std::string file(const std::string& name = "h.db") const { return (path_ / name).string(); }

private:
    fs::path path_;
};

void append(const std::string& file, const MadeUpScan& scan, const std::string& boot = "b1") {
    History history{file, History::Use::append, {.boot_id = boot}};
    const ScanSink sink = history.sink();
    scan.play(sink);
    sink.finish();
}

/// Changes a history as anybody can, with nothing in the way.
void tamper(const std::string& file, const std::string& sql) {
    sqlite3* handle = nullptr;
    REQUIRE(sqlite3_open(file.c_str(), &handle) == SQLITE_OK);
    const int code = sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr);
    CHECK_MESSAGE(code == SQLITE_OK, sqlite3_errmsg(handle));
    sqlite3_close(handle);
}

/// Reads all there is, and says what it was refused with.
std::string read_all(const std::string& file) {
    const auto error = error_of([&] {
        const History history{file, History::Use::read};
        for (const auto& entry : history.scans())
            history.records(entry.id, [](const scan::Record&) {});
    });
    return error ? error->what() : "";
}

std::int64_t number(const std::string& file, const std::string& sql) {
    Database database{file, Database::Use::read, std::chrono::seconds{5}};
    return database.number(sql);
}

} // namespace

TEST_CASE("history: what was appended is read back, value by value") {
    const Folder folder;
    MadeUpScan scan = typical_scan();
    scan.records[0].set("comm", hostile_name);
    scan.records[0].set("rss_bytes", {});
    scan.records[0].set("start", std::uint64_t{0xffffffffff600000});
    scan.summary.gaps.push_back({"kpageflags", {}, "hidden", "root", true});
    scan.summary.denied = 4;
    append(folder.file(), scan);
    append(folder.file(), typical_scan());

    const History history{folder.file(), History::Use::read};
    const auto scans = history.scans();
    REQUIRE(scans.size() == 2);
    CHECK(scans[0].summary.host_name == "made-up");
    CHECK(scans[0].summary.denied == 4);
    CHECK(scans[0].boot_id == "b1");
    CHECK(scans[0].summary.depth == scan::Depth::pages);
    CHECK(scans[0].summary.gaps == scan.summary.gaps);
    CHECK(std::chrono::abs(scans[0].summary.begin - scan.summary.begin) <
          std::chrono::milliseconds{1});
    std::vector<scan::Record> records;
    history.records(scans[0].id, [&](const scan::Record& r) { records.push_back(r); });
    REQUIRE(records.size() == scan.records.size());
    for (std::size_t i = 0; i < records.size(); ++i)
        for (std::size_t f = 0; f < scan::fields().size(); ++f)
            CHECK_MESSAGE(records[i].values[f] == scan.records[i].values[f],
                          scan::fields()[f].name);
    for (std::size_t f = 0; f < scan::fields().size(); ++f)
        if (scan::fields()[f].additive)
            CHECK_MESSAGE(scans[1].summary.totals.values[f] ==
                              typical_scan().summary.totals.values[f],
                          scan::fields()[f].name);
}

TEST_CASE("history: an address that is none is unknown") {
    const Folder folder;
    MadeUpScan scan = typical_scan();
    scan.records[0].set("start", std::uint64_t{0x7f0000001000});
    append(folder.file(), scan);
    const auto start_when = [&](const std::string& text) {
        Database{folder.file(), Database::Use::write, std::chrono::seconds{5}}.run(
            "UPDATE record SET start = '" + text + "' WHERE start IS NOT NULL");
        const History history{folder.file(), History::Use::read};
        scan::Value start;
        history.records(1, [&](const scan::Record& r) {
            if (scan::is_known(r.at("start"))) start = r.at("start");
        });
        return start;
    };
    CHECK(start_when("0x7f0000002000") == scan::Value{std::uint64_t{0x7f0000002000}});
    for (const char* text : {"", "0x", "7f00", "0x12g", "0xfffffffffffffffff", "-1"})
        CHECK(start_when(text) == scan::Value{});
}

TEST_CASE("history: every escaped text comes back") {
    for (const std::string& text : {hostile_name, std::string{"\\x41"}, std::string{"\\u{41}"},
                                    std::string{"\\"}, std::string{"\xc2\x85\xe2\x80\x8b"}})
        CHECK(unescape_text(escape_text(text)) == text);
    CHECK(unescape_text("\\x4") == "\\x4");
    CHECK(unescape_text("\\u{41") == "\\u{41");
}

TEST_CASE("history: a process is kept once, and another boot's is another one") {
    const Folder folder;
    append(folder.file(), typical_scan());
    append(folder.file(), typical_scan());
    CHECK(number(folder.file(), "SELECT count(*) FROM process") == 3);
    CHECK(number(folder.file(), "SELECT count(*) FROM record") == 6);
    append(folder.file(), typical_scan(), "b2");
    CHECK(number(folder.file(), "SELECT count(*) FROM process") == 6);
    MadeUpScan groups = typical_scan();
    groups.summary.per = scan::Per::comm;
    for (scan::Record& record : groups.records) {
        record.set("pid", {});
        record.set("start_time_ticks", {});
        record.set("exe", {});
        record.set("uid", {});
    }
    append(folder.file(), groups, "b2");
    append(folder.file(), groups, "b2");
    CHECK(number(folder.file(), "SELECT count(*) FROM process WHERE pid IS NULL") == 2);
}

TEST_CASE("history: the views show the latest scan, and what grew") {
    const Folder folder;
    MadeUpScan scan = typical_scan();
    append(folder.file(), scan);
    for (scan::Record& record : scan.records)
        record.set("rss_bytes", std::get<std::uint64_t>(record.at("rss_bytes")) + 4096);
    scan.records[2].set("pss_bytes", {});
    append(folder.file(), scan);
    const std::string& file = folder.file();
    CHECK(number(file, "SELECT count(*) FROM latest") == 3);
    CHECK(number(file, "SELECT rss_bytes FROM latest WHERE pid = 2") ==
          static_cast<std::int64_t>(std::get<std::uint64_t>(scan.records[1].at("rss_bytes"))));
    CHECK(number(file, "SELECT sum(rss_bytes) FROM growth") == 3 * 4096);
    CHECK(number(file, "SELECT swap_bytes FROM growth WHERE pid = 1") == 0);
    CHECK(number(file, "SELECT scans FROM growth WHERE pid = 1") == 2);
    CHECK(number(file, "SELECT count(*) FROM growth WHERE pss_bytes IS NULL") == 1);
    append(folder.file(), typical_scan(), "b2");
    CHECK(number(file, "SELECT count(*) FROM growth") == 3);
}

TEST_CASE("history: a scan that does not come to its end leaves nothing") {
    const Folder folder;
    append(folder.file(), typical_scan());
    {
        History history{folder.file(), History::Use::append};
        const ScanSink sink = history.sink();
        sink.begin({});
        sink.record(full_record(9, "lost"));
        CHECK(number(folder.file(), "SELECT count(*) FROM record") == 3);
        sink.begin({}); // another scan begins instead
        sink.record(full_record(10, "kept"));
        sink.end(typical_scan().summary);
        sink.begin({});
        sink.record(full_record(11, "lost"));
    }
    CHECK(number(folder.file(), "SELECT count(*) FROM record") == 4);
    CHECK(number(folder.file(), "SELECT count(*) FROM process WHERE comm = 'lost'") == 0);
}

TEST_CASE("history: reading goes on while a scan is stored, and writers take turns") {
    const Folder folder;
    append(folder.file(), typical_scan());
    Database writer{folder.file(), Database::Use::write, std::chrono::seconds{5}};
    {
        Transaction transaction{writer};
        writer.run("DELETE FROM record");
        CHECK(number(folder.file(), "SELECT count(*) FROM record") == 3);
        History hasty{
            folder.file(), History::Use::append, {.patience = std::chrono::milliseconds{20}}};
        const ScanSink sink = hasty.sink();
        sink.begin({});
        const Error refused = error_of([&] { sink.end(typical_scan().summary); }).value();
        CHECK(std::string{refused.what()}.find("locked") != std::string::npos);
    }
    std::vector<std::thread> threads;
    const Folder fresh;
    for (int i = 0; i < 8; ++i) threads.emplace_back([&] { append(fresh.file(), typical_scan()); });
    for (std::thread& thread : threads) thread.join();
    CHECK(number(fresh.file(), "SELECT count(*) FROM scan") == 8);
    CHECK(number(fresh.file(), "SELECT count(*) FROM process") == 3);
}

TEST_CASE("history: other files are refused, and later versions") {
    const Folder folder;
    CHECK(error_of([&] { History h(folder.file(), History::Use::read); }).value().kind() ==
          ErrorKind::bad_input);
    std::ofstream{folder.file("text")} << std::string(5000, 'x');
    for (const auto use : {History::Use::read, History::Use::append})
        CHECK(error_of([&] { History h(folder.file("text"), use); }).value().kind() ==
              ErrorKind::bad_input);
    {
        Database other{folder.file("other"), Database::Use::write, std::chrono::seconds{1}};
        other.run("CREATE TABLE mine (x)");
    }
    CHECK(error_of([&] { History h(folder.file("other"), History::Use::append); }).value().kind() ==
          ErrorKind::bad_input);
    append(folder.file(), typical_scan());
    {
        Database later{folder.file(), Database::Use::write, std::chrono::seconds{1}};
        later.run("PRAGMA user_version = 2");
    }
    CHECK(std::string{
              error_of([&] { History h(folder.file(), History::Use::append); }).value().what()}
              .find("version 2") != std::string::npos);
    CHECK(error_of([&] { History h(folder.file("no/such/folder"), History::Use::append); })
              .value()
              .errnum() == ENOENT);
    std::ofstream{folder.file("empty")};
    append(folder.file("empty"), typical_scan());
    CHECK(number(folder.file("empty"), "SELECT count(*) FROM scan") == 1);
}

TEST_CASE("history: fields that an older program did not have are added") {
    const Folder folder;
    append(folder.file(), typical_scan());
    {
        Database older{folder.file(), Database::Use::write, std::chrono::seconds{1}};
        older.run("DROP VIEW latest; DROP VIEW growth;"
                  "ALTER TABLE record DROP COLUMN swap_pss_bytes;"
                  "ALTER TABLE total DROP COLUMN swap_pss_bytes");
    }
    std::size_t unknown = 0;
    History{folder.file(), History::Use::read}.records(1, [&](const scan::Record& record) {
        unknown += std::holds_alternative<std::monostate>(record.at("swap_pss_bytes"));
    });
    CHECK(unknown == 3);
    append(folder.file(), typical_scan());
    CHECK(number(folder.file(), "SELECT count(swap_pss_bytes) FROM record") == 3);
    CHECK(number(folder.file(), "SELECT count(*) FROM latest WHERE swap_pss_bytes > 0") == 3);
}

TEST_CASE("history: programs that somebody has put into one do not run") {
    const Folder folder;
    append(folder.file(), typical_scan());
    tamper(folder.file(), "CREATE TRIGGER more AFTER INSERT ON scan BEGIN"
                          " INSERT INTO gap SELECT new.id, 'made up', '', '', 0, 0; END;");
    append(folder.file(), typical_scan());
    CHECK(number(folder.file(), "SELECT count(*) FROM scan") == 2);
    CHECK(number(folder.file(), "SELECT count(*) FROM gap WHERE source = 'made up'") == 0);
}

TEST_CASE("history: a view in place of a table is refused, and not read for ever") {
    static constexpr const char* disguises[] = {
        "DROP TABLE gap; CREATE VIEW gap AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1"
        " FROM n) SELECT 1 AS scan, 'x' AS source, 'y' AS reason, '' AS remedy, x AS incomplete"
        " FROM n",
        "ALTER TABLE record RENAME TO other; CREATE VIEW Record AS SELECT * FROM other",
        "DROP TABLE gap; CREATE VIRTUAL TABLE gap USING fts5(source, reason, remedy)",
    };
    for (const char* sql : disguises) {
        const Folder folder;
        append(folder.file(), typical_scan());
        tamper(folder.file(), sql);
        CHECK(read_all(folder.file()).find("has a view for a table") != std::string::npos);
        CHECK(error_of([&] { append(folder.file(), typical_scan()); }).has_value());
    }
}

TEST_CASE("history: values that cannot be are no danger, and long ones are refused") {
    const Folder folder;
    append(folder.file(), typical_scan());
    tamper(folder.file(), "UPDATE scan SET time = 9e999, elapsed_seconds = -9e999, chosen = -1,"
                          " host = x'ff00fe', depth = 7, per = 'nothing';"
                          "UPDATE record SET rss_bytes = 'text', pss_bytes = -1;"
                          "UPDATE process SET pid = 1e300, comm = NULL");
    CHECK(read_all(folder.file()).empty());
    tamper(folder.file(), "UPDATE process SET comm = hex(zeroblob(2000000))");
    CHECK(read_all(folder.file()).find("too big") != std::string::npos);
}

TEST_CASE("history: what a damaged one says of itself cannot reach a terminal") {
    const Folder folder;
    append(folder.file(), typical_scan());
    tamper(folder.file(), "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql ="
                          " 'CREATE TABLE gap (\x1b[31m' WHERE name = 'gap'");
    const std::string said = read_all(folder.file());
    CHECK_FALSE(said.empty());
    CHECK(said.find('\x1b') == std::string::npos);
}
