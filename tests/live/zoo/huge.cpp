// SPDX-License-Identifier: MIT
// Large folios: transparent huge pages mapped whole and in pieces, smaller ones, those of shared
// memory and of files, the huge zero page; and hugetlb.
#include <algorithm>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

constexpr const char* thp = "/sys/kernel/mm/transparent_hugepage/";
constexpr int madv_collapse = 25; // Linux 6.1; newer than Debian 12's headers

std::size_t slot_pages() { return slot_size() / page_size(); }

/// Huge pages are to be had by madvise, at least, until the end of the block.
Setting allow_huge_pages(Machine& machine) {
    const std::string path = std::string(thp) + "enabled";
    const auto now = read_setting(path);
    return Setting(machine, path, now && *now != "never" ? *now : "madvise");
}

/// A slot that may be huge, untouched.
std::uint64_t huge_slot(Keeper& keeper) {
    const auto at = keeper.map(keeper.place(), slot_size(), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, "anonymous pages");
    advise(at, slot_pages(), MADV_HUGEPAGE, "MADV_HUGEPAGE");
    return at;
}

bool pmd_mapped(std::uint64_t at, const char* field) {
    const auto mapping = mapping_at(getpid(), at);
    const auto found = mapping->bytes.find(field);
    return found != mapping->bytes.end() && found->second == slot_size();
}

