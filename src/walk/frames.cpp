// SPDX-License-Identifier: MIT
// Struct pages: include/linux/mm_types.h, page-flags.h.
#include "pagesift/abi.hpp"
#include "walk/gather.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

namespace pagesift::walk {

namespace {

std::uint64_t struct_page(const Kernel& kernel, std::uint64_t frame) {
    return kernel.bases.vmemmap + frame * kernel.layout.page_bytes;
}

/// The largest folios there are: hugetlb's of 16 GiB (arm64 with pages of 64 KiB) have 2^18 pages,
/// those of 1 GiB as many with pages of 4 KiB (include/linux/mmzone.h: MAX_FOLIO_ORDER).
constexpr std::uint64_t most_folio_pages = std::uint64_t{1} << 18;

std::uint32_t load_half(const std::byte* at) {
    std::uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

/// The head of the folio that page @p frame is a tail of, by its word without bit 0; empty where no
/// tail has such a word. On newer kernels (7.2; not 6.18) that word may be no address but a mask
/// for the tail's own (include/linux/page-flags.h: set_compound_head, compound_info_has_mask).
/// Which of the two each word shows itself: it must make sense as one of them and not as the other.
std::optional<std::uint64_t> head_of(const Kernel& kernel, std::uint64_t frame,
                                     std::uint64_t word) {
    const std::uint64_t page_bytes = kernel.layout.page_bytes;
    const std::uint64_t offset = word - kernel.bases.vmemmap;
    std::optional<std::uint64_t> pointed, masked;
    if (offset % page_bytes == 0 && offset / page_bytes < frame) pointed = offset / page_bytes;
    // A mask's ones end where the struct pages of a whole folio do, and folios are aligned.
    const std::uint64_t size = ~word + 1;
    if (kernel.layout.compound_info && std::has_single_bit(page_bytes) &&
        std::has_single_bit(size) && size > page_bytes && size / page_bytes <= most_folio_pages) {
        const std::uint64_t at = (struct_page(kernel, frame) & word) - kernel.bases.vmemmap;
        const std::uint64_t head = at / page_bytes;
        if (head % (size / page_bytes) == 0 && head < frame) masked = head;
    }
    if (pointed && masked) return {};
    return pointed ? pointed : masked;
}

class FrameReader {
public:
    FrameReader(KernelMemory& memory, const Kernel& kernel)
        : memory_(memory), kernel_(kernel), layout_(kernel.layout) {
        // One piece from the first to the last member that is wanted.
        bytes_ = layout_.page_flags + 8;
        for (const auto member : {layout_.page_compound_head, layout_.folio_mapping})
            if (member) bytes_ = std::max(bytes_, *member + 8);
        if (layout_.page_mapcount) bytes_ = std::max(bytes_, *layout_.page_mapcount + 4);
    }

    void run(std::span<const std::uint64_t> frames, std::span<Frame> out) {
        tails_.clear();
        read_elements(
            memory_, frames.size(), bytes_, layout_.page_bytes,
            [&](std::size_t i) { return struct_page(kernel_, frames[i]); },
            [&](std::size_t i, const std::byte* page) { out[i] = take(frames[i], page, i); });
        // All pages of a folio share its head, and mostly stand together.
        heads_.clear();
        for (const Tail& tail : tails_)
            if (heads_.empty() || heads_.back() != tail.head) heads_.push_back(tail.head);
        head_frames_.assign(heads_.size(), Frame{});
        read_each(
            memory_, heads_.size(), bytes_,
            [&](std::size_t i) { return struct_page(kernel_, heads_[i]); },
            [&](std::size_t i, const std::byte* page) { head_frames_[i] = take_head(i, page); });
        std::size_t head = 0;
        for (const Tail& tail : tails_) {
            while (heads_[head] != tail.head) ++head;
            out[tail.index] = head_frames_[head];
        }
    }

private:
    struct Tail {
        std::size_t index;
        std::uint64_t head;
    };

    /// A page as it is read; of a tail only where its head is, which is read afterwards.
    Frame take(std::uint64_t frame, const std::byte* page, std::size_t index) {
        if (!page || frame >= kernel_.bases.frame_end || !layout_.page_compound_head) return {};
        const std::uint64_t compound = load_word(page + *layout_.page_compound_head);
        if (!(compound & 1)) {
            Frame found = whole(frame, page);
            const bool is_head = (found.flags >> layout_.PG_head & 1) != 0;
            if (!is_head && layout_.page_mapcount)
                found.map_count = load_half(page + *layout_.page_mapcount) + 1;
            return found;
        }
        if (const auto head = head_of(kernel_, frame, compound - 1))
            tails_.push_back({index, *head});
        return {};
    }

    Frame take_head(std::size_t index, const std::byte* page) const {
        if (!page) return {};
        // Not a head any more: the folio was split or freed meanwhile.
        if (load_word(page + *layout_.page_compound_head) & 1) return {};
        Frame found = whole(heads_[index], page);
        return found.flags >> layout_.PG_head & 1 ? found : Frame{};
    }

    Frame whole(std::uint64_t frame, const std::byte* page) const {
        Frame found;
        found.known = true;
        found.head = frame;
        found.flags = load_word(page + layout_.page_flags);
        if (layout_.folio_mapping) found.anon = (load_word(page + *layout_.folio_mapping) & 1) != 0;
        return found;
    }

    KernelMemory& memory_;
    const Kernel& kernel_;
    const KernelLayout& layout_;
    std::uint32_t bytes_;
    std::vector<Tail> tails_;
    std::vector<std::uint64_t> heads_;
    std::vector<Frame> head_frames_;
};

} // namespace

void read_frames(KernelMemory& memory, const Kernel& kernel, std::span<const std::uint64_t> frames,
                 std::span<Frame> out) {
    assert(frames.size() == out.size());
    FrameReader{memory, kernel}.run(frames, out);
}

void read_page_tables(KernelMemory& memory, const Kernel& kernel,
                      std::span<const std::uint64_t> frames, std::span<std::uint8_t> out) {
    static constexpr std::uint8_t unknown = 0xff;
    assert(frames.size() == out.size());
    const KernelLayout& layout = kernel.layout;
    std::fill(out.begin(), out.end(), unknown);
    // A type stands in the top byte (6.12). Before that types were bits, which no BTF knows.
    if (!layout.page_type || !layout.PGTY_table || *layout.PGTY_table > 0xff) return;
    read_each(
        memory, frames.size(), 4,
        [&](std::size_t i) { return struct_page(kernel, frames[i]) + *layout.page_type; },
        [&](std::size_t i, const std::byte* at) {
            if (at && frames[i] < kernel.bases.frame_end)
                out[i] = load_half(at) >> 24 == *layout.PGTY_table ? 1 : 0;
        });
}

} // namespace pagesift::walk
