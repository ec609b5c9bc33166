// SPDX-License-Identifier: MIT
#include "pagesift/advice.hpp"

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

bool of_file(const Mapping& mapping) {
    return mapping.backing == Backing::file || mapping.backing == Backing::shmem;
}

/// What no action of ours is for, whatever the pages are. mm/madvise.c:can_madv_lru_vma,
/// mm/khugepaged.c:thp_vma_allowable_order.
std::optional<Reason> objection_to_mapping(const Mapping& mapping) {
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
    if (stretch.cls.state == State::swapped && of_file(mapping)) return Reason::private_file;
    return {};
}

} // namespace

bool is_candidate(Action action, const Mapping& mapping, const Stretch& stretch) {
    const State state = stretch.cls.state;
    switch (action) {
    case Action::pageout:
    case Action::cold: return state == State::present;
    case Action::willneed: return state == State::swapped || state == State::shmem_swapped;
    case Action::collapse:
        return mapping.backing == Backing::anon || mapping.backing == Backing::shmem;
    }
    return false;
}

std::optional<Reason> objection(Action action, const Situation& situation, const Mapping& mapping,
                                const Stretch& stretch) {
    if (stretch.matches == Tri::unknown) return Reason::undecided;
    if (const auto reason = objection_to_mapping(mapping)) return reason;
    switch (action) {
    case Action::pageout:
    case Action::cold: return objection_to_aging(action, situation, mapping, stretch);
    case Action::willneed: return objection_to_reading(mapping, stretch);
    case Action::collapse: break;
    }
    if (has_flag(mapping, VmFlag::no_hugepage)) return Reason::no_huge_page;
    return {};
}

} // namespace pagesift::advice
