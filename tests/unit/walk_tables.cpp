// SPDX-License-Identifier: MIT
#include "made_up_tables.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::test;
using namespace pagesift::walk;

namespace {

constexpr std::uint64_t MiB2 = 2 << 20, GiB = 1 << 30, TiB = std::uint64_t{1} << 40;
constexpr std::uint64_t marker =
    std::uint64_t{31} << 59 | (~(std::uint64_t{1} << 9) & 0x07fffffffffffe00);

struct Fixture {
    explicit Fixture(unsigned levels = 4) : kernel(made_up_kernel(levels)) {}

    std::vector<KeptRun> walk(std::uint64_t start, std::uint64_t end) {
        std::vector<KeptRun> runs;
        counts = walk_tables(memory, kernel, tables.pgd, {Address{start}, Address{end}},
                             [&](const SlotRun& run) {
                                 runs.push_back({run, {run.entries.begin(), run.entries.end()}});
                             });
        // Whatever is there, the runs cover the range in order.
        std::uint64_t at = start;
        for (const KeptRun& run : runs) {
            CHECK(run.start() == at);
            CHECK(run.start() < run.end());
            at = run.end();
        }
        CHECK(at == end);
        return runs;
    }

    MadeUpMemory memory;
    Kernel kernel;
    MadeUpTables tables{memory, kernel};
    TableCounts counts;
};

std::vector<TableState> states(const std::vector<KeptRun>& runs) {
    std::vector<TableState> all;
    for (const KeptRun& run : runs) all.push_back(run.state());
    return all;
}

using enum TableState;

} // namespace

TEST_CASE("tables: an address space without tables is one run without tables") {
    Fixture f;
    CHECK(states(f.walk(0, 128 * TiB)) == std::vector{no_table});
    CHECK(f.memory.calls == 1);
}

