// SPDX-License-Identifier: MIT
#include "report/diff_figures.hpp"
#include "report/json_fields.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

void write_change(JsonWriter& json, const Change& change) {
    json.key("section");
    json.word(change.section);
    json.key("name");
    json.word(change.name);
    json.key("unit");
    json.word(change.unit);
    json.field("before", change.before);
    json.field("after", change.after);
    json.field("change", change.delta());
}

void write_sighting(JsonWriter& json, const std::string& key, const Sighting& seen) {
    json.key(key + "_state");
    json.word(state_word(seen));
    json.key(key + "_kind");
    json.text_or_null(kind_word(seen));
}

void write_transition(JsonWriter& json, const Transition& transition) {
    write_sighting(json, "from", transition.from);
    write_sighting(json, "to", transition.to);
    json.field("pages", transition.pages);
}

void write_fates(JsonWriter& json, const ProcessDiff& diff, const Fates& fates) {
    json.field("all_pages", sort_pages(diff, fates));
    json.field("unread_before_pages", fates.unread_pages);
    for (std::size_t i = 0; i < fate_count; ++i)
        json.field(fmt::format("{}_pages", fate_table()[i].field),
                   fate_pages(diff, fates, static_cast<Fate>(i)));
}

void write_range(JsonWriter& json, const ChangedRange& changed) {
    json.key("start");
    json.address(changed.range.start.value);
    json.key("end");
    json.address(changed.range.end.value);
    json.field("bytes", changed.range.size().value);
    write_sighting(json, "from", changed.from);
    write_sighting(json, "to", changed.to);
    json.key("name");
    json.text(changed.mapping->name);
}

void write_pair(JsonWriter& json, const ProcessDiff& diff, const MappingPair& pair) {
    json.key("change");
    json.word(word_of(pair.change).name);
    for (const Picture picture : {Picture::before, Picture::after}) {
        const auto range = range_of(diff, pair, picture);
        const std::string name = picture == Picture::before ? "before" : "after";
        json.key(name + "_start");
        json.address(range ? std::optional{range->start.value} : std::nullopt);
        json.key(name + "_end");
        json.address(range ? std::optional{range->end.value} : std::nullopt);
    }
    json.field("mappings_before", std::uint64_t{pair.before.size()});
    json.field("mappings_after", std::uint64_t{pair.after.size()});
    json.field("common_bytes", pair.common_bytes);
    json.key("name");
    json.text(mapping_of(diff, pair).name);
    auto changes = mapping_changes(diff, pair);
    std::erase_if(changes, [](const Change& change) { return !change.changed(); });
    json.list("changes", changes, write_change);
    json.list("transitions", pair.transitions, write_transition);
}

void write_picture(JsonWriter& json, const Census& census) {
    json.key("comm");
    json.text_or_null(census.process.comm);
    json.key("exe");
    json.text_or_null(census.process.exe);
    json.key("start_time_ticks");
    json.number(census.process.start_time() != 0 ? std::optional{census.process.start_time()}
                                                 : std::nullopt);
    json.key("lens");
    json.text(census.lens);
    json.key("kernel");
    json.text_or_null(census.host.release);
    json.key("zero");
    json.word(zero_word(census.want.zero));
}

void write_process(JsonWriter& json, const ProcessDiff& diff, const PictureNames& names) {
    json.field("page_size", diff.after.host.page_size);
    json.key("match");
    json.word(match_word(diff.match));
    json.key("executed");
    json.boolean(diff.executed);
    json.key("interrupted");
    json.boolean(diff.before.interrupted || diff.after.interrupted);
    for (const bool after : {false, true}) {
        json.key(after ? "after" : "before");
        json.begin_object();
        json.key("picture");
        json.text(after ? names.after : names.before);
        write_picture(json, after ? diff.after : diff.before);
        json.end_object();
    }
    json.key("notes");
    json.begin_array();
    for (const std::string& note : diff.notes) json.text(note);
    json.end_array();
}

void write_picture_gap(JsonWriter& json, const PictureGap& gap) {
    json.key("picture");
    json.word(gap.picture);
    write_gap(json, *gap.gap);
}

std::uint64_t unchanged(const ProcessDiff& diff) {
    std::uint64_t count = 0;
    for (const MappingPair& pair : diff.mappings) count += !has_changed(pair);
    return count;
}

class DiffJsonSink {
public:
    DiffJsonSink(std::ostream& out, const ReportOptions& options, PictureNames names)
        : options_(options), names_(std::move(names)), out_(out), json_(out_) {
        json_.begin_array();
    }

    void begin(const ProcessText& before, const ProcessText&) {
        if (open_) abandon();
        open_ = true;
        start(before.pid);
        if (!options_.ranges) return;
        json_.key("ranges");
        json_.begin_array();
    }

