// SPDX-License-Identifier: MIT
#include "report/sections.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

constexpr std::size_t label_width = 16;
constexpr std::size_t share_width = 6;

std::size_t longest_meaning() {
    std::size_t longest = 0;
    for (const Word& word : state_table()) longest = std::max(longest, word.meaning.size());
    for (const Word& word : kind_table()) longest = std::max(longest, word.meaning.size());
    return longest;
}

/// One line: label, figure, share of `whole`, bar, note.
struct Row {
    std::string label;
    std::size_t cls; ///< its colour
    std::optional<std::uint64_t> bytes;
    std::uint64_t whole = 0; ///< 0: no share, no bar
    std::string note;
    std::string_view meaning; ///< shown in place of a note where there is room for any
};

/// Where figures, bars and notes go at this width.
class Chart {
public:
    Chart(const Screen& screen, std::uint64_t largest)
        : screen_(&screen), amount_(screen.amounts.width(largest)) {
        const std::size_t fixed = label_width + amount_ + share_width + 4;
        const std::size_t room = screen.width() > fixed + 4 ? screen.width() - fixed : 4;
        bar_ = room < 36 ? room : std::clamp<std::size_t>(room / 3, 16, 28);
        note_ = room > bar_ + 10 ? room - bar_ - 2 : 0;
        meanings_ = note_ >= longest_meaning();
    }

    void draw(const Row& row) const {
        const Style& style = screen_->style;
        const bool bar = row.whole != 0 && row.bytes.value_or(0) != 0;
        const std::string label = pad_right(row.label, label_width);
        const std::string amount = pad_left(screen_->amounts(row.bytes), amount_);
        std::string line = row.label.starts_with(' ') ? label : style.bold(label);
        line += row.bytes ? amount : style.warn(amount);
        line += "  " + pad_left(bar ? percent(*row.bytes, row.whole) : "", share_width) + "  ";
        std::size_t note = bar_ + (note_ == 0 ? 0 : note_ + 2);
        if (bar) {
            line += style.bar(row.cls, share(row), bar_);
            note = note_;
            if (note != 0) line += "  ";
        }
        if (!row.note.empty() && note != 0)
            line += style.dim(shorten(row.note, note, Keep::start, style.unicode()));
        else if (row.note.empty() && meanings_)
            line += style.dim(row.meaning);
        line.erase(line.find_last_not_of(' ') + 1);
        screen_->line(line);
    }

private:
    static double share(const Row& row) {
        return static_cast<double>(*row.bytes) / static_cast<double>(row.whole);
    }

    const Screen* screen_;
    std::size_t amount_, bar_, note_;
    bool meanings_; ///< all or none, so that the column looks the same everywhere
};

std::string label_of(std::size_t cls) {
    const std::string word{class_word(cls)};
    const bool kind = cls >= state_count;
    if (word == "?") return kind ? "  unknown" : "unknown";
    return kind ? "  " + word : word;
}

std::string note_of_thp(const Census& census) {
    const auto& orders = census.totals.folio_order_pages;
    std::size_t most = 0;
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < orders.size(); ++i) {
        all += orders[i];
        if (orders[i] > orders[most]) most = i;
    }
    if (all == 0) return {};
    std::string note = fmt::format("{} in folios of {}", percent(orders[most], all),
                                   human_bytes(census.host.page_size << most));
    if (census.totals.folio_unaligned_pages != 0)
        note += fmt::format(", {} unaligned", percent(census.totals.folio_unaligned_pages, all));
    return note;
}

std::string note_of_ksm(const Census& census) {
    const Tally& t = census.totals;
    const std::uint64_t pages =
        t.kind_pages(Kind::ksm) + t.kind_pages(Kind::ksm_sole) + t.kind_pages(Kind::ksm_zero);
    if (t.ksm_sharer_pages == 0) return {};
    return fmt::format("{:.1f} sharers a page", static_cast<double>(pages) * 4096.0 /
                                                    static_cast<double>(t.ksm_sharer_pages));
}

