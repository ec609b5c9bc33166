// SPDX-License-Identifier: MIT
// The kernel's memory, as torn and as changing as can be: walks end, cover what they were asked
// for, and never read beside what may be read.
#include "fuzz.hpp"
#include "unit/made_up_memory.hpp"

#include <algorithm>
#include <deque>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;
using test::MadeUpMemory;

constexpr std::uint64_t first_frame = 0x1000, frames = 6;

/// Numbers off the front of the input; 0 behind its end.
class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
    bool done() const { return at_ == end_; }
    std::uint64_t take(unsigned bytes) {
        std::uint64_t number = 0;
        for (unsigned i = 0; i < bytes && at_ != end_; ++i)
            number |= std::uint64_t{*at_++} << (8 * i);
        return number;
    }

private:
    const std::uint8_t *at_, *end_;
};

/// A few pages of the direct map that point at each other, and the struct pages of their frames.
class Machine {
public:
    explicit Machine(Input& input) {
        for (std::uint64_t i = 0; i < frames; ++i) memory.page(page(i));
        memory.page(struct_pages());
        while (!input.done()) {
            const auto where = input.take(1), what = input.take(1);
            const auto index = input.take(2) % 512, value = input.take(8);
            const Write write{address(where, index), word(what, value)};
            // Some of it happens while it is being read.
            if (what & 0x80)
                later_.push_back(write);
            else
                memory.put(write.address, write.word);
        }
        memory.before = [this](const walk::Piece&) {
            if (later_.empty()) return;
            memory.put(later_.front().address, later_.front().word);
            later_.pop_front();
        };
    }

    std::uint64_t page(std::uint64_t i) const {
        return kernel.bases.direct_map + (first_frame + i % frames) * MadeUpMemory::page_bytes;
    }

    walk::Kernel kernel = test::made_up_kernel();
    MadeUpMemory memory;

private:
    struct Write {
        std::uint64_t address, word;
    };
    std::uint64_t struct_pages() const {
        return kernel.bases.vmemmap + first_frame * kernel.layout.page_bytes;
    }
    std::uint64_t address(std::uint64_t where, std::uint64_t index) const {
        return (where % (frames + 1) == frames ? struct_pages() : page(where)) + index * 8;
    }
    std::uint64_t word(std::uint64_t what, std::uint64_t value) const {
        switch (what % 8) {
        case 0: // an entry that names a table
            return (first_frame + value % frames) * MadeUpMemory::page_bytes | 0x67;
        case 1: return (page(value) + (value >> 8) % 7 * 576) | 2; // a node of a page cache
        case 2:                                                    // a folio
            return kernel.bases.vmemmap + (first_frame + value % frames) * kernel.layout.page_bytes;
        case 3: return page(value) + kernel.layout.address_space_i_pages; // a tree
        default: return value;
        }
    }

    std::deque<Write> later_;
};

void walk_tables(Machine& machine, AddressRange range) {
    Address at = range.start;
    const walk::EntryFormat& format = machine.kernel.entries;
    std::vector<std::uint64_t> words;
    walk::walk_tables(
        machine.memory, machine.kernel, machine.page(0), range, [&](const walk::SlotRun& run) {
            require(run.range.start == at && !run.range.empty(), "runs are a row");
            at = run.range.end;
            const bool table = run.state == walk::TableState::populated ||
                               run.state == walk::TableState::empty ||
                               run.state == walk::TableState::marker_only;
            require(run.entries.size() == (table ? 512u : 0u), "a table has its entries");
            require(run.slot_start <= run.range.start, "a slot begins before");
            const auto pages = run.range.size().value >> format.page_shift;
            if (pages > 4096) return;
            words.assign(static_cast<std::size_t>(pages), 0);
            walk::write_pagemap(format, run, words);
        });
    require(at == range.end, "runs cover what was asked for");
    walk::translate(machine.memory, machine.kernel, machine.page(0), range.start);
}

void walk_page_cache(Machine& machine, std::uint64_t first, std::size_t count) {
    std::vector<walk::CachedPage> pages(count);
    const auto mapping = machine.page(5) + 64;
    const auto counts =
        walk::walk_page_cache(machine.memory, machine.kernel, mapping, first, pages);
    std::uint64_t unknown = 0;
    for (const auto& page : pages) {
        using State = walk::CachedPage::State;
        require(page.state <= State::unknown, "there are four states");
        unknown += page.state == State::unknown;
        if (page.state == State::folio)
            require(page.value < machine.kernel.bases.frame_end, "a folio is in RAM");
    }
    require(unknown == counts.unknown, "what is unknown is counted");
}

void read_frames(Machine& machine) {
    std::vector<std::uint64_t> wanted(64);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = first_frame - 8 + i;
    wanted.push_back(machine.kernel.bases.frame_end);
    wanted.push_back(~std::uint64_t{0} >> 12);
    std::vector<walk::Frame> seen(wanted.size());
    walk::read_frames(machine.memory, machine.kernel, wanted, seen);
    std::vector<walk::PlainPage> plain(wanted.size());
    walk::read_plain_pages(machine.memory, machine.kernel, wanted, plain);
    std::vector<std::uint8_t> tables(wanted.size());
    walk::read_page_tables(machine.memory, machine.kernel, wanted, tables);
    std::vector<walk::Zero> zeros(wanted.size());
    walk::test_zero(machine.memory, machine.kernel, wanted, zeros);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        require(tables[i] <= 1 || tables[i] == 0xff, "a page table, or none, or unknown");
        const bool ours = wanted[i] >= first_frame && wanted[i] < first_frame + frames;
        require(ours || zeros[i] == walk::Zero::unreadable, "only what there is can be zero");
        if (!seen[i].known) require(seen[i].flags == 0, "of what is unknown nothing is said");
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input{data, std::min<std::size_t>(size, 4096)};
    const Address start{input.take(2) << 21 | (input.take(2) % 512) << 12};
    const std::uint64_t pages = input.take(2) % 2048 + 1;
    const std::uint64_t first = input.take(4);
    Machine machine{input};
    walk_tables(machine, {start, start + Bytes{pages << 12}});
    walk_page_cache(machine, first, static_cast<std::size_t>(pages % 256));
    read_frames(machine);
    return 0;
}
