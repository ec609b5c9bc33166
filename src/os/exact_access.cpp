// SPDX-License-Identifier: MIT
#include "os/access_sources.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace pagesift::os {
namespace {

/// What is noted of a page: its word of the page map, in which other bits stand for themselves.
struct Note {
    static constexpr std::uint64_t kept = abi::PM_PRESENT | abi::PM_SWAP | abi::PM_PFRAME_MASK;
    static constexpr std::uint64_t flags_known = std::uint64_t{1} << 61;
    static constexpr std::uint64_t active = std::uint64_t{1} << 60;
    static constexpr std::uint64_t huge = std::uint64_t{1} << 59;
    static constexpr std::uint64_t in_question = std::uint64_t{1} << 58;
    static constexpr std::uint64_t unless_refilled = std::uint64_t{1} << 57;
    static_assert(((flags_known | active | huge | in_question | unless_refilled) & kept) == 0);
};

std::shared_ptr<ExactLens> lens_of(const Machine& machine) {
    if (!machine.exact)
        throw Error{ErrorKind::unsupported, "--source exact", 0,
                    machine.gaps.empty() ? "" : machine.gaps.front().remedy,
                    machine.gaps.empty() ? "needs the exact lens" : machine.gaps.front().reason};
    return machine.exact;
}

} // namespace

ExactAccess::ExactAccess(std::uint32_t pid, const Machine& machine, const OpenOptions& options)
    : target_(pid, options, *machine.host),
      lens_(lens_of(machine)),
      clearer_(target_, *machine.host),
      counters_(target_.root()),
      generations_on_(are_generations_on(*machine.host)),
      notes_(machine.host->page_size),
      counted_(counters_.read()) {
    const auto view = lens_->lease();
    if (const auto trouble = view->flags_trouble(); !trouble.empty())
        throw Error{ErrorKind::unsupported, "--source exact", 0,
                    view->flags_checked() ? "" : "root, or CAP_DAC_READ_SEARCH", trouble};
    const auto top = view->find_top_table(target_.pagemap());
    if (!top)
        throw Error{ErrorKind::unsupported, "--source exact", 0, "",
                    "the process' page tables were not found for certain"};
    top_ = *top;
    traits_.name = "exact";
    traits_.method = "accessed bits of page-table entries and page flags in the kernel's memory, "
                     "cleared by clear_refs";
    traits_.limits = {
        "page flags are the folio's: accesses by other processes, and by reads of its contents "
        "from outside, count as well",
        "another process that clears accessed bits by clear_refs or MADV_COLD meanwhile takes the "
        "evidence along"};
}

void ExactAccess::prepare(const std::vector<Mapping>& mappings) {
    target_.expect_alive(mappings);
    faults_.look(target_);
    const auto now = counters_.read();
    notes_flags_ = !generations_on_ && (!now.all || now.all != counted_.all);
    counted_ = now;
}

ForgetCost ExactAccess::forget() {
    noted_flags_ = notes_flags_;
    // From before the notes, so that nothing that was isolated then is under way while bits are
    // cleared.
    at_clearing_ = counted_;
    return clearer_.clear();
}

bool ExactAccess::stands() {
    if (noted_flags_) return true;
    // The bits go first, and the counters move when something is reclaimed.
    static constexpr std::chrono::milliseconds aging{50};
    if (generations_on_) std::this_thread::sleep_for(aging);
    const auto now = counters_.read().all;
    if (now && now == at_clearing_.all) return true;
    gaps_.add({"accessed bits", std::nullopt,
               now ? "the kernel reclaimed or moved memory in the round, which can clear accessed "
                     "bits without a trace: what was not seen to be accessed is unknown"
                   : "vmstat does not tell whether the kernel reclaimed memory, which can "
                     "clear accessed bits without a trace",
               now ? "a shorter --window, or more memory" : "", false});
    return false;
}

/// What one block takes; kept from one to the next, because new memory is not for free.
struct ExactAccess::Buffers {
    std::vector<std::uint64_t> was, now, frames;
    std::vector<std::uint32_t> indices;
    std::vector<walk::Frame> found;
};

ExactAccess::~ExactAccess() = default;

std::unique_ptr<ExactAccess::Buffers> ExactAccess::take_buffers() {
    const std::lock_guard lock{mutex_};
    if (buffers_.empty()) return std::make_unique<Buffers>();
    auto taken = std::move(buffers_.back());
    buffers_.pop_back();
    return taken;
}

void ExactAccess::give_back(std::unique_ptr<Buffers> buffers) {
    const std::lock_guard lock{mutex_};
    buffers_.push_back(std::move(buffers));
}

