// SPDX-License-Identifier: MIT
#include "os/access_sources.hpp"
#include "os/probe.hpp"
#include "os/scan.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace pagesift::os {
namespace {

constexpr std::uint64_t most_pages = 65536;

struct Way {
    AccessKind kind;
    std::string_view name;
};

/// From the most to the least that each can tell.
constexpr std::array ways{
    Way{AccessKind::exact, "exact"},
    Way{AccessKind::idle_bitmap, "idle-bitmap"},
    Way{AccessKind::referenced, "referenced"},
    Way{AccessKind::soft_dirty, "soft-dirty"},
    Way{AccessKind::lru, "lru"},
};

std::unique_ptr<AccessSource> open(std::uint32_t pid, AccessKind kind, const Machine& machine,
                                   const OpenOptions& options) {
    switch (kind) {
    case AccessKind::exact: return std::make_unique<ExactAccess>(pid, machine, options);
    case AccessKind::idle_bitmap: return std::make_unique<IdleBitmapAccess>(pid, machine, options);
    case AccessKind::referenced: return std::make_unique<ReferencedAccess>(pid, machine, options);
    case AccessKind::soft_dirty:
        return std::make_unique<BitAccess>(pid, BitAccess::Bits::soft_dirty, machine, options);
    case AccessKind::automatic:
    case AccessKind::lru: break;
    }
    return std::make_unique<BitAccess>(pid, BitAccess::Bits::lru, machine, options);
}

} // namespace

AddressRange one_block(AddressRange wanted, std::uint64_t page_size) {
    return wanted.intersect({wanted.start, wanted.start + Bytes{most_pages * page_size}});
}

bool read_entries(const AccessTarget& target, AddressRange range,
                  std::vector<std::uint64_t>& entries) {
    entries.resize(range.size().value / target.page_size());
    const auto n = read_words(target.pagemap(), range.start.value / target.page_size(), entries);
    return n == static_cast<std::int64_t>(entries.size());
}

bool leap(const AccessTarget& target, AddressRange wanted, PageNotes& notes, TouchBlock& block) {
    const AddressRange nothing{wanted.start, target.next_populated(wanted)};
    if (nothing.empty()) return false;
    notes.clear(nothing);
    block.range = nothing;
    block.uniform = true;
    block.touches.assign(1, Touch::none);
    return true;
}

bool are_generations_on(const HostFacts& host) {
    const auto found = host.settings.find("lru_gen/enabled");
    return found != host.settings.end() &&
           found->second.find_first_not_of("0x") != std::string::npos;
}

Access open_access(std::uint32_t pid, AccessKind kind, const Machine& machine,
                   const OpenOptions& options) {
    Access access;
    if (kind != AccessKind::automatic) {
        access.source = open(pid, kind, machine, options);
        return access;
    }
    for (const Way& way : ways) {
        try {
            access.source = open(pid, way.kind, machine, options);
            return access;
        } catch (const Error& error) {
            if (error.kind() == ErrorKind::gone) throw;
            access.passed_over.push_back({fmt::format("source {}", way.name), std::nullopt,
                                          error.what(), error.hint(), false});
        }
    }
    const Gap& last = access.passed_over.back();
    throw Error{ErrorKind::denied, fmt::format("pid {}", pid), 0, last.remedy,
                fmt::format("no way to see accesses works; {}: {}", last.source, last.reason)};
}

} // namespace pagesift::os
