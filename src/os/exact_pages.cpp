// SPDX-License-Identifier: MIT
#include "os/exact_pages.hpp"

#include "os/file.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>

namespace pagesift::os {
namespace {

using abi::kpf;

/// One plain page in so many is compared with what /proc says of it; the first of a block is.
constexpr std::size_t pages_a_sample = 4096;
/// Pages between two that are asked of pagemap and read with them, because a call costs more.
constexpr std::uint32_t widest_gap = 64;

/// What a page keeps as long as it is mapped where it is.
constexpr std::uint64_t lasting_flags =
    kpf(abi::KPF_MMAP) | kpf(abi::KPF_ANON) | kpf(abi::KPF_SWAPBACKED) | kpf(abi::KPF_HUGE) |
    kpf(abi::KPF_THP) | kpf(abi::KPF_COMPOUND_HEAD) | kpf(abi::KPF_COMPOUND_TAIL) |
    kpf(abi::KPF_SLAB) | kpf(abi::KPF_NOPAGE) | kpf(abi::KPF_ZERO_PAGE) | kpf(abi::KPF_RESERVED) |
    kpf(abi::KPF_OFFLINE) | kpf(abi::KPF_PGTABLE);

/// Takes KPF_KSM from all but pages that the kernel's memory shows as KSM's, which are plain ones.
void mend_ksm(const KernelView& view, PageBlock& block) {
    constexpr auto ksm = kpf(abi::KPF_KSM);
    std::vector<std::uint32_t> indices;
    std::vector<std::uint64_t> frames;
    for (std::uint32_t i = 0; i < block.flags.size(); ++i) {
        if (!(block.flags[i] & ksm)) continue;
        block.flags[i] &= ~ksm;
        if (!(block.entries[i] & abi::PM_PRESENT)) continue;
        indices.push_back(i);
        frames.push_back(block.entries[i] & abi::PM_PFRAME_MASK);
    }
    std::vector<walk::PlainPage> pages(frames.size());
    walk::read_plain_pages(view.memory(), view.kernel(), frames, pages);
    for (std::size_t i = 0; i < pages.size(); ++i) block.flags[indices[i]] |= pages[i].flags & ksm;
}

/// Entries of pages under migration and the like, whose frame has flags as well.
bool names_a_frame(std::uint64_t word) {
    const unsigned type = abi::swap_type(word);
    return (word & abi::PM_SWAP) != 0 && type >= abi::FIRST_SPECIAL_SWAP_TYPE &&
           type != abi::SWP_PTE_MARKER;
}

} // namespace

ExactPages::ExactPages(ExactLens& lens, std::uint64_t top, int pagemap_fd,
                       const FrameReader& frames, Kernel kernel)
    : lens_(lens), top_(top), pagemap_fd_(pagemap_fd), frames_(frames), kernel_(kernel) {
    const auto view = lens_.lease();
    works_ =
        view->flags_trouble().empty() && frames.flags_error() == 0 && frames.counts_error() == 0;
}

/// One block, on one thread.
class ExactPages::Reading {
public:
    Reading(ExactPages& pages, PageBlock& block, std::span<const AddressRange> mappings)
        : pages_(pages),
          mappings_(mappings),
          view_(pages.lens_.lease()),
          format_(view_->kernel().entries),
          block_(block),
          first_page_(block.range.start.value >> format_.page_shift) {
        const auto count = block.range.size().value >> format_.page_shift;
        block_.entries.resize(count);
        block_.entry_bits.assign(count, 0);
        block_.flags.assign(count, 0);
    }

    bool run() {
        bool known = true;
        walk(block_.range, [&](const walk::SlotRun& run) {
            if (run.state == walk::TableState::unknown)
                known = false;
            else
                take(run);
        });
        if (!known || !add_soft_dirty()) return false;
        read_plain();
        std::sort(others_.begin(), others_.end());
        return read_others() && is_confirmed();
    }

private:
    template <class Sink> void walk(AddressRange range, Sink&& sink) const {
        walk::walk_tables(view_->memory(), view_->kernel(), pages_.top_, range, sink);
    }

    /// A new mapping is soft-dirty as a whole (VM_SOFTDIRTY), which no entry tells: pagemap does,
    /// of a page whose own entry is not. False: every such page was written to meanwhile, or
    /// pagemap could not be read.
    bool add_soft_dirty() {
        if (!pages_.kernel_.has_soft_dirty) return true;
        const std::span entries{block_.entries};
        if (mappings_.empty()) return add_soft_dirty(0, entries);
        return std::all_of(mappings_.begin(), mappings_.end(), [&](const AddressRange& range) {
            const auto at = (range.start - block_.range.start).value >> format_.page_shift;
            return add_soft_dirty(at,
                                  entries.subspan(at, range.size().value >> format_.page_shift));
        });
    }

