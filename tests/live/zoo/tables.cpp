// SPDX-License-Identifier: MIT
// Page tables that hold nothing, or nothing but markers; and pages that have no page structure.
#include <sys/mman.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

constexpr int madv_guard_install = 102; // Linux 6.13; newer than Debian 12's headers

std::size_t slot_pages() { return slot_size() / page_size(); }

std::uint64_t table_bytes() { return status(getpid(), "VmPTE").value_or(0); }

/// A whole slot in one mapping, untouched.
std::uint64_t whole_slot(Keeper& keeper) {
    const auto at = keeper.map(keeper.place(), slot_size(), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, "anonymous pages");
    advise(at, slot_pages(), MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
    return at;
}

/// Writes some pages of a slot and drops them one at a time: a call for the whole slot would take
/// the table as well. Throws unless VmPTE shows that the table came and stayed.
void leave_empty_table(std::uint64_t at) {
    const auto untouched = table_bytes();
    for (std::size_t i = 0; i < slot_pages(); i += 64) fill(at + bytes_of(i), 1);
    const auto touched = table_bytes();
    for (std::size_t i = 0; i < slot_pages(); i += 64)
        advise(at + bytes_of(i), 1, MADV_DONTNEED, "MADV_DONTNEED");
    expect(touched > untouched, "touching a slot makes a table");
    expect(table_bytes() == touched, "dropping page by page leaves the table");
}

std::vector<Exhibit> empty_table(Keeper& keeper) {
    const auto at = whole_slot(keeper);
    leave_empty_table(at);
    Exhibit e{.name = "empty-table", .start = at, .runs = {in_state(slot_pages(), "none")}};
    e.prove = [=] {
        expect_none({at, slot_pages()});
        expect(mapping_at(getpid(), at)->end == at + slot_size(), "one mapping is the whole slot");
    };
    e.proof = "written, then dropped page by page; all none, and VmPTE did not shrink";
    return {e};
}

std::vector<Exhibit> spanning_table(Keeper& keeper) {
    const auto at = whole_slot(keeper);
    leave_empty_table(at);
    const auto middle = at + bytes_of(slot_pages() / 2);
    mprotect(pointer(middle), slot_size() / 2, PROT_READ);
    Exhibit e{
        .name = "empty-table-spanning", .start = at, .runs = {in_state(slot_pages(), "none")}};
    e.prove = [=] {
        expect_none({at, slot_pages()});
        expect(mapping_at(getpid(), at)->end == middle, "a mapping ends in the middle of the slot");
        expect(mapping_at(getpid(), middle)->start == middle, "and another one begins there");
    };
    e.proof = "as empty-table, with two mappings in the slot; all none, VmPTE did not shrink";
    return {e};
}

/// One small mapping that is alone in its slot: the table is empty, and no call can reach it.
std::vector<Exhibit> partly_mapped_table(Keeper& keeper) {
    constexpr std::size_t count = 8;
    const auto at = keeper.anonymous(count);
    const auto untouched = table_bytes();
    fill(at, count);
    const auto touched = table_bytes();
    advise(at, count, MADV_DONTNEED, "MADV_DONTNEED");
    const auto dropped = table_bytes();
    Exhibit e{.name = "empty-table-partly-mapped", .start = at, .runs = {in_state(count, "none")}};
    e.prove = [=] {
        expect(touched > untouched && dropped == touched, "the table came and stayed");
        expect_none({at, count});
    };
    e.proof = "eight pages written, then dropped; all none, and VmPTE did not shrink";
    return {e};
}

std::vector<Exhibit> marker_only(Keeper& keeper) {
    const auto before = table_bytes();
    const auto at = whole_slot(keeper);
    const auto third = slot_pages() / 4 * 3;
    advise(at + bytes_of(1), 2, madv_guard_install, "MADV_GUARD_INSTALL");
    advise(at + bytes_of(third), 1, madv_guard_install, "MADV_GUARD_INSTALL");
    const auto after = table_bytes();
    Exhibit e{.name = "marker-only-table",
              .start = at,
              .runs = {in_state(1, "none"), marker(2, "guard"), in_state(third - 3, "none"),
                       marker(1, "guard"), in_state(slot_pages() - third - 1, "none")}};
    e.prove = [=] {
        expect(after > before, "installing a guard makes a table");
        expect_marker({at + bytes_of(1), 2}, marker_guard);
        expect_marker({at + bytes_of(third), 1}, marker_guard);
        expect_none({at + bytes_of(3), third - 3});
    };
    e.proof = "three guards in a slot that was never touched; VmPTE grew, no page is present";
    return {e};
}

std::vector<Exhibit> pfnmap(Keeper&) {
    for (const auto& mapping : smaps(getpid())) {
        if (mapping.vm_flags.find(" pf ") == std::string::npos) continue;
        const auto pages = (mapping.end - mapping.start) / page_size();
        Exhibit e{.name = "pfnmap", .start = mapping.start, .runs = {present(pages, "special")}};
        e.table = Table::elsewhere;
        e.prove = [=] {
            expect(mapping_at(getpid(), mapping.start)->vm_flags.find(" pf ") != std::string::npos,
                   "VmFlags says pf");
        };
        e.proof = "[vvar], which smaps VmFlags shows as PFNMAP";
        return {e};
    }
    throw Unavailable("no mapping of a process is VM_PFNMAP, not even [vvar]");
}

} // namespace

std::vector<Step> table_steps() {
    return {
        {{{"empty-table", "none"}}, Need::nothing, empty_table},
        {{{"empty-table-spanning", "none"}}, Need::nothing, spanning_table},
        {{{"empty-table-partly-mapped", "none"}}, Need::nothing, partly_mapped_table},
        {{{"marker-only-table", "marker/guard"}}, Need::nothing, marker_only},
        {{{"pfnmap", "present/special"}}, Need::nothing, pfnmap},
    };
}

} // namespace pagesift::zoo
