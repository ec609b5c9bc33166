// SPDX-License-Identifier: MIT
// What every format of a comparison shows: figures of both pictures, and which of their
// differences are known.
#pragma once

#include "pagesift/report.hpp"

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace pagesift::report {

/// One figure in both pictures.
struct Change {
    std::string_view section; ///< "totals", "states", "kinds", "markers", "page_tables"
    std::string_view name;    ///< the word of machine formats, without its unit: "swapped"
    std::string_view unit;    ///< "bytes", "tables"
    std::optional<std::uint64_t> before, after;
    bool comparable = true; ///< false: both are known, but do not count the same thing

    std::optional<std::int64_t> delta() const {
        if (!before || !after || !comparable) return {};
        return static_cast<std::int64_t>(*after - *before);
    }
    bool changed() const { return delta() != std::int64_t{0}; }
};

/// All sections, in a fixed order, of the whole process.
std::vector<Change> total_changes(const ProcessDiff& diff);
/// States, kinds and markers of one pair of mappings.
std::vector<Change> mapping_changes(const ProcessDiff& diff, const MappingPair& pair);
const Change& find(const std::vector<Change>& changes, std::string_view section,
                   std::string_view name);
/// Of states swapped and shmem-swapped.
std::optional<std::int64_t> swapped_delta(const std::vector<Change>& changes);

/// One number of Fates; empty where it is not known.
std::optional<std::uint64_t> fate_pages(const ProcessDiff& diff, const Fates& fates, Fate fate);
/// How many pages were of that sort; empty where nothing was read that tells.
std::optional<std::uint64_t> sort_pages(const ProcessDiff& diff, const Fates& fates);

/// "anon", "swapped", "unmapped", "present-unknown": one word for both, for machines and people.
std::string_view sighting_word(const Sighting& seen);
/// The words of machine formats, apart: state ("unmapped" where not mapped), and kind or "".
std::string_view state_word(const Sighting& seen);
std::string_view kind_word(const Sighting& seen);

/// Whether memory was there before or is now: not so from unmapped to none.
bool moves_memory(const Transition& transition);
/// Bytes of a pair's pages that are not what they were, without those that never held memory.
std::uint64_t changed_bytes(const MappingPair& pair, std::uint64_t page_size);
/// Anything about it is not as it was.
bool has_changed(const MappingPair& pair);

/// The mapping that stands for a pair: the first of the second picture, else of the first one.
const Mapping& mapping_of(const ProcessDiff& diff, const MappingPair& pair);
/// From the start of the first to the end of the last; empty: none on that side.
std::optional<AddressRange> range_of(const ProcessDiff& diff, const MappingPair& pair,
                                     Picture picture);

/// Gaps of the comparison and of both looks, with the picture that they belong to.
struct PictureGap {
    const Gap* gap;
    std::string_view picture; ///< "before", "after", "both"
};
std::vector<PictureGap> all_gaps(const ProcessDiff& diff);

std::string_view zero_word(ZeroTest zero);
std::string_view match_word(Match match);
const Word& word_of(MappingChange change);
const Word& word_of(Fate fate);

inline constexpr std::string_view diff_schema = "pagesift.diff/1";

// One format each; make_diff_sink chooses.
DiffSink make_diff_table_sink(std::ostream& out, const ReportOptions& options, PictureNames names);
DiffSink make_diff_json_sink(std::ostream& out, const ReportOptions& options, PictureNames names);
DiffSink make_diff_ndjson_sink(std::ostream& out, const ReportOptions& options, PictureNames names);
DiffSink make_diff_csv_sink(std::ostream& out, const ReportOptions& options);

template <class Impl> DiffSink bind_diff_sink(std::shared_ptr<Impl> impl) {
    return {
        .begin = [impl](const ProcessText& before,
                        const ProcessText& after) { impl->begin(before, after); },
        .range = [impl](const ChangedRange& range) { impl->range(range); },
        .end = [impl](const ProcessDiff& diff) { impl->end(diff); },
        .only = [impl](const ProcessText& process,
                       Picture picture) { impl->only(process, picture); },
        .finish = [impl] { impl->finish(); },
    };
}

} // namespace pagesift::report
