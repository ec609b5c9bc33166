// SPDX-License-Identifier: MIT
// Entries of x86_64: arch/x86/include/asm/pgtable_types.h, pgtable_64.h, pgtable-invert.h; the
// names of bits are the kernel's without their first underscore, which C++ keeps to itself.
#include "pagesift/abi.hpp"
#include "pagesift/walk.hpp"
#include "walk/entries.hpp"

#include <algorithm>
#include <cassert>
#include <type_traits>

namespace pagesift::walk {

namespace {

constexpr std::uint64_t bit(unsigned number) { return std::uint64_t{1} << number; }

constexpr std::uint64_t PAGE_PRESENT = bit(0);
constexpr std::uint64_t PAGE_RW = bit(1);
constexpr std::uint64_t PAGE_USER = bit(2);
constexpr std::uint64_t PAGE_ACCESSED = bit(5);
constexpr std::uint64_t PAGE_DIRTY = bit(6);
constexpr std::uint64_t PAGE_PSE = bit(7);      // above PTE level; in a PTE it is PAT
constexpr std::uint64_t PAGE_PROTNONE = bit(8); // where PAGE_PRESENT is clear
constexpr std::uint64_t PAGE_SPECIAL = bit(9);
constexpr std::uint64_t PAGE_UFFD_WP = bit(10);
constexpr std::uint64_t PAGE_SOFT_DIRTY = bit(11);
constexpr std::uint64_t PAGE_SAVED_DIRTY = bit(58); // 6.6: dirty, moved aside of a read-only page
constexpr std::uint64_t PAGE_SWP_SOFT_DIRTY = PAGE_RW;
constexpr std::uint64_t PAGE_SWP_UFFD_WP = PAGE_USER;
constexpr std::uint64_t PTE_PFN_MASK = 0x000f'ffff'ffff'f000;
constexpr unsigned PAGE_SHIFT = 12;

/// Knights Landing may set these in entries that are none (_PAGE_KNL_ERRATUM_MASK).
constexpr std::uint64_t stray_bits = PAGE_ACCESSED | PAGE_DIRTY;

constexpr bool is_none(std::uint64_t raw) { return (raw & ~stray_bits) == 0; }

/// pte_present, pmd_present: a huge entry stays present while it is split, by PAGE_PSE alone.
constexpr bool is_present(std::uint64_t raw, unsigned level) {
    return (raw & (PAGE_PRESENT | PAGE_PROTNONE | (level > 1 ? PAGE_PSE : 0))) != 0;
}

constexpr unsigned swap_type(std::uint64_t raw) { return static_cast<unsigned>(raw >> 59); }

/// __swp_offset: kept inverted, against L1TF.
constexpr std::uint64_t swap_offset(std::uint64_t raw) { return (~raw << 5) >> 14; }

constexpr bool is_marker(std::uint64_t raw, unsigned level) {
    return !is_present(raw, level) && swap_type(raw) == abi::SWP_PTE_MARKER;
}

/// The frame of a present entry: inverted where hardware must not use it (pte_pfn, __pte_needs_
/// invert), and without the bits below a huge page, among them its PAT bit.
std::uint64_t frame_of(const EntryFormat& format, std::uint64_t raw, unsigned level) {
    const std::uint64_t address = (raw & PAGE_PRESENT ? raw : ~raw) & format.frame_mask;
    return (address & ~(format.span(level) - 1)) >> PAGE_SHIFT;
}

/// Migration and its like keep a frame in the offset, and their own bits above it (swapops.h:
/// SWP_PFN_MASK, MAX_PHYSMEM_BITS). pagemap shows the frame alone.
std::uint64_t plain_offset(const EntryFormat& format, std::uint64_t raw) {
    const unsigned type = swap_type(raw);
    const bool may_be_frame = type >= abi::FIRST_SPECIAL_SWAP_TYPE && type != abi::SWP_PTE_MARKER;
    const unsigned frame_bits = (format.levels == 5 ? 52 : 46) - PAGE_SHIFT;
    return swap_offset(raw) & (may_be_frame ? bit(frame_bits) - 1 : ~std::uint64_t{0});
}

Entry decode(const EntryFormat& format, std::uint64_t raw, unsigned level) {
    Entry entry;
    if (is_none(raw)) return entry;
    if (is_present(raw, level)) {
        entry.kind = EntryKind::present;
        entry.frame = frame_of(format, raw, level);
        entry.young = raw & PAGE_ACCESSED;
        entry.dirty = raw & (PAGE_DIRTY | PAGE_SAVED_DIRTY);
        entry.writable = raw & PAGE_RW;
        entry.special = raw & PAGE_SPECIAL;
        entry.uffd_wp = raw & PAGE_UFFD_WP;
        entry.soft_dirty = raw & PAGE_SOFT_DIRTY;
        return entry;
    }
    entry.kind = is_marker(raw, level) ? EntryKind::marker : EntryKind::swap;
    entry.swap_type = swap_type(raw);
    entry.swap_offset = plain_offset(format, raw);
    entry.soft_dirty = raw & PAGE_SWP_SOFT_DIRTY;
    entry.uffd_wp =
        (raw & PAGE_SWP_UFFD_WP) != 0 ||
        (entry.kind == EntryKind::marker && (entry.swap_offset & abi::PTE_MARKER_UFFD_WP) != 0);
    return entry;
}

Naming name(const EntryFormat& format, std::uint64_t raw, unsigned level) {
    using Kind = Naming::Kind;
    if (is_none(raw)) return {Kind::none};
    const bool may_be_leaf = level == 2 || level == 3;
    if (may_be_leaf && (!(raw & PAGE_PRESENT) || (raw & PAGE_PSE))) return {Kind::leaf};
    if (!(raw & PAGE_PRESENT)) return {Kind::odd};
    return {Kind::table, (raw & format.frame_mask) >> PAGE_SHIFT};
}

bool same_table(std::uint64_t a, std::uint64_t b) { return ((a ^ b) & ~stray_bits) == 0; }

TableState state(std::span<const std::uint64_t> entries) {
    static constexpr std::size_t step = 16;
    bool any_marker = false;
    for (std::size_t i = 0; i < entries.size(); i += step) {
        const auto some = entries.subspan(i, std::min(step, entries.size() - i));
        std::uint64_t all = 0;
        for (const std::uint64_t raw : some) all |= raw;
        if (is_none(all)) continue;
        for (const std::uint64_t raw : some) {
            if (is_none(raw)) continue;
            if (!is_marker(raw, 1)) return TableState::populated;
            any_marker = true;
        }
    }
    return any_marker ? TableState::marker_only : TableState::empty;
}

/// pagemap_word of @p count present entries, and 0 of all others, without a branch.
/// @return all bits of what is not present
template <class Count>
std::uint64_t write_present(const std::uint64_t* __restrict entries,
                            std::uint64_t* __restrict words, Count count,
                            std::uint64_t frame_mask) {
    std::uint64_t others = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t raw = entries[i];
        const std::uint64_t inverted = (raw & 1) - 1; // all ones where PAGE_PRESENT is clear
        const std::uint64_t present = 0 - ((raw | raw >> 8) & 1);
        const std::uint64_t word = ((raw ^ inverted) & frame_mask) >> PAGE_SHIFT |
                                   (raw & PAGE_UFFD_WP) << 47 | (raw & PAGE_SOFT_DIRTY) << 44 |
                                   (raw & PAGE_SPECIAL) << 51 | abi::PM_PRESENT;
        words[i] = word & present;
        others |= raw & ~present;
    }
    return others;
}

/// In blocks of a fixed size, of which compilers make vectors even where they are not pressed to;
/// entries that are neither present nor none, where a block has any, once more and one by one.
void to_pagemap(const EntryFormat& format, std::span<const std::uint64_t> entries,
                std::span<std::uint64_t> words) {
    using Block = std::integral_constant<std::size_t, 64>;
    assert(entries.size() == words.size());
    for (std::size_t at = 0; at < entries.size(); at += Block::value) {
        const std::uint64_t* in = entries.data() + at;
        std::uint64_t* out = words.data() + at;
        const std::size_t count = std::min<std::size_t>(Block::value, entries.size() - at);
        const std::uint64_t others = count == Block::value
                                         ? write_present(in, out, Block{}, format.frame_mask)
                                         : write_present(in, out, count, format.frame_mask);
        if (is_none(others)) continue;
        for (std::size_t i = 0; i < count; ++i)
            if (!is_present(in[i], 1)) out[i] = pagemap_word(decode(format, in[i], 1));
    }
}
static_assert(PAGE_UFFD_WP << 47 == abi::PM_UFFD_WP &&
              PAGE_SOFT_DIRTY << 44 == abi::PM_SOFT_DIRTY && PAGE_SPECIAL << 51 == special_entry);

} // namespace

EntryFormat x86_64_entries(unsigned levels, unsigned physical_bits) {
    EntryFormat format;
    format.levels = levels;
    format.page_shift = PAGE_SHIFT;
    format.index_bits = 9;
    format.top_index_bits = 9; // the second half of the top table is the kernel's
    format.address_bits = levels == 5 ? 56 : 47;
    format.frame_mask =
        PTE_PFN_MASK & (physical_bits < 64 ? bit(physical_bits) - 1 : ~std::uint64_t{0});
    format.decode = decode;
    format.name = name;
    format.same_table = same_table;
    format.state = state;
    format.to_pagemap = to_pagemap;
    return format;
}

unsigned x86_64_levels(std::uint64_t task_size) { return task_size > bit(47) ? 5 : 4; }

} // namespace pagesift::walk
