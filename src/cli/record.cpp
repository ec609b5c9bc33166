// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

/// Below this, a recording stays text: it is small then, and people can read it.
constexpr std::uint64_t text_bytes = 16 << 20;

snapshot::Encoding choose_encoding(bool text, std::span<const std::unique_ptr<Source>> sources) {
    std::uint64_t resident = 0;
    for (const auto& source : sources) {
        const auto status = procfs::parse_status(source->process().status);
        resident += status.vm_rss_bytes.value_or(0) + status.vm_swap_bytes.value_or(0);
    }
    return text || resident < text_bytes ? snapshot::Encoding::text : snapshot::Encoding::zstd;
}

} // namespace

Exit run_record(const Options& options, const Environment& environment, const Messages& messages) {
    const auto open = open_options(options);
    const auto machine = os::open_machine(open);
    Outcome outcome;
    std::vector<std::unique_ptr<Source>> sources;
    for (const Target& target : parse_targets(options, environment)) {
        try {
            if (!target.pid) throw Error{ErrorKind::usage, target.text, 0, "", "not a process id"};
            sources.push_back(os::open_process(*target.pid, machine, open));
        } catch (const Error& error) {
            if (error.kind() == ErrorKind::usage) throw;
            messages.error(error);
            ++outcome.failed;
        }
    }
    if (sources.empty()) return outcome.code();
    Output output{options.output, *environment.out};
    snapshot::RecordingWriter writer{output.stream(), choose_encoding(options.text, sources),
                                     *machine.host};
    LookOptions look;
    look.want = parse_want(options);
    look.jobs = 1;
    look.interrupted = environment.interrupted;
    for (const auto& source : sources) {
        snapshot::Recorder recorder{*source, writer};
        const Census census = pagesift::look(recorder, look);
        for (const Gap& gap : census.gaps) {
            if (!gap.incomplete) continue;
            outcome.partial = true;
            messages.warn(fmt::format("pid {}", census.process.pid),
                          gap.source + ": " + gap.reason);
        }
        recorder.end();
        ++outcome.answered;
        outcome.interrupted = outcome.interrupted || census.interrupted;
    }
    writer.finish();
    output.close();
    return outcome.code();
}

} // namespace pagesift::cli
