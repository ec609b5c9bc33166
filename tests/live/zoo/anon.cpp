// SPDX-License-Identifier: MIT
// Private anonymous memory, and what a fork makes of it.
#include <csignal>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

constexpr std::size_t some_pages = 8;

/// A child that holds a copy of this address space and does nothing, until this process ends.
pid_t fork_sleeper() {
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child < 0) throw Unavailable("fork failed");
    if (child > 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "zoo-fork");
    // Holds neither the zoo's output nor the pipe by which the guardian sees the zoo end.
    constexpr long syscall_close_range = 436;
    if (syscall(syscall_close_range, 0u, ~0u, 0u) != 0)
        for (int fd = 0; fd < 1024; ++fd) close(fd);
    while (getppid() == parent) pause();
    _exit(0);
}

std::vector<Exhibit> forked(Keeper& keeper) {
    const auto shared = keeper.anonymous(some_pages);
    const auto broken = keeper.anonymous(some_pages);
    fill(shared, some_pages);
    fill(broken, some_pages);
    keeper.keep_child(fork_sleeper());
    fill(broken, some_pages);

    Exhibit a{.name = "fork-shared", .start = shared, .runs = {present(some_pages, "anon")}};
    a.attributes = {{"exclusive", false}};
    a.sharers = 2;
    a.prove = [=] {
        expect_flags({shared, some_pages}, {kpf_anon}, {kpf_ksm, kpf_thp, kpf_zero_page});
        expect_count({shared, some_pages}, 2);
        expect_smaps(shared, "Rss", some_pages);
    };
    a.proof = "written before a fork whose child lives; kpagecount is 2";

    Exhibit b{.name = "fork-cow-broken", .start = broken, .runs = {present(some_pages, "anon")}};
    b.attributes = {{"exclusive", true}};
    b.sharers = 1;
    b.prove = [=] {
        expect_flags({broken, some_pages}, {kpf_anon}, {kpf_ksm, kpf_thp, kpf_zero_page});
        expect_count({broken, some_pages}, 1);
    };
    b.proof = "written before and after a fork whose child lives; kpagecount is 1";
    return {a, b};
}

std::vector<Exhibit> untouched(Keeper& keeper) {
    const auto before = status(getpid(), "VmPTE");
    const auto at = keeper.anonymous(some_pages);
    const auto after = status(getpid(), "VmPTE");
    Exhibit e{.name = "untouched", .start = at, .runs = {in_state(some_pages, "none")}};
    e.table = Table::none;
    e.prove = [=] {
        expect(before == after, "mapping pages makes no page table");
        expect_none({at, some_pages});
        expect_smaps(at, "Rss", 0);
        expect_smaps(at, "Swap", 0);
    };
    e.proof = "mapped and never touched; pagemap none, smaps Rss and Swap 0, VmPTE unchanged";
    return {e};
}

std::vector<Exhibit> zero_page(Keeper& keeper) {
    const auto at = keeper.anonymous(some_pages);
    touch(at, some_pages);
    Exhibit e{.name = "zero-page", .start = at, .runs = {present(some_pages, "zero-page")}};
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_zero_page}, {kpf_anon, kpf_thp});
        expect_smaps(at, "Rss", 0);
    };
    e.proof = "read and never written; KPF_ZERO_PAGE, smaps Rss 0";
    return {e};
}

std::vector<Exhibit> zero_filled(Keeper& keeper) {
    const auto at = keeper.anonymous(some_pages);
    fill_with_zeroes(at, some_pages);
    Exhibit e{.name = "zero-filled", .start = at, .runs = {present(some_pages, "zero-filled")}};
    e.sharers = 1;
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_anon}, {kpf_zero_page, kpf_ksm, kpf_thp});
        expect_zeroes({at, some_pages});
        expect_smaps(at, "Rss", some_pages);
    };
    e.proof = "zeroes written; KPF_ANON without KPF_ZERO_PAGE, and the bytes read back as 0";
    return {e};
}

