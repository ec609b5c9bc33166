// SPDX-License-Identifier: MIT
// A census put together by hand, with the runs and pages that would have come before it.
#pragma once

#include "pagesift/report.hpp"

#include <sstream>
#include <string>
#include <vector>

namespace pagesift::test {

class MadeUpCensus {
public:
    static constexpr std::uint64_t page = 4096;

    MadeUpCensus() {
        census.process.pid = 42;
        census.process.comm = "made-up";
        census.process.exe = "/usr/bin/made-up";
        census.host.release = "6.18.0";
        census.elapsed_seconds = 0.0123;
        census.tables.total_bytes = 10 * page;
        census.tables.needed_tables = 8;
        census.tables.empty_tables = 2;
        census.tables.located_tables = 2;
        census.tables.reclaimable_bytes = page;
        census.tables.spanning_tables = 1;
    }

    MadeUpCensus& mapping(std::uint64_t start, std::string name = {},
                          Backing backing = Backing::anon) {
        MappingCensus m;
        m.mapping.range = {Address{start}, Address{start}};
        m.mapping.readable = m.mapping.writable = true;
        m.mapping.name = std::move(name);
        m.mapping.backing = backing;
        m.mapping.page_size = page;
        census.mappings.push_back(m);
        return *this;
    }

    MadeUpCensus& pages(std::uint64_t count, PageClass cls) {
        MappingCensus& m = census.mappings.back();
        const Address start = m.mapping.range.end;
        const Address end = start + Bytes{count * page};
        m.mapping.range.end = end;
        m.tally.add(cls, count);
        census.totals.add(cls, count);
        const std::size_t index = census.mappings.size() - 1;
        Run run;
        run.range = {start, end};
        run.mapping = index;
        run.state = cls.state;
        run.kind = cls.kind;
        run.marker = cls.marker;
        run.attributes = cls.attributes;
        runs.push_back(run);
        for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, 64); ++i) {
            Page one;
            one.address = start + Bytes{i * page};
            one.mapping = index;
            one.cls = cls;
            listed.push_back(one);
        }
        return *this;
    }
    MadeUpCensus& present(std::uint64_t count, Kind kind, Backing backing = Backing::anon) {
        return pages(count, {.state = State::present, .kind = kind, .backing = backing});
    }
    MadeUpCensus& absent(std::uint64_t count, State state, Marker marker = Marker::no_marker) {
        return pages(count, {.state = state, .marker = marker});
    }

    /// Everything through a sink of @p options.
    std::string render(report::ReportOptions options) const {
        std::ostringstream out;
        const auto sink = report::make_sink(out, options);
        play(sink);
        sink.finish();
        return out.str();
    }
    void play(const report::Sink& sink) const {
        std::vector<Mapping> mappings;
        for (const MappingCensus& m : census.mappings) mappings.push_back(m.mapping);
        sink.begin(census.process, mappings);
        for (const Run& run : runs) sink.run(run);
        for (const Page& one : listed) sink.page(one);
        sink.end(census);
    }

    Census census;
    std::vector<Run> runs;
    std::vector<Page> listed;
};

/// A process with a bit of everything.
inline MadeUpCensus typical() {
    MadeUpCensus c;
    c.mapping(0x555500000000, "/usr/bin/made-up", Backing::file)
        .present(100, Kind::file, Backing::file)
        .pages(20, {.state = State::cached, .backing = Backing::file})
        .pages(5, {.state = State::uncached, .backing = Backing::file});
    c.mapping(0x555600000000, "[heap]")
        .present(300, Kind::anon)
        .present(40, Kind::zero_page)
        .absent(200, State::swapped)
        .absent(1000, State::none);
    c.mapping(0x7f0000000000).present(512, Kind::thp).absent(16, State::marker, Marker::guard);
    c.mapping(0x7f0010000000, "/memfd:shared (deleted)", Backing::shmem)
        .present(10, Kind::shmem, Backing::shmem)
        .pages(30, {.state = State::shmem_swapped, .backing = Backing::shmem});
    return c;
}

inline std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in{text};
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

} // namespace pagesift::test
