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
        write_value(json, field, value_at(record, field));
    }
}

void write_changes(JsonWriter& json, const std::vector<FieldChange>& changes) {
    json.list("changes", changes, [](JsonWriter& one, const FieldChange& change) {
        const scan::Field& field = scan::fields()[change.field];
        one.key("field");
        one.word(field.name);
        one.key("unit");
        one.word(scan::unit_word(field.unit));
        one.field("before", change.before);
        one.field("after", change.after);
        one.field("change", change.delta());
    });
}

void write_pair(JsonWriter& json, const ScanDiff& diff, const RecordPair& pair) {
    json.key("only_in");
    only_in(pair).empty() ? json.null() : json.word(only_in(pair));
    write_naming(json, pair.newest(), diff.after.summary.per);
    json.field("memory_change_bytes", pair.memory_change());
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

/// A row a change; without a record, of totals.
void write_rows(CsvWriter& csv, std::string_view section, const scan::Record* record,
                std::string_view in, const std::vector<FieldChange>& changes) {
    static const scan::Record nothing;
    for (const FieldChange& change : changes) {
        const scan::Field& field = scan::fields()[change.field];
        csv.word(section);
        for (const std::size_t name : naming_fields(scan::Per::mapping))
            write_value(csv, name, value_at(record ? *record : nothing, name));
        csv.word(in);
        csv.word(field.name);
        csv.word(scan::unit_word(field.unit));
        csv.number(change.before);
        csv.number(change.after);
        csv.signed_number(change.delta());
        csv.end_row();
    }
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
        json.line([&] { write_pair(json, diff, pair); });
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
        write_line(output, diff_schema, record, write);
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
    CsvWriter csv{out};
    std::string header = "section";
    for (const std::size_t field : naming_fields(scan::Per::mapping))
        header += ',' + scan::fields()[field].name;
    csv.header(header + ",only_in,field,unit,before,after,change");
    write_rows(csv, "totals", nullptr, "", diff.totals);
    for_each_pair(diff, [&](const RecordPair& pair) {
        write_rows(csv, "record", &pair.newest(), only_in(pair), told_changes(pair));
    });
    csv.flush();
}

} // namespace pagesift::report
