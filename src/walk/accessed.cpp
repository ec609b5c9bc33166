// SPDX-License-Identifier: MIT
#include "pagesift/walk.hpp"

namespace pagesift::walk {

Access judge_access(const KernelLayout& layout, const Sighting& first, const Sighting& now) {
    const auto has = [](const Sighting& sighting, std::optional<std::uint32_t> bit) {
        return bit && (sighting.flags >> *bit & 1) != 0;
    };
    // Who clears an entry's accessed bit leaves a trace: page_idle and DAMON in PG_young
    // (include/linux/page_idle.h), reclaim of the inactive list in PG_referenced (mm/vmscan.c:
    // folio_check_references).
    if (now.present && (now.young || has(now, layout.PG_young) || has(now, layout.PG_referenced)))
        return Access::accessed;
    // What is not there any more, or is there in another frame, took its traces along.
    if (!first.present || !now.present || first.frame != now.frame) return Access::unknown;
    // Reclaim of the inactive list takes PG_referenced along when it meets a page again: meanwhile
    // the page is on no list, and then it is unmapped, or active where that failed
    // (shrink_folio_list).
    const bool active = has(now, layout.PG_active);
    if (has(first, layout.PG_active) != active || !has(now, layout.PG_lru)) return Access::unknown;
    // Reclaim of the active list leaves no trace (shrink_active_list): it moves the page, which may
    // be back by now, but with PG_workingset (5.0), or lets it stay if it is code of a file.
    const bool never_moved = layout.PG_workingset && !has(now, layout.PG_workingset);
    return !active && never_moved ? Access::idle : Access::idle_unless_refilled;
}

} // namespace pagesift::walk
