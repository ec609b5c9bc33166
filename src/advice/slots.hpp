// SPDX-License-Identifier: MIT
// Huge pages to be: what each page-table slot holds, and whether one huge page would be worth it.
#pragma once

#include "advice/spans.hpp"

namespace pagesift::advice {

class SlotPlanner {
public:
    SlotPlanner(const Situation& situation, bool force_fill, Spans& spans)
        : situation_(situation), force_fill_(force_fill), spans_(spans) {}

    /// In address order.
    void add(const Mapping& mapping, const Stretch& stretch);
    void finish() { close(); }

private:
    struct Slot {
        std::uint64_t index = 0;
        std::size_t mapping = 0;
        AddressRange seen;
        std::uint64_t held = 0;    ///< what a huge page would hold of the process' own
        std::uint64_t nothing = 0; ///< none and zero pages, which it would fill
        std::uint64_t copied = 0;  ///< shared or in swap, so that a copy more is made
        std::uint64_t huge = 0;    ///< mapped by a huge entry
        bool wanted = false, undecided = false;
        std::optional<Reason> objection;
    };
    void add_part(const Mapping& mapping, const Stretch& stretch, AddressRange part);
    void close();
    std::optional<Reason> decide() const;

    const Situation& situation_;
    bool force_fill_;
    Spans& spans_;
    std::optional<Slot> slot_;
};

} // namespace pagesift::advice