std::string note_of_zero(const Census& census) {
    const auto estimate = zero_estimate(census);
    if (!estimate) return "contents not read: --zero all";
    if (census.want.zero == ZeroTest::all) return {};
    return fmt::format("{:.1f}% to {:.1f}% of {} in a sample", estimate->share.low * 100,
                       estimate->share.high * 100,
                       human_bytes(estimate->candidate_pages * census.host.page_size));
}

std::string note_of_markers(const Figures& figures, const Amounts& amounts) {
    std::string note;
    for (std::size_t i = 1; i < marker_count; ++i)
        if (figures.markers[i] != 0)
            note += fmt::format("{}{} {}", note.empty() ? "" : ", ", marker_table()[i].name,
                                amounts(figures.markers[i]));
    return note;
}

std::string note_of(const Census& census, const Figures& figures, const Screen& screen,
                    std::size_t cls) {
    if (cls == class_of(State::present, Kind::thp)) return note_of_thp(census);
    if (cls == class_of(State::present, Kind::ksm)) return note_of_ksm(census);
    if (cls == class_of(State::marker, Kind::not_present))
        return note_of_markers(figures, screen.amounts);
    return {};
}

std::string_view meaning_of(std::size_t cls) {
    return cls < state_count ? state_table()[cls].meaning : kind_table()[cls - state_count].meaning;
}

/// Rows of kinds by size, then of the kinds that could not be recognised.
void draw_kinds(const Screen& screen, const Chart& chart, const Census& census,
                const Figures& figures, std::uint64_t whole) {
    const KnownKinds known{census};
    std::vector<Kind> kinds;
    for (std::size_t i = 0; i < kind_count; ++i) kinds.push_back(static_cast<Kind>(i));
    std::stable_sort(kinds.begin(), kinds.end(),
                     [&](Kind a, Kind b) { return figures.of(a) > figures.of(b); });
    for (const Kind kind : kinds) {
        const std::size_t cls = class_of(State::present, kind);
        const auto bytes = known.bytes(figures, kind);
        if (bytes && *bytes != 0)
            chart.draw({label_of(cls), cls, bytes, whole, note_of(census, figures, screen, cls),
                        meaning_of(cls)});
    }
    for (const Kind kind : kinds) {
        // ksm-zero is a refinement; what hides it hides one of the others too.
        if (known.bytes(figures, kind) || kind == Kind::ksm_zero) continue;
        const bool contents = kind == Kind::zero_filled;
        chart.draw({label_of(class_of(State::present, kind)),
                    0,
                    {},
                    0,
                    contents               ? note_of_zero(census)
                    : !census.frames_known ? "page flags are hidden"
                                           : "this kernel's flag cannot be trusted",
                    {}});
    }
}

void draw_states(const Screen& screen, const Chart& chart, const Census& census,
                 const Figures& figures) {
    const std::uint64_t whole = figures.size - figures.of(State::none);
    std::vector<State> states;
    for (std::size_t i = 0; i < state_count; ++i) states.push_back(static_cast<State>(i));
    const auto rank = [&](State s) {
        return s == State::present ? ~std::uint64_t{0} : s == State::none ? 0 : figures.of(s);
    };
    std::stable_sort(states.begin(), states.end(),
                     [&](State a, State b) { return rank(a) > rank(b); });
    for (const State state : states) {
        if (figures.of(state) == 0) continue;
        const std::size_t cls = class_of(state, Kind::not_present);
        chart.draw({label_of(cls), cls, figures.of(state), state == State::none ? 0 : whole,
                    note_of(census, figures, screen, cls), meaning_of(cls)});
        if (state == State::present) draw_kinds(screen, chart, census, figures, whole);
    }
}

std::string tables_text(std::uint64_t count) {
    return fmt::format("{} table{}", count, count == 1 ? "" : "s");
}

