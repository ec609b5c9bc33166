// SPDX-License-Identifier: MIT
#include "classify/piece.hpp"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace pagesift {
namespace {

std::uint64_t resident_bytes(const procfs::Status& status) {
    return status.vm_rss_bytes.value_or(0) + status.vm_swap_bytes.value_or(0);
}

void add_gap(std::vector<Gap>& gaps, Gap gap) {
    for (const Gap& known : gaps)
        if (known == gap) return;
    gaps.push_back(std::move(gap));
}

/// In address order, and no address twice.
std::vector<AddressRange> merge(std::vector<AddressRange> ranges) {
    std::sort(ranges.begin(), ranges.end(),
              [](const AddressRange& a, const AddressRange& b) { return a.start < b.start; });
    std::vector<AddressRange> merged;
    for (const AddressRange& range : ranges)
        if (!merged.empty() && range.start <= merged.back().end)
            merged.back().end = std::max(merged.back().end, range.end);
        else
            merged.push_back(range);
    return merged;
}

SmapsSums sum_up(std::span<const Mapping> mappings) {
    const auto sum =
        [&](std::optional<std::uint64_t> SmapsFacts::*field) -> std::optional<std::uint64_t> {
        std::uint64_t all = 0;
        for (const Mapping& mapping : mappings) {
            if (!mapping.smaps || !((*mapping.smaps).*field)) return {};
            all += *((*mapping.smaps).*field);
        }
        return all;
    };
    return {sum(&SmapsFacts::swap_bytes), sum(&SmapsFacts::ksm_bytes),
            sum(&SmapsFacts::anon_huge_bytes), sum(&SmapsFacts::shared_huge_bytes)};
}

/// Gaps that follow from what was found, rather than from a read that failed.
void explain(Census& census) {
    auto& gaps = census.gaps;
    const bool hides = !census.frames_known || census.totals.state_pages(State::unknown) > 0;
    if (hides && census.host.frames_visible == false)
        add_gap(gaps, {"pagemap", std::nullopt, "frame and swap numbers are hidden",
                       "CAP_SYS_ADMIN", false});
    if (census.host.ksm_flag_true == false && census.smaps.ksm_bytes != 0u)
        add_gap(gaps, {"kpageflags", std::nullopt,
                       "this kernel sets KPF_KSM on every anonymous page, so which pages KSM "
                       "merged is unknown",
                       "a kernel with the fix (6.18.44, 7.2)", false});
    if (census.tables.uncertain_tables > 0)
        add_gap(gaps, {"page tables", std::nullopt,
                       "whether huge pages of shared memory are mapped by huge entries is not "
                       "shown, so empty page tables cannot be counted",
                       "Linux 6.7 or newer", false});
    if (census.tables.empty_tables.value_or(0) > 0 && !census.tables.located_tables)
        add_gap(gaps,
                {"page tables", std::nullopt,
                 "empty page tables are counted, but this kernel does not show where they are", "",
                 false});
    if (census.want.zero == ZeroTest::off && census.totals.content_candidates > 0)
        add_gap(gaps, {"contents", std::nullopt, "page contents were not read",
                       "--zero all, or --zero sample=1%", false});
    if (census.undecided_pages > 0)
        add_gap(gaps, {"where", std::nullopt,
                       fmt::format("{} pages could not be decided by --where and were left out",
                                   census.undecided_pages),
                       "", false});
}

PieceResult read_and_classify(Source& source, const PieceContext& context,
                              const snapshot::Piece& piece, const Want& want) {
    PieceResult result;
    PieceBuilder builder{context, result};
    std::uint64_t wanted = 0, seen = 0;
    for (const snapshot::Part& part : piece.parts) wanted += part.range.size().value;
    snapshot::read_piece(source, context.mappings, piece, want,
                         [&](std::size_t mapping, const PageBlock& block) {
                             seen += block.range.size().value;
                             builder.add(mapping, block);
                         });
    result.complete = result.complete && seen == wanted;
    return result;
}

} // namespace

