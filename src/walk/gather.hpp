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

/// The same for objects of an array whose elements are @p stride bytes apart: neighbours are read
/// as one piece, because a piece costs more than what lies between. The order of the sink's calls
/// differs only where something could not be read.
template <class AddressOf, class Sink>
void read_elements(KernelMemory& memory, std::size_t count, std::uint32_t bytes,
                   std::uint32_t stride, AddressOf&& address_of, Sink&& sink) {
    static constexpr std::uint64_t smallest_page = 4096;
    static constexpr std::size_t cached_bytes = std::size_t{128} * 1024;
    // Longer ones gain nothing (tests/bench/lens_primitives.cpp), and copy more than they must.
    static constexpr std::size_t longest_run = 16;
    const std::size_t most_bytes = std::min(memory.most_bytes(), cached_bytes);
    const std::size_t most_pieces = memory.most_pieces();
    std::vector<Piece> pieces;
    std::vector<std::size_t> firsts; // of each piece, its first object
    std::vector<std::size_t> apart;  // objects that are read one by one
    pieces.reserve(std::min(most_pieces, count));
    firsts.reserve(pieces.capacity());
    for (std::size_t i = 0; i < count;) {
        pieces.clear();
        firsts.clear();
        for (std::size_t used = 0; i < count && pieces.size() < most_pieces;) {
            const std::uint64_t address = address_of(i);
            const std::uint64_t room = smallest_page - address % smallest_page;
            if (bytes > room) {
                apart.push_back(i++);
                continue;
            }
            std::size_t run = 1;
            while (run < longest_run && i + run < count && run * stride + bytes <= room &&
                   address_of(i + run) == address + run * stride)
                ++run;
            const std::size_t length = (run - 1) * stride + bytes;
            if (used + length > most_bytes) break;
            used += length;
            pieces.push_back({address, static_cast<std::uint32_t>(length)});
            firsts.push_back(i);
            i += run;
        }
        if (pieces.empty()) continue;
        const Copied copied = read_checked(memory, pieces);
        const std::byte* at = copied.bytes.data();
        for (std::size_t p = 0; p < pieces.size(); at += pieces[p++].bytes) {
            const std::size_t run = (pieces[p].bytes - bytes) / stride + 1;
            for (std::size_t k = 0; k < run; ++k)
                if (copied.good[p] != 0)
                    sink(firsts[p] + k, at + k * stride);
                else
                    apart.push_back(firsts[p] + k);
        }
    }
    read_each(
        memory, apart.size(), bytes, [&](std::size_t k) { return address_of(apart[k]); },
        [&](std::size_t k, const std::byte* object) { sink(apart[k], object); });
}

} // namespace pagesift::walk
