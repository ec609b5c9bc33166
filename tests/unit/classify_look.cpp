// SPDX-License-Identifier: MIT
#include "made_up_source.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/classify.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::abi;
using pagesift::test::MadeUpPage;
using pagesift::test::MadeUpSource;

namespace {

constexpr std::uint64_t page = 4096, slot = 2 << 20;
constexpr std::uint64_t anon_flags = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED) | kpf(KPF_LRU);

MadeUpPage anon(std::uint64_t pfn) {
    return {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | pfn, .flags = anon_flags, .map_count = 0};
}

MadeUpPage swapped(std::uint64_t offset, unsigned type = 0) {
    return {.entry = PM_SWAP | offset << 5 | type};
}

std::string status_with_tables(std::uint64_t tables) {
    return "VmSize:\t  100 kB\nVmPTE:\t" + std::to_string(tables * 4) + " kB\n";
}

} // namespace

TEST_CASE("look: states add up to the size of the mappings, whatever the number of threads") {
    MadeUpSource source;
    source.map(0x10000000, 0x10000000 + 200000 * page);
    source.map(0x7f0000000000, 0x7f0000000000 + 300 * page);
    for (std::uint64_t i = 0; i < 70000; i += 3) source.pages[0x10000000 + i * page] = anon(i + 1);
    for (std::uint64_t i = 0; i < 300; ++i) source.pages[0x7f0000000000 + i * page] = swapped(i);
    LookOptions options;
    std::vector<std::vector<Run>> runs(3);
    for (const unsigned jobs : {1u, 2u, 5u}) {
        options.jobs = jobs;
        std::vector<Run> seen;
        options.on_run = [&](const Run& run) { seen.push_back(run); };
        const Census census = look(source, options);
        CHECK(census.totals.pages() == 200300);
        CHECK(census.totals.state_pages(State::present) == 23334);
        CHECK(census.totals.state_pages(State::swapped) == 300);
        CHECK(census.mappings.size() == 2);
        std::uint64_t pages = 0;
        for (std::size_t i = 0; i < seen.size(); ++i) {
            pages += seen[i].range.size().value / page;
            if (i > 0) CHECK(seen[i - 1].range.end <= seen[i].range.start);
        }
        CHECK(pages == 200300);
        CHECK(seen.back().swap_contiguous);
        runs[jobs == 1 ? 0 : jobs == 2 ? 1 : 2] = seen;
    }
    CHECK(runs[0].size() == runs[1].size());
    CHECK(runs[0].size() == runs[2].size());
}

TEST_CASE("look: swapped shared memory has swap offsets where the source knows them") {
    MadeUpSource source;
    source.facts.lens = "exact";
    source.map(0x10000000, 0x10000000 + 6 * page, Backing::shmem);
    const auto put = [&](std::uint64_t i, std::uint64_t swap) {
        MadeUpPage absent;
        absent.cache = Cache::absent;
        absent.swap_entry = swap;
        source.pages[0x10000000 + i * page] = absent;
    };
    for (const std::uint64_t i : {0u, 1u, 2u}) put(i, pagemap_swap(3, 70 + i));
    put(3, 0);
    put(4, pagemap_swap(3, 9));
    put(5, pagemap_swap(4, 10));
    LookOptions options;
    std::vector<Run> runs;
    std::vector<Page> pages;
    options.on_run = [&](const Run& run) { runs.push_back(run); };
    options.on_page = [&](const Page& one) { pages.push_back(one); };
    const Census census = look(source, options);
    CHECK(census.lens == "exact");
    CHECK(census.totals.state_pages(State::shmem_swapped) == 6);
    REQUIRE(runs.size() == 4);
    CHECK(runs[0].range.size() == Bytes{3 * page});
    CHECK(runs[0].swap_type == 3u);
    CHECK(runs[0].swap_offset == 70u);
    CHECK(runs[0].swap_contiguous);
    CHECK_FALSE(runs[1].swap_type);
    CHECK_FALSE(runs[1].swap_offset);
    CHECK(runs[2].swap_offset == 9u);
    CHECK(runs[3].swap_type == 4u);
    REQUIRE(pages.size() == 6);
    CHECK(pages[2].swap_offset == 72u);
    CHECK_FALSE(pages[3].swap_offset);
    CHECK_FALSE(pages[3].pfn);
    CHECK(pages[5].swap_type == 4u);
}

