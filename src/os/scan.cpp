// SPDX-License-Identifier: MIT
#include "os/scan.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <sys/ioctl.h>

namespace pagesift::os {
namespace {

constexpr std::size_t most_regions = 512;

int scan_once(int fd, abi::pm_scan_arg& arg) {
    int n;
    do {
        n = ::ioctl(fd, abi::PAGEMAP_SCAN, &arg);
    } while (n < 0 && errno == EINTR);
    return n;
}

} // namespace

int scan_pagemap(int pagemap_fd, AddressRange range, const ScanQuery& query,
                 const std::function<bool(const abi::page_region&)>& sink) {
    std::array<abi::page_region, most_regions> regions;
    std::uint64_t from = range.start.value;
    while (from < range.end.value) {
        abi::pm_scan_arg arg{};
        arg.size = sizeof arg;
        arg.start = from;
        arg.end = range.end.value;
        arg.vec = reinterpret_cast<std::uintptr_t>(regions.data());
        arg.vec_len = regions.size();
        arg.category_inverted = query.inverted;
        arg.category_mask = query.mask;
        arg.category_anyof_mask = query.anyof;
        arg.return_mask = query.report;
        const int n = scan_once(pagemap_fd, arg);
        if (n < 0) return errno;
        for (int i = 0; i < n; ++i)
            if (!sink(regions[static_cast<std::size_t>(i)])) return 0;
        if (static_cast<std::size_t>(n) < regions.size()) return 0;
        // A full vector: go on behind what was certainly reported.
        const std::uint64_t reached = std::max(arg.walk_end, regions.back().end);
        if (reached <= from) return EIO;
        from = reached;
    }
    return 0;
}

std::optional<Address> next_populated(int pagemap_fd, AddressRange range) {
    abi::page_region region{};
    abi::pm_scan_arg arg{};
    arg.size = sizeof arg;
    arg.start = range.start.value;
    arg.end = range.end.value;
    arg.vec = reinterpret_cast<std::uintptr_t>(&region);
    arg.vec_len = 1;
    arg.max_pages = 1;
    arg.category_anyof_mask = abi::PAGE_IS_PRESENT | abi::PAGE_IS_SWAPPED;
    arg.return_mask = abi::PAGE_IS_PRESENT | abi::PAGE_IS_SWAPPED;
    const int n = scan_once(pagemap_fd, arg);
    if (n < 0) return {};
    if (n == 0) return range.end;
    return Address{std::clamp(region.start, range.start.value, range.end.value)};
}

} // namespace pagesift::os
