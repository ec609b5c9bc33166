// SPDX-License-Identifier: MIT
// Reads of many small objects, as few calls as the memory allows.
#pragma once

#include "pagesift/walk.hpp"

#include <algorithm>
#include <cstring>

namespace pagesift::walk {

inline std::uint64_t load_word(const std::byte* at) {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

/// memory.read, held to what its contract says about sizes: bytes that a reader did not write would
/// look like data.
/// @throws Error(failed) if it broke the contract
Copied read_checked(KernelMemory& memory, std::span<const Piece> pieces);

/// Reads @p count objects of @p bytes at address_of(i) and calls sink(i, bytes) for each in order,
/// with a null pointer for one that could not be read. Objects may cross a page boundary; they are
/// far smaller than a page. The sink must not read.
template <class AddressOf, class Sink>
void read_each(KernelMemory& memory, std::size_t count, std::uint32_t bytes, AddressOf&& address_of,
               Sink&& sink) {
    // Pages of any size end where pages of 4 KiB end.
    static constexpr std::uint64_t smallest_page = 4096;
    // More than this a call is not faster: what is copied should still be in the cache.
    static constexpr std::size_t cached_bytes = std::size_t{128} * 1024;
    const std::size_t most_objects = std::min(memory.most_bytes(), cached_bytes) / bytes;
    const std::size_t most_pieces = memory.most_pieces();
    std::vector<Piece> pieces;
    pieces.reserve(std::min(most_pieces, count + 1));
    for (std::size_t i = 0; i < count;) {
        pieces.clear();
        const std::size_t begin = i;
        for (; i < count && i - begin < most_objects && pieces.size() + 1 < most_pieces; ++i) {
            const std::uint64_t address = address_of(i);
            const std::uint64_t room = smallest_page - address % smallest_page;
            if (room >= bytes) {
                pieces.push_back({address, bytes});
                continue;
            }
            pieces.push_back({address, static_cast<std::uint32_t>(room)});
            pieces.push_back({address + room, bytes - static_cast<std::uint32_t>(room)});
        }
        const Copied copied = read_checked(memory, pieces);
        const std::byte* at = copied.bytes.data();
        std::size_t piece = 0;
        for (std::size_t j = begin; j < i; ++j, at += bytes, ++piece) {
            bool good = copied.good[piece] != 0;
            if (pieces[piece].bytes != bytes) good = (copied.good[++piece] != 0) && good;
            sink(j, good ? at : nullptr);
        }
    }
}

} // namespace pagesift::walk
