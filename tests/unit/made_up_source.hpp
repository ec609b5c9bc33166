// SPDX-License-Identifier: MIT
// A source that says what a test tells it to, page by page, and fails where it is told to.
#pragma once

#include "pagesift/source.hpp"

#include <functional>
#include <map>

namespace pagesift::test {

/// What the made-up kernel holds at one page.
struct MadeUpPage {
    std::uint64_t entry = 0;
    std::uint64_t flags = 0;
    std::uint32_t map_count = 0;
    Cache cache = Cache::not_asked;
    Content content = Content::not_read;
    std::uint64_t swap_entry = 0; ///< behind an entry that is none
    std::uint8_t order = 0;
    bool pmd_mapped = false;
    std::uint8_t entry_bits = 0; ///< EntryBits
};

class MadeUpSource final : public Source {
public:
    HostFacts facts;
    ProcessText text;
    std::vector<Mapping> maps;
    std::map<std::uint64_t, MadeUpPage> pages; ///< by address; what is missing is none
    std::optional<std::vector<AddressRange>> tables;
    std::vector<Gap> known_gaps;
    bool flags_readable = true;
    bool entry_bits_read = false;
    bool huge_shown = true;    ///< PAGEMAP_SCAN tells which entries are huge
    std::size_t forgotten = 0; ///< times that what was read ahead was
    /// Called before each block; may throw, or return false for "the target is gone".
    std::function<bool(AddressRange)> before_block;

    MadeUpSource() {
        facts.frames_visible = true;
        facts.ksm_flag_true = true;
        facts.soft_dirty = false;
        text.pid = 42;
        text.comm = "made up";
    }

    Mapping& map(std::uint64_t start, std::uint64_t end, Backing backing = Backing::anon) {
        Mapping m;
        m.range = {Address{start}, Address{end}};
        m.readable = m.writable = true;
        m.backing = backing;
        m.page_size = facts.page_size;
        maps.push_back(m);
        return maps.back();
    }

    const HostFacts& host() const override { return facts; }
    ProcessText process() override { return text; }
    std::vector<Mapping> mappings(const Want&) override { return maps; }
    std::vector<Gap> gaps() const override { return known_gaps; }
    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override {
        if (!tables) return {};
        std::vector<AddressRange> found;
        for (const AddressRange& asked : ranges)
            for (const AddressRange& table : *tables)
                if (const auto part = asked.intersect(table); !part.empty()) found.push_back(part);
        return found;
    }

    void forget_read_ahead() override { ++forgotten; }

    void read_block(const Mapping&, AddressRange wanted, const Want&, PageBlock& block) override {
        block.clear();
        if (before_block && !before_block(wanted)) return;
        const auto next = pages.lower_bound(wanted.start.value);
        const bool hole = next == pages.end() || next->first > wanted.start.value;
        if (hole) {
            block.range = wanted;
            if (next != pages.end() && next->first < wanted.end.value)
                block.range.end = Address{next->first};
            block.uniform = true;
            block.entries = {0};
            return;
        }
        block.range.start = wanted.start;
        std::uint64_t at = wanted.start.value;
        for (auto page = next; page != pages.end() && page->first == at && at < wanted.end.value;
             ++page, at += facts.page_size) {
            block.entries.push_back(page->second.entry);
            if (flags_readable) block.flags.push_back(page->second.flags);
            block.map_counts.push_back(page->second.map_count);
            block.folio_orders.push_back(page->second.order);
            if (huge_shown) block.pmd_mapped.push_back(page->second.pmd_mapped);
            if (entry_bits_read) block.entry_bits.push_back(page->second.entry_bits);
            block.cache.push_back(page->second.cache);
            block.content.push_back(page->second.content);
            block.swap_entries.push_back(page->second.swap_entry);
        }
        block.range.end = Address{at};
    }
};

} // namespace pagesift::test
