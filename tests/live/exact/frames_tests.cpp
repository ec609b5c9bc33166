// SPDX-License-Identifier: MIT
// Struct pages of the live kernel, compared with /proc/kpageflags.
#include "exact/exact.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <fcntl.h>
#include <optional>
#include <sys/mman.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

constexpr auto head_bit = abi::kpf(abi::KPF_COMPOUND_HEAD);
constexpr auto tail_bit = abi::kpf(abi::KPF_COMPOUND_TAIL);
constexpr std::uint64_t frame_mask = (std::uint64_t{1} << 55) - 1;

std::vector<std::uint64_t> read_kpageflags(std::uint64_t first, std::size_t count) {
    std::vector<std::uint64_t> words(count);
    const int fd = ::open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    const auto n = ::pread(fd, words.data(), count * 8, static_cast<off_t>(first * 8));
    ::close(fd);
    words.resize(n > 0 ? static_cast<std::size_t>(n) / 8 : 0);
    return words;
}

struct Compared {
    std::uint64_t tails = 0, others = 0, unknown = 0, differing = 0;
};

/// The heads of all pages of @p count frames, by their struct pages and by kpageflags, where the
/// latter is the same before and after.
Compared compare_heads(const os::KernelView& view, std::uint64_t first, std::size_t count) {
    const auto before = read_kpageflags(first, count);
    std::vector<std::uint64_t> frames(before.size());
    for (std::size_t i = 0; i < frames.size(); ++i) frames[i] = first + i;
    std::vector<walk::Frame> found(frames.size());
    walk::read_frames(view.memory(), view.kernel(), frames, found);
    auto after = read_kpageflags(first, count);
    after.resize(before.size());
    Compared result;
    std::optional<std::uint64_t> head;
    for (std::size_t i = 0; i < frames.size(); ++i) {
        const bool is_tail = (before[i] & tail_bit) != 0;
        if (before[i] != after[i] || (before[i] & abi::kpf(abi::KPF_NOPAGE))) {
            head.reset();
            continue;
        }
        if (!is_tail) head = frames[i];
        if (!head) continue; // of a folio that began before, or that changed
        ++(is_tail ? result.tails : result.others);
        if (!found[i].known) // where there is no memory, kpageflags shows 0
            result.unknown += before[i] != 0;
        else
            result.differing += found[i].head != *head;
    }
    return result;
}

} // namespace

TEST_CASE("exact reader: every page has the head that kpageflags shows, tails too") {
    const auto view = open_view();
    if (!view) return;
    constexpr std::uint64_t at_a_time = 4096;
    const auto& bases = view->kernel().bases;
    // What the kernel keeps of an open file lies in a slab, which has several pages.
    const int fd = ::memfd_create("pagesift", MFD_CLOEXEC);
    const auto mapping = view->find_mapping(fd);
    ::close(fd);
    REQUIRE(mapping);
    std::vector<std::uint64_t> places{(*mapping - bases.direct_map) / page / at_a_time * at_a_time};
    const std::uint64_t step = std::max(bases.frame_end / 32, at_a_time);
    for (std::uint64_t first = 0; first < bases.frame_end; first += step) places.push_back(first);
    Compared all;
    for (const auto first : places) {
        const auto count = std::min(at_a_time, bases.frame_end - first);
        // Folios come and go between one look and the other.
        auto found = compare_heads(*view, first, count);
        for (int i = 0; i < 3 && found.differing + found.unknown != 0; ++i)
            found = compare_heads(*view, first, count);
        CAPTURE(first);
        CHECK(found.differing == 0);
        CHECK(found.unknown == 0);
        all.tails += found.tails;
        all.others += found.others;
    }
    MESSAGE(all.tails, " tails and ", all.others, " other pages compared");
    CHECK(all.tails > 0);
    CHECK(all.others > 1000);
}

TEST_CASE("exact reader: the pages of a huge page have its flags, as kpageflags shows them") {
    const auto view = open_view();
    if (!view) return;
    constexpr std::size_t huge = std::size_t{2} << 20;
    auto* const memory = static_cast<char*>(
        ::mmap(nullptr, 2 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(memory != MAP_FAILED);
    auto* const start = reinterpret_cast<char*>(
        (reinterpret_cast<std::uintptr_t>(memory) + huge - 1) & ~(std::uintptr_t{huge} - 1));
    ::madvise(start, huge, MADV_HUGEPAGE);
    start[0] = 1;
    ::mlock(start, huge);
    const auto entries = own_pagemap(start, huge / page);
    const std::uint64_t first = entries.at(0) & frame_mask;
    auto words = read_kpageflags(first, huge / page);
    words.resize(huge / page);
    if (!(words[0] & abi::kpf(abi::KPF_THP))) {
        ::munmap(memory, 2 * huge);
        return skip("no huge page was given");
    }
    std::vector<std::uint64_t> frames(entries);
    for (auto& frame : frames) frame &= frame_mask;
    std::vector<walk::Frame> found(frames.size());
    walk::read_frames(view->memory(), view->kernel(), frames, found);
    const auto& layout = view->kernel().layout;
    for (std::size_t i = 0; i < found.size(); ++i) {
        CAPTURE(i);
        REQUIRE(found[i].known);
        REQUIRE(found[i].head == first);
        REQUIRE(found[i].flags == found[0].flags);
        REQUIRE(found[i].anon == true);
    }
    for (const auto& shown :
         {std::pair{layout.PG_uptodate, abi::KPF_UPTODATE},
          std::pair{layout.PG_active, abi::KPF_ACTIVE}, std::pair{layout.PG_lru, abi::KPF_LRU}}) {
        CAPTURE(shown.first);
        CHECK((found[0].flags >> shown.first & 1) == (words[0] >> shown.second & 1));
    }
    ::munmap(memory, 2 * huge);
}

} // namespace pagesift::live
