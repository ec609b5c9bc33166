// SPDX-License-Identifier: MIT
// What is remembered of every page from round to round: two bytes.
#pragma once

#include "pagesift/cold.hpp"

#include <algorithm>
#include <map>

namespace pagesift::cold {

/// A page at the last sighting.
class Mark {
public:
    Mark() = default; ///< nothing is there
    Mark(std::uint64_t busy_round, bool unknown, Grain grain)
        : bits_(static_cast<std::uint16_t>(there_bit | (unknown ? unknown_bit : 0) |
                                           (static_cast<unsigned>(grain) << grain_shift) |
                                           busy_round)) {}

    bool there() const { return (bits_ & there_bit) != 0; }
    /// The last round of which it is not known that the page was idle; 0: all were.
    std::uint64_t busy_round() const { return bits_ & round_mask; }
    bool unknown() const { return (bits_ & unknown_bit) != 0; } ///< of that round
    Grain grain() const { return static_cast<Grain>(bits_ >> grain_shift & 3); }
    bool operator==(const Mark&) const = default;

private:
    static constexpr unsigned there_bit = 0x8000, unknown_bit = 0x1000, grain_shift = 13;
    static constexpr unsigned round_mask = 0xfff;
    static_assert(most_rounds <= round_mask);
    std::uint16_t bits_ = 0;
};

/// The marks of all pages, in chunks, of which there are only those that hold anything.
class MarkBook {
public:
    explicit MarkBook(std::uint64_t page_size);

    /// Enters what a sighting at the end of @p round (1, 2, …) says.
    void note(const TouchBlock& block, std::uint64_t round);
    /// What was called idle in @p round is unknown.
    void doubt(std::uint64_t round);
    /// Forgets all pages outside of @p mappings, which are in address order.
    void keep_only(std::span<const Mapping> mappings);

    /// Calls sink(range, mark) for stretches of equal marks that together cover @p range.
    template <class Sink> void for_each(AddressRange range, Sink&& sink) const {
        AddressRange stretch{range.start, range.start};
        Mark same;
        const auto extend = [&](Address to, Mark mark) {
            if (!(mark == same)) {
                if (!stretch.empty()) sink(stretch, same);
                stretch.start = stretch.end;
                same = mark;
            }
            stretch.end = to;
        };
        for (Address at = range.start; at < range.end;) {
            const std::uint64_t index = at.value / chunk_bytes();
            const Address end{std::min(range.end.value, (index + 1) * chunk_bytes())};
            const auto found = chunks_.lower_bound(index);
            if (found == chunks_.end() || found->first != index) {
                // Whole chunks without any mark are passed over at once.
                const Address next =
                    found == chunks_.end() ? range.end : Address{found->first * chunk_bytes()};
                at = next < range.end ? next : range.end;
                extend(at, Mark{});
                continue;
            }
            for (; at < end; at = at + Bytes{page_size_})
                extend(at + Bytes{page_size_}, found->second[slot_of(at)]);
        }
        if (!stretch.empty()) sink(stretch, same);
    }

private:
    static constexpr std::uint64_t chunk_pages = 512;
    using Chunk = std::vector<Mark>;

    std::uint64_t chunk_bytes() const { return chunk_pages * page_size_; }
    std::size_t slot_of(Address at) const { return at.value / page_size_ % chunk_pages; }
    void clear(AddressRange range);
    void note(const TouchBlock& block, AddressRange part, std::uint64_t round);

    std::uint64_t page_size_;
    std::map<std::uint64_t, Chunk> chunks_; ///< by address over chunk_bytes()
};

} // namespace pagesift::cold
