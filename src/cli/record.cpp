// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

/// Passes a source through and writes down everything that it says. For one thread: blocks are
/// written in the order in which they are asked for.
class RecordedSource final : public Source {
public:
    RecordedSource(Source& source, snapshot::RecordingWriter& writer)
        : source_(source), writer_(writer) {}

    const HostFacts& host() const override { return source_.host(); }

    ProcessText process() override {
        if (!process_) process_ = source_.process();
        return *process_;
    }

    std::vector<Mapping> mappings(const Want& want) override {
        mappings_ = source_.mappings(want);
        writer_.begin(process(), mappings_, want);
        return mappings_;
    }

    void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                    PageBlock& block) override {
        source_.read_block(mapping, wanted, want, block);
        while (index_ < mappings_.size() && mappings_[index_].range.end <= wanted.start) ++index_;
        if (!block.range.empty()) writer_.block(index_, block);
    }

    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override {
        auto owned = source_.locate_tables(ranges);
        writer_.tables(ranges, owned);
        return owned;
    }

    std::vector<Gap> gaps() const override { return said_ = source_.gaps(); }
    /// What gaps() said: the process may end before it is asked again.
    const std::vector<Gap>& last_gaps() const { return said_; }

private:
    Source& source_;
    snapshot::RecordingWriter& writer_;
    std::optional<ProcessText> process_;
    std::vector<Mapping> mappings_;
    std::size_t index_ = 0;
    mutable std::vector<Gap> said_;
};

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
        RecordedSource recorded{*source, writer};
        const Census census = pagesift::look(recorded, look);
        for (const Gap& gap : census.gaps) {
            if (!gap.incomplete) continue;
            outcome.partial = true;
            messages.warn(fmt::format("pid {}", census.process.pid),
                          gap.source + ": " + gap.reason);
        }
        writer.end(recorded.last_gaps());
        ++outcome.answered;
        outcome.interrupted = outcome.interrupted || census.interrupted;
    }
    writer.finish();
    output.close();
    return outcome.code();
}

} // namespace pagesift::cli