    /// Of @p entries of one mapping, which begin at page @p first of the block.
    bool add_soft_dirty(std::size_t first, std::span<std::uint64_t> entries) {
        static constexpr unsigned tries = 4;
        std::size_t at = 0;
        for (unsigned i = 0; i < tries; ++i, ++at) {
            while (at < entries.size() && (entries[at] & abi::PM_SOFT_DIRTY)) ++at;
            if (at == entries.size()) return true;
            const std::uint64_t page = first_page_ + first + at;
            std::uint64_t said = 0;
            if (read_words(pages_.pagemap_fd_, page, {&said, 1}) != 1) return false;
            if (!(said & abi::PM_SOFT_DIRTY)) return true;
            const Address address{page << format_.page_shift};
            std::uint64_t word = abi::PM_SOFT_DIRTY;
            walk({address, address + Bytes{format_.page_bytes()}}, [&](const walk::SlotRun& run) {
                if (run.state != walk::TableState::unknown)
                    walk::write_pagemap(format_, run, {&word, 1});
            });
            if (word & abi::PM_SOFT_DIRTY) continue;
            for (std::uint64_t& entry : entries) entry |= abi::PM_SOFT_DIRTY;
            return true;
        }
        return false;
    }

    void take(const walk::SlotRun& run) {
        const std::uint64_t at = (run.range.start - block_.range.start).value >> format_.page_shift;
        const std::uint64_t count = run.range.size().value >> format_.page_shift;
        const std::span words = std::span{block_.entries}.subspan(at, count);
        walk::write_pagemap(format_, run, words);
        if (run.state == walk::TableState::huge)
            take_leaf(run, at, count);
        else if (run.state == walk::TableState::populated)
            take_entries(run, at, words);
    }

    static std::uint8_t bits_of(const walk::Entry& entry) {
        if (entry.kind != walk::EntryKind::present) return 0;
        return static_cast<std::uint8_t>(EntryBits::known | (entry.young ? EntryBits::young : 0) |
                                         (entry.dirty ? EntryBits::dirty : 0));
    }

    void take_entries(const walk::SlotRun& run, std::uint64_t at, std::span<std::uint64_t> words) {
        const std::uint64_t skipped =
            (run.range.start - run.slot_start).value >> format_.page_shift;
        std::uint64_t last_raw = 0; // not present, so unlike any that is
        std::uint8_t last_bits = 0;
        for (std::size_t i = 0; i < words.size(); ++i) {
            const std::uint64_t word = words[i];
            const auto index = static_cast<std::uint32_t>(at + i);
            if (!(word & abi::PM_PRESENT)) {
                if (names_a_frame(word)) others_.push_back(index);
                continue;
            }
            // Neighbours mostly have the same bits, whatever their frames.
            const std::uint64_t raw = run.entries[skipped + i];
            if (((raw ^ last_raw) & ~format_.frame_mask) != 0) {
                last_bits = bits_of(format_.decode(format_, raw, 1));
                last_raw = raw;
            }
            block_.entry_bits[index] = last_bits;
            if (word & walk::special_entry) {
                others_.push_back(index);
                continue;
            }
            plain_.push_back(index);
            plain_frames_.push_back(word & abi::PM_PFRAME_MASK);
        }
    }

    void take_leaf(const walk::SlotRun& run, std::uint64_t at, std::uint64_t count) {
        const walk::Entry entry = format_.decode(format_, run.leaf, run.leaf_level);
        const bool present = entry.kind == walk::EntryKind::present;
        if (present && block_.pmd_mapped.empty())
            block_.pmd_mapped.assign(block_.entries.size(), 0);
        for (std::uint64_t i = at; i < at + count; ++i) {
            if (present) block_.pmd_mapped[i] = 1;
            block_.entry_bits[i] = bits_of(entry);
            if (present || names_a_frame(block_.entries[i]))
                others_.push_back(static_cast<std::uint32_t>(i));
        }
    }

    void read_plain() {
        // In portions, so that what was read is still in the processor's cache.
        static constexpr std::size_t portion = 1024;
        std::vector<walk::PlainPage> found(std::min(portion, plain_.size()));
        const std::span<const std::uint64_t> frames{plain_frames_};
        std::size_t until_sample = 0;
        for (std::size_t i = 0; i < plain_.size(); ++i) {
            if (i % portion == 0) {
                const std::size_t count = std::min(portion, plain_.size() - i);
                walk::read_plain_pages(view_->memory(), view_->kernel(), frames.subspan(i, count),
                                       std::span{found}.first(count));
            }
            const std::uint32_t index = plain_[i];
            const auto& page = found[i % portion];
            if (page.map_count == 0) {
                others_.push_back(index);
                continue;
            }
            std::uint64_t& word = block_.entries[index];
            if (!(page.flags & kpf(abi::KPF_ANON))) word |= abi::PM_FILE;
            if (page.map_count == 1)
                word |= abi::PM_MMAP_EXCLUSIVE;
            else
                count_of(block_, index) = page.map_count;
            block_.flags[index] = page.flags;
            block_.entry_bits[index] |= static_cast<std::uint8_t>(
                EntryBits::used_known | (page.used ? EntryBits::used : 0));
            if (until_sample-- == 0) {
                samples_.push_back(index);
                until_sample = pages_a_sample - 1;
            }
        }
    }

