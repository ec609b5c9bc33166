// SPDX-License-Identifier: MIT
// Page tables and page-cache trees of live processes, walked in the kernel's own memory and
// compared with what the kernel says of them.
#include "exact/exact.hpp"

#include <fcntl.h>
#include <sstream>
#include <sys/mman.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

using os::KernelView;
using os::open_kernel_view;

TEST_CASE("exact reader: what an open file has in memory is found by its descriptor") {
    const auto view = open_view();
    if (!view) return;
    const int fd = ::memfd_create("pagesift", MFD_CLOEXEC);
    REQUIRE(::ftruncate(fd, 64 * page) == 0);
    auto* const memory =
        static_cast<char*>(::mmap(nullptr, 64 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    for (std::size_t i = 0; i < 64; i += 3) memory[i * page] = 1;
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const int other = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    const auto mapping = view->find_mapping(other);
    REQUIRE(mapping);
    CHECK(view->find_mapping(fd) == mapping);
    std::vector<walk::CachedPage> pages(64);
    walk::walk_page_cache(view->memory(), view->kernel(), *mapping, 0, pages);
    const auto entries = own_pagemap(memory, 64);
    for (std::size_t i = 0; i < 64; ++i) {
        CAPTURE(i);
        const bool present = (entries[i] >> 63) != 0;
        if (present)
            CHECK(pages[i] == walk::CachedPage{walk::CachedPage::State::folio, 0,
                                               entries[i] & ((std::uint64_t{1} << 55) - 1)});
        else
            CHECK(pages[i].state != walk::CachedPage::State::unknown);
    }
    ::close(other);
    ::close(fd);
    CHECK_FALSE(view->find_mapping(fd));
    CHECK_FALSE(view->find_mapping(-1));
    ::munmap(memory, 64 * page);
}

namespace {

/// Whether both are the same but for what no entry holds: whose page it is, whether it is shared,
/// and soft-dirty of a whole mapping, which the page map adds to the entries' own.
bool same_page(std::uint64_t walked, std::uint64_t known) {
    constexpr std::uint64_t soft_dirty = std::uint64_t{1} << 55;
    constexpr std::uint64_t of_page_map = std::uint64_t{1} << 61 | std::uint64_t{1} << 56;
    return ((walked ^ known) & ~(of_page_map | soft_dirty | walk::special_entry)) == 0 &&
           (walked & ~known & soft_dirty) == 0;
}

struct Compared {
    std::uint64_t pages = 0, present = 0, differing = 0;
    std::string example;
};

/// Walks [start, end) and compares every page with the page map.
Compared compare(const KernelView& view, std::uint64_t top, int pagemap, std::uint64_t start,
                 std::uint64_t end) {
    std::vector<std::uint64_t> words((end - start) / page);
    walk::walk_tables(view.memory(), view.kernel(), top, {Address{start}, Address{end}},
                      [&](const walk::SlotRun& run) {
                          const auto first = (run.range.start.value - start) / page;
                          const auto count = run.range.size().value / page;
                          walk::write_pagemap(view.kernel().entries, run,
                                              std::span{words}.subspan(first, count));
                      });
    const auto known = read_pagemap(pagemap, start, words.size());
    Compared result{words.size()};
    for (std::size_t i = 0; i < words.size(); ++i) {
        result.present += words[i] >> 63;
        const bool same = i < known.size() && same_page(words[i], known[i]);
        if (!same) {
            std::ostringstream text;
            text << std::hex << start + i * page << ": walked " << words[i] << ", page map "
                 << (i < known.size() ? known[i] : 0);
            result.example = text.str();
        }
        result.differing += !same;
    }
    return result;
}

/// Compares all of a child that stands still: a copy of this process.
void compare_child(const KernelView& view) {
    const Child child{[](const auto& ready) { ready(); }};
    child.stop();
    const auto process = std::to_string(child.pid());
    const int fd = open_pagemap(process);
    const auto top = view.find_top_table(fd);
    REQUIRE(top);
    Compared all;
    std::istringstream maps{slurp("/proc/" + process + "/maps")};
    for (std::string line; std::getline(maps, line);) {
        // The page map hides frames that have no struct page: [vvar], [vdso] and their like.
        if (line.find("[v") != std::string::npos) continue;
        std::uint64_t start = 0, end = 0;
        char dash = 0;
        std::istringstream{line} >> std::hex >> start >> dash >> end;
        // A sanitizer's shadow of all memory has more words than there is memory for.
        if (end - start > std::uint64_t{1} << 34) continue;
        // The machine may page something out between one look and the other.
        auto found = compare(view, *top, fd, start, end);
        for (int i = 0; i < 3 && found.differing != 0; ++i)
            found = compare(view, *top, fd, start, end);
        CHECK_MESSAGE(found.differing == 0, line, " ", found.example);
        all.pages += found.pages;
        all.present += found.present;
        all.differing += found.differing;
    }
    MESSAGE(all.pages, " pages compared, ", all.present, " of them present, ", all.differing,
            " differ");
    CHECK(all.present > 100);
    ::close(fd);
}

} // namespace

TEST_CASE("exact reader: page tables say what the page map says") {
    const auto view = open_view();
    if (view) compare_child(*view);
}

TEST_CASE("exact reader: the tables of a walk are those that VmPTE counts") {
    const auto view = open_view();
    if (!view) return;
    constexpr std::size_t huge = std::size_t{2} << 20;
    const Child child{[](const auto& ready) {
        // Huge pages keep a table in reserve; a page that was dropped leaves an empty one.
        auto* const memory = static_cast<char*>(
            ::mmap(nullptr, 8 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ::madvise(memory, 4 * huge, MADV_HUGEPAGE);
        ::madvise(memory + 4 * huge, 4 * huge, MADV_NOHUGEPAGE);
        for (std::size_t i = 0; i < 8; ++i) memory[i * huge] = 1;
        ::madvise(memory + 6 * huge, page, MADV_DONTNEED);
        ready();
    }};
    child.stop();
    const int fd = open_pagemap(std::to_string(child.pid()));
    const auto top = view->find_top_table(fd);
    REQUIRE(top);
    std::uint64_t in_reserve = 0, empty = 0;
    const auto counts = walk::walk_tables(view->memory(), view->kernel(), *top,
                                          {Address{0}, Address{std::uint64_t{1} << 47}},
                                          [&](const walk::SlotRun& run) {
                                              in_reserve += run.state == walk::TableState::huge;
                                              empty += run.state == walk::TableState::empty;
                                          });
    ::close(fd);
    const auto status = slurp("/proc/" + std::to_string(child.pid()) + "/status");
    const auto at = status.find("VmPTE:");
    REQUIRE(at != status.npos);
    const auto kib = std::stoull(status.substr(at + 6));
    const auto& tables = counts.tables;
    MESSAGE(tables[0], " PTE tables, ", in_reserve, " more in reserve, ", empty, " empty; VmPTE ",
            kib, " KiB");
    CHECK(empty >= 1);
    CHECK((tables[0] + tables[1] + tables[2] + in_reserve) * page == kib * 1024);
}

TEST_CASE("exact reader: /proc/kcore shows what BPF shows") {
    const auto view = open_view({"bpf"});
    if (!view) return;
    CHECK(view->way() == KernelView::Way::kcore);
    const RandomPage own{*view};
    // Others than the user's own would be zeros in a segment: kcore cannot tell them.
    std::vector<std::uint64_t> bad = bad_addresses(*view, own.bytes());
    bad.resize(4);
    std::mt19937 random{2};
    for (int i = 0; i < 500; ++i) try_pieces(view->memory(), own, bad, random);
    compare_child(*view);
    compare_child(*view->clone());
    if (const auto other = open_view({"kcore"})) {
        CHECK(other->kernel().bases == view->kernel().bases);
        const int fd = open_pagemap("self");
        CHECK(other->find_top_table(fd) == view->find_top_table(fd));
        ::close(fd);
    }
    const double taken = milliseconds([] { open_kernel_view({"bpf"}); });
    MESSAGE("view through kcore: ", taken, " ms");
}

TEST_CASE("exact reader: a process that has ended has no tables, and its mm is not another's") {
    const auto view = open_view();
    if (!view) return;
    int fd = -1;
    std::optional<std::uint64_t> top;
    const auto tables = [&] {
        std::uint64_t found = 0;
        walk::walk_tables(view->memory(), view->kernel(), *top,
                          {Address{0}, Address{std::uint64_t{1} << 47}},
                          [&](const walk::SlotRun& run) { found += !run.entries.empty(); });
        return found;
    };
    {
        const Child child{[](const auto& ready) { ready(); }};
        fd = open_pagemap(std::to_string(child.pid()));
        top = view->find_top_table(fd);
        REQUIRE(top);
        CHECK(tables() > 2);
    }
    CHECK(tables() == 0);
    CHECK(view->find_top_table(fd) == top);
    ::close(fd);
}

} // namespace pagesift::live
