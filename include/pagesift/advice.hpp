// SPDX-License-Identifier: MIT
// The advice room: what to act on and what to leave alone, with a reason for each; batches; proof
// that a plan still fits; and what came of it. It acts through an `Actuator` only, and looks
// through a `Source`. Everything an action here does keeps every byte of the process' memory. What
// only the process itself can do is done through an `InsideActuator`.
//
//     Planner planner{request, situation};
//     look.on_mappings = [&](auto&, auto mappings) { planner.begin(mappings); };
//     look.on_stretch = [&](const Stretch& s) { planner.add(s); };
//     Plan plan = planner.finish();
//     const Effect effect = apply(plan, situation, source, actuator, options);
#pragma once

#include "pagesift/actuator.hpp"
#include "pagesift/classify.hpp"

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::advice {

enum class Action : std::uint8_t {
    pageout,
    cold,
    willneed,
    collapse,
    // From inside, while the process stands still.
    pt_reclaim,
    zero_drop,
    merge,
    unmerge,
};
inline constexpr std::size_t action_count = 8;

struct ActionInfo {
    std::string_view name;    ///< "pageout"
    std::string_view kernel;  ///< "MADV_PAGEOUT"
    int number = 0;           ///< of abi::advice
    std::string_view meaning; ///< one line
    bool inside = false;      ///< only the process itself can do it, so it is stopped for it
};
std::span<const ActionInfo, action_count> action_table();
const ActionInfo& info_of(Action action);
std::optional<Action> find_action(std::string_view name);

/// Why pages are left alone, or stayed as they were although they were advised.
enum class Reason : std::uint8_t {
    // Of the pages themselves.
    hugetlb,
    special,
    mlocked,
    userfaultfd,
    zero_page,
    lazyfree,
    shared,
    unknown,
    folio_split,
    file_not_ours,
    shared_file,
    private_file,
    // Of the machine.
    no_swap,
    swap_full,
    no_memory,
    // Of what was asked for.
    undecided,
    not_idle,
    idle_unknown,
    too_short,
    limit,
    // Of huge pages.
    already_huge,
    no_huge_page,
    unaligned,
    costs_more,
    // From inside.
    spanning,
    markers,
    not_private,
    flags_unknown,
    wipe_on_fork,
    already_mergeable,
    no_gain,
    // Of a plan that is applied later.
    mapping_changed,
    state_changed,
    // Of what was advised.
    fresh,
    in_use,
    refused,
    interrupted,
    no_time,
    not_reached,
};
inline constexpr std::size_t reason_count = 39;
/// Word::meaning says it to people, as the end of "left alone: ".
std::span<const Word, reason_count> reason_table();
const Word& word_of(Reason reason);
std::optional<Reason> find_reason(std::string_view name);

/// Pages of one age, as `pagesift cold` measures it.
struct IdleRange {
    AddressRange range;
    std::optional<double> idle_seconds; ///< at least so long; empty: not known
};

struct Request {
    Action action = Action::pageout;
    std::uint64_t min_run_bytes = 0;        ///< shorter ranges are left alone
    std::optional<std::uint64_t> max_bytes; ///< no more than this
    std::optional<double> idle_for;         ///< seconds: only what is idle for at least so long
    std::vector<IdleRange> idle;            ///< in address order, disjoint; with idle_for
    bool force_fill = false;                ///< huge pages although they cost more than they gain
};

/// What of the machine and the caller decides, beside the pages.
struct Situation {
    HostFacts host;
    bool swap_present = false;
    std::uint64_t swap_free_bytes = 0;
    /// Whether what goes to swap leaves memory at once: all areas are compressed memory (yes), none
    /// is (no).
    Tri swap_frees = Tri::unknown;
    std::optional<std::uint64_t> available_bytes; ///< MemAvailable
    /// Whether the caller owns the file behind a mapping or may write to it; empty: taken as yes.
    std::function<Tri(const Mapping&)> owns_file;
    /// Bytes of pages in a range that are in memory and equal another one of it, without zeros;
    /// empty: not known. Reads them.
    std::function<std::optional<std::uint64_t>(AddressRange)> equal_bytes;
};

struct Identity {
    std::uint32_t pid = 0;
    std::uint64_t start_time = 0; ///< clock ticks since boot; 0: not known
    std::string boot_id;          ///< empty: not known
    bool operator==(const Identity&) const = default;
};

struct PlannedRange {
    AddressRange range;
    std::size_t mapping = 0; ///< of Plan::mappings
    State state = State::present;
    Kind kind = Kind::not_present; ///< of all pages; of huge pages to be: thp
    bool swap = false;             ///< it goes to swap, or comes from there
    std::uint64_t unit_bytes = 0;  ///< it may be cut at multiples of this from its start
    std::optional<double> idle_seconds;
    std::uint64_t fresh_bytes = 0; ///< on no list of the kernel's yet, so it may pass them over
    std::uint64_t fill_bytes = 0;  ///< collapse: memory for what is nothing or zero pages now
    std::uint64_t copy_bytes = 0;  ///< collapse: of what is shared, in swap or only in the cache
    std::uint64_t gain_bytes = 0;  ///< merge: zeros, and what is there twice; an estimate
    std::uint64_t bytes() const { return range.size().value; }
    bool operator==(const PlannedRange&) const = default;
};

struct SkippedRange {
    AddressRange range;
    std::size_t mapping = 0; ///< of Plan::mappings
    Reason reason = Reason::unknown;
    bool operator==(const SkippedRange&) const = default;
};

/// What is gained if every page goes the way that is meant for it.
struct Forecast {
    std::uint64_t bytes = 0;                  ///< of all ranges
    std::uint64_t swap_bytes = 0;             ///< that go to swap, or come from it
    std::uint64_t file_bytes = 0;             ///< that are read from a file again, or now
    std::optional<std::uint64_t> freed_bytes; ///< memory that is free right after; empty: unknown
    std::uint64_t fresh_bytes = 0, fill_bytes = 0, copy_bytes = 0, gain_bytes = 0;
};

struct Plan {
    Action action = Action::pageout;
    Identity identity;
    std::string comm, exe, lens;
    std::uint64_t page_size = 4096, slot_bytes = 2 << 20;
    Tri swap_frees = Tri::unknown;     ///< see Situation
    std::vector<Mapping> mappings;     ///< those that the ranges lie in, by address
    std::vector<PlannedRange> ranges;  ///< by address, disjoint
    std::vector<SkippedRange> skipped; ///< by address, disjoint
    Forecast forecast;
    std::vector<Gap> gaps;
    bool interrupted = false; ///< only a part of the process was looked at
    std::uint64_t skipped_bytes(Reason reason) const;
};

/// Makes a plan of what a look hands on. What is nothing to the action (pages that are not there,
/// for pageout) is in neither list.
class Planner {
public:
    Planner(Request request, Situation situation);
    ~Planner();
    Planner(const Planner&) = delete;
    Planner& operator=(const Planner&) = delete;
    void begin(std::span<const Mapping> mappings); ///< copied
    void add(const Stretch& stretch);              ///< in address order
    /// Ranges, skipped, forecast, mappings, action; the rest is the caller's.
    Plan finish();

private:
    class Work;
    std::unique_ptr<Work> work_;
};

/// Why the pages of a range were chosen, what that costs, in a few words; and how much memory is
/// free right after (empty: unknown).
std::string_view why(const Plan& plan, const PlannedRange& range);
std::string_view cost(const Plan& plan, const PlannedRange& range);
std::optional<std::uint64_t> freed_bytes(const Plan& plan, const PlannedRange& range);

/// The sums over the ranges of a plan.
Forecast forecast_of(const Plan& plan);
/// Bytes of the plan that need swap, so that the next process knows what is left of it.
std::uint64_t swap_bytes(const Plan& plan);

/// Why pages like these are left alone, by themselves; empty: the action works on them.
/// First asked: is_candidate.
std::optional<Reason> objection(Action action, const Situation& situation, const Mapping& mapping,
                                const Stretch& stretch);
/// Why nothing of a mapping is taken, whatever its pages are.
std::optional<Reason> objection_to_mapping(Action action, const Mapping& mapping);
/// Whether pages like these are what the action is about.
bool is_candidate(Action action, const Mapping& mapping, const Stretch& stretch);

// --- A plan that was kept ------------------------------------------------------------------------

/// Reads what `advise --format json` wrote. Throws Error(bad_input) that names @p subject and the
/// place: not a plan, a newer version, ranges that overlap or leave their mapping. Any bytes may
/// come.
std::vector<Plan> load_plans(std::string_view text, const std::string& subject);

/// The mapping that now holds @p range as @p then did: same file and place in it, same
/// permissions, private or shared as before. Null: there is none.
const Mapping* find_same(std::span<const Mapping> now, const Mapping& then, AddressRange range);

// --- Acting --------------------------------------------------------------------------------------

/// One call: ranges that lie in one mapping each.
struct Batch {
    std::vector<PlannedRange> ranges;
    std::uint64_t bytes = 0;
};
/// @param most_bytes at least one unit of a range is in a batch all the same
std::vector<Batch> make_batches(const Plan& plan, std::uint64_t most_bytes,
                                std::size_t most_ranges = 1024);

/// What came of a range, or of what was left of it.
struct Stayed {
    AddressRange range;
    std::size_t mapping = 0; ///< of Plan::mappings
    Reason reason = Reason::unknown;
    int error = 0; ///< errno, with Reason::refused
};

/// How long a process stood still.
struct Stops {
    std::vector<double> seconds;         ///< of each stop, in their order
    unsigned threads = 0, processes = 0; ///< the most that stood still at a time
    double longest() const;
    double total() const;
    double percentile(double share) const; ///< nearest rank; 0 where there was no stop
};

struct Effect {
    std::uint64_t calls = 0;
    std::uint64_t advised_bytes = 0; ///< of ranges that a call went through
    /// Whose state is what was meant: out of memory (pageout), not young and not active (cold), in
    /// a huge page (collapse). For willneed by a counter of the machine: read from swap, so without
    /// what was in the swap cache already, and too much if others read as well. Empty: not known.
    std::optional<std::uint64_t> moved_bytes = 0;
    std::optional<std::uint64_t> freed_bytes = 0; ///< pageout: frames that hold nothing of it now
    std::optional<std::uint64_t> kept_bytes = 0;  ///< pageout: copies that stay in the swap cache
    std::uint64_t retries = 0;
    double elapsed_seconds = 0, call_seconds = 0, longest_call_seconds = 0;
    Gauges before, after;
    std::vector<Stayed> stayed; ///< by address, but for what was tried again
    /// Of each range of the plan; empty: no page tells.
    std::vector<std::optional<std::uint64_t>> moved;
    std::optional<Stops> stops; ///< of what is done from inside
    std::optional<std::uint64_t> tables_before_bytes, tables_after_bytes; ///< VmPTE, likewise
    std::optional<std::uint64_t> rss_before_bytes, rss_after_bytes;       ///< VmRSS, likewise
    std::vector<AddressRange> freed_tables; ///< pt-reclaim: slots that have no table any more
    bool interrupted = false;
    std::optional<Error> ended; ///< the process went away
    std::uint64_t stayed_bytes(Reason reason) const;
};

struct ApplyOptions {
    std::uint64_t batch_bytes = 64 << 20;
    unsigned retries = 1;
    Want want;
    /// Before each batch: may sleep. With what it is about to act on.
    std::function<void(std::uint64_t bytes)> before_batch;
    std::function<void(std::uint64_t bytes)> after_batch;
    std::function<void()> pause; ///< before what failed is tried again
    std::function<bool()> interrupted;
    std::chrono::nanoseconds max_stop = std::chrono::milliseconds{10};
};

/// What an errno of process_madvise(2) means for an action; empty: nothing beyond its name.
std::string_view explain(Action action, int error);

/// Acts, batch by batch: proves again that it is the same process, that the mappings are the same
/// and that every page still fits; calls; looks at what became of them.
/// Throws nothing once something was done: see Effect::ended.
Effect apply(const Plan& plan, const Situation& situation, Source& source, Actuator& actuator,
             const ApplyOptions& options);

// --- From inside ---------------------------------------------------------------------------------

/// Plans pt-reclaim: the empty tables of a look at the whole process. Ranges are slots, within
/// @p only, where that is not empty. Empty tables of which nobody knows where they are become a
/// gap.
Plan plan_tables(const Request& request, const Situation& situation, const Census& census,
                 std::span<const AddressRange> only);

/// What an action must prove, and whether others than the process' threads may write meanwhile.
InsideRequest inside_request(const Plan& plan, std::chrono::nanoseconds max_stop);

/// What KSM will make of a plan to merge, by the machine's settings: one line each.
std::vector<Gap> ksm_notes(const HostFacts& host);

/// Acts in as many stops as it takes, each no longer than ApplyOptions::max_stop as far as that can
/// be told beforehand. Proves again before the stops what cannot be proven during them, and looks
/// afterwards. Throws Error where nothing was done.
Effect apply_inside(const Plan& plan, Source& source, InsideActuator& actuator,
                    const ApplyOptions& options);

} // namespace pagesift::advice
