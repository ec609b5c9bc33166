// SPDX-License-Identifier: MIT
#include "classify/piece.hpp"

#include "pagesift/abi.hpp"

#include <array>

namespace pagesift {

using namespace abi;

namespace {

constexpr std::array kept{Attribute::lazyfree,   Attribute::unevictable, Attribute::mlocked,
                          Attribute::pmd_mapped, Attribute::uffd_wp,     Attribute::writeback};

PageClass without_the_rest(PageClass cls) {
    std::uint32_t mask = 0;
    for (const Attribute a : kept) mask |= 3u << (2 * static_cast<unsigned>(a));
    cls.attributes &= mask;
    return cls;
}

/// What tells a page of one class from its neighbours.
struct Detail {
    Tri sole = Tri::unknown;
    Tri on_lru = Tri::unknown;
    std::uint8_t order = 0;
    bool operator==(const Detail&) const = default;
};

Detail detail_of(const PageBlock& block, std::size_t i, PageClass cls) {
    Detail detail;
    const std::uint32_t count = block.map_counts.empty() ? 0 : block.map_counts[i];
    if (cls.attribute(Attribute::exclusive) == Tri::yes || count == 1)
        detail.sole = Tri::yes;
    else if (count != 0)
        detail.sole = Tri::no;
    if (!block.flags.empty() && block.flags[i] != 0)
        detail.on_lru = block.flags[i] & kpf(KPF_LRU) ? Tri::yes : Tri::no;
    if (cls.folio == FolioSize::unknown)
        detail.order = PageBlock::unknown_order;
    else if (cls.folio == FolioSize::large)
        detail.order =
            block.folio_orders.empty() ? PageBlock::unknown_order : block.folio_orders[i];
    return detail;
}

} // namespace

std::span<const Attribute> stretch_attributes() { return kept; }

void PieceBuilder::add_stretches(const PageBlock& block, std::size_t first, std::uint64_t pages,
                                 PageClass cls, Tri matches) {
    const std::uint64_t page_size = context_.host.page_size;
    const bool by_page = cls.state == State::present && !block.uniform && !block.entries.empty();
    if (context_.frames)
        for (std::size_t i = first; i < first + pages; ++i)
            result_.frames.push_back(by_page ? block.entries[i] & PM_PFRAME_MASK : 0);
    const auto add = [&](std::uint64_t begin, std::uint64_t end, const Detail& detail) {
        Stretch part;
        part.range = {block.range.start + Bytes{begin * page_size},
                      block.range.start + Bytes{end * page_size}};
        part.mapping = mapping_;
        part.cls = context_.all_attributes ? cls : without_the_rest(cls);
        part.matches = matches;
        part.sole = detail.sole;
        part.on_lru = detail.on_lru;
        if (detail.order == PageBlock::unknown_order) {
            part.folio_pages.reset();
        } else if (detail.order > 0) {
            part.folio_pages = std::uint64_t{1} << detail.order;
            part.first_frame = block.entries[begin] & PM_PFRAME_MASK;
            part.last_frame = block.entries[end - 1] & PM_PFRAME_MASK;
            // A folio begins at a frame that is a multiple of its size.
            part.folio_page = part.first_frame & (*part.folio_pages - 1);
        }
        if (result_.stretches.empty() || !extend(result_.stretches.back(), part, page_size))
            result_.stretches.push_back(part);
    };
    if (!by_page) return add(first, first + pages, {});
    std::uint64_t from = first;
    Detail current = detail_of(block, first, cls);
    const auto frame = [&](std::size_t i) { return block.entries[i] & PM_PFRAME_MASK; };
    for (std::size_t i = first + 1; i < first + pages; ++i) {
        const Detail next = detail_of(block, i, cls);
        // Within a large folio frames go up one by one; where they do not, it is another one.
        bool same = next == current;
        if (same && next.order != 0 && next.order != PageBlock::unknown_order) {
            const std::uint64_t low = (std::uint64_t{1} << next.order) - 1;
            const bool begins = (frame(i) & low) == 0;
            const bool ended = (frame(i - 1) & low) == low;
            same = begins ? ended : frame(i) == frame(i - 1) + 1;
        }
        if (same) continue;
        add(from, i, current);
        from = i;
        current = next;
    }
    add(from, first + pages, current);
}

bool extend(Stretch& stretch, const Stretch& next, std::uint64_t page_size) {
    const bool alike = stretch.mapping == next.mapping && stretch.range.end == next.range.start &&
                       stretch.cls == next.cls && stretch.matches == next.matches &&
                       stretch.sole == next.sole && stretch.on_lru == next.on_lru &&
                       stretch.folio_pages == next.folio_pages;
    if (!alike) return false;
    if (stretch.folio_pages.value_or(1) > 1) {
        const std::uint64_t pages = stretch.range.size().value / page_size;
        const bool in_step = (stretch.folio_page + pages) % *stretch.folio_pages == next.folio_page;
        if (!in_step || (next.folio_page != 0 && next.first_frame != stretch.last_frame + 1))
            return false;
        stretch.last_frame = next.last_frame;
    }
    stretch.range.end = next.range.end;
    return true;
}

} // namespace pagesift
