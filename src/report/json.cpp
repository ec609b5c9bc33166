// SPDX-License-Identifier: MIT
#include "report/json_fields.hpp"
#include "report/sinks.hpp"

#include <memory>
#include <ostream>
#include <sstream>

namespace pagesift::report {
namespace {

/// One element a process. Pages and ranges stream into it as they come; when both are asked for,
/// the ranges wait in memory, because JSON has one open array at a time.
class JsonSink {
public:
    JsonSink(std::ostream& out, const ReportOptions& options)
        : options_(options),
          out_(out),
          json_(out_),
          ranges_out_(ranges_),
          ranges_json_(ranges_out_) {
        json_.begin_array();
    }

    void begin(const ProcessText& process, std::span<const Mapping> mappings) {
        if (open_) abandon();
        open_ = true;
        mappings_ = mappings;
        page_size_ = smallest_page(mappings);
        json_.new_line();
        json_.begin_object();
        json_.key("schema");
        json_.word(inspect_schema);
        write_identity(json_, process);
        if (options_.pages) open("pages");
        if (options_.ranges && !options_.pages) open("ranges");
        if (options_.ranges && options_.pages) {
            ranges_.str({});
            ranges_json_ = JsonWriter{ranges_out_};
            ranges_json_.begin_array();
        }
    }

    void run(const Run& run) {
        if (!options_.ranges) return;
        JsonWriter& json = options_.pages ? ranges_json_ : json_;
        json.line([&] { write_run(json, run, mappings_[run.mapping], page_size_); });
    }

    void page(const Page& page) {
        if (!options_.pages) return;
        json_.line([&] { write_page(json_, page, mappings_[page.mapping]); });
    }

    void end(const Census& census) {
        close_streams();
        json_.new_line();
        write_look(json_, census);
        write_totals(json_, census);
        write_ksm(json_, census);
        json_.lines("savings", find_savings(census), write_saving);
        const KnownKinds known{census};
        json_.lines("mappings", census.mappings,
                    [&](JsonWriter& json, const MappingCensus& mapping) {
                        write_mapping(json, mapping, known, census.host.page_size);
                    });
        json_.lines("slots", census.tables.slots, write_slot);
        json_.lines("gaps", census.gaps, write_gap);
        json_.end_object();
        out_.flush();
        open_ = false;
    }

    void finish() {
        if (open_) abandon();
        json_.end_array();
        out_.put('\n');
        out_.flush();
    }

private:
    void open(std::string_view name) {
        json_.key(name);
        json_.begin_array();
    }

    void close_streams() {
        if (options_.pages || options_.ranges) json_.end_array();
        if (!options_.pages || !options_.ranges) return;
        ranges_json_.end_array();
        ranges_out_.flush();
        json_.key("ranges");
        json_.raw(ranges_.str());
        ranges_.str({});
    }

    /// The look failed after it had begun: what was written stays, and says so.
    void abandon() {
        close_streams();
        json_.key("failed");
        json_.boolean(true);
        json_.end_object();
        open_ = false;
    }

    ReportOptions options_;
    Output out_;
    JsonWriter json_;
    std::ostringstream ranges_;
    Output ranges_out_;
    JsonWriter ranges_json_;
    std::span<const Mapping> mappings_;
    std::uint64_t page_size_ = 0;
    bool open_ = false;
};

/// One object a line, each of which stands alone.
class NdjsonSink {
public:
    NdjsonSink(std::ostream& out, const ReportOptions& options) : options_(options), out_(out) {}

    void begin(const ProcessText& process, std::span<const Mapping> mappings) {
        pid_ = process.pid;
        mappings_ = mappings;
        page_size_ = smallest_page(mappings);
    }

    void run(const Run& run) {
        if (!options_.ranges) return;
        line("range",
             [&](JsonWriter& json) { write_run(json, run, mappings_[run.mapping], page_size_); });
    }

    void page(const Page& page) {
        if (!options_.pages) return;
        line("page", [&](JsonWriter& json) { write_page(json, page, mappings_[page.mapping]); });
    }

    void end(const Census& census) {
        pid_ = census.process.pid;
        const KnownKinds known{census};
        for (const MappingCensus& mapping : census.mappings)
            line("mapping", [&](JsonWriter& json) {
                write_mapping(json, mapping, known, census.host.page_size);
            });
        for (const Slot& slot : census.tables.slots)
            line("slot", [&](JsonWriter& json) { write_slot(json, slot); });
        for (const Saving& saving : find_savings(census))
            line("saving", [&](JsonWriter& json) { write_saving(json, saving); });
        for (const Gap& gap : census.gaps)
            line("gap", [&](JsonWriter& json) { write_gap(json, gap); });
        line("process", [&](JsonWriter& json) {
            json.key("comm");
            json.text_or_null(census.process.comm);
            json.key("exe");
            json.text_or_null(census.process.exe);
            write_look(json, census);
            write_totals(json, census);
            write_ksm(json, census);
        });
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    template <class Write> void line(std::string_view record, Write&& write) {
        write_line(out_, inspect_schema, record, [&](JsonWriter& json) {
            json.field("pid", std::uint64_t{pid_});
            write(json);
        });
    }

    ReportOptions options_;
    Output out_;
    std::span<const Mapping> mappings_;
    std::uint32_t pid_ = 0;
    std::uint64_t page_size_ = 0;
};

} // namespace

Sink make_json_sink(std::ostream& out, const ReportOptions& options) {
    return bind_sink(std::make_shared<JsonSink>(out, options));
}

Sink make_ndjson_sink(std::ostream& out, const ReportOptions& options) {
    return bind_sink(std::make_shared<NdjsonSink>(out, options));
}

} // namespace pagesift::report