std::vector<Exhibit> anon_dirty(Keeper& keeper) {
    const auto at = keeper.anonymous(some_pages);
    fill(at, some_pages);
    Exhibit e{.name = "anon-dirty", .start = at, .runs = {present(some_pages, "anon")}};
    e.attributes = {{"dirty", true},       {"exclusive", true}, {"uffd_wp", false},
                    {"pmd_mapped", false}, {"mlocked", false},  {"lazyfree", false}};
    e.sharers = 1;
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_anon, kpf_swapbacked},
                     {kpf_ksm, kpf_thp, kpf_zero_page, kpf_mlocked, kpf_swapcache});
        expect_count({at, some_pages}, 1);
        expect_smaps(at, "Private_Dirty", some_pages);
    };
    e.proof = "random bytes written; KPF_ANON, kpagecount 1, smaps Private_Dirty all of it";
    return {e};
}

std::vector<Exhibit> anon_clean(Keeper& keeper) {
    keeper.use_swap(Need::swap_file);
    const auto at = keeper.anonymous(some_pages);
    const auto swap_in = [=] {
        fill(at, some_pages);
        page_out(at, some_pages);
        touch(at, some_pages);
    };
    swap_in();
    Exhibit e{.name = "anon-clean-swapped-in", .start = at, .runs = {present(some_pages, "anon")}};
    e.attributes = {{"dirty", false}, {"swap_cache", true}, {"exclusive", true}};
    e.sharers = 1;
    e.settle = [=] {
        // Only if it must be: by now another area may be preferred, one that leaves no copy.
        const auto all = entries({at, some_pages});
        if (!std::all_of(all.begin(), all.end(), [](std::uint64_t entry) {
                return present(entry) && has(kpageflags(frame(entry)), kpf_swapcache);
            }))
            swap_in();
    };
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_anon, kpf_swapcache}, {kpf_zero_page, kpf_ksm});
        expect_smaps(at, "Private_Clean", some_pages);
        expect_smaps(at, "Swap", 0);
    };
    e.proof = "paged out to the swap file and read back; KPF_SWAPCACHE, smaps Private_Clean";
    return {e};
}

std::vector<Exhibit> anon_swapped(Keeper& keeper, Need area, const char* name) {
    keeper.use_swap(area);
    const auto type = keeper.swap_type(area);
    const auto at = keeper.anonymous(2 * some_pages);
    // Every other page stays untouched, so that a run of swapped pages has an end on both sides.
    std::vector<Run> runs;
    for (std::size_t i = 0; i < 2 * some_pages; i += 4) {
        fill(at + bytes_of(i), 3);
        runs.push_back(in_state(3, "swapped"));
        runs.push_back(in_state(1, "none"));
    }
    const auto settle = [=] { page_out(at, 2 * some_pages); };
    settle();
    Exhibit e{.name = name, .start = at, .runs = runs};
    e.settle = settle;
    e.prove = [=] {
        for (std::size_t i = 0; i < 2 * some_pages; i += 4) {
            expect_swapped({at + bytes_of(i), 3}, type);
            expect_none({at + bytes_of(i + 3), 1});
        }
        expect_smaps(at, "Swap", 2 * some_pages * 3 / 4);
        expect_smaps(at, "Rss", 0);
    };
    e.proof = "written and paged out; the entries carry this area's swap type, smaps Swap agrees";
    return {e};
}

std::vector<Exhibit> anon_swapped_file(Keeper& keeper) {
    return anon_swapped(keeper, Need::swap_file, "anon-swapped-file");
}

std::vector<Exhibit> anon_swapped_zram(Keeper& keeper) {
    return anon_swapped(keeper, Need::zram, "anon-swapped-zram");
}

std::vector<Exhibit> zero_filled_swapped(Keeper& keeper) {
    keeper.use_swap(Need::swap_file);
    const auto type = keeper.swap_type(Need::swap_file);
    const auto at = keeper.anonymous(some_pages);
    fill_with_zeroes(at, some_pages);
    page_out(at, some_pages);
    Exhibit e{
        .name = "zero-filled-swapped", .start = at, .runs = {in_state(some_pages, "swapped")}};
    e.prove = [=] {
        expect_swapped({at, some_pages}, type);
        expect_smaps(at, "Swap", some_pages);
    };
    e.proof = "zeroes written and paged out; entries and smaps Swap look like those of any page";
    return {e};
}

