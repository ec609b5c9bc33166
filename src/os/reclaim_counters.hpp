// SPDX-License-Identifier: MIT
// Whether the kernel reclaimed or moved pages, by /proc/vmstat: who does so may clear accessed bits
// and leave no trace of it.
#pragma once

#include "os/file.hpp"

#include <cstdint>
#include <optional>

namespace pagesift::os {

/// A sum that moves with every look of reclaim at pages, anywhere on the machine:
/// - pgscan_*, in all ways of reclaim, those of memory cgroups included (mm/vmscan.c:
///   shrink_inactive_list, scan_folios), and before rmap is walked for what was isolated, in which
///   MGLRU clears the accessed bits of neighbours (lru_gen_look_around);
/// - pgrefill, pgdeactivate: the active list (shrink_active_list);
/// - pageoutrun, allocstall_*: reclaim has begun, and may walk page tables for MGLRU before it
/// scans;
/// - pgmigrate_success: page-table entries were made anew, before 6.1 without accessed bits
///   (mm/migrate.c: remove_migration_pte).
/// Event counters are per processor and added up when they are read, so what happened before is in.
class ReclaimCounters {
public:
    /// A sum that is empty: vmstat cannot be read, or has none of its counters.
    struct Sums {
        std::optional<std::uint64_t> all;
        /// Of the active lists alone, which move before accessed bits are cleared there: pgrefill
        /// and pgdeactivate.
        std::optional<std::uint64_t> refills;
    };

    explicit ReclaimCounters(const Root& root) : root_(root) {}
    Sums read() const;

private:
    const Root& root_;
};

} // namespace pagesift::os
