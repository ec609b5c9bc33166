// SPDX-License-Identifier: MIT
#include "os/frames.hpp"

#include "pagesift/abi.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>

namespace pagesift::os {

using namespace abi;

namespace {
// A read covers whole runs, so that frames mapped twice, whose runs overlap, need no care.
constexpr std::uint32_t longest_run = 4096;
constexpr std::uint64_t most_frames = 8192;
// A skipped frame costs about a third of a system call, so small gaps are read over.
constexpr std::uint64_t widest_gap = 4;

/// The page frame that an entry points to; 0: none, or hidden. Entries of migrating and of broken
/// pages look like swap, with the frame in the place of the offset.
std::uint64_t frame_of(std::uint64_t entry) {
    if (entry & PM_PRESENT) return entry & PM_PFRAME_MASK;
    const unsigned type = swap_type(entry);
    const bool special = (entry & PM_SWAP) && type >= FIRST_SPECIAL_SWAP_TYPE &&
                         type != SWP_PTE_MARKER && (entry & PM_GUARD_REGION) == 0;
    return special ? swap_offset(entry) : 0;
}
} // namespace

std::vector<FrameRun> sorted_frame_runs(std::span<const std::uint64_t> entries) {
    std::vector<FrameRun> runs;
    bool sorted = true;
    for (std::uint32_t i = 0; i < entries.size(); ++i) {
        const std::uint64_t pfn = frame_of(entries[i]);
        if (pfn == 0) continue;
        if (!runs.empty()) {
            FrameRun& last = runs.back();
            if (last.pfn + last.count == pfn && last.index + last.count == i &&
                last.count < longest_run) {
                ++last.count;
                continue;
            }
            sorted = sorted && pfn >= last.pfn;
        }
        runs.push_back({pfn, i, 1});
    }
    if (!sorted)
        std::sort(runs.begin(), runs.end(),
                  [](const FrameRun& a, const FrameRun& b) { return a.pfn < b.pfn; });
    return runs;
}

namespace {

/// Calls @p sink(first frame, words, runs) for each stretch of @p runs that one read covers. Words
/// end where frames do. Returns 0, or errno of a read that was refused.
template <class Sink> int for_each_stretch(int fd, std::span<const FrameRun> runs, Sink&& sink) {
    std::vector<std::uint64_t> buffer;
    for (std::size_t i = 0; i < runs.size();) {
        const std::size_t begin = i;
        const std::uint64_t first = runs[i].pfn;
        std::uint64_t end = first;
        do {
            end = std::max(end, runs[i].pfn + runs[i].count);
            ++i;
        } while (i < runs.size() && runs[i].pfn <= end + widest_gap &&
                 runs[i].pfn + runs[i].count <= first + most_frames);
        buffer.resize(end - first);
        const auto n = read_words(fd, first, buffer);
        if (n < 0) return static_cast<int>(-n);
        sink(first, std::span<const std::uint64_t>{buffer}.first(static_cast<std::size_t>(n)),
             runs.subspan(begin, i - begin));
    }
    return 0;
}

constexpr std::uint64_t folio_wide =
    kpf(KPF_REFERENCED) | kpf(KPF_UPTODATE) | kpf(KPF_DIRTY) | kpf(KPF_LRU) | kpf(KPF_ACTIVE) |
    kpf(KPF_WRITEBACK) | kpf(KPF_ANON) | kpf(KPF_SWAPCACHE) | kpf(KPF_SWAPBACKED) | kpf(KPF_HUGE) |
    kpf(KPF_UNEVICTABLE) | kpf(KPF_MLOCKED) | kpf(KPF_THP) | kpf(KPF_RECLAIM);

} // namespace

/// Finds the folio around a frame, from words already read or, beyond them, one by one.
class FrameReader::Folios {
public:
    explicit Folios(int fd) : fd_(fd) {}

    void window(std::uint64_t first, std::span<const std::uint64_t> words) {
        first_ = first;
        words_ = words;
    }

    struct Folio {
        std::uint64_t head = 1, end = 0;
        std::uint64_t head_flags = 0;
        std::uint8_t order = PageBlock::unknown_order;
    };

    const Folio& around(std::uint64_t pfn) {
        if (pfn < last_.head || pfn >= last_.end) last_ = find(pfn);
        return last_;
    }

    int error() const { return error_; }

private:
    std::optional<std::uint64_t> word(std::uint64_t pfn) {
        if (pfn >= first_ && pfn - first_ < words_.size()) return words_[pfn - first_];
        std::uint64_t value = 0;
        const auto n = read_words(fd_, pfn, {&value, 1});
        if (n < 0) error_ = static_cast<int>(-n);
        if (n != 1) return {};
        return value;
    }

