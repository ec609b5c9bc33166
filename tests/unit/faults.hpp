// SPDX-License-Identifier: MIT
// Sources and actuators that fail at one chosen call, and what must hold whatever fails.
#pragma once

#include "pagesift/classify.hpp"

#include <atomic>
#include <doctest/doctest.h>
#include <functional>
#include <optional>
#include <vector>

namespace pagesift::test {

/// Faults that were injected so far, in all tests: main() checks that there were enough.
std::size_t& injected_faults();

/// What goes wrong with one call of a Source.
enum class SourceFault {
    gone, ///< these throw, at any call
    denied,
    failed,
    unsupported,
    short_block, ///< these are of read_block
    empty_block,
    no_entries,
    no_flags,
    no_map_counts,
    no_folio_orders,
    no_pmd_mapped,
    no_cache,
    no_content,
    no_swap_entries,
    no_mapping, ///< of mappings: one has vanished
    no_text,    ///< of process: nothing could be read but its number
    no_tables,  ///< of locate_tables
};
inline constexpr int source_faults = static_cast<int>(SourceFault::no_tables) + 1;

inline bool throws(SourceFault fault) { return fault <= SourceFault::unsupported; }
inline ErrorKind kind_of(SourceFault fault) {
    switch (fault) {
    case SourceFault::gone: return ErrorKind::gone;
    case SourceFault::denied: return ErrorKind::denied;
    case SourceFault::unsupported: return ErrorKind::unsupported;
    default: return ErrorKind::failed;
    }
}

/// Passes everything on but for one call, of which it notes a gap as a source must.
class FaultySource final : public Source {
public:
    /// @param at the number of the call, from 0
    FaultySource(Source& source, SourceFault fault, std::size_t at)
        : source_(source), fault_(fault), at_(at) {}

    /// Whether the fault was of the sort of call that had the number.
    bool hit() const { return hit_; }
    std::size_t calls() const { return calls_; }

    const HostFacts& host() const override { return source_.host(); }
    ProcessText process() override {
        auto text = source_.process();
        if (!strikes(fault_ == SourceFault::no_text)) return text;
        ProcessText bare;
        bare.pid = text.pid;
        return bare;
    }
    std::vector<Mapping> mappings(const Want& want) override {
        auto all = source_.mappings(want);
        if (strikes(fault_ == SourceFault::no_mapping && !all.empty()))
            all.erase(all.begin() + static_cast<std::ptrdiff_t>(at_ % all.size()));
        return all;
    }
    void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                    PageBlock& block) override {
        source_.read_block(mapping, wanted, want, block);
        const bool mine =
            fault_ >= SourceFault::short_block && fault_ <= SourceFault::no_swap_entries;
        if (strikes(mine)) spoil(block, mapping);
    }
    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override {
        auto tables = source_.locate_tables(ranges);
        if (strikes(fault_ == SourceFault::no_tables)) tables.reset();
        return tables;
    }
    std::vector<Gap> gaps() const override {
        auto all = source_.gaps();
        if (gap_) all.push_back(*gap_);
        return all;
    }
    void forget_read_ahead() override { source_.forget_read_ahead(); }

private:
    bool strikes(bool of_this_sort) {
        if (calls_++ != at_) return false;
        if (throws(fault_)) {
            hit_ = true;
            throw Error{kind_of(fault_), "made up", 0, "", "a fault"};
        }
        hit_ = of_this_sort;
        return of_this_sort;
    }

    void spoil(PageBlock& block, const Mapping& mapping) {
        const auto note = [&](bool incomplete) {
            gap_ = Gap{"made up", mapping.range, "a fault", "", incomplete};
        };
        switch (fault_) {
        case SourceFault::short_block: shorten(block); break;
        case SourceFault::empty_block:
            block.clear();
            note(true);
            break;
        case SourceFault::no_entries:
            block.entries.clear();
            note(false);
            break;
        case SourceFault::no_flags:
            block.flags.clear();
            note(false);
            break;
        case SourceFault::no_map_counts:
            block.map_counts.clear();
            note(false);
            break;
        case SourceFault::no_folio_orders:
            block.folio_orders.clear();
            note(false);
            break;
        case SourceFault::no_pmd_mapped:
            block.pmd_mapped.clear();
            note(false);
            break;
        case SourceFault::no_cache:
            block.cache.clear();
            note(false);
            break;
        case SourceFault::no_content:
            block.content.clear();
            note(false);
            break;
        case SourceFault::no_swap_entries:
            block.swap_entries.clear();
            note(false);
            break;
        default: break;
        }
    }

