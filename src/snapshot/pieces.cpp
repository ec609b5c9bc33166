// SPDX-License-Identifier: MIT
#include "pagesift/snapshot.hpp"

#include <algorithm>

namespace pagesift::snapshot {
namespace {

constexpr std::uint64_t piece_pages = 65536;
/// A mapping this many times larger than all that is resident is mostly holes.
constexpr std::uint64_t sparse_factor = 16;
constexpr std::uint64_t sparse_pieces = 64;
constexpr std::size_t sparse_appetite = 512;

std::vector<AddressRange> clip(AddressRange range, std::span<const AddressRange> only) {
    if (only.empty()) return {range};
    std::vector<AddressRange> parts;
    auto wanted = std::partition_point(only.begin(), only.end(), [&](const AddressRange& before) {
        return before.end <= range.start;
    });
    for (; wanted != only.end() && wanted->start < range.end; ++wanted)
        parts.push_back(range.intersect(*wanted));
    return parts;
}

} // namespace

std::vector<Piece> plan_pieces(std::span<const Mapping> mappings,
                               std::span<const AddressRange> only, const HostFacts& host,
                               std::uint64_t resident_bytes) {
    std::vector<Piece> pieces;
    std::uint64_t room = 0; // pages that the last piece can still take
    for (std::size_t i = 0; i < mappings.size(); ++i) {
        for (const AddressRange& range : clip(mappings[i].range, only)) {
            const std::uint64_t pages = range.size().value / host.page_size;
            const bool sparse =
                pages > piece_pages && range.size().value / sparse_factor > resident_bytes;
            const std::uint64_t most =
                sparse ? std::max(piece_pages, pages / sparse_pieces) : piece_pages;
            for (Address at = range.start; at < range.end;) {
                const std::uint64_t left = (range.end - at).value / host.page_size;
                if (left > room && (room < piece_pages || left > most)) {
                    pieces.emplace_back();
                    room = most;
                }
                const std::uint64_t n = std::min(left, room);
                const Address end = at + Bytes{n * host.page_size};
                pieces.back().parts.push_back({i, {at, end}});
                room -= n;
                if (sparse) room = 0;
                at = end;
            }
        }
    }
    return pieces;
}

void read_piece(Source& source, std::span<const Mapping> mappings, const Piece& piece,
                const Want& want,
                const std::function<void(std::size_t mapping, const PageBlock&)>& sink) {
    PageBlock block;
    for (const Part& part : piece.parts) {
        // A part larger than a piece is one that should be nearly empty.
        if (part.range.size().value / source.host().page_size > piece_pages)
            block.appetite = sparse_appetite;
        for (AddressRange rest = part.range; !rest.empty();) {
            source.read_block(mappings[part.mapping], rest, want, block);
            if (block.range.empty()) break;
            sink(part.mapping, block);
            rest.start = block.range.end;
        }
    }
}

} // namespace pagesift::snapshot
