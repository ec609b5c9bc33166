// SPDX-License-Identifier: MIT
// The ways to see accesses, one a file; open_access chooses. Each constructor throws Error saying
// why it cannot be had.
#pragma once

#include "os/access_target.hpp"
#include "os/exact_lens.hpp"
#include "os/frames.hpp"
#include "os/reclaim_counters.hpp"

#include <atomic>
#include <set>

namespace pagesift::os {

/// PTE accessed bits and what is left of them in page flags, in the kernel's memory. Who clears an
/// entry's accessed bit leaves PG_young or PG_referenced behind, but for reclaim of the active list
/// and of MGLRU, and for migration. A round is watched for these in one of two ways:
/// - by the kernel's counters (ReclaimCounters), which takes nothing from pages. Where they move,
///   pages that do not look accessed are unknown;
/// - where they moved before the round began, and reclaim is classic: by PG_active, noted of each
///   page before the clearing. Pages that have changed their list since, or are on none, are
///   unknown; so are those that may have been on the active list if such a list was scanned.
///   Entries are looked at once more after the flags (walk::judge_access).
class ExactAccess final : public AccessSource {
public:
    ExactAccess(std::uint32_t pid, const Machine& machine, const OpenOptions& options);
    ~ExactAccess() override;
    ExactAccess(const ExactAccess&) = delete;
    ExactAccess& operator=(const ExactAccess&) = delete;
    const AccessTraits& traits() const override { return traits_; }
    void prepare(const std::vector<Mapping>& mappings) override;
    void sight(const Mapping& mapping, AddressRange wanted, Sight which,
               TouchBlock& block) override;
    /// Under MGLRU a sighting is believed some time after its end only, so it stands alone.
    bool judges_blocks() const override { return !generations_on_; }
    bool judge_block(const Mapping& mapping, const PageBlock& read, TouchBlock& block) override;
    bool stands() override;
    ForgetCost forget() override;
    std::vector<Gap> gaps() const override { return gaps_.list(); }

private:
    struct Buffers;
    class Sighter;
    std::unique_ptr<Buffers> take_buffers();
    void give_back(std::unique_ptr<Buffers> buffers);

    AccessTarget target_;
    std::shared_ptr<ExactLens> lens_;
    RefClearer clearer_;
    ReclaimCounters counters_;
    std::uint64_t top_ = 0;
    bool generations_on_; ///< MGLRU
    AccessTraits traits_;
    FaultWatch faults_;
    PageNotes notes_;
    GapLog gaps_;
    ReclaimCounters::Sums counted_;     ///< at the last prepare()
    ReclaimCounters::Sums at_clearing_; ///< as counted_, before the last forget()
    bool notes_flags_ = false;          ///< for the next round
    bool noted_flags_ = false;          ///< for this one
    std::mutex mutex_;
    std::vector<std::unique_ptr<Buffers>> buffers_; ///< idle ones
};

/// sys/kernel/mm/page_idle/bitmap, one bit a frame.
class IdleBitmapAccess final : public AccessSource {
public:
    IdleBitmapAccess(std::uint32_t pid, const Machine& machine, const OpenOptions& options);
    const AccessTraits& traits() const override { return traits_; }
    void prepare(const std::vector<Mapping>& mappings) override;
    void sight(const Mapping& mapping, AddressRange wanted, Sight which,
               TouchBlock& block) override;
    /// Bits of idle frames are left as they are.
    bool is_blind_between_rounds() const override { return false; }
    ForgetCost forget() override;
    std::vector<Gap> gaps() const override { return {}; }

private:
    AccessTarget target_;
    FrameReader frames_;
    Fd bitmap_;
    std::optional<RefClearer> flusher_;
    AccessTraits traits_;
    FaultWatch faults_;
    PageNotes notes_;
    std::mutex mutex_;
    std::map<std::uint64_t, std::uint64_t> to_set_; ///< words of the bitmap, by their place
};

/// smaps Referenced: one answer a mapping.
class ReferencedAccess final : public AccessSource {
public:
    ReferencedAccess(std::uint32_t pid, const Machine& machine, const OpenOptions& options);
    const AccessTraits& traits() const override { return traits_; }
    void prepare(const std::vector<Mapping>& mappings) override;
    void sight(const Mapping& mapping, AddressRange wanted, Sight which,
               TouchBlock& block) override;
    ForgetCost forget() override { return clearer_.clear(); }
    std::vector<Gap> gaps() const override { return gaps_.list(); }

private:
    AccessTarget target_;
    RefClearer clearer_;
    AccessTraits traits_;
    FaultWatch faults_;
    PageNotes notes_;
    mutable GapLog gaps_;
    std::map<Address, std::uint64_t> referenced_; ///< Referenced, by the mappings' start
};

/// Bits of the page map or of kpageflags: soft-dirty, or hints of the LRU lists.
class BitAccess final : public AccessSource {
public:
    enum class Bits { soft_dirty, lru };
    BitAccess(std::uint32_t pid, Bits bits, const Machine& machine, const OpenOptions& options);
    const AccessTraits& traits() const override { return traits_; }
    void prepare(const std::vector<Mapping>& mappings) override;
    void sight(const Mapping& mapping, AddressRange wanted, Sight which,
               TouchBlock& block) override;
    ForgetCost forget() override;
    std::vector<Gap> gaps() const override { return gaps_.list(); }

private:
    Touch judge(std::uint64_t entry, std::uint64_t flags, std::uint64_t was) const;

    AccessTarget target_;
    Bits bits_;
    FrameReader frames_;
    std::optional<RefClearer> clearer_;
    bool generations_on_; ///< MGLRU, under which the hints mean nothing
    AccessTraits traits_;
    FaultWatch faults_;
    PageNotes notes_;
    GapLog gaps_;
};

/// Fills @p entries with the page map's words of @p range.
/// @return false: the process' memory is gone
bool read_entries(const AccessTarget& target, AddressRange range,
                  std::vector<std::uint64_t>& entries);
/// Where nothing is at the start of @p wanted: makes @p block of it, as far as that goes, and drops
/// what was noted of it. So terabytes that are only reserved take no time.
bool leap(const AccessTarget& target, AddressRange wanted, PageNotes& notes, TouchBlock& block);
/// Whether MGLRU is switched on.
bool are_generations_on(const HostFacts& host);
/// The part of @p wanted that one block takes.
AddressRange one_block(AddressRange wanted, std::uint64_t page_size);

/// What fault-around maps with a neighbour looks accessed on x86 (mm/memory.c: do_fault_around,
/// set_pte_range), so of a page of a file that was not there before, no bit tells.
inline bool may_come_unasked(const Mapping& mapping) {
    return mapping.backing == Backing::file || mapping.backing == Backing::shmem;
}

} // namespace pagesift::os
