// SPDX-License-Identifier: MIT
#include "report/advise_sinks.hpp"
#include "report/sections.hpp"

#include <fmt/format.h>
#include <numeric>

namespace pagesift::report {
namespace {

using advice::Action;
using advice::Effect;
using advice::Plan;
using advice::Reason;

constexpr std::size_t address_width = 12;
constexpr std::size_t sum_width = 10;

std::string count_of(std::uint64_t number, std::string_view noun) {
    return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

std::string share_of(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? "" : " (" + percent(part, whole) + ")";
}

class AdviseTableSink {
public:
    AdviseTableSink(std::ostream& out, const ReportOptions& options)
        : options_(options),
          out_(out),
          screen_{&out_, options, Style{options}, Amounts{options.unit, 4096}} {}

    void process(const Plan& plan, const Effect* effect) {
        if (!first_) screen_.line();
        first_ = false;
        screen_.amounts = Amounts{options_.unit, plan.page_size};
        ProcessText process;
        process.pid = plan.identity.pid;
        process.comm = plan.comm;
        process.exe = plan.exe;
        render_title(screen_, process);
        headline(plan, effect);
        if (effect != nullptr)
            outcome(plan, *effect);
        else
            forecast(plan);
        skipped(plan);
        ranges(plan, effect);
        render_gaps(screen_, plan.gaps);
        if (effect == nullptr && !plan.ranges.empty()) {
            screen_.line();
            screen_.line("Nothing was done. --apply does it.");
        }
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    std::string amount(std::uint64_t bytes) const { return screen_.amounts(bytes); }

    void headline(const Plan& plan, const Effect* effect) const {
        const auto& info = advice::info_of(plan.action);
        screen_.line(screen_.style.bold(fmt::format(
            "{} ({}): {} in {}{}", info.name, info.kernel, amount(plan.forecast.bytes),
            count_of(plan.ranges.size(), "range"), effect == nullptr ? ", planned" : "")));
    }

    void item(const std::string& text) const {
        screen_.line("  " + wrap(text, screen_.width() - 2, 4));
    }
    /// How much, and what of it.
    void sum(std::uint64_t bytes, std::string_view what) const {
        const auto size = amount(bytes);
        screen_.line(pad_left(size, sum_width) + "  " +
                     wrap(what, screen_.width() - sum_width - 2, sum_width + 2));
    }

    void forecast(const Plan& plan) const {
        const auto& sum = plan.forecast;
        if (sum.bytes == 0) return item("nothing to do");
        switch (plan.action) {
        case Action::pageout: forecast_pageout(plan); break;
        case Action::cold: item("gain: these pages go first when memory is short"); break;
        case Action::willneed:
            item("gain: no wait for the disk when they are used next; a fault a page remains, "
                 "because entries stay until then");
            item(fmt::format("cost: up to {} of memory", amount(sum.bytes)));
            break;
        case Action::collapse:
            item(fmt::format("gain: {} in place of small pages",
                             count_of(sum.bytes / plan.slot_bytes, "huge page")));
            item(fmt::format("cost: {} of memory for what is nothing now, {} for second copies",
                             amount(sum.fill_bytes), amount(sum.copy_bytes)));
            break;
        case Action::pt_reclaim:
            item(fmt::format("gain: {}, {} of memory",
                             count_of(sum.bytes / plan.slot_bytes, "page table"),
                             screen_.amounts(sum.freed_bytes)));
            item_stop();
            break;
        case Action::zero_drop:
            item(fmt::format("gain: {} of memory; large folios are dropped whole, none is split",
                             screen_.amounts(sum.freed_bytes)));
            item_stop();
            break;
        case Action::merge:
            item(fmt::format(
                "gain: about {} that are zero or there twice, once KSM has come to them; "
                "more if other processes hold the same",
                amount(sum.gain_bytes)));
            item_stop();
            break;
        case Action::unmerge:
            item("gain: no copy when they are written to, and no work for KSM; no memory");
            item_stop();
            break;
        }
        if (sum.fresh_bytes > 0)
            item(fmt::format("{} so new that the kernel may pass them over; --retry tries again",
                             amount(sum.fresh_bytes)));
    }

    void item_stop() const {
        item("cost: the process is stopped for it, for no longer than --max-stop at a time");
    }

    void forecast_pageout(const Plan& plan) const {
        const auto& sum = plan.forecast;
        std::string now = "gain: leaves memory of the process; free right after: ";
        now += sum.freed_bytes ? amount(*sum.freed_bytes) : "unknown";
        if (plan.swap_frees == Tri::yes && sum.swap_bytes > 0)
            now += " less what zram needs for the compressed copy";
        if (plan.swap_frees == Tri::no && sum.swap_bytes > 0)
            now += ", the rest when memory is short: copies stay in the swap cache";
        item(now);
        if (sum.swap_bytes > 0)
            item(fmt::format("cost: {} of swap, and a fault a page when it is used again",
                             amount(sum.swap_bytes)));
        if (sum.file_bytes > 0)
            item(fmt::format("cost: {} to read from files again when it is used",
                             amount(sum.file_bytes)));
    }

    void outcome(const Plan& plan, const Effect& effect) const {
        static constexpr std::string_view moved[advice::action_count] = {
            "left memory",         "inactive and not accessed since",
            "read from swap",      "in huge pages",
            "slots without table", "given back",
            "told to KSM",         "no KSM pages any more"};
        const auto bytes = effect.moved_bytes;
        item(fmt::format("{}: {}{}", moved[static_cast<std::size_t>(plan.action)],
                         screen_.amounts(bytes),
                         bytes ? share_of(*bytes, plan.forecast.bytes) : ""));
        if (plan.action == Action::pageout) {
            item(fmt::format("free now: {}", screen_.amounts(effect.freed_bytes)));
            if (effect.kept_bytes.value_or(0) > 0)
                item(fmt::format("copies that stay until memory is short (swap cache, page cache): "
                                 "{}",
                                 amount(*effect.kept_bytes)));
            swap_change(effect);
        }
        if (plan.action == Action::willneed)
            item(
                "what else was advised was in the swap cache already; page-table entries stay swap "
                "entries until the pages are used");
        if (effect.stops)
            outcome_inside(plan, effect);
        else
            item(fmt::format("{} of {:.3f} s in all, the longest {:.3f} s; with looks {:.3f} s",
                             count_of(effect.calls, "call"), effect.call_seconds,
                             effect.longest_call_seconds, effect.elapsed_seconds));
        if (effect.retries > 0)
            item(fmt::format("tried again: {}", count_of(effect.retries, "time")));
        if (effect.interrupted) item("interrupted: what was in flight was finished");
        if (effect.ended) item(fmt::format("ended early: {}", escape_text(effect.ended->what())));
        stayed(plan, effect);
    }

    void outcome_inside(const Plan& plan, const Effect& effect) const {
        if (plan.action == Action::pt_reclaim) {
            item(fmt::format("page tables freed: {}", screen_.amounts(effect.freed_bytes)));
            item(fmt::format("page tables of the process (VmPTE): {} before, {} after",
                             screen_.amounts(effect.tables_before_bytes),
                             screen_.amounts(effect.tables_after_bytes)));
        } else {
            item(fmt::format("memory of the process (VmRSS): {} before, {} after",
                             screen_.amounts(effect.rss_before_bytes),
                             screen_.amounts(effect.rss_after_bytes)));
        }
        const auto& stops = *effect.stops;
        item(fmt::format("stood still {}: the longest {:.2f} ms, 99th percentile {:.2f} ms, "
                         "{:.2f} ms in all; with looks {:.3f} s",
                         count_of(stops.seconds.size(), "time"), stops.longest() * 1e3,
                         stops.percentile(0.99) * 1e3, stops.total() * 1e3,
                         effect.elapsed_seconds));
    }

    void swap_change(const Effect& effect) const {
        const auto &before = effect.before.swap_free_bytes, &after = effect.after.swap_free_bytes;
        if (!before || !after) return;
        const bool less = *after > *before;
        item(fmt::format("swap in use on this machine: {}{}", less ? "-" : "+",
                         amount(less ? *after - *before : *before - *after)));
    }

    void stayed(const Plan& plan, const Effect& effect) const {
        if (effect.stayed.empty()) return;
        screen_.line();
        screen_.line(screen_.style.bold("Stayed as it was"));
        for (const auto& [reason, bytes] : by_reason(effect.stayed)) {
            std::string text{advice::word_of(reason).meaning};
            if (reason == Reason::refused) text += errors(plan, effect);
            sum(bytes, text);
        }
    }

    static std::string errors(const Plan& plan, const Effect& effect) {
        std::vector<int> seen;
        std::string text;
        for (const auto& one : effect.stayed) {
            if (one.reason != Reason::refused ||
                std::find(seen.begin(), seen.end(), one.error) != seen.end())
                continue;
            seen.push_back(one.error);
            const auto why = advice::explain(plan.action, one.error);
            text += fmt::format("{}{}{}{}", seen.size() == 1 ? ": " : "; ", errno_name(one.error),
                                why.empty() ? "" : ", ", why);
        }
        return text;
    }

    void skipped(const Plan& plan) const {
        if (plan.skipped.empty()) return;
        screen_.line();
        screen_.line(screen_.style.bold("Left alone"));
        for (const auto& [reason, bytes] : by_reason(plan.skipped))
            sum(bytes, advice::word_of(reason).meaning);
    }

    void ranges(const Plan& plan, const Effect* effect) const {
        std::vector<std::size_t> order(plan.ranges.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (!options_.ranges) {
            std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
                return plan.ranges[a].bytes() > plan.ranges[b].bytes();
            });
            order.resize(std::min(order.size(), options_.top));
        }
        const bool ages = std::any_of(plan.ranges.begin(), plan.ranges.end(),
                                      [](const auto& one) { return one.idle_seconds.has_value(); });
        Columns columns{screen_.width()};
        columns.add("ADDRESS", address_width);
        columns.add("SIZE", 8, Align::right);
        columns.add("WHAT", 13);
        if (ages) columns.add("IDLE", 7, Align::right);
        if (effect != nullptr) columns.add("DONE", 8, Align::right);
        const auto title = [&](std::string_view text) {
            screen_.line();
            screen_.line(screen_.style.bold(text));
            screen_.line(screen_.style.dim(columns.header("NAME")));
        };
        const auto row = [&](AddressRange range, const std::string& what, const std::string& idle,
                             const std::string& done, std::size_t mapping) {
            std::vector<std::string> cells{fmt::format("{:x}", range.start.value),
                                           amount(range.size().value), what};
            if (ages) cells.push_back(idle);
            if (effect != nullptr) cells.push_back(done);
            const std::string& name = plan.mappings[mapping].name;
            screen_.line(columns.row(cells, name.empty() ? screen_.style.dim("(anonymous)")
                                                         : screen_.foreign(name, columns.rest())));
        };
        if (!order.empty())
            title(order.size() < plan.ranges.size() ? fmt::format("Ranges, the {} largest of {}",
                                                                  order.size(), plan.ranges.size())
                                                    : "Ranges");
        for (const std::size_t i : order) {
            const auto& one = plan.ranges[i];
            const auto cls = class_of(one.state, one.kind);
            row(one.range, std::string{class_word(cls)},
                one.idle_seconds ? fmt::format("{:.0f} s", *one.idle_seconds) : "",
                effect != nullptr ? screen_.amounts(effect->moved[i]) : "", one.mapping);
        }
        if (!options_.ranges) return;
        if (!plan.skipped.empty()) {
            title("Left alone, range by range");
            for (const auto& one : plan.skipped)
                row(one.range, std::string{advice::word_of(one.reason).name}, "", "", one.mapping);
        }
        if (effect == nullptr || effect->stayed.empty()) return;
        title("Stayed as it was, range by range");
        for (const auto& one : effect->stayed)
            row(one.range, std::string{advice::word_of(one.reason).name}, "", "", one.mapping);
    }

    ReportOptions options_;
    Output out_;
    Screen screen_;
    bool first_ = true;
};

} // namespace

AdviseSink make_advise_table_sink(std::ostream& out, const ReportOptions& options) {
    const auto impl = std::make_shared<AdviseTableSink>(out, options);
    return {
        .process = [impl](const Plan& plan, const Effect* effect) { impl->process(plan, effect); },
        .finish = [impl] { impl->finish(); },
    };
}

} // namespace pagesift::report