/// One block, on one thread.
class ExactAccess::Sighter {
public:
    Sighter(ExactAccess& access, const Mapping& mapping, Sight which, Buffers& buffers,
            TouchBlock& block)
        : access_(access),
          view_(access.lens_->lease()),
          kernel_(view_->kernel()),
          format_(kernel_.entries),
          mapping_(mapping),
          which_(which),
          buffers_(buffers),
          block_(block) {}

    void run() {
        begin();
        walk::walk_tables(view_->memory(), kernel_, access_.top_, block_.range,
                          [&](const walk::SlotRun& run) { take(run); });
        read_flags();
        if (which_ != Sight::note && access_.noted_flags_) look_again();
        if (which_ != Sight::last) access_.notes_.set(block_.range, buffers_.now);
        if (any_) return;
        block_.uniform = true;
        block_.touches.assign(1, Touch::none);
    }

    /// Of what has been read already.
    void run(const PageBlock& read) {
        begin();
        for (std::size_t i = 0; i < block_.touches.size(); ++i) {
            const std::uint64_t word = read.entries[i];
            if (word & abi::PM_PRESENT)
                take_read(read, i, word);
            else if (word & abi::PM_SWAP)
                take_swapped(i, word & Note::kept);
        }
        read_flags();
    }

private:
    void begin() {
        const std::uint64_t count = block_.range.size().value >> format_.page_shift;
        block_.touches.assign(count, Touch::none);
        buffers_.was.resize(count);
        buffers_.frames.clear();
        buffers_.indices.clear();
        if (which_ != Sight::note) access_.notes_.get(block_.range, buffers_.was);
        if (which_ != Sight::last) buffers_.now.assign(count, 0);
    }

    void take(const walk::SlotRun& run) {
        using walk::TableState;
        if (run.state == TableState::no_table || run.state == TableState::empty ||
            run.state == TableState::marker_only)
            return;
        any_ = true;
        const std::uint64_t at = (run.range.start - block_.range.start).value >> format_.page_shift;
        const std::uint64_t count = run.range.size().value >> format_.page_shift;
        if (run.state == TableState::unknown) {
            std::fill_n(block_.touches.begin() + static_cast<std::ptrdiff_t>(at), count,
                        Touch::unknown);
            return;
        }
        const bool huge = run.state == TableState::huge;
        if (which_ != Sight::last) {
            const auto words = std::span{buffers_.now}.subspan(at, count);
            walk::write_pagemap(format_, run, words);
            std::uint64_t any = 0;
            for (std::uint64_t& word : words) {
                word = (word & Note::kept) | (huge ? Note::huge : 0);
                any |= word;
            }
            // The counters vouch for what is present and private; see is_vouched_for().
            if (is_vouched_for(access_.notes_flags_) && !(any & (abi::PM_SWAP | Note::huge)))
                std::fill(words.begin(), words.end(), 0);
        }
        if (which_ == Sight::note && !access_.notes_flags_) return;
        const std::uint64_t skipped =
            (run.range.start - run.slot_start).value >> format_.page_shift;
        if (huge) {
            walk::Entry entry = format_.decode(format_, run.leaf, run.leaf_level);
            entry.frame += skipped;
            set_huge(at, count);
            for (std::uint64_t i = 0; i < count; ++i, ++entry.frame) take(at + i, entry, true);
            return;
        }
        for (std::uint64_t i = 0; i < count; ++i)
            if (run.entries[skipped + i] != 0)
                take(at + i, format_.decode(format_, run.entries[skipped + i], 1), false);
    }

    /// Whether pages need no notes as long as the counters stand still: of anonymous memory nothing
    /// comes unasked but huge pages, and an entry that is made anew has its accessed bit.
    bool is_vouched_for(bool flags) const { return !flags && mapping_.backing == Backing::anon; }

    void set_huge(std::uint64_t at, std::uint64_t count) {
        if (block_.grains.empty()) block_.grains.assign(block_.touches.size(), Grain::page);
        std::fill_n(block_.grains.begin() + static_cast<std::ptrdiff_t>(at), count, Grain::huge);
    }

    void take(std::size_t index, const walk::Entry& entry, bool huge) {
        if (entry.kind == walk::EntryKind::none || entry.kind == walk::EntryKind::marker) return;
        if (entry.kind == walk::EntryKind::swap)
            return take_swapped(index, abi::PM_SWAP | entry.swap_type |
                                           ((entry.swap_offset << 5) & abi::PM_PFRAME_MASK));
        block_.touches[index] = Touch::unknown;
        // clear_refs passes over what has no ordinary page, and hugetlb (clear_refs_walk_ops).
        if (entry.special || mapping_.backing == Backing::hugetlb) return;
        if (entry.young && which_ != Sight::note)
            block_.touches[index] =
                judge_young(buffers_.was[index], entry.frame, entry.dirty, huge);
        // What is young has no need of flags, but for the next round.
        if (!entry.young || (which_ != Sight::last && access_.notes_flags_))
            add_frame(index, entry.frame, entry.young);
    }

