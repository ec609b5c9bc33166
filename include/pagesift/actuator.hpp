// SPDX-License-Identifier: MIT
// `Actuator`: what can be done to one process. One of the virtual interfaces of the program, beside
// `Source`; implemented by os for a live process, and by made-up ones in tests. It acts, and never
// decides what on. `InsideActuator`: likewise what only the process itself can have done.
//
//     const AdviseResult done = actuator.advise(abi::advice::pageout, ranges);
#pragma once

#include "pagesift/base.hpp"
#include "pagesift/procfs.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pagesift {

/// What process_madvise(2) answered.
struct AdviseResult {
    /// Of the ranges, from the first on, that were gone through to their end; that says nothing of
    /// what became of their pages.
    std::uint64_t done_bytes = 0;
    int error = 0; ///< errno; only where not even the first range was done
    double seconds = 0;
};

/// Numbers of the machine that an action moves. An empty one could not be read.
struct Gauges {
    std::optional<std::uint64_t> swap_total_bytes, swap_free_bytes, available_bytes;
    /// Pages read from swap since boot, those included that were known to be zero and so not read.
    std::optional<std::uint64_t> swapped_in_pages;
    /// What the process' own memory cgroup may still have in swap; empty: no limit is known.
    std::optional<std::uint64_t> swap_allowance_bytes;
};

class Actuator {
public:
    virtual ~Actuator() = default;

    /// Whether it is still the process that was opened, and has not exited.
    virtual bool is_same() = 0;

    /// Gives @p advice (MADV_*) on @p ranges, at most 1024, each within one mapping, in whole
    /// pages, by one call. mm/madvise.c:vector_madvise: what stands before the first failing range
    /// is done, an error comes out only if that is nothing, and a failing range may be done in
    /// part. With no range at all it has no effect and says what stands in the way: EPERM (no
    /// CAP_SYS_NICE), EACCES (may not be looked at), EINVAL (the kernel knows no such advice for
    /// others), ENOSYS, ESRCH.
    virtual AdviseResult advise(int advice, std::span<const AddressRange> ranges) = 0;

    /// Gives the advice on @p range once on each processor that this one may run on. Each puts the
    /// pages that wait in its own batch on their lists (mm/madvise.c: lru_add_drain).
    virtual AdviseResult advise_everywhere(int advice, AddressRange range) = 0;

    /// kpageflags of @p frames, in their order; empty where they cannot be read.
    virtual std::vector<std::optional<std::uint64_t>>
    frame_flags(std::span<const std::uint64_t> frames) = 0;

    virtual Gauges gauges() = 0;
};

/// What must hold of pages while no thread of the process runs; else they are left alone.
enum class Proof : std::uint8_t {
    none,  ///< nothing: the advice loses nothing, whatever they are
    empty, ///< none has an entry of any kind, markers included
    zero,  ///< each is in memory, not of a file, and all of its bytes are zero
};

struct InsideRange {
    AddressRange range;
    std::uint64_t unit_bytes = 0; ///< is proven, and advised or not, in multiples of this
    /// That the range must still lie in: same file, place and permissions. Outlives the call.
    const procfs::Mapping* mapping = nullptr;
};

struct InsideRequest {
    int advice = 0; ///< MADV_*
    Proof proof = Proof::none;
    /// Only where nothing but the threads, which stand still, could write to the memory.
    bool sole_writer = false;
    /// Nothing is begun that would not be over by then, counted from when the first thread stops.
    std::chrono::nanoseconds max_stop{};
};

/// What became of a part of a range.
struct InsidePart {
    enum class Outcome : std::uint8_t {
        advised,
        unanswered, ///< it was on its way when the stop ended badly, and may have come about
        not_proven,
        mapping_changed,
        refused
    };
    AddressRange range;
    Outcome outcome = Outcome::advised;
    int error = 0; ///< errno, with refused
};

struct InsideAnswer {
    /// From the first range on, without holes; what is behind was not come to.
    std::vector<InsidePart> parts;
    std::uint64_t calls = 0;
    double stopped_seconds = 0;
    unsigned threads = 0, processes = 0; ///< that stood still
    /// What ended the stop after these parts; nothing can be done any more.
    std::optional<Error> ended;
};

class InsideActuator {
public:
    virtual ~InsideActuator() = default;

    virtual bool is_same() = 0;

    /// Why such a request would be refused as a whole: what could write to the memory beside its
    /// threads, or that no page table would be freed (Proof::empty). Has no effect on the process.
    virtual std::optional<Error> why_not(const InsideRequest& request) = 0;

    /// One stop: proves and gives the advice, part by part, as far as the time allows.
    /// @throws Error where nothing was done: gone; unsupported and denied (nor would it be the next
    ///         time); failed (not this time: a thread did not stand still soon enough)
    virtual InsideAnswer advise(const InsideRequest& request,
                                std::span<const InsideRange> ranges) = 0;
};

} // namespace pagesift
