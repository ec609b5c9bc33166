// SPDX-License-Identifier: MIT
#include "advice/measure.hpp"

#include "pagesift/abi.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>

namespace pagesift::advice {

WhyLeft why_left(const Effect& effect) {
    if (effect.interrupted) return {Reason::interrupted, 0};
    const bool gone = effect.ended && effect.ended->kind() == ErrorKind::gone;
    return gone ? WhyLeft{Reason::refused, ESRCH} : WhyLeft{Reason::not_reached, 0};
}

std::size_t Measure::index_of(Address address) const {
    const auto behind = std::upper_bound(
        plan_.ranges.begin(), plan_.ranges.end(), address,
        [](Address at, const PlannedRange& range) { return at < range.range.start; });
    return behind == plan_.ranges.begin()
               ? 0
               : static_cast<std::size_t>(behind - plan_.ranges.begin()) - 1;
}

void Measure::add(const Part& part) {
    const auto after = look_again(source_, *part.live, part.range, want_, {});
    Address at = part.range.start;
    for (const Stretch& stretch : after.stretches) {
        add_stretch(part, stretch);
        at = stretch.range.end;
    }
    // Not read: the process has ended, or took its mapping away.
    if (at < part.range.end) stay(part, {at, part.range.end}, Reason::unknown);
}

void Measure::give_up(const Part& part) {
    stay(part, part.range, part.error != 0 ? Reason::refused : Reason::unknown);
}

/// Whether a page is now what the action meant it to be.
Tri Measure::moved(const Stretch& stretch) const {
    const PageClass& cls = stretch.cls;
    const bool present = cls.state == State::present;
    // Not seen, or neither here nor there for the moment.
    if (cls.state == State::unknown || cls.state == State::migrating) return Tri::unknown;
    switch (plan_.action) {
    case Action::pageout: return present ? Tri::no : Tri::yes;
    case Action::cold: {
        const Tri active = cls.attribute(Attribute::active),
                  young = cls.attribute(Attribute::young);
        // What has left meanwhile is as cold as can be.
        if (!present) return Tri::yes;
        if (active == Tri::yes || young == Tri::yes) return Tri::no;
        return active == Tri::no ? Tri::yes : Tri::unknown;
    }
    case Action::willneed:
        // What was read from swap waits in the swap cache; the entry stays, in the page table
        // (mm/madvise.c:swapin_walk_pmd_entry) or in the page cache (shmem_swapin_range).
        return present || cls.state == State::cached ? Tri::yes : Tri::unknown;
    case Action::collapse: return present ? cls.attribute(Attribute::pmd_mapped) : Tri::no;
    case Action::pt_reclaim:
    case Action::zero_drop:
    case Action::merge:
    case Action::unmerge: break; // apply_inside()
    }
    return Tri::unknown;
}

void Measure::begin() { gauges_.reset(); }

bool Measure::has_no_room(AddressRange range) {
    if (plan_.action != Action::pageout || !plan_.ranges[index_of(range.start)].swap) return false;
    if (!gauges_) gauges_ = actuator_.gauges();
    constexpr auto plenty = std::numeric_limits<std::uint64_t>::max();
    const std::uint64_t room = std::min(gauges_->swap_free_bytes.value_or(plenty),
                                        gauges_->swap_allowance_bytes.value_or(plenty));
    return room < plan_.page_size;
}

Reason Measure::reason_of(const Part& part, const Stretch& stretch) {
    if (part.error != 0) return Reason::refused;
    if (plan_.action == Action::collapse) return Reason::in_use;
    if (const auto reason = objection(plan_.action, situation_, *part.live, stretch))
        return *reason;
    if (stretch.on_lru == Tri::no) return Reason::fresh;
    try {
        if (has_no_room(stretch.range)) return Reason::swap_full;
    } catch (const Error&) {
        gauges_ = Gauges{}; // not known, as where it cannot be read
    }
    return Reason::in_use;
}

void Measure::stay(const Part& part, AddressRange range, Reason reason) {
    const int error = reason == Reason::refused ? part.error : 0;
    if (!effect_.stayed.empty()) {
        Stayed& last = effect_.stayed.back();
        if (last.mapping == part.mapping && last.reason == reason && last.error == error &&
            last.range.end == range.start) {
            last.range.end = range.end;
            return;
        }
    }
    effect_.stayed.push_back({range, part.mapping, reason, error});
}

void Measure::count_moved(AddressRange range) {
    auto& sum = effect_.moved[index_of(range.start)];
    if (sum) *sum += range.size().value;
    if (effect_.moved_bytes) *effect_.moved_bytes += range.size().value;
}

void Measure::add_stretch(const Part& part, const Stretch& stretch) {
    const Tri answer = moved(stretch);
    if (answer == Tri::yes) {
        count_moved(stretch.range);
        if (plan_.action != Action::pageout) return;
        // Still in the page cache: nothing was freed.
        if (stretch.cls.state != State::cached)
            ask_frames(part, stretch.range);
        else if (effect_.kept_bytes)
            *effect_.kept_bytes += stretch.range.size().value;
        return;
    }
    if (answer == Tri::unknown) {
        silent_bytes_ += part.error == 0 ? stretch.range.size().value : 0;
        effect_.moved[index_of(stretch.range.start)].reset();
        if (part.error != 0) stay(part, stretch.range, Reason::refused);
        return;
    }
    // What was fresh when it was passed over may have come onto a list since.
    AddressRange rest = stretch.range;
    for (const AddressRange& fresh : part.fresh) {
        const AddressRange both = fresh.intersect(rest);
        if (both.empty()) continue;
        if (rest.start < both.start) stay(part, {rest.start, both.start}, reason_of(part, stretch));
        stay(part, both, part.error != 0 ? Reason::refused : Reason::fresh);
        rest.start = both.end;
    }
    if (!rest.empty()) stay(part, rest, reason_of(part, stretch));
}

/// Of pages that have left: frames that still hold them, because a copy in the swap cache or the
/// page cache stays until memory is short.
void Measure::ask_frames(const Part& part, AddressRange gone) {
    if (!effect_.freed_bytes) return;
    const std::uint64_t page = plan_.page_size;
    const auto first = (gone.start - part.range.start).value / page;
    const auto count = gone.size().value / page;
    std::vector<std::optional<std::uint64_t>> flags;
    try {
        if (first + count <= part.frames.size())
            flags = actuator_.frame_flags(std::span{part.frames}.subspan(first, count));
    } catch (const Error&) {
        flags.clear(); // not known, as where they cannot be read
    }
    constexpr std::uint64_t kept = abi::kpf(abi::KPF_SWAPCACHE) | abi::kpf(abi::KPF_WRITEBACK);
    for (std::uint64_t i = 0; i < count; ++i) {
        if (i >= flags.size() || !flags[i] || part.frames[first + i] == 0) {
            effect_.freed_bytes.reset();
            effect_.kept_bytes.reset();
            return;
        }
        *(*flags[i] & kept ? effect_.kept_bytes : effect_.freed_bytes) += page;
    }
}

void Measure::finish() {
    if (plan_.action != Action::pageout) {
        effect_.freed_bytes.reset();
        effect_.kept_bytes.reset();
    }
    if (silent_bytes_ == 0) return;
    const auto &before = effect_.before.swapped_in_pages, &after = effect_.after.swapped_in_pages;
    if (plan_.action != Action::willneed || !before || !after || *after < *before) {
        effect_.moved_bytes.reset();
        return;
    }
    // The counter is the machine's and has the pages of shared memory as well.
    const std::uint64_t read = (*after - *before) * plan_.page_size;
    const std::uint64_t shown = effect_.moved_bytes.value_or(0);
    effect_.moved_bytes = shown + std::min(silent_bytes_, read > shown ? read - shown : 0);
}

} // namespace pagesift::advice