/// Where the fault found no free huge page, collapsing may.
void insist_on_huge(std::uint64_t at, const char* field) {
    for (int tries = 0; tries < 10 && !pmd_mapped(at, field); ++tries, usleep(20'000))
        madvise(pointer(at), slot_size(), madv_collapse);
    if (!pmd_mapped(at, field)) throw Unavailable("the kernel has no huge page to give");
}

std::vector<Exhibit> pmd_mapped_thp(Keeper& keeper) {
    const auto allowed = allow_huge_pages(keeper.machine());
    const auto at = huge_slot(keeper);
    fill(at, slot_pages());
    insist_on_huge(at, "AnonHugePages");
    Exhibit e{.name = "thp-pmd", .start = at, .runs = {present(slot_pages(), "thp")}};
    e.table = Table::huge;
    e.attributes = {{"pmd_mapped", true}};
    e.folio_pages = slot_pages();
    e.prove = [=] {
        expect_flags({at, slot_pages()}, {kpf_thp, kpf_anon}, {kpf_zero_page, kpf_huge});
        expect_smaps(at, "AnonHugePages", slot_pages());
    };
    e.proof = "one huge page; KPF_THP throughout, smaps AnonHugePages all of it";
    return {e};
}

std::vector<Exhibit> pte_mapped_thp(Keeper& keeper) {
    const auto allowed = allow_huge_pages(keeper.machine());
    const auto at = huge_slot(keeper);
    fill(at, slot_pages());
    insist_on_huge(at, "AnonHugePages");
    // Otherwise khugepaged may mend what the next two calls break.
    advise(at, slot_pages(), MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
    // Another protection for one page splits the entry, not the folio; then the mappings merge.
    mprotect(pointer(at), page_size(), PROT_READ);
    mprotect(pointer(at), page_size(), PROT_READ | PROT_WRITE);
    Exhibit e{.name = "thp-pte", .start = at, .runs = {present(slot_pages(), "thp")}};
    e.attributes = {{"pmd_mapped", false}};
    e.folio_pages = slot_pages();
    e.prove = [=] {
        expect_flags({at, slot_pages()}, {kpf_thp, kpf_anon}, {kpf_zero_page, kpf_huge});
        expect_smaps(at, "AnonHugePages", 0);
        expect_smaps(at, "Rss", slot_pages());
    };
    e.proof = "a huge page whose entry mprotect split; KPF_THP, smaps AnonHugePages 0";
    return {e};
}

std::vector<Exhibit> zero_filled_thp(Keeper& keeper) {
    const auto allowed = allow_huge_pages(keeper.machine());
    const auto at = huge_slot(keeper);
    fill_with_zeroes(at, slot_pages());
    insist_on_huge(at, "AnonHugePages");
    Exhibit e{
        .name = "thp-zero-filled", .start = at, .runs = {present(slot_pages(), "zero-filled")}};
    e.table = Table::huge;
    e.attributes = {{"pmd_mapped", true}};
    e.folio_pages = slot_pages();
    e.prove = [=] {
        expect_flags({at, slot_pages()}, {kpf_thp, kpf_anon}, {kpf_zero_page, kpf_huge});
        expect_zeroes({at, slot_pages()});
        expect_smaps(at, "AnonHugePages", slot_pages());
    };
    e.proof = "one huge page of zeroes; KPF_THP without KPF_ZERO_PAGE, the bytes are 0";
    return {e};
}

std::vector<Exhibit> huge_zero_page(Keeper& keeper) {
    const auto allowed = allow_huge_pages(keeper.machine());
    const Setting zero(keeper.machine(), std::string(thp) + "use_zero_page", "1");
    const auto at = huge_slot(keeper);
    touch(at, 1);
    Exhibit e{.name = "huge-zero-page", .start = at, .runs = {present(slot_pages(), "zero-page")}};
    e.table = Table::huge;
    e.attributes = {{"pmd_mapped", true}};
    e.prove = [=] {
        expect_flags({at, slot_pages()}, {kpf_zero_page}, {kpf_anon});
        expect_smaps(at, "Rss", 0);
    };
    e.proof = "one page read; all pages present and KPF_ZERO_PAGE, smaps Rss 0";
    return {e};
}

std::vector<Exhibit> swapped_thp(Keeper& keeper) {
    keeper.use_swap(Need::swap_file);
    const auto type = keeper.swap_type(Need::swap_file);
    const auto allowed = allow_huge_pages(keeper.machine());
    const auto at = huge_slot(keeper);
    fill(at, slot_pages());
    insist_on_huge(at, "AnonHugePages");
    page_out(at, slot_pages());
    Exhibit e{.name = "thp-swapped", .start = at, .runs = {in_state(slot_pages(), "swapped")}};
    e.prove = [=] {
        expect_swapped({at, slot_pages()}, type);
        expect_smaps(at, "Swap", slot_pages());
    };
    e.proof = "a huge page paged out; entries of the swap file's type, smaps Swap all of it";
    return {e};
}

/// A folio between one page and a huge page.
std::vector<Exhibit> middle_sized(Keeper& keeper) {
    constexpr std::size_t count = 16;
    const Setting allowed(keeper.machine(),
                          std::string(thp) + "hugepages-" + std::to_string(bytes_of(count) / 1024) +
                              "kB/enabled",
                          "madvise");
    const auto at = keeper.map(keeper.place(), bytes_of(count), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, "anonymous pages");
    advise(at, count, MADV_HUGEPAGE, "MADV_HUGEPAGE");
    fill(at, count);
    Exhibit e{.name = "thp-middle", .start = at, .runs = {present(count, "thp")}};
    e.attributes = {{"pmd_mapped", false}};
    e.folio_pages = count;
    e.prove = [=] {
        expect_flags({at, 1}, {kpf_thp, kpf_anon, kpf_compound_head}, {kpf_zero_page});
        expect_flags({at + bytes_of(1), count - 1}, {kpf_thp, kpf_anon, kpf_compound_tail},
                     {kpf_zero_page});
    };
    e.proof = "a folio of 16 pages; KPF_THP, one head and 15 tails";
    return {e};
}

std::vector<Exhibit> shmem_thp(Keeper& keeper) {
    const auto at = keeper.map(keeper.place(), slot_size(), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, "shared anonymous memory");
    fill(at, slot_pages());
    drain_batches();
    insist_on_huge(at, "ShmemPmdMapped");
    Exhibit e{.name = "thp-shmem", .start = at, .runs = {present(slot_pages(), "thp")}};
    e.table = Table::huge;
    e.attributes = {{"pmd_mapped", true}};
    e.folio_pages = slot_pages();
    e.prove = [=] {
        expect_flags({at, slot_pages()}, {kpf_thp, kpf_swapbacked}, {kpf_anon, kpf_zero_page});
        expect_smaps(at, "ShmemPmdMapped", slot_pages());
    };
    e.proof = "shared memory collapsed; KPF_THP, smaps ShmemPmdMapped all of it";
    return {e};
}

/// Which pages lie in large folios is up to the file system, so the runs follow KPF_THP.
std::vector<Exhibit> large_file_folio(Keeper& keeper) {
    constexpr std::size_t count = 64;
    const int fd = keeper.file(0);
    std::vector<char> bytes;
    for (std::size_t i = 0; i < count; ++i) {
        const auto page = random_page();
        bytes.insert(bytes.end(), page.begin(), page.end());
    }
    if (write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
        throw Unavailable("writing a file below /var/tmp");
    fsync(fd);
    const auto at =
        keeper.map(keeper.place(), bytes_of(count), PROT_READ, MAP_SHARED, "mapping a file", fd);
    touch(at, count);
    const auto is_large = [](std::uint64_t e) { return has(kpageflags(frame(e)), kpf_thp); };
    const auto all = entries({at, count});
    if (std::none_of(all.begin(), all.end(), is_large))
        throw Unavailable("the file system below /var/tmp uses no large folios");
    std::vector<Run> runs;
    for (const auto entry : all) {
        const char* kind = is_large(entry) ? "thp" : "file";
        if (runs.empty() || runs.back().kind != kind) runs.push_back(present(0, kind));
        ++runs.back().pages;
    }
    Exhibit e{.name = "file-large-folio", .start = at, .runs = runs};
    e.prove = [=] {
        expect_flags({at, count}, {}, {kpf_anon, kpf_swapbacked});
        const auto now = entries({at, count});
        for (std::size_t i = 0; i < count; ++i)
            expect(is_large(now[i]) == is_large(all[i]), "the folios are those seen before");
        expect_smaps(at, "Rss", count);
    };
    e.proof = "a file written in one call; KPF_THP on the pages of its large folios";
    return {e};
}

std::uint64_t map_hugetlb(Keeper& keeper, std::size_t count, int sharing) {
    return keeper.map(keeper.place(count), count * slot_size(), PROT_READ | PROT_WRITE,
                      sharing | MAP_ANONYMOUS | MAP_HUGETLB, "hugetlb pages");
}

std::vector<Exhibit> hugetlb(Keeper& keeper) {
    if (meminfo("Hugepagesize") != slot_size())
        throw Unavailable("hugetlb's default page size is not that of a slot");
    // Four pages more than there are: three in use and one reserved. They outlive the setting as
    // surplus pages.
    const Setting pool(keeper.machine(), "/proc/sys/vm/nr_hugepages",
                       std::to_string(meminfo("HugePages_Total") + 4));
    const auto owned = map_hugetlb(keeper, 1, MAP_PRIVATE);
    const auto zeroed = map_hugetlb(keeper, 1, MAP_PRIVATE);
    const auto shared = map_hugetlb(keeper, 2, MAP_SHARED);
    fill(owned, slot_pages());
    fill_with_zeroes(zeroed, slot_pages());
    fill(shared, slot_pages());

    const auto make = [](const char* name, std::uint64_t at, std::vector<Run> runs,
                         const char* field, const char* proof) {
        Exhibit e{.name = name, .start = at, .runs = std::move(runs)};
        e.table = Table::huge;
        e.folio_pages = slot_pages();
        e.prove = [=] {
            expect_flags({at, slot_pages()}, {kpf_huge}, {kpf_zero_page});
            expect_smaps(at, field, slot_pages());
            expect_smaps(at, "Rss", 0);
        };
        e.proof = proof;
        return e;
    };
    auto zero = make("hugetlb-zero-filled", zeroed, {present(slot_pages(), "zero-filled")},
                     "Private_Hugetlb", "zeroes written; KPF_HUGE, the bytes are 0");
    zero.prove = [zeroed, look = zero.prove] {
        look();
        expect_zeroes({zeroed, slot_pages()});
    };
    Exhibit untouched{.name = "hugetlb-untouched",
                      .start = shared + slot_size(),
                      .runs = {in_state(slot_pages(), "none")}};
    untouched.table = Table::none;
    untouched.prove = [=] { expect_none({shared + slot_size(), slot_pages()}); };
    untouched.proof = "reserved and never touched; pagemap none";
    return {make("hugetlb-private", owned, {present(slot_pages(), "hugetlb")}, "Private_Hugetlb",
                 "written; KPF_HUGE, smaps Private_Hugetlb and Rss 0"),
            zero,
            make("hugetlb-shared", shared, {present(slot_pages(), "hugetlb")}, "Private_Hugetlb",
                 "written, mapped shared by one process; KPF_HUGE, smaps Private_Hugetlb"),
            untouched};
}

} // namespace

std::vector<Step> huge_steps() {
    return {
        {{{"thp-pmd", "present/thp"}}, Need::thp, pmd_mapped_thp},
        {{{"thp-pte", "present/thp"}}, Need::thp, pte_mapped_thp},
        {{{"thp-zero-filled", "present/zero-filled"}}, Need::thp, zero_filled_thp},
        {{{"huge-zero-page", "present/zero-page"}}, Need::thp, huge_zero_page},
        {{{"thp-swapped", "swapped"}}, Need::swap_file, swapped_thp},
        {{{"thp-middle", "present/thp"}}, Need::thp, middle_sized},
        {{{"thp-shmem", "present/thp"}}, Need::thp, shmem_thp},
        {{{"file-large-folio", "present/thp"}}, Need::nothing, large_file_folio},
        {{{"hugetlb-private", "present/hugetlb"},
          {"hugetlb-zero-filled", "present/zero-filled"},
          {"hugetlb-shared", "present/hugetlb"},
          {"hugetlb-untouched", "none"}},
         Need::hugetlb,
         hugetlb},
    };
}

} // namespace pagesift::zoo
