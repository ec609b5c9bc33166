// SPDX-License-Identifier: MIT
// What to tell KSM of: mappings that hold many zeros, or much that is there twice.
#pragma once

#include "advice/spans.hpp"

namespace pagesift::advice {

class MergePlanner {
public:
    MergePlanner(const Situation& situation, Spans& spans) : situation_(situation), spans_(spans) {}

    /// In address order, of present pages.
    void add(const Mapping& mapping, const Stretch& stretch);
    void finish() { close(); }

private:
    /// Of one mapping, from the first page to the last that counts. One range a mapping: each
    /// border of a range cuts a mapping in two.
    struct Extent {
        std::size_t mapping = 0;
        AddressRange range;
        std::uint64_t own_bytes = 0;  ///< anonymous, in memory, and the process' alone
        std::uint64_t zero_bytes = 0; ///< of these, zero-filled
    };
    void close();

    const Situation& situation_;
    Spans& spans_;
    std::optional<Extent> extent_;
};

} // namespace pagesift::advice
