// SPDX-License-Identifier: MIT
// One sink a format; make_sink chooses.
#pragma once

#include "pagesift/report.hpp"

#include <memory>

namespace pagesift::report {

Sink make_json_sink(std::ostream& out, const ReportOptions& options);
Sink make_ndjson_sink(std::ostream& out, const ReportOptions& options);
Sink make_csv_sink(std::ostream& out, const ReportOptions& options);
Sink make_table_sink(std::ostream& out, const ReportOptions& options);

template <class Impl> Sink bind_sink(std::shared_ptr<Impl> impl) {
    return {
        .begin = [impl](const ProcessText& process,
                        std::span<const Mapping> mappings) { impl->begin(process, mappings); },
        .run = [impl](const Run& run) { impl->run(run); },
        .page = [impl](const Page& page) { impl->page(page); },
        .end = [impl](const Census& census) { impl->end(census); },
        .finish = [impl] { impl->finish(); },
    };
}

/// The system's page size, before a census says it: hugetlb mappings have larger pages, and no
/// process consists of those alone.
inline std::uint64_t smallest_page(std::span<const Mapping> mappings) {
    std::uint64_t smallest = 0;
    for (const Mapping& m : mappings)
        if (m.page_size != 0 && (smallest == 0 || m.page_size < smallest)) smallest = m.page_size;
    return smallest == 0 ? 4096 : smallest;
}

} // namespace pagesift::report