TEST_CASE("tables: each slot says what it holds, with four levels and with five") {
    for (const unsigned levels : {4u, 5u}) {
        CAPTURE(levels);
        Fixture f{levels};
        const std::uint64_t base =
            levels == 5 ? std::uint64_t{0x00ab'1234'c000'0000} : 0x7f12'4000'0000;
        f.tables.set(base + 5 * 4096, 1, 0x123000 | page_bits);
        f.tables.entry_at(base + 2 * MiB2, 1); // a table, and nothing in it
        f.tables.set(base + 3 * MiB2 + 4096, 1, marker);
        f.tables.set(base + 4 * MiB2, 2, 0x40000000 | 0xe7);
        const auto runs = f.walk(base, base + GiB);
        REQUIRE(states(runs) ==
                std::vector{populated, no_table, empty, marker_only, huge, no_table});
        CHECK(runs[0].entries.size() == 512);
        CHECK(runs[0].entries[5] == (0x123000 | page_bits));
        CHECK(runs[0].run.slot_start.value == base);
        CHECK(f.kernel.bases.direct_map + runs[0].run.table_frame * 4096 ==
              (f.tables.entry_at(base, 1) & ~std::uint64_t{4095}));
        CHECK(runs[1].start() == base + MiB2);
        CHECK(runs[2].start() == base + 2 * MiB2);
        CHECK(runs[3].entries[1] == marker);
        CHECK(runs[4].run.leaf == (0x40000000 | 0xe7));
        CHECK(runs[4].run.leaf_level == 2);
        CHECK(runs[5].end() == base + GiB);
        CHECK(f.counts.tables[0] == 3);
        CHECK(f.counts.tables[levels - 1] == 1);
        CHECK(f.counts.unknown == 0);
    }
}

TEST_CASE("tables: a huge page of 1 GiB is one leaf, clipped like everything else") {
    Fixture f;
    f.tables.set(3 * GiB, 3, 0x80000000 | 0x2e7); // special, which pagemap asks of PTEs only
    const auto runs = f.walk(3 * GiB + 4096, 3 * GiB + 3 * 4096);
    REQUIRE(states(runs) == std::vector{huge});
    CHECK(runs[0].run.leaf_level == 3);
    CHECK(runs[0].run.slot_start.value == 3 * GiB);
    std::vector<std::uint64_t> words(2);
    write_pagemap(f.kernel.entries, runs[0].run, words);
    CHECK(words == std::vector{abi::PM_PRESENT | 0x80001, abi::PM_PRESENT | 0x80002});
}

TEST_CASE("tables: a range ends and begins inside a table, whose state is that of all of it") {
    Fixture f;
    f.tables.set(MiB2 + 10 * 4096, 1, 0x5000 | page_bits);
    f.tables.set(MiB2 + 11 * 4096, 1, 0x6000 | page_bits);
    const auto runs = f.walk(MiB2 + 11 * 4096, MiB2 + 13 * 4096);
    REQUIRE(states(runs) == std::vector{populated});
    SlotRun run = runs[0].run;
    run.entries = runs[0].entries;
    std::vector<std::uint64_t> words(2);
    write_pagemap(f.kernel.entries, run, words);
    CHECK(words == std::vector{abi::PM_PRESENT | 6, std::uint64_t{0}});
    CHECK(states(f.walk(MiB2 + 20 * 4096, MiB2 + 21 * 4096)) == std::vector{populated});
}

TEST_CASE("tables: pagemap's words for leaves that are no pages go up, and markers' do not") {
    Fixture f;
    const auto swap = [](std::uint64_t type, std::uint64_t offset) {
        return type << 59 | (~(offset << 9) & 0x07fffffffffffe00);
    };
    f.tables.set(0, 2, swap(30, 0x1000));
    f.tables.set(MiB2, 2, swap(31, 1));
    const auto runs = f.walk(0, 2 * MiB2);
    REQUIRE(states(runs) == std::vector{huge, huge});
    std::vector<std::uint64_t> words(512);
    write_pagemap(f.kernel.entries, runs[0].run, words);
    CHECK(words[511] == (abi::PM_SWAP | (0x1000 + 511) << 5 | 30));
    write_pagemap(f.kernel.entries, runs[1].run, words);
    CHECK(words[511] == (abi::PM_SWAP | abi::PM_UFFD_WP | 1 << 5 | 31));
}

TEST_CASE("tables: what is sparse costs what is populated, however small the reader") {
    Fixture f;
    for (std::uint64_t i = 0; i < 1024; ++i)
        f.tables.set(i * GiB, 1, (0x100000 + i) << 12 | page_bits);
    const auto runs = f.walk(0, 2 * TiB);
    CHECK(runs.size() == 2 * 1024);
    const auto all = states(runs);
    CHECK(std::count(all.begin(), all.end(), populated) == 1024);
    CHECK(f.counts.tables == std::array<std::uint64_t, 5>{1024, 1024, 2, 1, 0});
    // Two tables of each kind a gigabyte, with their naming entries, eight tables a call.
    CHECK(f.memory.bytes <= (2 * 1024 + 3) * (4096 + 8));
    CHECK(f.memory.calls <= 2 * 1024 / 8 + 4);
}

TEST_CASE("tables: a large reader is given sixteen tables at a time, in order") {
    Fixture f;
    f.memory.piece_limit = 256, f.memory.byte_limit = 1 << 20;
    for (std::uint64_t i = 0; i < 64; ++i)
        f.tables.set(i * MiB2, 1, (0x100000 + i) << 12 | page_bits);
    const auto runs = f.walk(0, 64 * MiB2);
    REQUIRE(runs.size() == 64);
    for (std::uint64_t i = 0; i < 64; ++i)
        CHECK(runs[i].entries[0] == ((0x100000 + i) << 12 | page_bits));
    CHECK(f.memory.calls == 3 + 64 / 16);
}

TEST_CASE("tables: a reader that aligns nothing is understood") {
    Fixture f;
    f.memory.misaligned = 3;
    for (std::uint64_t i = 0; i < 3; ++i) f.tables.set(i * MiB2, 1, (i + 7) << 12 | page_bits);
    const auto runs = f.walk(0, 3 * MiB2);
    REQUIRE(runs.size() == 3);
    for (std::uint64_t i = 0; i < 3; ++i) CHECK(runs[i].entries[0] == ((i + 7) << 12 | page_bits));
}

TEST_CASE("tables: hardware's bits in a naming entry are no change") {
    Fixture f;
    f.tables.set(0, 1, 0x5000 | page_bits);
    const std::uint64_t named_at = f.tables.entry_at(0, 2);
    f.memory.before = [&](const Piece& piece) {
        if (piece.address == named_at) f.memory.put(named_at, f.memory.get(named_at) ^ 0x20);
    };
    CHECK(states(f.walk(0, MiB2)) == std::vector{populated});
    CHECK(f.counts.retries == 0);
}

TEST_CASE("tables: a table that is replaced while it is read is read again") {
    Fixture f;
    for (std::uint64_t i = 0; i < 4; ++i) f.tables.set(i * MiB2, 1, (i + 7) << 12 | page_bits);
    const std::uint64_t named_at = f.tables.entry_at(2 * MiB2, 2);
    const std::uint64_t old_table = f.tables.entry_at(2 * MiB2, 1);
    const std::uint64_t other = f.tables.new_table();
    bool changed = false;
    f.memory.before = [&](const Piece& piece) {
        if (changed || piece.address != old_table) return;
        changed = true;
        f.memory.put(named_at, f.tables.entry_for(other));
        f.memory.put(old_table, 0xbad0001); // and its page is somebody else's
    };
    const auto runs = f.walk(0, 4 * MiB2);
    CHECK(states(runs) == std::vector{populated, populated, empty, populated});
    CHECK(runs[3].entries[0] == (10 << 12 | page_bits));
    CHECK(f.counts.retries == 1);
    CHECK(f.counts.unknown == 0);
}

TEST_CASE("tables: a table that is freed while it is read is none, and a huge page may follow it") {
    for (const bool is_huge : {false, true}) {
        Fixture f;
        for (std::uint64_t i = 0; i < 3; ++i) f.tables.set(i * MiB2, 1, (i + 7) << 12 | page_bits);
        const std::uint64_t named_at = f.tables.entry_at(MiB2, 2);
        const std::uint64_t table = f.tables.entry_at(MiB2, 1);
        f.memory.before = [&](const Piece& piece) {
            if (piece.address != table) return;
            f.memory.put(named_at, is_huge ? 0x40000000 | 0xe7 : 0);
        };
        const auto runs = f.walk(0, 3 * MiB2);
        CHECK(states(runs) == std::vector{populated, is_huge ? huge : no_table, populated});
    }
}

TEST_CASE("tables: what changes at every reading is unknown, and nothing else is") {
    Fixture f;
    for (std::uint64_t i = 0; i < 4; ++i) f.tables.set(i * MiB2, 1, (i + 7) << 12 | page_bits);
    const std::uint64_t named_at = f.tables.entry_at(MiB2, 2);
    f.memory.before = [&](const Piece& piece) {
        if (piece.address == named_at)
            f.memory.put(named_at, f.tables.entry_for(f.tables.new_table()));
    };
    const auto runs = f.walk(0, 4 * MiB2);
    CHECK(states(runs) == std::vector{populated, unknown, populated, populated});
    CHECK(f.counts.unknown == 1);
}

TEST_CASE("tables: a table that held naming entries and is freed misleads nobody") {
    // The table of level 2 goes away after it was believed, and its page gets other contents that
    // look like entries. The way from the top shows that nothing is there any more.
    Fixture f;
    f.tables.set(0, 1, 0x7000 | page_bits);
    const std::uint64_t pud = f.tables.entry_at(0, 3), pmd = f.tables.entry_at(0, 2);
    const std::uint64_t pte = f.tables.entry_at(0, 1);
    const std::uint64_t foreign = f.tables.new_table();
    f.memory.put(foreign, 0xdead000 | page_bits);
    f.memory.before = [&](const Piece& piece) {
        if (piece.address != pte || f.memory.get(pud) == 0) return;
        f.memory.put(pud, 0);
        f.memory.put(pmd, f.tables.entry_for(foreign));
    };
    CHECK(states(f.walk(0, MiB2)) == std::vector{no_table});
}

TEST_CASE("tables: tables between may become one huge page while they are walked") {
    Fixture f;
    f.tables.set(GiB + MiB2, 1, 0x7000 | page_bits);
    const std::uint64_t pud = f.tables.entry_at(GiB, 3), pmd = f.tables.entry_at(GiB + MiB2, 2);
    const std::uint64_t pte = f.tables.entry_at(GiB + MiB2, 1);
    f.memory.before = [&](const Piece& piece) {
        if (piece.address != pte) return;
        f.memory.put(pmd, 0);
        f.memory.put(pud, 0x80000000 | 0xe7);
    };
    const auto runs = f.walk(GiB + MiB2, GiB + 2 * MiB2);
    REQUIRE(states(runs) == std::vector{huge});
    CHECK(runs[0].run.leaf_level == 3);
    CHECK(runs[0].run.slot_start.value == GiB);
    std::vector<std::uint64_t> words(512);
    write_pagemap(f.kernel.entries, runs[0].run, words);
    CHECK(words[0] == (abi::PM_PRESENT | (0x80000 + 512)));
}

TEST_CASE("tables: a table that cannot be read, or lies beyond RAM, is unknown") {
    Fixture f;
    f.tables.set(MiB2, 1, 0x5000 | page_bits);
    f.memory.forget(f.tables.entry_at(MiB2, 1));
    f.tables.set(2 * MiB2, 2, f.kernel.bases.frame_end << 12 | table_bits);
    // Memory that can be read all the same.
    f.memory.put(f.kernel.bases.direct_map + (f.kernel.bases.frame_end << 12), 0x5000 | page_bits);
    f.tables.set(3 * MiB2, 1, 0x6000 | page_bits);
    const auto runs = f.walk(MiB2, 4 * MiB2);
    CHECK(states(runs) == std::vector{unknown, unknown, populated});
    f.memory.forget(f.tables.pgd);
    CHECK(states(f.walk(MiB2, 4 * MiB2)) == std::vector{unknown});
}

TEST_CASE("tables: frames that leaves point at are never read") {
    Fixture f;
    const std::uint64_t frames[] = {0x200000, 0x200001, 0x240000, 0x3fffff};
    f.tables.set(0, 1, frames[0] << 12 | page_bits);
    f.tables.set(4096, 1, frames[1] << 12 | page_bits | 0x200);
    f.tables.set(MiB2, 2, frames[2] << 12 | 0xe7);
    f.tables.set(GiB, 3, frames[3] << 12 | 0xe7);
    f.memory.before = [&](const Piece& piece) {
        for (const std::uint64_t frame : frames)
            CHECK(piece.address / 4096 != f.kernel.bases.direct_map / 4096 + frame);
    };
    f.walk(0, 2 * GiB);
}

TEST_CASE("tables: addresses that no user has are unknown") {
    Fixture f;
    const std::uint64_t end = 128 * TiB;
    CHECK(states(f.walk(end - MiB2, end + MiB2)) == std::vector{no_table, unknown});
    CHECK(states(f.walk(0xffffffffff600000, 0xffffffffff601000)) == std::vector{unknown});
    CHECK(f.memory.calls == 1);
}

TEST_CASE("tables: one address is translated on any level, and only if it is present") {
    Fixture f;
    f.tables.set(3 * 4096, 1, 0x123000 | page_bits);
    f.tables.set(4 * 4096, 1, (~std::uint64_t{0x77000} & 0x000ffffffffff000) | 0x100);
    f.tables.set(5 * 4096, 1, marker);
    f.tables.set(MiB2, 2, 0x40000000 | 0xe7);
    f.tables.set(GiB, 3, 0x80000000 | 0xe7);
    const auto frame = [&](std::uint64_t address) {
        return translate(f.memory, f.kernel, f.tables.pgd, Address{address});
    };
    CHECK(frame(3 * 4096 + 5) == 0x123u);
    CHECK(frame(4 * 4096) == 0x77u);
    CHECK(frame(5 * 4096) == std::nullopt);
    CHECK(frame(6 * 4096) == std::nullopt);
    CHECK(frame(MiB2 + 4096) == 0x40001u);
    CHECK(frame(GiB + 513 * 4096) == 0x80000u + 513);
    CHECK(frame(TiB) == std::nullopt);
}

TEST_CASE("tables: a reader that answers short is refused") {
    struct ShortMemory final : MadeUpMemory {
        Copied read(std::span<const Piece> wanted) override {
            Copied copied = MadeUpMemory::read(wanted);
            copied.bytes = copied.bytes.first(copied.bytes.size() - 1);
            return copied;
        }
    } memory;
    Kernel kernel = made_up_kernel();
    MadeUpTables tables{memory, kernel};
    CHECK_THROWS_AS(
        walk_tables(memory, kernel, tables.pgd, {Address{0}, Address{MiB2}}, [](const SlotRun&) {}),
        Error);
}
