// SPDX-License-Identifier: MIT
// A scan put together by hand, and what the sinks make of it.
#pragma once

#include "pagesift/report.hpp"

#include <sstream>
#include <string>
#include <vector>

namespace pagesift::test {

/// A record in which every number is a different one, so that none can be taken for another.
inline scan::Record full_record(std::uint64_t pid, std::string comm) {
    scan::Record record;
    for (std::size_t i = 0; i < scan::fields().size(); ++i) {
        const scan::Field& field = scan::fields()[i];
        const std::uint64_t number = 4096 * (pid * 1000 + i);
        switch (field.unit) {
        case scan::Unit::text: record.values[i] = field.name + " text"; break;
        case scan::Unit::seconds: record.values[i] = 0.5; break;
        case scan::Unit::share: record.values[i] = 0.25; break;
        case scan::Unit::flag: record.values[i] = true; break;
        default: record.values[i] = number; break;
        }
        if (field.of_part) record.values[i] = {};
    }
    record.set("pid", pid);
    record.set("start_time_ticks", std::uint64_t{100} + pid);
    record.set("comm", std::move(comm));
    record.set("cgroup", std::string{"/made.up"});
    record.set("processes", std::uint64_t{1});
    record.set("unknown_processes", std::uint64_t{0});
    return record;
}

struct MadeUpScan {
    scan::Summary summary;
    std::vector<scan::Record> records;

    MadeUpScan() {
        summary.host_name = "made-up";
        summary.release = "6.18.0";
        summary.begin = std::chrono::system_clock::time_point{
            std::chrono::milliseconds{1'700'000'000'123}}; // 2023-11-14T22:13:20.123Z
        summary.elapsed_seconds = 1.5;
        summary.cpu_seconds = 0.75;
        summary.lens = "proc";
    }

    MadeUpScan& add(scan::Record record) {
        records.push_back(std::move(record));
        scan::Sum sum;
        for (const scan::Record& one : records) sum.add(one);
        summary.totals = sum.record();
        summary.chosen = summary.answered = records.size();
        return *this;
    }

    void play(const report::ScanSink& sink) const {
        sink.begin(summary);
        for (const scan::Record& record : records) sink.record(record);
        sink.end(summary);
    }

    std::string render(report::ReportOptions options) const {
        std::ostringstream out;
        const report::ScanSink sink = report::make_scan_sink(out, options);
        play(sink);
        sink.finish();
        return out.str();
    }
};

/// Names that break formats which trust them: a quote, CRLF, an escape sequence, bytes that are no
/// UTF-8, a backslash and a right-to-left override.
inline const std::string hostile_name = "a\"b,\r\n\033[31m\xff\\n\xe2\x80\xae{}'";

inline MadeUpScan typical_scan() {
    MadeUpScan scan;
    scan.add(full_record(1, "init")).add(full_record(2, "java")).add(full_record(3, "java"));
    return scan;
}

} // namespace pagesift::test
