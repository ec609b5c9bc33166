// SPDX-License-Identifier: MIT
#include "advice/spans.hpp"

#include <algorithm>
#include <numeric>

namespace pagesift::advice {
namespace {

bool alike(const PlannedRange& a, const PlannedRange& b) {
    return a.mapping == b.mapping && a.range.end == b.range.start && a.state == b.state &&
           a.kind == b.kind && a.swap == b.swap && a.unit_bytes == b.unit_bytes &&
           a.idle_seconds == b.idle_seconds;
}

/// Of sums over a range, what falls on its first @p part bytes.
std::uint64_t share(std::uint64_t sum, std::uint64_t part, std::uint64_t whole) {
    return static_cast<std::uint64_t>(static_cast<double>(sum) * static_cast<double>(part) /
                                      static_cast<double>(whole));
}

} // namespace

void Spans::take(const PlannedRange& range) {
    if (!span_.empty() &&
        (span_.back().mapping != range.mapping || span_.back().range.end != range.range.start))
        close();
    if (span_.empty() || !alike(span_.back(), range)) {
        span_.push_back(range);
        return;
    }
    PlannedRange& last = span_.back();
    last.range.end = range.range.end;
    last.fresh_bytes += range.fresh_bytes;
    last.fill_bytes += range.fill_bytes;
    last.copy_bytes += range.copy_bytes;
    last.gain_bytes += range.gain_bytes;
}

void Spans::skip(AddressRange range, std::size_t mapping, Reason reason) {
    if (range.empty()) return;
    if (!skipped.empty() && skipped.back().mapping == mapping && skipped.back().reason == reason &&
        skipped.back().range.end == range.start)
        skipped.back().range.end = range.end;
    else
        skipped.push_back({range, mapping, reason});
}

void Spans::close() {
    std::uint64_t bytes = 0;
    for (const PlannedRange& one : span_) bytes += one.bytes();
    for (const PlannedRange& one : span_)
        if (bytes < min_run_bytes_)
            skip(one.range, one.mapping, Reason::too_short);
        else
            ranges.push_back(one);
    span_.clear();
}

void Spans::sort_skipped() {
    std::sort(skipped.begin(), skipped.end(),
              [](const auto& a, const auto& b) { return a.range.start < b.range.start; });
    auto rest = std::move(skipped);
    skipped.clear();
    for (const SkippedRange& one : rest) skip(one.range, one.mapping, one.reason);
}

void Spans::finish() {
    close();
    sort_skipped();
}

void Spans::limit(std::uint64_t budget, Reason reason, bool (*counts)(const PlannedRange&)) {
    std::vector<std::size_t> order(ranges.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return ranges[a].idle_seconds.value_or(0) > ranges[b].idle_seconds.value_or(0);
    });
    bool cut = false;
    for (const std::size_t i : order) {
        PlannedRange& one = ranges[i];
        if (!counts(one)) continue;
        const std::uint64_t unit = std::max<std::uint64_t>(one.unit_bytes, 1);
        const std::uint64_t kept = one.bytes() <= budget ? one.bytes() : budget / unit * unit;
        budget -= kept;
        if (kept == one.bytes()) continue;
        cut = true;
        const Address end = one.range.start + Bytes{kept};
        skip({end, one.range.end}, one.mapping, reason);
        for (auto* sum : {&one.fresh_bytes, &one.fill_bytes, &one.copy_bytes, &one.gain_bytes})
            *sum = share(*sum, kept, one.bytes());
        one.range.end = end;
    }
    if (!cut) return;
    std::erase_if(ranges, [](const PlannedRange& one) { return one.range.empty(); });
    sort_skipped();
}

} // namespace pagesift::advice
