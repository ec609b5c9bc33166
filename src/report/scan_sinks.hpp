// SPDX-License-Identifier: MIT
// One sink of scans a format; make_scan_sink chooses. What they share is below.
#pragma once

#include "pagesift/report.hpp"
#include "report/csv_writer.hpp"
#include "report/json_writer.hpp"

#include <memory>

namespace pagesift::report {

inline constexpr std::string_view scan_schema = "pagesift.scan/1";

ScanSink make_scan_json_sink(std::ostream& out, const ReportOptions& options);
ScanSink make_scan_ndjson_sink(std::ostream& out, const ReportOptions& options);
ScanSink make_scan_csv_sink(std::ostream& out, const ReportOptions& options);
ScanSink make_scan_table_sink(std::ostream& out, const ReportOptions& options);
ScanSink make_scan_openmetrics_sink(std::ostream& out, const ReportOptions& options);

template <class Impl> ScanSink bind_scan_sink(std::shared_ptr<Impl> impl) {
    return {
        .begin = [impl](const scan::Summary& summary) { impl->begin(summary); },
        .record = [impl](const scan::Record& record) { impl->record(record); },
        .end = [impl](const scan::Summary& summary) { impl->end(summary); },
        .finish = [impl] { impl->finish(); },
    };
}

/// "2026-11-21T11:40:56.123Z"
std::string utc_text(std::chrono::system_clock::time_point time);

/// Places in scan::fields() of what a record is made of: where it is about a part of a process, the
/// part as well.
std::vector<std::size_t> scan_columns(scan::Per per);
/// Of a record that has not as many values as there are fields, the rest is unknown.
const scan::Value& value_at(const scan::Record& record, std::size_t field);
/// Whether its numbers are addresses, which every format writes in hexadecimal.
inline bool is_address(std::size_t field) {
    return scan::fields()[field].unit == scan::Unit::address;
}
/// The number in a value; empty: unknown, or text.
std::optional<double> number_in(const scan::Value& value);

/// A value of @p field, addresses in hexadecimal; unknown is null, and an empty cell.
void write_value(JsonWriter& json, std::size_t field, const scan::Value& value);
void write_value(CsvWriter& csv, std::size_t field, const scan::Value& value);

/// Foreign text as the inside of a label of OpenMetrics.
void append_label_text(std::string& out, std::string_view foreign);

} // namespace pagesift::report
