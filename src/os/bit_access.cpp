// SPDX-License-Identifier: MIT
#include "os/access_sources.hpp"
#include "pagesift/abi.hpp"

#include <fmt/format.h>

namespace pagesift::os {
namespace {

constexpr std::uint64_t present = std::uint64_t{1} << 63;
constexpr std::uint64_t swapped = std::uint64_t{1} << 62;
constexpr std::uint64_t hinted = std::uint64_t{1} << 61;
constexpr std::uint64_t place = (std::uint64_t{1} << 55) - 1;

constexpr std::uint64_t hints = abi::kpf(abi::KPF_REFERENCED) | abi::kpf(abi::KPF_ACTIVE);

} // namespace

BitAccess::BitAccess(std::uint32_t pid, Bits bits, const Machine& machine,
                     const OpenOptions& options)
    : target_(pid, options, *machine.host),
      bits_(bits),
      frames_(target_.root(), bits == Bits::lru && !options.without.contains("kpageflags")),
      // Under MGLRU KPF_ACTIVE is clear on the lists, and KPF_REFERENCED part of a counter
      // (include/linux/mm_inline.h: lru_gen_add_folio; mm/swap.c: folio_mark_accessed).
      generations_on_(bits == Bits::lru && are_generations_on(*machine.host)),
      notes_(machine.host->page_size) {
    const HostFacts& host = *machine.host;
    if (bits == Bits::soft_dirty) {
        // A write to clear_refs is no proof: it succeeds on every kernel.
        if (host.soft_dirty != true)
            throw Error{ErrorKind::unsupported, "--source soft-dirty", 0,
                        "CONFIG_MEM_SOFT_DIRTY (not on arm64)",
                        host.soft_dirty ? "this kernel does not track soft-dirty pages"
                                        : "whether soft-dirty is tracked is not known"};
        clearer_.emplace(target_, host);
        traits_.name = "soft-dirty";
        traits_.method = "soft-dirty bits of the page map, cleared by clear_refs";
        traits_.limits = {
            "only writes count: pages that are only read look idle",
            "every first write after clearing costs the process a page fault",
            "who else tracks soft-dirty pages, as CRIU does, loses what it was tracking"};
        traits_.reads_seen = false;
        return;
    }
    if (frames_.flags_error() != 0)
        throw Error{ErrorKind::denied, "proc/kpageflags", frames_.flags_error(),
                    "root, or CAP_DAC_READ_SEARCH"};
    if (host.frames_visible == false)
        throw Error{ErrorKind::denied, "--source lru", 0, "CAP_SYS_ADMIN",
                    "frame numbers are hidden"};
    traits_.name = "lru";
    traits_.method = "REFERENCED and ACTIVE of kpageflags, as they are; nothing is cleared";
    traits_.limits = {"hints only: a page may be accessed all the time without either flag, so no "
                      "idle time follows from their absence",
                      "page flags are the folio's: accesses by other processes count as well"};
    traits_.writes = false;
    traits_.proves_idle = false;
    if (generations_on_)
        gaps_.add({"kpageflags", std::nullopt,
                   "the multi-generational LRU is on, under which REFERENCED and ACTIVE mean "
                   "nothing",
                   "a source that clears: without --passive", true});
}

void BitAccess::prepare(const std::vector<Mapping>& mappings) {
    target_.expect_alive(mappings);
    faults_.look(target_);
}

Touch BitAccess::judge(std::uint64_t entry, std::uint64_t flags, std::uint64_t was) const {
    if (bits_ == Bits::soft_dirty) {
        // Entries of swapped pages have the bit too, and so have new mappings as a whole.
        if (entry & abi::PM_SOFT_DIRTY) return Touch::accessed;
        return was & (present | swapped) ? Touch::idle : Touch::unknown;
    }
    const std::uint64_t here = entry & place;
    if (entry & abi::PM_SWAP) return faults_.judge((was & swapped) && (was & place) == here);
    // A hint that was there before may be from before; one that went took what it knew along.
    const bool same = (was & present) != 0 && (was & place) == here;
    if (generations_on_ || !same || flags == 0 || (was & hinted)) return Touch::unknown;
    return flags & hints ? Touch::accessed : Touch::idle;
}

void BitAccess::sight(const Mapping& /*mapping*/, AddressRange wanted, Sight which,
                      TouchBlock& block) {
    block = {};
    if (leap(target_, wanted, notes_, block)) return;
    block.range = one_block(wanted, target_.page_size());
    PageBlock pages;
    if (!read_entries(target_, block.range, pages.entries)) {
        block.range = {};
        return;
    }
    if (bits_ == Bits::lru) frames_.read(pages);
    const std::size_t count = pages.entries.size();
    block.touches.assign(count, Touch::none);
    std::vector<std::uint64_t> was(count), now(count);
    notes_.get(block.range, was);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t entry = pages.entries[i];
        if (!(entry & (abi::PM_PRESENT | abi::PM_SWAP))) continue;
        const std::uint64_t flags = pages.flags.empty() ? 0 : pages.flags[i];
        now[i] = (entry & (present | swapped)) | (entry & place) | (flags & hints ? hinted : 0);
        block.touches[i] = judge(entry, flags, was[i]);
        if (bits_ == Bits::lru && !pages.folio_orders.empty() && pages.folio_orders[i] != 0) {
            if (block.grains.empty()) block.grains.assign(count, Grain::page);
            block.grains[i] = Grain::huge;
        }
    }
    if (which != Sight::last) notes_.set(block.range, now);
}

ForgetCost BitAccess::forget() {
    if (bits_ == Bits::lru) return {};
    return clearer_->clear_soft_dirty();
}

} // namespace pagesift::os
