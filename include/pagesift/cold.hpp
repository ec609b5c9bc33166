// SPDX-License-Identifier: MIT
// The cold room: from several sightings of a process to how long each page has been idle. It knows
// rounds and ages; it does not know how accesses are seen (AccessSource) nor output formats.
//
//     cold::Watch watch{source, access, options};
//     watch.begin();                      // the first round
//     watch.end_round(Last::no);          // … and so on, at whatever times
//     watch.end_round(Last::yes);
//     cold::Ages ages = watch.finish(on_begin, on_range);
#pragma once

#include "pagesift/access.hpp"
#include "pagesift/classify.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::cold {

/// What a page did until the last sighting.
enum class Activity : std::uint8_t {
    idle,     ///< not accessed in the last round, nor perhaps in rounds before it
    accessed, ///< in the last round
    unknown,
};
inline constexpr std::size_t activity_count = 3;
std::span<const Word, activity_count> activity_table();

/// Of how much memory one answer is, as words: "page", "huge", "mapping".
std::span<const Word, 3> grain_table();

/// Consecutive pages that are present or swapped, of one mapping, state, kind and age. What takes
/// no memory of the process (none, the zero page, frames without struct page) has no age.
struct Range {
    AddressRange range;
    std::uint32_t mapping = 0; ///< index into Ages::mappings
    State state = State::unknown;
    Kind kind = Kind::not_present;
    Activity activity = Activity::unknown;
    Grain grain = Grain::page;
    /// Not accessed for at least so long before the last sighting, one of Ages::steps from
    /// Ages::first_step() on; empty: unknown.
    std::optional<double> idle_seconds;

    bool operator==(const Range&) const = default;
};

/// A mapping as far as ages need it.
struct Place {
    AddressRange range;
    std::string name;        ///< any bytes
    std::string permissions; ///< "rw-p"
    Backing backing = Backing::anon;

    bool operator==(const Place&) const = default;
};

/// Pages of one kind (or of swapped ones), by how long they have been idle.
struct HistogramRow {
    State state = State::unknown;
    Kind kind = Kind::not_present;
    /// [j]: those of which Ages::steps[j] is the idle time; the last is 0, accessed.
    std::vector<std::uint64_t> bytes = {};
    std::uint64_t unknown_bytes = 0;
    /// No sign of an access, where the source proves nothing by that (AccessTraits::proves_idle);
    /// these are in none of the others.
    std::uint64_t no_sign_bytes = 0;

    bool operator==(const HistogramRow&) const = default;
};

/// What clearing cost the process.
struct ClearCost {
    std::uint64_t times = 0;
    double total_seconds = 0;          ///< all of it
    double locked_seconds = 0;         ///< under the process' mmap lock, at most
    double longest_locked_seconds = 0; ///< the longest single time
    /// Between the sighting that ends a round and the end of the clearing that begins the next: an
    /// access then leaves no trace. 0 with one round.
    double blind_seconds = 0;

    bool operator==(const ClearCost&) const = default;
};

/// Who was watched.
struct Identity {
    std::uint32_t pid = 0;
    std::uint64_t start_time = 0; ///< clock ticks since boot; 0: not known
    std::string boot_id;          ///< empty: not known
    std::string comm, exe;

    bool operator==(const Identity&) const = default;
};

/// How long the pages of one process have been idle.
struct Ages {
    Identity identity;
    std::uint64_t page_size = 4096;
    AccessTraits source;
    /// When the last sighting began, by the machine's clock; whole milliseconds since 1970.
    std::uint64_t sighted_unix_milliseconds = 0;
    double window_seconds = 0; ///< from the end of the first clearing to the last sighting
    std::uint64_t rounds = 0;
    /// How long each round began before the last sighting, longest first: the window, …, and 0. A
    /// page that was accessed in round k and idle since was so at least from the end of the
    /// clearing behind round k, unless the source is blind between rounds: see first_step().
    std::vector<double> steps;
    std::vector<Place> mappings; ///< those of the last sighting, in address order
    std::vector<Range> ranges;   ///< in address order; empty where they were handed to on_range
    std::vector<HistogramRow> histogram;
    ClearCost clear;
    std::vector<Gap> gaps;
    bool interrupted = false;          ///< the window is shorter than was asked for
    std::uint64_t undecided_bytes = 0; ///< that --where could not decide and left out

    bool operator==(const Ages&) const = default;

    /// The first of steps that any page can have. It is the last round's where rounds have blind
    /// times between them, in which an access leaves no trace: nothing before them is proven.
    std::size_t first_step() const {
        return clear.blind_seconds > 0 && rounds > 1 ? static_cast<std::size_t>(rounds) - 1 : 0;
    }
    /// Bytes idle for at least the whole window.
    std::uint64_t cold_bytes() const;
    /// Bytes of all ranges.
    std::uint64_t all_bytes() const;
    std::uint64_t unknown_bytes() const;
};

/// Whether @p ages are of the process that has this pid, start time and boot now. What is not known
/// of either (0, empty) is not held against it.
bool is_of(const Ages& ages, std::uint32_t pid, std::uint64_t start_time, std::string_view boot_id);

/// Bounds of the number of rounds: a page's age is a small number.
inline constexpr std::uint64_t most_rounds = 1000;

struct WatchOptions {
    unsigned jobs = 2;
    std::vector<AddressRange> only; ///< in whole pages; empty: everything
    Filter where;
    std::string boot_id;
    std::vector<Gap> gaps;                                      ///< known before, for Ages::gaps
    std::function<std::chrono::steady_clock::time_point()> now; ///< empty: the steady clock
};

enum class Last : std::uint8_t { no, yes };

/// Watches one process. Memory: 2 bytes a page here and what the AccessSource keeps (8 to 16), for
/// pages in page-table slots in which anything is present or swapped.
class Watch {
public:
    /// @p source and @p access are of the same process, and outlive this.
    Watch(Source& source, AccessSource& access, WatchOptions options);
    ~Watch();
    Watch(Watch&&) noexcept;
    Watch& operator=(Watch&&) noexcept;

    /// Looks at all pages and begins the first round. Throws Error (gone, denied, failed).
    void begin();
    /// The end of the last clearing, from which idle times count.
    std::chrono::steady_clock::time_point round_began() const;
    /// Ends a round with a sighting of all pages; unless it was the last, begins another.
    /// Throws Error (gone, failed).
    void end_round(Last last);
    /// The last round has ended before its time.
    void interrupt();
    /// Classifies what there is now, and gives every page that was seen its age. Without @p
    /// on_range ranges are kept in Ages::ranges. Throws Error (gone).
    Ages finish(const std::function<void(const Ages&)>& on_begin = {},
                const std::function<void(const Range&)>& on_range = {});

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

/// Reads back what `pagesift cold --format json` wrote: one element a process. @p subject names it
/// in messages. Throws Error(bad_input): no JSON, another schema, a newer version, a value that
/// cannot be, ranges that overlap or are not in order.
std::vector<Ages> load(std::string_view text, const std::string& subject);

} // namespace pagesift::cold
