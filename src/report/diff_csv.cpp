// SPDX-License-Identifier: MIT
#include "report/csv_writer.hpp"
#include "report/diff_figures.hpp"

namespace pagesift::report {
namespace {

enum class Table { figures, mappings, ranges };

/// One table.
class DiffCsvSink {
public:
    DiffCsvSink(std::ostream& out, const ReportOptions& options)
        : table_(options.ranges     ? Table::ranges
                 : options.mappings ? Table::mappings
                                    : Table::figures),
          csv_(out) {
        switch (table_) {
        case Table::figures:
            csv_.header("pid,comm,section,name,to,unit,before,after,change,pages");
            break;
        case Table::mappings:
            csv_.header(
                "pid,comm,change,before_start,before_end,after_start,after_end,common_bytes,"
                "changed_bytes,present_change_bytes,swapped_change_bytes,name");
            break;
        case Table::ranges:
            csv_.header("pid,comm,start,end,bytes,from_state,from_kind,to_state,to_kind,name");
            break;
        }
    }

    void begin(const ProcessText& before, const ProcessText&) { process(before); }

    void range(const ChangedRange& changed) {
        if (table_ != Table::ranges) return;
        start_row();
        csv_.address(changed.range.start.value);
        csv_.address(changed.range.end.value);
        csv_.number(changed.range.size().value);
        csv_.word(state_word(changed.from));
        csv_.word(kind_word(changed.from));
        csv_.word(state_word(changed.to));
        csv_.word(kind_word(changed.to));
        csv_.text(changed.mapping->name);
        csv_.end_row();
    }

    void end(const ProcessDiff& diff) {
        if (table_ == Table::figures) {
            for (const Change& change : total_changes(diff)) figure(change);
            fates(diff, diff.zero_filled, "zero_filled_fates");
            fates(diff, diff.anon, "anon_fates");
            for (const Transition& t : diff.transitions)
                count("transitions", sighting_word(t.from), sighting_word(t.to), t.pages);
        }
        if (table_ == Table::mappings)
            for (const MappingPair& pair : diff.mappings)
                if (has_changed(pair)) mapping(diff, pair);
        csv_.flush();
    }

    void only(const ProcessText& alone, Picture picture) {
        if (table_ != Table::figures) return;
        process(alone);
        start_row();
        csv_.word(picture == Picture::before ? "only_before" : "only_after");
        csv_.empty(7);
        csv_.end_row();
    }

    void finish() { csv_.flush(); }

private:
    void process(const ProcessText& of) {
        pid_ = of.pid;
        comm_ = of.comm;
    }

    void figure(const Change& change) {
        start_row();
        csv_.word(change.section);
        csv_.word(change.name);
        csv_.empty();
        csv_.word(change.unit);
        csv_.number(change.before);
        csv_.number(change.after);
        csv_.signed_number(change.delta());
        csv_.empty();
        csv_.end_row();
    }

    void fates(const ProcessDiff& diff, const Fates& fates, std::string_view section) {
        for (const bool unread : {false, true})
            count(section, "", unread ? "unread_before" : "all",
                  unread ? std::optional{fates.unread_pages} : sort_pages(diff, fates));
        for (std::size_t i = 0; i < fate_count; ++i)
            count(section, "", fate_table()[i].field,
                  fate_pages(diff, fates, static_cast<Fate>(i)));
    }

    void count(std::string_view section, std::string_view name, std::string_view to,
               std::optional<std::uint64_t> pages) {
        start_row();
        csv_.word(section);
        csv_.word(name);
        csv_.word(to);
        csv_.word("pages");
        csv_.empty(3);
        csv_.number(pages);
        csv_.end_row();
    }

    void mapping(const ProcessDiff& diff, const MappingPair& pair) {
        const auto changes = mapping_changes(diff, pair);
        start_row();
        csv_.word(word_of(pair.change).field);
        for (const Picture picture : {Picture::before, Picture::after}) {
            const auto range = range_of(diff, pair, picture);
            csv_.address(range ? std::optional{range->start.value} : std::nullopt);
            csv_.address(range ? std::optional{range->end.value} : std::nullopt);
        }
        csv_.number(pair.common_bytes);
        csv_.number(changed_bytes(pair, diff.after.host.page_size));
        csv_.signed_number(find(changes, "states", "present").delta());
        csv_.signed_number(swapped_delta(changes));
        csv_.text(mapping_of(diff, pair).name);
        csv_.end_row();
    }

    void start_row() {
        csv_.number(std::uint64_t{pid_});
        csv_.text(comm_);
    }

    Table table_;
    CsvWriter csv_;
    std::uint32_t pid_ = 0;
    std::string comm_;
};

} // namespace

DiffSink make_diff_csv_sink(std::ostream& out, const ReportOptions& options) {
    return bind_diff_sink(std::make_shared<DiffCsvSink>(out, options));
}

} // namespace pagesift::report
