// SPDX-License-Identifier: MIT
#include "pagesift/advice.hpp"

#include <algorithm>
#include <array>

namespace pagesift::advice {
namespace {

using procfs::VmFlag;

bool has_flag(const Mapping& mapping, VmFlag flag) {
    return mapping.smaps && mapping.smaps->vm_flags.has(flag);
}

bool watched(const Mapping& mapping) {
    return has_flag(mapping, VmFlag::uffd_missing) || has_flag(mapping, VmFlag::uffd_minor) ||
           has_flag(mapping, VmFlag::uffd_wp);
}

/// Its pages go to swap, those of private copies of files aside.
bool goes_to_swap(const Mapping& mapping) {
    return mapping.backing == Backing::anon || mapping.backing == Backing::shmem;
}

bool of_file(const Mapping& mapping) {
    return mapping.backing == Backing::file || mapping.backing == Backing::shmem;
}

/// What no action of ours is for, whatever the pages are. mm/madvise.c:can_madv_lru_vma,
/// mm/khugepaged.c:thp_vma_allowable_order.
std::optional<Reason> objection_to_any(const Mapping& mapping) {
    if (mapping.backing == Backing::hugetlb || has_flag(mapping, VmFlag::hugetlb))
        return Reason::hugetlb;
    if (mapping.backing == Backing::special || mapping.backing == Backing::device ||
        has_flag(mapping, VmFlag::pfnmap) || has_flag(mapping, VmFlag::io))
        return Reason::special;
    if (watched(mapping)) return Reason::userfaultfd;
    return {};
}

/// A page's own backing tells copies in private mappings of files from pages of the file.
bool is_file_page(const Stretch& stretch) {
    return stretch.cls.backing == Backing::file || stretch.cls.backing == Backing::shmem;
}

/// mm/madvise.c:madvise_cold_or_pageout_pte_range, can_do_file_pageout.
std::optional<Reason> objection_to_aging(Action action, const Situation& situation,
                                         const Mapping& mapping, const Stretch& stretch) {
    const PageClass& cls = stretch.cls;
    if (cls.folio == FolioSize::hugetlb || cls.kind == Kind::hugetlb) return Reason::hugetlb;
    if (cls.kind == Kind::special) return Reason::special;
    if (has_flag(mapping, VmFlag::locked) || cls.attribute(Attribute::mlocked) == Tri::yes ||
        cls.attribute(Attribute::unevictable) == Tri::yes)
        return Reason::mlocked;
    if (cls.kind == Kind::zero_page) return Reason::zero_page;
    if (stretch.sole == Tri::no) return Reason::shared;
    if (stretch.sole == Tri::unknown || cls.kind == Kind::unknown) return Reason::unknown;
    if (action != Action::pageout) return {};
    if (cls.attribute(Attribute::lazyfree) == Tri::yes) return Reason::lazyfree;
    if (!is_file_page(stretch))
        return situation.swap_present ? std::nullopt : std::optional{Reason::no_swap};
    if (mapping.backing == Backing::file && mapping.shared) return Reason::shared_file;
    const Tri owns = situation.owns_file ? situation.owns_file(mapping) : Tri::yes;
    if (owns != Tri::yes) return Reason::file_not_ours;
    const bool to_swap = cls.backing == Backing::shmem;
    if (to_swap && !situation.swap_present) return Reason::no_swap;
    return {};
}

/// mm/madvise.c:madvise_willneed: where there is a file, only the file is read.
std::optional<Reason> objection_to_reading(const Mapping& mapping, const Stretch& stretch) {
    if (stretch.cls.state == State::unknown) return Reason::unknown;
    if (stretch.cls.state == State::swapped && of_file(mapping)) return Reason::private_file;
    return {};
}

/// Whether all flags of a mapping are among those of plain memory. Others mean that somebody else
/// may look at it or write to it, or that contents are more than bytes: dc (devices have memory
/// that fork must not copy), mt (tags of memory), ss (a shadow stack), dp (may be dropped at any
/// time), gd (a stack), and whatever comes (fs/proc/task_mmu.c:show_smap_vma_flags).
bool is_plain(const Mapping& mapping) {
    static constexpr std::array<std::string_view, 14> plain{
        "rd", "wr", "ex", "mr", "mw", "me", "ac", "nr", "hg", "nh", "mg", "sd", "dd", "sr"};
    std::string_view rest = mapping.smaps->vm_flags.text;
    while (!rest.empty()) {
        const auto code = rest.substr(0, rest.find(' '));
        rest.remove_prefix(std::min(rest.size(), code.size() + 1));
        if (!code.empty() && std::find(plain.begin(), plain.end(), code) == plain.end())
            return false;
    }
    return true;
}

/// Dropped pages must come back as zero pages, and nothing but the process' threads may have to do
/// with them. mm/madvise.c:madvise_dontneed_single_vma; mm/memory.c:do_anonymous_page.
std::optional<Reason> objection_to_dropping(const Mapping& mapping) {
    const bool own = mapping.backing == Backing::anon && !mapping.shared && mapping.inode == 0 &&
                     mapping.device.major == 0 && mapping.device.minor == 0;
    if (!own) return Reason::not_private;
    if (!mapping.smaps) return Reason::flags_unknown;
    if (has_flag(mapping, VmFlag::locked)) return Reason::mlocked;
    if (has_flag(mapping, VmFlag::wipe_on_fork)) return Reason::wipe_on_fork;
    if (!is_plain(mapping)) return Reason::special;
    return {};
}

/// mm/ksm.c:vma_ksm_compatible, and what has been told already.
std::optional<Reason> objection_to_ksm(Action action, const Mapping& mapping) {
    if (mapping.shared || mapping.backing != Backing::anon) return Reason::not_private;
    if (!mapping.smaps) return Reason::flags_unknown;
    if (action == Action::merge && has_flag(mapping, VmFlag::mergeable))
        return Reason::already_mergeable;
    if (action == Action::merge && !is_plain(mapping)) return Reason::special;
    return {};
}

std::optional<Reason> objection_to_zeros(const Stretch& stretch) {
    const PageClass& cls = stretch.cls;
    if (cls.folio == FolioSize::hugetlb) return Reason::hugetlb;
    if (cls.attribute(Attribute::mlocked) == Tri::yes ||
        cls.attribute(Attribute::unevictable) == Tri::yes)
        return Reason::mlocked;
    if (cls.attribute(Attribute::uffd_wp) == Tri::yes) return Reason::userfaultfd;
    if (cls.attribute(Attribute::lazyfree) == Tri::yes) return Reason::lazyfree;
    // Its frame would stay with the others.
    if (stretch.sole == Tri::no) return Reason::shared;
    if (stretch.sole == Tri::unknown) return Reason::unknown;
    return {};
}

} // namespace

std::optional<Reason> objection_to_mapping(Action action, const Mapping& mapping) {
    if (const auto reason = objection_to_any(mapping)) return reason;
    switch (action) {
    case Action::zero_drop: return objection_to_dropping(mapping);
    case Action::merge:
    case Action::unmerge: return objection_to_ksm(action, mapping);
    case Action::pt_reclaim:
        if (!mapping.smaps) return Reason::flags_unknown;
        if (has_flag(mapping, VmFlag::locked)) return Reason::mlocked;
        return {};
    default: return {};
    }
}

bool is_candidate(Action action, const Mapping& mapping, const Stretch& stretch) {
    const State state = stretch.cls.state;
    switch (action) {
    case Action::pageout:
    case Action::cold: return state == State::present;
    case Action::willneed:
        return state == State::swapped || state == State::shmem_swapped ||
               (state == State::unknown && goes_to_swap(mapping));
    case Action::collapse: return goes_to_swap(mapping);
    case Action::pt_reclaim: return false; // has no pages: plan_tables()
    case Action::zero_drop: return state == State::present && stretch.cls.kind == Kind::zero_filled;
    case Action::merge: return state == State::present && mapping.backing == Backing::anon;
    case Action::unmerge: return state == State::present && stretch.cls.kind == Kind::ksm_sole;
    }
    return false;
}

std::optional<Reason> objection(Action action, const Situation& situation, const Mapping& mapping,
                                const Stretch& stretch) {
    if (stretch.matches == Tri::unknown) return Reason::undecided;
    if (const auto reason = objection_to_mapping(action, mapping)) return reason;
    switch (action) {
    case Action::pageout:
    case Action::cold: return objection_to_aging(action, situation, mapping, stretch);
    case Action::willneed: return objection_to_reading(mapping, stretch);
    case Action::collapse:
        if (has_flag(mapping, VmFlag::no_hugepage)) return Reason::no_huge_page;
        return {};
    case Action::zero_drop: return objection_to_zeros(stretch);
    case Action::pt_reclaim:
    case Action::merge:
    case Action::unmerge: return {};
    }
    return {};
}

} // namespace pagesift::advice
