// SPDX-License-Identifier: MIT
#include "diff/follower.hpp"

#include <algorithm>

namespace pagesift {
namespace {

Sighting sighting_of(const Run& run) { return {true, run.state, run.kind}; }

/// Inside a mapping, but nothing was said of the page.
constexpr Sighting not_seen{true, State::unknown, Kind::not_present};

bool is_anon(const Sighting& s, Backing backing) {
    return s.kind == Kind::anon || (s.kind == Kind::thp && backing == Backing::anon);
}

/// Present pages with a frame of their own, of which only the contents tell whether they are zero.
bool may_be_zero_filled(const Sighting& s, bool contents_read) {
    return fate_of(s, contents_read) == Fate::contents_unread ||
           (s.state == State::present && s.kind == Kind::unknown);
}

void add(Fates& fates, Fate fate, std::uint64_t bytes) {
    fates.pages += bytes;
    fates.to[static_cast<std::size_t>(fate)] += bytes;
}

Fates in_pages(Fates fates, std::uint64_t page_size) {
    fates.pages /= page_size;
    fates.unread_pages /= page_size;
    for (std::uint64_t& bytes : fates.to) bytes /= page_size;
    return fates;
}

void sort_by_size(std::vector<Transition>& transitions) {
    std::stable_sort(transitions.begin(), transitions.end(),
                     [](const Transition& a, const Transition& b) {
                         if (a.pages != b.pages) return a.pages > b.pages;
                         return std::pair{a.from, a.to} < std::pair{b.from, b.to};
                     });
}

} // namespace

Follower::Follower(RunStream& before, std::span<const Mapping> after, const DiffOptions& options,
                   bool same_memory)
    : stream_(before),
      before_(before.mappings()),
      after_(after),
      options_(options),
      pairs_(pair_mappings(before_, after_, same_memory)),
      pair_of_before_(before_.size()),
      pair_of_after_(after_.size()),
      counts_(pairs_.size()) {
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
        for (const std::size_t i : pairs_[p].before) pair_of_before_[i] = p;
        for (const std::size_t j : pairs_[p].after) pair_of_after_[j] = p;
    }
}

void Follower::add(Run run) {
    while (!run.range.empty()) {
        Run* const old = stream_.front();
        if (!old || old->range.start >= run.range.end) return only_after(run, run.range);
        if (old->range.start < run.range.start) {
            const AddressRange part{old->range.start, std::min(old->range.end, run.range.start)};
            only_before(*old, part);
            old->range.start = part.end;
        } else if (run.range.start < old->range.start) {
            const AddressRange part{run.range.start, old->range.start};
            only_after(run, part);
            run.range.start = part.end;
        } else {
            const AddressRange part{run.range.start, std::min(run.range.end, old->range.end)};
            both(*old, run, part);
            run.range.start = old->range.start = part.end;
        }
        if (old->range.empty()) stream_.pop();
    }
}

void Follower::finish() {
    while (Run* const old = stream_.front()) {
        only_before(*old, old->range);
        stream_.pop();
    }
    if (pending_) options_.on_range(*pending_);
    pending_.reset();
}

bool Follower::comparable(std::size_t before, std::size_t after) const {
    const std::size_t pair = pair_of_before_[before];
    return pair == pair_of_after_[after] && pairs_[pair].common_bytes != 0;
}

template <class Covered, class Rest>
void Follower::split(AddressRange range, std::span<const Mapping> others,
                     const std::vector<std::size_t>& places, std::size_t pair, Covered&& covered,
                     Rest&& rest) {
    auto other = std::partition_point(others.begin(), others.end(),
                                      [&](const Mapping& m) { return m.range.end <= range.start; });
    for (; other != others.end() && other->range.start < range.end; ++other) {
        const auto index = static_cast<std::size_t>(other - others.begin());
        if (places[index] != pair || pairs_[pair].common_bytes == 0) continue;
        const AddressRange part = range.intersect(other->range);
        if (range.start < part.start) rest(AddressRange{range.start, part.start});
        covered(index, part);
        range.start = part.end;
    }
    if (!range.empty()) rest(range);
}

