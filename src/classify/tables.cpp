// SPDX-License-Identifier: MIT
// The words of the program. What is listed here is what options, outputs, schemas, completions and
// documents say.
#include "pagesift/classify.hpp"

namespace pagesift {

std::span<const Word, state_count> state_table() {
    static constexpr std::array<Word, state_count> words{{
        {"none", "none", "nothing here: no page-table entry and no content behind it"},
        {"cached", "cached", "in the page cache, not mapped by this process"},
        {"uncached", "uncached", "in a file, and neither mapped nor in the page cache"},
        {"present", "present", "mapped and resident"},
        {"swapped", "swapped", "anonymous page in swap"},
        {"shmem-swapped", "shmem_swapped", "shared-memory page in swap; its entry is none"},
        {"marker", "marker", "page-table marker: uffd-wp, guard or poison"},
        {"migrating", "migrating", "migration, device-private or hwpoison entry"},
        {"unknown", "unknown", "cannot be told; the gaps say why"},
    }};
    return words;
}

std::span<const Word, kind_count> kind_table() {
    static constexpr std::array<Word, kind_count> words{{
        {"zero-page", "zero_page", "the kernel's shared zero page or huge zero page"},
        {"zero-filled", "zero_filled", "its own page frame, and every byte of it zero"},
        {"ksm", "ksm", "merged by KSM and mapped at least twice"},
        {"ksm-sole", "ksm_sole", "merged by KSM and mapped once: nothing is shared"},
        {"ksm-zero", "ksm_zero", "merged by KSM and all zero, but not with the zero page"},
        {"thp", "thp", "part of a large folio (transparent huge page of any size)"},
        {"hugetlb", "hugetlb", "page of a huge page pool"},
        {"anon", "anon", "anonymous memory"},
        {"file", "file", "page of a file"},
        {"shmem", "shmem", "shared memory, tmpfs or memfd"},
        {"special", "special", "no page frame of its own (VM_PFNMAP)"},
        {"unknown", "unknown", "cannot be told; the gaps say why"},
    }};
    return words;
}

std::span<const Word, attribute_count> attribute_table() {
    static constexpr std::array<Word, attribute_count> words{{
        {"dirty", "dirty", "there is no clean copy in a file or in swap"},
        {"soft-dirty", "soft_dirty", "written since soft-dirty was last cleared"},
        {"exclusive", "exclusive", "mapped exactly once"},
        {"young", "young", "accessed since that was last cleared"},
        {"active", "active", "on an active list of the kernel's page reclaim"},
        {"unevictable", "unevictable", "on no list that page reclaim looks at"},
        {"lazyfree", "lazyfree", "given up with MADV_FREE, not yet taken"},
        {"uffd-wp", "uffd_wp", "write-protected by userfaultfd"},
        {"pmd-mapped", "pmd_mapped", "mapped by one huge entry"},
        {"mlocked", "mlocked", "locked in memory"},
        {"swap-cache", "swap_cache", "also in the swap cache"},
        {"writeback", "writeback", "being written out"},
    }};
    return words;
}

std::span<const Word, marker_count> marker_table() {
    static constexpr std::array<Word, marker_count> words{{
        {"", "", "no marker"},
        {"uffd-wp", "uffd_wp", "userfaultfd write protection of a page that is not there"},
        {"guard", "guard", "guard region (MADV_GUARD_INSTALL)"},
        {"poison", "poison", "access gives SIGBUS (UFFDIO_POISON, or lost in swap)"},
        {"hwpoison", "hwpoison", "its page frame is broken; access gives SIGBUS"},
        {"other", "other", "a marker of a newer kernel"},
    }};
    return words;
}

std::uint64_t PageClass::key() const {
    return std::uint64_t{attributes} | std::uint64_t{static_cast<std::uint8_t>(state)} << 32 |
           std::uint64_t{static_cast<std::uint8_t>(kind)} << 36 |
           std::uint64_t{static_cast<std::uint8_t>(marker)} << 40 |
           std::uint64_t{static_cast<std::uint8_t>(backing)} << 44 |
           std::uint64_t{static_cast<std::uint8_t>(folio)} << 48;
}

PageClass PageClass::from_key(std::uint64_t key) {
    const auto field = [&](unsigned shift) {
        return static_cast<std::uint8_t>((key >> shift) & 15);
    };
    return {.state = static_cast<State>(field(32)),
            .kind = static_cast<Kind>(field(36)),
            .marker = static_cast<Marker>(field(40)),
            .backing = static_cast<Backing>(field(44)),
            .folio = static_cast<FolioSize>(field(48)),
            .attributes = static_cast<std::uint32_t>(key)};
}

} // namespace pagesift
