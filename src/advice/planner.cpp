// SPDX-License-Identifier: MIT
#include "advice/folios.hpp"
#include "advice/merging.hpp"
#include "advice/slots.hpp"

#include <algorithm>
#include <functional>
#include <limits>

namespace pagesift::advice {
namespace {

bool any(const PlannedRange&) { return true; }
bool needs_swap(const PlannedRange& range) { return range.swap; }

/// Keeps only those mappings that a range lies in.
void keep_used_mappings(Plan& plan, const std::vector<Mapping>& all) {
    constexpr auto unused = std::numeric_limits<std::size_t>::max();
    std::vector<std::size_t> place(all.size(), unused);
    for (const auto& one : plan.ranges) place[one.mapping] = 0;
    for (const auto& one : plan.skipped) place[one.mapping] = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (place[i] == unused) continue;
        place[i] = plan.mappings.size();
        plan.mappings.push_back(all[i]);
    }
    for (auto& one : plan.ranges) one.mapping = place[one.mapping];
    for (auto& one : plan.skipped) one.mapping = place[one.mapping];
}

} // namespace

class Planner::Work {
public:
    Work(Request request, Situation situation)
        : request_(std::move(request)),
          situation_(std::move(situation)),
          spans_(request_.min_run_bytes),
          gate_(
              situation_.host.page_size, [this](const Stretch& s) { take(s); },
              [this](const Stretch& s) {
                  spans_.skip(s.range, s.mapping,
                              s.folio_pages ? Reason::folio_split : Reason::unknown);
              }),
          slots_(situation_, request_.force_fill, spans_),
          merging_(situation_, spans_) {
        if (situation_.owns_file)
            situation_.owns_file = [this, ask = std::move(situation_.owns_file)](
                                       const Mapping& mapping) { return owns(mapping, ask); };
    }

    void begin(std::span<const Mapping> mappings) {
        mappings_.assign(mappings.begin(), mappings.end());
    }

    void add(const Stretch& stretch) {
        const Mapping& mapping = mappings_[stretch.mapping];
        if (!is_candidate(request_.action, mapping, stretch)) return gate_.flush();
        if (request_.action == Action::collapse) return slots_.add(mapping, stretch);
        if (request_.action == Action::merge) return merging_.add(mapping, stretch);
        if (stretch.matches == Tri::no) return gate_.flush();
        if (const auto reason = objection(request_.action, situation_, mapping, stretch)) {
            gate_.flush();
            return spans_.skip(stretch.range, stretch.mapping, *reason);
        }
        if (request_.idle_for)
            add_by_age(stretch);
        else
            gate_.add(stretch);
    }

    Plan finish() {
        gate_.flush();
        slots_.finish();
        merging_.finish();
        spans_.finish();
        if (request_.action == Action::unmerge) keep_longest();
        if (request_.action == Action::pageout)
            spans_.limit(situation_.swap_free_bytes, Reason::swap_full, needs_swap);
        if (request_.action == Action::willneed && situation_.available_bytes)
            spans_.limit(*situation_.available_bytes, Reason::no_memory, any);
        if (request_.max_bytes) spans_.limit(*request_.max_bytes, Reason::limit, any);
        Plan plan;
        plan.action = request_.action;
        plan.page_size = situation_.host.page_size;
        plan.slot_bytes = situation_.host.slot_bytes();
        plan.lens = situation_.host.lens;
        plan.swap_frees = situation_.swap_frees;
        plan.ranges = std::move(spans_.ranges);
        plan.skipped = std::move(spans_.skipped);
        keep_used_mappings(plan, mappings_);
        plan.forecast = forecast_of(plan);
        if (request_.action == Action::merge) plan.gaps = ksm_notes(situation_.host);
        return plan;
    }

private:
    /// Each range cuts a mapping in three, and a process may have only so many (max_map_count).
    void keep_longest() {
        static constexpr std::size_t most = 1000;
        auto& ranges = spans_.ranges;
        if (ranges.size() <= most) return;
        std::vector<std::uint64_t> sizes;
        sizes.reserve(ranges.size());
        for (const PlannedRange& one : ranges) sizes.push_back(one.bytes());
        std::nth_element(sizes.begin(), sizes.begin() + most, sizes.end(), std::greater<>{});
        const std::uint64_t least = sizes[most];
        // Of those that are just as long, the first ones.
        std::size_t left = most;
        for (const PlannedRange& one : ranges) left -= one.bytes() > least;
        std::vector<PlannedRange> kept;
        kept.reserve(most);
        for (const PlannedRange& one : ranges) {
            const bool same = one.bytes() == least;
            if (one.bytes() < least || (same && left == 0)) {
                spans_.skip(one.range, one.mapping, Reason::limit);
                continue;
            }
            left -= same;
            kept.push_back(one);
        }
        ranges = std::move(kept);
        spans_.finish();
    }

