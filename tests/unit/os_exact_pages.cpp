// SPDX-License-Identifier: MIT
// Pages from made-up kernel memory, beside a /proc that says the same, or does not.
#include "made_up_tables.hpp"
#include "os/exact_pages.hpp"
#include "os_fake_root.hpp"
#include "pagesift/abi.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>

using namespace pagesift;
using namespace pagesift::os;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t page = 4096, base = 0x4000'0000;
constexpr std::uint64_t user = 0x5, young = 0x20, dirty = 0x40, special = 0x200;
constexpr auto anon_flags = abi::kpf(abi::KPF_MMAP) | abi::kpf(abi::KPF_ANON);

struct Fixture {
    Fixture() {
        root.write("proc/kpageflags", "");
        root.write("proc/kpagecount", "");
        root.write("pagemap", "");
        // An empty one is none.
        root.write_words("proc/kpageflags", 0, {0});
        root.write_words("proc/kpagecount", 0, {0});
    }

    void map(std::uint64_t index, std::uint64_t frame, std::uint64_t bits = 0) {
        tables.set(base + index * page, 1, frame << 12 | user | bits);
    }

    void plain(std::uint64_t frame, std::uint64_t mapping, std::uint32_t map_count) {
        const auto at = kernel.bases.vmemmap + frame * kernel.layout.page_bytes;
        memory.put(at, 0);
        memory.put(at + *kernel.layout.folio_mapping, mapping);
        memory.put32(at + *kernel.layout.page_mapcount, map_count - 1);
    }

    void in_proc(std::uint64_t index, std::uint64_t word, std::uint64_t flags,
                 std::uint64_t count = 0) {
        root.write_words("pagemap", base / page + index, {word});
        root.write_words("proc/kpageflags", word & abi::PM_PFRAME_MASK, {flags});
        root.write_words("proc/kpagecount", word & abi::PM_PFRAME_MASK, {count});
    }

    /// What is said of @p pages pages from base on; the bool: it is to be believed.
    bool read(std::uint64_t pages, std::span<const AddressRange> mappings = {}) {
        const Root proc{root.path()};
        const auto pagemap = proc.open("pagemap", O_RDONLY);
        const FrameReader frames{proc, true};
        KernelView::Parts parts;
        parts.memory = std::make_unique<MadeUpMemory>(memory);
        parts.kernel = std::make_shared<const walk::Kernel>(kernel);
        parts.flags_checked = true;
        ExactLens lens{std::make_unique<KernelView>(std::move(parts))};
        ExactPages exact{lens, tables.pgd, pagemap.fd.get(), frames, about};
        REQUIRE(exact.works());
        block.clear();
        block.range = {Address{base}, Address{base + pages * page}};
        const bool believed = exact.read(block, mappings);
        still_works = exact.works();
        return believed;
    }

    MadeUpMemory memory;
    walk::Kernel kernel = made_up_kernel();
    MadeUpTables tables{memory, kernel};
    FakeRoot root;
    PageBlock block;
    bool still_works = false;
    ExactPages::Kernel about;
};

} // namespace

TEST_CASE("exact pages: plain pages come from memory, in the words of /proc") {
    Fixture f;
    f.map(0, 0x100, young);
    f.plain(0x100, 0xffff9a4300000001, 1);
    f.in_proc(0, abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | 0x100, anon_flags, 1);
    f.map(2, 0x101, dirty); // what /proc would say of these is not asked for
    f.plain(0x101, 0xffff9a4300000000, 3);
    f.map(3, 0x102, young | dirty);
    f.plain(0x102, 0xffff9a4300000003, 2);
    f.memory.put(f.kernel.bases.vmemmap + 0x102 * 64,
                 std::uint64_t{1} << f.kernel.layout.PG_referenced);
    REQUIRE(f.read(8));
    using abi::PM_FILE, abi::PM_MMAP_EXCLUSIVE, abi::PM_PRESENT;
    CHECK(f.block.entries == std::vector<std::uint64_t>{PM_PRESENT | PM_MMAP_EXCLUSIVE | 0x100, 0,
                                                        PM_PRESENT | PM_FILE | 0x101,
                                                        PM_PRESENT | 0x102, 0, 0, 0, 0});
    const std::uint64_t merged =
        anon_flags | abi::kpf(abi::KPF_KSM) | abi::kpf(abi::KPF_REFERENCED);
    CHECK(f.block.flags ==
          std::vector<std::uint64_t>{anon_flags, 0, abi::kpf(abi::KPF_MMAP), merged, 0, 0, 0, 0});
    CHECK(f.block.map_counts == std::vector<std::uint32_t>{0, 0, 3, 2, 0, 0, 0, 0});
    CHECK(f.block.folio_orders.empty());
    CHECK(f.block.pmd_mapped.empty());
    using Bits = EntryBits;
    CHECK(f.block.entry_bits ==
          std::vector<std::uint8_t>{
              Bits::known | Bits::young | Bits::used_known, 0,
              Bits::known | Bits::dirty | Bits::used_known,
              Bits::known | Bits::young | Bits::dirty | Bits::used_known | Bits::used, 0, 0, 0, 0});
}

