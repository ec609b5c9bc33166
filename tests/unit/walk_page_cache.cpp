// SPDX-License-Identifier: MIT
#include "made_up_memory.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::test;
using namespace pagesift::walk;

namespace {

using State = CachedPage::State;

constexpr std::uint64_t retry_entry = 256 << 2 | 2;
constexpr std::uint64_t sibling(std::uint64_t slot) { return slot << 2 | 2; }
constexpr std::uint64_t swap_entry(std::uint64_t type, std::uint64_t offset) {
    return (type << 58 | offset) << 1 | 1;
}

/// A tree in made-up memory.
struct Tree {
    MadeUpMemory memory;
    Kernel kernel = made_up_kernel();
    const KernelLayout& layout = kernel.layout;
    std::uint64_t mapping = 0xffff9a4000123008;
    std::uint64_t tree = mapping + layout.address_space_i_pages;
    std::uint64_t head = tree + layout.xarray_xa_head;
    std::uint64_t next_node = 0xffff9a4000200008; // many of these cross a page boundary
    PageCacheCounts counts;

    Tree() { memory.put(head, 0); }

    std::uint64_t folio(std::uint64_t frame) const {
        return kernel.bases.vmemmap + frame * layout.page_bytes;
    }
    CachedPage folio_page(std::uint64_t frame) const { return {State::folio, 0, frame}; }

    std::uint64_t add_node(std::uint64_t parent, unsigned shift, unsigned offset) {
        const std::uint64_t node = next_node;
        next_node += 576;
        memory.page(node);
        memory.page(node + 575);
        memory.put8(node + layout.xa_node_shift, static_cast<std::uint8_t>(shift));
        memory.put8(node + layout.xa_node_offset, static_cast<std::uint8_t>(offset));
        memory.put(node + layout.xa_node_parent, parent);
        memory.put(node + layout.xa_node_array, tree);
        if (parent == 0)
            memory.put(head, node | 2);
        else
            put(parent, offset, node | 2);
        return node;
    }
    void put(std::uint64_t node, std::uint64_t slot, std::uint64_t entry) {
        memory.put(node + layout.xa_node_slots + slot * 8, entry);
    }
    std::vector<CachedPage> walk(std::uint64_t first, std::size_t count) {
        std::vector<CachedPage> pages(count, {State::unknown, 9, 9});
        counts = walk_page_cache(memory, kernel, mapping, first, pages);
        return pages;
    }
};

constexpr CachedPage hole{};
constexpr CachedPage not_known{State::unknown};
CachedPage swapped(unsigned type, std::uint64_t offset) {
    return {State::swap, static_cast<std::uint8_t>(type), offset};
}

} // namespace

TEST_CASE("page cache: an empty file is holes") {
    Tree t;
    CHECK(t.walk(0, 3) == std::vector{hole, hole, hole});
    CHECK(t.walk(1, 0).empty());
}

TEST_CASE("page cache: a lone page stands in the tree itself") {
    Tree t;
    t.memory.put(t.head, t.folio(0x123));
    CHECK(t.walk(0, 2) == std::vector{t.folio_page(0x123), hole});
    CHECK(t.walk(1, 2) == std::vector{hole, hole});
    t.memory.put(t.head, swap_entry(2, 77));
    CHECK(t.walk(0, 1) == std::vector{swapped(2, 77)});
}

TEST_CASE("page cache: folios, swap entries with type and offset, and holes") {
    Tree t;
    const auto root = t.add_node(0, 6, 0);
    const auto low = t.add_node(root, 0, 0), high = t.add_node(root, 0, 63);
    t.put(low, 0, t.folio(0x100));
    t.put(low, 63, swap_entry(22, (std::uint64_t{1} << 58) - 2));
    t.put(high, 63, t.folio(0x3fffff));
    const auto pages = t.walk(0, 64 * 64);
    CHECK(pages[0] == t.folio_page(0x100));
    CHECK(pages[1] == hole);
    CHECK(pages[63] == swapped(22, (std::uint64_t{1} << 58) - 2));
    CHECK(pages[64] == hole);
    CHECK(pages[4095] == t.folio_page(0x3fffff));
    CHECK(t.counts.nodes == 3);
    CHECK(t.counts.unknown == 0);
}

