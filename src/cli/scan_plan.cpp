// SPDX-License-Identifier: MIT
#include "cli/scan.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

constexpr std::size_t rows_for_people = 20;
constexpr std::size_t groups_for_monitoring = 50;

scan::Depth parse_depth(const std::string& word) {
    for (const auto depth : {scan::Depth::totals, scan::Depth::pages, scan::Depth::content})
        if (scan::depth_word(depth) == word) return depth;
    return scan::Depth::pages;
}

scan::Per parse_per(const std::string& word) {
    using scan::Per;
    for (const auto per : {Per::process, Per::mapping, Per::range, Per::cgroup, Per::comm})
        if (scan::per_word(per) == word) return per;
    return Per::process;
}

void check_depth(const char* option, scan::Depth needed, scan::Depth depth) {
    if (needed > depth)
        throw Error{ErrorKind::usage, option, 0,
                    fmt::format("add --depth {}", scan::depth_word(needed)),
                    fmt::format("asks for a figure that is not known at depth {}",
                                scan::depth_word(depth))};
}

void add_order(ScanPlan& plan, const Options& options) {
    const bool table = options.format == "table";
    if (!options.where.empty()) plan.where = scan::Where::parse(options.where);
    check_depth("--where", plan.where.needs(), plan.depth);
    std::string key = options.scan.sort;
    const bool limited = options.scan.top.value_or(0) > 0;
    if (key.empty() && (table || limited))
        key = plan.per == scan::Per::range ? "size_bytes" : "rss_bytes";
    if (!key.empty()) plan.sort = scan::SortKey::parse(key);
    if (plan.sort) check_depth("--sort", scan::fields()[plan.sort->field].from, plan.depth);
    plan.top = options.scan.top.value_or(table ? rows_for_people : 0);
}

/// Whatever names or shows the field asks for it.
bool mentions(const Options& options, const char* field) {
    return options.where.find(field) != std::string::npos ||
           options.scan.sort.find(field) != std::string::npos;
}

void check_format(const Options& options, const ScanPlan& plan) {
    if (options.format == "sqlite" && options.output.empty())
        throw Error{ErrorKind::usage, "--format sqlite", 0, "add -o FILE", "needs a file"};
    if (options.format == "openmetrics" && plan.by_part())
        throw Error{ErrorKind::usage, "--format openmetrics", 0, "--per process, cgroup or comm",
                    "has no series for mappings and ranges"};
    if (plan.depth == scan::Depth::totals && plan.by_part())
        throw Error{ErrorKind::usage, "--per", 0, "add --depth pages",
                    "mappings and ranges are not seen at depth totals"};
}

} // namespace

ScanPlan make_plan(const Options& options, const Environment& environment) {
    ScanPlan plan;
    plan.open = open_options(options);
    plan.selection = parse_selection(options, environment, plan.open);
    plan.depth = parse_depth(options.scan.depth);
    plan.per = parse_per(options.scan.per);
    // Series that come and go with pids have no bound.
    if (options.scan.per.empty() && options.format == "openmetrics") plan.per = scan::Per::comm;
    plan.want = parse_want(plan.depth == scan::Depth::content ? options.scan.zero : "off",
                           options.file_cache);
    // One thread unless told otherwise: nobody waits for a scan as for a look at one process.
    plan.jobs = std::max(1u, options.jobs);
    plan.cpu_share = options.scan.cpu.value_or(0) / 100;
    if (!options.scan.max_time.empty())
        plan.max_time = parse_duration(options.scan.max_time, "--max-time");
    if (!options.scan.interval.empty()) {
        plan.interval = parse_duration(options.scan.interval, "--interval");
        plan.count = options.scan.count;
    }
    if (!options.scan.max_process_bytes.empty())
        plan.max_process_bytes = parse_size(options.scan.max_process_bytes, "--max-process-bytes");
    check_format(options, plan);
    add_order(plan, options);
    const bool all_fields = options.format != "table" || plan.by_group();
    plan.list.exe = all_fields || !plan.selection.exes.empty() || mentions(options, "exe");
    plan.list.cgroup = all_fields || !plan.selection.cgroups.empty() || mentions(options, "cgroup");
    plan.rollup_too = mentions(options, "swap_pss_bytes");
    // Nothing is asked of the kernel's memory, so the lens is not opened.
    if (plan.depth == scan::Depth::totals) plan.open.lens = os::OpenOptions::Lens::proc;
    return plan;
}

ScanOutput::ScanOutput(const Options& options, const ScanPlan& plan, const Environment& environment)
    : options_(options), report_(report_options(options, environment)) {
    report_.top = plan.top;
    if (plan.sort) report_.sort = plan.sort->field;
    const bool metrics = report_.format == report::Format::openmetrics;
    if (metrics) report_.top = options.scan.top.value_or(groups_for_monitoring);
    if (options.format == "sqlite") {
        history_.emplace(options.output, report::History::Use::append,
                         report::History::Options{.boot_id = os::read_boot_id(plan.open)});
        sink_ = history_->sink();
        return;
    }
    replaces_ = metrics && !options.output.empty() && options.output != "-";
    if (replaces_) return;
    output_.emplace(options.output, *environment.out);
    sink_ = report::make_scan_sink(output_->stream(), report_);
}

void ScanOutput::begin(const scan::Summary& summary) {
    if (replaces_) {
        replaced_.emplace(options_.output);
        sink_ = report::make_scan_sink(replaced_->stream(), report_);
    }
    sink_.begin(summary);
}

void ScanOutput::end(const scan::Summary& summary) {
    sink_.end(summary);
    if (output_) output_->publish();
    if (!replaced_) return;
    sink_.finish();
    replaced_->commit();
    replaced_.reset();
}

void ScanOutput::finish() {
    if (replaces_) return;
    sink_.finish();
    if (output_) output_->close();
}

} // namespace pagesift::cli