TEST_CASE("exact pages: pages with rules of their own are asked of /proc") {
    Fixture f;
    const auto zero = abi::kpf(abi::KPF_ZERO_PAGE), head = abi::kpf(abi::KPF_COMPOUND_HEAD),
               tail = abi::kpf(abi::KPF_COMPOUND_TAIL), thp = abi::kpf(abi::KPF_THP) | anon_flags;
    f.map(0, 0x50, special);
    f.in_proc(0, abi::PM_PRESENT | 0x50, zero);
    f.map(1, 0x101);
    f.plain(0x101, 0xffff9a4300000001, 1);
    f.in_proc(1, abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | 0x101, anon_flags, 1);
    for (const std::uint64_t i : {0u, 1u}) { // a folio of two pages
        f.map(2 + i, 0x200 + i, young);
        f.memory.put(f.kernel.bases.vmemmap + (0x200 + i) * 64,
                     i == 0 ? std::uint64_t{1} << f.kernel.layout.PG_head : 0);
        f.in_proc(2 + i, abi::PM_PRESENT | (0x200 + i), thp | (i == 0 ? head : tail), 4);
    }
    f.memory.put(f.kernel.bases.vmemmap + 0x201 * 64 + *f.kernel.layout.page_compound_head,
                 f.kernel.bases.vmemmap + 0x200 * 64 + 1);
    REQUIRE(f.read(4));
    CHECK(f.block.entries[0] == (abi::PM_PRESENT | 0x50));
    CHECK(f.block.flags == std::vector<std::uint64_t>{zero, anon_flags, thp | head, thp | tail});
    CHECK(f.block.folio_orders == std::vector<std::uint8_t>{0, 0, 1, 1});
    CHECK(f.block.map_counts == std::vector<std::uint32_t>{0, 0, 4, 4});
    CHECK(f.block.pmd_mapped == std::vector<std::uint8_t>(4, 0));
    CHECK(f.block.entry_bits[2] == (EntryBits::known | EntryBits::young));
}

TEST_CASE("exact pages: what is another page by the second look has no bits of the first") {
    Fixture f;
    f.map(0, 0x50, special | young);
    f.in_proc(0, abi::PM_PRESENT | 0x51, abi::kpf(abi::KPF_ZERO_PAGE));
    REQUIRE(f.read(1));
    CHECK(f.block.entries[0] == (abi::PM_PRESENT | 0x51));
    CHECK(f.block.entry_bits[0] == 0);
}

