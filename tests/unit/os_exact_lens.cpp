// SPDX-License-Identifier: MIT
// What the exact lens says of a process whose page tables are made up, and how its views are
// shared.
#include "made_up_tables.hpp"
#include "os/exact_lens.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/source.hpp"

#include <atomic>
#include <doctest/doctest.h>
#include <mutex>
#include <set>
#include <thread>

using namespace pagesift;
using namespace pagesift::os;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t slot = 2 << 20, base = 0x7f12'4000'0000, page = 4096;

struct Fixture {
    std::unique_ptr<KernelView> view() {
        KernelView::Parts parts;
        parts.memory = std::make_unique<MadeUpMemory>(memory);
        parts.kernel = std::make_shared<const walk::Kernel>(kernel);
        return std::make_unique<KernelView>(std::move(parts));
    }
    LocatedTables locate(const std::vector<AddressRange>& ranges) {
        return locate_empty_tables(*view(), tables.pgd, ranges);
    }

    MadeUpMemory memory;
    walk::Kernel kernel = made_up_kernel();
    MadeUpTables tables{memory, kernel};
};

AddressRange range(std::uint64_t start, std::uint64_t end) {
    return {Address{start}, Address{end}};
}

} // namespace

TEST_CASE("exact lens: empty tables are found in the parts that were asked for, and no others") {
    Fixture f;
    for (const std::uint64_t i : {1u, 2u, 40u}) f.tables.entry_at(base + i * slot, 1);
    f.tables.set(base + 3 * slot, 1, 0x5000 | page_bits);
    const auto found = f.locate({range(base + slot / 2, base + 2 * slot + 3 * page),
                                 range(base + 3 * slot, base + 5 * slot),
                                 range(base + 40 * slot, base + 40 * slot + page),
                                 range(base + 40 * slot + 8 * page, base + 41 * slot)});
    CHECK(found.empty == std::vector{range(base + slot, base + 2 * slot + 3 * page),
                                     range(base + 40 * slot, base + 40 * slot + page),
                                     range(base + 40 * slot + 8 * page, base + 41 * slot)});
    CHECK(found.unknown.empty());
    CHECK(f.locate({}).empty.empty());
}

TEST_CASE("exact lens: a table that cannot be read is no empty one") {
    Fixture f;
    const auto table = f.tables.entry_at(base, 1);
    f.memory.forget(table);
    const auto found = f.locate({range(base, base + 2 * slot)});
    CHECK(found.empty.empty());
    CHECK(found.unknown == std::vector{range(base, base + slot)});
}

TEST_CASE("exact lens: bits are those of the entry that maps the frame, and unknown elsewhere") {
    Fixture f;
    constexpr std::uint64_t young = 0x20, dirty = 0x40, mapped = 0x5;
    const auto put = [&](std::uint64_t i, std::uint64_t bits) {
        f.tables.set(base + i * page, 1, (0x100 + i) << 12 | bits);
    };
    put(0, mapped);
    put(1, mapped | young);
    put(2, mapped | young | dirty);
    put(3, mapped | dirty);
    put(4, mapped | young); // pagemap saw another frame here
    put(5, mapped | young); // and nothing here
    f.tables.set(base + slot, 2, 0x40000000 | 0x80 | mapped | young);
    std::vector<std::uint64_t> entries(2 * slot / page, 0);
    for (std::uint64_t i = 0; i < 5; ++i) entries[i] = abi::PM_PRESENT | (0x100 + i);
    entries[4] = abi::PM_PRESENT | 0x999;
    for (std::uint64_t i = 0; i < 512; ++i) entries[512 + i] = abi::PM_PRESENT | (0x40000 + i);
    entries[600] = abi::PM_SWAP;
    using Bits = EntryBits;
    const auto read = [&](std::uint64_t first, std::uint64_t count) {
        std::vector<std::uint8_t> bits(count, 0xff);
        read_entry_bits(*f.view(), f.tables.pgd,
                        range(base + first * page, base + (first + count) * page),
                        std::span{entries}.subspan(first, count), bits);
        return bits;
    };
    const auto all = read(0, entries.size());
    CHECK(all[0] == Bits::known);
    CHECK(all[1] == (Bits::known | Bits::young));
    CHECK(all[2] == (Bits::known | Bits::young | Bits::dirty));
    CHECK(all[3] == (Bits::known | Bits::dirty));
    CHECK(all[4] == 0);
    CHECK(all[5] == 0);
    CHECK(all[6] == 0);
    CHECK(all[512] == (Bits::known | Bits::young));
    CHECK(all[1023] == (Bits::known | Bits::young));
    CHECK(all[600] == 0);
    // Of any part of it the same is said.
    for (const auto& [first, count] : {std::pair{1u, 3u}, {2u, 600u}, {700u, 200u}})
        CHECK(read(first, count) == std::vector(all.begin() + first, all.begin() + first + count));
}

TEST_CASE("exact lens: a view serves one thread at a time") {
    Fixture f;
    // Copies of it are of another kind, which not every machine has: without, all share the one.
    ExactLens lens{f.view()};
    std::mutex mutex;
    std::set<const KernelView*> used;
    std::atomic<int> shared{0}, leases{0};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 200; ++i) {
                const auto view = lens.lease();
                ++leases;
                {
                    const std::lock_guard lock{mutex};
                    shared += !used.insert(&*view).second;
                }
                std::this_thread::yield();
                const std::lock_guard lock{mutex};
                used.erase(&*view);
            }
        });
    threads.clear();
    CHECK(shared == 0);
    CHECK(leases == 800);
}
