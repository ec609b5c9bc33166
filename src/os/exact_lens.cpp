// SPDX-License-Identifier: MIT
#include "os/exact_lens.hpp"

#include "pagesift/abi.hpp"
#include "pagesift/source.hpp"

#include <algorithm>

namespace pagesift::os {

ExactLens::ExactLens(std::unique_ptr<KernelView> view) : origin_(view.get()) {
    idle_.push_back(std::move(view));
}

ExactLens::Lease ExactLens::lease() { return {*this, take()}; }

std::unique_ptr<KernelView> ExactLens::take() {
    std::unique_lock lock{mutex_};
    if (idle_.empty() && more_) {
        try {
            // A view may be copied while another thread reads through it.
            return origin_->clone();
        } catch (const Error&) {
            more_ = false; // some limit was reached: those that there are must do
        }
    }
    returned_.wait(lock, [&] { return !idle_.empty(); });
    auto view = std::move(idle_.back());
    idle_.pop_back();
    return view;
}

void ExactLens::take_back(std::unique_ptr<KernelView> view) {
    const std::lock_guard lock{mutex_};
    idle_.push_back(std::move(view));
    returned_.notify_one();
}

LocatedTables locate_empty_tables(const KernelView& view, std::uint64_t top,
                                  std::span<const AddressRange> ranges) {
    // Going down from the top costs as much as reading a few tables that nobody asked for.
    const walk::EntryFormat& format = view.kernel().entries;
    const std::uint64_t widest_gap = 8 * format.span(2);
    LocatedTables found;
    const auto add = [](std::vector<AddressRange>& parts, AddressRange part) {
        if (!parts.empty() && parts.back().end == part.start)
            parts.back().end = part.end;
        else
            parts.push_back(part);
    };
    for (std::size_t i = 0; i < ranges.size();) {
        const std::size_t first = i++;
        while (i < ranges.size() && (ranges[i].start - ranges[i - 1].end).value <= widest_gap) ++i;
        std::size_t at = first;
        walk::walk_tables(
            view.memory(), view.kernel(), top, {ranges[first].start, ranges[i - 1].end},
            [&](const walk::SlotRun& run) {
                const bool empty = run.state == walk::TableState::empty;
                if (!empty && run.state != walk::TableState::unknown) return;
                while (at < i && ranges[at].end <= run.range.start) ++at;
                for (std::size_t j = at; j < i && ranges[j].start < run.range.end; ++j)
                    add(empty ? found.empty : found.unknown, ranges[j].intersect(run.range));
            });
    }
    return found;
}

namespace {

/// Of a page whose pagemap entry is @p known, what the entry behind it says; 0: it is another page.
std::uint8_t bits_of(const walk::Entry& entry, std::uint64_t frame, std::uint64_t known) {
    if (entry.kind != walk::EntryKind::present || !(known & abi::PM_PRESENT) ||
        (known & abi::PM_PFRAME_MASK) != frame)
        return 0;
    return static_cast<std::uint8_t>(EntryBits::known | (entry.young ? EntryBits::young : 0) |
                                     (entry.dirty ? EntryBits::dirty : 0));
}

} // namespace

void read_entry_bits(const KernelView& view, std::uint64_t top, AddressRange range,
                     std::span<const std::uint64_t> entries, std::span<std::uint8_t> bits) {
    const walk::EntryFormat& format = view.kernel().entries;
    std::fill(bits.begin(), bits.end(), std::uint8_t{0});
    walk::walk_tables(view.memory(), view.kernel(), top, range, [&](const walk::SlotRun& run) {
        if (run.entries.empty() && run.state != walk::TableState::huge) return;
        const std::uint64_t first = (run.range.start - range.start).value >> format.page_shift;
        const std::uint64_t skipped = (run.range.start - run.slot_start).value >> format.page_shift;
        const std::uint64_t count = run.range.size().value >> format.page_shift;
        walk::Entry entry;
        if (run.entries.empty()) entry = format.decode(format, run.leaf, run.leaf_level);
        for (std::uint64_t i = 0; i < count; ++i) {
            std::uint64_t frame = entry.frame + skipped + i;
            if (!run.entries.empty()) {
                entry = format.decode(format, run.entries[skipped + i], 1);
                frame = entry.frame;
            }
            bits[first + i] = bits_of(entry, frame, entries[first + i]);
        }
    });
}

} // namespace pagesift::os
