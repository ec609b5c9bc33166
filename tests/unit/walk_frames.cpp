// SPDX-License-Identifier: MIT
#include "made_up_memory.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <doctest/doctest.h>
#include <set>

using namespace pagesift;
using namespace pagesift::test;
using namespace pagesift::walk;

namespace {

struct Machine {
    MadeUpMemory memory;
    Kernel kernel = made_up_kernel();
    KernelLayout& layout = kernel.layout;

    std::uint64_t page(std::uint64_t frame) const {
        return kernel.bases.vmemmap + frame * layout.page_bytes;
    }
    std::uint64_t bit(std::uint32_t number) const { return std::uint64_t{1} << number; }
    void add_tail(std::uint64_t frame, std::uint64_t head) {
        memory.put(page(frame) + *layout.page_compound_head, page(head) + 1);
    }
    std::uint64_t mask(unsigned order) const {
        return ~((std::uint64_t{layout.page_bytes} << order) - 1);
    }
    /// As compound_info has it on 7.2: what to cut the address of a tail with.
    void add_masked(std::uint64_t frame, unsigned order) {
        memory.put(page(frame) + *layout.page_compound_head, mask(order) | 1);
    }
    std::vector<Frame> frames(const std::vector<std::uint64_t>& wanted) {
        std::vector<Frame> out(wanted.size(), Frame{true, 1, 1, {}, {}});
        read_frames(memory, kernel, wanted, out);
        return out;
    }
    /// A page that is mapped once and anonymous, but for what is said.
    void add_plain(std::uint64_t frame, std::uint64_t flags = 0,
                   std::uint64_t mapping = 0xffff9a4300000001, std::uint32_t map_count = 0) {
        memory.put(page(frame), flags);
        memory.put(page(frame) + *layout.folio_mapping, mapping);
        memory.put32(page(frame) + *layout.page_mapcount, map_count);
    }
    PlainPage plain(std::uint64_t frame) {
        PlainPage out{1, 1};
        read_plain_pages(memory, kernel, {&frame, 1}, {&out, 1});
        return out;
    }
    std::vector<Zero> zeroes(const std::vector<std::uint64_t>& wanted) {
        std::vector<Zero> out(wanted.size(), Zero::unreadable);
        test_zero(memory, kernel, wanted, out);
        return out;
    }
    std::uint64_t address(std::uint64_t frame) const {
        return kernel.bases.direct_map + frame * 4096;
    }
};

Sighting seen(std::uint64_t flags = 0) {
    return {true, false, 0x55, flags | std::uint64_t{1} << made_up_kernel().layout.PG_lru};
}

} // namespace

TEST_CASE("frames: a small page has flags, an owner and a count of its own") {
    Machine m;
    m.memory.put(m.page(0x10), 0xf000000000000000 | m.bit(m.layout.PG_lru));
    m.memory.put(m.page(0x10) + *m.layout.folio_mapping, 0xffff9a4300000001);
    m.memory.put32(m.page(0x10) + *m.layout.page_mapcount, 2);
    m.memory.put32(m.page(0x11) + *m.layout.page_mapcount, 0xffffffff);
    const auto frames = m.frames({0x10, 0x11});
    CHECK(frames[0].known);
    CHECK(frames[0].flags == (0xf000000000000000 | m.bit(m.layout.PG_lru)));
    CHECK(frames[0].head == 0x10);
    CHECK(frames[0].anon == true);
    CHECK(frames[0].map_count == 3u);
    CHECK(frames[1].anon == false);
    CHECK(frames[1].map_count == 0u);
}

TEST_CASE("frames: a tail page has what its head has, and no count") {
    Machine m;
    m.memory.put(m.page(0x40), m.bit(m.layout.PG_head) | m.bit(m.layout.PG_active));
    m.memory.put(m.page(0x40) + *m.layout.folio_mapping, 0x1001);
    for (const std::uint64_t tail : {0x41u, 0x42u, 0x43u}) m.add_tail(tail, 0x40);
    m.memory.put(m.page(0x80), m.bit(m.layout.PG_head));
    m.add_tail(0x81, 0x80);
    const auto frames = m.frames({0x40, 0x41, 0x43, 0x44, 0x81, 0x42});
    for (const std::size_t i : {0u, 1u, 2u, 5u}) {
        CHECK(frames[i].known);
        CHECK(frames[i].head == 0x40);
        CHECK(frames[i].flags == (m.bit(m.layout.PG_head) | m.bit(m.layout.PG_active)));
        CHECK(frames[i].anon == true);
        CHECK(frames[i].map_count == std::nullopt);
    }
    CHECK(frames[3].head == 0x44);
    CHECK(frames[4].head == 0x80);
}

