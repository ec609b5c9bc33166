// SPDX-License-Identifier: MIT
#include "os/access_sources.hpp"
#include "os/mappings.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <fcntl.h>

namespace pagesift::os {
namespace {

constexpr std::uint64_t present = std::uint64_t{1} << 63;
constexpr std::uint64_t swapped = std::uint64_t{1} << 62;
constexpr std::uint64_t place = (std::uint64_t{1} << 56) - 1;

} // namespace

ReferencedAccess::ReferencedAccess(std::uint32_t pid, const Machine& machine,
                                   const OpenOptions& options)
    : target_(pid, options, *machine.host),
      clearer_(target_, *machine.host),
      notes_(machine.host->page_size) {
    const auto smaps = target_.root().open(target_.base() + "/smaps", O_RDONLY);
    if (!smaps.fd)
        throw Error{ErrorKind::denied, "/" + target_.base() + "/smaps", smaps.error,
                    "needs the target's uid or CAP_SYS_PTRACE"};
    traits_.name = "referenced";
    traits_.method = "Referenced of each mapping in smaps, cleared by clear_refs";
    traits_.limits = {
        "one answer a mapping: a single page that is accessed makes the whole mapping accessed",
        "page flags are the folio's: accesses by other processes count as well",
        "reclaim, and whoever else clears accessed bits without a trace, can make a mapping look "
        "idle"};
    if (machine.host->frames_visible == false)
        traits_.limits.emplace_back(
            "frame numbers are hidden, so a page that was replaced by another is not noticed");
}

void ReferencedAccess::prepare(const std::vector<Mapping>& mappings) {
    target_.expect_alive(mappings);
    faults_.look(target_);
    auto with_smaps = mappings;
    const KernelDevices devices{};
    const MappingReader reader{target_.root(), target_.base(), target_.page_size(),
                               devices,        false,          gaps_};
    reader.add_smaps(with_smaps);
    referenced_.clear();
    for (const Mapping& mapping : with_smaps)
        if (mapping.smaps && mapping.smaps->referenced_bytes)
            referenced_[mapping.range.start] = *mapping.smaps->referenced_bytes;
}

void ReferencedAccess::sight(const Mapping& mapping, AddressRange wanted, Sight which,
                             TouchBlock& block) {
    block = {};
    if (leap(target_, wanted, notes_, block)) return;
    block.range = one_block(wanted, target_.page_size());
    std::vector<std::uint64_t> entries;
    if (!read_entries(target_, block.range, entries)) {
        block.range = {};
        return;
    }
    std::vector<std::uint64_t> was(entries.size()), now(entries.size());
    notes_.get(block.range, was);
    block.touches.assign(entries.size(), Touch::none);
    block.grains.assign(entries.size(), Grain::mapping);
    const auto referenced = referenced_.find(mapping.range.start);
    // smaps has no Referenced for huge pages of a pool (fs/proc/task_mmu.c: smaps_hugetlb_range).
    const bool told = referenced != referenced_.end() && mapping.backing != Backing::hugetlb;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const std::uint64_t entry = entries[i];
        if (entry & abi::PM_SWAP) {
            now[i] = swapped | (entry & place);
            block.touches[i] = faults_.judge(now[i] == was[i]);
            block.grains[i] = Grain::page;
        } else if (entry & abi::PM_PRESENT) {
            now[i] = present | (entry & abi::PM_PFRAME_MASK);
            block.touches[i] = !told                    ? Touch::unknown
                               : referenced->second > 0 ? Touch::accessed
                               : now[i] == was[i]       ? Touch::idle
                                                        : Touch::unknown;
        }
    }
    if (which != Sight::last) notes_.set(block.range, now);
}

} // namespace pagesift::os
