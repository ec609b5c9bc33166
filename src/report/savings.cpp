// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "pagesift/report.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <string_view>

namespace pagesift::report {
namespace {

constexpr std::uint64_t min_bytes = 64 << 10; ///< less is not worth anybody's time

/// What to type for an action that the process itself has to make.
std::string advise(std::string_view action, const Census& census) {
    return fmt::format("pagesift advise {} --apply {}", action, census.process.pid);
}

/// The PTE tables that nothing needs. Kernel 6.14 and later free a table when MADV_DONTNEED has
/// zapped all of it (CONFIG_PT_RECLAIM, mm/pt_reclaim.c); a table that several mappings share
/// stays.
void add_empty_tables(const Census& census, std::vector<Saving>& savings) {
    const PageTables& tables = census.tables;
    const std::string needs = "needs Linux 6.14 with CONFIG_PT_RECLAIM";
    if (tables.reclaimable_bytes) {
        if (*tables.reclaimable_bytes == 0) return;
        savings.push_back({"empty page tables", *tables.reclaimable_bytes,
                           advise("pt-reclaim", census),
                           "--format json lists the slots; " + needs});
    } else if (tables.empty_tables.value_or(0) > 0) {
        savings.push_back({"empty page tables, at most",
                           *tables.empty_tables * census.host.page_size,
                           "in the program: madvise(slot, length, MADV_DONTNEED)",
                           "their places are unknown, so pagesift advise pt-reclaim cannot do it; "
                           "the exact lens would know; " +
                               needs});
    }
}

/// Zero-filled pages of private anonymous memory: those read as zero again after they were dropped.
std::uint64_t zero_filled_bytes(const Census& census) {
    std::uint64_t pages = 0;
    for (const Tally::Entry& entry : census.totals.entries())
        if (entry.cls.kind == Kind::zero_filled && entry.cls.backing == Backing::anon)
            pages += entry.pages;
    return pages * census.host.page_size;
}

/// Zero-filled pages go to swap without I/O from 6.12 on, and are free at once (mm/page_io.c).
std::string zero_filled_note(const Census& census, std::string note) {
    note += fmt::format("; 'pagesift advise merge {}' leaves them to KSM", census.process.pid);
    if (census.host.swaps.empty()) return note;
    return fmt::format("{}; 'pagesift advise pageout --where zero-filled {}' moves them to swap, "
                       "without I/O from Linux 6.12 on",
                       note, census.process.pid);
}

void add_zero_filled(const Census& census, std::vector<Saving>& savings) {
    const auto estimate = zero_estimate(census);
    if (!estimate || estimate->zero_pages == 0) return;
    const std::string command = advise("zero-drop", census);
    if (census.want.zero == ZeroTest::all) {
        const std::uint64_t bytes = zero_filled_bytes(census);
        if (bytes == 0) return;
        savings.push_back(
            {"zero-filled pages", bytes, command,
             zero_filled_note(census,
                              "--where zero-filled --ranges shows where; a huge page goes only if "
                              "all of it is zero")});
        return;
    }
    // Only what is private can be dropped, so the estimate is scaled to its part of the hits.
    const double page = static_cast<double>(census.host.page_size);
    const double part = static_cast<double>(zero_filled_bytes(census)) /
                        (static_cast<double>(estimate->zero_pages) * page);
    const double candidates =
        std::min(part, 1.0) * static_cast<double>(estimate->candidate_pages) * page;
    const auto bytes = [&](double share) { return static_cast<std::uint64_t>(share * candidates); };
    const double share =
        static_cast<double>(estimate->zero_pages) / static_cast<double>(estimate->asked_pages);
    if (bytes(share) == 0) return;
    savings.push_back(
        {"zero-filled pages, by sample", bytes(share), command,
         zero_filled_note(census, fmt::format("{} to {} with 95 % confidence; --zero all tells",
                                              human_bytes(bytes(estimate->share.low)),
                                              human_bytes(bytes(estimate->share.high))))});
}

/// A page that KSM merged and nobody else maps any more costs a ksm_rmap_item and a
/// ksm_stable_node (mm/ksm.c), 64 bytes each on 64-bit machines, and a copy on the next write.
void add_ksm_sole(const Census& census, std::vector<Saving>& savings) {
    constexpr std::uint64_t metadata_bytes = 128;
    const std::uint64_t bytes = census.totals.kind_pages(Kind::ksm_sole) * metadata_bytes;
    if (bytes < min_bytes) return;
    savings.push_back({"KSM metadata of pages mapped once", bytes, advise("unmerge", census),
                       "the pages stay; scanning and a copy on the next write are saved"});
}

/// MADV_FREE'd pages are resident until there is pressure.
void add_lazyfree(const Census& census, std::vector<Saving>& savings) {
    const auto lazy = static_cast<std::size_t>(Attribute::lazyfree);
    const std::uint64_t bytes = attribute_figures(census.totals, census.host.page_size).yes[lazy];
    if (bytes < min_bytes) return;
    savings.push_back({"pages given up with MADV_FREE", bytes,
                       fmt::format("echo {}K > /sys/fs/cgroup/CGROUP/memory.reclaim", bytes >> 10),
                       fmt::format("cgroup v2, CGROUP is in /proc/{}/cgroup; no swap needed; other "
                                   "memory of the cgroup may go first",
                                   census.process.pid)});
}

} // namespace

std::vector<Saving> find_savings(const Census& census) {
    std::vector<Saving> savings;
    add_empty_tables(census, savings);
    add_zero_filled(census, savings);
    add_ksm_sole(census, savings);
    add_lazyfree(census, savings);
    std::stable_sort(savings.begin(), savings.end(),
                     [](const Saving& a, const Saving& b) { return a.bytes > b.bytes; });
    return savings;
}

} // namespace pagesift::report
