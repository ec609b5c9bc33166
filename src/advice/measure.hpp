// SPDX-License-Identifier: MIT
// What became of what was advised, page by page, by the same lens that chose it.
#pragma once

#include "pagesift/advice.hpp"

#include <memory>
#include <vector>

namespace pagesift::advice {

/// What one call was given as one range.
struct Part {
    AddressRange range;
    std::size_t mapping = 0; ///< of Plan::mappings
    std::shared_ptr<const Mapping> live;
    std::vector<std::uint64_t> frames; ///< of its pages before the call; empty: not known
    std::vector<AddressRange> fresh;   ///< what was on no list before the call
    bool called = false;               ///< it was given to a call, whatever came of that
    bool advised = false;
    int error = 0;
};

struct WhyLeft {
    Reason reason;
    int error; ///< errno, with refused
};
/// Of what was not come to before all was interrupted or ended.
WhyLeft why_left(const Effect& effect);

class Measure {
public:
    /// All outlive this.
    Measure(const Plan& plan, const Situation& situation, Source& source, Actuator& actuator,
            const Want& want, Effect& effect)
        : plan_(plan),
          situation_(situation),
          source_(source),
          actuator_(actuator),
          want_(want),
          effect_(effect) {}

    /// From here on, what is free in swap is looked at anew.
    void begin();
    /// Whether no other page of @p range would have room in swap: of the machine's, or of what the
    /// process' cgroup may have there. False: it has, needs none, or that is not known. Throws as
    /// Actuator::gauges does.
    bool has_no_room(AddressRange range);
    /// Right after the call.
    void add(const Part& part);
    /// What became of it cannot be seen. After add() has thrown.
    void give_up(const Part& part);
    /// After all calls, and Effect::after is known.
    void finish();
    /// The range of the plan that holds an address of one of its parts.
    std::size_t index_of(Address address) const;

private:
    void add_stretch(const Part& part, const Stretch& stretch);
    Tri moved(const Stretch& stretch) const;
    Reason reason_of(const Part& part, const Stretch& stretch);
    void stay(const Part& part, AddressRange range, Reason reason);
    void count_moved(AddressRange range);
    void ask_frames(const Part& part, AddressRange gone);

    const Plan& plan_;
    const Situation& situation_;
    Source& source_;
    Actuator& actuator_;
    const Want& want_;
    Effect& effect_;
    std::optional<Gauges> gauges_;   ///< since begin()
    std::uint64_t silent_bytes_ = 0; ///< advised, and no page tells what became of it
};

} // namespace pagesift::advice
