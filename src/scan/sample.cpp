// SPDX-License-Identifier: MIT
// A look at some blocks of a process that is too large to be looked at whole. Neighbouring pages
// are alike, so blocks are spread evenly over each mapping (systematic sampling), with a random
// start so that a pattern in memory does not meet a pattern here.
#include "pagesift/scan.hpp"

#include <algorithm>
#include <random>

namespace pagesift::scan {
namespace {

/// Of one mapping; a reservation of terabytes would have millions.
constexpr std::uint64_t most_blocks = 65536;

std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0); }

} // namespace

std::vector<AddressRange> sample_blocks(std::span<const Mapping> mappings, const HostFacts& host,
                                        std::uint64_t one_in, std::uint64_t seed) {
    std::mt19937_64 random{seed};
    std::vector<AddressRange> blocks;
    for (const Mapping& mapping : mappings) {
        const AddressRange all = mapping.range;
        const std::uint64_t slots = divide_up(all.size().value, host.slot_bytes());
        const std::uint64_t width =
            std::max<std::uint64_t>(divide_up(slots, most_blocks * one_in), 1);
        const std::uint64_t bytes = width * host.slot_bytes();
        // Blocks lie at round addresses, as tables and huge pages do.
        const std::uint64_t base = all.start.value / bytes * bytes;
        const std::uint64_t count = divide_up(all.end.value - base, bytes);
        std::uint64_t block = random() % std::clamp<std::uint64_t>(count, 1, one_in);
        for (; block < count; block += one_in) {
            const AddressRange whole{Address{base + block * bytes},
                                     Address{base + (block + 1) * bytes}};
            if (const auto part = all.intersect(whole); !part.empty()) blocks.push_back(part);
        }
    }
    return blocks;
}

void extrapolate(Census& census) {
    const std::uint64_t seen = census.totals.pages();
    census.totals = Tally{};
    for (MappingCensus& entry : census.mappings) {
        entry.tally.extrapolate(entry.mapping.range.size().value / census.host.page_size);
        entry.whole = true;
        census.totals.add(entry.tally);
    }
    if (const std::uint64_t all = census.totals.pages(); all > seen)
        census.looked_share = static_cast<double>(seen) / static_cast<double>(all);
}

} // namespace pagesift::scan