TEST_CASE("page cache: a part is read through its own nodes only") {
    Tree t;
    const auto root = t.add_node(0, 12, 0);
    const auto middle = t.add_node(root, 6, 2);
    t.add_node(root, 6, 3);
    const auto leaf = t.add_node(middle, 0, 5);
    t.add_node(middle, 0, 6);
    t.put(leaf, 7, t.folio(0x55));
    const std::uint64_t index = (2 << 12) + (5 << 6) + 7;
    CHECK(t.walk(index - 1, 3) == std::vector{hole, t.folio_page(0x55), hole});
    CHECK(t.counts.nodes == 3);
    CHECK(t.walk(std::uint64_t{1} << 40, 2) == std::vector{hole, hole});
    CHECK(t.walk(~std::uint64_t{0} - 1, 2) == std::vector{hole, hole});
}

TEST_CASE("page cache: a tree that numbers every page there can be has an end") {
    Tree t;
    auto node = t.add_node(0, 60, 0);
    for (unsigned shift = 54;; shift -= 6) {
        node = t.add_node(node, shift, shift == 54 ? 15 : 63);
        if (shift == 0) break;
    }
    t.put(node, 63, t.folio(0x77));
    CHECK(t.walk(~std::uint64_t{0} - 1, 2) == std::vector{hole, t.folio_page(0x77)});
}

TEST_CASE("page cache: the other slots of a large folio count on from its first") {
    Tree t;
    const auto root = t.add_node(0, 0, 0);
    t.put(root, 4, t.folio(0x400));
    for (const std::uint64_t slot : {5u, 6u, 7u}) t.put(root, slot, sibling(4));
    t.put(root, 8, swap_entry(1, 0x800));
    for (const std::uint64_t slot : {9u, 10u, 11u}) t.put(root, slot, sibling(8));
    const auto pages = t.walk(0, 16);
    for (std::uint64_t i = 0; i < 4; ++i) {
        CHECK(pages[4 + i] == t.folio_page(0x400 + i));
        CHECK(pages[8 + i] == swapped(1, 0x800 + i));
    }
    CHECK(t.walk(6, 4) == std::vector{pages[6], pages[7], pages[8], pages[9]});
    CHECK(t.counts.unknown == 0);
}

TEST_CASE("page cache: an entry above the lowest level stands for all pages below it") {
    Tree t;
    const auto root = t.add_node(0, 6, 0);
    t.put(root, 8, swap_entry(3, 0x1000));
    for (std::uint64_t slot = 9; slot < 16; ++slot) t.put(root, slot, sibling(8));
    t.put(root, 16, t.folio(0x2000));
    t.put(root, 17, sibling(16));
    const auto pages = t.walk(8 * 64, 10 * 64);
    for (std::uint64_t i = 0; i < 512; ++i) CHECK(pages[i] == swapped(3, 0x1000 + i));
    for (std::uint64_t i = 0; i < 128; ++i) CHECK(pages[512 + i] == t.folio_page(0x2000 + i));
    CHECK(t.walk(8 * 64 + 100, 1) == std::vector{swapped(3, 0x1000 + 100)});
}

TEST_CASE("page cache: a retry entry is unknown, unless it goes away") {
    for (const bool goes_away : {false, true}) {
        Tree t;
        const auto root = t.add_node(0, 0, 0);
        t.put(root, 1, t.folio(0x1));
        t.put(root, 3, retry_entry);
        unsigned readings = 0;
        t.memory.before = [&](const Piece& piece) {
            if (goes_away && piece.address == t.head && ++readings == 2)
                t.put(root, 3, t.folio(0x3));
        };
        const auto pages = t.walk(0, 5);
        CHECK(pages[1] == t.folio_page(0x1));
        CHECK(pages[3] == (goes_away ? t.folio_page(0x3) : not_known));
        CHECK(pages[4] == hole);
        CHECK(t.counts.unknown == (goes_away ? 0u : 1u));
        CHECK(t.counts.retries == (goes_away ? 1u : 3u));
    }
}

