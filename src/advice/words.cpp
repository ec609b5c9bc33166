// SPDX-License-Identifier: MIT
#include "pagesift/abi.hpp"
#include "pagesift/advice.hpp"

#include <algorithm>
#include <array>

namespace pagesift::advice {
namespace {

constexpr std::array<ActionInfo, action_count> actions{{
    {"pageout", "MADV_PAGEOUT", abi::advice::pageout,
     "write pages to swap or drop what a file has, now", false},
    {"cold", "MADV_COLD", abi::advice::cold, "let these pages go first when memory is short",
     false},
    {"willneed", "MADV_WILLNEED", abi::advice::willneed, "read pages back from swap and files",
     false},
    {"collapse", "MADV_COLLAPSE", abi::advice::collapse, "make huge pages of small ones", false},
    {"pt-reclaim", "MADV_DONTNEED", abi::advice::dontneed, "free page tables that hold nothing",
     true},
    {"zero-drop", "MADV_DONTNEED", abi::advice::dontneed,
     "give back pages that hold nothing but zeros", true},
    {"merge", "MADV_MERGEABLE", abi::advice::mergeable, "let KSM merge pages of equal contents",
     true},
    {"unmerge", "MADV_UNMERGEABLE", abi::advice::unmergeable,
     "make ordinary pages of KSM pages that nobody shares", true},
}};

constexpr std::array<Word, reason_count> reasons{{
    {"hugetlb", "hugetlb", "huge pages of a pool are never moved"},
    {"special", "special", "memory of a device or of the kernel, or guarded"},
    {"mlocked", "mlocked", "locked in memory by mlock(2)"},
    {"userfaultfd", "userfaultfd", "registered with userfaultfd, so a monitor looks after it"},
    {"zero-page", "zero_page", "the shared zero page, which costs nothing"},
    {"lazyfree", "lazyfree", "given up with MADV_FREE: it would be discarded, and is free anyway"},
    {"shared", "shared", "mapped more than once, which the kernel passes over"},
    {"unknown", "unknown", "what these pages are is not known"},
    {"folio-split", "folio_split", "part of a large folio that would be split"},
    {"file-not-ours", "file_not_ours", "of a file that the caller neither owns nor may write"},
    {"shared-file", "shared_file", "of a file that is mapped shared: other readers may need it"},
    {"private-file", "private_file", "the kernel does not do it in private mappings of files"},
    {"no-swap", "no_swap", "there is no swap"},
    {"swap-full", "swap_full", "more than what is free in swap, or its cgroup may have there"},
    {"no-memory", "no_memory", "more than the memory that is available"},
    {"undecided", "undecided", "--where could not decide"},
    {"not-idle", "not_idle", "used within the time of --cold"},
    {"idle-unknown", "idle_unknown", "when it was used last is not known"},
    {"too-short", "too_short", "shorter than --min-run"},
    {"limit", "limit", "more than --max-bytes"},
    {"already-huge", "already_huge", "a huge page already"},
    {"no-huge-page", "no_huge_page", "the program wants no huge page here (MADV_NOHUGEPAGE)"},
    {"unaligned", "unaligned", "no mapping covers all of what a huge page would take"},
    {"costs-more", "costs_more", "a huge page would cost more memory than it holds; --force-fill"},
    {"spanning", "spanning", "a page table that several mappings share, so that no call frees it"},
    {"markers", "markers", "entries that are markers, which would be lost"},
    {"not-private", "not_private", "not private anonymous memory, so something else stands behind"},
    {"flags-unknown", "flags_unknown", "the mapping's flags were not read; --smaps on"},
    {"wipe-on-fork", "wipe_on_fork", "the program handles it in its own way (MADV_WIPEONFORK)"},
    {"already-mergeable", "already_mergeable", "KSM has been told of it already"},
    {"no-gain", "no_gain", "too little of it is zero or there twice"},
    {"mapping-changed", "mapping_changed", "the mapping is not what it was"},
    {"state-changed", "state_changed", "the pages are not what they were"},
    {"fresh", "fresh", "so new that they are on no list of the kernel's yet; --retry"},
    {"in-use", "in_use", "the kernel kept them: in use by I/O or by the process at that moment"},
    {"refused", "refused", "the kernel refused"},
    {"interrupted", "interrupted", "interrupted before they were reached"},
    {"no-time", "no_time", "stopping the process takes as long as --max-stop allows"},
    {"not-reached", "not_reached", "not come to, because it ended early"},
}};

} // namespace

std::span<const ActionInfo, action_count> action_table() { return actions; }
const ActionInfo& info_of(Action action) { return actions[static_cast<std::size_t>(action)]; }

std::optional<Action> find_action(std::string_view name) {
    for (std::size_t i = 0; i < action_count; ++i)
        if (actions[i].name == name) return static_cast<Action>(i);
    return {};
}

std::span<const Word, reason_count> reason_table() { return reasons; }
const Word& word_of(Reason reason) { return reasons[static_cast<std::size_t>(reason)]; }

std::optional<Reason> find_reason(std::string_view name) {
    for (std::size_t i = 0; i < reason_count; ++i)
        if (reasons[i].name == name) return static_cast<Reason>(i);
    return {};
}

std::string_view why(const Plan& plan, const PlannedRange& range) {
    switch (plan.action) {
    case Action::pageout:
    case Action::cold:
        return range.idle_seconds ? "in memory, mapped once, and idle"
                                  : "in memory and mapped once";
    case Action::willneed: return "in swap";
    case Action::collapse: return "small pages where one huge page fits";
    case Action::pt_reclaim: return "a page table without a single entry";
    case Action::zero_drop:
        return range.unit_bytes > plan.page_size ? "nothing but zeros, a whole large folio"
                                                 : "nothing but zeros";
    case Action::merge: return "zeros, or contents that are there twice";
    case Action::unmerge: return "KSM pages that nobody shares";
    }
    return "";
}

std::string_view cost(const Plan& plan, const PlannedRange& range) {
    switch (plan.action) {
    case Action::pageout:
        if (!range.swap) return "a fault and a read of the file when it is used again";
        if (plan.swap_frees == Tri::yes) return "a fault and decompression when it is used again";
        return "written now; a fault and a read from swap when it is used again";
    case Action::cold: return "goes first when memory is short";
    case Action::willneed: return "memory for what is read; a fault a page remains";
    case Action::collapse:
        return range.fill_bytes + range.copy_bytes == 0
                   ? "a huge page must be found, and pages are copied"
                   : "pages are copied, and what is nothing now takes memory";
    case Action::pt_reclaim: return "stopped for it; a table is made again when it is used";
    case Action::zero_drop:
        return range.unit_bytes > plan.page_size
                   ? "stopped for it; dropped as a whole, and small pages when it is written to"
                   : "stopped for it; a fault when it is used again";
    case Action::merge: return "stopped for it; KSM's time, and a copy a page that is written to";
    case Action::unmerge: return "stopped for it; pages are copied";
    }
    return "";
}

std::optional<std::uint64_t> freed_bytes(const Plan& plan, const PlannedRange& range) {
    if (plan.action == Action::pt_reclaim) return range.bytes() / plan.slot_bytes * plan.page_size;
    if (plan.action == Action::zero_drop) return range.bytes();
    if (plan.action != Action::pageout) return 0;
    if (!range.swap || plan.swap_frees == Tri::yes) return range.bytes();
    return plan.swap_frees == Tri::no ? std::optional{std::uint64_t{0}} : std::nullopt;
}

std::uint64_t Plan::skipped_bytes(Reason reason) const {
    std::uint64_t bytes = 0;
    for (const SkippedRange& one : skipped)
        if (one.reason == reason) bytes += one.range.size().value;
    return bytes;
}

std::uint64_t Effect::stayed_bytes(Reason reason) const {
    std::uint64_t bytes = 0;
    for (const Stayed& one : stayed)
        if (one.reason == reason) bytes += one.range.size().value;
    return bytes;
}

} // namespace pagesift::advice