    void range(const ChangedRange& changed) {
        if (options_.ranges) json_.line([&] { write_range(json_, changed); });
    }

    void end(const ProcessDiff& diff) {
        if (options_.ranges) json_.end_array();
        json_.new_line();
        write_process(json_, diff, names_);
        json_.lines("changes", total_changes(diff), write_change);
        json_.new_line();
        json_.key("fates");
        json_.begin_object();
        for (const bool zero : {true, false}) {
            json_.key(zero ? "zero_filled" : "anon");
            json_.begin_object();
            write_fates(json_, diff, zero ? diff.zero_filled : diff.anon);
            json_.end_object();
        }
        json_.end_object();
        json_.lines("transitions", diff.transitions, write_transition);
        json_.new_line();
        json_.key("mappings");
        json_.begin_array();
        for (const MappingPair& pair : diff.mappings)
            if (has_changed(pair)) json_.line([&] { write_pair(json_, diff, pair); });
        json_.end_array();
        json_.field("unchanged_mappings", unchanged(diff));
        json_.lines("gaps", all_gaps(diff), write_picture_gap);
        json_.end_object();
        out_.flush();
        open_ = false;
    }

    void only(const ProcessText& process, Picture picture) {
        if (open_) abandon();
        start(process.pid);
        json_.key("comm");
        json_.text_or_null(process.comm);
        json_.key("only_in");
        json_.word(picture == Picture::before ? "before" : "after");
        json_.end_object();
    }

    void finish() {
        if (open_) abandon();
        json_.end_array();
        out_.put('\n');
        out_.flush();
    }

private:
    void start(std::uint32_t pid) {
        json_.new_line();
        json_.begin_object();
        json_.key("schema");
        json_.word(diff_schema);
        json_.field("pid", std::uint64_t{pid});
    }

    /// The comparison failed after it had begun: what was written stays, and says so.
    void abandon() {
        if (options_.ranges) json_.end_array();
        json_.key("failed");
        json_.boolean(true);
        json_.end_object();
        open_ = false;
    }

    ReportOptions options_;
    PictureNames names_;
    Output out_;
    JsonWriter json_;
    bool open_ = false;
};

/// One object a line, each of which stands alone.
class DiffNdjsonSink {
public:
    DiffNdjsonSink(std::ostream& out, const ReportOptions& options, PictureNames names)
        : options_(options), names_(std::move(names)), out_(out) {}

    void begin(const ProcessText& before, const ProcessText&) { pid_ = before.pid; }

    void range(const ChangedRange& changed) {
        if (options_.ranges) line("range", [&](JsonWriter& json) { write_range(json, changed); });
    }

    void end(const ProcessDiff& diff) {
        for (const Change& change : total_changes(diff))
            line("change", [&](JsonWriter& json) { write_change(json, change); });
        for (const bool zero : {true, false})
            line("fates", [&](JsonWriter& json) {
                json.key("of");
                json.word(zero ? "zero_filled" : "anon");
                write_fates(json, diff, zero ? diff.zero_filled : diff.anon);
            });
        for (const Transition& transition : diff.transitions)
            line("transition", [&](JsonWriter& json) { write_transition(json, transition); });
        for (const MappingPair& pair : diff.mappings)
            if (has_changed(pair))
                line("mapping", [&](JsonWriter& json) { write_pair(json, diff, pair); });
        for (const PictureGap& gap : all_gaps(diff))
            line("gap", [&](JsonWriter& json) { write_picture_gap(json, gap); });
        line("process", [&](JsonWriter& json) {
            write_process(json, diff, names_);
            json.field("unchanged_mappings", unchanged(diff));
        });
        out_.flush();
    }

    void only(const ProcessText& process, Picture picture) {
        pid_ = process.pid;
        line("only", [&](JsonWriter& json) {
            json.key("comm");
            json.text_or_null(process.comm);
            json.key("only_in");
            json.word(picture == Picture::before ? "before" : "after");
        });
    }

    void finish() { out_.flush(); }

private:
    template <class Write> void line(std::string_view record, Write&& write) {
        write_line(out_, diff_schema, record, [&](JsonWriter& json) {
            json.field("pid", std::uint64_t{pid_});
            write(json);
        });
    }

    ReportOptions options_;
    PictureNames names_;
    Output out_;
    std::uint32_t pid_ = 0;
};

} // namespace

DiffSink make_diff_json_sink(std::ostream& out, const ReportOptions& options, PictureNames names) {
    return bind_diff_sink(std::make_shared<DiffJsonSink>(out, options, std::move(names)));
}

DiffSink make_diff_ndjson_sink(std::ostream& out, const ReportOptions& options,
                               PictureNames names) {
    return bind_diff_sink(std::make_shared<DiffNdjsonSink>(out, options, std::move(names)));
}

} // namespace pagesift::report
