// SPDX-License-Identifier: MIT
#include "report/history_read.hpp"

#include "report/history_schema.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

using scan::Record;
using scan::Unit;

/// Where the clock ends, in the year 2262: what a damaged history says has to fit into it.
constexpr double last_second = 9'223'372'036.0;

template <class Number = std::uint32_t> std::optional<Number> hexadecimal(std::string_view digits) {
    Number number = 0;
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, number, 16);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return number;
}

void append_utf8(std::string& out, std::uint32_t c) {
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (c < 0x80) return put(c);
    if (c < 0x800) {
        put(0xc0 | (c >> 6));
    } else {
        if (c < 0x10000) {
            put(0xe0 | (c >> 12));
        } else {
            put(0xf0 | (c >> 18));
            put(0x80 | ((c >> 12) & 0x3f));
        }
        put(0x80 | ((c >> 6) & 0x3f));
    }
    put(0x80 | (c & 0x3f));
}

scan::Value value_of(const Statement& row, int column, Unit unit) {
    if (row.is_null(column)) return {};
    switch (unit) {
    case Unit::text: return unescape_text(row.text(column));
    case Unit::address: {
        const std::string text = row.text(column);
        const auto address = text.starts_with("0x")
                                 ? hexadecimal<std::uint64_t>(std::string_view{text}.substr(2))
                                 : std::nullopt;
        return address ? scan::Value{*address} : scan::Value{};
    }
    case Unit::seconds:
    case Unit::share: return row.real(column);
    case Unit::flag: return row.integer(column) != 0;
    default: return static_cast<std::uint64_t>(row.integer(column));
    }
}

void take_values(Record& record, const Statement& row, const std::vector<std::size_t>& fields,
                 int first) {
    for (const std::size_t i : fields)
        record.values[i] = value_of(row, first++, scan::fields()[i].unit);
}

/// "table.a, table.b": the fields that this history has, which are left in @p fields.
std::string selected(Database& database, const std::string& table,
                     std::vector<std::size_t>& fields) {
    const auto there = columns_of(database, table);
    std::erase_if(fields, [&](std::size_t i) { return !there.contains(scan::fields()[i].name); });
    return history_names(fields, table + '.');
}

Record read_totals(Database& database, std::int64_t scan) {
    auto fields = history_figures();
    const std::string names = selected(database, "total", fields);
    Statement row = database.prepare(fmt::format("SELECT {} FROM total WHERE scan = ?", names));
    row.bind(1, scan);
    Record totals;
    if (row.step()) take_values(totals, row, fields, 0);
    return totals;
}

std::vector<Gap> read_gaps(Database& database, std::int64_t scan) {
    Statement row = database.prepare("SELECT source, reason, remedy, incomplete FROM gap"
                                     " WHERE scan = ? ORDER BY rowid");
    row.bind(1, scan);
    std::vector<Gap> gaps;
    while (row.step())
        gaps.push_back({unescape_text(row.text(0)),
                        {},
                        unescape_text(row.text(1)),
                        unescape_text(row.text(2)),
                        row.integer(3) != 0});
    return gaps;
}

scan::Summary summary_of(const Statement& row) {
    scan::Summary s;
    s.host_name = unescape_text(row.text(1));
    s.release = unescape_text(row.text(2));
    s.lens = unescape_text(row.text(3));
    const std::string depth = row.text(4), per = row.text(5);
    for (const auto d : {scan::Depth::totals, scan::Depth::pages, scan::Depth::content})
        if (depth == scan::depth_word(d)) s.depth = d;
    for (const auto p : {scan::Per::process, scan::Per::mapping, scan::Per::range,
                         scan::Per::cgroup, scan::Per::comm})
        if (per == scan::per_word(p)) s.per = p;
    s.begin = std::chrono::system_clock::time_point{
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::duration<double>{std::clamp(row.real(6), 0.0, last_second)})};
    s.elapsed_seconds = row.real(7);
    s.cpu_seconds = row.real(8);
    int column = 9;
    for (std::uint64_t* count :
         {&s.chosen, &s.answered, &s.partial, &s.ended, &s.denied, &s.skipped, &s.left_out})
        *count = static_cast<std::uint64_t>(row.integer(column++));
    s.interrupted = row.integer(column) != 0;
    return s;
}

} // namespace

std::string unescape_text(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
        const std::string_view rest = text.substr(i);
        const std::size_t brace = rest.starts_with("\\u{") ? rest.find('}') : rest.npos;
        const auto byte = rest.starts_with("\\x") && rest.size() >= 4
                              ? hexadecimal(rest.substr(2, 2))
                              : std::nullopt;
        if (rest.starts_with("\\\\")) {
            out.push_back('\\');
            i += 2;
        } else if (byte) {
            out.push_back(static_cast<char>(*byte));
            i += 4;
        } else if (brace != rest.npos) {
            append_utf8(out, hexadecimal(rest.substr(3, brace - 3)).value_or(0xfffd));
            i += brace + 1;
        } else {
            out.push_back(text[i++]);
        }
    }
    return out;
}

std::vector<History::Entry> read_scans(Database& database) {
    Statement row = database.prepare(
        "SELECT id, host, kernel, lens, depth, per, time, elapsed_seconds, cpu_seconds, chosen,"
        " answered, partial, ended, denied, skipped, left_out, interrupted, boot FROM scan ORDER BY"
        " id");
    std::vector<History::Entry> scans;
    while (row.step()) {
        scans.push_back({row.integer(0), summary_of(row), unescape_text(row.text(17))});
        scans.back().summary.totals = read_totals(database, scans.back().id);
        scans.back().summary.gaps = read_gaps(database, scans.back().id);
    }
    return scans;
}

void read_records(Database& database, std::int64_t scan,
                  const std::function<void(const Record&)>& take) {
    auto identity = history_identity();
    auto figures = history_figures();
    const std::string first = selected(database, "process", identity);
    const std::string then = selected(database, "record", figures);
    Statement row = database.prepare(
        fmt::format("SELECT {}, {} FROM record JOIN process ON process.id = record.process"
                    " WHERE record.scan = ? ORDER BY record.id",
                    first, then));
    row.bind(1, scan);
    while (row.step()) {
        Record record;
        take_values(record, row, identity, 0);
        take_values(record, row, figures, static_cast<int>(identity.size()));
        take(record);
    }
}

} // namespace pagesift::report