TEST_CASE("frames: what has no struct page, or no true head, is not known") {
    Machine m;
    m.memory.page(m.page(0x40));
    m.add_tail(0x41, 0x40);                                                      // 0x40 is no head
    m.memory.put(m.page(0x42) + *m.layout.page_compound_head, m.page(0x40) + 9); // crooked
    m.add_tail(0x43, 0x7000);                                                    // behind its tail
    m.memory.put(m.page(0x44) + *m.layout.page_compound_head, 1);                // nowhere
    m.add_tail(0x47, 0x46), m.add_tail(0x46, 0x45);
    m.memory.put(m.page(0x46), m.bit(m.layout.PG_head)); // a tail of a tail
    m.memory.page(m.page(m.kernel.bases.frame_end));
    for (const Frame& frame :
         m.frames({0x41, 0x42, 0x43, 0x44, 0x47, 0x200000, m.kernel.bases.frame_end}))
        CHECK_FALSE(frame.known);
    CHECK(m.frames({0x40})[0].known);
    m.layout.page_compound_head = {};
    CHECK_FALSE(m.frames({0x40})[0].known);
}

TEST_CASE("frames: a tail's word may be a mask for its own address") {
    Machine m;
    m.layout.compound_info = true;
    m.memory.put(m.page(0x40), m.bit(m.layout.PG_head) | m.bit(m.layout.PG_active));
    for (const std::uint64_t tail : {0x41u, 0x42u, 0x43u}) m.add_masked(tail, 2);
    m.memory.put(m.page(0x40000), m.bit(m.layout.PG_head));
    m.add_masked(0x7ffff, 18); // 1 GiB
    m.memory.put(m.page(0x80), m.bit(m.layout.PG_head));
    m.add_tail(0x81, 0x80); // without the optimization of hugetlb's struct pages it is an address
    const auto frames = m.frames({0x40, 0x41, 0x43, 0x81, 0x7ffff});
    for (const std::size_t i : {0u, 1u, 2u}) {
        CHECK(frames[i].known);
        CHECK(frames[i].head == 0x40);
        CHECK(frames[i].flags == (m.bit(m.layout.PG_head) | m.bit(m.layout.PG_active)));
    }
    CHECK(frames[3].head == 0x80);
    CHECK(frames[4].head == 0x40000);
}

TEST_CASE("frames: a mask that no folio can have is not believed") {
    Machine m;
    m.layout.compound_info = true;
    const auto put = [&](std::uint64_t frame, std::uint64_t word) {
        m.memory.put(m.page(frame) + *m.layout.page_compound_head, word);
    };
    for (const std::uint64_t head : {0u, 0x20u, 0x40u, 0x60u, 0x80u})
        m.memory.put(m.page(head), m.bit(m.layout.PG_head));
    m.add_masked(0x21, 3);
    REQUIRE(m.frames({0x21})[0].head == 0x20);
    put(0x41, (m.mask(3) ^ std::uint64_t{1} << 40) | 1); // a hole in it
    m.add_masked(0x43, 0);                               // a folio of one page has no tail
    put(0x61, ~std::uint64_t{31} | 1);                   // of less than a page
    m.add_masked(0x62, 19);                              // larger than any
    put(0x63, 1);                                        // of nothing
    m.add_masked(0x80, 3);                               // at its own head's place
    m.memory.put(m.page(0xa0), 0);
    m.add_masked(0xa1, 3); // what should be its head is none
    for (const Frame& frame : m.frames({0x41, 0x43, 0x61, 0x62, 0x63, 0x80, 0xa1}))
        CHECK_FALSE(frame.known);
    // No mask fits struct pages that begin at an odd place, or are not a power of two.
    m.kernel.bases.vmemmap += std::uint64_t{2} * m.layout.page_bytes;
    m.memory.put(m.page(0x20), m.bit(m.layout.PG_head));
    m.memory.put(m.page(0x1e), m.bit(m.layout.PG_head));
    m.add_masked(0x21, 3);
    CHECK_FALSE(m.frames({0x21})[0].known);
    Machine odd;
    odd.layout.compound_info = true;
    odd.layout.page_bytes = 56;
    odd.memory.put(odd.page(0x20), odd.bit(odd.layout.PG_head));
    odd.memory.put(odd.page(0x21) + *odd.layout.page_compound_head, ~std::uint64_t{127} | 1);
    CHECK_FALSE(odd.frames({0x21})[0].known);
    // Before it had that name, it never was a mask.
    Machine old;
    old.memory.put(old.page(0x40), old.bit(old.layout.PG_head));
    old.add_masked(0x41, 3);
    CHECK_FALSE(old.frames({0x41})[0].known);
}