void Follower::only_before(const Run& run, AddressRange range) {
    const std::size_t pair = pair_of_before_[run.mapping];
    const Side old{&run, run.mapping, sighting_of(run)};
    split(
        range, after_, pair_of_after_, pair,
        [&](std::size_t mapping, AddressRange part) {
            count(old, {nullptr, mapping, not_seen}, pair, part);
        },
        [&](AddressRange part) { count(old, {}, pair, part); });
}

void Follower::only_after(const Run& run, AddressRange range) {
    const std::size_t pair = pair_of_after_[run.mapping];
    const Side now{&run, run.mapping, sighting_of(run)};
    split(
        range, before_, pair_of_before_, pair,
        [&](std::size_t mapping, AddressRange part) {
            count({nullptr, mapping, not_seen}, now, pair, part);
        },
        [&](AddressRange part) { count({}, now, pair, part); });
}

void Follower::both(const Run& a, const Run& b, AddressRange range) {
    if (!comparable(a.mapping, b.mapping)) {
        only_before(a, range);
        only_after(b, range);
        return;
    }
    count({&a, a.mapping, sighting_of(a)}, {&b, b.mapping, sighting_of(b)},
          pair_of_before_[a.mapping], range);
}

void Follower::count(const Side& a, const Side& b, std::size_t pair, AddressRange range) {
    const bool wanted = options_.where.always() || (a.run && a.run->matches == Tri::yes) ||
                        (b.run && b.run->matches == Tri::yes);
    if (!wanted) return;
    const std::uint64_t bytes = range.size().value;
    auto& counts = counts_[pair];
    const auto known = std::find_if(counts.begin(), counts.end(), [&](const Count& c) {
        return c.from == a.seen && c.to == b.seen;
    });
    if (known == counts.end())
        counts.push_back({a.seen, b.seen, bytes});
    else
        known->bytes += bytes;
    if (a.seen.mapped) count_fates(a, b, bytes);
    if (options_.on_range && a.seen != b.seen) note_range(a, b, range);
}

void Follower::count_fates(const Side& a, const Side& b, std::uint64_t bytes) {
    const bool read_before = a.run && a.run->contents_read;
    const Fate fate = fate_of(b.seen, b.run && b.run->contents_read);
    if (a.seen.kind == Kind::zero_filled)
        pagesift::add(zero_filled_, fate, bytes);
    else if (may_be_zero_filled(a.seen, read_before))
        zero_filled_.unread_pages += bytes;
    if (is_anon(a.seen, before_[a.mapping].backing))
        pagesift::add(anon_, fate, bytes);
    else if (a.seen.state == State::present && a.seen.kind == Kind::unknown &&
             before_[a.mapping].backing == Backing::anon)
        anon_.unread_pages += bytes;
}

void Follower::note_range(const Side& a, const Side& b, AddressRange range) {
    const Mapping* const mapping = b.seen.mapped ? &after_[b.mapping] : &before_[a.mapping];
    if (pending_ && pending_->range.end == range.start && pending_->from == a.seen &&
        pending_->to == b.seen && pending_->mapping == mapping) {
        pending_->range.end = range.end;
        return;
    }
    if (pending_) options_.on_range(*pending_);
    pending_ = ChangedRange{range, a.seen, b.seen, mapping};
}

void Follower::give(ProcessDiff& diff, std::uint64_t page_size) {
    std::vector<Transition> all;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
        for (const Count& count : counts_[p]) {
            const Transition one{count.from, count.to, count.bytes / page_size};
            pairs_[p].transitions.push_back(one);
            const auto known = std::find_if(all.begin(), all.end(), [&](const Transition& t) {
                return t.from == one.from && t.to == one.to;
            });
            if (known == all.end())
                all.push_back(one);
            else
                known->pages += one.pages;
        }
        sort_by_size(pairs_[p].transitions);
    }
    sort_by_size(all);
    diff.mappings = std::move(pairs_);
    diff.transitions = std::move(all);
    diff.zero_filled = in_pages(zero_filled_, page_size);
    diff.anon = in_pages(anon_, page_size);
}

} // namespace pagesift
