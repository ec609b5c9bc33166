// SPDX-License-Identifier: MIT
#include "report/diff_figures.hpp"
#include "report/json_writer.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

enum class Table { figures, mappings, ranges };

/// One table, as RFC 4180 describes it: a header, CRLF line ends, unknown as an empty field.
class DiffCsvSink {
public:
    DiffCsvSink(std::ostream& out, const ReportOptions& options)
        : table_(options.ranges     ? Table::ranges
                 : options.mappings ? Table::mappings
                                    : Table::figures),
          out_(out) {
        switch (table_) {
        case Table::figures:
            out_.put("pid,comm,section,name,to,unit,before,after,change,pages\r\n");
            break;
        case Table::mappings:
            out_.put("pid,comm,change,before_start,before_end,after_start,after_end,common_bytes,"
                     "changed_bytes,present_change_bytes,swapped_change_bytes,name\r\n");
            break;
        case Table::ranges:
            out_.put("pid,comm,start,end,bytes,from_state,from_kind,to_state,to_kind,name\r\n");
            break;
        }
    }

    void begin(const ProcessText& before, const ProcessText&) { process(before); }

    void range(const ChangedRange& changed) {
        if (table_ != Table::ranges) return;
        start_row();
        address(changed.range.start.value);
        address(changed.range.end.value);
        number(changed.range.size().value);
        word(state_word(changed.from));
        word(kind_word(changed.from));
        word(state_word(changed.to));
        word(kind_word(changed.to));
        text(changed.mapping->name);
        end_row();
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
        out_.flush();
    }

    void only(const ProcessText& alone, Picture picture) {
        if (table_ != Table::figures) return;
        process(alone);
        start_row();
        word(picture == Picture::before ? "only_before" : "only_after");
        out_.put(",,,,,,");
        end_row();
    }

    void finish() { out_.flush(); }

private:
    void process(const ProcessText& of) {
        pid_ = of.pid;
        comm_ = of.comm;
    }

    void figure(const Change& change) {
        start_row();
        word(change.section);
        word(change.name);
        word("");
        word(change.unit);
        number(change.before);
        number(change.after);
        signed_number(change.delta());
        word("");
        end_row();
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
        word(section);
        word(name);
        word(to);
        out_.put(",pages,,,");
        number(pages);
        end_row();
    }

    void mapping(const ProcessDiff& diff, const MappingPair& pair) {
        const auto changes = mapping_changes(diff, pair);
        start_row();
        word(word_of(pair.change).field);
        for (const Picture picture : {Picture::before, Picture::after}) {
            const auto range = range_of(diff, pair, picture);
            range ? address(range->start.value) : word("");
            range ? address(range->end.value) : word("");
        }
        number(pair.common_bytes);
        number(changed_bytes(pair, diff.after.host.page_size));
        signed_number(find(changes, "states", "present").delta());
        signed_number(swapped_delta(changes));
        text(mapping_of(diff, pair).name);
        end_row();
    }

    void start_row() {
        out_.number(pid_);
        text(comm_);
    }
    void end_row() {
        out_.put("\r\n");
        out_.flush_if_full();
    }
    void address(std::uint64_t value) { out_.put(fmt::format(",0x{:x}", value)); }
    void number(std::optional<std::uint64_t> value) {
        out_.put(',');
        if (value) out_.number(*value);
    }
    void signed_number(std::optional<std::int64_t> value) {
        out_.put(value ? fmt::format(",{}", *value) : ",");
    }
    void word(std::string_view own) {
        out_.put(',');
        out_.put(own);
    }
    void text(std::string_view foreign) {
        out_.put(",\"");
        for (const char c : escape_text(foreign)) {
            if (c == '"') out_.put('"');
            out_.put(c);
        }
        out_.put('"');
    }

    Table table_;
    Output out_;
    std::uint32_t pid_ = 0;
    std::string comm_;
};

} // namespace

DiffSink make_diff_csv_sink(std::ostream& out, const ReportOptions& options) {
    return bind_diff_sink(std::make_shared<DiffCsvSink>(out, options));
}

} // namespace pagesift::report
