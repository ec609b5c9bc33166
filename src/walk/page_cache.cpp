// SPDX-License-Identifier: MIT
// The page-cache tree of tmpfs: include/linux/xarray.h, mm/shmem.c. The tree is read level by level
// without its lock. Every node must name its tree, its parent, its place in it and its height: a
// freed node names another tree, or none (lib/xarray.c: xa_node_free).
#include "walk/gather.hpp"

#include <algorithm>

namespace pagesift::walk {

namespace {

// include/linux/xarray.h, swap.h: a value entry has 63 bits, of which the upper 5 are the swap type
constexpr unsigned swap_type_shift = 63 - 5;
constexpr std::uint64_t swap_offset_mask = (std::uint64_t{1} << swap_type_shift) - 1;
constexpr std::uint64_t first_node_entry = 4096; // internal entries up to here are no nodes
constexpr unsigned most_tries = 4;

constexpr bool is_value(std::uint64_t entry) { return (entry & 1) != 0; }
constexpr bool is_internal(std::uint64_t entry) { return (entry & 3) == 2; }
constexpr bool is_node(std::uint64_t entry) {
    return is_internal(entry) && entry > first_node_entry;
}

using Pages = std::span<CachedPage>;
using State = CachedPage::State;

/// Pages by their index in the file, both ends included: the last page has no end behind it.
struct Indexes {
    std::uint64_t first = 0, last = 0;
};

/// A node, and what it has to say of itself.
struct Node {
    std::uint64_t address = 0, parent = 0;
    std::uint64_t first = 0; ///< index of its first page
    unsigned shift = 0, offset = 0;
    bool is_root = false; ///< whose shift is not known before
};

class TreeWalk {
public:
    TreeWalk(KernelMemory& memory, const Kernel& kernel, std::uint64_t mapping, std::uint64_t first,
             Pages pages)
        : memory_(memory),
          kernel_(kernel),
          layout_(kernel.layout),
          tree_(mapping + layout_.address_space_i_pages),
          first_(first),
          pages_(pages) {
        while (1u << slot_bits_ < layout_.xa_node_slot_count) ++slot_bits_;
    }

    PageCacheCounts run() {
        if (pages_.empty()) return counts_;
        walk({first_, first_ + (pages_.size() - 1)});
        for (unsigned tries = 1; tries < most_tries; ++tries) {
            const auto doubtful = find_doubtful();
            if (doubtful.empty()) return counts_;
            counts_.retries += doubtful.size();
            for (const Indexes part : doubtful) walk(part);
        }
        give_up_twins();
        counts_.unknown = static_cast<std::uint64_t>(
            std::count_if(pages_.begin(), pages_.end(),
                          [](const CachedPage& page) { return page.state == State::unknown; }));
        return counts_;
    }

private:
    /// Fills the pages of @p part from the top of the tree.
    void walk(Indexes part) {
        fill(part, {});
        const auto head = read_word(memory_, tree_ + layout_.xarray_xa_head);
        if (!head) {
            fill(part, {State::unknown});
        } else if (is_node(*head)) {
            Node root;
            root.address = *head - 2;
            root.is_root = true;
            level_.assign(1, root);
            while (!level_.empty()) walk_level(part);
        } else if (part.first == 0) {
            // A lone entry is that of the first page.
            page_at(0) = meaning_of(*head, 0);
        }
    }

    /// Reads the nodes of one level, and leaves those of the next in level_.
    void walk_level(Indexes part) {
        next_.clear();
        const std::uint32_t bytes = layout_.xa_node_slots + layout_.xa_node_slot_count * 8;
        read_each(
            memory_, level_.size(), bytes, [&](std::size_t i) { return level_[i].address; },
            [&](std::size_t i, const std::byte* node) {
                ++counts_.nodes;
                Node& expected = level_[i];
                if (node && is_what_it_has_to_be(node, expected)) {
                    unfold(node, expected, part);
                } else {
                    ++counts_.refused;
                    fill(expected.is_root ? part : covered(expected, part), {State::unknown});
                }
            });
        level_.swap(next_);
    }

    /// Compares a node with what its parent said of it; a root only tells its shift now.
    bool is_what_it_has_to_be(const std::byte* node, Node& expected) const {
        const auto byte_at = [&](std::uint32_t at) { return std::to_integer<unsigned>(node[at]); };
        const unsigned shift = byte_at(layout_.xa_node_shift);
        if (load_word(node + layout_.xa_node_array) != tree_ ||
            load_word(node + layout_.xa_node_parent) != expected.parent)
            return false;
        if (expected.is_root) {
            expected.shift = shift;
            return shift < 64 && shift % slot_bits_ == 0;
        }
        return shift == expected.shift && byte_at(layout_.xa_node_offset) == expected.offset;
    }

    /// The last index below slot @p slot, or all there are.
    std::uint64_t last_of(const Node& node, std::uint64_t slot) const {
        const std::uint64_t most = ~std::uint64_t{0} >> node.shift;
        if (slot >= most) return ~std::uint64_t{0};
        return node.first + (((slot + 1) << node.shift) - 1);
    }

    /// What @p node and @p part have in common; the node is one that the part led to.
    Indexes covered(const Node& node, Indexes part) const {
        return {std::max(part.first, node.first),
                std::min(part.last, last_of(node, layout_.xa_node_slot_count - 1))};
    }

