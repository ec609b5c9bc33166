// SPDX-License-Identifier: MIT
#include "cli/cold.hpp"

#include "cli/cold_watch.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

std::vector<std::uint32_t> pids_of(const Options& options, const Environment& environment) {
    std::vector<std::uint32_t> pids;
    for (const Target& target : parse_targets(options, environment)) {
        if (!target.pid)
            throw Error{ErrorKind::usage, escape_text(target.text), 0,
                        "pagesift diff compares recordings",
                        "not a process: how long pages are idle cannot be told of a recording"};
        if (std::find(pids.begin(), pids.end(), *target.pid) == pids.end())
            pids.push_back(*target.pid);
    }
    return pids;
}

MeasureOptions measure_options(const Options& options, const Environment& environment,
                               const Messages& messages) {
    MeasureOptions measure;
    measure.window = parse_duration(options.cold.window, "--window");
    if (!options.cold.interval.empty())
        measure.interval = parse_duration(options.cold.interval, "--interval");
    measure.source = options.cold.source;
    measure.passive = options.cold.passive;
    measure.jobs = jobs(options, environment);
    for (const auto& text : options.addresses)
        measure.only.push_back(parse_address_range(text, "--address"));
    if (!options.where.empty()) measure.where = Filter::parse(options.where);
    measure.open = open_options(options);
    measure.messages = &messages;
    measure.quiet = options.quiet;
    return measure;
}

} // namespace

std::vector<cold::Ages> measure(std::span<const std::uint32_t> pids, const os::Machine& machine,
                                const MeasureOptions& options, const Environment& environment) {
    ColdWatch watch{pids, machine, options, environment};
    watch.run();
    std::vector<cold::Ages> all;
    watch.finish([&](cold::Watch& one) { all.push_back(one.finish()); });
    return all;
}

Exit run_cold(const Options& options, const Environment& environment, const Messages& messages) {
    const auto pids = pids_of(options, environment);
    const MeasureOptions measure = measure_options(options, environment, messages);
    const os::Machine machine = os::open_machine(measure.open);
    Output output{options.output, *environment.out};
    const auto sink = report::make_cold_sink(output.stream(), report_options(options, environment));
    ColdWatch watch{pids, machine, measure, environment};
    watch.run();
    Outcome outcome;
    watch.finish([&](cold::Watch& one) {
        const cold::Ages* begun = nullptr;
        const cold::Ages ages = one.finish(
            [&](const cold::Ages& with_mappings) {
                begun = &with_mappings;
                sink.begin(with_mappings);
            },
            [&](const cold::Range& range) { sink.range(*begun, range); });
        for (const Gap& gap : ages.gaps) {
            if (!gap.incomplete) continue;
            outcome.partial = true;
            messages.warn(fmt::format("pid {}", ages.identity.pid), gap.source + ": " + gap.reason);
        }
        sink.end(ages);
        ++outcome.answered;
    });
    sink.finish();
    output.close();
    outcome.failed = watch.failed();
    outcome.interrupted = watch.interrupted();
    return outcome.code();
}

} // namespace pagesift::cli
