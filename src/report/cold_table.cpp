// SPDX-License-Identifier: MIT
// Ages for people. Ranges or the map, where asked for, take the place of the summary.
#include "report/cold_map.hpp"
#include "report/cold_sinks.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

using cold::Ages;
using cold::Range;

constexpr std::size_t label_width = 18;
constexpr std::size_t most_steps = 8;

/// "30 s", "1.2 s": rounded down, as idle times are.
std::string about(double seconds) {
    if (seconds >= 100 || seconds == std::floor(seconds))
        return fmt::format("{} s", static_cast<std::uint64_t>(seconds));
    return fmt::format("{:.1f} s", std::floor(seconds * 10) / 10);
}

std::string milliseconds(double seconds) {
    const double ms = seconds * 1e3;
    return ms < 10 ? fmt::format("{:.2f} ms", ms) : fmt::format("{:.0f} ms", ms);
}

/// What one mapping, or one kind, has.
struct Sums {
    std::uint64_t all = 0, cold = 0, idle = 0, accessed = 0, no_sign = 0, unknown = 0;
};

std::string what(State state, Kind kind) {
    return std::string{kind == Kind::not_present ? word_of(state).name : word_of(kind).name};
}

class ColdTableSink {
public:
    ColdTableSink(std::ostream& out, const ReportOptions& options) : options_(options), out_(out) {}

    void begin(const Ages& ages) {
        if (!first_) out_.put('\n');
        first_ = false;
        mappings_.assign(ages.mappings.size(), Sums{});
        map_.reset();
        any_range_ = false;
        if (options_.map) map_.emplace(ages.page_size);
        const Screen screen = screen_for(ages);
        render_title(screen, ages);
        if (options_.ranges) {
            screen.line();
            columns_.emplace(screen.width());
            columns_->add("ADDRESS", 25);
            columns_->add("SIZE", screen.amounts.width(largest(ages)), Align::right);
            columns_->add("WHAT", 10);
            columns_->add("IDLE", 12, Align::right);
            screen.line(screen.style.dim(columns_->header("NAME")));
        }
    }

    void range(const Ages& ages, const Range& range) {
        Sums& sums = mappings_[range.mapping];
        const std::uint64_t bytes = range.range.size().value;
        sums.all += bytes;
        if (!range.idle_seconds)
            (range.activity == cold::Activity::idle ? sums.no_sign : sums.unknown) += bytes;
        else if (range.activity == cold::Activity::accessed)
            sums.accessed += bytes;
        else
            (*range.idle_seconds >= longest(ages) ? sums.cold : sums.idle) += bytes;
        if (map_) map_->add(ages, range);
        if (options_.ranges) list(ages, range);
    }

