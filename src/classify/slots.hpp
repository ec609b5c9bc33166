// SPDX-License-Identifier: MIT
// Page-table slots: what must exist, what is left over, and where.
#pragma once

#include "pagesift/classify.hpp"

namespace pagesift {

/// What entries of one slot were seen, as bits.
struct SlotNote {
    std::uint64_t slot = 0; ///< address / slot size
    std::uint8_t seen = 0;

    static constexpr std::uint8_t populated = 1; ///< an entry that is neither none nor a marker
    static constexpr std::uint8_t marker = 2;
    static constexpr std::uint8_t huge = 4;       ///< a huge entry that keeps a table in reserve
    static constexpr std::uint8_t huge_alone = 8; ///< a huge entry without one
    static constexpr std::uint8_t hidden = 16;    ///< entries that pagemap hides
    /// Pages of a large folio that is not anonymous; whether by a huge entry is not shown.
    static constexpr std::uint8_t maybe_huge = 32;
};

/// Adds @p note, which is at or behind the last of @p notes.
void add_note(std::vector<SlotNote>& notes, SlotNote note);

/// What the kernel itself counts; empty when not known.
struct TableFigures {
    std::optional<std::uint64_t> vm_pte_bytes;      ///< VmPTE of status
    std::optional<std::uint64_t> shared_huge_bytes; ///< not anonymous and mapped by huge entries
};

/// Judges all slots of a process. @p notes in address order; @p whole is false when only a part of
/// the mappings was looked at.
PageTables judge_tables(Source& source, std::span<const Mapping> mappings,
                        std::span<const SlotNote> notes, const TableFigures& figures, bool whole,
                        unsigned jobs);

} // namespace pagesift
