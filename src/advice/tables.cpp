// SPDX-License-Identifier: MIT
// pt-reclaim: page tables without entries, slot by slot.
#include "advice/spans.hpp"

#include <algorithm>

namespace pagesift::advice {
namespace {

bool any(const PlannedRange&) { return true; }

/// mm/madvise.c:madvise_dontneed_free_valid_vma, mm/pt_reclaim.c:reclaim_pt_is_enabled.
std::optional<Reason> objection_to_slot(const Mapping& mapping, const Slot& slot) {
    if (slot.state == SlotState::marker_only) return Reason::markers;
    if (!slot.reclaimable) return Reason::spanning;
    return objection_to_mapping(Action::pt_reclaim, mapping);
}

/// Slots that are not within one of @p only are not asked for.
bool is_asked_for(std::span<const AddressRange> only, AddressRange slot) {
    return only.empty() || std::any_of(only.begin(), only.end(), [&](const AddressRange& one) {
               return one.start <= slot.start && slot.end <= one.end;
           });
}

} // namespace

Plan plan_tables(const Request& request, const Situation& situation, const Census& census,
                 std::span<const AddressRange> only) {
    Plan plan;
    plan.action = Action::pt_reclaim;
    plan.page_size = situation.host.page_size;
    plan.slot_bytes = situation.host.slot_bytes();
    plan.lens = situation.host.lens;
    plan.swap_frees = situation.swap_frees;
    Spans spans{request.min_run_bytes};
    std::size_t at = 0; // of census.mappings
    std::optional<std::size_t> listed;
    for (const Slot& slot : census.tables.slots) {
        const bool free = slot.state == SlotState::empty || slot.state == SlotState::marker_only;
        if (!free || !is_asked_for(only, slot.range)) continue;
        while (at < census.mappings.size() &&
               census.mappings[at].mapping.range.end <= slot.range.start)
            ++at;
        if (at >= census.mappings.size()) break;
        const Mapping& mapping = census.mappings[at].mapping;
        if (listed != at) plan.mappings.push_back(mapping);
        listed = at;
        const std::size_t index = plan.mappings.size() - 1;
        if (const auto reason = objection_to_slot(mapping, slot)) {
            // Only the part in the mapping: of a table that others share it is the first one's.
            spans.skip(slot.range.intersect(mapping.range), index, *reason);
            continue;
        }
        PlannedRange range;
        range.range = slot.range;
        range.mapping = index;
        range.state = State::none;
        range.unit_bytes = plan.slot_bytes;
        spans.take(range);
    }
    spans.finish();
    if (request.max_bytes) spans.limit(*request.max_bytes, Reason::limit, any);
    plan.ranges = std::move(spans.ranges);
    plan.skipped = std::move(spans.skipped);
    plan.forecast = forecast_of(plan);
    const auto& tables = census.tables;
    if (!tables.located_tables && tables.empty_tables.value_or(1) > 0)
        plan.gaps.push_back({"page tables", std::nullopt,
                             "which slots own an empty table is not known, so none is freed",
                             "the exact lens tells: root, and CAP_BPF or kcore", false});
    return plan;
}

} // namespace pagesift::advice
