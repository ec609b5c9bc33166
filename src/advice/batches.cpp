// SPDX-License-Identifier: MIT
#include "pagesift/advice.hpp"

#include <algorithm>

namespace pagesift::advice {
namespace {

PlannedRange first_part(const PlannedRange& range, std::uint64_t bytes) {
    PlannedRange part = range;
    part.range.end = range.range.start + Bytes{bytes};
    part.fresh_bytes = part.fill_bytes = part.copy_bytes = part.gain_bytes = 0; // of the whole only
    return part;
}

} // namespace

std::vector<Batch> make_batches(const Plan& plan, std::uint64_t most_bytes,
                                std::size_t most_ranges) {
    std::vector<Batch> batches;
    Batch batch;
    const auto close = [&] {
        if (!batch.ranges.empty()) batches.push_back(std::move(batch));
        batch = {};
    };
    for (PlannedRange rest : plan.ranges) {
        const std::uint64_t unit = std::max<std::uint64_t>(rest.unit_bytes, plan.page_size);
        while (!rest.range.empty()) {
            const std::uint64_t room = most_bytes > batch.bytes ? most_bytes - batch.bytes : 0;
            std::uint64_t bytes = std::min(rest.bytes(), room / unit * unit);
            if (bytes == 0 && batch.ranges.empty()) bytes = std::min(rest.bytes(), unit);
            if (bytes == 0 || batch.ranges.size() >= most_ranges) {
                close();
                continue;
            }
            batch.ranges.push_back(first_part(rest, bytes));
            batch.bytes += bytes;
            rest.range.start = rest.range.start + Bytes{bytes};
        }
    }
    close();
    return batches;
}

const Mapping* find_same(std::span<const Mapping> now, const Mapping& then, AddressRange range) {
    const auto behind =
        std::upper_bound(now.begin(), now.end(), range.start,
                         [](Address at, const Mapping& m) { return at < m.range.start; });
    if (behind == now.begin()) return nullptr;
    const Mapping& found = *std::prev(behind);
    if (found.range.end < range.end) return nullptr;
    const bool same_file =
        found.device == then.device && found.inode == then.inode && found.backing == then.backing;
    const bool same_rights = found.readable == then.readable && found.writable == then.writable &&
                             found.executable == then.executable && found.shared == then.shared;
    // Anonymous memory has an offset that means nothing to it.
    const bool same_place =
        found.backing == Backing::anon ||
        found.offset - found.range.start.value == then.offset - then.range.start.value;
    return same_file && same_rights && same_place ? &found : nullptr;
}

} // namespace pagesift::advice
