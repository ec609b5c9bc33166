// SPDX-License-Identifier: MIT
#include "os/access_sources.hpp"
#include "os/probe.hpp"
#include "os/scan.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

namespace pagesift::os {
namespace {

/// What is noted of a page.
struct Note {
    static constexpr std::uint64_t present = std::uint64_t{1} << 63;
    static constexpr std::uint64_t swapped = std::uint64_t{1} << 62;
    static constexpr std::uint64_t flags_known = std::uint64_t{1} << 61;
    static constexpr std::uint64_t active = std::uint64_t{1} << 60;
    static constexpr std::uint64_t huge = std::uint64_t{1} << 59;
    static constexpr unsigned generation_shift = 51; // 8 bits
    static constexpr std::uint64_t frame = (std::uint64_t{1} << generation_shift) - 1;
    /// Of a swapped page: 5 bits of type above 51 of offset.
    static constexpr std::uint64_t swap_place = (std::uint64_t{1} << 56) - 1;
};

unsigned count_nodes(const Root& root) {
    const auto names = root.list("sys/devices/system/node");
    const auto count = std::count_if(names.begin(), names.end(), [](const std::string& name) {
        return name.starts_with("node") &&
               name.find_first_not_of("0123456789", 4) == std::string::npos;
    });
    return std::max(static_cast<unsigned>(count), 1u);
}

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
      nodes_(count_nodes(target_.root())),
      leaps_(!options.without.contains("pagemap-scan") && host_has_pagemap_scan()),
      notes_(machine.host->page_size),
      generations_(1, 0) {
    const auto view = lens_->lease();
    if (!view->flags_checked() || !view->kernel().layout.page_compound_head)
        throw Error{ErrorKind::unsupported, "--source exact", 0, "root",
                    "page flags in the kernel's memory could not be compared with kpageflags"};
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
}

ForgetCost ExactAccess::forget() { return clearer_.clear(); }

/// A number for what MGLRU has done to a cgroup; 0 where there are too many.
std::uint8_t ExactAccess::number_of(std::uint64_t generation) {
    const std::lock_guard lock{mutex_};
    const auto found = std::find(generations_.begin() + 1, generations_.end(), generation);
    if (found != generations_.end()) return static_cast<std::uint8_t>(found - generations_.begin());
    if (generations_.size() > 255) return 0;
    generations_.push_back(generation);
    return static_cast<std::uint8_t>(generations_.size() - 1);
}

std::optional<std::uint64_t> ExactAccess::generation_at(std::uint8_t number) const {
    const std::lock_guard lock{mutex_};
    return number == 0 ? std::nullopt : std::optional{generations_[number]};
}

/// What one block takes; kept from one to the next, because new memory is not for free.
struct ExactAccess::Buffers {
    std::vector<std::uint64_t> was, now, frames, heads;
    std::vector<std::uint32_t> indices;
    std::vector<walk::Frame> found;
    std::vector<std::optional<std::uint64_t>> generations;
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
        const std::uint64_t count = block_.range.size().value >> format_.page_shift;
        block_.touches.assign(count, Touch::none);
        buffers_.was.resize(count);
        buffers_.now.assign(count, 0);
        buffers_.frames.clear();
        buffers_.indices.clear();
        access_.notes_.get(block_.range, buffers_.was);
        walk::walk_tables(view_->memory(), kernel_, access_.top_, block_.range,
                          [&](const walk::SlotRun& run) { take(run); });
        read_flags();
        if (which_ == Sight::note) access_.notes_.set(block_.range, buffers_.now);
        if (any_) return;
        block_.uniform = true;
        block_.touches.assign(1, Touch::none);
    }

private:
    void take(const walk::SlotRun& run) {
        using walk::TableState;
        if (run.state == TableState::no_table || run.state == TableState::empty ||
            run.state == TableState::marker_only)
            return;
        any_ = true;
        const std::uint64_t at = (run.range.start - block_.range.start).value >> format_.page_shift;
        const std::uint64_t count = run.range.size().value >> format_.page_shift;
        const std::uint64_t skipped =
            (run.range.start - run.slot_start).value >> format_.page_shift;
        if (run.state == TableState::unknown) {
            std::fill_n(block_.touches.begin() + static_cast<std::ptrdiff_t>(at), count,
                        Touch::unknown);
            return;
        }
        if (run.state == TableState::huge) {
            const walk::Entry leaf = format_.decode(format_, run.leaf, run.leaf_level);
            if (block_.grains.empty()) block_.grains.assign(block_.touches.size(), Grain::page);
            for (std::uint64_t i = 0; i < count; ++i) {
                walk::Entry entry = leaf;
                entry.frame += skipped + i;
                block_.grains[at + i] = Grain::huge;
                take(at + i, entry, true);
            }
            return;
        }
        for (std::uint64_t i = 0; i < count; ++i)
            if (run.entries[skipped + i] != 0)
                take(at + i, format_.decode(format_, run.entries[skipped + i], 1), false);
    }