std::vector<Exhibit> lazyfree(Keeper& keeper) {
    const auto at = keeper.anonymous(some_pages);
    const auto settle = [=] {
        fill(at, some_pages);
        drain_batches(); // only pages that are on a list can become lazily freed
        advise(at, some_pages, MADV_FREE, "MADV_FREE");
        drain_batches();
    };
    settle();
    Exhibit e{.name = "lazyfree", .start = at, .runs = {present(some_pages, "anon")}};
    e.attributes = {{"lazyfree", true}, {"dirty", false}, {"exclusive", true}};
    e.settle = settle;
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_anon}, {kpf_swapbacked, kpf_zero_page, kpf_dirty});
        expect_smaps(at, "LazyFree", some_pages);
        expect_smaps(at, "Private_Clean", some_pages);
    };
    e.proof = "MADV_FREE'd; KPF_ANON without KPF_SWAPBACKED, smaps LazyFree all of it";
    return {e};
}

std::vector<Exhibit> mlocked(Keeper& keeper) {
    const auto at = keeper.anonymous(some_pages);
    fill(at, some_pages);
    drain_batches();
    if (mlock(pointer(at), bytes_of(some_pages)) != 0) throw Unavailable("mlock failed");
    drain_batches();
    Exhibit e{.name = "mlocked", .start = at, .runs = {present(some_pages, "anon")}};
    e.attributes = {{"mlocked", true}, {"unevictable", true}};
    e.settle = drain_batches;
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_anon, kpf_mlocked, kpf_unevictable}, {kpf_zero_page});
        expect_smaps(at, "Locked", some_pages);
    };
    e.proof = "mlock(2); KPF_MLOCKED and KPF_UNEVICTABLE, smaps Locked all of it";
    return {e};
}

std::vector<Exhibit> prot_none(Keeper& keeper) {
    const auto empty = keeper.map(keeper.place(), bytes_of(some_pages), PROT_NONE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, "a PROT_NONE mapping");
    const auto full = keeper.anonymous(some_pages);
    fill(full, some_pages);
    mprotect(pointer(full), bytes_of(some_pages), PROT_NONE);

    Exhibit a{.name = "prot-none", .start = empty, .runs = {in_state(some_pages, "none")}};
    a.table = Table::none;
    a.prove = [=] {
        expect_none({empty, some_pages});
        expect_smaps(empty, "Rss", 0);
    };
    a.proof = "mapped with PROT_NONE; pagemap none";

    Exhibit b{.name = "prot-none-filled", .start = full, .runs = {present(some_pages, "anon")}};
    b.prove = [=] {
        expect_flags({full, some_pages}, {kpf_anon}, {kpf_zero_page, kpf_ksm, kpf_thp});
        expect_smaps(full, "Rss", some_pages);
        expect(mapping_at(getpid(), full)->permissions == "---p", "the mapping is PROT_NONE");
    };
    b.proof = "written, then made PROT_NONE; KPF_ANON, smaps Rss all of it";
    return {a, b};
}

} // namespace

std::vector<Step> fork_steps() {
    return {{{{"fork-shared", "present/anon"}, {"fork-cow-broken", "present/anon"}},
             Need::nothing,
             forked}};
}

std::vector<Step> anon_steps() {
    return {
        {{{"untouched", "none"}}, Need::nothing, untouched},
        {{{"zero-page", "present/zero-page"}}, Need::nothing, zero_page},
        {{{"zero-filled", "present/zero-filled"}}, Need::nothing, zero_filled},
        {{{"anon-dirty", "present/anon"}}, Need::nothing, anon_dirty},
        {{{"anon-clean-swapped-in", "present/anon"}}, Need::swap_file, anon_clean},
        {{{"anon-swapped-file", "swapped"}}, Need::swap_file, anon_swapped_file},
        {{{"zero-filled-swapped", "swapped"}}, Need::swap_file, zero_filled_swapped},
        {{{"lazyfree", "present/anon"}}, Need::nothing, lazyfree},
        {{{"mlocked", "present/anon"}}, Need::nothing, mlocked},
        {{{"prot-none", "none"}, {"prot-none-filled", "present/anon"}}, Need::nothing, prot_none},
    };
}

std::vector<Step> anon_zram_steps() {
    return {{{{"anon-swapped-zram", "swapped"}}, Need::zram, anon_swapped_zram}};
}

} // namespace pagesift::zoo