TEST_CASE("exact pages: huge entries are known as such") {
    Fixture f;
    f.tables.set(base, 2, 0x4000'0000 | 0x80 | user | young);
    for (std::uint64_t i = 0; i < 512; ++i)
        f.in_proc(i, abi::PM_PRESENT | (0x40000 + i), anon_flags | abi::kpf(abi::KPF_THP));
    REQUIRE(f.read(513));
    CHECK(std::count(f.block.pmd_mapped.begin(), f.block.pmd_mapped.end(), 1) == 512);
    CHECK(f.block.pmd_mapped[512] == 0);
    CHECK(f.block.entry_bits[511] == (EntryBits::known | EntryBits::young));
    CHECK(f.block.entries[511] == (abi::PM_PRESENT | 0x401ff));
}

TEST_CASE("exact pages: where /proc says otherwise, nothing is believed any more") {
    const auto differs = [](std::uint64_t word, std::uint64_t flags) {
        Fixture f;
        f.map(0, 0x100);
        f.plain(0x100, 0xffff9a4300000001, 1);
        f.in_proc(0, word, flags, 1);
        const bool believed = f.read(1);
        CHECK(f.still_works == believed);
        return !believed;
    };
    const auto word = abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | 0x100;
    CHECK_FALSE(differs(word, anon_flags));
    CHECK_FALSE(differs(word, anon_flags | abi::kpf(abi::KPF_REFERENCED))); // comes and goes
    CHECK(differs(word, abi::kpf(abi::KPF_MMAP)));
    CHECK(differs(word, anon_flags | abi::kpf(abi::KPF_SWAPBACKED)));
    CHECK(differs(word | abi::PM_FILE, anon_flags));
    CHECK(differs(word & ~abi::PM_MMAP_EXCLUSIVE, anon_flags));
    // Another frame by now: that tells nothing of the first.
    CHECK_FALSE(differs(abi::PM_PRESENT | 0x101, 0));
}

TEST_CASE("exact pages: a table that cannot be read leaves all to /proc") {
    Fixture f;
    const auto table = f.tables.entry_at(base, 1);
    f.memory.forget(table);
    CHECK_FALSE(f.read(4));
    CHECK(f.still_works);
}

TEST_CASE("exact pages: a KSM flag that means nothing is mended") {
    constexpr auto ksm = abi::kpf(abi::KPF_KSM), head = abi::kpf(abi::KPF_COMPOUND_HEAD);
    for (const bool mends : {false, true}) {
        Fixture f;
        f.about.mends_ksm_flag = mends;
        f.map(0, 0x100);
        f.plain(0x100, 0xffff9a4300000003, 1);
        f.in_proc(0, abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | 0x100, anon_flags | ksm, 1);
        f.map(1, 0x101);
        f.memory.put(f.kernel.bases.vmemmap + 0x101 * 64,
                     std::uint64_t{1} << f.kernel.layout.PG_head);
        f.in_proc(1, abi::PM_PRESENT | 0x101, anon_flags | ksm | head, 1);
        REQUIRE(f.read(2));
        CHECK(f.block.flags[0] == (anon_flags | ksm));
        CHECK(f.block.flags[1] == (mends ? anon_flags | head : anon_flags | head | ksm));
    }
}

TEST_CASE("exact pages: what is soft-dirty as a whole mapping is so in each of its pages") {
    constexpr std::uint64_t soft_dirty = 0x800;
    const auto read = [](bool kernel_has, std::uint64_t said) {
        Fixture f;
        f.about.has_soft_dirty = kernel_has;
        f.map(0, 0x100, soft_dirty);
        f.plain(0x100, 0xffff9a4300000001, 1);
        f.in_proc(0, abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | 0x100, anon_flags, 1);
        f.root.write_words("pagemap", base / page + 1, {said});
        REQUIRE(f.read(3));
        std::vector<bool> is;
        for (const auto entry : f.block.entries) is.push_back((entry & abi::PM_SOFT_DIRTY) != 0);
        return is;
    };
    CHECK(read(true, abi::PM_SOFT_DIRTY) == std::vector<bool>{true, true, true});
    CHECK(read(true, 0) == std::vector<bool>{true, false, false});
    CHECK(read(false, abi::PM_SOFT_DIRTY) == std::vector<bool>{true, false, false});
}

TEST_CASE("exact pages: of several mappings in a block each is soft-dirty as a whole, or not") {
    Fixture f;
    f.about.has_soft_dirty = true;
    const auto part = [](std::uint64_t first, std::uint64_t end) {
        return AddressRange{Address{base + first * page}, Address{base + end * page}};
    };
    // Three mappings with a hole between the first two; pagemap calls the first and the last dirty.
    const std::vector<AddressRange> mappings{part(0, 2), part(3, 5), part(5, 6)};
    f.root.write_words("pagemap", base / page,
                       {abi::PM_SOFT_DIRTY, abi::PM_SOFT_DIRTY, 0, 0, 0, abi::PM_SOFT_DIRTY});
    REQUIRE(f.read(6, mappings));
    std::vector<bool> is;
    for (const auto entry : f.block.entries) is.push_back((entry & abi::PM_SOFT_DIRTY) != 0);
    CHECK(is == std::vector<bool>{true, true, false, false, false, true});
}
