// SPDX-License-Identifier: MIT
#include "report/sinks.hpp"

namespace pagesift::report {

Sink make_sink(std::ostream& out, const ReportOptions& options) {
    switch (options.format) {
    case Format::json: return make_json_sink(out, options);
    case Format::ndjson: return make_ndjson_sink(out, options);
    case Format::csv: return make_csv_sink(out, options);
    case Format::openmetrics: // of scans only
    case Format::table: break;
    }
    return make_table_sink(out, options);
}

} // namespace pagesift::report