std::string empty_tables_note(const PageTables& tables, const HostFacts& host) {
    if (tables.partial) return "only a part of the address space was looked at";
    if (!tables.empty_tables && !tables.total_bytes) return "VmPTE is not known";
    if (tables.empty_tables == std::uint64_t{0}) return {};
    std::string note;
    if (tables.empty_tables) note = tables_text(*tables.empty_tables);
    if (!tables.located_tables) return note + ", their places are unknown";
    return fmt::format("{}: {} located, {} reclaimable, {} spanning", note, *tables.located_tables,
                       tables.reclaimable_bytes.value_or(0) / host.page_size,
                       tables.spanning_tables.value_or(0));
}

void draw_tables(const Chart& chart, const Census& census) {
    const PageTables& t = census.tables;
    const std::uint64_t page = census.host.page_size;
    const std::size_t colour = class_of(State::marker, Kind::not_present);
    const std::uint64_t total = t.total_bytes.value_or(0);
    chart.draw({"page tables",
                colour,
                t.total_bytes,
                0,
                t.partial || !t.total_bytes
                    ? ""
                    : fmt::format("{}, {} needed", tables_text(total / page), t.needed_tables),
                {}});
    const auto empty = t.empty_tables ? std::optional{*t.empty_tables * page} : std::nullopt;
    chart.draw({"  empty",
                class_of(State::present, Kind::zero_filled),
                empty,
                0,
                empty_tables_note(t, census.host),
                {}});
    if (t.marker_only_tables != 0)
        chart.draw({"  marker-only",
                    colour,
                    t.marker_only_tables * page,
                    0,
                    tables_text(t.marker_only_tables) + " that hold markers and no page",
                    {}});
}

/// What KSM does for this process, and how the machine has it set.
void render_ksm(const Screen& screen, const Census& census) {
    const auto stat = procfs::parse_key_values(census.process.ksm_stat);
    const auto of = [&](std::string_view key) -> std::optional<std::int64_t> {
        const auto found = stat.find(key);
        return found == stat.end() ? std::nullopt : std::optional{found->second};
    };
    // Figures that an older kernel does not have are unknown, not 0.
    const auto count = [&](std::string_view key) {
        return of(key) ? fmt::format("{}", *of(key)) : "?";
    };
    const auto size = [](std::optional<std::int64_t> bytes) -> std::string {
        if (!bytes) return "?";
        const auto amount = static_cast<std::uint64_t>(*bytes < 0 ? -*bytes : *bytes);
        return (*bytes < 0 ? "-" : "") + human_bytes(amount);
    };
    if (of("ksm_merging_pages").value_or(0) <= 0 && of("ksm_zero_pages").value_or(0) <= 0) return;
    std::string text =
        fmt::format("KSM: {} merged pages, {} as zero page, profit {}", count("ksm_merging_pages"),
                    count("ksm_zero_pages"), size(of("ksm_process_profit")));
    const auto setting = [&](const std::string& name) {
        const auto found = census.host.settings.find("ksm/" + name);
        if (found != census.host.settings.end())
            text += fmt::format(", {}={}", name, escape_text(found->second));
    };
    setting("run");
    setting("use_zero_pages");
    screen.wrapped(text, 2);
}

void render_savings(const Screen& screen, const Census& census) {
    constexpr std::size_t indent = 11;
    const auto savings = find_savings(census);
    screen.line(screen.style.bold("What could be given back"));
    if (savings.empty()) screen.line("         -  nothing was found");
    for (const Saving& saving : savings) {
        screen.line(
            fmt::format("{}  {}", pad_left(screen.amounts(saving.bytes), indent - 1), saving.what));
        for (const std::string* text : {&saving.command, &saving.note}) {
            const bool command = text == &saving.command;
            const std::string lines = wrap(*text, screen.width() - indent - 1, 0);
            for (std::size_t at = 0; at < lines.size();) {
                const std::size_t end = std::min(lines.find('\n', at), lines.size());
                const auto line = lines.substr(at, end - at);
                screen.line(std::string(indent + 1, ' ') +
                            (command ? line : screen.style.dim(line)));
                at = end + 1;
            }
        }
    }
    if (census.want.zero == ZeroTest::off && census.totals.content_candidates != 0)
        screen.line(pad_left("?", indent - 1) +
                    "  zero-filled pages: --zero sample=1% estimates, --zero all tells");
}

} // namespace