    /// Folios are naturally aligned, so the head is at pfn with some low bits cleared.
    Folio find(std::uint64_t pfn) {
        static constexpr unsigned largest_order = 20;
        for (unsigned order = 0; order <= largest_order; ++order) {
            const std::uint64_t head = pfn >> order << order;
            const auto flags = word(head);
            if (!flags || !(*flags & (kpf(KPF_COMPOUND_HEAD) | kpf(KPF_COMPOUND_TAIL)))) break;
            if (!(*flags & kpf(KPF_COMPOUND_HEAD))) continue;
            unsigned size = std::max(order, 1u);
            while (size < largest_order) {
                const auto next = word(head + (std::uint64_t{1} << size));
                if (!next || !(*next & kpf(KPF_COMPOUND_TAIL))) break;
                ++size;
            }
            return {head, head + (std::uint64_t{1} << size), *flags,
                    static_cast<std::uint8_t>(size)};
        }
        return {pfn, pfn + 1, 0, PageBlock::unknown_order};
    }

    int fd_;
    int error_ = 0; ///< 0, or errno of a read that was refused
    std::uint64_t first_ = 0;
    std::span<const std::uint64_t> words_;
    Folio last_;
};

namespace {

/// A file of words by frame. Containers lay an empty file over what they hide.
Fd open_words(const Root& root, const char* path, int& error) {
    auto opened = root.open(path, O_RDONLY);
    error = opened.error;
    if (!opened.fd) return {};
    std::uint64_t word = 0;
    const auto n = read_words(opened.fd.get(), 0, {&word, 1});
    if (n == 1) return std::move(opened.fd);
    error = n < 0 ? static_cast<int>(-n) : ENODATA;
    return {};
}

} // namespace

FrameReader::FrameReader(const Root& root, bool use) {
    if (!use) {
        flags_error_ = counts_error_ = ENOSYS;
        return;
    }
    flags_ = open_words(root, "proc/kpageflags", flags_error_);
    counts_ = open_words(root, "proc/kpagecount", counts_error_);
}

int FrameReader::read(PageBlock& block) const {
    if (!flags_) return 0;
    const auto runs = sorted_frame_runs(block.entries);
    block.flags.assign(block.entries.size(), 0);
    if (runs.empty()) return 0;
    Folios folios{flags_.get()};
    bool beyond = false;
    int error = for_each_stretch(flags_.get(), runs, [&](auto first, auto words, auto parts) {
        folios.window(first, words);
        for (const FrameRun& run : parts) {
            for (std::uint32_t i = 0; i < run.count; ++i) {
                const std::uint64_t at = run.pfn + i - first;
                // The file ends before it: the kernel has no page for the frame.
                if (at >= words.size()) {
                    beyond = true;
                    break;
                }
                std::uint64_t flags = words[at];
                if (flags & (kpf(KPF_COMPOUND_HEAD) | kpf(KPF_COMPOUND_TAIL))) {
                    const auto& folio = folios.around(run.pfn + i);
                    flags |= folio.head_flags & folio_wide;
                    if (block.folio_orders.empty())
                        block.folio_orders.assign(block.entries.size(), 0);
                    block.folio_orders[run.index + i] = folio.order;
                }
                block.flags[run.index + i] = flags;
            }
        }
    });
    if (error == 0) error = folios.error();
    if (error != 0) {
        block.flags.clear();
        block.folio_orders.clear();
        return error;
    }
    if (counts_) error = read_counts(block, runs);
    return error == 0 && beyond ? ENODATA : error;
}

int FrameReader::read_counts(PageBlock& block, std::span<const FrameRun> runs) const {
    std::vector<FrameRun> shared;
    for (const FrameRun& run : runs) {
        for (std::uint32_t i = 0; i < run.count; ++i) {
            const std::uint32_t index = run.index + i;
            if (block.entries[index] & PM_MMAP_EXCLUSIVE) continue;
            if (block.flags[index] & kpf(KPF_ZERO_PAGE)) continue;
            FrameRun* last = shared.empty() ? nullptr : &shared.back();
            if (last && last->pfn + last->count == run.pfn + i &&
                last->index + last->count == index && last->count < longest_run)
                ++last->count;
            else
                shared.push_back({run.pfn + i, index, 1});
        }
    }
    if (shared.empty()) return 0;
    block.map_counts.assign(block.entries.size(), 0);
    return for_each_stretch(counts_.get(), shared, [&](auto first, auto words, auto parts) {
        for (const FrameRun& run : parts)
            for (std::uint32_t i = 0; i < run.count && run.pfn + i - first < words.size(); ++i)
                block.map_counts[run.index + i] = static_cast<std::uint32_t>(
                    std::min<std::uint64_t>(words[run.pfn + i - first], ~0u));
    });
}

} // namespace pagesift::os