    static std::uint32_t& count_of(PageBlock& block, std::size_t index) {
        if (block.map_counts.empty()) block.map_counts.assign(block.entries.size(), 0);
        return block.map_counts[index];
    }

    /// All of it as /proc has it, pages side by side that are not neighbours. False: /proc could
    /// not be read.
    bool ask_proc(std::span<const std::uint32_t> indices, PageBlock& answer) const {
        answer.clear();
        answer.entries.assign(indices.size(), 0);
        std::vector<std::uint64_t> words;
        for (std::size_t i = 0; i < indices.size();) {
            const std::size_t begin = i++;
            while (i < indices.size() && indices[i] - indices[i - 1] <= widest_gap) ++i;
            words.assign(indices[i - 1] - indices[begin] + 1, 0);
            const auto n = read_words(pages_.pagemap_fd_, first_page_ + indices[begin], words);
            if (n != static_cast<std::int64_t>(words.size())) return false;
            for (std::size_t j = begin; j < i; ++j)
                answer.entries[j] = words[indices[j] - indices[begin]];
        }
        if (pages_.frames_.read(answer) != 0 || answer.flags.empty()) return false;
        if (pages_.kernel_.mends_ksm_flag) mend_ksm(*view_, answer);
        return true;
    }

    bool read_others() {
        if (others_.empty()) return true;
        PageBlock answer;
        if (!ask_proc(others_, answer)) return false;
        for (std::size_t i = 0; i < others_.size(); ++i) {
            const std::uint32_t index = others_[i];
            const std::uint64_t before = block_.entries[index], now = answer.entries[i];
            constexpr auto mask = abi::PM_PRESENT | abi::PM_SWAP | abi::PM_PFRAME_MASK;
            // Another page by now. What was seen before it is no part of the picture.
            if ((before & mask) != (now & mask)) block_.entry_bits[index] = 0;
            block_.entries[index] = now;
            block_.flags[index] = answer.flags[i];
            if (!answer.map_counts.empty() && answer.map_counts[i] != 0)
                count_of(block_, index) = answer.map_counts[i];
            if (!answer.folio_orders.empty() && answer.folio_orders[i] != 0) {
                if (block_.folio_orders.empty())
                    block_.folio_orders.assign(block_.entries.size(), 0);
                block_.folio_orders[index] = answer.folio_orders[i];
            }
        }
        // A folio that may be mapped by a huge entry is, or is not, by the walk's word for it.
        if (!block_.folio_orders.empty() && block_.pmd_mapped.empty())
            block_.pmd_mapped.assign(block_.entries.size(), 0);
        return true;
    }

    /// Pages may come and go between two looks, so a difference counts if it stays.
    bool is_confirmed() {
        static constexpr unsigned tries = 4;
        PageBlock answer;
        for (unsigned i = 0; i < tries && !samples_.empty(); ++i) {
            if (!ask_proc(samples_, answer)) return false;
            std::vector<std::uint32_t> differing;
            for (std::size_t j = 0; j < samples_.size(); ++j)
                if (!is_same(samples_[j], answer.entries[j], answer.flags[j]))
                    differing.push_back(samples_[j]);
            samples_ = std::move(differing);
        }
        if (samples_.empty()) return true;
        pages_.works_ = false;
        return false;
    }

    bool is_same(std::uint32_t index, std::uint64_t entry, std::uint64_t flags) const {
        const std::uint64_t frame = block_.entries[index] & abi::PM_PFRAME_MASK;
        if (!(entry & abi::PM_PRESENT) || (entry & abi::PM_PFRAME_MASK) != frame) return true;
        walk::PlainPage page;
        walk::read_plain_pages(view_->memory(), view_->kernel(), {&frame, 1}, {&page, 1});
        if (page.map_count == 0) return true;
        const bool file = (page.flags & kpf(abi::KPF_ANON)) == 0;
        return ((page.flags ^ flags) & lasting_flags) == 0 &&
               ((entry & abi::PM_FILE) != 0) == file &&
               ((entry & abi::PM_MMAP_EXCLUSIVE) != 0) == (page.map_count == 1);
    }

    ExactPages& pages_;
    std::span<const AddressRange> mappings_;
    ExactLens::Lease view_;
    const walk::EntryFormat& format_;
    PageBlock& block_;
    std::uint64_t first_page_;
    std::vector<std::uint32_t> plain_, others_, samples_;
    std::vector<std::uint64_t> plain_frames_;
};

void ExactPages::mend_ksm_flags(PageBlock& block) const { mend_ksm(*lens_.lease(), block); }

bool ExactPages::read(PageBlock& block, std::span<const AddressRange> mappings) {
    return Reading{*this, block, mappings}.run();
}

} // namespace pagesift::os
