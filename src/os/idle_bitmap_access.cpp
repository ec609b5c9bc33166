// SPDX-License-Identifier: MIT
// mm/page_idle.c: a bit of the bitmap is 1 when nobody has accessed the frame since it was written.
// Both writing and reading clear the accessed bits of all entries that map the frame, and keep what
// they said in PG_young, so that reclaim loses nothing. Frames off the LRU lists, and all but the
// first of a large folio, have no bit.
#include "os/access_sources.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

constexpr std::uint64_t noted = std::uint64_t{1} << 63;
constexpr std::uint64_t swapped = std::uint64_t{1} << 62;
constexpr std::uint64_t has_bit = std::uint64_t{1} << 61; ///< its head was on an LRU list
constexpr std::uint64_t place = (std::uint64_t{1} << 56) - 1;

/// Reads bits one word at a time; neighbours mostly share one.
class BitmapReader {
public:
    explicit BitmapReader(int fd) : fd_(fd) {}
    std::optional<bool> bit(std::uint64_t frame) {
        if (!any_ || frame / 64 != index_) {
            any_ = true;
            index_ = frame / 64;
            good_ = read_words(fd_, index_, {&word_, 1}) == 1;
        }
        if (!good_) return {};
        return (word_ >> (frame % 64) & 1) != 0;
    }

private:
    int fd_;
    bool any_ = false, good_ = false;
    std::uint64_t index_ = 0, word_ = 0;
};

} // namespace

IdleBitmapAccess::IdleBitmapAccess(std::uint32_t pid, const Machine& machine,
                                   const OpenOptions& options)
    : target_(pid, options, *machine.host),
      frames_(target_.root(), !options.without.contains("kpageflags")),
      notes_(machine.host->page_size) {
    auto opened = target_.root().open("sys/kernel/mm/page_idle/bitmap", O_RDWR);
    if (!opened.fd)
        throw Error{opened.error == ENOENT ? ErrorKind::unsupported : ErrorKind::denied,
                    "sys/kernel/mm/page_idle/bitmap", opened.error,
                    opened.error == ENOENT ? "CONFIG_IDLE_PAGE_TRACKING"
                                           : "root, or CAP_DAC_OVERRIDE"};
    bitmap_ = std::move(opened.fd);
    if (frames_.flags_error() != 0)
        throw Error{ErrorKind::denied, "proc/kpageflags", frames_.flags_error(),
                    "root, or CAP_DAC_READ_SEARCH"};
    if (machine.host->frames_visible == false)
        throw Error{ErrorKind::denied, "--source idle-bitmap", 0, "CAP_SYS_ADMIN",
                    "frame numbers are hidden"};
    // Only for what the processors' TLBs hold; without it the hottest pages may be missed.
    try {
        flusher_.emplace(target_, *machine.host);
    } catch (const Error&) {
        traits_.limits.emplace_back("TLBs are not flushed, so pages in use all the time may look "
                                    "idle until their processor turns to something else");
    }
    traits_.name = "idle-bitmap";
    traits_.method = "idle flags of page frames, set by the idle page bitmap";
    traits_.limits.emplace_back(
        "idle flags are the frame's: accesses by other processes count as well");
    traits_.limits.emplace_back(
        "pages that are on no LRU list, such as mlocked or just allocated ones, are unknown");
}

void IdleBitmapAccess::prepare(const std::vector<Mapping>& mappings) {
    target_.expect_alive(mappings);
    faults_.look(target_);
}

void IdleBitmapAccess::sight(const Mapping& mapping, AddressRange wanted, Sight which,
                             TouchBlock& block) {
    block = {};
    if (leap(target_, wanted, notes_, block)) return;
    block.range = one_block(wanted, target_.page_size());
    PageBlock pages;
    if (!read_entries(target_, block.range, pages.entries)) {
        block.range = {};
        return;
    }
    frames_.read(pages);
    const std::size_t count = pages.entries.size();
    block.touches.assign(count, Touch::none);
    block.grains.assign(count, Grain::page);
    std::vector<std::uint64_t> was(count), now(count);
    notes_.get(block.range, was);
    BitmapReader reader{bitmap_.get()};
    std::map<std::uint64_t, std::uint64_t> to_set;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t entry = pages.entries[i];
        if (entry & abi::PM_SWAP) {
            now[i] = swapped | (entry & place);
            block.touches[i] = faults_.judge(now[i] == was[i]);
        }
        if (!(entry & abi::PM_PRESENT)) continue;
        block.touches[i] = Touch::unknown;
        const std::uint8_t order = pages.folio_orders.empty() ? 0 : pages.folio_orders[i];
        if (order == PageBlock::unknown_order || pages.flags.empty()) continue;
        if (order > 0) block.grains[i] = Grain::huge;
        const std::uint64_t head = (entry & abi::PM_PFRAME_MASK) >> order << order;
        const bool listed = (pages.flags[i] & abi::kpf(abi::KPF_LRU)) != 0;
        now[i] = noted | head | (listed ? has_bit : 0);
        if (now[i] == was[i] && listed) {
            const auto idle = reader.bit(head);
            if (idle) block.touches[i] = *idle ? Touch::idle : Touch::accessed;
        } else if ((was[i] & noted) == 0 && !may_come_unasked(mapping)) {
            block.touches[i] = Touch::accessed; // only a fault brings it
        }
        // A bit that is still set stays: then no access to its page goes unseen between rounds.
        if (listed && block.touches[i] != Touch::idle)
            to_set[head / 64] |= std::uint64_t{1} << (head % 64);
    }
    if (which == Sight::last) return;
    notes_.set(block.range, now);
    const std::lock_guard lock{mutex_};
    for (const auto& [index, word] : to_set) to_set_[index] |= word;
}

ForgetCost IdleBitmapAccess::forget() {
    const auto begin = std::chrono::steady_clock::now();
    for (const auto& [index, word] : to_set_)
        if (::pwrite(bitmap_.get(), &word, sizeof word, static_cast<off_t>(index * sizeof word)) !=
            sizeof word)
            throw Error{ErrorKind::failed, "sys/kernel/mm/page_idle/bitmap", errno};
    to_set_.clear();
    ForgetCost cost;
    if (flusher_) cost.locked_seconds = flusher_->flush().locked_seconds;
    cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return cost;
}

} // namespace pagesift::os
