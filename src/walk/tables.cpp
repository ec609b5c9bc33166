// SPDX-License-Identifier: MIT
// The page-table walk. Tables are read in batches together with the entries that named them; a
// table is believed when its naming entry is still what it was. Where it is not, the whole way from
// the top is gone again for that slot, because the table that held the entry may be gone as well.
#include "walk/tables.hpp"
#include "walk/gather.hpp"

#include <algorithm>
#include <cassert>

namespace pagesift::walk {

std::optional<Place> locate(KernelMemory& memory, const Kernel& kernel, std::uint64_t pgd,
                            std::uint64_t address, unsigned stop_level) {
    const EntryFormat& format = kernel.entries;
    std::vector<Place> way;
    std::uint64_t table = pgd;
    for (unsigned level = format.levels; level > stop_level; --level) {
        const std::uint64_t index =
            address >> format.shift(level) & (format.entries_per_table() - 1);
        Place place{table + index * 8, 0, level, {}};
        const auto entry = read_word(memory, place.named_at);
        if (!entry) return {};
        place.entry = *entry;
        place.naming = level > 1 ? format.name(format, *entry, level)
                                 : Naming{Naming::Kind::leaf}; // a PTE names no table
        way.push_back(place);
        if (place.naming.kind != Naming::Kind::table) break;
        if (place.naming.frame >= kernel.bases.frame_end) return {};
        table = kernel.bases.direct_map + (place.naming.frame << format.page_shift);
    }
    // An entry that was read from a table which went away meanwhile is nobody's.
    for (const Place& place : way) {
        const auto again = read_word(memory, place.named_at);
        if (!again || !format.same_table(*again, place.entry)) return {};
    }
    return way.back();
}

namespace {

constexpr std::size_t batch_tables = 16; // more is not faster: the copies should stay in the cache
constexpr unsigned most_tries = 4;
constexpr unsigned most_levels = 5;

/// Something that an entry says of a stretch of addresses. Without an entry: nothing is there.
struct Item {
    enum class Kind : std::uint8_t { gap, table, leaf, unknown } kind = Kind::gap;
    std::uint8_t leaf_level = 0;
    std::uint8_t tries = 0;
    AddressRange range;         ///< clipped
    std::uint64_t start = 0;    ///< of the table or leaf, not clipped
    std::uint64_t entry = 0;    ///< of a table or leaf
    std::uint64_t named_at = 0; ///< address of that entry; 0: the top table, which has none
    std::uint64_t table_frame = 0;
    std::uint64_t table_at = 0; ///< address of the table
};

class Walk {
public:
    Walk(KernelMemory& memory, const Kernel& kernel, std::uint64_t pgd,
         const std::function<void(const SlotRun&)>& sink)
        : memory_(memory), kernel_(kernel), format_(kernel.entries), pgd_(pgd), sink_(sink) {
        const std::size_t page = format_.page_bytes();
        batch_ = std::min({batch_tables, memory.most_pieces() / 2,
                           memory.most_bytes() / (page + sizeof(std::uint64_t))});
    }

    TableCounts run(AddressRange range) {
        const std::uint64_t end = std::uint64_t{1} << format_.address_bits;
        const AddressRange user = range.intersect({Address{0}, Address{end}});
        if (!user.empty()) {
            Item top{Item::Kind::table};
            top.range = user;
            top.table_at = pgd_;
            visit(format_.levels, {&top, 1});
        }
        if (!range.empty() && range.end.value > end)
            give_unknown({std::max(range.start, Address{end}), range.end});
        flush_gap();
        return counts_;
    }

private:
    /// Goes through items of one level: their tables hold the entries of @p level.
    void visit(unsigned level, std::span<Item> items) {
        for (std::size_t i = 0; i < items.size();) {
            if (items[i].kind != Item::Kind::table) {
                give(items[i++]);
                continue;
            }
            i += read_batch(level, items.subspan(i));
        }
    }

    /// Reads the next tables of @p items, and handles items up to the first that is left for the
    /// next batch or has to be read again. @return how many were handled
    std::size_t read_batch(unsigned level, std::span<Item> items) {
        pieces_.clear();
        std::size_t last = 0, tables = 0;
        for (; last < items.size() && tables < batch_; ++last) {
            if (items[last].kind != Item::Kind::table) continue;
            pieces_.push_back({items[last].table_at, table_bytes(level)});
            ++tables;
        }
        for (std::size_t i = 0; i < last; ++i)
            if (items[i].kind == Item::Kind::table && items[i].named_at != 0)
                pieces_.push_back({items[i].named_at, sizeof(std::uint64_t)});
        const Copied copied = read_checked(memory_, pieces_);
        if (level == 1) return give_tables(items.first(last), tables, copied);
        return descend(level, items.first(last), tables, copied);
    }