void render_title(const Screen& screen, const ProcessText& process) {
    const std::string comm = process.comm.empty() ? "?" : screen.foreign(process.comm, 32);
    const std::string pid = fmt::format("pid {}", process.pid);
    std::string line = screen.style.bold(comm) + "  " + pid;
    const std::size_t used = display_width(comm) + pid.size() + 4;
    if (!process.exe.empty() && screen.width() > used + 8)
        line += "  " + screen.foreign(process.exe, screen.width() - used);
    screen.line(line);
}

void render_heading(const Screen& screen, const Census& census) {
    const RollupFigures rollup = rollup_figures(census);
    const Amounts& amounts = screen.amounts;
    const Figures figures = figures_of(census.totals, census.host.page_size);
    std::size_t mappings = 0;
    bool whole = true;
    for (const MappingCensus& m : census.mappings) {
        mappings += m.tally.pages() != 0;
        whole = whole && m.whole;
    }
    screen.wrapped(fmt::format("RSS {}, PSS {}, swap {}; {} in {} mapping{}{}", amounts(rollup.rss),
                               amounts(rollup.pss), amounts(rollup.swap), amounts(figures.size),
                               mappings, mappings == 1 ? "" : "s", whole ? "" : ", a part of all"),
                   2);
    const double ms = census.elapsed_seconds * 1000;
    std::string look = fmt::format("{} lens, {}", escape_text(census.lens),
                                   ms >= 1000 ? fmt::format("{:.1f} s", ms / 1000)
                                   : ms >= 10 ? fmt::format("{:.0f} ms", ms)
                                              : fmt::format("{:.1f} ms", ms));
    if (!census.host.release.empty()) look += ", Linux " + escape_text(census.host.release);
    screen.line(
        screen.style.dim(shorten(look, screen.width(), Keep::start, screen.style.unicode())));
    if (census.interrupted)
        screen.wrapped(screen.style.warn("interrupted: what was seen until then"), 2);
}

void render_summary(const Screen& screen, const Census& census) {
    const Figures figures = figures_of(census.totals, census.host.page_size);
    const Chart chart{screen, figures.size};
    draw_states(screen, chart, census, figures);
    screen.line();
    draw_tables(chart, census);
    render_ksm(screen, census);
    screen.line();
    render_savings(screen, census);
}

void render_footer(const Screen& screen, const Census& census) { render_gaps(screen, census.gaps); }

void render_gaps(const Screen& screen, std::span<const Gap> gaps) {
    std::vector<std::pair<const Gap*, std::size_t>> different;
    for (const Gap& gap : gaps) {
        const auto same = std::find_if(different.begin(), different.end(), [&](const auto& known) {
            return known.first->source == gap.source && known.first->reason == gap.reason &&
                   known.first->remedy == gap.remedy;
        });
        if (same == different.end())
            different.emplace_back(&gap, 1);
        else
            ++same->second;
    }
    if (different.empty()) return;
    screen.line();
    std::vector<std::string> texts;
    texts.reserve(different.size());
    for (const auto& [gap, count] : different)
        texts.push_back(gap_text(
            *gap, count > 1 ? fmt::format(" ({} ranges)", count)
                  : gap->range
                      ? fmt::format(" ({:x}-{:x})", gap->range->start.value, gap->range->end.value)
                      : ""));
    render_gap_texts(screen, texts);
}

} // namespace pagesift::report
