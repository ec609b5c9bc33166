// SPDX-License-Identifier: MIT
#include "report/scan_sinks.hpp"

#include <fmt/format.h>

namespace pagesift::report {

ScanSink make_scan_sink(std::ostream& out, const ReportOptions& options) {
    switch (options.format) {
    case Format::json: return make_scan_json_sink(out, options);
    case Format::ndjson: return make_scan_ndjson_sink(out, options);
    case Format::csv: return make_scan_csv_sink(out, options);
    case Format::openmetrics: return make_scan_openmetrics_sink(out, options);
    case Format::table: break;
    }
    return make_scan_table_sink(out, options);
}

std::string utc_text(std::chrono::system_clock::time_point time) {
    using namespace std::chrono;
    const auto day = floor<days>(time);
    const year_month_day date{day};
    const hh_mm_ss clock{floor<milliseconds>(time - day)};
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                       static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                       clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                       clock.subseconds().count());
}

std::vector<std::size_t> scan_columns(scan::Per per) {
    const bool parts = per == scan::Per::mapping || per == scan::Per::range;
    std::vector<std::size_t> columns;
    for (std::size_t i = 0; i < scan::fields().size(); ++i)
        if (parts || !scan::fields()[i].of_part) columns.push_back(i);
    return columns;
}

const scan::Value& value_at(const scan::Record& record, std::size_t field) {
    static const scan::Value unknown;
    return field < record.values.size() ? record.values[field] : unknown;
}

std::optional<double> number_in(const scan::Value& value) {
    if (const auto* whole = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*whole);
    if (const auto* real = std::get_if<double>(&value)) return *real;
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
    return std::nullopt;
}

void write_value(JsonWriter& json, std::size_t field, const scan::Value& value) {
    const auto* whole = std::get_if<std::uint64_t>(&value);
    if (whole != nullptr && is_address(field))
        json.address(*whole);
    else if (whole != nullptr)
        json.number(*whole);
    else if (const auto* real = std::get_if<double>(&value))
        json.real(*real);
    else if (const auto* flag = std::get_if<bool>(&value))
        json.boolean(*flag);
    else if (const auto* text = std::get_if<std::string>(&value))
        json.text(*text);
    else
        json.null();
}

void write_value(CsvWriter& csv, std::size_t field, const scan::Value& value) {
    const auto* whole = std::get_if<std::uint64_t>(&value);
    if (whole != nullptr && is_address(field))
        csv.address(*whole);
    else if (whole != nullptr)
        csv.number(*whole);
    else if (const auto* real = std::get_if<double>(&value))
        csv.word(fmt::format("{:.6g}", *real));
    else if (const auto* flag = std::get_if<bool>(&value))
        csv.word(*flag ? "true" : "false");
    else if (const auto* text = std::get_if<std::string>(&value))
        csv.text(*text);
    else
        csv.empty();
}

void append_label_text(std::string& out, std::string_view foreign) {
    // escape_text leaves no newline; its own backslashes are backslashes to OpenMetrics.
    append_json_text(out, foreign);
}

} // namespace pagesift::report
