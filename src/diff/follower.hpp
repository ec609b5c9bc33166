// SPDX-License-Identifier: MIT
// Two streams of runs in address order, walked side by side: what each page was and is.
#pragma once

#include "diff/run_stream.hpp"
#include "pagesift/diff.hpp"

namespace pagesift {

class Follower {
public:
    /// All of it must outlive this.
    Follower(RunStream& before, std::span<const Mapping> after, const DiffOptions& options,
             bool same_memory);

    void add(Run run); ///< the next run of the second picture
    void finish();     ///< behind its last
    /// Puts mappings, transitions and fates into @p diff.
    void give(ProcessDiff& diff, std::uint64_t page_size);

private:
    /// Of one picture at some pages; without a run where nothing was seen there.
    struct Side {
        const Run* run = nullptr;
        std::size_t mapping = ~std::size_t{0};
        Sighting seen;
    };
    struct Count {
        Sighting from, to;
        std::uint64_t bytes = 0;
    };

    void only_before(const Run& run, AddressRange range);
    void only_after(const Run& run, AddressRange range);
    void both(const Run& a, const Run& b, AddressRange range);
    /// @p range in parts: those that a mapping of @p others in pair @p pair covers, and the rest.
    template <class Covered, class Rest>
    void split(AddressRange range, std::span<const Mapping> others,
               const std::vector<std::size_t>& places, std::size_t pair, Covered&& covered,
               Rest&& rest);
    void count(const Side& a, const Side& b, std::size_t pair, AddressRange range);
    void count_fates(const Side& a, const Side& b, std::uint64_t bytes);
    void note_range(const Side& a, const Side& b, AddressRange range);
    bool comparable(std::size_t before, std::size_t after) const;

    RunStream& stream_;
    std::span<const Mapping> before_, after_;
    const DiffOptions& options_;
    std::vector<MappingPair> pairs_;
    std::vector<std::size_t> pair_of_before_, pair_of_after_;
    std::vector<std::vector<Count>> counts_; ///< by pair
    Fates zero_filled_, anon_;               ///< in bytes until they are given
    std::optional<ChangedRange> pending_;
};

} // namespace pagesift
