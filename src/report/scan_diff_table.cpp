// SPDX-License-Identifier: MIT
#include "report/diff_sections.hpp"
#include "report/scan_diff_figures.hpp"
#include "report/scan_sinks.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

using scan::Per;
using scan::Record;

const FieldChange& change_of(const std::vector<FieldChange>& changes, std::string_view name) {
    const auto found = std::find_if(changes.begin(), changes.end(), [&](const FieldChange& c) {
        return scan::fields()[c.field].name == name;
    });
    return *found; // callers name fields that are compared
}

/// "+3", "-1", "0", "?": of a count.
std::string signed_count(std::optional<std::int64_t> change) {
    return !change ? "?" : *change == 0 ? "0" : fmt::format("{:+}", *change);
}

/// A word for people, and the field that holds it.
struct Row {
    std::string label, field;
};

template <std::size_t Count>
void add_words(std::vector<Row>& rows, std::span<const Word, Count> words, std::string_view indent,
               std::string_view unknown) {
    for (const Word& word : words) {
        if (word.field.empty() || word.field == "present" || word.field == "none") continue;
        const bool other = word.field == "unknown";
        rows.push_back({fmt::format("{}{}", indent, word.name),
                        fmt::format("{}_bytes", other ? unknown : word.field)});
    }
}

std::vector<Row> total_rows() {
    std::vector<Row> rows{{"processes", "processes"},  {"size", "size_bytes"}, {"RSS", "rss_bytes"},
                          {"PSS", "pss_bytes"},        {"swap", "swap_bytes"}, {"", ""},
                          {"present", "present_bytes"}};
    add_words(rows, kind_table(), "  ", "unknown_kind");
    add_words(rows, state_table(), "", "unknown_state");
    rows.push_back({"none", "none_bytes"});
    rows.push_back({"", ""});
    rows.push_back({"page tables", "page_tables_bytes"});
    rows.push_back({"empty tables", "empty_tables"});
    rows.push_back({"marker-only tables", "marker_only_tables"});
    return rows;
}

class ScanDiffTable {
public:
    ScanDiffTable(Output& out, const ScanDiff& diff, const PictureNames& names,
                  const ReportOptions& options)
        : diff_(diff),
          names_(names),
          screen_{&out, options, Style{options}, Amounts{options.unit, 4096}},
          per_(diff.after.summary.per) {}

    void draw() const {
        draw_heading();
        screen_.line();
        draw_totals();
        draw_changed();
        draw_alone(diff_.only_after, "New");
        draw_alone(diff_.only_before, "Gone");
        screen_.line();
        screen_.wrapped(net_changes_note(), 2);
    }

private:
    std::string things(std::size_t number) const {
        const bool one = number == 1;
        switch (per_) {
        case Per::process: return one ? "process" : "processes";
        case Per::cgroup: return one ? "control group" : "control groups";
        case Per::comm: return one ? "name" : "names";
        case Per::mapping:
        case Per::range: break;
        }
        return one ? "mapping" : "mappings";
    }

    void draw_heading() const {
        std::string title = escape_text(diff_.after.summary.host_name);
        if (diff_.before.summary.host_name != diff_.after.summary.host_name)
            title = escape_text(diff_.before.summary.host_name) + " and " + title;
        screen_.line(screen_.style.bold(title) +
                     fmt::format("  two scans, a record for each {}", things(1)));
        for (const bool after : {false, true}) {
            const ScanPicture& picture = after ? diff_.after : diff_.before;
            const scan::Summary& s = picture.summary;
            const std::string how =
                fmt::format("  {}Z, depth {}, {} lens", utc_text(s.begin).substr(0, 19),
                            scan::depth_word(s.depth), escape_text(s.lens));
            const std::size_t room = screen_.width() > how.size() + 16
                                         ? screen_.width() - how.size() - 8
                                         : screen_.width() - 8;
            std::string line = after ? "after   " : "before  ";
            line += screen_.foreign(after ? names_.after : names_.before, room);
            if (screen_.width() > how.size() + 16) line += how;
            screen_.line(screen_.style.dim(line));
        }
        for (const std::string& note : diff_.notes) screen_.wrapped(screen_.style.warn(note), 2);
    }

