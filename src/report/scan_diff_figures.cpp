// SPDX-License-Identifier: MIT
#include "report/scan_diff_figures.hpp"

namespace pagesift::report {
std::vector<FieldChange> told_changes(const RecordPair& pair) {
    std::vector<FieldChange> told = pair.changes();
    const bool alone = !pair.before || !pair.after;
    std::erase_if(told, [&](const FieldChange& change) {
        if (alone) return change.before.value_or(0) == 0 && change.after.value_or(0) == 0;
        return change.delta() == std::int64_t{0} || (!change.before && !change.after);
    });
    return told;
}

std::vector<std::size_t> naming_fields(scan::Per per) {
    std::vector<std::string_view> names;
    switch (per) {
    case scan::Per::comm: names = {"comm"}; break;
    case scan::Per::cgroup: names = {"cgroup"}; break;
    case scan::Per::process:
        names = {"pid", "start_time_ticks", "comm", "exe", "user", "cgroup"};
        break;
    case scan::Per::mapping:
    case scan::Per::range:
        names = {"pid", "start_time_ticks", "comm", "exe", "user", "cgroup", "start", "end",
                 "name"};
        break;
    }
    std::vector<std::size_t> fields;
    fields.reserve(names.size());
    for (const std::string_view name : names) fields.push_back(*scan::find_field(name));
    return fields;
}

std::string_view only_in(const RecordPair& pair) {
    return !pair.after ? "before" : !pair.before ? "after" : "";
}

void render_scan_diff(std::ostream& out, const ScanDiff& diff, const PictureNames& names,
                      const ReportOptions& options) {
    switch (options.format) {
    case Format::json: return render_scan_diff_json(out, diff, names);
    case Format::ndjson: return render_scan_diff_ndjson(out, diff, names);
    case Format::csv: return render_scan_diff_csv(out, diff);
    case Format::openmetrics: // the command line does not offer it
    case Format::table: break;
    }
    render_scan_diff_table(out, diff, names, options);
}

} // namespace pagesift::report
