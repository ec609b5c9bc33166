// SPDX-License-Identifier: MIT
#include "snapshot/recording_source.hpp"

#include "pagesift/abi.hpp"
#include "pagesift/snapshot.hpp"

#include <fmt/format.h>
#include <type_traits>

namespace pagesift::snapshot {
namespace {

constexpr std::uint64_t dense_pages = 4096;
/// A stretch of entries that are none is worth a block of its own from here on.
constexpr std::uint64_t uniform_pages = 64;
constexpr std::size_t most_missing_ranges = 100;

bool is_absent(std::uint64_t entry) { return (entry & abi::PM_PRESENT) == 0; }

void sort_and_merge(std::vector<AddressRange>& ranges) {
    std::sort(ranges.begin(), ranges.end(),
              [](const AddressRange& a, const AddressRange& b) { return a.start < b.start; });
    std::size_t kept = 0;
    for (const AddressRange& range : ranges) {
        if (kept != 0 && range.start <= ranges[kept - 1].end)
            ranges[kept - 1].end = std::max(ranges[kept - 1].end, range.end);
        else
            ranges[kept++] = range;
    }
    ranges.resize(kept);
}

/// The first of the sorted @p ranges that ends behind @p at.
std::vector<AddressRange>::const_iterator first_behind(const std::vector<AddressRange>& ranges,
                                                       Address at) {
    return std::partition_point(ranges.begin(), ranges.end(),
                                [&](const AddressRange& range) { return range.end <= at; });
}

} // namespace

RecordedProcess::RecordedProcess() {
    for (const Column& column : column_table()) columns.emplace_back(column.width);
}

RecordedSource::RecordedSource(std::shared_ptr<const HostFacts> host, RecordedProcess&& process)
    : host_(std::move(host)), process_(std::move(process)) {
    sort_and_merge(process_.tables_asked);
    sort_and_merge(process_.tables_owned);
}

std::vector<Mapping> RecordedSource::mappings(const Want& want) {
    const std::lock_guard lock{mutex_};
    contents_missed_ |= want.zero != ZeroTest::off && process_.want.zero == ZeroTest::off;
    cache_missed_ |= want.cache && !process_.want.cache;
    return process_.mappings;
}

void RecordedSource::read_block(const Mapping&, AddressRange wanted, const Want& want,
                                PageBlock& block) {
    block.clear();
    const std::uint64_t page_size = host_->page_size;
    const std::uint64_t first = wanted.start.value / page_size;
    const std::uint64_t last = std::max(first + 1, wanted.end.value / page_size);
    const auto extent = std::partition_point(process_.extents.begin(), process_.extents.end(),
                                             [&](const Extent& e) { return e.end <= first; });
    const bool recorded = extent != process_.extents.end() && extent->first <= first;
    std::uint64_t end = last;
    if (recorded)
        end = fill(*extent, first, std::min(last, extent->end), block);
    else if (extent != process_.extents.end())
        end = std::min(last, extent->first);
    block.range = {Address{first * page_size}, Address{end * page_size}};
    if (!recorded) note_missing(block.range);
    if (want.zero == ZeroTest::off) block.content.clear();
    if (!want.cache) {
        block.cache.clear();
        block.swap_entries.clear();
    }
}

/// Fills @p block from page @p first on and says where it ends.
std::uint64_t RecordedSource::fill(const Extent& extent, std::uint64_t first, std::uint64_t last,
                                   PageBlock& block) const {
    if (!(extent.columns & 1)) return last; // no entries: nothing was readable here
    std::uint64_t end = 0;
    if (const auto uniform = uniform_end(extent, first, last)) {
        block.uniform = true;
        end = *uniform;
    } else {
        end = std::min(last, first + dense_pages);
        end = process_.columns[0].find_constant(first + 1, end, dense_pages, is_absent);
    }
    for_each_column(block, [&](std::size_t i, auto& values) {
        if (!(extent.columns & (1u << i))) return;
        process_.columns[i].copy(first, block.uniform ? first + 1 : end, values);
    });
    return end;
}

/// The end of the stretch from @p first on in which all columns stay as they are and no page is
/// present, when it is long enough to be one block. Present pages always come one by one: each has
/// a frame of its own.
std::optional<std::uint64_t> RecordedSource::uniform_end(const Extent& extent, std::uint64_t first,
                                                         std::uint64_t last) const {
    std::uint64_t end = last;
    for (std::size_t i = 0; i < column_count; ++i) {
        if (!(extent.columns & (1u << i))) continue;
        const auto constant = process_.columns[i].constant_at(first);
        if (!constant || (i == 0 && !is_absent(constant->value))) return {};
        end = std::min(end, constant->end);
    }
    if (end < last && end - first < uniform_pages) return {};
    return end;
}

std::optional<std::vector<AddressRange>>
RecordedSource::locate_tables(std::span<const AddressRange> ranges) {
    std::vector<AddressRange> found;
    for (const AddressRange& range : ranges) {
        if (range.empty()) continue;
        const auto asked = first_behind(process_.tables_asked, range.start);
        const bool covered = asked != process_.tables_asked.end() && asked->start <= range.start &&
                             range.end <= asked->end;
        if (!covered) return {};
        for (auto owned = first_behind(process_.tables_owned, range.start);
             owned != process_.tables_owned.end() && owned->start < range.end; ++owned)
            found.push_back(owned->intersect(range));
    }
    return found;
}

void RecordedSource::note_missing(AddressRange range) {
    const std::lock_guard lock{mutex_};
    if (missing_.size() < most_missing_ranges)
        missing_.emplace(range.start.value, range.end.value);
    else if (!missing_.contains({range.start.value, range.end.value}))
        missing_bytes_ += range.size().value;
}

std::vector<Gap> RecordedSource::gaps() const {
    std::vector<Gap> gaps = process_.gaps;
    const std::lock_guard lock{mutex_};
    std::vector<AddressRange> missing;
    for (const auto& [start, end] : missing_) missing.push_back({Address{start}, Address{end}});
    sort_and_merge(missing);
    for (const AddressRange& range : missing)
        gaps.push_back({"recording", range, "these pages were not recorded", "", true});
    if (contents_missed_)
        gaps.push_back({"recording", std::nullopt,
                        "contents were not read when the recording was made",
                        "pagesift record --zero all", false});
    if (cache_missed_)
        gaps.push_back({"recording", std::nullopt,
                        "the page cache was not asked when the recording was made",
                        "pagesift record --file-cache on", false});
    if (missing_bytes_ != 0)
        gaps.push_back({"recording", std::nullopt,
                        fmt::format("{} more were not recorded", human_bytes(missing_bytes_)), "",
                        true});
    return gaps;
}

std::optional<Want> recorded_want(const Source& source) {
    const auto* const recorded = dynamic_cast<const RecordedSource*>(&source);
    return recorded ? std::optional{recorded->recorded_want()} : std::nullopt;
}

} // namespace pagesift::snapshot
