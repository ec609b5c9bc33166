// SPDX-License-Identifier: MIT
// The diff room: two pictures of a process side by side. It pairs processes and mappings, and
// follows each page by its address from the first picture to the second. It knows what classes are
// and how a look delivers runs; it does not know where sources come from, nor output formats.
//
//     const ProcessDiff d = compare(before, after, options);
//     d.zero_filled.of(Fate::swapped);   // pages that were full of zeroes and now are in swap
#pragma once

#include "pagesift/classify.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pagesift {

/// Which of the two pictures.
enum class Picture : std::uint8_t { before, after };

/// What one picture says of a page, as far as its fate goes.
struct Sighting {
    bool mapped = false; ///< false: no mapping there that is the same as in the other picture
    State state = State::none;
    Kind kind = Kind::not_present;

    auto operator<=>(const Sighting&) const = default;
};

/// Pages that were one thing and are another, or the same.
struct Transition {
    Sighting from, to;
    std::uint64_t pages = 0;
    bool operator==(const Transition&) const = default;
};

/// What can have become of a page whose contents matter: every such page has exactly one.
enum class Fate : std::uint8_t {
    zero_filled,     ///< present, every byte zero
    other_content,   ///< present, a frame of its own that holds something else
    contents_unread, ///< present, a frame of its own whose contents were not read
    zero_page,       ///< the shared zero page stands in its place
    merged,          ///< by KSM
    swapped,
    cached,   ///< no longer mapped, but in the page cache (shared memory)
    freed,    ///< nothing there any more; the mapping is
    unmapped, ///< the mapping is gone as well, or is another one
    other,    ///< a marker, a migration entry, a frame without struct page
    unknown,
};
inline constexpr std::size_t fate_count = 11;
std::span<const Word, fate_count> fate_table();
/// @p contents_read whether a present page's contents were read, to an answer.
Fate fate_of(const Sighting& now, bool contents_read);

/// What became of all pages that were of one sort in the first picture.
struct Fates {
    std::uint64_t pages = 0; ///< of that sort, before; the sum of `to`
    std::array<std::uint64_t, fate_count> to{};
    std::uint64_t unread_pages = 0; ///< that may have been of that sort, but were not read

    std::uint64_t of(Fate fate) const { return to[static_cast<std::size_t>(fate)]; }
};

/// Whether pages of another kind are counted as this one where that other kind is not recognised.
bool takes_in_others(Kind kind);

/// How a mapping, or several that share addresses, changed.
enum class MappingChange : std::uint8_t { same, grown, shrunk, moved, split, merged, added, gone };
inline constexpr std::size_t mapping_change_count = 8;
std::span<const Word, mapping_change_count> mapping_change_table();

/// Mappings of both pictures that are the same thing: the same name and backing at the same
/// addresses, at least in part. Mostly one of each; none of one side where it was added or is gone.
struct MappingPair {
    MappingChange change = MappingChange::same;
    std::vector<std::size_t> before, after; ///< indices into the mappings of the censuses
    std::uint64_t common_bytes = 0;         ///< addresses that both have
    std::vector<Transition> transitions;    ///< of its pages, largest first
};

/// Pairs mappings in address order. What has no partner at its own addresses, but has one with the
/// same name, size, offset and permissions elsewhere, has `moved`: both sides are in the pair, but
/// share no addresses. @p same_memory false: nothing is paired, because addresses mean nothing.
std::vector<MappingPair> pair_mappings(std::span<const Mapping> before,
                                       std::span<const Mapping> after, bool same_memory);

/// Consecutive pages of one transition, within one mapping of each picture.
struct ChangedRange {
    AddressRange range;
    Sighting from, to;
    const Mapping* mapping = nullptr; ///< of the second picture, or where it has none of the first
};

/// Whether the process of two pictures is one and the same.
enum class Match : std::uint8_t {
    same,     ///< pid and start time
    assumed,  ///< pid, name and program; a start time is not known
    replaced, ///< pid, name and program, but started at another time
};

/// Two processes to be compared, by their places in the lists.
struct ProcessPair {
    std::size_t before = 0, after = 0;
    Match match = Match::same;
};
struct Pairing {
    std::vector<ProcessPair> pairs;
    std::vector<std::size_t> only_before, only_after;
};
/// Pairs by pid and start time, then by pid, comm and exe. A process is in one pair at most.
Pairing pair_processes(std::span<const ProcessText> before, std::span<const ProcessText> after);

/// Whether the process executed a program between the pictures, which gives it a new memory: its
/// file or the start of its stack (field 28 of /proc/PID/stat, proc(5)) is another.
bool executed_between(const ProcessText& before, const ProcessText& after);

struct ProcessDiff {
    Census before, after;
    Match match = Match::same;
    bool executed = false; ///< a program was executed in between: all memory is new
    std::vector<MappingPair> mappings;
    std::vector<Transition> transitions; ///< of all pages, largest first
    Fates zero_filled;
    Fates anon; ///< small and huge anonymous pages, but not those known to be full of zeroes
    std::vector<std::string> notes;
    std::vector<Gap> gaps; ///< what the comparison itself does not know

    bool contents_known(Picture picture) const {
        return (picture == Picture::before ? before : after).want.zero == ZeroTest::all;
    }
};

struct DiffOptions {
    Want want_before, want_after;
    unsigned jobs = 2;
    Filter where; ///< pages for which it holds in one picture or the other
    Match match = Match::same;
    /// Before the first range, with both processes.
    std::function<void(const ProcessText&, const ProcessText&)> on_begin;
    /// Pages that changed, in address order; empty: ranges are not put together.
    std::function<void(const ChangedRange&)> on_range;
    std::function<bool()> interrupted;
};

/// Looks at both at the same time and follows every page. Memory is bounded by a few pieces of each
/// and one small record a mapping. Throws Error: whatever look() throws, and bad_input where the
/// page sizes differ.
ProcessDiff compare(Source& before, Source& after, const DiffOptions& options);

} // namespace pagesift
