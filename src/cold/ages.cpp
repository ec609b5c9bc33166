// SPDX-License-Identifier: MIT
#include "cold/joiner.hpp"

#include <algorithm>

namespace pagesift::cold {

std::uint64_t Ages::cold_bytes() const {
    std::uint64_t sum = 0;
    if (rounds > 0)
        for (const HistogramRow& row : histogram) sum += row.bytes.empty() ? 0 : row.bytes[0];
    return sum;
}

std::uint64_t Ages::unknown_bytes() const {
    std::uint64_t sum = 0;
    for (const HistogramRow& row : histogram) sum += row.unknown_bytes;
    return sum;
}

std::uint64_t Ages::all_bytes() const {
    std::uint64_t sum = unknown_bytes();
    for (const HistogramRow& row : histogram) {
        sum += row.no_sign_bytes;
        for (const std::uint64_t bytes : row.bytes) sum += bytes;
    }
    return sum;
}

bool is_of(const Ages& ages, std::uint32_t pid, std::uint64_t start_time,
           std::string_view boot_id) {
    const Identity& who = ages.identity;
    const auto differs = [](const auto& a, const auto& b, const auto& unknown) {
        return a != unknown && b != unknown && a != b;
    };
    return who.pid == pid && !differs(who.start_time, start_time, std::uint64_t{0}) &&
           !differs(std::string_view{who.boot_id}, boot_id, std::string_view{});
}

void Joiner::add(const Run& run) {
    const bool counts = run.state == pagesift::State::swapped ||
                        (run.state == pagesift::State::present && run.kind != Kind::zero_page &&
                         run.kind != Kind::special);
    if (!counts) return;
    marks_.for_each(run.range, [&](AddressRange range, Mark mark) {
        Range found;
        found.range = range;
        found.mapping = static_cast<std::uint32_t>(run.mapping);
        found.state = run.state;
        found.kind = run.kind;
        judge(mark, found);
        take(found);
    });
}

/// A page that is there and was not at the last sighting came since: nothing is known of it.
void Joiner::judge(Mark mark, Range& range) const {
    if (!mark.there()) return;
    range.grain = mark.grain();
    if (mark.busy_round() < ages_.rounds) {
        if (doubts_) return;
        range.activity = Activity::idle;
        const std::size_t step = std::max<std::size_t>(mark.busy_round(), ages_.first_step());
        if (ages_.source.proves_idle) range.idle_seconds = ages_.steps[step];
    } else if (!mark.unknown()) {
        range.activity = Activity::accessed;
        range.idle_seconds = 0;
    }
}

void Joiner::take(const Range& range) {
    count(ages_, range);
    if (pending_ && pending_->range.end == range.range.start) {
        Range longer = *pending_;
        longer.range = range.range;
        if (longer == range) {
            pending_->range.end = range.range.end;
            return;
        }
    }
    flush();
    pending_ = range;
}

void Joiner::flush() {
    if (pending_) sink_(*pending_);
    pending_.reset();
}

void Joiner::count(Ages& ages, const Range& range) {
    auto row =
        std::find_if(ages.histogram.begin(), ages.histogram.end(), [&](const HistogramRow& r) {
            return r.state == range.state && r.kind == range.kind;
        });
    if (row == ages.histogram.end())
        row = ages.histogram.insert(
            row, {range.state, range.kind, std::vector<std::uint64_t>(ages.steps.size(), 0)});
    const std::uint64_t bytes = range.range.size().value;
    if (range.activity == Activity::accessed) {
        row->bytes.back() += bytes;
    } else if (range.idle_seconds) {
        const auto step = std::find(ages.steps.begin(), ages.steps.end(), *range.idle_seconds);
        row->bytes[static_cast<std::size_t>(step - ages.steps.begin())] += bytes;
    } else {
        (range.activity == Activity::idle ? row->no_sign_bytes : row->unknown_bytes) += bytes;
    }
}

} // namespace pagesift::cold
