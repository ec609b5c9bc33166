// SPDX-License-Identifier: MIT
// Kernel memory that a test makes up: pages by address, that can be refused, and that can change
// between one piece of a read and the next.
#pragma once

#include "pagesift/abi.hpp"
#include "pagesift/walk.hpp"

#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <vector>

namespace pagesift::test {

class MadeUpMemory : public walk::KernelMemory {
public:
    static constexpr std::uint64_t page_bytes = 4096;

    std::size_t piece_limit = 16, byte_limit = 16 * page_bytes; ///< the least there may be
    std::size_t calls = 0, pieces = 0, bytes = 0;
    /// Called before each piece is copied, and may change the memory.
    std::function<void(const walk::Piece&)> before;

    std::size_t most_pieces() const override { return piece_limit; }
    std::size_t most_bytes() const override { return byte_limit; }

    walk::Copied read(std::span<const walk::Piece> wanted) override {
        ++calls;
        std::size_t total = 0;
        for (const walk::Piece& piece : wanted) total += piece.bytes;
        if (wanted.size() > piece_limit || total > byte_limit)
            throw std::logic_error{"more asked for than a call takes"};
        // The last answer is no longer to be looked at.
        copy_.assign(total + misaligned, std::byte{0xee});
        good_.assign(wanted.size(), 0);
        std::byte* at = copy_.data() + misaligned;
        for (std::size_t i = 0; i < wanted.size(); at += wanted[i++].bytes)
            good_[i] = copy(wanted[i], at);
        return {std::span{copy_}.subspan(misaligned), good_};
    }

    void put(std::uint64_t address, std::uint64_t word) { put_bytes(address, &word, sizeof word); }
    void put32(std::uint64_t address, std::uint32_t word) {
        put_bytes(address, &word, sizeof word);
    }
    void put8(std::uint64_t address, std::uint8_t byte) { put_bytes(address, &byte, 1); }
    void put_bytes(std::uint64_t address, const void* from, std::size_t count) {
        const auto* bytes_from = static_cast<const std::byte*>(from);
        for (std::size_t i = 0; i < count; ++i)
            page(address + i)[(address + i) % page_bytes] = bytes_from[i];
    }
    std::uint64_t get(std::uint64_t address) {
        std::uint64_t word;
        std::memcpy(&word, page(address).data() + address % page_bytes, sizeof word);
        return word;
    }
    /// Makes a page of zeros, if there is none.
    std::vector<std::byte>& page(std::uint64_t address) {
        auto& found = pages_[address / page_bytes];
        found.resize(page_bytes);
        return found;
    }
    void forget(std::uint64_t address) { pages_.erase(address / page_bytes); }

    std::size_t misaligned = 0; ///< bytes by which answers miss their alignment

private:
    std::uint8_t copy(const walk::Piece& piece, std::byte* to) {
        const std::uint64_t within = piece.address % page_bytes;
        if (piece.bytes == 0 || within + piece.bytes > page_bytes)
            throw std::logic_error{"a piece crosses a page boundary"};
        if (before) before(piece);
        ++pieces;
        bytes += piece.bytes;
        const auto found = pages_.find(piece.address / page_bytes);
        std::memset(to, 0, piece.bytes);
        if (found == pages_.end()) return 0;
        std::memcpy(to, found->second.data() + within, piece.bytes);
        return 1;
    }

    std::map<std::uint64_t, std::vector<std::byte>> pages_;
    std::vector<std::byte> copy_;
    std::vector<std::uint8_t> good_;
};

/// A kernel whose offsets no real one has, so that none can have been taken for granted.
inline walk::Kernel made_up_kernel(unsigned levels = 4) {
    walk::Kernel kernel;
    walk::KernelLayout& l = kernel.layout;
    l.task_struct_files = 0x48, l.task_struct_mm = 0x20, l.task_struct_tgid = 0x34;
    l.task_struct_tasks = 0x60;
    l.files_struct_fdt = 0x18, l.fdtable_fd = 0x10;
    l.file_f_mapping = 0x28, l.file_f_inode = 0x30, l.file_private_data = 0x38,
    l.inode_i_ino = 0x50;
    l.mm_struct_pgd = 0x70, l.mm_struct_task_size = 0x78;
    l.address_space_i_pages = 0x18, l.xarray_xa_head = 0x10;
    l.xa_node_shift = 3, l.xa_node_offset = 5, l.xa_node_parent = 16, l.xa_node_array = 24;
    l.xa_node_slots = 48, l.xa_node_slot_count = 64;
    l.page_flags = 0, l.page_bytes = 64, l.page_compound_head = 16, l.page_mapcount = 52;
    l.folio_mapping = 24, l.folio_index = 32, l.pt_mm = 40, l.page_type = 52, l.PGTY_table = 0xf2;
    l.PG_referenced = 3, l.PG_uptodate = 4, l.PG_lru = 9, l.PG_head = 11, l.PG_active = 13;
    l.PG_swapcache = 15, l.PG_swapbacked = 17, l.PG_reserved = 19, l.PG_hwpoison = 21;
    l.PG_workingset = 22;
    l.shown_flags = {{3, abi::KPF_REFERENCED}, {9, abi::KPF_LRU}, {17, abi::KPF_SWAPBACKED}};
    kernel.entries = walk::x86_64_entries(levels, 46);
    kernel.bases = {0xffff9a4000000000, 0xffffd70c40000000, 0x400000};
    return kernel;
}

} // namespace pagesift::test
