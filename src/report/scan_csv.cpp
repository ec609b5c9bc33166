// SPDX-License-Identifier: MIT
#include "report/scan_sinks.hpp"

namespace pagesift::report {
namespace {

/// One table.
class ScanCsvSink {
public:
    explicit ScanCsvSink(std::ostream& out) : csv_(out) {}

    void begin(const scan::Summary& summary) {
        if (columns_.empty()) write_header(summary.per);
        host_ = summary.host_name;
        time_ = utc_text(summary.begin);
    }

    void record(const scan::Record& record) {
        csv_.text(host_);
        csv_.word(time_);
        for (const std::size_t i : columns_) write_value(csv_, i, value_at(record, i));
        csv_.end_row();
    }

    void end(const scan::Summary&) { csv_.flush(); }

    void finish() {
        if (columns_.empty()) write_header(scan::Per::process);
        csv_.flush();
    }

private:
    void write_header(scan::Per per) {
        columns_ = scan_columns(per);
        std::string names = "host,time";
        for (const std::size_t i : columns_) names += ',' + scan::fields()[i].name;
        csv_.header(names);
    }

    CsvWriter csv_;
    std::vector<std::size_t> columns_;
    std::string host_, time_;
};

} // namespace

ScanSink make_scan_csv_sink(std::ostream& out, const ReportOptions&) {
    return bind_scan_sink(std::make_shared<ScanCsvSink>(out));
}

} // namespace pagesift::report
