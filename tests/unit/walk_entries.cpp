// SPDX-License-Identifier: MIT
#include "pagesift/abi.hpp"
#include "pagesift/walk.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::walk;

namespace {

const EntryFormat format = x86_64_entries(4, 46);

Entry decode(std::uint64_t raw, unsigned level = 1) { return format.decode(format, raw, level); }

std::uint64_t word_of(std::uint64_t raw) {
    std::uint64_t word = 0x1234;
    format.to_pagemap(format, {&raw, 1}, {&word, 1});
    return word;
}

/// As the kernel makes one: type on top, offset inverted from bit 9 on.
constexpr std::uint64_t swap_entry(std::uint64_t type, std::uint64_t offset,
                                   std::uint64_t flags = 0) {
    return type << 59 | (~(offset << 9) & 0x07fffffffffffe00) | flags;
}

constexpr std::uint64_t prot_none(std::uint64_t frame, std::uint64_t flags = 0) {
    return (~(frame << 12) & 0x000ffffffffff000) | 0x100 | flags;
}

constexpr std::uint64_t nx = std::uint64_t{1} << 63;

} // namespace

TEST_CASE("x86_64: nothing is none, and so are bits that Knights Landing sets by mistake") {
    for (const std::uint64_t raw : {0x0u, 0x20u, 0x40u, 0x60u}) {
        CHECK(decode(raw).kind == EntryKind::none);
        CHECK(word_of(raw) == 0);
        CHECK(format.name(format, raw, 2).kind == Naming::Kind::none);
    }
}

TEST_CASE("x86_64: a present page has its frame and its bits") {
    const Entry entry = decode(nx | 0x123456000 | 0x867);
    CHECK(entry == Entry{.kind = EntryKind::present,
                         .young = true,
                         .dirty = true,
                         .writable = true,
                         .soft_dirty = true,
                         .frame = 0x123456});
    CHECK(decode(0x5000 | 0x5).young == false);
    CHECK(decode(0x5000 | 0x5 | std::uint64_t{1} << 58).dirty == true);
    CHECK(decode(0x5000 | 0x405).uffd_wp == true);
    CHECK(word_of(nx | 0x123456000 | 0xc67) ==
          (abi::PM_PRESENT | abi::PM_SOFT_DIRTY | abi::PM_UFFD_WP | 0x123456));
}

TEST_CASE("x86_64: bit 7 of a PTE is its cache type and not a size") {
    CHECK(decode(0x5000 | 0x81).frame == 5);
    CHECK(decode(0x5000 | 0x81).kind == EntryKind::present);
}

TEST_CASE("x86_64: a frame that is not accounted is marked") {
    CHECK(decode(0x5000 | 0x205).special);
    CHECK(word_of(0x5000 | 0x205) == (abi::PM_PRESENT | special_entry | 5));
}

TEST_CASE("x86_64: a PROT_NONE page is present and keeps its frame inverted") {
    const Entry entry = decode(prot_none(0x123456, 0x20));
    CHECK(entry.kind == EntryKind::present);
    CHECK(entry.frame == 0x123456);
    CHECK(entry.young);
    CHECK(word_of(prot_none(0x123456)) == (abi::PM_PRESENT | 0x123456));
}

TEST_CASE("x86_64: bits above the physical address width are not of the frame") {
    const std::uint64_t encrypted = std::uint64_t{1} << 47;
    CHECK(decode(encrypted | 0x5001).frame == 5);
    CHECK(word_of(encrypted | 0x5001) == (abi::PM_PRESENT | 5));
    CHECK(format.name(format, encrypted | 0x5067, 2).frame == 5);
    const EntryFormat wide = x86_64_entries(4, 52);
    CHECK(wide.decode(wide, encrypted | 0x5001, 1).frame == (encrypted >> 12 | 5));
}

TEST_CASE("x86_64: huge pages lose the bits below them, among them their cache type") {
    CHECK(decode(0x40000000 | 0x1000 | 0xe7, 2).frame == 0x40000);
    CHECK(decode(0xc0000000 | 0x1000 | 0xe7, 3).frame == 0xc0000);
    CHECK(decode(prot_none(0x40000, 0x80 | 0x1000), 2).frame == 0x40000);
    CHECK(format.name(format, 0x40000000 | 0xe7, 2).kind == Naming::Kind::leaf);
    CHECK(format.name(format, 0x40000000 | 0xe7, 3).kind == Naming::Kind::leaf);
    CHECK(format.name(format, prot_none(0x40000, 0x80), 2).kind == Naming::Kind::leaf);
}

TEST_CASE("x86_64: a huge page that is being split is still present") {
    // pmd_mkinvalid: neither present nor PROT_NONE, the frame inverted, the size bit left
    const Entry entry = decode((~std::uint64_t{0x40000000} & 0x000fffffffe00000) | 0x80, 2);
    CHECK(entry.kind == EntryKind::present);
    CHECK(entry.frame == 0x40000);
}

TEST_CASE("x86_64: swap entries have type and offset") {
    const Entry entry = decode(swap_entry(3, 0x123456789));
    CHECK(entry.kind == EntryKind::swap);
    CHECK(entry.swap_type == 3);
    CHECK(entry.swap_offset == 0x123456789);
    CHECK(word_of(swap_entry(3, 0x123456789)) ==
          (abi::PM_SWAP | std::uint64_t{0x123456789} << 5 | 3));
    CHECK(word_of(swap_entry(0, 0)) == abi::PM_SWAP);
    CHECK(decode(swap_entry(0, 7, 0x4)).uffd_wp);
    CHECK(decode(swap_entry(0, 7, 0x2)).soft_dirty);
    CHECK(word_of(swap_entry(1, 7, 0x6)) ==
          (abi::PM_SWAP | abi::PM_UFFD_WP | abi::PM_SOFT_DIRTY | 7 << 5 | 1));
}

