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
    std::uint64_t undecided_pages = 0;
    bool frames_known = true;
    bool complete = true;
};

struct PieceContext {
    const HostFacts& host;
    std::span<const Mapping> mappings;
    const Filter& where;
    bool runs = false;
    bool pages = false;
    bool all_runs = false; ///< see LookOptions::all_runs
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
    void note_slots(AddressRange range, std::uint64_t entry, PageClass cls);

    const PieceContext& context_;
    PieceResult& result_;
    std::size_t mapping_ = 0;
    Tally* tally_ = nullptr;
    std::optional<Classifier> classifier_;
    unsigned table_order_ = 9;
};

/// Appends @p run to the pending one if it continues it; else hands the pending one on.
class RunMerger {
public:
    RunMerger(std::uint64_t page_size, std::function<void(const Run&)> sink)
        : page_size_(page_size), sink_(std::move(sink)) {}
    void add(const Run& run);
    void flush();

private:
    std::uint64_t page_size_;
    std::function<void(const Run&)> sink_;
    std::optional<Run> pending_;
};

/// Whether @p next goes on where @p run stops; then it is added to @p run.
bool extend_run(Run& run, const Run& next, std::uint64_t page_size);

} // namespace pagesift
