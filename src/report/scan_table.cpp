// SPDX-License-Identifier: MIT
#include "report/columns.hpp"
#include "report/scan_sinks.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

using scan::Per;
using scan::Record;
using scan::Summary;

/// Which columns there are is decided by this many records; what comes later must do with them.
constexpr std::size_t deciding_records = 1000;

/// What may be wasted, each with a column where there is any of it.
struct Waste {
    std::string_view field, title, words;
};
constexpr std::array wastes{
    Waste{"zero_filled_bytes", "ZERO", "zero-filled"},
    Waste{"empty_tables", "E-TABLES", "empty tables"},
    Waste{"shmem_swapped_bytes", "SHM-SWAP", "shmem-swapped"},
    Waste{"ksm_sole_bytes", "KSM-SOLE", "ksm-sole"},
};

std::string title_of(const scan::Field& field) {
    std::string title = field.name;
    if (title.ends_with("_bytes")) title.resize(title.size() - 6);
    for (char& c : title) c = c == '_' ? '-' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
    return title;
}

std::string count_of(std::uint64_t number, std::string_view one, std::string_view many) {
    return fmt::format("{} {}", number, number == 1 ? one : many);
}

class ScanTableSink {
public:
    ScanTableSink(std::ostream& out, const ReportOptions& options)
        : options_(options),
          out_(out),
          screen_{&out_, options, Style{options}, Amounts{options.unit, 4096}},
          columns_(options.width) {}

    void begin(const Summary& summary) {
        if (!first_) screen_.line();
        first_ = false;
        per_ = summary.per;
        waiting_.clear();
        decided_ = false;
        screen_.line(screen_.style.bold(
            fmt::format("{}  {}  depth {}, lens {}", escape_text(summary.host_name),
                        utc_text(summary.begin).substr(0, 19) + 'Z',
                        scan::depth_word(summary.depth), escape_text(summary.lens))));
        out_.flush();
    }

    void record(const Record& record) {
        if (decided_) return row(record);
        waiting_.push_back(record);
        if (waiting_.size() >= deciding_records) decide();
    }

