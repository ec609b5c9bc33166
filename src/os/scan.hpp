// SPDX-License-Identifier: MIT
// PAGEMAP_SCAN, with its traps handled.
#pragma once

#include "pagesift/abi.hpp"
#include "pagesift/base.hpp"

#include <functional>
#include <optional>

namespace pagesift::os {

struct ScanQuery {
    std::uint64_t inverted = 0;
    std::uint64_t mask = 0;  ///< all of these
    std::uint64_t anyof = 0; ///< at least one of these
    std::uint64_t report = 0;
};

/// Calls @p sink with every matching region in @p range, in order. Returns 0 or the errno.
/// The vector has 512 elements at most, because with a longer one walk_end can be stale and a scan
/// that trusts it reports regions twice (seen on 6.12 to 7.3; fs/proc/task_mmu.c:do_pagemap_scan).
/// @p sink returns false to stop.
int scan_pagemap(int pagemap_fd, AddressRange range, const ScanQuery& query,
                 const std::function<bool(const abi::page_region&)>& sink);

/// The first address in @p range whose entry is not none, or range.end. Empty: the kernel cannot.
std::optional<Address> next_populated(int pagemap_fd, AddressRange range);

} // namespace pagesift::os