    void take(std::size_t index, const walk::Entry& entry, bool huge) {
        Touch& touch = block_.touches[index];
        std::uint64_t& note = buffers_.now[index];
        if (entry.kind == walk::EntryKind::none || entry.kind == walk::EntryKind::marker) return;
        if (entry.kind == walk::EntryKind::swap) {
            touch = Touch::unknown;
            if (entry.swap_type >= abi::FIRST_SPECIAL_SWAP_TYPE) return; // on its way
            note = Note::swapped | std::uint64_t{entry.swap_type} << Note::generation_shift |
                   (entry.swap_offset & Note::frame);
            touch = access_.faults_.judge(note == buffers_.was[index]);
            return;
        }
        note = Note::present | (entry.frame & Note::frame) | (huge ? Note::huge : 0);
        touch = Touch::unknown;
        // clear_refs passes over what has no ordinary page, and hugetlb (clear_refs_walk_ops).
        if (entry.special || mapping_.backing == Backing::hugetlb) return;
        if (entry.young) touch = judge_young(buffers_.was[index], entry, huge);
        // What is young has no need of flags, but for the next round.
        if (entry.young && which_ != Sight::note) return;
        buffers_.frames.push_back(entry.frame);
        buffers_.indices.push_back(static_cast<std::uint32_t>(index));
    }

    Touch judge_young(std::uint64_t was, const walk::Entry& entry, bool huge) const {
        const bool was_there = (was & Note::present) != 0;
        const bool same = was_there && (was & Note::frame) == entry.frame;
        if (same) return Touch::accessed;
        // What fault-around maps is young. In a private mapping it is never dirty; in a shared one
        // it is where the folio was (mm/memory.c: set_pte_range; seen on 6.18,
        // tests/live/cold_tests.cpp).
        if (may_come_unasked(mapping_) && (mapping_.shared || !entry.dirty)) return Touch::unknown;
        // So is what khugepaged puts together (mm/khugepaged.c: collapse_huge_page).
        if (was_there && huge && !(was & Note::huge)) return Touch::unknown;
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
        const bool has_generations = kernel_.layout.mem_cgroup_per_node_max_seq.has_value();
        if (has_generations) read_generations();
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (!found[i].known) continue;
            const std::size_t index = buffers_.indices[first + i];
            walk::Sighting now;
            now.present = true;
            now.frame = frames[i];
            now.flags = found[i].flags;
            if (has_generations) now.generation = buffers_.generations[i];
            if (which_ == Sight::note)
                add(buffers_.now[index], now);
            else
                block_.touches[index] = judge(buffers_.was[index], now);
        }
    }

    void read_generations() {
        auto& heads = buffers_.heads;
        heads.clear();
        for (const walk::Frame& frame : buffers_.found)
            heads.push_back(frame.known ? frame.head : 0);
        buffers_.generations.assign(heads.size(), std::nullopt);
        walk::read_generations(view_->memory(), kernel_, heads, access_.nodes_,
                               buffers_.generations);
    }

    Touch judge(std::uint64_t was, const walk::Sighting& now) {
        walk::Sighting first;
        first.present = (was & Note::present) != 0;
        // Without its flags nobody knows whether it was on the active list.
        if (!first.present || !(was & Note::flags_known)) return Touch::unknown;
        first.frame = was & Note::frame;
        if (was & Note::active) first.flags = std::uint64_t{1} << kernel_.layout.PG_active;
        first.generation = generation(static_cast<std::uint8_t>(was >> Note::generation_shift));
        switch (walk::judge_access(kernel_.layout, first, now)) {
        case walk::Access::accessed: return Touch::accessed;
        case walk::Access::idle: return Touch::idle;
        case walk::Access::unknown: break;
        }
        return Touch::unknown;
    }

    /// Of neighbours it mostly is the same.
    std::optional<std::uint64_t> generation(std::uint8_t number) {
        if (number != last_number_) {
            last_number_ = number;
            last_generation_ = access_.generation_at(number);
        }
        return last_generation_;
    }

    void add(std::uint64_t& note, const walk::Sighting& now) {
        note |= Note::flags_known;
        if (now.flags >> kernel_.layout.PG_active & 1) note |= Note::active;
        if (!now.generation) return;
        if (now.generation != last_numbered_) {
            last_numbered_ = now.generation;
            numbered_ = access_.number_of(*now.generation);
        }
        note |= std::uint64_t{numbered_} << Note::generation_shift;
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
    std::uint8_t last_number_ = 0;
    std::optional<std::uint64_t> last_generation_;
    std::optional<std::uint64_t> last_numbered_;
    std::uint8_t numbered_ = 0;
};

void ExactAccess::sight(const Mapping& mapping, AddressRange wanted, Sight which,
                        TouchBlock& block) {
    block = {};
    block.range = one_block(wanted, target_.page_size());
    auto buffers = take_buffers();
    Sighter{*this, mapping, which, *buffers, block}.run();
    give_back(std::move(buffers));
    if (!block.uniform || block.range.end == wanted.end || !leaps_) return;
    if (const auto next = next_populated(target_.pagemap(), {block.range.end, wanted.end})) {
        notes_.clear({block.range.end, *next});
        block.range.end = *next;
    }
}

} // namespace pagesift::os