Census look(Source& source, const LookOptions& options) {
    const auto begin = std::chrono::steady_clock::now();
    Census census;
    census.host = source.host();
    census.lens = census.host.lens;
    census.want = options.want;
    census.process = source.process();
    auto mappings = source.mappings(options.want);
    if (options.on_mappings) options.on_mappings(census.process, mappings);
    const auto only = merge(options.choose ? options.choose(mappings) : options.only);
    const auto status = procfs::parse_status(census.process.status);
    // Single pages are kept until they are handed on, so when all are wanted every piece is small.
    const bool all_pages = options.on_page && options.where.always();
    const std::uint64_t resident = all_pages ? ~std::uint64_t{0} : resident_bytes(status);
    const auto pieces = snapshot::plan_pieces(mappings, only, census.host, resident);
    const PieceContext context{census.host,
                               mappings,
                               options.where,
                               static_cast<bool>(options.on_run),
                               static_cast<bool>(options.on_page),
                               options.all_runs,
                               static_cast<bool>(options.on_stretch),
                               false,
                               false};
    census.mappings.resize(mappings.size());
    std::vector<SlotNote> notes;
    Merger<Run> merger{census.host.page_size, options.on_run};
    Merger<Stretch> stretches{census.host.page_size, options.on_stretch};
    bool complete = true;
    snapshot::in_order(
        options.jobs, pieces.size(),
        [&](std::size_t i) {
            if (options.interrupted && options.interrupted()) {
                PieceResult none;
                none.complete = false;
                return none;
            }
            return read_and_classify(source, context, pieces[i], options.want);
        },
        [&](PieceResult&& result) {
            if (options.on_piece) options.on_piece();
            for (const auto& [mapping, tally] : result.tallies)
                census.mappings[mapping].tally.add(tally);
            for (const SlotNote& note : result.slots) add_note(notes, note);
            for (const Run& run : result.runs) merger.add(run);
            for (const Page& page : result.pages) options.on_page(page);
            for (const Stretch& stretch : result.stretches) stretches.add(stretch);
            census.undecided_pages += result.undecided_pages;
            complete = complete && result.complete;
            census.frames_known = census.frames_known && result.frames_known;
        });
    if (options.on_run) merger.flush();
    if (options.on_stretch) stretches.flush();
    census.interrupted = options.interrupted && options.interrupted();
    // VmPTE is read again: what counts is the number that belongs to the entries just read.
    const auto after = procfs::parse_status(source.process().status);
    if (only.empty()) census.smaps = sum_up(mappings);
    // What was not read looks like empty tables.
    const bool whole = only.empty() && !census.interrupted && complete;
    census.tables =
        judge_tables(source, mappings, notes, {after.vm_pte_bytes, census.smaps.shared_huge_bytes},
                     whole, options.jobs);
    for (std::size_t i = 0; i < mappings.size(); ++i) {
        MappingCensus& entry = census.mappings[i];
        const std::uint64_t seen = entry.tally.pages() * census.host.page_size;
        entry.whole = seen == mappings[i].range.size().value;
        entry.mapping = std::move(mappings[i]);
        census.totals.add(entry.tally);
    }
    if (!only.empty())
        std::erase_if(census.mappings,
                      [](const MappingCensus& entry) { return entry.tally.pages() == 0; });
    census.gaps = source.gaps();
    if (std::any_of(census.gaps.begin(), census.gaps.end(),
                    [](const Gap& gap) { return gap.incomplete; })) {
        // The tables of what is missing would count as empty ones.
        census.tables.partial = true;
        census.tables.empty_tables.reset();
    }
    explain(census);
    census.elapsed_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return census;
}

SecondLook look_again(Source& source, const Mapping& mapping, AddressRange range, const Want& want,
                      const Filter& where) {
    PieceResult result;
    const PieceContext context{source.host(), {&mapping, 1}, where, false, false,
                               false,         true,          true,  true};
    PieceBuilder builder{context, result};
    std::uint64_t seen = 0;
    snapshot::read_piece(source, {&mapping, 1}, {{{0, range}}}, want,
                         [&](std::size_t part, const PageBlock& block) {
                             seen += block.range.size().value;
                             builder.add(part, block);
                         });
    SecondLook second;
    Merger<Stretch> merger{source.host().page_size,
                           [&](const Stretch& part) { second.stretches.push_back(part); }};
    for (const Stretch& stretch : result.stretches) merger.add(stretch);
    merger.flush();
    second.frames = std::move(result.frames);
    second.complete = result.complete && seen == range.size().value;
    return second;
}

} // namespace pagesift