    void end(const Summary& summary) {
        if (!decided_) decide();
        screen_.line();
        render_totals(summary);
        render_missing(summary);
        render_gaps(summary);
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    struct Cell {
        std::size_t field;
        std::size_t width;
        bool number;
    };

    void add(std::string_view title, std::string_view field, std::size_t width, bool number) {
        columns_.add(title, width, number ? Align::right : Align::left);
        cells_.push_back({*scan::find_field(field), width, number});
    }
    bool fits(std::size_t width) const { return columns_.rest() >= width + 2 + last_width_; }
    bool shown(std::size_t field) const {
        return std::any_of(cells_.begin(), cells_.end(),
                           [&](const Cell& cell) { return cell.field == field; });
    }

    void add_leading() {
        const std::size_t amount = options_.unit == Unit::automatic ? 8 : 15;
        last_.reset();
        last_width_ = 0;
        const auto last = [&](std::string_view field, std::string_view title, std::size_t width) {
            last_ = scan::find_field(field);
            last_title_ = title;
            last_width_ = width;
        };
        if (per_ == Per::cgroup || per_ == Per::comm) {
            last(scan::per_word(per_), per_ == Per::comm ? "COMM" : "CGROUP", 16);
            add("PROCS", "processes", 7, true);
        } else {
            add("PID", "pid", 7, true);
            if (per_ == Per::process) add("USER", "user", 8, false);
            add("COMM", "comm", 15, false);
        }
        if (per_ == Per::mapping || per_ == Per::range) {
            last("name", "NAME", 12);
            add("ADDRESS", "start", 12, true);
        }
        if (per_ == Per::range) {
            add("SIZE", "size_bytes", amount, true);
            add("STATE", "state", 13, false);
            add("KIND", "kind", 11, false);
            return;
        }
        for (const auto& [title, field] :
             {std::pair{"RSS", "rss_bytes"}, {"PSS", "pss_bytes"}, {"SWAP", "swap_bytes"}})
            add(title, field, amount, true);
    }

    /// What was asked for, and then the wasteful classes of which there is something; the greatest
    /// first, as long as there is room.
    void add_extra() {
        const std::size_t amount = options_.unit == Unit::automatic ? 8 : 15;
        if (options_.sort && !shown(*options_.sort) && options_.sort != last_) {
            const scan::Field& field = scan::fields()[*options_.sort];
            const std::string title = title_of(field);
            const bool number = field.unit != scan::Unit::text;
            add(title, field.name, std::max(title.size(), amount), number);
        }
        std::vector<std::pair<double, const Waste*>> found;
        for (const Waste& waste : wastes) {
            const auto field = scan::find_field(waste.field);
            double most = 0;
            for (const Record& record : waiting_)
                most = std::max(most, number_in(value_at(record, *field)).value_or(0));
            // A page-table of 4 KiB each is what stands behind that count.
            if (scan::fields()[*field].unit == scan::Unit::count) most *= 4096;
            if (most > 0 && !shown(*field)) found.emplace_back(most, &waste);
        }
        std::stable_sort(found.begin(), found.end(),
                         [](const auto& a, const auto& b) { return a.first > b.first; });
        for (const auto& [most, waste] : found)
            if (fits(amount)) add(waste->title, waste->field, amount, true);
    }

    void decide() {
        decided_ = true;
        columns_ = Columns{options_.width};
        cells_.clear();
        add_leading();
        add_extra();
        if (waiting_.empty()) {
            screen_.line("nothing matches");
            return;
        }
        screen_.line(screen_.style.dim(columns_.header(last_ ? last_title_ : notes_title())));
        for (const Record& record : waiting_) row(record);
        waiting_.clear();
    }

    std::string notes_title() const {
        const bool any = std::any_of(waiting_.begin(), waiting_.end(), [&](const Record& record) {
            return !note_of(record).empty();
        });
        return any ? "NOTE" : "";
    }

    /// How far the figures of a record are not the whole truth.
    static std::string note_of(const Record& record) {
        std::string note;
        const auto* complete = std::get_if<bool>(&record.at("complete"));
        if (complete != nullptr && !*complete) note = "partial";
        const auto* share = std::get_if<double>(&record.at("sampled_share"));
        const auto* looked = std::get_if<double>(&record.at("looked_share"));
        if (looked != nullptr && *looked < 1)
            note +=
                fmt::format("{}estimated from {:.2g} %", note.empty() ? "" : ", ", 100 * *looked);
        else if (share != nullptr && *share < 1)
            note += fmt::format("{}sampled {:.2g} %", note.empty() ? "" : ", ", 100 * *share);
        return note;
    }

    std::string cell_text(std::size_t field, const scan::Value& value, std::size_t width) const {
        if (!scan::is_known(value)) return "?";
        if (const auto* text = std::get_if<std::string>(&value)) {
            const bool path = field == last_;
            const Keep keep = path && per_ != Per::comm ? Keep::end : Keep::start;
            return shorten(escape_text(*text), width, keep, screen_.style.unicode());
        }
        if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "yes" : "no";
        if (const auto* real = std::get_if<double>(&value)) return fmt::format("{:.3g}", *real);
        const std::uint64_t number = std::get<std::uint64_t>(value);
        if (is_address(field)) return fmt::format("{:x}", number);
        return scan::fields()[field].unit == scan::Unit::bytes ? screen_.amounts(number)
                                                               : fmt::format("{}", number);
    }

    void row(const Record& record) {
        std::vector<std::string> cells;
        for (const Cell& cell : cells_) {
            std::string text = cell_text(cell.field, value_at(record, cell.field), cell.width);
            // A kind that a state cannot have, or a user without a name, is not unknown.
            if (text == "?" && scan::fields()[cell.field].unit == scan::Unit::text) text = "-";
            if (text == "?") text = screen_.style.warn(pad_left(text, cell.width));
            cells.push_back(std::move(text));
        }
        std::string last;
        if (last_ && columns_.rest() != 0)
            last = cell_text(*last_, value_at(record, *last_), columns_.rest());
        else if (!last_)
            last = shorten(note_of(record), columns_.rest(), Keep::start, screen_.style.unicode());
        screen_.line(columns_.row(cells, last));
    }

    void render_totals(const Summary& summary) {
        const auto amount = [&](std::string_view field) {
            const auto number = std::get_if<std::uint64_t>(&summary.totals.at(field));
            return screen_.amounts(number != nullptr ? std::optional{*number} : std::nullopt);
        };
        std::string text = count_of(summary.answered, "process", "processes");
        if (summary.answered > 0)
            text += fmt::format(": RSS {}, PSS {}, swap {}", amount("rss_bytes"),
                                amount("pss_bytes"), amount("swap_bytes"));
        for (const Waste& waste : wastes) {
            const auto& value = summary.totals.at(waste.field);
            const auto* number = std::get_if<std::uint64_t>(&value);
            if (number == nullptr || *number == 0) continue;
            const bool bytes = waste.field.ends_with("_bytes");
            text += fmt::format(", {} {}", waste.words,
                                bytes ? screen_.amounts(*number) : fmt::format("{}", *number));
        }
        screen_.wrapped(text, 2);
        screen_.line(fmt::format("took {:.2f} s, {:.2f} s of processor time",
                                 summary.elapsed_seconds, summary.cpu_seconds));
    }

    void render_missing(const Summary& summary) {
        const auto say = [&](std::uint64_t number, std::string_view what) {
            if (number != 0) screen_.wrapped(fmt::format("{} {}", number, what), 2);
        };
        say(summary.left_out, "not shown: left out by --where or --top");
        say(summary.partial, "answered only in part");
        const auto unknown = number_in(summary.totals.at("unknown_processes"));
        say(static_cast<std::uint64_t>(unknown.value_or(0)),
            "of which some figure is not known, and not in the sums");
        say(summary.ended, "ended before they could be looked at");
        say(summary.skipped, "not reached: out of time, or interrupted");
        say(summary.denied, "may not be looked at");
        if (summary.interrupted) screen_.line(screen_.style.warn("interrupted"));
    }

    void render_gaps(const Summary& summary) {
        std::vector<std::string> texts;
        for (const Gap& gap : summary.gaps) texts.push_back(gap_text(gap));
        render_gap_texts(screen_, texts);
    }

    ReportOptions options_;
    Output out_;
    Screen screen_;
    Columns columns_;
    std::vector<Cell> cells_;
    std::optional<std::size_t> last_; ///< field of the last column, which takes what is left
    std::string_view last_title_;
    std::size_t last_width_ = 0;
    std::vector<Record> waiting_;
    Per per_ = Per::process;
    bool first_ = true, decided_ = false;
};

} // namespace

ScanSink make_scan_table_sink(std::ostream& out, const ReportOptions& options) {
    return bind_scan_sink(std::make_shared<ScanTableSink>(out, options));
}

} // namespace pagesift::report
