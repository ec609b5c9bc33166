// SPDX-License-Identifier: MIT
// Ages for programs: json, ndjson and csv.
#include "report/cold_sinks.hpp"
#include "report/csv_writer.hpp"
#include "report/json_fields.hpp"
#include "report/scan_sinks.hpp"

#include <fmt/format.h>

namespace pagesift::report {

std::string seconds_text(double seconds) { return fmt::format("{:.3f}", seconds); }

namespace {

using cold::Ages;
using cold::Range;

void write_time(JsonWriter& json, std::string_view key, double seconds) {
    json.key(key);
    json.raw(fmt::format("{:.6f}", seconds));
}

void write_who(JsonWriter& json, const Ages& ages) {
    json.key("comm");
    json.text_or_null(ages.identity.comm);
    json.key("exe");
    json.text_or_null(ages.identity.exe);
    json.key("start_time_ticks");
    json.number(ages.identity.start_time != 0 ? std::optional{ages.identity.start_time}
                                              : std::nullopt);
    json.key("boot_id");
    json.text_or_null(ages.identity.boot_id);
}

void write_source(JsonWriter& json, const AccessTraits& source) {
    json.key("source");
    json.begin_object();
    json.key("name");
    json.text(source.name);
    json.key("method");
    json.text(source.method);
    json.key("limits");
    json.begin_array();
    for (const std::string& limit : source.limits) json.text(limit);
    json.end_array();
    json.key("writes");
    json.boolean(source.writes);
    json.key("reads_seen");
    json.boolean(source.reads_seen);
    json.key("proves_idle");
    json.boolean(source.proves_idle);
    json.end_object();
}

void write_window(JsonWriter& json, const Ages& ages) {
    json.field("page_size", ages.page_size);
    write_source(json, ages.source);
    json.field("sighted_unix_milliseconds", ages.sighted_unix_milliseconds);
    json.key("window_seconds");
    json.raw(seconds_text(ages.window_seconds));
    json.field("rounds", ages.rounds);
    json.key("idle_steps_seconds");
    json.begin_array();
    for (const double step : ages.steps) json.raw(seconds_text(step));
    json.end_array();
    json.key("clear");
    json.begin_object();
    json.field("times", ages.clear.times);
    write_time(json, "total_seconds", ages.clear.total_seconds);
    write_time(json, "locked_seconds", ages.clear.locked_seconds);
    write_time(json, "longest_locked_seconds", ages.clear.longest_locked_seconds);
    write_time(json, "blind_seconds", ages.clear.blind_seconds);
    json.end_object();
}

void write_place(JsonWriter& json, const cold::Place& place) {
    json.key("start");
    json.address(place.range.start.value);
    json.key("end");
    json.address(place.range.end.value);
    json.key("permissions");
    json.text(place.permissions);
    json.key("backing");
    json.word(backing_word(place.backing));
    json.key("name");
    json.text(place.name);
}

std::string_view kind_name(Kind kind) {
    return kind == Kind::not_present ? "" : word_of(kind).name;
}

void write_class(JsonWriter& json, State state, Kind kind) {
    json.key("state");
    json.word(word_of(state).name);
    json.key("kind");
    json.text_or_null(kind_name(kind));
}

void write_range(JsonWriter& json, const Ages& ages, const Range& range) {
    json.key("start");
    json.address(range.range.start.value);
    json.key("end");
    json.address(range.range.end.value);
    json.field("bytes", range.range.size().value);
    write_class(json, range.state, range.kind);
    json.key("activity");
    json.word(word_of(range.activity).name);
    json.key("idle_seconds");
    json.raw(range.idle_seconds ? seconds_text(*range.idle_seconds) : "null");
    json.key("source");
    json.text(ages.source.name);
    json.key("grain");
    json.word(word_of(range.grain).name);
}

void write_sums(JsonWriter& json, const Ages& ages) {
    json.key("totals");
    json.begin_object();
    std::uint64_t no_sign = 0, accessed = 0;
    for (const cold::HistogramRow& row : ages.histogram) {
        no_sign += row.no_sign_bytes;
        accessed += row.bytes.back();
    }
    json.field("bytes", ages.all_bytes());
    json.field("cold_bytes", ages.cold_bytes());
    json.field("accessed_bytes", accessed);
    json.field("no_sign_bytes", no_sign);
    json.field("unknown_bytes", ages.unknown_bytes());
    json.end_object();
}

void write_row(JsonWriter& json, const cold::HistogramRow& row) {
    write_class(json, row.state, row.kind);
    json.key("idle_bytes");
    json.begin_array();
    for (const std::uint64_t bytes : row.bytes) json.number(bytes);
    json.end_array();
    json.field("no_sign_bytes", row.no_sign_bytes);
    json.field("unknown_bytes", row.unknown_bytes);
}

class ColdJsonSink {
public:
    explicit ColdJsonSink(std::ostream& out) : out_(out), json_(out_) { json_.begin_array(); }

