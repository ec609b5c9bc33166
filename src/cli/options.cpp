// SPDX-License-Identifier: MIT
#include "pagesift/cli.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace pagesift::cli {
namespace {

std::string check_zero(const std::string& text) {
    if (text == "off" || text == "all") return {};
    if (text.starts_with("sample=") && text.ends_with("%")) {
        const std::string number = text.substr(7, text.size() - 8);
        char* end = nullptr;
        const double percent = std::strtod(number.c_str(), &end);
        if (!number.empty() && *end == '\0' && percent > 0 && percent <= 100) return {};
    }
    return "'" + escape_text(text) + "' is not off, all or sample=N% with N in (0, 100]";
}

CLI::Validator choices(std::vector<std::string> words) { return CLI::IsMember(std::move(words)); }

void add_zero(CLI::App& command, std::string& zero) {
    command
        .add_option("--zero", zero,
                    "Read contents to find zero-filled pages; with the proc lens this marks the "
                    "pages that are read as referenced")
        ->type_name("off|sample=N%|all")
        ->check(CLI::Validator{check_zero, "", "zero"})
        ->capture_default_str();
}

void add_choice(CLI::App& command, const char* name, std::string& value, const char* meaning,
                std::vector<std::string> words) {
    command.add_option(name, value, meaning)
        ->check(choices(std::move(words)))
        ->capture_default_str();
}

void add_lens(CLI::App& command, Options& o,
              const char* meaning = "How to look: exact reads the kernel's own memory, proc only "
                                    "/proc; auto takes exact where it can be had") {
    add_choice(command, "--lens", o.lens, meaning, {"auto", "proc", "exact"});
}

void add_file_cache(CLI::App& command, Options& o) {
    add_choice(command, "--file-cache", o.file_cache,
               "Ask the page cache about file pages that are not mapped", {"on", "off"});
}

void add_smaps(CLI::App& command, Options& o, const char* meaning) {
    add_choice(command, "--smaps", o.smaps, meaning, {"auto", "on", "off"});
}

void add_jobs(CLI::App& command, Options& o,
              const char* meaning = "Threads that read; 0: one a processor, at most 8") {
    command.add_option("-j,--jobs", o.jobs, meaning)->type_name("N")->check(CLI::Range(0u, 64u));
}

void add_reading(CLI::App& command, Options& o) {
    add_zero(command, o.zero);
    add_file_cache(command, o);
    add_lens(command, o);
    add_smaps(command, o,
              "Read smaps (slower; VmFlags and Referenced of each mapping); auto: only where an "
              "answer needs it");
    add_jobs(command, o);
}

void add_pid(CLI::App& command, Options& o) {
    command.add_option("-p,--pid", o.pids, "Process id; may be given again")
        ->type_name("PID")
        ->allow_extra_args(false);
}

void add_where(CLI::App& command, Options& o, const char* meaning) {
    command.add_option("--where", o.where, meaning)->type_name("EXPR");
}

void add_addresses(CLI::App& command, Options& o) {
    command.add_option("-a,--address", o.addresses, "Only these addresses; may be given again")
        ->type_name("A-B|A+SIZE")
        ->allow_extra_args(false);
}

std::vector<std::string> row_formats() { return {"table", "json", "ndjson", "csv"}; }

void add_format(CLI::App& command, Options& o, std::vector<std::string> words = row_formats(),
                const char* meaning = "Output format") {
    add_choice(command, "--format", o.format, meaning, std::move(words));
}

void add_unit(CLI::App& command, Options& o) {
    add_choice(command, "--unit", o.unit, "Unit of the tables' sizes", {"auto", "bytes", "pages"});
}

void add_top(CLI::App& command, Options& o, const char* meaning) {
    command.add_option("--top", o.top, meaning)->type_name("N")->capture_default_str();
}

void add_common(CLI::App& command, Options& o) {
    command.add_option("-o,--output", o.output, "Write to FILE instead of standard output")
        ->type_name("FILE");
    command.add_option("--root", o.root, "Read proc and sys below DIR, for tests and saved trees")
        ->type_name("DIR")
        ->group("");
    command.add_option("--without", o.without, "Do as if the kernel had no INTERFACE, for tests")
        ->type_name("INTERFACE")
        ->check(choices({"pagemap-scan", "procmap-query", "cachestat", "kpageflags", "bpf",
                         "bpf-syscall", "kcore"}))
        ->allow_extra_args(false)
        ->group("");
    command.add_flag("-q,--quiet", o.quiet, "No warnings on standard error");
    command.add_flag("-v,--verbose", o.verbose, "Say more: every gap, raw flags");
}

void add_style(CLI::App& command, Options& o) {
    command.add_option("--color,--colour", o.colour, "Colour and bars")
        ->check(choices({"auto", "always", "never"}))
        ->capture_default_str();
    command.add_option("--width", o.width, "Columns to fill; default: the terminal's, else 80")
        ->type_name("N")
        ->check(CLI::Range(40u, 1000u));
}

void add_inspect(CLI::App& app, Options& o) {
    auto& command = *app.add_subcommand("inspect", "Show what every page of a process is");
    command.add_option("TARGET", o.targets, "Process ids, 'self', or recordings")
        ->type_name("PID|self|RECORDING");
    add_pid(command, o);
    command.add_flag("--mappings", o.mappings, "List every mapping, in address order");
    command.add_flag("--ranges", o.ranges, "List every run of pages of one state and kind");
    command.add_flag("--pages", o.pages, "List every page with its attributes");
    command.add_flag("--map", o.map, "Draw the address space, one cell for N pages");
    add_where(command, o,
              "Only pages for which EXPR holds, such as 'swapped or zero-filled', "
              "'name ~ \"*libc*\" and dirty'");
    add_addresses(command, o);
    add_format(command, o);
    add_unit(command, o);
    add_top(command, o, "Mappings in the summary, largest first");
    add_style(command, o);
    add_reading(command, o);
    add_common(command, o);
}

void add_selectors(CLI::App& command, Options& o) {
    const auto several = [&](const char* name, std::vector<std::string>& values,
                             const char* meaning, const char* type) {
        command.add_option(name, values, meaning)->type_name(type)->allow_extra_args(false);
    };
    several("-p,--pid", o.pids, "Only this process; may be given again, as all selectors may",
            "PID");
    several("--comm", o.scan.comms, "Only processes whose name matches a shell pattern", "GLOB");
    several("--exe", o.scan.exes,
            "Only processes whose executable matches, by its path or the last part of it", "GLOB");
    several("--user", o.scan.users, "Only processes of this user", "NAME|UID");
    several("--cgroup", o.scan.cgroups, "Only processes in this cgroup and those below it", "PATH");
    several("--children-of", o.scan.children_of,
            "Only the descendants of this process, without itself", "PID");
    command
        .add_option("--min-rss", o.scan.min_rss, "Only processes with at least this much in memory")
        ->type_name("SIZE");
}

void add_cost(CLI::App& command, Options& o) {
    add_jobs(command, o, "Threads that read; 0: one");
    command
        .add_option("--cpu", o.scan.cpu,
                    "Sleep between pieces of work to take no more than this share of one core")
        ->type_name("PERCENT")
        ->check(CLI::Range(0.1, 6400.0));
    command
        .add_option("--max-time", o.scan.max_time,
                    "End a scan after this time: each process has a share of it by its size and is "
                    "cut off behind that")
        ->type_name("TIME");
    command
        .add_option(
            "--max-process-bytes", o.scan.max_process_bytes,
            "Of processes with more than this in memory, look at a sample of about this size")
        ->type_name("SIZE");
    command.add_option("--interval", o.scan.interval, "Scan again and again, a scan every TIME")
        ->type_name("TIME");
    command.add_option("--count", o.scan.count, "So many scans; default: until interrupted")
        ->type_name("N")
        ->check(CLI::PositiveNumber)
        ->needs("--interval");
}

void add_scan(CLI::App& app, Options& o) {
    auto& command =
        *app.add_subcommand("scan", "Show what many processes have, one record for each");
    add_selectors(command, o);
    command
        .add_option("--depth", o.scan.depth,
                    "How closely to look: totals (smaps_rollup), pages (every page), content "
                    "(zero-filled pages too)")
        ->check(choices({"totals", "pages", "content"}))
        ->capture_default_str();
    add_zero(command, o.scan.zero);
    add_where(command, o,
              "Only records for which EXPR holds, such as 'zero_filled_bytes > 64M or "
              "empty_tables > 1000'");
    command
        .add_option("--per", o.scan.per,
                    "A record for each process (the default), mapping or range, or for all "
                    "processes of a cgroup or a name; openmetrics: comm")
        ->check(choices({"process", "mapping", "range", "cgroup", "comm"}));
    command
        .add_option("--sort", o.scan.sort,
                    "Largest first by this field; -KEY: smallest first. Table: rss_bytes")
        ->type_name("KEY");
    command.add_option("--top", o.scan.top, "Only the first N records; 0: all. Table: 20")
        ->type_name("N");
    add_format(command, o, {"table", "json", "ndjson", "csv", "openmetrics", "sqlite"},
               "Output format; sqlite appends to the file of -o");
    add_unit(command, o);
    add_cost(command, o);
    add_style(command, o);
    add_file_cache(command, o);
    add_lens(command, o);
    add_common(command, o);
}

void add_record(CLI::App& app, Options& o) {
    auto& command = *app.add_subcommand("record", "Keep a picture that inspect reads later");
    command.add_option("TARGET", o.targets, "Process ids or 'self'")->type_name("PID|self");
    add_pid(command, o);
    command.add_flag("--text", o.text, "Write plain text however large the recording gets");
    add_reading(command, o);
    add_common(command, o);
    command.get_option("--output")->required();
}

void add_diff(CLI::App& app, Options& o) {
    auto& command = *app.add_subcommand("diff", "Show what changed between two pictures");
    command
        .add_option("TARGET", o.targets,
                    "The picture before, a recording, and the one after: a recording, a process "
                    "id or 'self'; or scans of a history, FILE@N, N below 0: from the newest")
        ->type_name("RECORDING|PID|self|FILE");
    command.add_flag("--mappings", o.mappings, "List every mapping that changed");
    command.add_flag("--ranges", o.ranges, "List every range of pages that changed");
    add_where(command, o,
              "Only pages (of scans: records) for which EXPR holds in one picture or both");
    add_format(command, o);
    add_unit(command, o);
    add_top(command, o, "Changes, mappings and processes in the tables, largest first");
    add_lens(command, o, "How to look at a process; see inspect");
    add_jobs(command, o);
    add_style(command, o);
    add_common(command, o);
}

void add_doctor(CLI::App& app, Options& o) {
    auto& command = *app.add_subcommand(
        "doctor", "Show what this kernel and these privileges allow, and how to get more");
    add_format(command, o, {"table", "json"});
    add_style(command, o);
    add_common(command, o);
}

} // namespace

void build_app(CLI::App& app, Options& options) {
    app.name("pagesift");
    app.description("Shows what every page of a Linux process really is.");
    app.footer("Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 answered in part, 130 "
               "interrupted.\nStart with: pagesift doctor");
    app.add_flag("-V,--version", options.version, "Print the version and how it was built");
    app.require_subcommand(0, 1);
    add_inspect(app, options);
    add_scan(app, options);
    add_record(app, options);
    add_diff(app, options);
    add_doctor(app, options);
}

} // namespace pagesift::cli