    /// Asked once a mapping.
    Tri owns(const Mapping& mapping, const std::function<Tri(const Mapping&)>& ask) {
        if (!owned_ || owned_->first != mapping.range.start)
            owned_ = {mapping.range.start, ask(mapping)};
        return owned_->second;
    }

    /// Cut where the age changes.
    void add_by_age(const Stretch& stretch) {
        const auto& idle = request_.idle;
        while (next_idle_ < idle.size() && idle[next_idle_].range.end <= stretch.range.start)
            ++next_idle_;
        Address at = stretch.range.start;
        for (std::size_t i = next_idle_; at < stretch.range.end; ++i) {
            const bool known = i < idle.size() && idle[i].range.start < stretch.range.end;
            const Address gap_end = known ? idle[i].range.start : stretch.range.end;
            if (at < gap_end) {
                add_aged(stretch, {at, gap_end}, {});
                at = gap_end;
            }
            if (!known) break;
            const Address end = std::min(idle[i].range.end, stretch.range.end);
            if (at < end) add_aged(stretch, {at, end}, idle[i].idle_seconds);
            at = std::max(at, end);
        }
    }

    void add_aged(const Stretch& whole, AddressRange range, std::optional<double> seconds) {
        if (!seconds || *seconds < *request_.idle_for) {
            gate_.flush();
            return spans_.skip(range, whole.mapping,
                               seconds ? Reason::not_idle : Reason::idle_unknown);
        }
        const std::uint64_t page = situation_.host.page_size;
        const std::uint64_t first = (range.start - whole.range.start).value / page;
        gate_.add(part_of(whole, first, range.size().value / page, page),
                  first > 0 ? FolioGate::Joint::same_stretch : FolioGate::Joint::by_frames);
    }

    std::optional<double> idle_at(Address address) const {
        const auto behind = std::upper_bound(
            request_.idle.begin(), request_.idle.end(), address,
            [](Address a, const IdleRange& range) { return a < range.range.start; });
        if (behind == request_.idle.begin() || !std::prev(behind)->range.contains(address))
            return {};
        return std::prev(behind)->idle_seconds;
    }

    void take(const Stretch& stretch) {
        const PageClass& cls = stretch.cls;
        const bool present = cls.state == State::present;
        PlannedRange range;
        range.range = stretch.range;
        range.mapping = stretch.mapping;
        range.state = cls.state;
        range.kind = cls.kind;
        range.swap = !info_of(request_.action).inside && (!present || cls.backing != Backing::file);
        range.unit_bytes = situation_.host.page_size * stretch.folio_pages.value_or(1);
        if (request_.idle_for) range.idle_seconds = idle_at(stretch.range.start);
        if (stretch.on_lru == Tri::no && !info_of(request_.action).inside)
            range.fresh_bytes = stretch.range.size().value;
        spans_.take(range);
    }

    Request request_;
    Situation situation_;
    std::vector<Mapping> mappings_;
    Spans spans_;
    FolioGate gate_;
    SlotPlanner slots_;
    MergePlanner merging_;
    std::size_t next_idle_ = 0;
    std::optional<std::pair<Address, Tri>> owned_;
};

Planner::Planner(Request request, Situation situation)
    : work_(std::make_unique<Work>(std::move(request), std::move(situation))) {}
Planner::~Planner() = default;

void Planner::begin(std::span<const Mapping> mappings) { work_->begin(mappings); }
void Planner::add(const Stretch& stretch) { work_->add(stretch); }
Plan Planner::finish() { return work_->finish(); }

Forecast forecast_of(const Plan& plan) {
    Forecast sum;
    sum.freed_bytes = 0;
    const bool moves = plan.action == Action::pageout || plan.action == Action::willneed;
    for (const PlannedRange& one : plan.ranges) {
        sum.bytes += one.bytes();
        if (moves) (one.swap ? sum.swap_bytes : sum.file_bytes) += one.bytes();
        const auto freed = freed_bytes(plan, one);
        if (!freed)
            sum.freed_bytes.reset();
        else if (sum.freed_bytes)
            *sum.freed_bytes += *freed;
        sum.fresh_bytes += one.fresh_bytes;
        sum.fill_bytes += one.fill_bytes;
        sum.copy_bytes += one.copy_bytes;
        sum.gain_bytes += one.gain_bytes;
    }
    return sum;
}

std::uint64_t swap_bytes(const Plan& plan) {
    return plan.action == Action::pageout ? plan.forecast.swap_bytes : 0;
}

} // namespace pagesift::advice