    void shorten(PageBlock& block) const {
        block.range.end = block.range.start + Bytes{source_.host().page_size};
        const auto cut = [](auto& column) {
            if (!column.empty()) column.resize(1);
        };
        cut(block.entries);
        cut(block.flags);
        cut(block.map_counts);
        cut(block.folio_orders);
        cut(block.pmd_mapped);
        cut(block.zero_page);
        cut(block.cache);
        cut(block.content);
        cut(block.swap_entries);
        cut(block.entry_bits);
    }

    Source& source_;
    SourceFault fault_;
    std::size_t at_;
    std::atomic<std::size_t> calls_ = 0; // several threads read
    std::atomic<bool> hit_ = false;
    std::optional<Gap> gap_; ///< noted by the one call that is hit, and asked for after all
};

/// Calls @p with(source) with each fault at each call that it has there; once more with none gives
/// how many calls there are.
inline void for_each_source_fault(Source& source, const std::function<void(Source&)>& undisturbed,
                                  const std::function<void(FaultySource&, SourceFault)>& with) {
    FaultySource counter{source, SourceFault::gone, ~std::size_t{0}};
    undisturbed(counter);
    for (std::size_t at = 0; at < counter.calls(); ++at)
        for (int i = 0; i < source_faults; ++i) {
            const auto fault = static_cast<SourceFault>(i);
            CAPTURE(at);
            CAPTURE(i);
            FaultySource faulty{source, fault, at};
            with(faulty, fault);
            injected_faults() += faulty.hit();
        }
}

inline bool is_partial(const Census& census) {
    for (const Gap& gap : census.gaps)
        if (gap.incomplete) return true;
    return false;
}

/// What holds of every census: each page counted has one state, each present one a kind, each
/// marker a name; what was not counted is marked.
inline void check_sums(const Census& census) {
    Tally sum;
    for (const MappingCensus& entry : census.mappings) {
        const Tally& tally = entry.tally;
        std::uint64_t states = 0, kinds = 0;
        for (std::size_t i = 0; i < state_count; ++i)
            states += tally.state_pages(static_cast<State>(i));
        for (std::size_t i = 0; i < kind_count; ++i)
            kinds += tally.kind_pages(static_cast<Kind>(i));
        CHECK(states == tally.pages());
        CHECK(kinds == tally.state_pages(State::present));
        const std::uint64_t size = entry.mapping.range.size().value / census.host.page_size;
        CHECK(tally.pages() <= size);
        CHECK(entry.whole == (tally.pages() == size));
        CHECK((entry.whole || is_partial(census)));
        sum.add(tally);
    }
    for (std::size_t i = 0; i < state_count; ++i)
        CHECK(sum.state_pages(static_cast<State>(i)) ==
              census.totals.state_pages(static_cast<State>(i)));
    if (is_partial(census)) CHECK_FALSE(census.tables.empty_tables);
}

inline void check_same_states(const Census& one, const Census& other) {
    for (std::size_t i = 0; i < state_count; ++i)
        CHECK(one.totals.state_pages(static_cast<State>(i)) ==
              other.totals.state_pages(static_cast<State>(i)));
}

inline void check_same_kinds(const Census& one, const Census& other) {
    for (std::size_t i = 0; i < kind_count; ++i)
        CHECK(one.totals.kind_pages(static_cast<Kind>(i)) ==
              other.totals.kind_pages(static_cast<Kind>(i)));
}

} // namespace pagesift::test