TEST_CASE("look: offsets in swap are in a row, or are not said to be") {
    for (const std::uint64_t third : {72u, 71u, 75u, 3u}) {
        MadeUpSource source;
        source.map(0x10000000, 0x10000000 + 3 * page);
        for (const auto& [i, offset] : {std::pair{0u, std::uint64_t{70}}, {1u, 71}, {2u, third}})
            source.pages[0x10000000 + i * page] = {.entry = PM_SWAP | offset << 5 | 3};
        LookOptions options;
        std::vector<Run> runs;
        options.on_run = [&](const Run& run) { runs.push_back(run); };
        look(source, options);
        REQUIRE(runs.size() == 1);
        CHECK(runs[0].swap_offset == 70u);
        CHECK(runs[0].swap_contiguous == (third == 72));
    }
}

TEST_CASE("look: neighbours that differ in their users alone are told apart") {
    MadeUpSource source;
    source.facts.ksm_flag_true = true;
    source.map(0x10000000, 0x10000000 + 4 * page);
    for (const std::uint32_t i : {0u, 1u, 2u, 3u}) {
        MadeUpPage merged = anon(7 + i);
        merged.flags |= abi::kpf(abi::KPF_KSM);
        merged.entry &= ~abi::PM_MMAP_EXCLUSIVE;
        merged.map_count = i % 2 + 1;
        source.pages[0x10000000 + i * page] = merged;
    }
    const Census census = look(source, {});
    CHECK(census.totals.kind_pages(Kind::ksm_sole) == 2);
    CHECK(census.totals.kind_pages(Kind::ksm) == 2);
}

TEST_CASE("look: an entry that could not be read a second time is neither young nor not") {
    MadeUpSource source;
    source.entry_bits_read = true;
    source.map(0x10000000, 0x10000000 + 3 * page);
    for (const std::uint64_t i : {0u, 1u, 2u}) source.pages[0x10000000 + i * page] = anon(7 + i);
    source.pages[0x10000000].entry_bits = EntryBits::known | EntryBits::young;
    source.pages[0x10000000 + page].entry_bits = EntryBits::known;
    const auto where = [&](const char* text) {
        LookOptions options;
        options.where = Filter::parse(text);
        const Census census = look(source, options);
        return std::pair{census.totals.pages(), census.undecided_pages};
    };
    CHECK(where("young") == std::pair<std::uint64_t, std::uint64_t>{1, 1});
    CHECK(where("not young") == std::pair<std::uint64_t, std::uint64_t>{1, 1});
}

TEST_CASE("look: pages of a large folio that lie otherwise in memory than in the mapping") {
    constexpr std::uint64_t start = 0x10000000; // a multiple of each folio
    for (const std::uint64_t off : {0u, 1u}) {
        MadeUpSource source;
        source.map(start, start + 32 * page);
        for (std::uint64_t i = 0; i < 4; ++i) {
            MadeUpPage one = anon(0x1000 + i);
            one.flags |= kpf(KPF_THP) | kpf(i == 0 ? KPF_COMPOUND_HEAD : KPF_COMPOUND_TAIL);
            one.order = 2;
            source.pages[start + (i + off) * page] = one;
        }
        const Census census = look(source, {});
        CHECK(census.totals.folio_unaligned_pages == (off == 0 ? 0 : 4));
    }
}

TEST_CASE("look: how many contents were read, and how many of them were zero") {
    MadeUpSource source;
    source.map(0x10000000, 0x10000000 + 8 * page);
    for (const std::uint64_t i : {0u, 1u, 2u, 3u, 4u}) {
        source.pages[0x10000000 + i * page] = anon(7 + i);
        source.pages[0x10000000 + i * page].content = i < 3 ? Content::zero : Content::other;
    }
    LookOptions options;
    options.want.zero = ZeroTest::all;
    const Census census = look(source, options);
    CHECK(census.totals.content_asked == 5);
    CHECK(census.totals.content_zero == 3);
    CHECK(census.totals.kind_pages(Kind::zero_filled) == 3);
}

TEST_CASE("look: the surplus of VmPTE is the number of empty tables") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 8 * slot);
    source.pages[0x40000000] = anon(1);
    source.pages[0x40000000 + 3 * slot] = anon(2);
    source.text.status = status_with_tables(2 + 1 + 1 + 3); // PTE, PMD, PUD, and three empty
    source.tables =
        std::vector<AddressRange>{{Address{0x40000000 + slot}, Address{0x40000000 + 2 * slot}},
                                  {Address{0x40000000 + 4 * slot}, Address{0x40000000 + 6 * slot}}};
    const Census census = look(source, {});
    CHECK(census.tables.needed_tables == 4);
    CHECK(census.tables.empty_tables == 3);
    CHECK(census.tables.located_tables == 3);
    CHECK(census.tables.reclaimable_bytes == 3 * page);
    CHECK(census.tables.spanning_tables == 0);
    CHECK(census.tables.slots.size() == 3);
}

