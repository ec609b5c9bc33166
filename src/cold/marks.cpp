// SPDX-License-Identifier: MIT
#include "cold/marks.hpp"

#include <algorithm>

namespace pagesift::cold {

MarkBook::MarkBook(std::uint64_t page_size) : page_size_(page_size) {}

void MarkBook::clear(AddressRange range) {
    for (auto found = chunks_.lower_bound(range.start.value / chunk_bytes());
         found != chunks_.end() && found->first * chunk_bytes() < range.end.value;) {
        const Address start{found->first * chunk_bytes()};
        const AddressRange part = range.intersect({start, start + Bytes{chunk_bytes()}});
        if (part.size().value == chunk_bytes()) {
            found = chunks_.erase(found);
            continue;
        }
        std::fill_n(found->second.begin() + static_cast<std::ptrdiff_t>(slot_of(part.start)),
                    part.size().value / page_size_, Mark{});
        ++found;
    }
}

void MarkBook::note(const TouchBlock& block, std::uint64_t round) {
    if (block.uniform && (block.touches.empty() || block.touches[0] == Touch::none))
        return clear(block.range);
    for (Address at = block.range.start; at < block.range.end;) {
        const Address end{(at.value / chunk_bytes() + 1) * chunk_bytes()};
        note(block, {at, std::min(end, block.range.end)}, round);
        at = end;
    }
}

/// @param part of @p block, within one chunk
void MarkBook::note(const TouchBlock& block, AddressRange part, std::uint64_t round) {
    const std::size_t first = (part.start - block.range.start).value / page_size_;
    const std::size_t count = part.size().value / page_size_;
    const auto column = [&](std::size_t i) { return block.uniform ? 0 : first + i; };
    if (!block.uniform &&
        std::all_of(block.touches.begin() + static_cast<std::ptrdiff_t>(first),
                    block.touches.begin() + static_cast<std::ptrdiff_t>(first + count),
                    [](Touch touch) { return touch == Touch::none; }))
        return clear(part);
    Chunk& chunk = chunks_[part.start.value / chunk_bytes()];
    chunk.resize(chunk_pages);
    const std::size_t slot = slot_of(part.start);
    for (std::size_t i = 0; i < count; ++i) {
        Mark& mark = chunk[slot + i];
        const Touch touch = block.touches[column(i)];
        const Grain grain = block.grains.empty() ? Grain::page : block.grains[column(i)];
        if (touch == Touch::none)
            mark = Mark{};
        else if (touch == Touch::idle && mark.there())
            mark = Mark{mark.busy_round(), mark.unknown(), grain};
        else if (touch == Touch::idle)
            // It was not there before, so of the rounds before this one nothing is known.
            mark = Mark{round - 1, round > 1, grain};
        else
            mark = Mark{round, touch == Touch::unknown, grain};
    }
}

void MarkBook::doubt(std::uint64_t round) {
    for (auto& [index, chunk] : chunks_)
        for (Mark& mark : chunk)
            if (mark.there() && mark.busy_round() < round) mark = Mark{round, true, mark.grain()};
}

void MarkBook::keep_only(std::span<const Mapping> mappings) {
    Address done{0};
    for (const Mapping& mapping : mappings) {
        if (done < mapping.range.start) clear({done, mapping.range.start});
        done = std::max(done, mapping.range.end);
    }
    clear({done, Address{~std::uint64_t{0}}});
}

} // namespace pagesift::cold
