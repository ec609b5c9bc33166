// SPDX-License-Identifier: MIT
// Small tools of the exhibits: fill, touch, push out; and the claims that proofs are made of. Each
// claim reads the kernel's view of the zoo's own memory and throws ProofFailed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "exhibit.hpp"
#include "witness.hpp"

namespace pagesift::zoo {

inline void* pointer(std::uint64_t at) { return reinterpret_cast<void*>(at); }
inline std::uint64_t bytes_of(std::size_t pages) { return pages * witness::page_size(); }

/// A page of bytes that no other page has, so that nothing merges with it.
std::vector<char> random_page();
/// Writes other random bytes to each page: present, dirty, not zero.
void fill(std::uint64_t at, std::size_t pages);
/// Writes each page and leaves zeroes.
void fill_with_zeroes(std::uint64_t at, std::size_t pages);
/// Reads one byte of each page.
void touch(std::uint64_t at, std::size_t pages);
/// madvise; throws Unavailable with @p what and the error.
void advise(std::uint64_t at, std::size_t pages, int advice, const char* what);
/// MADV_PAGEOUT until no page of the range is present; the kernel skips pages in passing states.
void page_out(std::uint64_t at, std::size_t pages);
/// Moves pages that wait in this CPU's batches to their lists.
void drain_batches();

// Claims about a range of this process ---------------------------------------------------------

struct Pages {
    std::uint64_t at;
    std::size_t count;
};

std::vector<std::uint64_t> entries(Pages range);
void expect_none(Pages range);
void expect_present(Pages range);
void expect_swapped(Pages range, std::uint64_t type);
void expect_marker(Pages range, std::uint64_t which);
/// Flags of the frame behind every page. Implies expect_present.
void expect_flags(Pages range, std::initializer_list<witness::KpfBit> set,
                  std::initializer_list<witness::KpfBit> clear);
/// kpagecount of the frame behind every page.
void expect_count(Pages range, std::uint64_t count);
/// A smaps field, in pages, of the mapping that starts at @p at.
void expect_smaps(std::uint64_t at, const std::string& field, std::size_t pages);
/// In the page cache or not (mincore); for shmem the swap cache counts as well.
void expect_resident(Pages range, bool resident);
/// Of the page cache behind a descriptor, page offset and count: cachestat, where there is one.
void expect_cache(int fd, Pages file_range, std::size_t cached, std::size_t evicted);
/// Every byte is 0.
void expect_zeroes(Pages range);

} // namespace pagesift::zoo
