// SPDX-License-Identifier: MIT
#include "report/advise_sinks.hpp"
#include "report/json_fields.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

using advice::Effect;
using advice::Plan;

void write_range(JsonWriter& json, AddressRange range) {
    json.key("start");
    json.address(range.start.value);
    json.key("end");
    json.address(range.end.value);
    json.field("bytes", range.size().value);
}

void write_seconds(JsonWriter& json, std::string_view name, std::optional<double> seconds) {
    json.key(name);
    if (seconds)
        json.real(*seconds);
    else
        json.null();
}

void write_place(JsonWriter& json, const Mapping& mapping) {
    write_range(json, mapping.range);
    json.key("permissions");
    json.word(mapping.permissions());
    json.field("offset_bytes", mapping.offset);
    json.field("device_major", std::uint64_t{mapping.device.major});
    json.field("device_minor", std::uint64_t{mapping.device.minor});
    json.field("inode", mapping.inode);
    json.key("backing");
    json.word(backing_word(mapping.backing));
    json.key("name");
    json.text(mapping.name);
}

void write_planned(JsonWriter& json, const Plan& plan, std::size_t index, const Effect* effect) {
    const auto& range = plan.ranges[index];
    write_range(json, range.range);
    json.field("mapping", std::uint64_t{range.mapping});
    json.key("state");
    json.word(word_of(range.state).name);
    json.key("kind");
    if (range.kind == Kind::not_present)
        json.null();
    else
        json.word(word_of(range.kind).name);
    json.key("swap");
    json.boolean(range.swap);
    json.field("unit_bytes", range.unit_bytes);
    json.key("why");
    json.word(advice::why(plan, range));
    json.key("cost");
    json.word(advice::cost(plan, range));
    json.field("expected_freed_bytes", advice::freed_bytes(plan, range));
    write_seconds(json, "idle_seconds", range.idle_seconds);
    json.field("fresh_bytes", range.fresh_bytes);
    json.field("fill_bytes", range.fill_bytes);
    json.field("copy_bytes", range.copy_bytes);
    json.field("gain_bytes", range.gain_bytes);
    if (effect != nullptr) json.field("moved_bytes", effect->moved[index]);
}

template <class Ranges>
void write_reasons(JsonWriter& json, std::string_view name, const Ranges& ranges) {
    json.key(name);
    json.begin_object();
    for (const auto& [reason, bytes] : by_reason(ranges))
        json.field(fmt::format("{}_bytes", advice::word_of(reason).field), bytes);
    json.end_object();
}

void write_totals(JsonWriter& json, const Plan& plan) {
    const auto& sum = plan.forecast;
    json.new_line();
    json.key("totals");
    json.begin_object();
    json.field("bytes", sum.bytes);
    json.field("ranges", std::uint64_t{plan.ranges.size()});
    json.field("swap_bytes", sum.swap_bytes);
    json.field("file_bytes", sum.file_bytes);
    json.field("expected_freed_bytes", sum.freed_bytes);
    json.field("fresh_bytes", sum.fresh_bytes);
    json.field("fill_bytes", sum.fill_bytes);
    json.field("copy_bytes", sum.copy_bytes);
    json.field("gain_bytes", sum.gain_bytes);
    write_reasons(json, "skipped", plan.skipped);
    json.end_object();
}

std::optional<std::uint64_t> swap_used(const Gauges& gauges) {
    if (!gauges.swap_total_bytes || !gauges.swap_free_bytes) return {};
    return *gauges.swap_total_bytes - *gauges.swap_free_bytes;
}

void write_stops(JsonWriter& json, const Effect& effect) {
    json.key("stops");
    if (!effect.stops) return json.null();
    const auto& stops = *effect.stops;
    json.begin_object();
    json.field("count", std::uint64_t{stops.seconds.size()});
    write_seconds(json, "longest_seconds", stops.longest());
    write_seconds(json, "p99_seconds", stops.percentile(0.99));
    write_seconds(json, "total_seconds", stops.total());
    json.field("threads", std::uint64_t{stops.threads});
    json.field("processes", std::uint64_t{stops.processes});
    json.end_object();
}

void write_effect(JsonWriter& json, const Plan& plan, const Effect& effect) {
    json.field("calls", effect.calls);
    json.field("advised_bytes", effect.advised_bytes);
    json.field("moved_bytes", effect.moved_bytes);
    json.field("freed_bytes", effect.freed_bytes);
    json.field("kept_bytes", effect.kept_bytes);
    json.field("retries", effect.retries);
    write_seconds(json, "elapsed_seconds", effect.elapsed_seconds);
    write_seconds(json, "call_seconds", effect.call_seconds);
    write_seconds(json, "longest_call_seconds", effect.longest_call_seconds);
    json.field("swap_used_before_bytes", swap_used(effect.before));
    json.field("swap_used_after_bytes", swap_used(effect.after));
    write_stops(json, effect);
    json.field("tables_before_bytes", effect.tables_before_bytes);
    json.field("tables_after_bytes", effect.tables_after_bytes);
    json.field("rss_before_bytes", effect.rss_before_bytes);
    json.field("rss_after_bytes", effect.rss_after_bytes);
    json.key("freed_tables");
    json.begin_array();
    for (const AddressRange& range : effect.freed_tables) {
        json.begin_object();
        write_range(json, range);
        json.end_object();
    }
    json.end_array();
    json.key("interrupted");
    json.boolean(effect.interrupted);
    json.key("ended");
    json.text_or_null(effect.ended ? effect.ended->what() : "");
    write_reasons(json, "stayed", effect.stayed);
    json.key("stayed_ranges");
    json.begin_array();
    for (const auto& one : effect.stayed)
        json.line([&] {
            write_range(json, one.range);
            json.field("mapping", std::uint64_t{one.mapping});
            json.key("reason");
            json.word(advice::word_of(one.reason).name);
            json.key("errno");
            json.text_or_null(one.error != 0 ? errno_name(one.error) : "");
            json.key("explanation");
            json.text_or_null(one.error != 0 ? advice::explain(plan.action, one.error) : "");
        });
    json.end_array();
}

