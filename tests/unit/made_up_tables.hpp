// SPDX-License-Identifier: MIT
// Page tables in made-up memory.
#pragma once

#include "made_up_memory.hpp"

namespace pagesift::test {

constexpr std::uint64_t table_bits = 0x67; ///< present, writable, user, accessed, dirty
constexpr std::uint64_t page_bits = 0x25;  ///< present, user, accessed

class MadeUpTables {
public:
    MadeUpTables(MadeUpMemory& memory, walk::Kernel& kernel)
        : memory_{memory}, kernel_{kernel}, pgd{new_table()} {}

    /// The address of the entry of @p level for @p address; tables on the way are made.
    std::uint64_t entry_at(std::uint64_t address, unsigned level) {
        std::uint64_t table = pgd;
        for (unsigned at = kernel_.entries.levels;; --at) {
            const std::uint64_t entry = table + (address >> kernel_.entries.shift(at) & 511) * 8;
            if (at == level) return entry;
            if (memory_.get(entry) == 0) memory_.put(entry, entry_for(new_table()));
            table = kernel_.bases.direct_map + (memory_.get(entry) & 0xfffffff000);
        }
    }

    void set(std::uint64_t address, unsigned level, std::uint64_t raw) {
        memory_.put(entry_at(address, level), raw);
    }

    std::uint64_t new_table() {
        const std::uint64_t table = kernel_.bases.direct_map + next_frame_++ * 4096;
        memory_.page(table);
        return table;
    }
    std::uint64_t entry_for(std::uint64_t table) const {
        return (table - kernel_.bases.direct_map) | table_bits;
    }

private:
    MadeUpMemory& memory_;
    walk::Kernel& kernel_;
    std::uint64_t next_frame_ = 0x1000;

public:
    std::uint64_t pgd;
};

/// One run, with its entries kept.
struct KeptRun {
    walk::SlotRun run;
    std::vector<std::uint64_t> entries;
    walk::TableState state() const { return run.state; }
    std::uint64_t start() const { return run.range.start.value; }
    std::uint64_t end() const { return run.range.end.value; }
};

} // namespace pagesift::test
