// SPDX-License-Identifier: MIT
#include "report/diff_sections.hpp"
#include "report/sections.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

constexpr std::size_t label_width = 20;

/// Words for people: what became of pages that were full of zeroes, and of others.
std::string fate_label(Fate fate, bool zero) {
    switch (fate) {
    case Fate::zero_filled: return zero ? "still zero-filled" : "now zero-filled";
    case Fate::other_content: return zero ? "written" : "still there";
    case Fate::contents_unread: return "there, not read";
    case Fate::zero_page: return "zero page";
    case Fate::merged: return "merged by KSM";
    case Fate::swapped: return "swapped out";
    case Fate::cached: return "page cache only";
    case Fate::freed: return "freed";
    case Fate::unmapped: return "unmapped";
    case Fate::other: return "something else";
    case Fate::unknown: break;
    }
    return "unknown";
}

/// What is known to be full of zeroes is no part of the second sort.
std::string sort_label(const ProcessDiff& diff, bool zero) {
    if (zero) return "zero-filled pages";
    return diff.before.want.zero == ZeroTest::off ? "anonymous pages" : "other anonymous pages";
}

/// The class that lends a fate its colour.
std::size_t colour_of(Fate fate) {
    const auto kind = [](Kind k) { return class_of(State::present, k); };
    const auto state = [](State s) { return class_of(s, Kind::not_present); };
    switch (fate) {
    case Fate::zero_filled: return kind(Kind::zero_filled);
    case Fate::other_content:
    case Fate::contents_unread: return kind(Kind::anon);
    case Fate::zero_page: return kind(Kind::zero_page);
    case Fate::merged: return kind(Kind::ksm);
    case Fate::swapped: return state(State::swapped);
    case Fate::cached: return state(State::cached);
    case Fate::freed:
    case Fate::unmapped: return state(State::none);
    case Fate::other: return state(State::marker);
    case Fate::unknown: break;
    }
    return state(State::unknown);
}

void render_fates(const Screen& screen, const ProcessDiff& diff, const Fates& fates, bool zero) {
    const Style& style = screen.style;
    const std::uint64_t page_size = diff.after.host.page_size;
    const auto bytes = [&](std::uint64_t pages) { return screen.amounts(pages * page_size); };
    screen.line();
    const std::string title = style.bold("What became of " + sort_label(diff, zero));
    if (!sort_pages(diff, fates)) {
        screen.line(title);
        return screen.line("  ?  contents were not read before");
    }
    const std::string pages = fmt::format("{} page{}", fates.pages, fates.pages == 1 ? "" : "s");
    const bool counted = screen.options.unit == Unit::pages;
    screen.line(title + ": " +
                (fates.pages == 0 ? "there were none"
                 : counted        ? pages
                                  : fmt::format("{} in {}", bytes(fates.pages), pages)));
    const std::size_t amount = screen.amounts.width(fates.pages * page_size);
    const std::size_t used = label_width + amount + 12;
    const std::size_t bar =
        screen.width() > used ? std::min<std::size_t>(screen.width() - used, 40) : 0;
    for (std::size_t i = 0; i < fate_count; ++i) {
        const auto fate = static_cast<Fate>(i);
        if (fates.of(fate) == 0) continue;
        const double share = static_cast<double>(fates.of(fate)) / static_cast<double>(fates.pages);
        std::string line = "  " + pad_right(fate_label(fate, zero), label_width - 2);
        line += pad_left(bytes(fates.of(fate)), amount) + "  ";
        line += pad_left(percent(fates.of(fate), fates.pages), 6) + "  ";
        line += style.bar(colour_of(fate), share, bar);
        line.erase(line.find_last_not_of(' ') + 1);
        screen.line(line);
    }
    if (fates.unread_pages == 0) return;
    screen.wrapped(
        style.dim(fmt::format("  ? {} more were not read before, or their kind is not known",
                              bytes(fates.unread_pages))),
        4);
}

