// SPDX-License-Identifier: MIT
#include "advice/merging.hpp"

namespace pagesift::advice {
namespace {

/// Of what is in memory, one part in so many must be worth it. KSM reads all of it, again and
/// again, and keeps about 64 bytes a page for each page that it follows.
constexpr std::uint64_t least_share = 8;

std::string_view setting(const HostFacts& host, const char* name) {
    const auto found = host.settings.find(name);
    return found == host.settings.end() ? std::string_view{} : std::string_view{found->second};
}

} // namespace

void MergePlanner::add(const Mapping& mapping, const Stretch& stretch) {
    if (!extent_ || extent_->mapping != stretch.mapping) close();
    if (stretch.matches == Tri::no) return;
    if (const auto reason = objection(Action::merge, situation_, mapping, stretch))
        return spans_.skip(stretch.range, stretch.mapping, *reason);
    const bool counts = stretch.sole == Tri::yes && stretch.cls.backing == Backing::anon &&
                        (stretch.cls.kind == Kind::anon || stretch.cls.kind == Kind::thp ||
                         stretch.cls.kind == Kind::zero_filled);
    if (!counts) return;
    if (!extent_) extent_ = Extent{stretch.mapping, {stretch.range.start, stretch.range.start}};
    extent_->range.end = stretch.range.end;
    extent_->own_bytes += stretch.range.size().value;
    if (stretch.cls.kind == Kind::zero_filled) extent_->zero_bytes += stretch.range.size().value;
}

void MergePlanner::close() {
    if (!extent_) return;
    const Extent extent = *extent_;
    extent_.reset();
    std::uint64_t gain = extent.zero_bytes;
    if (situation_.equal_bytes) gain += situation_.equal_bytes(extent.range).value_or(0);
    if (gain * least_share < extent.own_bytes)
        return spans_.skip(extent.range, extent.mapping, Reason::no_gain);
    PlannedRange range;
    range.range = extent.range;
    range.mapping = extent.mapping;
    range.state = State::present;
    range.kind = extent.zero_bytes * 2 > gain ? Kind::zero_filled : Kind::anon;
    range.unit_bytes = extent.range.size().value; // one call, however long, is quick
    range.gain_bytes = gain;
    spans_.take(range);
}

std::vector<Gap> ksm_notes(const HostFacts& host) {
    std::vector<Gap> notes;
    const auto note = [&](std::string reason, std::string remedy = {}) {
        notes.push_back({"ksm", std::nullopt, std::move(reason), std::move(remedy), false});
    };
    const auto run = setting(host, "ksm/run");
    if (run.empty()) {
        note("whether KSM runs is not known: the kernel may have none");
        return notes;
    }
    if (run == "1")
        note("KSM runs: it merges pages once it has seen them unchanged twice");
    else
        note("KSM does not run, so nothing is merged until it does",
             "echo 1 > /sys/kernel/mm/ksm/run");
    const auto zero = setting(host, "ksm/use_zero_pages");
    if (zero == "1")
        note("use_zero_pages is on: zeros become the zero page");
    else if (zero == "0")
        note("use_zero_pages is off: zeros become one KSM page; zero-drop gives them back at once");
    return notes;
}

} // namespace pagesift::advice
