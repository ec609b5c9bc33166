// SPDX-License-Identifier: MIT
// Ages for programs: json, ndjson and csv.
#include "report/cold_sinks.hpp"
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
    json.field("pid", std::uint64_t{ages.identity.pid});
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
        write_who(json_, ages);
        json_.new_line();
        write_window(json_, ages);
        list("mappings", ages.mappings,
             [&](const cold::Place& place) { write_place(json_, place); });
        json_.new_line();
        json_.key("ranges");
        json_.begin_array();
    }

    void range(const Ages& ages, const Range& range) {
        json_.new_line();
        json_.begin_object();
        write_range(json_, ages, range);
        json_.field("mapping", std::uint64_t{range.mapping});
        json_.end_object();
        out_.flush_if_full();
    }

    void end(const Ages& ages) {
        json_.end_array();
        json_.new_line();
        write_sums(json_, ages);
        list("histogram", ages.histogram,
             [&](const cold::HistogramRow& row) { write_row(json_, row); });
        json_.new_line();
        json_.field("undecided_bytes", ages.undecided_bytes);
        json_.key("interrupted");
        json_.boolean(ages.interrupted);
        list("gaps", ages.gaps, [&](const Gap& gap) { write_gap(json_, gap); });
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

    template <class Values, class Write>
    void list(std::string_view name, const Values& values, Write&& write) {
        json_.new_line();
        json_.key(name);
        json_.begin_array();
        for (const auto& value : values) {
            json_.new_line();
            json_.begin_object();
            write(value);
            json_.end_object();
        }
        json_.end_array();
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
            json.key("comm");
            json.text_or_null(ages.identity.comm);
            json.key("exe");
            json.text_or_null(ages.identity.exe);
            json.key("start_time_ticks");
            json.number(ages.identity.start_time != 0 ? std::optional{ages.identity.start_time}
                                                      : std::nullopt);
            json.key("boot_id");
            json.text_or_null(ages.identity.boot_id);
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
        JsonWriter json{out_};
        json.begin_object();
        json.key("schema");
        json.word(cold_schema);
        json.key("record");
        json.word(record);
        json.field("pid", std::uint64_t{ages.identity.pid});
        write(json);
        json.end_object();
        out_.put('\n');
        out_.flush_if_full();
    }

    Output out_;
};

/// One row a range, as RFC 4180 describes it: a header, CRLF line ends, unknown as an empty field.
class ColdCsvSink {
public:
    explicit ColdCsvSink(std::ostream& out) : out_(out) {
        out_.put("pid,comm,start,end,bytes,state,kind,activity,idle_seconds,source,grain,name\r\n");
    }

    void begin(const Ages& ages) {
        comm_.clear();
        append_csv_text(comm_, ages.identity.comm);
    }

    void range(const Ages& ages, const Range& range) {
        std::string row = fmt::format(
            R"({},"{}",0x{:x},0x{:x},{},{},{},{},{},{},{},")", ages.identity.pid, comm_,
            range.range.start.value, range.range.end.value, range.range.size().value,
            word_of(range.state).name, kind_name(range.kind), word_of(range.activity).name,
            range.idle_seconds ? seconds_text(*range.idle_seconds) : "", ages.source.name,
            word_of(range.grain).name);
        append_csv_text(row, ages.mappings[range.mapping].name);
        row += "\"\r\n";
        out_.put(row);
        out_.flush_if_full();
    }

    void end(const Ages&) { out_.flush(); }
    void finish() { out_.flush(); }

private:
    Output out_;
    std::string comm_;
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