    std::string amount(const FieldChange& change, std::optional<std::uint64_t> value) const {
        if (scan::fields()[change.field].unit == scan::Unit::bytes) return screen_.amounts(value);
        return value ? fmt::format("{}", *value) : "?";
    }
    std::string delta(const FieldChange& change) const {
        if (scan::fields()[change.field].unit == scan::Unit::bytes)
            return signed_amount(screen_, change.delta());
        return signed_count(change.delta());
    }

    void draw_totals() const {
        std::uint64_t largest = 0;
        for (const FieldChange& c : diff_.totals)
            largest = std::max({largest, c.before.value_or(0), c.after.value_or(0)});
        const std::size_t width = screen_.amounts.width(largest);
        Columns columns{screen_.width()};
        columns.add("", 18);
        columns.add("BEFORE", width, Align::right);
        columns.add("AFTER", width, Align::right);
        columns.add("CHANGE", width + 1, Align::right);
        screen_.line(screen_.style.dim(columns.header("")));
        bool gap = false;
        for (const Row& row : total_rows()) {
            if (row.field.empty()) {
                gap = true;
                continue;
            }
            const FieldChange& c = change_of(diff_.totals, row.field);
            // What neither scan tells, or of what there is nothing, is not worth a line.
            if (c.before.value_or(0) == 0 && c.after.value_or(0) == 0) continue;
            if (gap) screen_.line();
            gap = false;
            const std::string line =
                columns.row({row.label, amount(c, c.before), amount(c, c.after), delta(c)}, "");
            screen_.line(c.delta().value_or(0) == 0 ? screen_.style.dim(line) : line);
        }
    }

    /// What names a record: columns before its figures, and a last one behind them.
    void add_naming(Columns& columns) const {
        if (per_ == Per::comm || per_ == Per::cgroup) return;
        columns.add("PID", 7, Align::right);
        columns.add("COMM", 15);
        if (per_ == Per::mapping) columns.add("ADDRESS", 12);
    }
    std::vector<std::string> naming(const Record& record) const {
        if (per_ == Per::comm || per_ == Per::cgroup) return {};
        std::vector<std::string> cells{text_of(record, "pid", 7), text_of(record, "comm", 15)};
        if (per_ == Per::mapping) cells.push_back(text_of(record, "start", 12));
        return cells;
    }
    std::string_view last_field() const {
        switch (per_) {
        case Per::comm: return "comm";
        case Per::cgroup: return "cgroup";
        case Per::mapping: return "name";
        case Per::process:
        case Per::range: break;
        }
        return "";
    }
    std::string last_title() const {
        return per_ == Per::comm ? "COMM" : per_ == Per::cgroup ? "CGROUP" : "NAME";
    }

    std::string text_of(const Record& record, std::string_view name, std::size_t width) const {
        const std::size_t field = *scan::find_field(name);
        const scan::Value& value = value_at(record, field);
        if (const auto* number = std::get_if<std::uint64_t>(&value))
            return is_address(field) ? fmt::format("{:x}", *number) : fmt::format("{}", *number);
        const auto* text = std::get_if<std::string>(&value);
        if (text == nullptr) return "?";
        if (text->empty() && name == "name") return "(anonymous)";
        const Keep keep = name == "comm" ? Keep::start : Keep::end;
        return shorten(escape_text(*text), width, keep, screen_.style.unicode());
    }

    /// "anon +12 MiB": the state or kind that changed most.
    std::string mostly(const std::vector<FieldChange>& changes) const {
        const FieldChange* most = nullptr;
        std::string_view label;
        const auto size = [](const FieldChange& c) {
            const std::int64_t delta = c.delta().value_or(0);
            return delta < 0 ? -delta : delta;
        };
        static const std::vector<Row> rows = [] {
            std::vector<Row> all;
            add_words(all, kind_table(), "", "unknown_kind");
            add_words(all, state_table(), "", "unknown_state");
            return all;
        }();
        for (const Row& row : rows) {
            const FieldChange& c = change_of(changes, row.field);
            if (size(c) == 0 || (most != nullptr && size(c) <= size(*most))) continue;
            most = &c;
            label = row.label;
        }
        if (most != nullptr)
            return fmt::format("{} {}", label, signed_amount(screen_, most->delta()));
        return change_of(changes, "present_bytes").delta() ? "" : "?";
    }

