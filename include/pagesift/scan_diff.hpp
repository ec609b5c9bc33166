// SPDX-License-Identifier: MIT
// The diff room's second door: two scans side by side. It pairs their records and subtracts what
// can be added up; pages are not followed, because a record has none.
//
//     const ScanDiff d = compare_scans({entry_a, records_a}, {entry_b, records_b}, where);
//     d.both[0].memory_change();   // of the process whose RSS and swap changed most
#pragma once

#include "pagesift/classify.hpp"
#include "pagesift/scan.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift {

/// One scan of a history.
struct ScanPicture {
    std::int64_t id = 0; ///< in its history
    std::string boot;    ///< which start of the machine; empty: not known
    scan::Summary summary;
};

/// One field in both scans. Empty: unknown, or the scan has no such record.
struct FieldChange {
    std::size_t field = 0; ///< in scan::fields()
    std::optional<std::uint64_t> before, after;
    bool comparable = true; ///< false: both are known, but do not count the same thing

    std::optional<std::int64_t> delta() const {
        if (!before || !after || !comparable) return {};
        return static_cast<std::int64_t>(*after - *before);
    }
};

/// The fields that are compared, in the order of scan::fields(): what can be added up, but for
/// times, bounds of samples, and unknown_processes.
std::span<const std::size_t> compared_fields();

/// One each of compared_fields(). What both records know is not comparable where
/// - one of them is not complete, or a sum over processes of which some figure is unknown,
/// - kinds are told apart in one only, and the field takes in those that are not,
/// - states of some pages are unknown, and the field may lack them.
std::vector<FieldChange> field_changes(const scan::Record& before, const scan::Record& after);

/// Records of the same thing; at least one of them is there.
struct RecordPair {
    std::optional<scan::Record> before, after;

    const scan::Record& newest() const { return after ? *after : *before; }
    /// With one record only, all differences are unknown.
    std::vector<FieldChange> changes() const;
    /// Of RSS and swap together.
    std::optional<std::int64_t> memory_change() const;
    /// RSS and swap of the newest record; what is unknown counts nothing. For order only.
    std::int64_t memory() const;
};

struct ScanDiff {
    ScanPicture before, after;
    std::vector<FieldChange> totals; ///< not comparable where a process' figure is missing
    std::vector<RecordPair> both;    ///< largest change of memory first, unknown last
    std::vector<RecordPair> only_before, only_after; ///< largest memory first
    std::vector<std::string> notes;                  ///< what limits the comparison
    /// One of the scans was interrupted, or could not look at every process in full.
    bool partial = false;
};

/// What no comparison of scans tells, and what does: every output says it.
std::string_view net_changes_note();

/// A picture with its records.
struct ScanSide {
    ScanPicture picture;
    std::vector<scan::Record> records;
};

/// Pairs records by pid and start time where host and boot are the same; those of mappings by
/// address and name as well; those of groups by name. Without a start time the name must agree.
/// @p where must hold for one record of a pair; totals are of everything. Throws Error(bad_input):
/// records of different sorts, or of ranges, which have no identity.
ScanDiff compare_scans(ScanSide before, ScanSide after, const scan::Where& where = {});

} // namespace pagesift
