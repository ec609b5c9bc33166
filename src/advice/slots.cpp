// SPDX-License-Identifier: MIT
#include "advice/slots.hpp"

namespace pagesift::advice {

void SlotPlanner::add(const Mapping& mapping, const Stretch& stretch) {
    const std::uint64_t size = situation_.host.slot_bytes();
    const std::uint64_t first = stretch.range.start.value / size;
    const std::uint64_t last = (stretch.range.end.value - 1) / size;
    const auto part = [&](std::uint64_t slot) {
        return stretch.range.intersect({Address{slot * size}, Address{slot * size + size}});
    };
    // Whole slots of nothing are nobody's business, and there may be very many.
    const bool nothing = stretch.cls.state == State::none || stretch.cls.state == State::uncached;
    for (std::uint64_t slot = first; slot <= last; ++slot) {
        add_part(mapping, stretch, part(slot));
        if (nothing && slot + 1 < last) slot = last - 1;
    }
}

void SlotPlanner::add_part(const Mapping& mapping, const Stretch& stretch, AddressRange part) {
    const std::uint64_t index = part.start.value / situation_.host.slot_bytes();
    if (!slot_ || slot_->index != index || slot_->mapping != stretch.mapping) {
        close();
        slot_ = Slot{};
        slot_->index = index;
        slot_->mapping = stretch.mapping;
        slot_->seen = {part.start, part.start};
    }
    Slot& slot = *slot_;
    const std::uint64_t bytes = part.size().value;
    if (slot.seen.end == part.start) slot.seen.end = part.end;
    slot.wanted = slot.wanted || stretch.matches == Tri::yes;
    slot.undecided = slot.undecided || stretch.matches == Tri::unknown;
    const auto object = [&](Reason reason) {
        if (!slot.objection) slot.objection = reason;
    };
    // What --where leaves out still is part of the slot.
    Stretch judged = stretch;
    judged.matches = Tri::yes;
    if (const auto reason = objection(Action::collapse, situation_, mapping, judged))
        object(*reason);
    const PageClass& cls = stretch.cls;
    switch (cls.state) {
    case State::none:
    case State::uncached: slot.nothing += bytes; return;
    case State::swapped:
    case State::shmem_swapped:
        slot.held += bytes;
        slot.copied += bytes;
        return;
    case State::cached: slot.held += bytes; return;
    case State::present: break;
    case State::marker:
        return object(cls.marker == Marker::uffd_wp ? Reason::userfaultfd : Reason::special);
    case State::migrating:
    case State::unknown: return object(Reason::unknown);
    }
    if (cls.kind == Kind::zero_page) {
        slot.nothing += bytes;
        return;
    }
    if (cls.kind == Kind::unknown) return object(Reason::unknown);
    slot.held += bytes;
    if (cls.attribute(Attribute::pmd_mapped) == Tri::yes) slot.huge += bytes;
    // Of shared memory there is but one copy, whoever maps it.
    if (stretch.sole == Tri::no && mapping.backing == Backing::anon) slot.copied += bytes;
}

std::optional<Reason> SlotPlanner::decide() const {
    const Slot& slot = *slot_;
    const std::uint64_t size = situation_.host.slot_bytes();
    if (slot.objection) return slot.objection;
    if (!slot.wanted) return Reason::undecided;
    if (slot.huge == size) return Reason::already_huge;
    if (slot.seen.size().value != size) return Reason::unaligned;
    // More than half of it would be memory that holds nothing new.
    if ((slot.nothing + slot.copied) * 2 > size && !force_fill_) return Reason::costs_more;
    return {};
}

void SlotPlanner::close() {
    if (!slot_) return;
    const Slot& slot = *slot_;
    if (slot.held > 0 && (slot.wanted || slot.undecided)) {
        if (const auto reason = decide()) {
            spans_.skip(slot.seen, slot.mapping, *reason);
        } else {
            PlannedRange range;
            range.range = slot.seen;
            range.mapping = slot.mapping;
            range.kind = Kind::thp;
            range.unit_bytes = situation_.host.slot_bytes();
            range.fill_bytes = slot.nothing;
            range.copy_bytes = slot.copied;
            spans_.take(range);
        }
    }
    slot_.reset();
}

} // namespace pagesift::advice
