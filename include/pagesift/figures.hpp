// SPDX-License-Identifier: MIT
// A second door of the classify room: the numbers of a census that every format shows, and which of
// them are not known. Pure sums over tallies.
//
//     figures_of(census.totals, census.host.page_size).of(State::swapped);   // bytes
#pragma once

#include "pagesift/classify.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pagesift {

inline constexpr std::array<Backing, 6> all_backings{Backing::anon,    Backing::file,
                                                     Backing::shmem,   Backing::hugetlb,
                                                     Backing::special, Backing::device};

/// Bytes by state, kind and marker: one pass over a tally.
struct Figures {
    std::array<std::uint64_t, state_count> states{};
    std::array<std::uint64_t, kind_count> kinds{};
    std::array<std::uint64_t, marker_count> markers{};
    std::uint64_t size = 0;
    std::uint64_t resident = 0; ///< as smaps counts Rss: without zero pages, hugetlb and special

    std::uint64_t of(State s) const { return states[static_cast<std::size_t>(s)]; }
    std::uint64_t of(Kind k) const { return kinds[static_cast<std::size_t>(k)]; }
    std::uint64_t swapped() const { return of(State::swapped) + of(State::shmem_swapped); }
};
Figures figures_of(const Tally& tally, std::uint64_t page_size);

/// The same with a page that is mapped N times as 1/N, and which figures are then not known,
/// because a map count is not.
struct ShareFigures : Figures {
    std::array<bool, kind_count> kinds_known{};
    std::array<std::uint64_t, attribute_count> attributes{}; ///< bytes that have it
    std::array<bool, attribute_count> attributes_known{};    ///< likewise
    std::array<std::uint64_t, all_backings.size()> pss{};    ///< by what stands behind the page
    std::array<bool, all_backings.size()> pss_known{};
};
ShareFigures share_figures(const Tally& tally, std::uint64_t page_size);

/// Which kinds the look was able to recognise at all. A kind that it was not is unknown wherever
/// there are present pages; where there are none, its zero is certain.
class KnownKinds {
public:
    explicit KnownKinds(const Census& census);
    std::optional<std::uint64_t> bytes(const Figures& figures, Kind kind) const;
    bool recognised(Kind kind) const { return known_[static_cast<std::size_t>(kind)]; }

private:
    std::array<bool, kind_count> known_{};
};

/// Pages with an attribute; empty when it is unknown for at least one page that could have it.
struct AttributeFigures {
    std::array<std::uint64_t, attribute_count> yes{};     ///< bytes
    std::array<std::uint64_t, attribute_count> unknown{}; ///< bytes
    std::optional<std::uint64_t> of(Attribute a) const {
        const auto i = static_cast<std::size_t>(a);
        return unknown[i] ? std::nullopt : std::optional{yes[i]};
    }
};
AttributeFigures attribute_figures(const Tally& tally, std::uint64_t page_size);

/// Fields of smaps_rollup, by the same rules as the kernel's; empty where they are not known.
struct RollupFigures {
    std::optional<std::uint64_t> rss, pss, swap, anonymous;
    std::optional<std::uint64_t> ksm, anon_huge_pages, shared_hugetlb, private_hugetlb;
};
RollupFigures rollup_figures(const Census& census);
/// Of one mapping, all of which was looked at.
RollupFigures rollup_figures(const Census& census, const MappingCensus& mapping);

/// The estimate of zero-filled memory that reading contents gave.
struct ZeroEstimate {
    std::uint64_t asked_pages = 0, zero_pages = 0, candidate_pages = 0;
    Interval share;
};
/// Empty when no contents were asked for.
std::optional<ZeroEstimate> zero_estimate(const Census& census);

std::string_view backing_word(Backing backing);
std::string_view slot_word(SlotState state);
inline constexpr std::array<SlotState, 6> all_slot_states{
    SlotState::no_table,  SlotState::empty, SlotState::marker_only,
    SlotState::populated, SlotState::huge,  SlotState::unknown};

inline const Word& word_of(State s) { return state_table()[static_cast<std::size_t>(s)]; }
inline const Word& word_of(Kind k) { return kind_table()[static_cast<std::size_t>(k)]; }
inline const Word& word_of(Marker m) { return marker_table()[static_cast<std::size_t>(m)]; }

} // namespace pagesift
