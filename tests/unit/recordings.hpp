// SPDX-License-Identifier: MIT
// Recordings made in memory, and pages compared one by one.
#pragma once

#include "pagesift/snapshot.hpp"

#include <doctest/doctest.h>
#include <iomanip>
#include <sstream>
#include <string>

namespace pagesift::test {

inline constexpr std::uint64_t page_size = 4096;

inline Mapping mapping_at(std::uint64_t start, std::uint64_t pages,
                          Backing backing = Backing::anon) {
    Mapping m;
    m.range = {Address{start}, Address{start + pages * page_size}};
    m.readable = m.writable = true;
    m.backing = backing;
    m.page_size = page_size;
    return m;
}

inline PageBlock block_at(std::uint64_t start, std::vector<std::uint64_t> entries) {
    PageBlock block;
    block.range = {Address{start}, Address{start + entries.size() * page_size}};
    block.entries = std::move(entries);
    return block;
}

inline PageBlock uniform_block(AddressRange range, std::uint64_t entry) {
    PageBlock block;
    block.range = range;
    block.uniform = true;
    block.entries = {entry};
    return block;
}

/// What is recorded of one process: mappings and blocks, each with the number of its mapping.
struct Recorded {
    HostFacts host;
    ProcessText process;
    Want want;
    std::vector<Mapping> mappings;
    std::vector<std::pair<std::size_t, PageBlock>> blocks;
    std::vector<AddressRange> asked;
    std::optional<std::vector<AddressRange>> owned;
    std::vector<Gap> gaps;

    void write(snapshot::RecordingWriter& writer) const {
        writer.begin(process, mappings, want);
        for (const auto& [mapping, block] : blocks) writer.block(mapping, block);
        writer.tables(asked, owned);
        writer.end(gaps);
    }
    std::string bytes(snapshot::Encoding encoding = snapshot::Encoding::text) const {
        std::ostringstream out;
        snapshot::RecordingWriter writer{out, encoding, host};
        write(writer);
        writer.finish();
        return std::move(out).str();
    }
};

inline std::unique_ptr<Source> load_one(const std::string& bytes) {
    auto sources = snapshot::load_recording(bytes, "test.rec");
    REQUIRE(sources.size() == 1);
    return std::move(sources[0]);
}

/// All that is known of one page, as numbers; -1 where the column is not there.
using PageRow = std::array<std::int64_t, 8>;

inline PageRow row_of(const PageBlock& block, std::size_t i) {
    const auto value = [&](const auto& column) {
        return column.empty() ? -1 : static_cast<std::int64_t>(column[block.uniform ? 0 : i]);
    };
    return {value(block.entries),      value(block.flags),      value(block.map_counts),
            value(block.folio_orders), value(block.pmd_mapped), value(block.zero_page),
            value(block.cache),        value(block.content)};
}

/// Everything wanted is read, so that no column is withheld.
inline constexpr Want want_all{true, true, ZeroTest::all, 1};

/// The rows of [start, start + pages), read as a look would.
inline std::vector<PageRow> read_rows(Source& source, const Mapping& mapping, AddressRange wanted) {
    std::vector<PageRow> rows;
    PageBlock block;
    while (!wanted.empty()) {
        source.read_block(mapping, wanted, want_all, block);
        REQUIRE(block.range.start == wanted.start);
        REQUIRE(block.range.end <= wanted.end);
        REQUIRE_FALSE(block.range.empty());
        const std::uint64_t pages = block.range.size().value / page_size;
        for (std::size_t i = 0; i < pages; ++i) rows.push_back(row_of(block, i));
        wanted.start = block.range.end;
    }
    return rows;
}

/// A text recording with a last line that fits what stands before it.
inline std::string sealed(const std::string& lines) {
    std::uint32_t crc = 0xffffffff;
    std::uint64_t count = 1;
    for (const char c : lines) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
        count += c == '\n';
    }
    std::ostringstream end;
    end << "end " << count << ' ' << std::hex << std::setw(8) << std::setfill('0') << ~crc << '\n';
    return lines + end.str();
}

} // namespace pagesift::test
