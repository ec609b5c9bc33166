// SPDX-License-Identifier: MIT
#include "os/contents.hpp"
#include "os/frames.hpp"
#include "os_fake_root.hpp"
#include "pagesift/abi.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::os;
using pagesift::test::FakeRoot;

namespace {

std::uint64_t present(std::uint64_t pfn, std::uint64_t bits = PM_MMAP_EXCLUSIVE) {
    return PM_PRESENT | bits | pfn;
}

constexpr std::uint64_t anon = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED);
constexpr std::uint64_t head = kpf(KPF_COMPOUND_HEAD) | kpf(KPF_THP);
constexpr std::uint64_t tail = kpf(KPF_COMPOUND_TAIL) | kpf(KPF_THP);

PageBlock block_of(std::vector<std::uint64_t> entries) {
    PageBlock block;
    block.range = {Address{0x1000}, Address{0x1000 + entries.size() * 4096}};
    block.entries = std::move(entries);
    return block;
}

} // namespace

TEST_CASE("frames: runs of frames come sorted, with the pages that they belong to") {
    const auto runs = sorted_frame_runs(
        std::vector<std::uint64_t>{present(50), present(51), 0, present(10), PM_SWAP | 99,
                                   present(11), present(52), PM_PRESENT});
    REQUIRE(runs.size() == 4);
    CHECK(runs[0].pfn == 10);
    CHECK(runs[0].index == 3);
    CHECK(runs[1].pfn == 11);
    CHECK(runs[2].pfn == 50);
    CHECK(runs[2].count == 2);
    CHECK(runs[3].index == 6);
}

TEST_CASE("frames: every page gets the flags of its own frame, across gaps and repeats") {
    FakeRoot root;
    std::vector<std::uint64_t> words(20000);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = kpf(KPF_LRU) | (i << 44);
    root.write_words("proc/kpageflags", 0, words);
    root.write_words("proc/kpagecount", 0, std::vector<std::uint64_t>(20000, 3));
    const Root opened{root.path()};
    const FrameReader reader{opened, true};
    std::vector<std::uint64_t> entries;
    std::uint64_t pfn = 1;
    for (int i = 0; i < 5000; ++i) {
        pfn = (pfn * 7919 + 13) % 19999 + 1;
        entries.push_back(
            i % 7 == 0 ? 0 : present(i % 5 == 0 ? 4242 : pfn, i % 2 ? PM_MMAP_EXCLUSIVE : 0));
    }
    for (std::uint64_t i = 0; i < 9000; ++i) entries.push_back(present(i + 1));
    PageBlock block = block_of(entries);
    reader.read(block);
    REQUIRE(block.flags.size() == entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const std::uint64_t expected = entries[i] ? words[entries[i] & PM_PFRAME_MASK] : 0;
        CHECK(block.flags[i] == expected);
        const bool shared = entries[i] && !(entries[i] & PM_MMAP_EXCLUSIVE);
        CHECK(block.map_counts[i] == (shared ? 3u : 0u));
    }
}

TEST_CASE("frames: tails get what an older kernel shows on the head only, and their folio's size") {
    FakeRoot root;
    std::vector<std::uint64_t> words(64, kpf(KPF_LRU));
    words[16] = head | anon | kpf(KPF_LRU) | kpf(KPF_ACTIVE);
    for (int i = 17; i < 32; ++i) words[static_cast<std::size_t>(i)] = tail | kpf(KPF_MMAP);
    root.write_words("proc/kpageflags", 0, words);
    const Root opened{root.path()};
    const FrameReader reader{opened, true};
    // Only the folio's middle is mapped: head and end must be looked for.
    PageBlock block = block_of({present(21), present(22), present(40)});
    reader.read(block);
    for (const std::size_t i : {0u, 1u}) {
        CHECK((block.flags[i] & (anon | kpf(KPF_ACTIVE))) == (anon | kpf(KPF_ACTIVE)));
        CHECK((block.flags[i] & kpf(KPF_COMPOUND_HEAD)) == 0);
        CHECK(block.folio_orders[i] == 4);
    }
    CHECK(block.folio_orders[2] == 0);
}

