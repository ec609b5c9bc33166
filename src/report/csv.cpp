// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "report/json_writer.hpp"
#include "report/sinks.hpp"

#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

enum class Table { mappings, ranges, pages };

/// One table as RFC 4180 describes it: a header, CRLF line ends, unknown as an empty field. Foreign
/// text is escaped as everywhere and always quoted; it is not changed beyond that, so a name that
/// starts with '=' still does, and a spreadsheet should be told to import columns as text.
class CsvSink {
public:
    CsvSink(std::ostream& out, const ReportOptions& options)
        : table_(options.pages    ? Table::pages
                 : options.ranges ? Table::ranges
                                  : Table::mappings),
          out_(out) {}

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
        address(run.range.start.value);
        address(run.range.end.value);
        number(run.range.size().value / page_size_);
        page_class(run.state, run.kind, run.marker);
        number(run.swap_type);
        number(run.swap_offset);
        for (std::size_t i = 0; i < attribute_count; ++i)
            tri(run.attribute(static_cast<Attribute>(i)));
        text(mappings_[run.mapping].name);
        end_row();
    }

    void page(const Page& page) {
        if (table_ != Table::pages) return;
        start_row();
        address(page.address.value);
        page_class(page.cls.state, page.cls.kind, page.cls.marker);
        number(page.swap_type);
        number(page.swap_offset);
        number(page.sharers);
        number(page.folio_pages);
        number(page.pfn);
        for (std::size_t i = 0; i < attribute_count; ++i)
            tri(page.cls.attribute(static_cast<Attribute>(i)));
        text(mappings_[page.mapping].name);
        end_row();
    }

    void end(const Census& census) {
        pid_ = census.process.pid;
        comm_ = census.process.comm;
        write_header();
        if (table_ == Table::mappings) {
            const KnownKinds known{census};
            for (const MappingCensus& m : census.mappings) mapping(m, known, census.host.page_size);
        }
        out_.flush();
    }

    void finish() {
        write_header();
        out_.flush();
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
        out_.put(line + ",name\r\n");
    }

    void mapping(const MappingCensus& entry, const KnownKinds& known, std::uint64_t page_size) {
        const Mapping& m = entry.mapping;
        const Figures f = figures_of(entry.tally, page_size);
        start_row();
        address(m.range.start.value);
        address(m.range.end.value);
        word(m.permissions());
        number(m.offset);
        word(backing_word(m.backing));
        number(f.size);
        number(f.resident);
        for (const std::uint64_t bytes : f.states) number(bytes);
        for (std::size_t i = 0; i < kind_count; ++i) number(known.bytes(f, static_cast<Kind>(i)));
        for (std::size_t i = 1; i < marker_count; ++i) number(f.markers[i]);
        text(m.name);
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
    void number(std::uint64_t value) {
        out_.put(',');
        out_.number(value);
    }
    template <class Number> void number(std::optional<Number> value) {
        if (value)
            number(std::uint64_t{*value});
        else
            out_.put(',');
    }
    void word(std::string_view own) {
        out_.put(',');
        out_.put(own);
    }
    void page_class(State state, Kind kind, Marker marker) {
        word(word_of(state).name);
        word(kind == Kind::not_present ? "" : word_of(kind).name);
        word(word_of(marker).name);
    }
    void tri(std::optional<Tri> value) {
        word(!value                   ? "mixed"
             : *value == Tri::unknown ? ""
             : *value == Tri::yes     ? "true"
                                      : "false");
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
