// SPDX-License-Identifier: MIT
// A control group of the tests' own, of version 1 or 2, whichever has the memory of this machine.
//
//     const ControlGroup group;
//     if (!group.ready()) return skip("no control groups");
//     group.add_below(child.pid());
//     group.limit_below(64 << 20);
#pragma once

#include "harness.hpp"

#include <cstdint>
#include <string>

namespace pagesift::live {

/// A new group with another one below it; both are removed at the end, when nobody is in them.
class ControlGroup {
public:
    ControlGroup();
    ~ControlGroup();
    ControlGroup(const ControlGroup&) = delete;
    ControlGroup& operator=(const ControlGroup&) = delete;

    bool ready() const { return !folder_.empty(); }
    std::string name() const;
    /// Where the group below has its files.
    std::string below() const { return folder_ + "/below"; }
    void add_below(pid_t pid) const;
    /// Bytes of memory that those below have; 0: not known.
    std::uint64_t charged_below() const;
    /// The most memory that those below may have. What is charged elsewhere stays there, so this
    /// is for processes that start, or allocate, inside. False: the kernel refused.
    bool limit_below(std::uint64_t bytes) const;
    /// The most swap that those below may have. False: of version 1, which has no such limit, or
    /// the kernel refused.
    bool limit_swap_below(std::uint64_t bytes) const;

private:
    TemporaryDirectory mount_;
    std::string folder_;
    bool first_; ///< of version 1
};

} // namespace pagesift::live