TEST_CASE("page cache: a lone retry entry is unknown") {
    Tree t;
    t.memory.put(t.head, retry_entry);
    CHECK(t.walk(0, 2) == std::vector{not_known, hole});
}

TEST_CASE("page cache: a sibling of nothing, or of something internal, is unknown") {
    Tree t;
    const auto root = t.add_node(0, 0, 0);
    t.put(root, 5, sibling(4));
    t.put(root, 7, retry_entry);
    t.put(root, 8, sibling(7));
    t.put(root, 10, sibling(11));
    t.put(root, 11, t.folio(0x5));
    const auto pages = t.walk(0, 16);
    for (const std::size_t i : {5u, 7u, 8u, 10u}) CHECK(pages[i] == not_known);
    CHECK(pages[11] == t.folio_page(0x5));
}

TEST_CASE("page cache: a node that is not what its parent says is not believed") {
    struct Damage {
        const char* what;
        std::function<void(Tree&, std::uint64_t node)> make;
    };
    const Damage damages[] = {
        {"freed: of no tree", [](Tree& t, auto n) { t.memory.put(n + t.layout.xa_node_array, 0); }},
        {"another's",
         [](Tree& t, auto n) { t.memory.put(n + t.layout.xa_node_array, t.tree + 8); }},
        {"moved", [](Tree& t, auto n) { t.memory.put8(n + t.layout.xa_node_offset, 4); }},
        {"adopted", [](Tree& t, auto n) { t.memory.put(n + t.layout.xa_node_parent, 0x10); }},
        {"grown", [](Tree& t, auto n) { t.memory.put8(n + t.layout.xa_node_shift, 6); }},
        {"unreadable", [](Tree& t, auto n) { t.memory.forget(n); }},
        {"half unreadable", [](Tree& t, auto n) { t.memory.forget(n + 560); }},
    };
    for (const Damage& damage : damages) {
        CAPTURE(damage.what);
        Tree t;
        const auto root = t.add_node(0, 6, 0);
        t.put(t.add_node(root, 0, 2), 0, t.folio(0x2));
        t.next_node = 0xffff9a4000400e00; // crosses into the next page
        const auto bad = t.add_node(root, 0, 3);
        t.put(bad, 0, t.folio(0x3));
        t.next_node = 0xffff9a4000500000;
        t.put(t.add_node(root, 0, 4), 0, t.folio(0x4));
        CHECK(t.walk(192, 1)[0] == t.folio_page(0x3));
        damage.make(t, bad);
        const auto pages = t.walk(100, 200);
        for (std::size_t i = 0; i < pages.size(); ++i) {
            const std::size_t index = i + 100;
            const CachedPage expected = index == 128                  ? t.folio_page(0x2)
                                        : index >= 192 && index < 256 ? not_known
                                        : index == 256                ? t.folio_page(0x4)
                                                                      : hole;
            CHECK(pages[i] == expected);
        }
        CHECK(t.counts.unknown == 64);
        CHECK(t.counts.refused == 4);
    }
}

TEST_CASE("page cache: a root with a parent, or of another tree, leaves all unknown") {
    for (const bool other_tree : {false, true}) {
        Tree t;
        const auto root = t.add_node(0, 6, 0);
        t.memory.put(root + (other_tree ? t.layout.xa_node_array : t.layout.xa_node_parent), 0x40);
        CHECK(t.walk(5, 2) == std::vector{not_known, not_known});
    }
    Tree t;
    t.memory.put8(t.add_node(0, 6, 0) + t.layout.xa_node_shift, 7);
    CHECK(t.walk(5, 2) == std::vector{not_known, not_known});
    t.memory.forget(t.head);
    CHECK(t.walk(5, 2) == std::vector{not_known, not_known});
}

