// SPDX-License-Identifier: MIT
// Comparisons of scans for programs: json, ndjson and csv.
#include "report/diff_figures.hpp"
#include "report/scan_diff_figures.hpp"
#include "report/scan_sinks.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

void write_naming(JsonWriter& json, const scan::Record& record, scan::Per per) {
    for (const std::size_t field : naming_fields(per)) {
        json.key(scan::fields()[field].name);
        const scan::Value& value = value_at(record, field);
        const auto* number = std::get_if<std::uint64_t>(&value);
        if (const auto* text = std::get_if<std::string>(&value))
            json.text(*text);
        else if (number != nullptr && is_address(field))
            json.address(*number);
        else if (number != nullptr)
            json.number(*number);
        else
            json.null();
    }
}

void write_changes(JsonWriter& json, const std::vector<FieldChange>& changes) {
    json.key("changes");
    json.begin_array();
    for (const FieldChange& change : changes) {
        const scan::Field& field = scan::fields()[change.field];
        json.begin_object();
        json.key("field");
        json.word(field.name);
        json.key("unit");
        json.word(scan::unit_word(field.unit));
        json.field("before", change.before);
        json.field("after", change.after);
        json.key("change");
        if (const auto delta = change.delta())
            json.number(*delta);
        else
            json.null();
        json.end_object();
    }
    json.end_array();
}

void write_pair(JsonWriter& json, const ScanDiff& diff, const RecordPair& pair) {
    json.key("only_in");
    only_in(pair).empty() ? json.null() : json.word(only_in(pair));
    write_naming(json, pair.newest(), diff.after.summary.per);
    json.key("memory_change_bytes");
    if (const auto change = pair.memory_change())
        json.number(*change);
    else
        json.null();
    write_changes(json, told_changes(pair));
}

void write_picture(JsonWriter& json, const ScanPicture& picture, const std::string& name) {
    const scan::Summary& s = picture.summary;
    json.begin_object();
    json.key("picture");
    json.text(name);
    json.key("scan");
    json.number(picture.id);
    json.key("host");
    json.text(s.host_name);
    json.key("boot");
    json.text_or_null(picture.boot);
    json.key("kernel");
    json.text_or_null(s.release);
    json.key("time");
    json.text(utc_text(s.begin));
    json.key("depth");
    json.word(scan::depth_word(s.depth));
    json.key("lens");
    json.text(s.lens);
    json.field("answered", s.answered);
    json.field("partial", s.partial);
    json.field("ended", s.ended);
    json.field("denied", s.denied);
    json.field("skipped", s.skipped);
    json.field("left_out", s.left_out);
    json.key("interrupted");
    json.boolean(s.interrupted);
    json.end_object();
}

void write_about(JsonWriter& json, const ScanDiff& diff, const PictureNames& names) {
    json.key("per");
    json.word(scan::per_word(diff.after.summary.per));
    json.key("before");
    write_picture(json, diff.before, names.before);
    json.key("after");
    write_picture(json, diff.after, names.after);
    json.key("notes");
    json.begin_array();
    for (const std::string& note : diff.notes) json.text(note);
    json.text(net_changes_note());
    json.end_array();
}

bool is_told(const RecordPair& pair) {
    return !pair.before || !pair.after || !told_changes(pair).empty();
}

std::uint64_t unchanged_records(const ScanDiff& diff) {
    std::uint64_t count = 0;
    for_each_pair(diff, [&](const RecordPair& pair) { count += is_told(pair) ? 0u : 1u; });
    return count;
}

void append_number(std::string& row, std::optional<std::uint64_t> value) {
    row += ',';
    if (value) row += fmt::format("{}", *value);
}

/// The cells that name a record, each behind a comma; all are empty for totals.
std::string csv_names(const scan::Record* record) {
    std::string cells;
    for (const std::size_t field : naming_fields(scan::Per::mapping)) {
        cells += ',';
        if (record == nullptr) continue;
        const scan::Value& value = value_at(*record, field);
        if (const auto* number = std::get_if<std::uint64_t>(&value))
            cells +=
                is_address(field) ? fmt::format("0x{:x}", *number) : fmt::format("{}", *number);
        if (const auto* text = std::get_if<std::string>(&value)) {
            cells += '"';
            append_csv_text(cells, *text);
            cells += '"';
        }
    }
    return cells;
}

} // namespace

void render_scan_diff_json(std::ostream& out, const ScanDiff& diff, const PictureNames& names) {
    Output output{out};
    JsonWriter json{output};
    json.begin_array();
    json.new_line();
    json.begin_object();
    json.key("schema");
    json.word(diff_schema);
    write_about(json, diff, names);
    json.new_line();
    json.key("totals");
    json.begin_object();
    write_changes(json, diff.totals);
    json.end_object();
    json.new_line();
    json.key("records");
    json.begin_array();
    for_each_pair(diff, [&](const RecordPair& pair) {
        if (!is_told(pair)) return;
        json.new_line();
        json.begin_object();
        write_pair(json, diff, pair);
        json.end_object();
        output.flush_if_full();
    });
    json.end_array();
    json.field("unchanged_records", unchanged_records(diff));
    json.end_object();
    json.end_array();
    output.put('\n');
    output.flush();
}

void render_scan_diff_ndjson(std::ostream& out, const ScanDiff& diff, const PictureNames& names) {
    Output output{out};
    const auto line = [&](std::string_view record, auto&& write) {
        JsonWriter json{output};
        json.begin_object();
        json.key("schema");
        json.word(diff_schema);
        json.key("record");
        json.word(record);
        write(json);
        json.end_object();
        output.put('\n');
        output.flush_if_full();
    };
    for_each_pair(diff, [&](const RecordPair& pair) {
        if (is_told(pair))
            line("scan_record", [&](JsonWriter& json) { write_pair(json, diff, pair); });
    });
    line("scan_totals", [&](JsonWriter& json) { write_changes(json, diff.totals); });
    line("scans", [&](JsonWriter& json) {
        write_about(json, diff, names);
        json.field("unchanged_records", unchanged_records(diff));
    });
    output.flush();
}

void render_scan_diff_csv(std::ostream& out, const ScanDiff& diff) {
    Output output{out};
    std::string header = "section";
    for (const std::size_t field : naming_fields(scan::Per::mapping))
        header += ',' + scan::fields()[field].name;
    output.put(header + ",only_in,field,unit,before,after,change\r\n");
    const auto rows = [&](std::string_view start, std::string_view in,
                          const std::vector<FieldChange>& changes) {
        for (const FieldChange& change : changes) {
            const scan::Field& field = scan::fields()[change.field];
            std::string row =
                fmt::format("{},{},{},{}", start, in, field.name, scan::unit_word(field.unit));
            append_number(row, change.before);
            append_number(row, change.after);
            row += ',';
            if (const auto delta = change.delta()) row += fmt::format("{}", *delta);
            output.put(row + "\r\n");
            output.flush_if_full();
        }
    };
    rows("totals" + csv_names(nullptr), "", diff.totals);
    for_each_pair(diff, [&](const RecordPair& pair) {
        rows("record" + csv_names(&pair.newest()), only_in(pair), told_changes(pair));
    });
    output.flush();
}

} // namespace pagesift::report