void write_head(JsonWriter& json, const Plan& plan, const Effect* effect) {
    json.key("schema");
    json.word(advise_schema);
    json.field("pid", std::uint64_t{plan.identity.pid});
    json.key("comm");
    json.text_or_null(plan.comm);
    json.key("exe");
    json.text_or_null(plan.exe);
    json.field("start_time_ticks", plan.identity.start_time != 0
                                       ? std::optional{plan.identity.start_time}
                                       : std::nullopt);
    json.key("boot_id");
    json.text_or_null(plan.identity.boot_id);
    json.key("action");
    json.word(advice::info_of(plan.action).name);
    json.key("applied");
    json.boolean(effect != nullptr);
    json.key("lens");
    json.text(plan.lens);
    json.field("page_size", plan.page_size);
    json.field("slot_bytes", plan.slot_bytes);
    json.key("swap_frees");
    json.boolean(plan.swap_frees == Tri::unknown ? std::nullopt
                                                 : std::optional{plan.swap_frees == Tri::yes});
    json.key("interrupted");
    json.boolean(plan.interrupted);
}

void write_process(JsonWriter& json, const Plan& plan, const Effect* effect) {
    write_head(json, plan, effect);
    write_totals(json, plan);
    json.lines("mappings", plan.mappings, write_place);
    json.new_line();
    json.key("ranges");
    json.begin_array();
    for (std::size_t i = 0; i < plan.ranges.size(); ++i)
        json.line([&] { write_planned(json, plan, i, effect); });
    json.end_array();
    json.lines("skipped", plan.skipped, [](JsonWriter& line, const auto& one) {
        write_range(line, one.range);
        line.field("mapping", std::uint64_t{one.mapping});
        line.key("reason");
        line.word(advice::word_of(one.reason).name);
    });
    json.new_line();
    json.key("effect");
    if (effect != nullptr) {
        json.begin_object();
        write_effect(json, plan, *effect);
        json.end_object();
    } else {
        json.null();
    }
    json.lines("gaps", plan.gaps, write_gap);
}

class AdviseJsonSink {
public:
    explicit AdviseJsonSink(std::ostream& out) : out_(out), json_(out_) { json_.begin_array(); }

    void process(const Plan& plan, const Effect* effect) {
        json_.line([&] { write_process(json_, plan, effect); });
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
};

/// One object a line, each of which stands alone: first what holds for the process.
class AdviseNdjsonSink {
public:
    explicit AdviseNdjsonSink(std::ostream& out) : out_(out) {}

    void process(const Plan& plan, const Effect* effect) {
        line(plan, "process", [&](JsonWriter& json) {
            json.key("comm");
            json.text_or_null(plan.comm);
            json.key("applied");
            json.boolean(effect != nullptr);
            json.field("bytes", plan.forecast.bytes);
            json.field("expected_freed_bytes", plan.forecast.freed_bytes);
            json.field("moved_bytes", effect != nullptr ? effect->moved_bytes : std::nullopt);
            json.field("freed_bytes", effect != nullptr ? effect->freed_bytes : std::nullopt);
        });
        for (std::size_t i = 0; i < plan.ranges.size(); ++i)
            line(plan, "range", [&](JsonWriter& json) {
                write_planned(json, plan, i, nullptr);
                json.field("moved_bytes", effect != nullptr ? effect->moved[i] : std::nullopt);
                json.key("name");
                json.text(plan.mappings[plan.ranges[i].mapping].name);
            });
        for (const auto& one : plan.skipped) left(plan, "skipped", one);
        if (effect != nullptr)
            for (const auto& one : effect->stayed) left(plan, "stayed", one);
        for (const Gap& gap : plan.gaps)
            line(plan, "gap", [&](JsonWriter& json) { write_gap(json, gap); });
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    template <class Range> void left(const Plan& plan, std::string_view record, const Range& one) {
        line(plan, record, [&](JsonWriter& json) {
            write_range(json, one.range);
            json.key("reason");
            json.word(advice::word_of(one.reason).name);
            json.key("name");
            json.text(plan.mappings[one.mapping].name);
        });
    }

    template <class Write> void line(const Plan& plan, std::string_view record, Write&& write) {
        write_line(out_, advise_schema, record, [&](JsonWriter& json) {
            json.field("pid", std::uint64_t{plan.identity.pid});
            json.key("action");
            json.word(advice::info_of(plan.action).name);
            write(json);
        });
    }

    Output out_;
};

template <class Impl> AdviseSink bind(std::shared_ptr<Impl> impl) {
    return {
        .process = [impl](const Plan& plan, const Effect* effect) { impl->process(plan, effect); },
        .finish = [impl] { impl->finish(); },
    };
}

} // namespace

AdviseSink make_advise_json_sink(std::ostream& out, bool lines) {
    if (lines) return bind(std::make_shared<AdviseNdjsonSink>(out));
    return bind(std::make_shared<AdviseJsonSink>(out));
}

AdviseSink make_advise_sink(std::ostream& out, const ReportOptions& options) {
    switch (options.format) {
    case Format::json: return make_advise_json_sink(out, false);
    case Format::ndjson: return make_advise_json_sink(out, true);
    case Format::csv: return make_advise_csv_sink(out);
    case Format::openmetrics: // of scans only
    case Format::table: break;
    }
    return make_advise_table_sink(out, options);
}

} // namespace pagesift::report
