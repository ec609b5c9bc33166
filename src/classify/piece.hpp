// SPDX-License-Identifier: MIT
// One piece of a process, classified: what a worker thread hands back.
#pragma once

#include "classify/slots.hpp"
#include "pagesift/classify.hpp"

namespace pagesift {

struct PieceResult {
    std::vector<std::pair<std::size_t, Tally>> tallies; ///< by mapping
    std::vector<SlotNote> slots;
    std::vector<Run> runs;
    std::vector<Page> pages;
    std::vector<Stretch> stretches;
    std::vector<std::uint64_t> frames; ///< with PieceContext::frames, of all pages
    std::uint64_t undecided_pages = 0;
    bool frames_known = true;
    bool complete = true; ///< false: of some page there was nothing to be had
};

struct PieceContext {
    const HostFacts& host;
    std::span<const Mapping> mappings;
    const Filter& where;
    bool runs = false;
    bool pages = false;
    bool all_runs = false; ///< see LookOptions::all_runs
    bool stretches = false;
    bool frames = false;
    bool all_attributes = false; ///< of stretches
};

/// Classifies blocks, which come in address order, into a result.
class PieceBuilder {
public:
    PieceBuilder(const PieceContext& context, PieceResult& result);
    void add(std::size_t mapping, const PageBlock& block);

private:
    void add_uniform(const PageBlock& block);
    void add_dense(const PageBlock& block);
    PageFacts facts(const PageBlock& block, std::size_t i) const;
    void finish(const PageBlock& block, std::size_t first, std::uint64_t pages, PageClass cls);
    void add_runs(const PageBlock& block, std::size_t first, std::uint64_t pages, PageClass cls,
                  Tri matches);
    void add_run(AddressRange range, PageClass cls, std::uint64_t swap_entry, Run told);
    void add_sums(const PageBlock& block, std::size_t first, std::size_t pages, PageClass cls);
    void add_shares(const PageBlock& block, std::size_t first, std::size_t pages, PageClass cls);
    void add_page(const PageBlock& block, std::size_t i, PageClass cls);
    void add_stretches(const PageBlock& block, std::size_t first, std::uint64_t pages,
                       PageClass cls, Tri matches);
    void note_slots(AddressRange range, std::uint64_t entry, PageClass cls);

    const PieceContext& context_;
    PieceResult& result_;
    std::size_t mapping_ = 0;
    Tally* tally_ = nullptr;
    std::optional<Classifier> classifier_;
    unsigned table_order_ = 9;
};

/// Whether @p next goes on where @p run stops; then it is added to @p run.
bool extend(Run& run, const Run& next, std::uint64_t page_size);
bool extend(Stretch& stretch, const Stretch& next, std::uint64_t page_size);

/// Appends what comes to the pending one if it continues it; else hands the pending one on.
template <class Part> class Merger {
public:
    Merger(std::uint64_t page_size, std::function<void(const Part&)> sink)
        : page_size_(page_size), sink_(std::move(sink)) {}
    void add(const Part& part) {
        if (pending_ && extend(*pending_, part, page_size_)) return;
        flush();
        pending_ = part;
    }
    void flush() {
        if (pending_) sink_(*pending_);
        pending_.reset();
    }

private:
    std::uint64_t page_size_;
    std::function<void(const Part&)> sink_;
    std::optional<Part> pending_;
};

} // namespace pagesift