    void draw_changed() const {
        std::vector<const RecordPair*> changed;
        std::size_t unknown = 0;
        for (const RecordPair& pair : diff_.both) {
            if (pair.memory_change() == std::int64_t{0}) continue;
            changed.push_back(&pair);
            if (!pair.memory_change()) ++unknown;
        }
        const std::size_t same = diff_.both.size() - changed.size();
        screen_.line();
        if (diff_.both.empty())
            return screen_.line(fmt::format("No {} is in both scans.", things(1)));
        const std::size_t shown = std::min(screen_.options.top, changed.size());
        const std::size_t known = changed.size() - unknown;
        std::string title = fmt::format("RSS and swap of {} {} changed", known, things(known));
        if (unknown != 0) title += fmt::format("; of {} it is not known", unknown);
        draw_title(title, shown, changed.size());
        if (shown != 0) draw_pairs(changed, shown);
        if (same != 0)
            screen_.line(fmt::format("{} {} did not change in size", same, things(same)));
    }

    void draw_title(const std::string& title, std::size_t shown, std::size_t all) const {
        const std::string rest = shown == 0                  ? ""
                                 : shown < all && shown == 1 ? ", the largest"
                                 : shown < all ? fmt::format(", the {} largest", shown)
                                               : "";
        screen_.line(screen_.style.bold(title) + rest);
    }

    void draw_pairs(const std::vector<const RecordPair*>& pairs, std::size_t shown) const {
        const std::size_t width = amount_width();
        Columns columns{screen_.width()};
        add_naming(columns);
        columns.add("TOGETHER", width, Align::right);
        columns.add("RSS", width, Align::right);
        columns.add("SWAP", width, Align::right);
        const bool mostly_last = last_field().empty();
        const bool both = !mostly_last && columns.rest() >= 40;
        if (both) columns.add("MOSTLY", 22);
        screen_.line(screen_.style.dim(columns.header(mostly_last ? "MOSTLY" : last_title())));
        for (std::size_t i = 0; i < shown; ++i) {
            const RecordPair& pair = *pairs[i];
            const auto changes = pair.changes();
            auto cells = naming(pair.newest());
            cells.push_back(signed_amount(screen_, pair.memory_change()));
            for (const char* field : {"rss_bytes", "swap_bytes"})
                cells.push_back(delta(change_of(changes, field)));
            if (both)
                cells.push_back(shorten(mostly(changes), 22, Keep::start, screen_.style.unicode()));
            screen_.line(columns.row(
                cells, mostly_last ? shorten(mostly(changes), columns.rest(), Keep::start,
                                             screen_.style.unicode())
                                   : text_of(pair.newest(), last_field(), columns.rest())));
        }
    }

    void draw_alone(const std::vector<RecordPair>& pairs, std::string_view word) const {
        if (pairs.empty()) return;
        const std::size_t shown = std::min(screen_.options.top, pairs.size());
        screen_.line();
        draw_title(fmt::format("{}: {} {}", word, pairs.size(), things(pairs.size())), shown,
                   pairs.size());
        if (shown == 0) return;
        Columns columns{screen_.width()};
        add_naming(columns);
        columns.add("RSS", amount_width(), Align::right);
        columns.add("SWAP", amount_width(), Align::right);
        const bool process = last_field().empty();
        screen_.line(screen_.style.dim(columns.header(process ? "PROGRAM" : last_title())));
        for (std::size_t i = 0; i < shown; ++i) {
            const Record& record = pairs[i].newest();
            auto cells = naming(record);
            for (const char* field : {"rss_bytes", "swap_bytes"}) {
                const auto* number = std::get_if<std::uint64_t>(&record.at(field));
                cells.push_back(number != nullptr ? screen_.amounts(*number) : "?");
            }
            screen_.line(columns.row(
                cells, text_of(record, process ? "exe" : last_field(), columns.rest())));
        }
    }

    std::size_t amount_width() const { return screen_.options.unit == Unit::automatic ? 10 : 15; }

    const ScanDiff& diff_;
    const PictureNames& names_;
    Screen screen_;
    Per per_;
};

} // namespace

void render_scan_diff_table(std::ostream& out, const ScanDiff& diff, const PictureNames& names,
                            const ReportOptions& options) {
    Output output{out};
    ScanDiffTable{output, diff, names, options}.draw();
    output.flush();
}

} // namespace pagesift::report
