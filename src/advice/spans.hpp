// SPDX-License-Identifier: MIT
// What was accepted and what was left alone, as ranges: gathered in address order, then limited.
#pragma once

#include "pagesift/advice.hpp"

#include <vector>

namespace pagesift::advice {

class Spans {
public:
    explicit Spans(std::uint64_t min_run_bytes) : min_run_bytes_(min_run_bytes) {}

    /// In address order.
    void take(const PlannedRange& range);
    void skip(AddressRange range, std::size_t mapping, Reason reason);
    /// No more to come: ranges by address, what was left alone by address.
    void finish();
    /// Keeps the first of the longest idle, else of the lowest addresses, of ranges for which
    /// @p counts: @p budget bytes of them.
    void limit(std::uint64_t budget, Reason reason, bool (*counts)(const PlannedRange&));

    std::vector<PlannedRange> ranges;
    std::vector<SkippedRange> skipped;

private:
    void close();
    void sort_skipped();

    std::uint64_t min_run_bytes_;
    std::vector<PlannedRange> span_; ///< side by side, in one mapping
};

} // namespace pagesift::advice
