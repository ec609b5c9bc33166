// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <limits>

namespace pagesift::scan {
namespace {

/// A sum is not one process, even where there is only one in it.
bool names_one_process(std::string_view field) {
    return field == "pid" || field == "parent_pid" || field == "start_time_ticks";
}

/// What of @p bytes, spread evenly over a window, belongs to a part of it.
std::uint64_t scaled(std::uint64_t bytes, std::uint64_t part, std::uint64_t whole) {
    __extension__ using Wide = unsigned __int128;
    return whole == 0 ? 0 : static_cast<std::uint64_t>(Wide{bytes} * part / whole);
}

void subtract(Value& value, std::uint64_t bytes) {
    if (auto* const whole = std::get_if<std::uint64_t>(&value)) *whole -= std::min(*whole, bytes);
}

/// Takes what stands in @p part out of the record, as far as it was counted before.
void take_out(Record& record, const FilePart& part, std::uint64_t seen) {
    static const std::array<std::pair<std::size_t, std::uint64_t FilePart::*>, 4> figures{
        std::pair{*find_field("cached_bytes"), &FilePart::cached_bytes},
        std::pair{*find_field("uncached_bytes"), &FilePart::uncached_bytes},
        std::pair{*find_field("shmem_swapped_bytes"), &FilePart::shmem_swapped_bytes},
        std::pair{*find_field("swap_bytes"), &FilePart::swap_bytes},
    };
    const std::uint64_t whole = part.window.second - part.window.first;
    for (const auto& [field, bytes] : figures)
        subtract(record.values[field], scaled(part.*bytes, seen, whole));
}

} // namespace

std::vector<FileWindows::Window> FileWindows::unseen(procfs::Device device, std::uint64_t inode,
                                                     Window window) const {
    std::vector<Window> parts;
    auto [start, end] = window;
    if (const auto file = seen_.find(Key{device, inode}); file != seen_.end()) {
        auto next = file->second.upper_bound(start);
        if (next != file->second.begin()) --next;
        for (; next != file->second.end() && next->first < end && start < end; ++next) {
            if (next->second <= start) continue;
            if (start < next->first) parts.emplace_back(start, next->first);
            start = next->second;
        }
    }
    if (start < end) parts.emplace_back(start, end);
    return parts;
}

void FileWindows::add(procfs::Device device, std::uint64_t inode, Window window) {
    auto [start, end] = window;
    if (start >= end) return;
    auto& seen = seen_[Key{device, inode}];
    auto next = seen.upper_bound(start);
    if (next != seen.begin() && std::prev(next)->second >= start) --next;
    while (next != seen.end() && next->first <= end) {
        start = std::min(start, next->first);
        end = std::max(end, next->second);
        next = seen.erase(next);
    }
    seen.emplace(start, end);
}

Sum::Sum() : columns_(fields().size()) {}

void Sum::add(Share share) {
    // All windows are compared before any is added: what one process maps twice is its own affair,
    // and inspect counts it twice as well.
    for (const FilePart& part : share.files) {
        std::uint64_t seen = part.window.second - part.window.first;
        for (const auto& [start, end] : windows_.unseen(part.device, part.inode, part.window))
            seen -= end - start;
        if (seen != 0) take_out(share.record, part, seen);
    }
    for (const FilePart& part : share.files) windows_.add(part.device, part.inode, part.window);
    add(share.record);
}

void Sum::add(const Record& record) {
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        Column& column = columns_[i];
        const Value& value = record.values[i];
        if (processes_ == 0) column.common = value;
        column.same = column.same && column.common == value;
        ++(is_known(value) ? column.known : column.unknown);
        if (const auto* const whole = std::get_if<std::uint64_t>(&value)) {
            column.whole += *whole;
            if (column.whole < *whole) column.whole = std::numeric_limits<std::uint64_t>::max();
        }
        if (const auto* const real = std::get_if<double>(&value)) column.real += *real;
        if (!column.same) column.common = {};
    }
    if (const auto* const complete = std::get_if<bool>(&record.at("complete")))
        complete_ = complete_ && *complete;
    add_reasons(record.gaps);
    ++processes_;
}

/// Reasons are mostly the same for all; should each process have its own, the first ones will do.
void Sum::add_reasons(const std::vector<Gap>& gaps) {
    static constexpr std::size_t most = 32;
    for (const Gap& gap : gaps) {
        Gap reason = gap;
        reason.range.reset();
        const auto known = std::find_if(reasons_.begin(), reasons_.end(),
                                        [&](const Reason& r) { return r.gap == reason; });
        if (known != reasons_.end())
            ++known->processes;
        else if (reasons_.size() < most)
            reasons_.push_back({std::move(reason), 1});
    }
}

Record Sum::record() const {
    Record sum;
    std::map<std::uint64_t, std::string> missing; ///< by the number of processes
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        const Field& field = fields()[i];
        const Column& column = columns_[i];
        if (!field.additive) {
            if (column.same && !names_one_process(field.name)) sum.values[i] = column.common;
            continue;
        }
        if (column.known == 0) continue;
        sum.values[i] = field.unit == Unit::seconds ? Value{column.real} : Value{column.whole};
        if (column.unknown == 0) continue;
        auto& names = missing[column.unknown];
        names += (names.empty() ? "" : ", ") + field.name;
    }
    sum.set("processes", processes_);
    if (processes_ != 0) sum.set("complete", complete_);
    sum.set("unknown_processes", missing.empty() ? std::uint64_t{0} : missing.rbegin()->first);
    for (const auto& [count, names] : missing)
        sum.gaps.push_back({"sum", std::nullopt,
                            fmt::format("not known of {} of {} processes, and without them: {}",
                                        count, processes_, names),
                            "", false});
    for (const Reason& reason : reasons_) {
        sum.gaps.push_back(reason.gap);
        sum.gaps.back().reason += fmt::format(" (of {} processes)", reason.processes);
    }
    return sum;
}

} // namespace pagesift::scan