TEST_CASE("x86_64: migration keeps a frame, without the bits that stand above it") {
    const std::uint64_t young_and_dirty = std::uint64_t{3} << 34;
    CHECK(decode(swap_entry(30, young_and_dirty | 0x123456)).swap_offset == 0x123456);
    CHECK(decode(swap_entry(22, young_and_dirty | 0x123456)).swap_offset ==
          (young_and_dirty | 0x123456));
    const EntryFormat five = x86_64_entries(5, 52);
    CHECK(five.decode(five, swap_entry(30, std::uint64_t{1} << 39 | 1), 1).swap_offset ==
          (std::uint64_t{1} << 39 | 1));
    CHECK(five.decode(five, swap_entry(30, std::uint64_t{1} << 40 | 1), 1).swap_offset == 1);
}

TEST_CASE("x86_64: markers are told from swap, and from each other") {
    for (const std::uint64_t bits :
         {abi::PTE_MARKER_UFFD_WP, abi::PTE_MARKER_POISONED, abi::PTE_MARKER_GUARD}) {
        const Entry entry = decode(swap_entry(31, bits));
        CHECK(entry.kind == EntryKind::marker);
        CHECK(entry.swap_offset == bits);
        CHECK(entry.uffd_wp == (bits == abi::PTE_MARKER_UFFD_WP));
    }
    CHECK(word_of(swap_entry(31, 1)) == (abi::PM_SWAP | abi::PM_UFFD_WP | 1 << 5 | 31));
    CHECK(word_of(swap_entry(31, 2)) == (abi::PM_SWAP | 2 << 5 | 31));
    CHECK(word_of(swap_entry(31, 4)) == (abi::PM_SWAP | abi::PM_GUARD_REGION | 4 << 5 | 31));
    // A PROT_NONE page with protection keys and NX has the marker's type bits, and is no marker.
    CHECK(decode(prot_none(5, std::uint64_t{31} << 59)).kind == EntryKind::present);
}

TEST_CASE("x86_64: what names a table does so however often hardware looks") {
    CHECK(format.name(format, 0x5067, 2).kind == Naming::Kind::table);
    CHECK(format.name(format, 0x5067, 4).kind == Naming::Kind::table);
    CHECK(format.name(format, 0x5067, 2).frame == 5);
    CHECK(format.same_table(0x5067, 0x5007));
    CHECK_FALSE(format.same_table(0x5067, 0x6067));
    CHECK_FALSE(format.same_table(0x5067, 0));
    CHECK(format.name(format, 0x5066, 4).kind == Naming::Kind::odd);
    CHECK(format.name(format, swap_entry(30, 5), 2).kind == Naming::Kind::leaf);
}

TEST_CASE("x86_64: a table is empty, has markers only, or is populated") {
    std::vector<std::uint64_t> table(512, 0);
    CHECK(format.state(table) == TableState::empty);
    table[100] = 0x60;
    CHECK(format.state(table) == TableState::empty);
    table[511] = swap_entry(31, 1);
    CHECK(format.state(table) == TableState::marker_only);
    for (const std::uint64_t raw : {std::uint64_t{0x5025}, prot_none(5), swap_entry(0, 0)}) {
        for (const std::size_t place : {0u, 15u, 16u, 300u, 510u}) {
            auto other = table;
            other[place] = raw;
            CHECK(format.state(other) == TableState::populated);
        }
    }
}

TEST_CASE("x86_64: many entries at once are what they are one by one") {
    std::vector<std::uint64_t> raw;
    for (const std::uint64_t frame : {0x0u, 0x1u, 0x3ffffu, 0x12345u})
        for (const std::uint64_t bits : {0x1u, 0x25u, 0xe67u, 0x267u, 0x465u})
            for (const std::uint64_t high : {std::uint64_t{0}, nx, std::uint64_t{0x7f} << 52})
                raw.push_back(frame << 12 | bits | high), raw.push_back(prot_none(frame, high));
    for (std::size_t i = 0; i < 20; ++i)
        raw.push_back(swap_entry(i * 31 / 19, i * 0x12345, i % 4 << 1)), raw.push_back(0);
    std::vector<std::uint64_t> words(raw.size());
    format.to_pagemap(format, raw, words);
    for (std::size_t i = 0; i < raw.size(); ++i) {
        CHECK(words[i] == word_of(raw[i]));
        const Entry entry = decode(raw[i]);
        CHECK(bool(words[i] & abi::PM_PRESENT) == (entry.kind == EntryKind::present));
        if (entry.kind == EntryKind::present) CHECK((words[i] & 0xffffffffff) == entry.frame);
        CHECK(bool(words[i] & abi::PM_UFFD_WP) == entry.uffd_wp);
        CHECK(bool(words[i] & special_entry) == entry.special);
    }
}

TEST_CASE("x86_64: five levels are told by the size of the address space") {
    CHECK(x86_64_levels((std::uint64_t{1} << 47) - 4096) == 4);
    CHECK(x86_64_levels((std::uint64_t{1} << 56) - 4096) == 5);
}
