// SPDX-License-Identifier: MIT
// A process of which everything is made up, and a kernel that gives it advice as mm/madvise.c does.
#pragma once

#include "made_up_source.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/actuator.hpp"

#include <cerrno>
#include <functional>
#include <set>
#include <vector>

namespace pagesift::test {

inline constexpr std::uint64_t page = 4096;
inline constexpr std::uint64_t slot = 2 << 20;

inline constexpr std::uint64_t anon_flags = abi::kpf(abi::KPF_ANON) | abi::kpf(abi::KPF_LRU) |
                                            abi::kpf(abi::KPF_SWAPBACKED) |
                                            abi::kpf(abi::KPF_UPTODATE);
inline constexpr std::uint64_t file_flags =
    abi::kpf(abi::KPF_LRU) | abi::kpf(abi::KPF_MMAP) | abi::kpf(abi::KPF_UPTODATE);

/// A small anonymous page that is mapped once.
inline MadeUpPage anon_page(std::uint64_t frame) {
    return {.entry = abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE | frame,
            .flags = anon_flags,
            .map_count = 1};
}
inline MadeUpPage file_page(std::uint64_t frame) {
    return {.entry = abi::PM_PRESENT | abi::PM_FILE | abi::PM_MMAP_EXCLUSIVE | frame,
            .flags = file_flags,
            .map_count = 1,
            .cache = Cache::cached};
}
inline MadeUpPage swapped_page(std::uint64_t offset) {
    return {.entry = abi::pagemap_swap(0, offset)};
}
/// Page @p index of a large folio.
inline MadeUpPage huge_page(std::uint64_t first_frame, std::uint64_t index, std::uint8_t order,
                            bool pmd_mapped) {
    auto result = anon_page(first_frame + index);
    result.flags |= abi::kpf(abi::KPF_THP) |
                    abi::kpf(index == 0 ? abi::KPF_COMPOUND_HEAD : abi::KPF_COMPOUND_TAIL);
    result.order = order;
    result.pmd_mapped = pmd_mapped;
    return result;
}

/// Does to the pages of a MadeUpSource what advice would, and what it is told to.
class MadeUpActuator final : public Actuator {
public:
    explicit MadeUpActuator(MadeUpSource& source) : source_(source) {}

    bool same = true;
    bool keeps_copies = false;            ///< the swap cache keeps what was written
    std::set<std::uint64_t> stubborn;     ///< pages that are passed over
    std::map<std::uint64_t, int> refused; ///< by first address of a range: errno
    std::function<void()> before_call;
    Gauges gauge;
    std::vector<std::vector<AddressRange>> calls;
    std::vector<int> advices;
    std::size_t visits = 0; ///< of advise_everywhere

    bool is_same() override { return same; }

    AdviseResult advise(int advice, std::span<const AddressRange> ranges) override {
        if (before_call) before_call();
        calls.emplace_back(ranges.begin(), ranges.end());
        advices.push_back(advice);
        AdviseResult result;
        result.seconds = 0.25;
        for (const AddressRange& range : ranges) {
            if (const auto error = refused.find(range.start.value); error != refused.end()) {
                if (&range == ranges.data()) result.error = error->second;
                return result;
            }
            for (auto at = range.start.value; at < range.end.value; at += page) touch(advice, at);
            result.done_bytes += range.size().value;
        }
        return result;
    }

    AdviseResult advise_everywhere(int advice, AddressRange) override {
        ++visits;
        advices.push_back(advice);
        for (auto& [address, one] : source_.pages)
            if (one.entry & abi::PM_PRESENT) one.flags |= abi::kpf(abi::KPF_LRU);
        return {page, 0, 0};
    }

    std::vector<std::optional<std::uint64_t>>
    frame_flags(std::span<const std::uint64_t> frames) override {
        std::vector<std::optional<std::uint64_t>> flags;
        for (const std::uint64_t frame : frames) {
            const bool kept = keeps_copies && gone_.count(frame) > 0;
            flags.emplace_back(kept ? anon_flags | abi::kpf(abi::KPF_SWAPCACHE) : 0);
        }
        return flags;
    }

    Gauges gauges() override { return gauge; }

private:
    void touch(int advice, std::uint64_t address) {
        const auto found = source_.pages.find(address);
        if (found == source_.pages.end() || stubborn.count(address) > 0) return;
        MadeUpPage& one = found->second;
        if (advice == abi::advice::willneed) {
            if (one.cache == Cache::absent || (one.entry & abi::PM_SWAP))
                gauge.swapped_in_pages = gauge.swapped_in_pages.value_or(0) + 1;
            return;
        }
        const bool passed_over = !(one.entry & abi::PM_PRESENT) || one.map_count != 1 ||
                                 !(one.flags & abi::kpf(abi::KPF_LRU));
        if (passed_over) return;
        if (advice == abi::advice::cold) one.flags &= ~abi::kpf(abi::KPF_ACTIVE);
        if (advice == abi::advice::collapse) one.pmd_mapped = true;
        if (advice != abi::advice::pageout) return;
        if ((one.flags & abi::kpf(abi::KPF_ANON)) && !take_swap()) return;
        const std::uint64_t frame = one.entry & abi::PM_PFRAME_MASK;
        gone_.insert(frame);
        if (one.flags & abi::kpf(abi::KPF_ANON))
            one = swapped_page(frame);
        else
            one = {.cache = Cache::absent};
    }

    /// For a page, of what the gauge shows to be free; false: there is none.
    bool take_swap() {
        for (auto* room : {&gauge.swap_free_bytes, &gauge.swap_allowance_bytes})
            if (*room && **room < page) return false;
        for (auto* room : {&gauge.swap_free_bytes, &gauge.swap_allowance_bytes})
            if (*room) **room -= page;
        return true;
    }

    MadeUpSource& source_;
    std::set<std::uint64_t> gone_;
};

} // namespace pagesift::test