/// BEFORE, AFTER and CHANGE of all classes that occur.
class FigureTable {
public:
    FigureTable(const Screen& screen, const ProcessDiff& diff)
        : screen_(screen),
          changes_(total_changes(diff)),
          columns_(screen.width()),
          page_size_(diff.after.host.page_size) {
        std::uint64_t largest = 0;
        for (const Change& c : changes_)
            largest = std::max({largest, c.before.value_or(0), c.after.value_or(0)});
        const std::size_t amount = screen.amounts.width(largest);
        columns_.add("", 18);
        columns_.add("BEFORE", amount, Align::right);
        columns_.add("AFTER", amount, Align::right);
        columns_.add("CHANGE", amount + 1, Align::right);
    }

    void draw() const {
        screen_.line(screen_.style.dim(columns_.header("")));
        for (const auto& [name, label] :
             {std::pair{"size", "size"}, {"rss", "RSS"}, {"pss", "PSS"}, {"swap", "swap"}})
            row(find(changes_, "totals", name), label);
        screen_.line();
        draw_states();
        screen_.line();
        draw_tables();
    }

private:
    void draw_states() const {
        // Present and its kinds first, none last, as in the other tables.
        row(find(changes_, "states", "present"), "present");
        for (const Change& c : changes_)
            if (c.section == "kinds" && occurs(c)) row(c, "  " + name_of(c, kind_table()));
        for (const Change& c : changes_) {
            const bool own_line = c.name == "present" || c.name == "none";
            if (c.section != "states" || own_line || !occurs(c)) continue;
            row(c, name_of(c, state_table()));
            if (c.name != "marker") continue;
            for (const Change& m : changes_)
                if (m.section == "markers" && occurs(m)) row(m, "  " + name_of(m, marker_table()));
        }
        row(find(changes_, "states", "none"), "none");
    }

    void draw_tables() const {
        row(find(changes_, "page_tables", "total"), "page tables");
        for (const auto& [name, label] :
             {std::pair{"empty", "  empty"}, {"marker_only", "  marker-only"}}) {
            Change c = find(changes_, "page_tables", name);
            if (c.before) *c.before *= page_size_;
            if (c.after) *c.after *= page_size_;
            if (occurs(c)) row(c, label);
        }
    }

    /// Not known counts, but for a refinement: what hides ksm-zero hides another kind too.
    static bool occurs(const Change& c) {
        if (!c.before && !c.after) return c.name != "ksm_zero";
        return c.before.value_or(1) != 0 || c.after.value_or(1) != 0;
    }

    template <class Table> static std::string name_of(const Change& change, const Table& table) {
        for (const Word& word : table)
            if (word.field == change.name) return std::string{word.name};
        return std::string{change.name};
    }

    void row(const Change& c, std::string_view label) const {
        const Style& style = screen_.style;
        const auto delta = c.delta();
        std::string line = columns_.row({std::string{label}, screen_.amounts(c.before),
                                         screen_.amounts(c.after), signed_amount(screen_, delta)},
                                        "");
        if (!delta || *delta == 0) line = style.dim(line);
        screen_.line(line);
    }

    const Screen& screen_;
    std::vector<Change> changes_;
    Columns columns_;
    std::uint64_t page_size_;
};

void render_gaps(const Screen& screen, const ProcessDiff& diff) {
    std::vector<std::string> lines;
    for (const auto& [gap, picture] : all_gaps(diff)) {
        // The comparison says the same of contents, for both.
        const bool said = gap->source == "contents" && picture != "both" && !gap->range;
        if (said && !diff.gaps.empty()) continue;
        const std::string text =
            gap_text(*gap, picture == "both" ? "" : fmt::format(" ({})", picture));
        if (std::find(lines.begin(), lines.end(), text) == lines.end()) lines.push_back(text);
    }
    if (lines.empty()) return;
    screen.line();
    render_gap_texts(screen, lines);
}