    void take_swapped(std::size_t index, std::uint64_t word) {
        const unsigned type = abi::swap_type(word);
        if (type == abi::SWP_PTE_MARKER) return;
        block_.touches[index] = Touch::unknown;
        if (type >= abi::FIRST_SPECIAL_SWAP_TYPE || which_ == Sight::note) return; // on its way
        block_.touches[index] = access_.faults_.judge(word == buffers_.was[index]);
    }

    void take_read(const PageBlock& read, std::size_t index, std::uint64_t word) {
        const std::uint8_t bits = read.entry_bits[index];
        const std::uint64_t frame = word & abi::PM_PFRAME_MASK;
        const bool huge = !read.pmd_mapped.empty() && read.pmd_mapped[index] != 0;
        if (huge) set_huge(index, 1);
        Touch& touch = block_.touches[index];
        touch = Touch::unknown;
        if (!(bits & EntryBits::known)) return; // it is another page by now
        if (bits & EntryBits::young)
            touch = judge_young(buffers_.was[index], frame, (bits & EntryBits::dirty) != 0, huge);
        else if (bits & EntryBits::used_known)
            touch = judge_used(buffers_.was[index], frame, (bits & EntryBits::used) != 0);
        else
            add_frame(index, frame, false);
    }

    void add_frame(std::size_t index, std::uint64_t frame, bool young) {
        buffers_.frames.push_back(frame);
        buffers_.indices.push_back(static_cast<std::uint32_t>(index) | (young ? judged : 0));
    }

    Touch judge_young(std::uint64_t was, std::uint64_t frame, bool dirty, bool huge) const {
        const bool was_there = (was & abi::PM_PRESENT) != 0;
        const bool same = was_there && (was & abi::PM_PFRAME_MASK) == frame;
        if (same) return Touch::accessed;
        // What fault-around maps is young. In a private mapping it is never dirty; in a shared one
        // it is where the folio was (mm/memory.c: set_pte_range; seen on 6.18,
        // tests/live/cold_tests.cpp).
        if (may_come_unasked(mapping_) && (mapping_.shared || !dirty)) return Touch::unknown;
        // So is what khugepaged puts together (mm/khugepaged.c: collapse_huge_page).
        const bool may_have_been = was_there || is_vouched_for(access_.noted_flags_);
        if (may_have_been && huge && !(was & Note::huge)) return Touch::unknown;
        return Touch::accessed;
    }

    /// In portions, so that what was read is still in the processor's cache.
    void read_flags() {
        static constexpr std::size_t portion = 1024;
        const std::span all{buffers_.frames};
        for (std::size_t at = 0; at < all.size(); at += portion)
            read_flags(at, all.subspan(at, std::min(portion, all.size() - at)));
    }