    std::uint32_t table_bytes(unsigned level) const {
        return std::uint32_t{8} << (level == format_.levels ? format_.top_index_bits
                                                            : format_.index_bits);
    }

    /// Whether the table that item number @p table of this batch names is to be believed.
    bool is_same(const Item& item, std::size_t table, std::size_t tables, unsigned level,
                 const Copied& copied) const {
        if (!copied.good[table]) return false;
        if (item.named_at == 0) return true;
        if (!copied.good[tables + table]) return false;
        const std::byte* again =
            copied.bytes.data() + tables * table_bytes(level) + table * sizeof(std::uint64_t);
        return format_.same_table(load_word(again), item.entry);
    }

    std::size_t give_tables(std::span<Item> items, std::size_t tables, const Copied& copied) {
        std::size_t table = 0;
        for (std::size_t i = 0; i < items.size(); ++i) {
            Item& item = items[i];
            if (item.kind != Item::Kind::table) {
                give(item);
                continue;
            }
            if (!is_same(item, table, tables, 1, copied)) {
                look_again(1, item);
                return i;
            }
            give_table(item, entries_of(copied, table, 1));
            ++table;
        }
        return items.size();
    }

    std::size_t descend(unsigned level, std::span<Item> items, std::size_t tables,
                        const Copied& copied) {
        std::vector<Item>& below = below_[level - 1];
        below.clear();
        std::size_t table = 0, i = 0;
        for (; i < items.size(); ++i) {
            Item& item = items[i];
            if (item.kind != Item::Kind::table) {
                below.push_back(item);
                continue;
            }
            if (!is_same(item, table, tables, level, copied)) {
                look_again(level, item);
                break;
            }
            ++counts_.tables[level - 1];
            unfold(level, item, entries_of(copied, table, level), below);
            ++table;
        }
        // The memory's buffer is free again: all that counts is in `below`.
        visit(level - 1, below);
        return i;
    }

    /// The entries of a table in place; in a copy only if a reader gives them out of alignment.
    std::span<const std::uint64_t> entries_of(const Copied& copied, std::size_t table,
                                              unsigned level) {
        const std::uint32_t bytes = table_bytes(level);
        const std::byte* at = copied.bytes.data() + table * bytes;
        const std::size_t count = bytes / sizeof(std::uint64_t);
        if (reinterpret_cast<std::uintptr_t>(at) % alignof(std::uint64_t) == 0)
            return {reinterpret_cast<const std::uint64_t*>(at), count};
        aligned_.resize(count);
        std::memcpy(aligned_.data(), at, bytes);
        return aligned_;
    }

    /// Adds what the entries of a table above PTE level say of its part of the range.
    void unfold(unsigned level, const Item& item, std::span<const std::uint64_t> entries,
                std::vector<Item>& below) const {
        const std::uint64_t span = format_.span(level);
        const std::uint64_t first = (item.range.start.value - item.start) / span;
        const std::uint64_t last = (item.range.end.value - 1 - item.start) / span;
        for (std::uint64_t i = first; i <= last; ++i) {
            const std::uint64_t raw = entries[i];
            const std::uint64_t start = item.start + i * span;
            // The end of what comes next, clipped without overflow.
            const auto clip = [&](std::uint64_t entry) {
                const std::uint64_t from = std::max(start, item.range.start.value);
                const std::uint64_t to =
                    entry == last ? item.range.end.value : item.start + (entry + 1) * span;
                return AddressRange{Address{from}, Address{to}};
            };
            if (raw == 0) {
                while (i < last && entries[i + 1] == 0) ++i;
                add_gap(clip(i), below);
                continue;
            }
            Item child;
            child.range = clip(i);
            child.start = start;
            child.named_at = item.table_at + i * sizeof(std::uint64_t);
            name(child, raw, level);
            if (child.kind == Item::Kind::gap)
                add_gap(child.range, below);
            else
                below.push_back(child);
        }
    }

    static void add_gap(AddressRange range, std::vector<Item>& items) {
        if (!items.empty() && items.back().kind == Item::Kind::gap &&
            items.back().range.end == range.start) {
            items.back().range.end = range.end;
            return;
        }
        Item gap;
        gap.range = range;
        items.push_back(gap);
    }