/// For people. Ranges and mappings, where asked for, take the place of the summary.
class DiffTableSink {
public:
    DiffTableSink(std::ostream& out, const ReportOptions& options, PictureNames names)
        : options_(options), names_(std::move(names)), out_(out) {}

    void begin(const ProcessText& before, const ProcessText& after) {
        if (!first_) out_.put('\n');
        first_ = false;
        const Screen screen = screen_for(4096);
        render_title(screen, after);
        if (!before.comm.empty() && before.comm != after.comm)
            screen.line("was called " + screen.foreign(before.comm, 32));
        listing_.reset();
        if (options_.ranges) listing_.emplace(screen);
    }

    void range(const ChangedRange& changed) {
        if (listing_) listing_->add(changed);
    }

    void end(const ProcessDiff& diff) {
        const Screen screen = screen_for(diff.after.host.page_size);
        if (listing_) {
            listing_->finish();
            screen.line();
        }
        render_pictures(screen, diff);
        if (options_.mappings) {
            screen.line();
            render_changed_pairs(screen, diff);
        } else if (!options_.ranges) {
            screen.line();
            FigureTable{screen, diff}.draw();
            render_fates(screen, diff, diff.zero_filled, true);
            render_fates(screen, diff, diff.anon, false);
            render_top_transitions(screen, diff);
            render_top_pairs(screen, diff);
        }
        render_gaps(screen, diff);
        out_.flush();
    }

    void only(const ProcessText& process, Picture picture) {
        if (!first_) out_.put('\n');
        first_ = false;
        const Screen screen = screen_for(4096);
        render_title(screen, process);
        const std::string& name = picture == Picture::before ? names_.before : names_.after;
        screen.line("is only in " + screen.foreign(name, screen.width() - 11));
    }

    void finish() { out_.flush(); }

private:
    void render_pictures(const Screen& screen, const ProcessDiff& diff) const {
        for (const bool after : {false, true}) {
            const Census& census = after ? diff.after : diff.before;
            std::string how = fmt::format(", {} lens", escape_text(census.lens));
            if (!census.host.release.empty()) how += ", Linux " + escape_text(census.host.release);
            how += census.want.zero == ZeroTest::all   ? ", contents read"
                   : census.want.zero == ZeroTest::off ? ", contents not read"
                                                       : ", a sample of contents read";
            const std::size_t room = screen.width() - 8;
            const std::size_t name = room > how.size() + 8 ? room - how.size() : room;
            std::string line = after ? "after   " : "before  ";
            line += screen.foreign(after ? names_.after : names_.before, name);
            if (name < room) line += how;
            screen.line(screen.style.dim(line));
            if (census.interrupted)
                screen.wrapped(screen.style.warn("interrupted: what was seen until then"), 2);
        }
        for (const std::string& note : diff.notes) screen.wrapped(screen.style.warn(note), 2);
    }

    Screen screen_for(std::uint64_t page_size) {
        return {&out_, options_, Style{options_}, Amounts{options_.unit, page_size}};
    }

    ReportOptions options_;
    PictureNames names_;
    Output out_;
    bool first_ = true;
    std::optional<RangeListing> listing_;
};

} // namespace

DiffSink make_diff_table_sink(std::ostream& out, const ReportOptions& options, PictureNames names) {
    return bind_diff_sink(std::make_shared<DiffTableSink>(out, options, std::move(names)));
}

DiffSink make_diff_sink(std::ostream& out, const ReportOptions& options, PictureNames names) {
    switch (options.format) {
    case Format::json: return make_diff_json_sink(out, options, std::move(names));
    case Format::ndjson: return make_diff_ndjson_sink(out, options, std::move(names));
    case Format::csv: return make_diff_csv_sink(out, options);
    case Format::openmetrics: // the command line does not offer it
    case Format::table: break;
    }
    return make_diff_table_sink(out, options, std::move(names));
}

} // namespace pagesift::report