    void read_flags(std::size_t first, std::span<const std::uint64_t> frames) {
        auto& found = buffers_.found;
        found.resize(frames.size());
        walk::read_frames(view_->memory(), kernel_, frames, found);
        const auto& layout = kernel_.layout;
        const std::uint64_t used =
            bit(layout.PG_referenced) | (layout.PG_young ? bit(*layout.PG_young) : 0);
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (!found[i].known) continue;
            const std::uint32_t index = buffers_.indices[first + i] & ~judged;
            const bool is_judged = (buffers_.indices[first + i] & judged) != 0;
            const bool active = (found[i].flags & bit(layout.PG_active)) != 0;
            if (which_ != Sight::note && !is_judged)
                block_.touches[index] =
                    access_.noted_flags_
                        ? judge_flags(buffers_.was[index], frames[i], found[i].flags)
                        : judge_used(buffers_.was[index], frames[i], (found[i].flags & used) != 0);
            // What is on no list was taken from one by somebody who may clear its bits later.
            if (which_ != Sight::last && access_.notes_flags_ &&
                (found[i].flags & bit(layout.PG_lru)))
                buffers_.now[index] |= Note::flags_known | (active ? Note::active : 0);
        }
    }

    static constexpr std::uint32_t judged = std::uint32_t{1} << 31; ///< by its entry alone

    static constexpr std::uint64_t bit(std::uint32_t number) { return std::uint64_t{1} << number; }

    // What is present, and whose entry is not young.

    /// Where the counters watch; see stands().
    Touch judge_used(std::uint64_t was, std::uint64_t frame, bool used) const {
        if (was == 0 && is_vouched_for(false)) return used ? Touch::accessed : Touch::idle;
        if (!(was & abi::PM_PRESENT)) return Touch::unknown;
        // page_idle and DAMON leave PG_young behind (include/linux/page_idle.h), reclaim of the
        // inactive list PG_referenced (mm/vmscan.c: folio_check_references).
        if (used) return Touch::accessed;
        // What is there in another frame left its traces behind.
        return (was & abi::PM_PFRAME_MASK) == frame ? Touch::idle : Touch::unknown;
    }

    /// Where flags were noted, page by page.
    Touch judge_flags(std::uint64_t& was, std::uint64_t frame, std::uint64_t flags) const {
        const auto& layout = kernel_.layout;
        if (!(was & abi::PM_PRESENT)) return Touch::unknown;
        const walk::Sighting first{true, false, was & abi::PM_PFRAME_MASK,
                                   was & Note::active ? bit(layout.PG_active) : 0};
        switch (walk::judge_access(layout, first, {true, false, frame, flags})) {
        case walk::Access::accessed: return Touch::accessed;
        case walk::Access::unknown: return Touch::unknown;
        case walk::Access::idle_unless_refilled: was |= Note::unless_refilled; break;
        case walk::Access::idle: break;
        }
        return was & Note::flags_known ? Touch::idle : Touch::unknown;
    }

    /// What seems idle must have kept its entry until after its flags were read, and must not have
    /// been on an active list that was scanned.
    void look_again() {
        const auto refills = access_.counters_.read().refills;
        const bool refilled = !refills || refills != access_.at_clearing_.refills;
        bool any = false;
        for (const std::uint32_t marked : buffers_.indices) {
            const std::uint32_t index = marked & ~judged;
            if (block_.touches[index] != Touch::idle) continue;
            block_.touches[index] = Touch::unknown;
            if (refilled && (buffers_.was[index] & Note::unless_refilled)) continue;
            buffers_.was[index] |= Note::in_question;
            any = true;
        }
        if (!any) return;
        walk::walk_tables(view_->memory(), kernel_, access_.top_, block_.range,
                          [&](const walk::SlotRun& run) { look_again(run); });
    }

    void look_again(const walk::SlotRun& run) {
        const bool huge = run.state == walk::TableState::huge;
        if (!huge && run.state != walk::TableState::populated) return;
        const std::uint64_t at = (run.range.start - block_.range.start).value >> format_.page_shift;
        const std::uint64_t count = run.range.size().value >> format_.page_shift;
        const std::uint64_t skipped =
            (run.range.start - run.slot_start).value >> format_.page_shift;
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::uint64_t was = buffers_.was[at + i];
            if (!(was & Note::in_question)) continue;
            const auto entry = huge ? format_.decode(format_, run.leaf, run.leaf_level)
                                    : format_.decode(format_, run.entries[skipped + i], 1);
            const std::uint64_t frame = entry.frame + (huge ? skipped + i : 0);
            if (entry.kind == walk::EntryKind::present && frame == (was & abi::PM_PFRAME_MASK))
                block_.touches[at + i] = entry.young ? Touch::accessed : Touch::idle;
        }
    }

    ExactAccess& access_;
    ExactLens::Lease view_;
    const walk::Kernel& kernel_;
    const walk::EntryFormat& format_;
    const Mapping& mapping_;
    Sight which_;
    Buffers& buffers_;
    TouchBlock& block_;
    bool any_ = false;
};

bool ExactAccess::judge_block(const Mapping& mapping, const PageBlock& read, TouchBlock& block) {
    const bool is_none =
        (read.entries.empty() || (read.entries[0] & (abi::PM_PRESENT | abi::PM_SWAP)) == 0);
    const bool has_bits = read.entry_bits.size() == read.entries.size() && !read.flags.empty();
    if (read.uniform ? !is_none : !has_bits || mapping.backing == Backing::hugetlb) return false;
    // Entries and flags were read one after the other, while the kernel may be reclaiming.
    if (!read.uniform && noted_flags_) return false;
    block = {};
    block.range = read.range;
    if (read.uniform) {
        block.uniform = true;
        block.touches.assign(1, Touch::none);
        return true;
    }
    auto buffers = take_buffers();
    Sighter{*this, mapping, Sight::last, *buffers, block}.run(read);
    give_back(std::move(buffers));
    return true;
}

void ExactAccess::sight(const Mapping& mapping, AddressRange wanted, Sight which,
                        TouchBlock& block) {
    block = {};
    block.range = one_block(wanted, target_.page_size());
    auto buffers = take_buffers();
    Sighter{*this, mapping, which, *buffers, block}.run();
    give_back(std::move(buffers));
    if (!block.uniform) return;
    const Address next = target_.next_populated({block.range.end, wanted.end});
    notes_.clear({block.range.end, next});
    block.range.end = next;
}

} // namespace pagesift::os
