// SPDX-License-Identifier: MIT
// From a made-up process to a plan.
#pragma once

#include "made_up_actuator.hpp"
#include "pagesift/advice.hpp"

namespace pagesift::test {

/// A machine with a swap file that has room for everything.
inline advice::Situation roomy(const MadeUpSource& source) {
    advice::Situation situation;
    situation.host = source.facts;
    situation.swap_present = true;
    situation.swap_free_bytes = std::uint64_t{1} << 40;
    situation.swap_frees = Tri::no;
    return situation;
}

inline advice::Plan make_plan(MadeUpSource& source, const advice::Request& request,
                              const advice::Situation& situation, const LookOptions& with = {}) {
    advice::Planner planner{request, situation};
    LookOptions look = with;
    look.want.cache = true;
    look.jobs = 1;
    look.on_mappings = [&](const ProcessText&, std::span<const Mapping> mappings) {
        planner.begin(mappings);
    };
    look.on_stretch = [&](const Stretch& stretch) { planner.add(stretch); };
    const Census census = pagesift::look(source, look);
    advice::Plan plan = planner.finish();
    plan.identity = {census.process.pid, 4711, "boot"};
    return plan;
}

inline advice::Plan make_plan(MadeUpSource& source, advice::Action action) {
    advice::Request request;
    request.action = action;
    return make_plan(source, request, roomy(source));
}

inline void give_flags(Mapping& mapping, const std::string& codes) {
    auto smaps = std::make_shared<SmapsFacts>();
    smaps->vm_flags = procfs::parse_vm_flags(codes);
    mapping.smaps = smaps;
}

inline std::uint64_t planned_bytes(const advice::Plan& plan) { return plan.forecast.bytes; }

} // namespace pagesift::test
