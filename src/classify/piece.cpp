// SPDX-License-Identifier: MIT
#include "classify/piece.hpp"

#include "pagesift/abi.hpp"

#include <algorithm>
#include <bit>

namespace pagesift {

using namespace abi;

PieceBuilder::PieceBuilder(const PieceContext& context, PieceResult& result)
    : context_(context),
      result_(result),
      table_order_(static_cast<unsigned>(std::bit_width(context.host.entries_per_table())) - 1) {}

void PieceBuilder::add(std::size_t mapping, const PageBlock& block) {
    if (!tally_ || mapping != mapping_) {
        mapping_ = mapping;
        result_.tallies.emplace_back(mapping, Tally{});
        tally_ = &result_.tallies.back().second;
        classifier_.emplace(context_.host, context_.mappings[mapping]);
    }
    if (block.uniform || block.entries.empty())
        add_uniform(block);
    else
        add_dense(block);
}

PageFacts PieceBuilder::facts(const PageBlock& block, std::size_t i) const {
    PageFacts page;
    page.entry = block.entries[i];
    if (!block.cache.empty()) page.cache = block.cache[i];
    // Frame 0 is never a user's page: it stands for a number that was hidden.
    const bool framed = (page.entry & PM_PFRAME_MASK) != 0;
    if (!block.flags.empty() && framed && block.flags[i] != 0) page.flags = block.flags[i];
    if (!(page.entry & PM_PRESENT)) return page;
    if (!block.map_counts.empty() && block.map_counts[i] != 0) page.map_count = block.map_counts[i];
    if (!block.zero_page.empty()) page.zero_page = block.zero_page[i] != 0;
    if (!block.content.empty()) page.content = block.content[i];
    if (!block.entry_bits.empty() && (block.entry_bits[i] & EntryBits::known)) {
        page.young = block.entry_bits[i] & EntryBits::young ? Tri::yes : Tri::no;
        page.entry_dirty = block.entry_bits[i] & EntryBits::dirty ? Tri::yes : Tri::no;
    }
    if (!block.pmd_mapped.empty()) {
        page.pmd_mapped = block.pmd_mapped[i] ? Tri::yes : Tri::no;
    } else if (!page.flags) {
        page.pmd_mapped = Tri::unknown;
    } else if (!block.folio_orders.empty() && block.folio_orders[i] >= table_order_) {
        page.pmd_mapped = Tri::unknown;
    }
    return page;
}

void PieceBuilder::add_uniform(const PageBlock& block) {
    const std::uint64_t pages = block.range.size().value / context_.host.page_size;
    PageClass cls;
    cls.backing = context_.mappings[mapping_].backing;
    if (block.entries.empty()) {
        result_.complete = false;
    } else {
        cls = classifier_->classify(facts(block, 0));
        note_slots(block.range, block.entries[0], cls);
    }
    finish(block, 0, pages, cls);
}

namespace {

/// Whether page @p i of the block is what the page before it is, by all that facts() takes: of the
/// frame that there is one.
bool is_as_before(const PageBlock& block, std::size_t i) {
    const auto same = [i](const auto& column) {
        return column.empty() || column[i] == column[i - 1];
    };
    const std::uint64_t entry = block.entries[i], before = block.entries[i - 1];
    return ((entry ^ before) & ~PM_PFRAME_MASK) == 0 && (entry & PM_PRESENT) != 0 &&
           (entry & PM_PFRAME_MASK) != 0 && (before & PM_PFRAME_MASK) != 0 && same(block.flags) &&
           same(block.map_counts) && same(block.folio_orders) && same(block.pmd_mapped) &&
           same(block.zero_page) && same(block.cache) && same(block.content) &&
           same(block.entry_bits);
}

} // namespace

void PieceBuilder::add_dense(const PageBlock& block) {
    const std::size_t n = block.entries.size();
    std::size_t first = 0;
    PageClass current = classifier_->classify(facts(block, 0));
    std::uint64_t last_entry = block.entries[0];
    Cache last_cache = block.cache.empty() ? Cache::not_asked : block.cache[0];
    const auto close = [&](std::size_t end) {
        const std::uint64_t page_size = context_.host.page_size;
        note_slots({block.range.start + Bytes{first * page_size},
                    block.range.start + Bytes{end * page_size}},
                   block.entries[first], current);
        finish(block, first, end - first, current);
    };
    for (std::size_t i = 1; i < n; ++i) {
        const std::uint64_t entry = block.entries[i];
        const Cache cache = block.cache.empty() ? Cache::not_asked : block.cache[i];
        if (entry == last_entry && !(entry & PM_PRESENT) && cache == last_cache) continue;
        if (is_as_before(block, i)) continue;
        last_entry = entry;
        last_cache = cache;
        const PageClass cls = classifier_->classify(facts(block, i));
        if (cls == current) continue;
        close(i);
        first = i;
        current = cls;
    }
    close(n);
}

void PieceBuilder::note_slots(AddressRange range, std::uint64_t entry, PageClass cls) {
    std::uint8_t seen = 0;
    if (cls.kind == Kind::special && !(entry & PM_PRESENT))
        seen = SlotNote::hidden;
    else if (cls.state == State::marker)
        seen = SlotNote::marker;
    else if (!(entry & (PM_PRESENT | PM_SWAP)))
        return;
    else if (cls.folio == FolioSize::hugetlb)
        // Huge pages smaller than a slot are entries of an ordinary table.
        seen = context_.mappings[mapping_].page_size >= context_.host.slot_bytes()
                   ? SlotNote::huge_alone
                   : SlotNote::populated;
    else if (cls.attribute(Attribute::pmd_mapped) == Tri::yes)
        // A table is kept in reserve for splitting anonymous huge pages only (zap_huge_pmd).
        seen = cls.backing == Backing::anon ? SlotNote::huge : SlotNote::huge_alone;
    else if (cls.attribute(Attribute::pmd_mapped) == Tri::unknown &&
             cls.folio == FolioSize::large && cls.backing != Backing::anon)
        seen = SlotNote::maybe_huge;
    else
        seen = SlotNote::populated;
    const std::uint64_t slot_bytes = context_.host.slot_bytes();
    const std::uint64_t last = (range.end.value - 1) / slot_bytes;
    for (std::uint64_t slot = range.start.value / slot_bytes; slot <= last; ++slot)
        add_note(result_.slots, {slot, seen});
}

void PieceBuilder::finish(const PageBlock& block, std::size_t first, std::uint64_t pages,
                          PageClass cls) {
    const Tri match = context_.where.always()
                          ? Tri::yes
                          : context_.where.matches(context_.mappings[mapping_], cls);
    if (context_.stretches) add_stretches(block, first, pages, cls, match);
    if (!context_.where.always()) {
        if (match == Tri::unknown) result_.undecided_pages += pages;
        if (match != Tri::yes) {
            if (context_.runs && context_.all_runs) add_runs(block, first, pages, cls, match);
            return;
        }
    }
    if (cls.state != State::present) {
        tally_->add(cls, pages);
    } else {
        add_shares(block, first, static_cast<std::size_t>(pages), cls);
        add_sums(block, first, static_cast<std::size_t>(pages), cls);
        const bool framed = (block.entries[first] & PM_PFRAME_MASK) != 0;
        if (cls.kind != Kind::special && (block.flags.empty() || !framed))
            result_.frames_known = false;
    }
    if (context_.runs) add_runs(block, first, pages, cls, Tri::yes);
    if (context_.pages)
        for (std::size_t i = first; i < first + pages; ++i) add_page(block, i, cls);
}

/// The map counts of present pages: what of them is this process' share, and its own alone.
void PieceBuilder::add_shares(const PageBlock& block, std::size_t first, std::size_t pages,
                              PageClass cls) {
    const bool has_count = cls.kind != Kind::zero_page && cls.kind != Kind::special;
    const std::uint64_t page_shifted = context_.host.page_size << 12;
    std::uint64_t share = 0, alone = 0, unknown = 0;
    if (!has_count || cls.attribute(Attribute::exclusive) == Tri::yes) {
        tally_->add(cls, pages);
        share = page_shifted * pages;
        alone = pages;
    } else {
        for (std::size_t i = first; i < first + pages; ++i) {
            const std::uint32_t count =
                block.map_counts.empty() ? 0 : block.map_counts[block.uniform ? 0 : i];
            if (count == 0)
                ++unknown;
            else
                share += page_shifted / count;
            alone += count == 1;
        }
        // A shift, because page sizes are powers of two: page_shifted is one page.
        const int page_bits = std::countr_zero(page_shifted);
        const int excess = page_bits - static_cast<int>(Tally::share_bits);
        tally_->add(cls, pages, excess >= 0 ? share >> excess : share << -excess, unknown == 0);
    }
    // smaps counts hugetlb apart from Pss.
    if (!has_count || cls.folio == FolioSize::hugetlb) return;
    tally_->pss_shifted += share;
    tally_->pss_unknown_pages += unknown;
    tally_->private_pages += alone;
}

void PieceBuilder::add_sums(const PageBlock& block, std::size_t first, std::size_t pages,
                            PageClass cls) {
    const auto column = [&](std::size_t i) { return block.uniform ? 0 : i; };
    if (cls.kind == Kind::ksm || cls.kind == Kind::ksm_sole || cls.kind == Kind::ksm_zero)
        for (std::size_t i = first; i < first + pages; ++i) {
            const std::uint32_t count = block.map_counts.empty() ? 0 : block.map_counts[column(i)];
            tally_->ksm_sharer_pages += 4096 / std::max(count, 1u);
        }
    if (cls.kind != Kind::zero_page && cls.kind != Kind::special)
        tally_->content_candidates += pages;
    if (!block.content.empty())
        for (std::size_t i = first; i < first + pages; ++i) {
            tally_->content_zero += block.content[column(i)] == Content::zero;
            tally_->content_asked += block.content[column(i)] == Content::zero ||
                                     block.content[column(i)] == Content::other;
        }
    if (cls.folio == FolioSize::large && !block.folio_orders.empty())
        for (std::size_t i = first; i < first + pages; ++i) {
            const std::uint8_t order = block.folio_orders[column(i)];
            if (order == PageBlock::unknown_order) continue;
            tally_->add_folio_pages(order, 1);
            const std::uint64_t virtual_page =
                block.range.start.value / context_.host.page_size + i;
            const std::uint64_t low = (std::uint64_t{1} << order) - 1;
            const std::uint64_t pfn = block.entries[column(i)] & PM_PFRAME_MASK;
            tally_->folio_unaligned_pages += (virtual_page & low) != (pfn & low);
        }
}

bool extend(Run& run, const Run& next, std::uint64_t page_size) {
    const bool alike = run.mapping == next.mapping && run.range.end == next.range.start &&
                       run.state == next.state && run.kind == next.kind &&
                       run.marker == next.marker && run.swap_type == next.swap_type &&
                       run.contents_read == next.contents_read && run.matches == next.matches;
    if (!alike) return false;
    if (run.swap_offset) {
        const std::uint64_t pages = run.range.size().value / page_size;
        run.swap_contiguous = run.swap_contiguous && next.swap_contiguous && next.swap_offset &&
                              *next.swap_offset == *run.swap_offset + pages;
    }
    run.range.end = next.range.end;
    for (unsigned a = 0; a < attribute_count; ++a) {
        const std::uint32_t mask = 3u << (2 * a);
        if ((run.attributes & mask) != (next.attributes & mask)) run.attributes |= mask;
    }
    return true;
}

namespace {

/// Where the swap entries of pages of a class stand; null: nowhere.
const std::vector<std::uint64_t>* swap_column(const PageBlock& block, PageClass cls) {
    if (cls.state == State::swapped) return &block.entries;
    if (cls.state == State::shmem_swapped && !block.swap_entries.empty())
        return &block.swap_entries;
    return nullptr;
}

} // namespace

void PieceBuilder::add_runs(const PageBlock& block, std::size_t first, std::uint64_t pages,
                            PageClass cls, Tri matches) {
    const auto address = [&](std::uint64_t i) {
        return block.range.start + Bytes{i * context_.host.page_size};
    };
    const auto* const swaps = swap_column(block, cls);
    const bool by_content =
        context_.all_runs && cls.state == State::present && !block.content.empty();
    const auto read = [&](std::size_t i) {
        const Content content = block.content[block.uniform ? 0 : i];
        return content == Content::zero || content == Content::other;
    };
    Run told;
    told.matches = matches;
    if (swaps) {
        for (std::size_t i = first; i < first + pages; ++i)
            add_run({address(i), address(i + 1)}, cls, (*swaps)[block.uniform ? 0 : i], told);
        return;
    }
    std::uint64_t from = first;
    if (by_content)
        for (std::size_t i = first; i < first + pages; ++i) {
            if (read(i) == told.contents_read) continue;
            if (i > from) add_run({address(from), address(i)}, cls, 0, told);
            told.contents_read = !told.contents_read;
            from = i;
        }
    add_run({address(from), address(first + pages)}, cls, 0, told);
}

void PieceBuilder::add_run(AddressRange range, PageClass cls, std::uint64_t swap_entry, Run told) {
    told.range = range;
    told.mapping = mapping_;
    told.state = cls.state;
    told.kind = cls.kind;
    told.marker = cls.marker;
    told.attributes = cls.attributes;
    if (swap_entry & PM_SWAP) {
        told.swap_type = swap_type(swap_entry);
        told.swap_offset = swap_offset(swap_entry);
        told.swap_contiguous = true;
    }
    if (result_.runs.empty() || !extend(result_.runs.back(), told, context_.host.page_size))
        result_.runs.push_back(told);
}

void PieceBuilder::add_page(const PageBlock& block, std::size_t i, PageClass cls) {
    const std::size_t column = block.uniform ? 0 : i;
    Page page;
    page.address = block.range.start + Bytes{i * context_.host.page_size};
    page.mapping = mapping_;
    page.cls = cls;
    if (block.entries.empty()) {
        result_.pages.push_back(page);
        return;
    }
    const std::uint64_t entry = block.entries[column];
    const PageFacts known = facts(block, column);
    if (const auto* const swaps = swap_column(block, cls)) {
        if (const std::uint64_t swap = (*swaps)[column]; swap & PM_SWAP) {
            page.swap_type = swap_type(swap);
            page.swap_offset = swap_offset(swap);
        }
    } else if (cls.state == State::present) {
        if (const std::uint64_t pfn = entry & PM_PFRAME_MASK; pfn != 0) page.pfn = pfn;
        page.flags = known.flags;
        if (known.map_count)
            page.sharers = known.map_count;
        else if (entry & PM_MMAP_EXCLUSIVE)
            page.sharers = 1;
        if (cls.folio == FolioSize::small)
            page.folio_pages = 1;
        else if (!block.folio_orders.empty() &&
                 block.folio_orders[column] != PageBlock::unknown_order) {
            const unsigned order = block.folio_orders[column];
            page.folio_pages = std::uint64_t{1} << order;
            const std::uint64_t low = *page.folio_pages - 1;
            page.folio_aligned = page.pfn && (page.address.value / context_.host.page_size & low) ==
                                                 (*page.pfn & low);
        }
    }
    result_.pages.push_back(page);
}

} // namespace pagesift