TEST_CASE("page cache: a tree that grew meanwhile is walked again from its new top") {
    Tree t;
    const auto old_root = t.add_node(0, 0, 0);
    t.put(old_root, 1, t.folio(0x1));
    bool grown = false;
    t.memory.before = [&](const Piece& piece) {
        if (grown || piece.address != old_root) return;
        grown = true;
        const auto root = t.add_node(0, 6, 0);
        t.memory.put(old_root + t.layout.xa_node_parent, root);
        t.put(root, 0, old_root | 2);
    };
    const auto pages = t.walk(0, 100);
    CHECK(pages[1] == t.folio_page(0x1));
    CHECK(pages[0] == hole);
    CHECK(t.counts.unknown == 0);
    CHECK(t.counts.retries == 1);
}

TEST_CASE("page cache: neighbours with the same swap entry are being split, and are read again") {
    for (const bool finishes : {false, true}) {
        Tree t;
        const auto root = t.add_node(0, 6, 0);
        const auto one = t.add_node(root, 0, 0), two = t.add_node(root, 0, 1);
        // Across the border of two nodes, as a part of a large entry's slots.
        const std::uint64_t base = swap_entry(1, 0x40);
        t.put(one, 62, base), t.put(one, 63, base), t.put(two, 0, base);
        t.put(two, 1, swap_entry(1, 0x50));
        unsigned readings = 0;
        t.memory.before = [&](const Piece& piece) {
            if (!finishes || piece.address != t.head || ++readings != 2) return;
            t.put(one, 63, swap_entry(1, 0x41)), t.put(two, 0, swap_entry(1, 0x42));
        };
        const auto pages = t.walk(60, 8);
        for (std::uint64_t i = 0; i < 3; ++i)
            CHECK(pages[2 + i] == (finishes ? swapped(1, 0x40 + i) : not_known));
        CHECK(pages[5] == swapped(1, 0x50));
        CHECK(t.counts.unknown == (finishes ? 0u : 3u));
    }
}

TEST_CASE("page cache: what is neither a folio nor a swap entry is unknown") {
    Tree t;
    const auto root = t.add_node(0, 0, 0);
    t.put(root, 0, t.folio(0x10) + 4);                 // between two struct pages
    t.put(root, 1, t.folio(t.kernel.bases.frame_end)); // beyond RAM
    t.put(root, 2, t.kernel.bases.vmemmap - 64);       // before all of them
    t.put(root, 3, (t.next_node + 4096) | 2);          // a node below the lowest level
    t.put(root, 4, t.folio(t.kernel.bases.frame_end - 1));
    CHECK(t.walk(0, 5) == std::vector{not_known, not_known, not_known, not_known,
                                      t.folio_page(t.kernel.bases.frame_end - 1)});
}

TEST_CASE("page cache: a large file is read level by level, in few calls") {
    Tree t;
    t.memory.piece_limit = 1024, t.memory.byte_limit = 1 << 20;
    const auto root = t.add_node(0, 12, 0);
    for (unsigned i = 0; i < 4; ++i) {
        const auto middle = t.add_node(root, 6, i);
        for (unsigned j = 0; j < 64; ++j) {
            const auto leaf = t.add_node(middle, 0, j);
            for (std::uint64_t k = 0; k < 64; ++k)
                t.put(leaf, k, t.folio(0x1000 + i * 4096 + j * 64 + k));
        }
    }
    const auto pages = t.walk(0, 4 * 4096);
    for (std::uint64_t i = 0; i < pages.size(); ++i) CHECK(pages[i] == t.folio_page(0x1000 + i));
    CHECK(t.counts.nodes == 1 + 4 + 256);
    CHECK(t.memory.calls <= 5);
}
