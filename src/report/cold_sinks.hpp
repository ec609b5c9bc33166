// SPDX-License-Identifier: MIT
// One sink of ages a format; make_cold_sink chooses. What they share is below.
#pragma once

#include "pagesift/figures.hpp"
#include "pagesift/report.hpp"

#include <memory>

namespace pagesift::report {

inline constexpr std::string_view cold_schema = "pagesift.cold/1";

ColdSink make_cold_json_sink(std::ostream& out);
ColdSink make_cold_ndjson_sink(std::ostream& out);
ColdSink make_cold_csv_sink(std::ostream& out);
ColdSink make_cold_table_sink(std::ostream& out, const ReportOptions& options);

template <class Impl> ColdSink bind_cold_sink(std::shared_ptr<Impl> impl) {
    return {
        .begin = [impl](const cold::Ages& ages) { impl->begin(ages); },
        .range = [impl](const cold::Ages& ages,
                        const cold::Range& range) { impl->range(ages, range); },
        .end = [impl](const cold::Ages& ages) { impl->end(ages); },
        .finish = [impl] { impl->finish(); },
    };
}

/// "30.000": idle times have whole milliseconds, and are never rounded up.
std::string seconds_text(double seconds);

inline const Word& word_of(cold::Activity a) {
    return cold::activity_table()[static_cast<std::size_t>(a)];
}
inline const Word& word_of(Grain g) { return cold::grain_table()[static_cast<std::size_t>(g)]; }

} // namespace pagesift::report
