// SPDX-License-Identifier: MIT
#include "report/json_fields.hpp"
#include "report/scan_sinks.hpp"

#include <ostream>

namespace pagesift::report {
namespace {

using scan::Record;
using scan::Summary;

void write_record(JsonWriter& json, const Record& record, std::span<const std::size_t> columns) {
    for (const std::size_t i : columns) {
        json.key(scan::fields()[i].name);
        write_value(json, i, value_at(record, i));
    }
    json.list("gaps", record.gaps, write_gap);
}

void write_origin(JsonWriter& json, std::string_view host, std::string_view time) {
    json.key("host");
    json.text_or_null(host);
    json.key("time");
    json.word(time);
}

/// What a scan was, without where and when.
void write_summary(JsonWriter& json, const Summary& summary) {
    json.key("kernel");
    json.text_or_null(summary.release);
    json.key("depth");
    json.word(scan::depth_word(summary.depth));
    json.key("per");
    json.word(scan::per_word(summary.per));
    json.key("lens");
    json.text_or_null(summary.lens);
    json.key("elapsed_seconds");
    json.real(summary.elapsed_seconds);
    json.key("cpu_seconds");
    json.real(summary.cpu_seconds);
    json.field("chosen", summary.chosen);
    json.field("answered", summary.answered);
    json.field("partial", summary.partial);
    json.field("ended", summary.ended);
    json.field("denied", summary.denied);
    json.field("skipped", summary.skipped);
    json.field("left_out", summary.left_out);
    json.key("interrupted");
    json.boolean(summary.interrupted);
}

/// An array of scans, so that several in one output are still one document.
class ScanJsonSink {
public:
    explicit ScanJsonSink(std::ostream& out) : out_(out), json_(out_) { json_.begin_array(); }

    void begin(const Summary& summary) {
        columns_ = scan_columns(summary.per);
        json_.new_line();
        json_.begin_object();
        json_.key("schema");
        json_.word(scan_schema);
        json_.key("records");
        json_.begin_array();
    }

    void record(const Record& record) {
        json_.line([&] { write_record(json_, record, columns_); });
    }

    void end(const Summary& summary) {
        json_.end_array();
        json_.new_line();
        json_.key("totals");
        json_.begin_object();
        write_record(json_, summary.totals, scan_columns(scan::Per::process));
        json_.end_object();
        json_.new_line();
        json_.key("scan");
        json_.begin_object();
        write_origin(json_, summary.host_name, utc_text(summary.begin));
        write_summary(json_, summary);
        json_.end_object();
        json_.new_line();
        json_.list("gaps", summary.gaps, write_gap);
        json_.end_object();
        out_.flush();
    }

    void finish() {
        json_.end_array();
        out_.put('\n');
        out_.flush();
    }

private:
    Output out_;
    JsonWriter json_;
    std::vector<std::size_t> columns_;
};

/// A line a record. Host and time are on each, so that the lines of many machines and days can be
/// put into one table.
class ScanNdjsonSink {
public:
    explicit ScanNdjsonSink(std::ostream& out) : out_(out) {}

    void begin(const Summary& summary) {
        columns_ = scan_columns(summary.per);
        word_ = scan::per_word(summary.per);
        host_ = summary.host_name;
        time_ = utc_text(summary.begin);
    }

    void record(const Record& record) {
        line(word_, [&](JsonWriter& json) { write_record(json, record, columns_); });
    }

    void end(const Summary& summary) {
        line("totals", [&](JsonWriter& json) {
            write_record(json, summary.totals, scan_columns(scan::Per::process));
        });
        line("scan", [&](JsonWriter& json) {
            write_summary(json, summary);
            json.list("gaps", summary.gaps, write_gap);
        });
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    template <class Write> void line(std::string_view what, Write&& write) {
        write_line(out_, scan_schema, what, [&](JsonWriter& json) {
            write_origin(json, host_, time_);
            write(json);
        });
    }

    Output out_;
    std::vector<std::size_t> columns_;
    std::string_view word_;
    std::string host_, time_;
};

} // namespace

ScanSink make_scan_json_sink(std::ostream& out, const ReportOptions&) {
    return bind_scan_sink(std::make_shared<ScanJsonSink>(out));
}

ScanSink make_scan_ndjson_sink(std::ostream& out, const ReportOptions&) {
    return bind_scan_sink(std::make_shared<ScanNdjsonSink>(out));
}

} // namespace pagesift::report
