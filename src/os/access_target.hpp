// SPDX-License-Identifier: MIT
// What all ways to see accesses share: the process that is watched, what is noted of its pages from
// one sighting to the next, and clear_refs.
#pragma once

#include "os/file.hpp"
#include "pagesift/access.hpp"
#include "pagesift/os.hpp"

#include <map>
#include <memory>
#include <mutex>

namespace pagesift::os {

/// A process, by descriptors that never come to mean another one.
class AccessTarget {
public:
    /// Throws Error (gone, denied) where its page map cannot be opened.
    AccessTarget(std::uint32_t pid, const OpenOptions& options, const HostFacts& host);

    const Root& root() const { return root_; }
    const std::string& base() const { return base_; }
    int pagemap() const { return pagemap_.get(); }
    std::uint32_t pid() const { return pid_; }
    std::uint64_t page_size() const { return page_size_; }
    OpenResult open_clear_refs() const;
    /// The first page in @p range that has an entry, or the range's end; where the kernel does not
    /// tell (before 6.7), its start.
    Address next_populated(AddressRange range) const;

    /// Throws Error (gone) once the memory that the page map was opened on is nobody's any more.
    void expect_alive(const std::vector<Mapping>& mappings) const;
    /// Page faults that the process has had; empty: not known.
    std::optional<std::uint64_t> faults() const;
    /// The CPUs on which its threads may run.
    std::vector<unsigned> processors() const;
    [[noreturn]] void throw_gone() const;

private:
    Root root_;
    std::uint32_t pid_;
    std::string base_;
    std::uint64_t page_size_;
    bool leaps_; ///< PAGEMAP_SCAN finds the next page
    Fd pagemap_;
};

/// What was seen of each page at the last sighting, in 8 bytes: what stands in them is the user's
/// own. Safe to call from several threads for different pages.
class PageNotes {
public:
    explicit PageNotes(std::uint64_t page_size) : page_size_(page_size) {}
    void get(AddressRange range, std::span<std::uint64_t> notes);
    void set(AddressRange range, std::span<const std::uint64_t> notes);
    void clear(AddressRange range);

private:
    static constexpr std::uint64_t chunk_pages = 512;
    using Chunk = std::unique_ptr<std::uint64_t[]>;
    template <class Take> void each(AddressRange range, bool make, Take&& take);

    std::uint64_t page_size_;
    std::mutex mutex_;
    std::map<std::uint64_t, Chunk> chunks_;
};

/// Whether swapped pages were left alone. A swapped page that is accessed is first brought in, by a
/// page fault of the process; one and the same entry proves nothing, because a page that is swapped
/// out again may get its old place (mm/swap_state.c: the swap cache keeps it).
class FaultWatch {
public:
    /// Before sightings. A fault that comes with them belongs to both rounds.
    void look(const AccessTarget& target) {
        const auto now = target.faults();
        quiet_ = now && last_ && *now == *last_;
        last_ = now;
    }
    bool quiet() const { return quiet_; } ///< no fault since the look before
    Touch judge(bool noted_the_same) const {
        return noted_the_same && quiet_ ? Touch::idle : Touch::unknown;
    }

private:
    std::optional<std::uint64_t> last_;
    bool quiet_ = false;
};

/// /proc/PID/clear_refs, and the processors' caches of page-table entries.
///
/// Writing "1" clears the accessed bits of page-table entries, PG_young and PG_referenced of all
/// pages but those of hugetlb, and flushes no TLB (fs/proc/task_mmu.c: clear_refs_write,
/// clear_refs_pte_range). As long as a processor has an entry in its TLB it does not set the bit
/// again. Seen on an AMD EPYC with Linux 6.18, 20 times a thread that reads 16 pages in a loop, 20
/// ms after the clearing:
/// - without a flush 101 to 154 of 320 pages were called idle (of 2 MiB pages 22 of 320);
/// - with "4" written after it none. On a kernel without soft-dirty this walks and changes nothing,
///   and ends in flush_tlb_mm. It took 17 us here, and 3 ms a GiB.
/// - where there is soft-dirty, "4" would reset it and write-protect all pages. There 8 address
///   spaces of children of ours visit every processor in turn: x86 keeps at most 6 of them apart
///   (arch/x86/mm/tlb.c: TLB_NR_DYN_ASIDS), so the target's entries are flushed when it comes
///   back. None of 320.
/// - reading 8,192 other pages on that processor instead: 11 to 12 of 320.
/// tests/live/cold_tests.cpp has the loop.
class RefClearer {
public:
    /// @throws Error(denied) where it cannot be opened
    RefClearer(const AccessTarget& target, const HostFacts& host);
    /// Clears accessed bits, then flushes. @throws Error (gone, failed)
    ForgetCost clear();
    /// Clears soft-dirty bits, which flushes by itself. @throws Error (gone, failed)
    ForgetCost clear_soft_dirty();
    /// @throws Error (gone, failed)
    ForgetCost flush();

private:
    double write(char what);

    const AccessTarget& target_;
    Fd file_;
    bool flushes_by_write_;
    bool live_;
};

/// Lets other address spaces than the target's run on each of @p processors.
void visit_processors(const std::vector<unsigned>& processors);

} // namespace pagesift::os
