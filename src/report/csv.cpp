// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "report/csv_writer.hpp"
#include "report/sinks.hpp"

namespace pagesift::report {
namespace {

enum class Table { mappings, ranges, pages };

/// One table.
class CsvSink {
public:
    CsvSink(std::ostream& out, const ReportOptions& options)
        : table_(options.pages    ? Table::pages
                 : options.ranges ? Table::ranges
                                  : Table::mappings),
          csv_(out) {}

    void begin(const ProcessText& process, std::span<const Mapping> mappings) {
        pid_ = process.pid;
        comm_ = process.comm;
        mappings_ = mappings;
        page_size_ = smallest_page(mappings);
        write_header();
    }

    void run(const Run& run) {
        if (table_ != Table::ranges) return;
        start_row();
        csv_.address(run.range.start.value);
        csv_.address(run.range.end.value);
        csv_.number(run.range.size().value / page_size_);
        page_class(run.state, run.kind, run.marker);
        csv_.number(run.swap_type);
        csv_.number(run.swap_offset);
        for (std::size_t i = 0; i < attribute_count; ++i)
            tri(run.attribute(static_cast<Attribute>(i)));
        csv_.text(mappings_[run.mapping].name);
        csv_.end_row();
    }

    void page(const Page& page) {
        if (table_ != Table::pages) return;
        start_row();
        csv_.address(page.address.value);
        page_class(page.cls.state, page.cls.kind, page.cls.marker);
        csv_.number(page.swap_type);
        csv_.number(page.swap_offset);
        csv_.number(page.sharers);
        csv_.number(page.folio_pages);
        csv_.number(page.pfn);
        for (std::size_t i = 0; i < attribute_count; ++i)
            tri(page.cls.attribute(static_cast<Attribute>(i)));
        csv_.text(mappings_[page.mapping].name);
        csv_.end_row();
    }

    void end(const Census& census) {
        pid_ = census.process.pid;
        comm_ = census.process.comm;
        write_header();
        if (table_ == Table::mappings) {
            const KnownKinds known{census};
            for (const MappingCensus& m : census.mappings) mapping(m, known, census.host.page_size);
        }
        csv_.flush();
    }

    void finish() {
        write_header();
        csv_.flush();
    }

private:
    void write_header() {
        if (header_done_) return;
        header_done_ = true;
        std::string line = "pid,comm,";
        switch (table_) {
        case Table::mappings:
            line += "start,end,permissions,offset,backing,size_bytes,rss_bytes";
            for (const Word& w : state_table()) line += fmt::format(",state_{}_bytes", w.field);
            for (const Word& w : kind_table()) line += fmt::format(",kind_{}_bytes", w.field);
            for (const Word& w : marker_table().subspan<1>())
                line += fmt::format(",marker_{}_bytes", w.field);
            break;
        case Table::ranges:
            line += "start,end,pages,state,kind,marker,swap_type,swap_offset";
            break;
        case Table::pages:
            line += "address,state,kind,marker,swap_type,swap_offset,sharers,folio_pages,pfn";
            break;
        }
        if (table_ != Table::mappings)
            for (const Word& w : attribute_table()) line += fmt::format(",{}", w.field);
        csv_.header(line + ",name");
    }

    void mapping(const MappingCensus& entry, const KnownKinds& known, std::uint64_t page_size) {
        const Mapping& m = entry.mapping;
        const Figures f = figures_of(entry.tally, page_size);
        start_row();
        csv_.address(m.range.start.value);
        csv_.address(m.range.end.value);
        csv_.word(m.permissions());
        csv_.number(m.offset);
        csv_.word(backing_word(m.backing));
        csv_.number(f.size);
        csv_.number(f.resident);
        for (const std::uint64_t bytes : f.states) csv_.number(bytes);
        for (std::size_t i = 0; i < kind_count; ++i)
            csv_.number(known.bytes(f, static_cast<Kind>(i)));
        for (std::size_t i = 1; i < marker_count; ++i) csv_.number(f.markers[i]);
        csv_.text(m.name);
        csv_.end_row();
    }

    void start_row() {
        csv_.number(std::uint64_t{pid_});
        csv_.text(comm_);
    }
    void page_class(State state, Kind kind, Marker marker) {
        csv_.word(word_of(state).name);
        csv_.word(kind == Kind::not_present ? "" : word_of(kind).name);
        csv_.word(word_of(marker).name);
    }
    void tri(std::optional<Tri> value) {
        csv_.word(!value                   ? "mixed"
                  : *value == Tri::unknown ? ""
                  : *value == Tri::yes     ? "true"
                                           : "false");
    }
    Table table_;
    CsvWriter csv_;
    bool header_done_ = false;
    std::uint32_t pid_ = 0;
    std::string comm_;
    std::span<const Mapping> mappings_;
    std::uint64_t page_size_ = 0;
};

} // namespace

Sink make_csv_sink(std::ostream& out, const ReportOptions& options) {
    return bind_sink(std::make_shared<CsvSink>(out, options));
}

} // namespace pagesift::report
