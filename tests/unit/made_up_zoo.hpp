// SPDX-License-Identifier: MIT
// A made-up process with pages of nearly every sort, in many short blocks.
#pragma once

#include "made_up_actuator.hpp"

namespace pagesift::test {

inline constexpr std::uint64_t zoo_base = 0x10000000;

inline MadeUpPage with_flags(MadeUpPage one, std::uint64_t more) {
    one.flags |= more;
    return one;
}

/// Eight pages of a mapping from @p at on, of different sorts, then a hole.
inline void add_pages(MadeUpSource& source, std::uint64_t at, std::uint64_t frame) {
    using namespace abi;
    auto shared = anon_page(frame + 1);
    shared.entry &= ~PM_MMAP_EXCLUSIVE;
    shared.map_count = 3;
    auto zero = anon_page(frame + 3);
    zero.content = Content::zero;
    auto merged = with_flags(shared, kpf(KPF_KSM));
    merged.entry += 1;
    const MadeUpPage pages[] = {
        anon_page(frame),
        shared,
        merged,
        zero,
        swapped_page(frame),
        {.entry = PM_SWAP | PM_GUARD_REGION | pagemap_swap(31, 4)},
        {.entry = PM_PRESENT | (frame + 6), .flags = kpf(KPF_ZERO_PAGE)},
        with_flags(anon_page(frame + 7), kpf(KPF_ACTIVE)),
    };
    for (const MadeUpPage& one : pages) {
        source.pages[at] = one;
        if ((one.entry & PM_PRESENT) && one.content == Content::not_read)
            source.pages[at].content = Content::other;
        at += page;
    }
}

/// The same of a file: in memory, cached, not cached, and holes.
inline void add_file_pages(MadeUpSource& source, std::uint64_t at, std::uint64_t frame) {
    source.pages[at] = file_page(frame);
    source.pages[at].content = Content::other;
    source.pages[at + page] = {.cache = Cache::cached};
    source.pages[at + 2 * page] = {.cache = Cache::absent};
    source.pages[at + 3 * page] = {.cache = Cache::hole};
}

inline void make_zoo(MadeUpSource& source) {
    constexpr std::uint64_t gap = 1 << 20;
    const auto fill = [&](std::uint64_t start, std::uint64_t frame) {
        for (std::uint64_t i = 0; i < 6; ++i)
            add_pages(source, start + i * 16 * page, frame + i * 16);
    };
    source.text.status = "VmRSS:\t 4096 kB\nVmPTE:\t 80 kB\n";
    source.text.stat = "42 (made up) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 1 1 1";
    source.tables =
        std::vector<AddressRange>{{Address{zoo_base + 2 * slot}, Address{zoo_base + 3 * slot}}};

    source.map(zoo_base, zoo_base + 4 * slot);
    fill(zoo_base, 0x1000);
    // A large folio, mapped by a huge entry.
    for (std::uint64_t i = 0; i < slot / page; ++i) {
        auto one = huge_page(0x200000, i, 9, true);
        one.content = Content::other;
        source.pages[zoo_base + slot + i * page] = one;
    }
    const std::uint64_t second = zoo_base + 4 * slot + gap;
    source.map(second, second + 128 * page);
    fill(second, 0x2000);

    const std::uint64_t file = second + gap;
    source.map(file, file + 64 * page, Backing::file).name = "/made/up";
    for (std::uint64_t i = 0; i < 6; ++i) add_file_pages(source, file + i * 8 * page, 0x3000 + i);

    const std::uint64_t shmem = file + gap;
    auto& mapping = source.map(shmem, shmem + 64 * page, Backing::shmem);
    mapping.name = "/memfd:made up";
    mapping.shared = true;
    for (std::uint64_t i = 0; i < 6; ++i) {
        add_file_pages(source, shmem + i * 8 * page, 0x4000 + i);
        source.pages[shmem + i * 8 * page + 2 * page].swap_entry = abi::pagemap_swap(0, 77 + i);
    }
}

} // namespace pagesift::test