TEST_CASE("look: a table under two mappings is spanning and not reclaimable") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + slot / 2);
    source.map(0x40000000 + slot / 2, 0x40000000 + slot);
    source.text.status = status_with_tables(1);
    source.tables = std::vector<AddressRange>{{Address{0x40000000}, Address{0x40000000 + slot}}};
    const Census census = look(source, {});
    CHECK(census.tables.located_tables == 1);
    CHECK(census.tables.spanning_tables == 1);
    CHECK(census.tables.reclaimable_bytes == 0);
}

TEST_CASE("look: mappings that meet at a table's border share none") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + slot);
    source.map(0x40000000 + slot, 0x40000000 + 2 * slot);
    source.text.status = status_with_tables(1);
    source.tables = std::vector<AddressRange>{{Address{0x40000000}, Address{0x40000000 + slot}}};
    const Census census = look(source, {});
    CHECK(census.tables.located_tables == 1);
    CHECK(census.tables.spanning_tables == 0);
    CHECK(census.tables.reclaimable_bytes == page);
}

TEST_CASE("look: flags of a frame whose number is hidden are nobody's") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 2 * page);
    source.pages[0x40000000] = {.entry = PM_PRESENT, .flags = kpf(KPF_ANON) | kpf(KPF_ACTIVE)};
    source.pages[0x40000000 + page] = anon(2);
    source.pages[0x40000000 + page].flags |= kpf(KPF_ACTIVE);
    LookOptions options;
    options.where = Filter::parse("active");
    const Census census = look(source, options);
    CHECK(census.undecided_pages == 1);
    CHECK(census.totals.pages() == 1);
}

TEST_CASE("look: where swap numbers are hidden, and no page is present, the census says so") {
    MadeUpSource source;
    source.facts.frames_visible = false;
    source.map(0x40000000, 0x40000000 + 2 * page);
    CHECK(look(source, {}).gaps.empty());
    source.pages[0x40000000] = {.entry = PM_SWAP};
    const Census census = look(source, {});
    CHECK(census.totals.state_pages(State::unknown) == 1);
    REQUIRE(census.gaps.size() == 1);
    CHECK(census.gaps[0].remedy == "CAP_SYS_ADMIN");
}

TEST_CASE("look: a table under a part of one mapping is neither spanning nor reclaimable") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + slot / 2);
    source.text.status = status_with_tables(1);
    source.tables =
        std::vector<AddressRange>{{Address{0x40000000}, Address{0x40000000 + slot / 2}}};
    const Census census = look(source, {});
    CHECK(census.tables.located_tables == 1);
    CHECK(census.tables.spanning_tables == 0);
    CHECK(census.tables.reclaimable_bytes == 0);
}

TEST_CASE("look: a table of markers is needed and never called empty") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + slot);
    source.pages[0x40000000 + 5 * page] = {.entry = PM_SWAP | PM_GUARD_REGION | 4 << 5 | 31};
    source.text.status = status_with_tables(3);
    source.tables = std::vector<AddressRange>{};
    const Census census = look(source, {});
    CHECK(census.tables.needed_tables == 3);
    CHECK(census.tables.empty_tables == 0);
    CHECK(census.tables.marker_only_tables == 1);
    REQUIRE(census.tables.slots.size() == 1);
    CHECK(census.tables.slots[0].state == SlotState::marker_only);
    CHECK_FALSE(census.tables.slots[0].reclaimable);
}

TEST_CASE("look: huge pages smaller than a slot stand in an ordinary table, larger ones in none") {
    for (const std::uint64_t size : {std::uint64_t{64} << 10, slot}) {
        MadeUpSource source;
        source.map(0x40000000, 0x40000000 + slot, Backing::hugetlb).page_size = size;
        source.pages[0x40000000] = {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | 512,
                                    .flags = kpf(KPF_HUGE) | kpf(KPF_COMPOUND_HEAD)};
        CHECK(look(source, {}).tables.needed_tables == (size < slot ? 3 : 2));
    }
}