    void unfold(const std::byte* bytes, const Node& node, Indexes part) {
        const std::byte* slots = bytes + layout_.xa_node_slots;
        const std::uint64_t slot_end = layout_.xa_node_slot_count;
        std::uint64_t slot = part.first > node.first ? (part.first - node.first) >> node.shift : 0;
        for (; slot < slot_end; ++slot) {
            // Beyond what 64 bits can number, a root's slots are never used.
            if (slot > ~std::uint64_t{0} >> node.shift) return;
            const std::uint64_t first = node.first + (slot << node.shift);
            if (first > part.last) return;
            const std::uint64_t entry = load_word(slots + slot * 8);
            if (entry == 0) continue;
            const Indexes pages{std::max(first, part.first),
                                std::min(last_of(node, slot), part.last)};
            if (is_node(entry) && node.shift != 0) {
                next_.push_back({entry - 2, node.address, first, node.shift - slot_bits_,
                                 static_cast<unsigned>(slot)});
            } else if (is_internal(entry)) {
                give_sibling(slots, entry, slot, node, pages);
            } else {
                give(pages, entry, first);
            }
        }
    }

    /// A sibling entry holds the number of the slot in which its large folio or swap entry stands.
    /// Other internal entries say that the tree is changing.
    void give_sibling(const std::byte* slots, std::uint64_t entry, std::uint64_t slot,
                      const Node& node, Indexes pages) {
        const std::uint64_t canonical = entry >> 2;
        const std::uint64_t real = canonical < slot ? load_word(slots + canonical * 8) : 0;
        if (real == 0 || is_internal(real))
            fill(pages, {State::unknown});
        else
            give(pages, real, node.first + (canonical << node.shift));
    }

    /// One entry for several pages, of which it numbers the one at index @p first.
    void give(Indexes pages, std::uint64_t entry, std::uint64_t first) {
        for (std::uint64_t index = pages.first;; ++index) {
            page_at(index) = meaning_of(entry, index - first);
            if (index == pages.last) return;
        }
    }

    /// The page that is @p further pages behind the one that an entry numbers.
    CachedPage meaning_of(std::uint64_t entry, std::uint64_t further) const {
        if (is_value(entry)) {
            const std::uint64_t value = entry >> 1;
            return {State::swap, static_cast<std::uint8_t>(value >> swap_type_shift),
                    (value & swap_offset_mask) + further};
        }
        if (entry == 0) return {};
        const std::uint64_t offset = entry - kernel_.bases.vmemmap;
        const std::uint64_t frame = offset / layout_.page_bytes + further;
        // Anything but the address of a struct page is no folio.
        if (offset % layout_.page_bytes != 0 || frame >= kernel_.bases.frame_end)
            return {State::unknown};
        return {State::folio, 0, frame};
    }

    CachedPage& page_at(std::uint64_t index) { return pages_[index - first_]; }

    void fill(Indexes part, CachedPage with) {
        const auto begin = pages_.begin() + static_cast<std::ptrdiff_t>(part.first - first_);
        std::fill(begin, begin + static_cast<std::ptrdiff_t>(part.last - part.first + 1), with);
    }

    /// Two pages never share a swap entry; while a large one is split, its slots all hold the first
    /// page's (mm/shmem.c: shmem_split_large_entry).
    bool is_twin(std::size_t i) const {
        return i + 1 < pages_.size() && pages_[i].state == State::swap &&
               pages_[i] == pages_[i + 1];
    }

    /// Parts that have to be read again, whole nodes of the lowest level at a time.
    std::vector<Indexes> find_doubtful() const {
        std::vector<Indexes> parts;
        const std::uint64_t last = first_ + (pages_.size() - 1);
        const std::uint64_t within = layout_.xa_node_slot_count - 1;
        for (std::size_t i = 0; i < pages_.size(); ++i) {
            const bool twin = is_twin(i);
            if (pages_[i].state != State::unknown && !twin) continue;
            const std::uint64_t index = first_ + i;
            const std::uint64_t from = std::max(index & ~within, first_);
            const std::uint64_t to = std::min((index + (twin ? 1 : 0)) | within, last);
            if (!parts.empty() && (from <= parts.back().last || from - 1 == parts.back().last))
                parts.back().last = to;
            else
                parts.push_back({from, to});
        }
        return parts;
    }

    void give_up_twins() {
        for (std::size_t i = 0; i < pages_.size();) {
            std::size_t end = i + 1;
            while (is_twin(end - 1)) ++end;
            if (end - i > 1) fill({first_ + i, first_ + end - 1}, {State::unknown});
            i = end;
        }
    }

    KernelMemory& memory_;
    const Kernel& kernel_;
    const KernelLayout& layout_;
    std::uint64_t tree_;
    std::uint64_t first_;
    Pages pages_;
    unsigned slot_bits_ = 0;
    std::vector<Node> level_, next_;
    PageCacheCounts counts_;
};

} // namespace

PageCacheCounts walk_page_cache(KernelMemory& memory, const Kernel& kernel, std::uint64_t mapping,
                                std::uint64_t first, std::span<CachedPage> pages) {
    return TreeWalk{memory, kernel, mapping, first, pages}.run();
}

} // namespace pagesift::walk
