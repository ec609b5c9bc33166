// SPDX-License-Identifier: MIT
// The parts of a comparison's table format, from top to bottom.
#pragma once

#include "report/columns.hpp"
#include "report/diff_figures.hpp"

namespace pagesift::report {

/// "+1.5 GiB", "-12 KiB", "0", "?".
std::string signed_amount(const Screen& screen, std::optional<std::int64_t> bytes);

/// The largest transitions, and the pairs of mappings in which most has changed.
void render_top_transitions(const Screen& screen, const ProcessDiff& diff);
void render_top_pairs(const Screen& screen, const ProcessDiff& diff);
/// Every pair of mappings that is not what it was, in address order.
void render_changed_pairs(const Screen& screen, const ProcessDiff& diff);

/// Changed ranges, a line each, as they stream in.
class RangeListing {
public:
    explicit RangeListing(const Screen& screen);
    void add(const ChangedRange& changed);
    void finish() const;

private:
    Screen screen_;
    Columns columns_;
    bool any_ = false;
};

} // namespace pagesift::report