TEST_CASE("look: where huge entries are not shown, smaps says how many tables they spare") {
    MadeUpSource source;
    source.huge_shown = false;
    Mapping& shared = source.map(0x40000000, 0x40000000 + 2 * slot, Backing::shmem);
    const std::uint64_t large = kpf(KPF_SWAPBACKED) | kpf(KPF_THP) | kpf(KPF_COMPOUND_TAIL);
    for (std::uint64_t i = 0; i < 2 * slot / page; ++i)
        source.pages[0x40000000 + i * page] = {
            .entry = PM_PRESENT | PM_FILE | (512 + i), .flags = large, .map_count = 2, .order = 9};
    source.text.status = status_with_tables(5);

    SUBCASE("without smaps the number of empty tables is not known, and there is a reason") {
        const Census census = look(source, {});
        CHECK(census.tables.uncertain_tables == 2);
        CHECK_FALSE(census.tables.empty_tables.has_value());
        CHECK(std::any_of(census.gaps.begin(), census.gaps.end(),
                          [](const Gap& gap) { return gap.source == "page tables"; }));
    }
    SUBCASE("with smaps it is") {
        for (const std::uint64_t huge : {std::uint64_t{0}, slot, 2 * slot}) {
            SmapsFacts smaps;
            smaps.shared_huge_bytes = huge;
            shared.smaps = std::make_shared<const SmapsFacts>(smaps);
            const Census census = look(source, {});
            CHECK(census.tables.uncertain_tables == 0);
            // Five tables; two of the upper levels, and one for each slot without a huge entry.
            CHECK(census.tables.empty_tables == 5 - 2 - (2 - huge / slot));
        }
    }
}

TEST_CASE("look: what smaps says of all mappings is summed, or not known") {
    MadeUpSource source;
    for (const std::uint64_t start : {0x40000000ull, 0x50000000ull}) {
        SmapsFacts smaps;
        smaps.ksm_bytes = start == 0x40000000 ? 0 : 8192;
        smaps.swap_bytes = 4096;
        source.map(start, start + 4 * page).smaps = std::make_shared<const SmapsFacts>(smaps);
    }
    CHECK(look(source, {}).smaps.ksm_bytes == 8192u);
    CHECK(look(source, {}).smaps.swap_bytes == 8192u);
    CHECK_FALSE(look(source, {}).smaps.anon_huge_bytes.has_value());
    LookOptions part;
    part.only = {{Address{0x40000000}, Address{0x40000000 + page}}};
    CHECK_FALSE(look(source, part).smaps.ksm_bytes.has_value());
    source.map(0x60000000, 0x60000000 + page);
    CHECK_FALSE(look(source, {}).smaps.ksm_bytes.has_value());
}

TEST_CASE("look: where nothing locates tables their number is known and their place is not") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + slot);
    source.text.status = status_with_tables(5);
    const Census census = look(source, {});
    CHECK(census.tables.empty_tables == 5);
    CHECK_FALSE(census.tables.located_tables.has_value());
    CHECK_FALSE(census.tables.reclaimable_bytes.has_value());
    bool said = false;
    for (const Gap& gap : census.gaps) said = said || gap.source == "page tables";
    CHECK(said);
}

TEST_CASE("look: without VmPTE the number of empty tables is unknown") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + slot);
    CHECK_FALSE(look(source, {}).tables.empty_tables.has_value());
}

TEST_CASE("look: proportional size divides shared pages by their map count") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 4 * page, Backing::file);
    source.pages[0x40000000] = anon(1);
    source.pages[0x40000000 + page] = {
        .entry = PM_PRESENT | PM_FILE | 7, .flags = kpf(KPF_LRU), .map_count = 4};
    const Census census = look(source, {});
    CHECK(census.totals.pss_shifted == (page + page / 4) * 4096);
    CHECK(census.totals.private_pages == 1);
    // One that nobody has counted is nobody's own.
    source.pages[0x40000000 + 2 * page] = {.entry = PM_PRESENT | PM_FILE | 9,
                                           .flags = kpf(KPF_LRU)};
    const Census less = look(source, {});
    CHECK(less.totals.private_pages == 1);
    CHECK(less.totals.pss_unknown_pages == 1);
}

TEST_CASE("look: a target that goes away half-way leaves what was seen, and says so") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 3 * slot);
    for (std::uint64_t i = 0; i < 10; ++i) source.pages[0x40000000 + i * page] = anon(i + 1);
    source.before_block = [](AddressRange wanted) {
        return wanted.start.value < 0x40000000 + slot;
    };
    source.known_gaps.push_back({"pagemap", {}, "the process ended", "", true});
    source.pages[0x40000000 + slot] = anon(99);
    const Census census = look(source, {});
    CHECK(census.totals.state_pages(State::present) == 10);
    CHECK_FALSE(census.mappings.at(0).whole);
    CHECK(census.gaps.at(0).incomplete);
}

