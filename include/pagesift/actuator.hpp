// SPDX-License-Identifier: MIT
// `Actuator`: what can be done to one process. One of the virtual interfaces of the program, beside
// `Source`; implemented by os for a live process, and by made-up ones in tests. It acts, and never
// decides what on.
//
//     const AdviseResult done = actuator.advise(abi::advice::pageout, ranges);
#pragma once

#include "pagesift/base.hpp"

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

} // namespace pagesift