    void begin(const Ages& ages) {
        if (open_) abandon();
        open_ = true;
        json_.new_line();
        json_.begin_object();
        json_.key("schema");
        json_.word(cold_schema);
        json_.field("pid", std::uint64_t{ages.identity.pid});
        write_who(json_, ages);
        json_.new_line();
        write_window(json_, ages);
        json_.lines("mappings", ages.mappings, write_place);
        json_.new_line();
        json_.key("ranges");
        json_.begin_array();
    }

    void range(const Ages& ages, const Range& range) {
        json_.line([&] {
            write_range(json_, ages, range);
            json_.field("mapping", std::uint64_t{range.mapping});
        });
        out_.flush_if_full();
    }

    void end(const Ages& ages) {
        json_.end_array();
        json_.new_line();
        write_sums(json_, ages);
        json_.lines("histogram", ages.histogram, write_row);
        json_.new_line();
        json_.field("undecided_bytes", ages.undecided_bytes);
        json_.key("interrupted");
        json_.boolean(ages.interrupted);
        json_.lines("gaps", ages.gaps, write_gap);
        json_.end_object();
        out_.flush();
        open_ = false;
    }

    void finish() {
        if (open_) abandon();
        json_.end_array();
        out_.put('\n');
        out_.flush();
    }

private:
    /// The process failed after it had begun: what was written stays, and says so.
    void abandon() {
        json_.end_array();
        json_.key("failed");
        json_.boolean(true);
        json_.end_object();
        open_ = false;
    }

    Output out_;
    JsonWriter json_;
    bool open_ = false;
};

/// One object a line, each of which stands alone.
class ColdNdjsonSink {
public:
    explicit ColdNdjsonSink(std::ostream& out) : out_(out) {}

    void begin(const Ages&) {}

    void range(const Ages& ages, const Range& range) {
        line("range", ages, [&](JsonWriter& json) {
            write_range(json, ages, range);
            write_name(json, ages, range);
        });
    }

    void end(const Ages& ages) {
        for (const cold::HistogramRow& row : ages.histogram)
            line("histogram", ages, [&](JsonWriter& json) {
                write_row(json, row);
                json.key("idle_steps_seconds");
                json.begin_array();
                for (const double step : ages.steps) json.raw(seconds_text(step));
                json.end_array();
            });
        for (const Gap& gap : ages.gaps)
            line("gap", ages, [&](JsonWriter& json) { write_gap(json, gap); });
        line("process", ages, [&](JsonWriter& json) {
            write_who(json, ages);
            write_window(json, ages);
            write_sums(json, ages);
            json.field("undecided_bytes", ages.undecided_bytes);
            json.key("interrupted");
            json.boolean(ages.interrupted);
        });
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    static void write_name(JsonWriter& json, const Ages& ages, const Range& range) {
        json.key("name");
        json.text(ages.mappings[range.mapping].name);
    }

    template <class Write> void line(std::string_view record, const Ages& ages, Write&& write) {
        write_line(out_, cold_schema, record, [&](JsonWriter& json) {
            json.field("pid", std::uint64_t{ages.identity.pid});
            write(json);
        });
    }

    Output out_;
};

/// One row a range.
class ColdCsvSink {
public:
    explicit ColdCsvSink(std::ostream& out) : csv_(out) {
        csv_.header("pid,comm,start,end,bytes,state,kind,activity,idle_seconds,source,grain,name");
    }

    void begin(const Ages&) {}

    void range(const Ages& ages, const Range& range) {
        csv_.number(std::uint64_t{ages.identity.pid});
        csv_.text(ages.identity.comm);
        csv_.address(range.range.start.value);
        csv_.address(range.range.end.value);
        csv_.number(range.range.size().value);
        csv_.word(word_of(range.state).name);
        csv_.word(kind_name(range.kind));
        csv_.word(word_of(range.activity).name);
        csv_.word(range.idle_seconds ? seconds_text(*range.idle_seconds) : "");
        csv_.word(ages.source.name);
        csv_.word(word_of(range.grain).name);
        csv_.text(ages.mappings[range.mapping].name);
        csv_.end_row();
    }

    void end(const Ages&) { csv_.flush(); }
    void finish() { csv_.flush(); }

private:
    CsvWriter csv_;
};

} // namespace

ColdSink make_cold_json_sink(std::ostream& out) {
    return bind_cold_sink(std::make_shared<ColdJsonSink>(out));
}

ColdSink make_cold_ndjson_sink(std::ostream& out) {
    return bind_cold_sink(std::make_shared<ColdNdjsonSink>(out));
}

ColdSink make_cold_csv_sink(std::ostream& out) {
    return bind_cold_sink(std::make_shared<ColdCsvSink>(out));
}

ColdSink make_cold_sink(std::ostream& out, const ReportOptions& options) {
    switch (options.format) {
    case Format::json: return make_cold_json_sink(out);
    case Format::ndjson: return make_cold_ndjson_sink(out);
    case Format::csv: return make_cold_csv_sink(out);
    case Format::openmetrics: // the command line does not offer it
    case Format::table: break;
    }
    return make_cold_table_sink(out, options);
}

} // namespace pagesift::report