    void end(const Ages& ages) {
        const Screen screen = screen_for(ages);
        if (options_.ranges && !any_range_) screen.line("nothing matches");
        if (map_) {
            screen.line();
            map_->render(screen);
        }
        if (!options_.ranges && !map_) {
            render_steps(screen, ages);
            render_kinds(screen, ages);
            render_mappings(screen, ages);
        }
        render_source(screen, ages);
        render_gaps(screen, ages);
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    /// The longest idle time that a page can have.
    static double longest(const Ages& ages) { return ages.steps[ages.first_step()]; }
    /// Whether there are idle times that are shorter.
    static bool has_shorter(const Ages& ages) {
        return ages.source.proves_idle && ages.first_step() + 2 < ages.steps.size();
    }

    static std::uint64_t largest(const Ages& ages) {
        std::uint64_t most = 0;
        for (const cold::Place& place : ages.mappings)
            most = std::max(most, place.range.size().value);
        return most;
    }

    void render_title(const Screen& screen, const Ages& ages) const {
        const auto& who = ages.identity;
        const std::string comm = who.comm.empty() ? "?" : screen.foreign(who.comm, 32);
        const std::string pid = fmt::format("pid {}", who.pid);
        std::string line = screen.style.bold(comm) + "  " + pid;
        const std::size_t used = display_width(comm) + pid.size() + 4;
        if (!who.exe.empty() && screen.width() > used + 8)
            line += "  " + screen.foreign(who.exe, screen.width() - used);
        screen.line(line);
        screen.wrapped(screen.style.dim(fmt::format("watched for {} in {} round{}, source {}",
                                                    about(ages.window_seconds), ages.rounds,
                                                    ages.rounds == 1 ? "" : "s", ages.source.name)),
                       2);
        if (ages.interrupted)
            screen.wrapped(screen.style.warn("interrupted: the window is shorter than asked for"),
                           2);
    }

    void list(const Ages& ages, const Range& range) {
        any_range_ = true;
        const Screen screen = screen_for(ages);
        const std::string idle =
            range.idle_seconds
                ? *range.idle_seconds > 0 ? ">= " + about(*range.idle_seconds) : "accessed"
            : range.activity == cold::Activity::idle ? "no sign"
                                                     : "?";
        const auto addresses =
            fmt::format("{:x}-{:x}", range.range.start.value, range.range.end.value);
        screen.line(
            columns_->row({addresses, screen.amounts(range.range.size().value),
                           what(range.state, range.kind), idle},
                          screen.foreign(ages.mappings[range.mapping].name, columns_->rest())));
    }

    /// One bar an age; of many steps, several share one.
    void render_steps(const Screen& screen, const Ages& ages) const {
        std::vector<std::uint64_t> bytes(ages.steps.size(), 0);
        std::uint64_t no_sign = 0;
        for (const cold::HistogramRow& row : ages.histogram) {
            for (std::size_t j = 0; j < bytes.size(); ++j) bytes[j] += row.bytes[j];
            no_sign += row.no_sign_bytes;
        }
        const std::uint64_t all = ages.all_bytes();
        screen.line();
        if (all == 0) return screen.line("nothing that has an age");
        const std::size_t rounds = ages.steps.size() - 1;
        const std::size_t first = ages.first_step();
        const std::size_t group = (rounds - first + most_steps - 1) / most_steps;
        if (ages.source.proves_idle)
            for (std::size_t j = first; j < rounds;) {
                // The oldest is never put together with others: it is what was asked for.
                const std::size_t next = j == first ? j + 1 : std::min(j + group, rounds);
                std::uint64_t sum = 0;
                for (std::size_t i = j; i < next; ++i) sum += bytes[i];
                bar(screen, "idle >= " + about(ages.steps[next - 1]), sum, all,
                    ages.steps[j] / std::max(ages.window_seconds, 0.001), j == first);
                j = next;
            }
        else
            bar(screen, "no sign of access", no_sign, all, 0.5, false);
        bar(screen, ages.source.reads_seen ? "accessed" : "written", bytes.back(), all, 0, false);
        bar(screen, "unknown", ages.unknown_bytes(), all, 0.5, false);
    }

    static void bar(const Screen& screen, const std::string& label, std::uint64_t bytes,
                    std::uint64_t all, double age, bool bold) {
        const Style& style = screen.style;
        const std::string padded = pad_right(label, label_width);
        const std::size_t amount = screen.amounts.width(all);
        const std::size_t used = label_width + amount + 12;
        const std::size_t room =
            screen.width() > used ? std::min<std::size_t>(screen.width() - used, 40) : 0;
        std::string line = bold ? style.bold(padded) : padded;
        line += pad_left(screen.amounts(bytes), amount) + "  ";
        line += pad_left(bytes == 0 ? "" : percent(bytes, all), 6) + "  ";
        const double share = static_cast<double>(bytes) / static_cast<double>(all);
        const auto filled =
            static_cast<std::size_t>(std::ceil(share * static_cast<double>(room) - 1e-9));
        std::string blocks;
        for (std::size_t i = 0; i < filled; ++i) blocks += style.unicode() ? "█" : "#";
        line += style.heat(age, blocks);
        line.erase(line.find_last_not_of(' ') + 1);
        screen.line(line);
    }

    static void add_columns(const Screen& screen, const Ages& ages, Columns& columns) {
        const std::size_t amount = screen.amounts.width(ages.all_bytes());
        std::vector<std::string_view> titles{"ALL", ages.source.proves_idle ? "IDLE" : "NO SIGN"};
        if (has_shorter(ages)) titles.emplace_back("IN PART");
        titles.emplace_back(ages.source.reads_seen ? "ACCESSED" : "WRITTEN");
        titles.emplace_back("UNKNOWN");
        for (const std::string_view title : titles) columns.add(title, amount, Align::right);
    }

    static void add_cells(const Screen& screen, const Ages& ages, const Sums& sums,
                          std::vector<std::string>& cells) {
        cells.push_back(screen.amounts(sums.all));
        cells.push_back(screen.amounts(ages.source.proves_idle ? sums.cold : sums.no_sign));
        if (has_shorter(ages)) cells.push_back(screen.amounts(sums.idle));
        cells.push_back(screen.amounts(sums.accessed));
        cells.push_back(screen.amounts(sums.unknown));
    }

    void render_kinds(const Screen& screen, const Ages& ages) const {
        if (ages.histogram.empty()) return;
        screen.line();
        Columns columns{screen.width()};
        columns.add("KIND", 10);
        add_columns(screen, ages, columns);
        screen.line(screen.style.dim(columns.header("")));
        for (const cold::HistogramRow& row : ages.histogram) {
            Sums sums;
            sums.unknown = row.unknown_bytes;
            sums.no_sign = row.no_sign_bytes;
            sums.accessed = row.bytes.back();
            const std::size_t first = ages.first_step();
            sums.cold = row.bytes.size() > first + 1 ? row.bytes[first] : 0;
            for (std::size_t j = first + 1; j + 1 < row.bytes.size(); ++j)
                sums.idle += row.bytes[j];
            sums.all = sums.unknown + sums.no_sign + sums.accessed + sums.cold + sums.idle;
            std::vector<std::string> cells{what(row.state, row.kind)};
            add_cells(screen, ages, sums, cells);
            screen.line(columns.row(cells, ""));
        }
        render_legend(screen, ages);
    }

    static void render_legend(const Screen& screen, const Ages& ages) {
        if (!ages.source.proves_idle) return;
        const std::string accessed = ages.source.reads_seen ? "accessed" : "written";
        std::string text =
            fmt::format("IDLE: not {} in the last {}", accessed, about(longest(ages)));
        if (has_shorter(ages))
            text += fmt::format("; IN PART: {} in them, but not in the last round", accessed);
        screen.wrapped(screen.style.dim(text), 2);
    }

    void render_mappings(const Screen& screen, const Ages& ages) const {
        std::vector<std::size_t> order;
        const auto weight = [&](std::size_t i) {
            return ages.source.proves_idle ? mappings_[i].cold : mappings_[i].no_sign;
        };
        for (std::size_t i = 0; i < mappings_.size(); ++i)
            if (weight(i) != 0) order.push_back(i);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return weight(a) > weight(b); });
        const std::size_t shown = std::min(options_.top, order.size());
        if (shown == 0) return;
        screen.line();
        screen.line(screen.style.bold(
                        ages.source.proves_idle
                            ? fmt::format("Mappings idle for at least {}", about(longest(ages)))
                            : "Mappings without a sign of access") +
                    (shown < order.size() ? fmt::format(", {} of {}", shown, order.size()) : ""));
        Columns columns{screen.width()};
        columns.add("ADDRESS", 12);
        add_columns(screen, ages, columns);
        screen.line(screen.style.dim(columns.header("NAME")));
        for (std::size_t i = 0; i < shown; ++i) {
            const cold::Place& place = ages.mappings[order[i]];
            std::vector<std::string> cells{fmt::format("{:x}", place.range.start.value)};
            add_cells(screen, ages, mappings_[order[i]], cells);
            screen.line(columns.row(cells, screen.foreign(place.name, columns.rest())));
        }
    }

    void render_source(const Screen& screen, const Ages& ages) const {
        const Style& style = screen.style;
        screen.line();
        const cold::ClearCost& clear = ages.clear;
        if (clear.times > 0) {
            screen.wrapped(
                style.dim(fmt::format(
                    "cleared {} time{} in {}; under its mmap lock at most {}, {} at once",
                    clear.times, clear.times == 1 ? "" : "s", milliseconds(clear.total_seconds),
                    milliseconds(clear.locked_seconds),
                    milliseconds(clear.longest_locked_seconds))),
                2);
            if (clear.blind_seconds > 0)
                screen.wrapped(
                    style.dim(fmt::format(
                        "blind for {} in all, between the end of a round and the next: an access "
                        "there left no trace, so idle times go back to the last clearing only, "
                        "however many rounds there are; one round (no --interval) goes back to the "
                        "beginning of the window",
                        milliseconds(clear.blind_seconds))),
                    2);
        }
        screen.wrapped(style.dim(fmt::format("{}: {}", ages.source.name, ages.source.method)), 2);
        for (const std::string& limit : ages.source.limits)
            screen.wrapped(style.dim("- " + limit), 2);
        if (ages.undecided_bytes > 0)
            screen.wrapped(fmt::format("? {} could not be decided by --where and were left out",
                                       human_bytes(ages.undecided_bytes)),
                           2);
    }

    void render_gaps(const Screen& screen, const Ages& ages) const {
        constexpr std::size_t most = 6;
        std::size_t shown = 0;
        for (const Gap& gap : ages.gaps) {
            // Sources that were passed over are of interest to who wonders why.
            if (!options_.verbose && gap.source.starts_with("source ")) continue;
            if (shown == most && !options_.verbose)
                return screen.line("? more; --verbose shows all");
            ++shown;
            std::string text =
                fmt::format("? {}: {}", escape_text(gap.source), escape_text(gap.reason));
            if (!gap.remedy.empty()) text += "; would show it: " + escape_text(gap.remedy);
            screen.wrapped(text, 2);
        }
    }

    Screen screen_for(const Ages& ages) {
        return {&out_, options_, Style{options_}, Amounts{options_.unit, ages.page_size}};
    }

    ReportOptions options_;
    Output out_;
    std::vector<Sums> mappings_;
    std::optional<ColdMap> map_;
    std::optional<Columns> columns_;
    bool first_ = true, any_range_ = false;
};

} // namespace

ColdSink make_cold_table_sink(std::ostream& out, const ReportOptions& options) {
    return bind_cold_sink(std::make_shared<ColdTableSink>(out, options));
}

} // namespace pagesift::report
