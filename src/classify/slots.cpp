// SPDX-License-Identifier: MIT
#include "classify/slots.hpp"

#include <algorithm>

namespace pagesift {

void add_note(std::vector<SlotNote>& notes, SlotNote note) {
    if (!notes.empty() && notes.back().slot == note.slot)
        notes.back().seen |= note.seen;
    else
        notes.push_back(note);
}

namespace {

/// The slot's addresses; of the last one there is, all but the end that 64 bits cannot hold.
AddressRange slot_range(std::uint64_t slot, std::uint64_t slot_bytes) {
    const std::uint64_t start = slot * slot_bytes;
    return {Address{start}, Address{start + std::min(slot_bytes, ~start)}};
}

/// Tables that must exist: a PTE table where entries were seen, and above them one table of each
/// level that the kernel counts in VmPTE (mm_pgtables_bytes counts PTE, PMD and PUD tables).
std::uint64_t count_needed(const HostFacts& host, std::span<const SlotNote> notes) {
    static constexpr std::uint8_t with_table = SlotNote::populated | SlotNote::marker |
                                               SlotNote::huge | SlotNote::hidden |
                                               SlotNote::maybe_huge;
    std::uint64_t tables = 0;
    for (const SlotNote& note : notes) tables += (note.seen & with_table) != 0;
    std::uint64_t span = host.entries_per_table();
    for (unsigned level = 1; level < host.counted_table_levels; ++level) {
        std::optional<std::uint64_t> last;
        for (const SlotNote& note : notes) {
            if (last != note.slot / span) ++tables;
            last = note.slot / span;
        }
        span *= host.entries_per_table();
    }
    return tables;
}

/// Huge entries of shared memory have no table below them. Where it is not shown which entries are
/// huge, smaps still tells how many there are, though not where.
void judge_huge(const HostFacts& host, std::span<const SlotNote> notes, const TableFigures& figures,
                PageTables& tables) {
    const auto maybe = static_cast<std::uint64_t>(
        std::count_if(notes.begin(), notes.end(),
                      [](const SlotNote& note) { return note.seen == SlotNote::maybe_huge; }));
    if (maybe == 0) return;
    if (figures.shared_huge_bytes)
        tables.needed_tables -= std::min(maybe, *figures.shared_huge_bytes / host.slot_bytes());
    else
        tables.uncertain_tables = maybe;
}

/// The parts of mappings that lie in slots of which nothing was noted.
std::vector<AddressRange> silent_ranges(std::span<const Mapping> mappings,
                                        std::span<const SlotNote> notes, std::uint64_t slot_bytes) {
    std::vector<AddressRange> ranges;
    const auto add = [&](std::uint64_t start, std::uint64_t end) {
        if (start >= end) return;
        if (!ranges.empty() && ranges.back().end.value == start)
            ranges.back().end = Address{end};
        else
            ranges.push_back({Address{start}, Address{end}});
    };
    auto note = notes.begin();
    for (const Mapping& mapping : mappings) {
        std::uint64_t at = mapping.range.start.value;
        const std::uint64_t end = mapping.range.end.value;
        while (note != notes.end() && note->slot < at / slot_bytes) ++note;
        for (auto n = note; n != notes.end() && n->slot * slot_bytes < end; ++n) {
            add(at, std::max(at, n->slot * slot_bytes));
            at = std::max(at, std::min(end, slot_range(n->slot, slot_bytes).end.value));
        }
        add(at, end);
    }
    return ranges;
}

/// How many mappings reach into the slot, and whether one covers it.
Slot describe(std::span<const Mapping> mappings, AddressRange range, SlotState state) {
    auto first = std::partition_point(mappings.begin(), mappings.end(),
                                      [&](const Mapping& m) { return m.range.end <= range.start; });
    Slot slot{range, state, false, false};
    if (first == mappings.end()) return slot;
    slot.reclaimable = state == SlotState::empty && first->range.start <= range.start &&
                       range.end <= first->range.end;
    const auto second = std::next(first);
    slot.spanning = second != mappings.end() && second->range.start < range.end;
    return slot;
}

/// Cuts @p ranges into portions of about equal size for @p jobs threads, at slot borders.
std::vector<std::vector<AddressRange>> share_out(std::span<const AddressRange> ranges,
                                                 std::uint64_t slot_bytes, unsigned jobs) {
    std::uint64_t total = 0;
    for (const AddressRange& range : ranges) total += range.size().value;
    const std::uint64_t most =
        std::max<std::uint64_t>(total / (std::uint64_t{4} * jobs) / slot_bytes, 1) * slot_bytes;
    std::vector<std::vector<AddressRange>> portions;
    std::uint64_t room = 0;
    for (AddressRange range : ranges) {
        while (!range.empty()) {
            if (room == 0) {
                portions.emplace_back();
                room = most;
            }
            std::uint64_t end = range.start.value + std::min(range.size().value, room);
            if (end % slot_bytes != 0)
                end += std::min(slot_bytes - end % slot_bytes, range.end.value - end);
            portions.back().push_back({range.start, Address{end}});
            room -= std::min(room, end - range.start.value);
            range.start = Address{end};
        }
    }
    return portions;
}

/// All that the source says about @p ranges; empty when it cannot tell.
std::optional<std::vector<AddressRange>>
ask_tables(Source& source, std::span<const AddressRange> ranges, unsigned jobs) {
    std::vector<AddressRange> all;
    bool told = true;
    const auto portions = share_out(ranges, source.host().slot_bytes(), jobs);
    snapshot::in_order(
        jobs, portions.size(), [&](std::size_t i) { return source.locate_tables(portions[i]); },
        [&](std::optional<std::vector<AddressRange>>&& part) {
            told = told && part.has_value();
            if (part) all.insert(all.end(), part->begin(), part->end());
        });
    return told ? std::optional{std::move(all)} : std::nullopt;
}

void locate(Source& source, std::span<const Mapping> mappings, std::span<const SlotNote> notes,
            unsigned jobs, PageTables& tables) {
    const std::uint64_t slot_bytes = source.host().slot_bytes();
    const auto owned = ask_tables(source, silent_ranges(mappings, notes, slot_bytes), jobs);
    if (!owned) return;
    tables.located_tables = 0;
    tables.spanning_tables = 0;
    tables.reclaimable_bytes = 0;
    std::optional<std::uint64_t> last;
    for (const AddressRange& range : *owned) {
        const std::uint64_t last_slot = (range.end.value - 1) / slot_bytes;
        for (std::uint64_t slot = range.start.value / slot_bytes; slot <= last_slot; ++slot) {
            if (last == slot) continue;
            last = slot;
            const Slot found = describe(mappings, slot_range(slot, slot_bytes), SlotState::empty);
            *tables.located_tables += 1;
            *tables.spanning_tables += found.spanning;
            *tables.reclaimable_bytes += found.reclaimable ? source.host().page_size : 0;
            tables.slots.push_back(found);
        }
    }
}

} // namespace

PageTables judge_tables(Source& source, std::span<const Mapping> mappings,
                        std::span<const SlotNote> notes, const TableFigures& figures, bool whole,
                        unsigned jobs) {
    PageTables tables;
    const HostFacts& host = source.host();
    tables.total_bytes = figures.vm_pte_bytes;
    tables.partial = !whole;
    tables.needed_tables = count_needed(host, notes);
    judge_huge(host, notes, figures, tables);
    for (const SlotNote& note : notes) {
        if (note.seen != SlotNote::marker) continue;
        ++tables.marker_only_tables;
        tables.slots.push_back(
            describe(mappings, slot_range(note.slot, host.slot_bytes()), SlotState::marker_only));
    }
    if (!whole) return tables;
    if (figures.vm_pte_bytes && tables.uncertain_tables == 0) {
        const std::uint64_t existing = *figures.vm_pte_bytes / host.page_size;
        tables.empty_tables = existing - std::min(existing, tables.needed_tables);
        // Where to look costs next to nothing, it need not follow from counts that may be off.
        if (*tables.empty_tables == 0 && host.lens != "exact") {
            tables.located_tables = tables.spanning_tables = tables.reclaimable_bytes = 0;
            return tables;
        }
    }
    locate(source, mappings, notes, jobs, tables);
    std::sort(tables.slots.begin(), tables.slots.end(),
              [](const Slot& a, const Slot& b) { return a.range.start < b.range.start; });
    return tables;
}

} // namespace pagesift