TEST_CASE("look: an error while reading comes out, from any number of threads") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 500000 * page);
    for (std::uint64_t i = 0; i < 500000; i += 1000) source.pages[0x40000000 + i * page] = anon(1);
    int left = 50;
    source.before_block = [&](AddressRange) -> bool {
        if (--left < 0) throw Error{ErrorKind::failed, "made up", 5};
        return true;
    };
    for (const unsigned jobs : {1u, 4u}) {
        left = 50;
        LookOptions options;
        options.jobs = jobs;
        CHECK_THROWS_AS(look(source, options), Error);
    }
}

TEST_CASE("look: only the given addresses are read") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 100 * page);
    source.map(0x50000000, 0x50000000 + 100 * page);
    for (std::uint64_t i = 0; i < 100; ++i) source.pages[0x40000000 + i * page] = anon(i + 1);
    LookOptions options;
    options.only = {{Address{0x40000000 + 10 * page}, Address{0x40000000 + 30 * page}}};
    source.text.status = status_with_tables(9);
    const Census census = look(source, options);
    CHECK(census.totals.pages() == 20);
    REQUIRE(census.mappings.size() == 1);
    CHECK_FALSE(census.mappings[0].whole);
    CHECK(census.tables.partial);
    CHECK_FALSE(census.tables.empty_tables.has_value());
}

TEST_CASE("look: --where counts only what matches, and says what it could not decide") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 10 * page).name = "[heap]";
    source.map(0x50000000, 0x50000000 + 10 * page, Backing::file).name = "/lib/x.so";
    source.pages[0x40000000] = anon(1);
    source.pages[0x40000000 + page] = swapped(3);
    const auto pages = [&](const char* where) {
        LookOptions options;
        options.where = Filter::parse(where);
        const Census census = look(source, options);
        return std::pair{census.totals.pages(), census.undecided_pages};
    };
    CHECK(pages("present") == std::pair<std::uint64_t, std::uint64_t>{1, 10});
    CHECK(pages("present and name = '[heap]'") == std::pair<std::uint64_t, std::uint64_t>{1, 0});
    CHECK(pages("not present and name ~ '[[]h*'") == std::pair<std::uint64_t, std::uint64_t>{9, 0});
    CHECK(pages("swapped or anon").first == 2);
    CHECK(pages("size >= 40K").first == 20);
    CHECK(pages("size > 40K").first == 0);
    CHECK(pages("backing = file and unknown").first == 10);
    CHECK(pages("young").second == 1);
}

TEST_CASE("look: --where cannot decide about a kind where the kind is unknown") {
    MadeUpSource source;
    source.map(0x40000000, 0x40000000 + 2 * page);
    source.pages[0x40000000] = anon(1);
    source.pages[0x40000000 + page] = anon(2);
    source.pages[0x40000000 + page].flags |= abi::kpf(abi::KPF_BUDDY); // freed meanwhile
    LookOptions options;
    for (const char* where : {"anon", "thp", "not ksm"}) {
        options.where = Filter::parse(where);
        CHECK(look(source, options).undecided_pages == 1);
    }
}

TEST_CASE("where: mistakes are pointed at") {
    for (const char* bad : {"", "(", "present and", "presnt", "name", "name >", "name < 3",
                            "size ~ 3", "state = anon", "kind = swapped", "present present", "not",
                            "'x'", "size > x", "\"open", "a=b", "((present)"})
        CHECK_THROWS_AS(Filter::parse(bad), Error);
    CHECK_THROWS_AS(Filter::parse(std::string(5000, '(')), Error);
    CHECK_THROWS_AS(Filter::parse(std::string(5000, '!') + "present"), Error);
}

TEST_CASE("where: asking for zero-filled pages needs contents") {
    CHECK(Filter::parse("present and (zero-filled or dirty)").needs_contents());
    CHECK_FALSE(Filter::parse("present and dirty").needs_contents());
}

TEST_CASE("sample: the interval holds the share and narrows with the sample") {
    const Interval few = wilson_interval(5, 50), many = wilson_interval(500, 5000);
    CHECK(few.low < 0.1);
    CHECK(few.high > 0.1);
    CHECK(many.high - many.low < few.high - few.low);
    CHECK(wilson_interval(0, 100).low < 1e-12);
    CHECK(wilson_interval(0, 100).high > 0.01);
    CHECK(wilson_interval(100, 100).high > 1 - 1e-12);
    CHECK(wilson_interval(0, 0).high == 1);
}
