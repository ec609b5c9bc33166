// SPDX-License-Identifier: MIT
// What pages are, and how long they have been idle, side by side.
#pragma once

#include "cold/marks.hpp"

namespace pagesift::cold {

/// Takes runs in address order and gives ranges of one age; counts them in the histogram.
class Joiner {
public:
    /// @param ages with source, rounds and steps; the histogram is filled
    Joiner(const MarkBook& marks, Ages& ages, std::function<void(const Range&)> sink)
        : marks_(marks), ages_(ages), sink_(std::move(sink)) {}
    void add(const Run& run);
    void flush(); ///< after the last run
    /// From here on what was called idle in the last round is unknown.
    void doubt() { doubts_ = true; }
    bool doubts() const { return doubts_; }
    /// Adds a range to the histogram of @p ages.
    static void count(Ages& ages, const Range& range);

private:
    void judge(Mark mark, Range& range) const;
    void take(const Range& range);

    const MarkBook& marks_;
    Ages& ages_;
    std::function<void(const Range&)> sink_;
    std::optional<Range> pending_;
    bool doubts_ = false;
};

} // namespace pagesift::cold
