// SPDX-License-Identifier: MIT
// What the formats of a comparison of scans share.
#pragma once

#include "pagesift/report.hpp"

#include <string_view>
#include <vector>

namespace pagesift::report {

/// Those of a pair that are worth a word: not what is the same in both, nor what neither record
/// knows, nor, where there is one record only, what is zero in it.
std::vector<FieldChange> told_changes(const RecordPair& pair);

/// Fields that say what a record is about, in the order of all formats.
std::vector<std::size_t> naming_fields(scan::Per per);

/// "before", "after", or "" where both have it.
std::string_view only_in(const RecordPair& pair);

/// Pairs, in the order in which formats show them.
template <class Take> void for_each_pair(const ScanDiff& diff, Take&& take) {
    for (const auto* list : {&diff.both, &diff.only_before, &diff.only_after})
        for (const RecordPair& pair : *list) take(pair);
}

void render_scan_diff_table(std::ostream& out, const ScanDiff& diff, const PictureNames& names,
                            const ReportOptions& options);
void render_scan_diff_json(std::ostream& out, const ScanDiff& diff, const PictureNames& names);
void render_scan_diff_ndjson(std::ostream& out, const ScanDiff& diff, const PictureNames& names);
void render_scan_diff_csv(std::ostream& out, const ScanDiff& diff);

} // namespace pagesift::report