TEST_CASE("frames: a word that could be an address as well as a mask is neither") {
    Machine m;
    m.layout.compound_info = true;
    m.kernel.bases.vmemmap = ~std::uint64_t{0} << 20; // where no kernel has it
    m.memory.put(m.page(0), m.bit(m.layout.PG_head));
    m.add_masked(0x41, 14);
    CHECK_FALSE(m.frames({0x41})[0].known);
}

TEST_CASE("frames: plain pages have kpageflags' words and a count") {
    using namespace abi;
    Machine m;
    const auto anon = kpf(KPF_MMAP) | kpf(KPF_ANON);
    // Bits above those that are shown are a page's zone and node.
    m.add_plain(1, 0xf000000000000000 | m.bit(m.layout.PG_lru) | m.bit(*m.layout.PG_swapbacked));
    CHECK(m.plain(1).flags == (anon | kpf(KPF_LRU) | kpf(KPF_SWAPBACKED)));
    CHECK(m.plain(1).map_count == 1);
    m.add_plain(2, m.bit(m.layout.PG_referenced), 0xffff9a4300000000, 6);
    CHECK(m.plain(2).flags == (kpf(KPF_MMAP) | kpf(KPF_REFERENCED)));
    CHECK(m.plain(2).map_count == 7);
    m.add_plain(3, 0, 0xffff9a4300000003, 1);
    CHECK(m.plain(3).flags == (anon | kpf(KPF_KSM)));
    CHECK(m.plain(3).map_count == 2);
    // The bit of the swap cache has other meanings for a page of a file.
    m.add_plain(4, m.bit(*m.layout.PG_swapcache));
    CHECK(m.plain(4).flags == anon);
    m.add_plain(5, m.bit(*m.layout.PG_swapcache) | m.bit(*m.layout.PG_swapbacked));
    CHECK(m.plain(5).flags == (anon | kpf(KPF_SWAPBACKED) | kpf(KPF_SWAPCACHE)));
}

TEST_CASE("frames: nothing is said of pages that are not plain") {
    Machine m;
    REQUIRE(has_plain_pages(m.layout));
    m.add_plain(1, m.bit(m.layout.PG_head));
    m.add_plain(2);
    m.add_tail(2, 1);
    m.add_plain(3, 0, 0);                  // belongs to nobody: the zero page, a driver's
    m.add_plain(4, 0, 0xffff9a4300000002); // movable, of a driver
    m.add_plain(5, m.bit(*m.layout.PG_reserved));
    m.add_plain(6, m.bit(*m.layout.PG_hwpoison));
    m.add_plain(7, 0, 0xffff9a4300000001, 0xffffffff); // not mapped
    m.add_plain(8, 0, 0xffff9a4300000001, 0xf2000000); // a page table
    m.add_plain(m.kernel.bases.frame_end);
    for (const std::uint64_t frame : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 0x200000u})
        CHECK(m.plain(frame).map_count == 0);
    CHECK(m.plain(m.kernel.bases.frame_end).map_count == 0);
    m.layout.PG_swapcache = {};
    CHECK_FALSE(has_plain_pages(m.layout));
}

TEST_CASE("frames: page tables have their type, where kernels have types") {
    Machine m;
    m.memory.put32(m.page(1) + *m.layout.page_type, 0xf2000000);
    m.memory.put32(m.page(2) + *m.layout.page_type, 0xf0000000);
    m.memory.put32(m.page(3) + *m.layout.page_type, 0);
    const std::vector<std::uint64_t> frames = {1, 2, 3, 0x200000};
    std::vector<std::uint8_t> out(4);
    read_page_tables(m.memory, m.kernel, frames, out);
    CHECK(out == std::vector<std::uint8_t>{1, 0, 0, 0xff});
    m.layout.PGTY_table = {};
    read_page_tables(m.memory, m.kernel, frames, out);
    CHECK(out == std::vector<std::uint8_t>(4, 0xff));
}

TEST_CASE("access: any trace means accessed, whatever else is known") {
    const KernelLayout layout = [] {
        KernelLayout l = made_up_kernel().layout;
        l.PG_young = 20;
        return l;
    }();
    const std::uint64_t young = 1 << 20, referenced = 1 << layout.PG_referenced;
    Sighting by_entry = seen();
    by_entry.young = true;
    CHECK(judge_access(layout, seen(), by_entry) == Access::accessed);
    CHECK(judge_access(layout, seen(), seen(young)) == Access::accessed);
    CHECK(judge_access(layout, seen(), seen(referenced)) == Access::accessed);
    Sighting elsewhere = seen(young);
    elsewhere.frame = 0x56;
    CHECK(judge_access(layout, seen(1 << layout.PG_active), elsewhere) == Access::accessed);
    CHECK(judge_access(layout, seen(), seen()) == Access::idle);
    // Traces of before count for nothing.
    CHECK(judge_access(layout, seen(young), seen()) == Access::idle);
    KernelLayout without = layout;
    without.PG_young = {};
    CHECK(judge_access(without, seen(), seen(young)) == Access::idle);
}

