// SPDX-License-Identifier: MIT
// Where RAM and the struct pages lie. Both are randomised at boot in steps of 1 GiB
// (arch/x86/mm/kaslr.c), so that all candidates can be tried and exactly one must fit.
#include "walk/gather.hpp"
#include "walk/hex.hpp"

#include <algorithm>

namespace pagesift::walk {

namespace {

constexpr std::uint64_t step = std::uint64_t{1} << 30;

[[noreturn]] void refuse(const std::string& why) {
    throw Error{ErrorKind::unsupported, "kernel memory", 0, {}, why};
}

/// What all searches start from, read along the own task.
struct Anchors {
    std::uint64_t mm = 0, pgd = 0, task_size = 0, folio = 0;
};

/// The entry of a tree's first page. A tree of one small page is that entry (lib/xarray.c: a single
/// entry at index 0); where tmpfs uses huge pages even here, nodes stand above it.
std::optional<std::uint64_t> first_entry(KernelMemory& memory, const KernelLayout& layout,
                                         std::optional<std::uint64_t> entry) {
    for (unsigned height = 0; height < 11 && entry && (*entry & 3) == 2 && *entry > 4096; ++height)
        entry = read_word(memory, *entry - 2 + layout.xa_node_slots);
    return entry;
}

Anchors read_anchors(KernelMemory& memory, const KernelLayout& layout, const Own& own) {
    const auto need = [](std::optional<std::uint64_t> value, const char* what) {
        if (!value) refuse(std::string{"does not lead to "} + what);
        return *value;
    };
    Anchors found;
    const auto pagemap =
        need(file_of(memory, layout, own.task, own.pagemap_fd), "the own open files");
    found.mm = need(mm_of(memory, layout, pagemap), "the own mm");
    found.pgd = need(pgd_of(memory, layout, found.mm), "the own page tables");
    found.task_size =
        need(read_word(memory, found.mm + layout.mm_struct_task_size), "the size of the own mm");
    const auto memfd = need(file_of(memory, layout, own.task, own.memfd), "the own memfd");
    const auto mapping = need(mapping_of(memory, layout, memfd), "the own memfd's page cache");
    found.folio = need(first_entry(memory, layout,
                                   read_word(memory, mapping + layout.address_space_i_pages +
                                                         layout.xarray_xa_head)),
                       "the own memfd's page");
    return found;
}

std::uint64_t find_vmemmap(const KernelLayout& layout, std::uint64_t folio, std::uint64_t frame) {
    const std::uint64_t vmemmap = folio - frame * layout.page_bytes;
    if (folio == 0 || (folio & 3) != 0 || frame == 0 || vmemmap % step != 0 || vmemmap > folio)
        refuse("the own memfd's page " + hex(folio) + " is not the struct page of frame " +
               std::to_string(frame));
    return vmemmap;
}

/// Every address at which the direct map may begin: the top table lies in it.
std::vector<std::uint64_t> candidates(std::uint64_t pgd, std::uint64_t frame_end,
                                      unsigned page_shift) {
    std::vector<std::uint64_t> bases;
    const std::uint64_t highest = pgd & ~(step - 1);
    for (std::uint64_t base = highest; (pgd - base) >> page_shift < frame_end; base -= step)
        bases.push_back(base);
    return bases;
}

/// The candidates under which the struct page of the top table names the own mm as its owner
/// (arch/x86/mm/pgtable.c: pgd_set_mm). Freed tables keep that word, and the mm may have been that
/// of an earlier process, so there can be more than one. No guessed page is read: a struct page
/// outside of vmemmap is merely refused.
std::vector<std::uint64_t> fitting_owner(KernelMemory& memory, const KernelLayout& layout,
                                         const Anchors& anchors, std::uint64_t vmemmap,
                                         std::span<const std::uint64_t> bases,
                                         unsigned page_shift) {
    std::vector<std::uint64_t> fitting;
    read_each(
        memory, bases.size(), 8,
        [&](std::size_t i) {
            const std::uint64_t frame = (anchors.pgd - bases[i]) >> page_shift;
            return vmemmap + frame * layout.page_bytes + *layout.pt_mm;
        },
        [&](std::size_t i, const std::byte* at) {
            if (at && load_word(at) == anchors.mm) fitting.push_back(bases[i]);
        });
    return fitting;
}

/// The candidates under which the own page's frame holds the own page's bytes.
std::vector<std::uint64_t> fitting_contents(KernelMemory& memory, const Own& own,
                                            std::span<const std::uint64_t> bases,
                                            unsigned page_shift) {
    static constexpr std::uint32_t portion = 256;
    std::vector<std::uint64_t> fitting{bases.begin(), bases.end()};
    for (std::size_t at = 0; at < own.page_bytes.size() && !fitting.empty(); at += portion) {
        const auto known = own.page_bytes.subspan(at, portion);
        std::vector<std::uint64_t> still;
        read_each(
            memory, fitting.size(), portion,
            [&](std::size_t i) { return fitting[i] + (own.page_frame << page_shift) + at; },
            [&](std::size_t i, const std::byte* bytes) {
                if (bytes && std::equal(known.begin(), known.end(), bytes))
                    still.push_back(fitting[i]);
            });
        fitting = std::move(still);
    }
    return fitting;
}

std::uint64_t find_direct_map(KernelMemory& memory, const KernelLayout& layout, const Own& own,
                              const Anchors& anchors, std::uint64_t vmemmap, unsigned page_shift) {
    const auto all = candidates(anchors.pgd, own.frame_end, page_shift);
    std::vector<std::uint64_t> fitting = all;
    if (layout.pt_mm) {
        fitting = fitting_owner(memory, layout, anchors, vmemmap, all, page_shift);
        if (fitting.empty())
            refuse("none of " + std::to_string(all.size()) +
                   " places of the direct map has the own top page table");
    }
    if (fitting.size() > 1 && own.unaccepted_memory)
        refuse("the direct map cannot be searched while memory is not accepted");
    fitting = fitting_contents(memory, own, fitting, page_shift);
    if (fitting.size() != 1)
        refuse("of " + std::to_string(all.size()) + " places of the direct map " +
               std::to_string(fitting.size()) + " have the own page's contents");
    return fitting.front();
}

} // namespace

Kernel find_kernel(KernelMemory& memory, const KernelLayout& layout, const Own& own) {
    const Anchors anchors = read_anchors(memory, layout, own);
    Kernel kernel{layout, x86_64_entries(x86_64_levels(anchors.task_size), own.physical_bits), {}};
    const unsigned page_shift = kernel.entries.page_shift;
    if (own.page_bytes.size() != kernel.entries.page_bytes())
        refuse("the own page is not known whole");
    if (own.memfd_frame >= own.frame_end || own.page_frame >= own.frame_end || own.page_frame == 0)
        refuse("frames of own pages are hidden, or beyond RAM");
    kernel.bases.frame_end = own.frame_end;
    kernel.bases.vmemmap = find_vmemmap(layout, anchors.folio, own.memfd_frame);
    kernel.bases.direct_map =
        find_direct_map(memory, layout, own, anchors, kernel.bases.vmemmap, page_shift);
    return kernel;
}

} // namespace pagesift::walk
