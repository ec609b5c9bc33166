// SPDX-License-Identifier: MIT
#include "report/scan_sinks.hpp"

#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

/// One table as RFC 4180 describes it: a header, CRLF line ends, unknown as an empty field. Text is
/// escaped as everywhere and always quoted, so that empty text is not taken for unknown.
class ScanCsvSink {
public:
    explicit ScanCsvSink(std::ostream& out) : out_(out) {}

    void begin(const scan::Summary& summary) {
        if (columns_.empty()) write_header(summary.per);
        host_ = quoted(summary.host_name);
        time_ = utc_text(summary.begin);
    }

    void record(const scan::Record& record) {
        out_.put(host_);
        out_.put(',');
        out_.put(time_);
        for (const std::size_t i : columns_) {
            out_.put(',');
            value(i, value_at(record, i));
        }
        out_.put("\r\n");
        out_.flush_if_full();
    }

    void end(const scan::Summary&) { out_.flush(); }

    void finish() {
        if (columns_.empty()) write_header(scan::Per::process);
        out_.flush();
    }

private:
    void write_header(scan::Per per) {
        columns_ = scan_columns(per);
        out_.put("host,time");
        for (const std::size_t i : columns_) {
            out_.put(',');
            out_.put(scan::fields()[i].name);
        }
        out_.put("\r\n");
    }

    void value(std::size_t field, const scan::Value& value) {
        const auto* whole = std::get_if<std::uint64_t>(&value);
        if (whole != nullptr && is_address(field))
            out_.put(fmt::format("0x{:x}", *whole));
        else if (whole != nullptr)
            out_.number(*whole);
        else if (const auto* real = std::get_if<double>(&value))
            out_.put(fmt::format("{:.6g}", *real));
        else if (const auto* flag = std::get_if<bool>(&value))
            out_.put(*flag ? "true" : "false");
        else if (const auto* text = std::get_if<std::string>(&value))
            out_.put(quoted(*text));
    }

    static std::string quoted(std::string_view foreign) {
        std::string text = "\"";
        append_csv_text(text, foreign);
        return text += '"';
    }

    Output out_;
    std::vector<std::size_t> columns_;
    std::string host_, time_;
};

} // namespace

ScanSink make_scan_csv_sink(std::ostream& out, const ReportOptions&) {
    return bind_scan_sink(std::make_shared<ScanCsvSink>(out));
}

} // namespace pagesift::report