TEST_CASE("access: a trace that may have been lost is unknown") {
    KernelLayout layout = made_up_kernel().layout;
    const std::uint64_t active = 1 << layout.PG_active;
    const std::uint64_t moved = 1 << *layout.PG_workingset;
    CHECK(judge_access(layout, seen(active), seen()) == Access::unknown);
    CHECK(judge_access(layout, seen(), seen(active)) == Access::unknown);
    // Code stays on the list that it is taken from; others come back with a mark.
    CHECK(judge_access(layout, seen(active), seen(active)) == Access::idle_unless_refilled);
    CHECK(judge_access(layout, seen(), seen(moved)) == Access::idle_unless_refilled);
    KernelLayout unmarked = layout;
    unmarked.PG_workingset = {};
    CHECK(judge_access(unmarked, seen(), seen()) == Access::idle_unless_refilled);
    Sighting isolated = seen();
    isolated.flags = 0;
    CHECK(judge_access(layout, seen(), isolated) == Access::unknown);
    Sighting gone = seen();
    gone.present = false;
    gone.young = true;
    CHECK(judge_access(layout, seen(), gone) == Access::unknown);
    CHECK(judge_access(layout, gone, seen()) == Access::unknown);
    Sighting elsewhere = seen();
    elsewhere.frame = 0x56;
    CHECK(judge_access(layout, seen(), elsewhere) == Access::unknown);
}

TEST_CASE("zero test: a page is zero when all of it is, wherever the other byte stands") {
    Machine m;
    std::vector<std::uint64_t> frames;
    for (std::uint64_t at = 0; at < 4096; at += 5) {
        const std::uint64_t frame = 0x1000 + at;
        m.memory.put8(m.address(frame) + at, 1);
        frames.push_back(frame);
    }
    m.memory.put8(m.address(0x1ffff) + 4095, 0x80);
    frames.push_back(0x1ffff);
    for (const Zero zero : m.zeroes(frames)) CHECK(zero == Zero::not_zero);
    m.memory.page(m.address(0x20000));
    CHECK(m.zeroes({0x1000, 0x20000, 0x1005}) ==
          std::vector{Zero::not_zero, Zero::zero, Zero::not_zero});
}

TEST_CASE("zero test: what cannot be read, or is not RAM, is unreadable and never zero") {
    Machine m;
    m.memory.page(m.address(0x10));
    m.memory.page(m.address(m.kernel.bases.frame_end));
    CHECK(m.zeroes({0x10, 0x11, m.kernel.bases.frame_end}) ==
          std::vector{Zero::zero, Zero::unreadable, Zero::unreadable});
    // Readable at first and gone at the second reading.
    m.memory.before = [&](const Piece& piece) {
        if (piece.bytes == 4096) m.memory.forget(piece.address);
    };
    CHECK(m.zeroes({0x10})[0] == Zero::unreadable);
    CHECK(m.zeroes({}).empty());
}

TEST_CASE(
    "zero test: pages that are not zero cost a word, and zero pages hardly more than a page") {
    Machine m;
    std::vector<std::uint64_t> frames;
    for (std::uint64_t frame = 0x1000; frame < 0x1000 + 4096; ++frame) frames.push_back(frame);
    for (const std::uint64_t frame : frames) m.memory.put(m.address(frame) + 2048, 1);
    m.zeroes(frames);
    CHECK(m.memory.bytes == frames.size() * 8);
    for (const std::uint64_t frame : frames) m.memory.put(m.address(frame) + 2048, 0);
    m.memory.bytes = 0;
    for (const Zero zero : m.zeroes(frames)) CHECK(zero == Zero::zero);
    CHECK(m.memory.bytes == frames.size() * 4096 + 512 * 8);
}

TEST_CASE("zero test: what is zero changes, and the test's ways with it, and no answer is wrong") {
    Machine m;
    std::vector<std::uint64_t> frames;
    for (std::uint64_t i = 0; i < 8 * 512; ++i) {
        const std::uint64_t frame = 0x1000 + i;
        const bool zero = i / 512 % 2 == 0 ? i % 7 != 0 : i % 7 == 0;
        if (zero)
            m.memory.page(m.address(frame));
        else
            m.memory.put8(m.address(frame) + i * 31 % 4096, 1);
        frames.push_back(frame);
    }
    const auto zeroes = m.zeroes(frames);
    for (std::uint64_t i = 0; i < frames.size(); ++i) {
        const bool zero = i / 512 % 2 == 0 ? i % 7 != 0 : i % 7 == 0;
        CHECK(zeroes[i] == (zero ? Zero::zero : Zero::not_zero));
    }
}
