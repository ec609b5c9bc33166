// SPDX-License-Identifier: MIT
// The page cache of tmpfs files from its own tree: what no system call tells of a swapped page is
// where in swap it lies.
#include "os/page_cache.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <sys/stat.h>

namespace pagesift::os {
namespace {

/// Pages that are mapped and asked about all the same, because going down the tree anew costs more.
constexpr std::size_t widest_gap = 512;

bool is_none(std::uint64_t entry) { return (entry & (abi::PM_PRESENT | abi::PM_SWAP)) == 0; }

/// Pages of the file; what lies behind them nobody can reach, whatever is allocated there.
std::uint64_t pages_of(const MappedFile& file, std::uint64_t page_size) {
    struct stat status {};
    const int fd = file.fd ? file.fd.get() : file.path.get();
    if (::fstat(fd, &status) != 0 || status.st_size < 0) return ~std::uint64_t{0};
    return (static_cast<std::uint64_t>(status.st_size) + page_size - 1) / page_size;
}

std::uint64_t as_pagemap(const walk::CachedPage& page) {
    return abi::pagemap_swap(page.swap_type, page.value);
}

} // namespace

void PageCache::find_tree(int path_fd, MappedFile& file) const {
    if (!methods_.exact) return;
    try {
        file.tree = methods_.exact->lease()->find_mapping(path_fd);
    } catch (const Error& error) {
        gaps_.add({"page cache", std::nullopt, error.what(), "", false});
    }
}

/// Fills what the tree tells; the rest stays not_asked, and is asked the other way.
void PageCache::walk_tree(const Mapping& mapping, const MappedFile& file, std::uint64_t first,
                          PageBlock& block) {
    using State = walk::CachedPage::State;
    const std::uint64_t end_of_file = pages_of(file, page_size_);
    std::vector<walk::CachedPage> pages;
    const auto take = [&](std::size_t i, const walk::CachedPage& page) {
        if (!is_none(block.entries[i])) return;
        if (first + i >= end_of_file || page.state == State::hole) {
            block.cache[i] = Cache::hole;
        } else if (page.state == State::folio) {
            block.cache[i] = Cache::cached;
        } else if (page.state == State::swap) {
            block.cache[i] = Cache::absent;
            if (block.swap_entries.empty()) block.swap_entries.assign(block.entries.size(), 0);
            block.swap_entries[i] = as_pagemap(page);
        }
    };
    try {
        const auto view = methods_.exact->lease();
        for (std::size_t i = 0; i < block.entries.size();) {
            if (!is_none(block.entries[i])) {
                ++i;
                continue;
            }
            std::size_t end = i + 1;
            for (std::size_t at = end; at < block.entries.size() && at - end < widest_gap; ++at)
                if (is_none(block.entries[at])) end = at + 1;
            pages.assign(end - i, {});
            walk::walk_page_cache(view->memory(), view->kernel(), *file.tree, first + i, pages);
            for (std::size_t at = i; at < end; ++at) take(at, pages[at - i]);
            i = end;
        }
    } catch (const Error& error) {
        gaps_.add({"page cache", mapping.range, error.what(), "", false});
    }
}

} // namespace pagesift::os