TEST_CASE("frames: neighbouring folios are told apart") {
    FakeRoot root;
    std::vector<std::uint64_t> words(64, 0);
    for (const std::size_t at : {16u, 20u, 24u}) {
        words[at] = head | anon;
        for (std::size_t i = at + 1; i < at + 4; ++i) words[i] = tail | anon;
    }
    root.write_words("proc/kpageflags", 0, words);
    const Root opened{root.path()};
    const FrameReader reader{opened, true};
    std::vector<std::uint64_t> entries;
    for (std::uint64_t pfn = 16; pfn < 28; ++pfn) entries.push_back(present(pfn));
    PageBlock block = block_of(entries);
    reader.read(block);
    for (const std::uint8_t order : block.folio_orders) CHECK(order == 2);
}

TEST_CASE("frames: beyond the end of kpageflags nothing is made up") {
    FakeRoot root;
    root.write_words("proc/kpageflags", 0, std::vector<std::uint64_t>(10, kpf(KPF_LRU)));
    const Root opened{root.path()};
    const FrameReader reader{opened, true};
    PageBlock block = block_of({present(9), present(10), present(std::uint64_t{1} << 50)});
    reader.read(block);
    CHECK(block.flags[0] == kpf(KPF_LRU));
    CHECK(block.flags[1] == 0);
    CHECK(block.flags[2] == 0);
    CHECK(block.map_counts.empty());
}

TEST_CASE("frames: a kpageflags with nothing in it is none") {
    FakeRoot root;
    root.write("proc/kpageflags", "");
    root.write_words("proc/kpagecount", 0, std::vector<std::uint64_t>(10, 1));
    const Root opened{root.path()};
    const FrameReader reader{opened, true};
    CHECK(reader.flags_error() == ENODATA);
    CHECK(reader.counts_error() == 0);
    PageBlock block = block_of({present(9)});
    reader.read(block);
    CHECK(block.flags.empty());
}

TEST_CASE("frames: without kpageflags the column stays empty") {
    FakeRoot root;
    const Root opened{root.path()};
    const FrameReader reader{opened, true};
    CHECK(reader.flags_error() == ENOENT);
    PageBlock block = block_of({present(9)});
    reader.read(block);
    CHECK(block.flags.empty());
}

TEST_CASE("contents: a single byte anywhere makes a page other than zero") {
    alignas(64) std::byte page[4096]{};
    CHECK(is_zero_filled(page, sizeof page));
    for (std::size_t i = 0; i < sizeof page; i += 13) {
        page[i] = std::byte{1};
        CHECK_FALSE(is_zero_filled(page, sizeof page));
        page[i] = std::byte{0};
    }
    page[4095] = std::byte{0x80};
    CHECK_FALSE(is_zero_filled(page, sizeof page));
}

TEST_CASE("sample: takes its share, the same pages each time") {
    for (const double share : {0.001, 0.01, 0.25, 1.0}) {
        std::uint64_t taken = 0;
        const std::uint64_t pages = 1000000;
        for (std::uint64_t i = 0; i < pages; ++i) {
            const Address at{0x7f0000000000 + i * 4096};
            taken += in_sample(at, share);
            if (i < 100) CHECK(in_sample(at, share) == in_sample(at, share));
        }
        const double expected = share * static_cast<double>(pages);
        CHECK(static_cast<double>(taken) == doctest::Approx(expected).epsilon(0.12));
    }
}

TEST_CASE("gaps: each is kept once, and many ranges are summed up") {
    GapLog log;
    for (int i = 0; i < 3; ++i) log.add({"a", {}, "why", "", false});
    CHECK(log.list().size() == 1);
    for (std::uint64_t i = 0; i < 1000; ++i)
        log.add({"b", AddressRange{Address{i * 4096}, Address{i * 4096 + 4096}}, "why", "", true});
    CHECK(log.list().size() < 15);
    CHECK_FALSE(log.list().back().range.has_value());
    CHECK(log.list().back().incomplete);
}