    /// Makes @p item what the entry of @p level says that it is.
    void name(Item& item, std::uint64_t raw, unsigned level) const {
        const Naming naming = format_.name(format_, raw, level);
        item.entry = raw;
        switch (naming.kind) {
        case Naming::Kind::none: item.kind = Item::Kind::gap; return;
        case Naming::Kind::odd: item.kind = Item::Kind::unknown; return;
        case Naming::Kind::leaf:
            item.kind = Item::Kind::leaf;
            item.leaf_level = static_cast<std::uint8_t>(level);
            return;
        case Naming::Kind::table: break;
        }
        const bool in_ram = naming.frame < kernel_.bases.frame_end;
        item.kind = in_ram ? Item::Kind::table : Item::Kind::unknown;
        item.table_frame = naming.frame;
        item.table_at = kernel_.bases.direct_map + (naming.frame << format_.page_shift);
    }

    /// Finds out anew what stands for @p item, whose table (with entries of @p level) could not be
    /// believed; after a few tries it is unknown.
    void look_again(unsigned level, Item& item) {
        ++counts_.retries;
        if (++item.tries >= most_tries || item.named_at == 0) {
            item.kind = Item::Kind::unknown;
            return;
        }
        const auto place = locate(memory_, kernel_, pgd_, item.start, level);
        if (!place) return; // changed again: the old entry will not be believed either
        item.named_at = place->named_at;
        name(item, place->entry, place->level);
        // A huge entry may have taken the place of tables that reached further down.
        item.start &= ~(format_.span(place->level) - 1);
    }

    void give(const Item& item) {
        switch (item.kind) {
        case Item::Kind::gap: add_to_gap(item.range); return;
        case Item::Kind::leaf: {
            SlotRun run{item.range, TableState::huge};
            run.slot_start = Address{item.start};
            run.leaf = item.entry;
            run.leaf_level = item.leaf_level;
            give(run);
            return;
        }
        case Item::Kind::unknown: give_unknown(item.range); return;
        case Item::Kind::table: assert(false); return;
        }
    }

    void give_table(const Item& item, std::span<const std::uint64_t> entries) {
        ++counts_.tables[0];
        SlotRun run{item.range, format_.state(entries), entries};
        run.slot_start = Address{item.start};
        run.table_frame = item.table_frame;
        give(run);
    }

    void give_unknown(AddressRange range) {
        ++counts_.unknown;
        give(SlotRun{range, TableState::unknown});
    }

    void give(const SlotRun& run) {
        flush_gap();
        sink_(run);
    }

    void add_to_gap(AddressRange range) {
        if (gap_.empty())
            gap_ = range;
        else
            gap_.end = range.end;
    }

    void flush_gap() {
        if (gap_.empty()) return;
        const SlotRun run{gap_, TableState::no_table};
        gap_ = {};
        sink_(run);
    }

    KernelMemory& memory_;
    const Kernel& kernel_;
    const EntryFormat& format_;
    std::uint64_t pgd_;
    const std::function<void(const SlotRun&)>& sink_;
    std::size_t batch_;
    TableCounts counts_;
    AddressRange gap_; ///< not handed on yet, because it may go on
    std::vector<Piece> pieces_;
    std::vector<std::uint64_t> aligned_;
    std::array<std::vector<Item>, most_levels> below_; ///< by level, bounded by one batch each
};

} // namespace

TableCounts walk_tables(KernelMemory& memory, const Kernel& kernel, std::uint64_t pgd,
                        AddressRange range, const std::function<void(const SlotRun&)>& sink) {
    assert(kernel.entries.levels >= 2 && kernel.entries.levels <= most_levels);
    return Walk{memory, kernel, pgd, sink}.run(range);
}

std::optional<std::uint64_t> translate(KernelMemory& memory, const Kernel& kernel,
                                       std::uint64_t pgd, Address address) {
    const auto place = locate(memory, kernel, pgd, address.value, 0);
    if (!place || place->naming.kind != Naming::Kind::leaf) return {};
    const Entry entry = kernel.entries.decode(kernel.entries, place->entry, place->level);
    if (entry.kind != EntryKind::present) return {};
    const std::uint64_t inside = address.value & (kernel.entries.span(place->level) - 1);
    return entry.frame + (inside >> kernel.entries.page_shift);
}

} // namespace pagesift::walk
