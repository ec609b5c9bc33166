// SPDX-License-Identifier: MIT
// One process of a recording, as a source. It answers from runs kept in memory, so a terabyte of
// holes costs no more than the line that says so.
#pragma once

#include "snapshot/recording_columns.hpp"

#include "pagesift/source.hpp"

#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace pagesift::snapshot {

/// Consecutive pages, numbered by address, of which the same columns were recorded.
struct Extent {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    ColumnMask columns = 0;
};

/// What a recording says of one process.
struct RecordedProcess {
    RecordedProcess();

    ProcessText text;
    Want want;
    std::vector<Mapping> mappings;
    std::vector<Extent> extents;            ///< in address order, disjoint
    std::vector<ColumnRuns> columns;        ///< by index in column_table()
    std::vector<AddressRange> tables_asked; ///< sorted and merged by RecordedSource
    std::vector<AddressRange> tables_owned;
    std::vector<Gap> gaps;
};

class RecordedSource final : public Source {
public:
    RecordedSource(std::shared_ptr<const HostFacts> host, RecordedProcess&& process);

    const HostFacts& host() const override { return *host_; }
    ProcessText process() override { return process_.text; }
    std::vector<Mapping> mappings(const Want& want) override;
    void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                    PageBlock& block) override;
    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override;
    std::vector<Gap> gaps() const override;
    const Want& recorded_want() const { return process_.want; }

private:
    std::uint64_t fill(const Extent& extent, std::uint64_t first, std::uint64_t last,
                       PageBlock& block) const;
    std::optional<std::uint64_t> uniform_end(const Extent& extent, std::uint64_t first,
                                             std::uint64_t last) const;
    void note_missing(AddressRange range);

    std::shared_ptr<const HostFacts> host_;
    RecordedProcess process_;
    mutable std::mutex mutex_;
    std::set<std::pair<std::uint64_t, std::uint64_t>> missing_; ///< asked for, never recorded
    std::uint64_t missing_bytes_ = 0; ///< beyond those that missing_ names
    bool contents_missed_ = false;    ///< wanted, and not recorded
    bool cache_missed_ = false;
};

} // namespace pagesift::snapshot
