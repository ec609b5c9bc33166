// SPDX-License-Identifier: MIT
#include "os/neighbours.hpp"

#include <algorithm>

namespace pagesift::os {
namespace {

constexpr std::uint64_t most_pages_of_small = 512;
constexpr std::uint64_t most_pages_together = 4096;

/// Elements @p first to @p first + @p count of a column, which may have none at all.
template <class Column>
void copy_part(const Column& from, std::size_t first, std::size_t count, Column& to) {
    to.clear();
    if (from.empty()) return;
    const auto begin = from.begin() + static_cast<std::ptrdiff_t>(first);
    to.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
}

} // namespace

bool Neighbours::are_plain(Backing backing) {
    return backing == Backing::anon || backing == Backing::file || backing == Backing::shmem;
}

void Neighbours::plan(std::span<const Mapping> mappings) {
    stretches_.clear();
    last_.reset();
    bool open = false; // the last stretch may go on: nothing else lies between
    for (const Mapping& mapping : mappings) {
        const AddressRange range = mapping.range;
        const bool fits =
            are_plain(mapping.backing) && range.size().value / page_size_ <= most_pages_of_small;
        if (fits && open &&
            (range.end - stretches_.back().range.start).value / page_size_ <= most_pages_together)
            stretches_.back().range.end = range.end;
        else if (fits)
            stretches_.push_back({range, {}});
        if (fits) stretches_.back().mappings.push_back(range);
        open = fits;
    }
}

/// What was read of @p stretch, if @p part of it has not been handed out yet.
std::shared_ptr<const PageBlock> Neighbours::take(AddressRange stretch, AddressRange part) {
    const std::lock_guard lock{mutex_};
    if (!last_ || !(last_->range == stretch) || part.start < next_) return {};
    next_ = part.end;
    return last_;
}

std::shared_ptr<const PageBlock> Neighbours::read_whole(const Stretch& stretch, AddressRange part) {
    const auto fresh = std::make_shared<PageBlock>();
    fresh->range = stretch.range;
    // One table that keeps changing spoils all of it, and each mapping is read alone then.
    if (!pages_.read(*fresh, stretch.mappings)) fresh->entries.clear();
    const std::lock_guard lock{mutex_};
    last_ = fresh;
    next_ = part.end;
    return fresh;
}

bool Neighbours::read(PageBlock& block) {
    const auto behind = std::upper_bound(
        stretches_.begin(), stretches_.end(), block.range.start,
        [](Address at, const Stretch& stretch) { return at < stretch.range.start; });
    if (behind == stretches_.begin()) return false;
    const Stretch& stretch = *std::prev(behind);
    const AddressRange whole = stretch.range;
    if (whole.end < block.range.end || whole == block.range) return false;
    auto read = take(whole, block.range);
    if (!read) read = read_whole(stretch, block.range);
    if (read->entries.empty()) return false;
    const std::size_t first = (block.range.start - whole.start).value / page_size_;
    const std::size_t count = block.range.size().value / page_size_;
    copy_part(read->entries, first, count, block.entries);
    copy_part(read->flags, first, count, block.flags);
    copy_part(read->map_counts, first, count, block.map_counts);
    copy_part(read->folio_orders, first, count, block.folio_orders);
    copy_part(read->pmd_mapped, first, count, block.pmd_mapped);
    copy_part(read->entry_bits, first, count, block.entry_bits);
    return true;
}

} // namespace pagesift::os
