// SPDX-License-Identifier: MIT
// Pages that stand for themselves, in the words of /proc: fs/proc/page.c, mm/util.c.
#include "pagesift/abi.hpp"
#include "walk/gather.hpp"

#include <algorithm>
#include <cassert>

namespace pagesift::walk {

namespace {

// include/linux/page-flags.h: PAGE_MAPPING_FLAGS, of page.mapping
constexpr std::uint64_t MAPPING_ANON = 1;
constexpr std::uint64_t MAPPING_KSM = 3;
constexpr std::uint64_t MAPPING_FLAGS = 3;

constexpr std::uint64_t bit(std::uint32_t number) { return std::uint64_t{1} << number; }

class PlainPages {
public:
    PlainPages(KernelMemory& memory, const Kernel& kernel)
        : memory_(memory),
          kernel_(kernel),
          flags_(kernel.layout.page_flags),
          compound_head_(*kernel.layout.page_compound_head),
          mapping_(*kernel.layout.folio_mapping),
          map_count_(*kernel.layout.page_mapcount),
          not_plain_(bit(kernel.layout.PG_head) | bit(*kernel.layout.PG_reserved) |
                     (kernel.layout.PG_hwpoison ? bit(*kernel.layout.PG_hwpoison) : 0)),
          swap_cache_(bit(*kernel.layout.PG_swapbacked) | bit(*kernel.layout.PG_swapcache)),
          used_(bit(kernel.layout.PG_referenced) |
                (kernel.layout.PG_young ? bit(*kernel.layout.PG_young) : 0)) {
        for (const ShownFlag& shown : kernel.layout.shown_flags) mask_ |= bit(shown.bit);
        mask_ |= swap_cache_;
    }

    void run(std::span<const std::uint64_t> frames, std::span<PlainPage> out) {
        const std::uint32_t bytes =
            std::max({flags_ + 8, compound_head_ + 8, mapping_ + 8, map_count_ + 4});
        const std::uint64_t vmemmap = kernel_.bases.vmemmap;
        const std::uint32_t page_bytes = kernel_.layout.page_bytes;
        read_elements(
            memory_, frames.size(), bytes, page_bytes,
            [&](std::size_t i) { return vmemmap + frames[i] * page_bytes; },
            [&](std::size_t i, const std::byte* page) {
                out[i] = page && frames[i] < kernel_.bases.frame_end ? take(page) : PlainPage{};
            });
    }

private:
    PlainPage take(const std::byte* page) {
        const std::uint64_t flags = load_word(page + flags_);
        const std::uint64_t mapping = load_word(page + mapping_);
        std::int32_t count;
        std::memcpy(&count, page + map_count_, sizeof count);
        // Bit 0 of compound_head makes a tail. Below 0 are the unmapped, and those with a type.
        if ((flags & not_plain_) || (load_word(page + compound_head_) & 1) || mapping == 0 ||
            (mapping & MAPPING_FLAGS) == 2 || count < 0)
            return {};
        return {words_of(flags) | kind_of(mapping & MAPPING_FLAGS),
                static_cast<std::uint32_t>(count) + 1, (flags & used_) != 0};
    }

    static std::uint64_t kind_of(std::uint64_t mapping) {
        return abi::kpf(abi::KPF_MMAP) |
               ((mapping & MAPPING_ANON) != 0 ? abi::kpf(abi::KPF_ANON) : 0) |
               (mapping == MAPPING_KSM ? abi::kpf(abi::KPF_KSM) : 0);
    }

    /// Neighbours mostly have the same flags.
    std::uint64_t words_of(std::uint64_t flags) {
        flags &= mask_;
        if (flags == last_flags_) return last_words_;
        last_flags_ = flags;
        last_words_ = (flags & swap_cache_) == swap_cache_ ? abi::kpf(abi::KPF_SWAPCACHE) : 0;
        for (const ShownFlag& shown : kernel_.layout.shown_flags)
            last_words_ |= (flags >> shown.bit & 1) << shown.kpf_bit;
        return last_words_;
    }

    KernelMemory& memory_;
    const Kernel& kernel_;
    std::uint32_t flags_, compound_head_, mapping_, map_count_;
    std::uint64_t not_plain_, swap_cache_, used_, mask_ = 0;
    std::uint64_t last_flags_ = ~std::uint64_t{0}, last_words_ = 0;
};

} // namespace

bool has_plain_pages(const KernelLayout& layout) { return missing_of_plain_pages(layout).empty(); }

std::string missing_of_plain_pages(const KernelLayout& layout) {
    using L = KernelLayout;
    static constexpr std::pair<std::optional<std::uint32_t> L::*, std::string_view> needed[] = {
        {&L::page_compound_head, "page.compound_head"},
        {&L::folio_mapping, "folio.mapping"},
        {&L::page_mapcount, "page._mapcount"},
        {&L::PG_reserved, "pageflags.PG_reserved"},
        {&L::PG_swapbacked, "pageflags.PG_swapbacked"},
        {&L::PG_swapcache, "pageflags.PG_swapcache"},
    };
    std::string missing;
    for (const auto& [member, name] : needed) {
        if (layout.*member) continue;
        if (!missing.empty()) missing += ", ";
        missing += name;
    }
    return missing;
}

void read_plain_pages(KernelMemory& memory, const Kernel& kernel,
                      std::span<const std::uint64_t> frames, std::span<PlainPage> out) {
    assert(frames.size() == out.size() && has_plain_pages(kernel.layout));
    PlainPages{memory, kernel}.run(frames, out);
}

} // namespace pagesift::walk
