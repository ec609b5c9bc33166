// SPDX-License-Identifier: MIT
#include "walk/entries.hpp"

#include "pagesift/abi.hpp"

#include <algorithm>
#include <cassert>

namespace pagesift::walk {

std::uint64_t pagemap_word(const Entry& entry) {
    std::uint64_t word =
        (entry.uffd_wp ? abi::PM_UFFD_WP : 0) | (entry.soft_dirty ? abi::PM_SOFT_DIRTY : 0);
    switch (entry.kind) {
    case EntryKind::none: return 0;
    case EntryKind::present:
        return word | abi::PM_PRESENT | entry.frame | (entry.special ? special_entry : 0);
    case EntryKind::marker:
        if (entry.swap_offset & abi::PTE_MARKER_GUARD) word |= abi::PM_GUARD_REGION;
        break;
    case EntryKind::swap: break;
    }
    return word | abi::PM_SWAP | entry.swap_type | ((entry.swap_offset << 5) & abi::PM_PFRAME_MASK);
}

namespace {

/// The pages of a huge entry: their frames or swap offsets go up, a marker's bits stay.
void write_leaf(const EntryFormat& format, const SlotRun& run, std::span<std::uint64_t> words) {
    Entry entry = format.decode(format, run.leaf, run.leaf_level);
    entry.special = false; // fs/proc/task_mmu.c: pagemap_pmd_range asks any huge page's folio
    const std::uint64_t first =
        (run.range.start.value & (format.span(run.leaf_level) - 1)) >> format.page_shift;
    const std::uint64_t step = entry.kind == EntryKind::marker ? 0 : 1;
    entry.frame += first;
    entry.swap_offset += first * step;
    for (std::uint64_t& word : words) {
        word = pagemap_word(entry);
        ++entry.frame;
        entry.swap_offset += step;
    }
}

} // namespace

void write_pagemap(const EntryFormat& format, const SlotRun& run, std::span<std::uint64_t> words) {
    const std::uint64_t pages = run.range.size().value >> format.page_shift;
    assert(words.size() == pages);
    if (run.state == TableState::huge) {
        write_leaf(format, run, words);
    } else if (run.state == TableState::populated || run.state == TableState::marker_only) {
        const std::uint64_t skipped = (run.range.start - run.slot_start).value;
        format.to_pagemap(format, run.entries.subspan(skipped >> format.page_shift, pages), words);
    } else {
        std::fill(words.begin(), words.end(), 0);
    }
}

} // namespace pagesift::walk
