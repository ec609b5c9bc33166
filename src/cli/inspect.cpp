// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

class Inspection {
public:
    Inspection(const Options& options, const Environment& environment, const Messages& messages)
        : options_(options),
          environment_(environment),
          messages_(messages),
          output_(options.output, *environment.out),
          report_(report_options(options, environment)),
          sink_(report::make_sink(output_.stream(), report_)),
          open_(open_options(options)) {
        look_.want = parse_want(options);
        look_.jobs = jobs(options, environment);
        look_.interrupted = environment.interrupted;
        for (const auto& text : options.addresses)
            look_.only.push_back(parse_address_range(text, "--address"));
        if (!options.where.empty()) look_.where = Filter::parse(options.where);
        if (look_.where.needs_contents() && look_.want.zero == ZeroTest::off)
            throw Error{ErrorKind::usage, "--where", 0, "add --zero all",
                        "zero-filled and ksm-zero are known only where contents are read"};
        look_.on_mappings = [this](const ProcessText& process, std::span<const Mapping> mappings) {
            sink_.begin(process, mappings);
        };
        if (options.ranges || options.map)
            look_.on_run = [this](const Run& run) { sink_.run(run); };
        if (options.pages) look_.on_page = [this](const Page& page) { sink_.page(page); };
    }

    Exit run() {
        const auto targets = parse_targets(options_, environment_);
        // Before the first answer: a lens that cannot be had is no fault of a target.
        if (std::any_of(targets.begin(), targets.end(), [](const Target& t) { return t.pid; }))
            machine_ = os::open_machine(open_);
        for (const Target& target : targets) {
            try {
                inspect(target);
            } catch (const Error& error) {
                // A result that cannot be written ends everything; a target that cannot be read
                // only itself.
                if (error.kind() == ErrorKind::failed) throw;
                messages_.error(error);
                ++outcome_.failed;
            }
            if (environment_.interrupted && environment_.interrupted()) {
                outcome_.interrupted = true;
                break;
            }
        }
        sink_.finish();
        output_.close();
        return outcome_.code();
    }

private:
    void inspect(const Target& target) {
        if (!target.pid) {
            const std::string bytes =
                read_whole_file(target.text, "a target is a pid, 'self' or a recording");
            for (const auto& source : snapshot::load_recording(bytes, target.text))
                inspect(*source, target.text);
            return;
        }
        const auto source = os::open_process(*target.pid, machine_, open_);
        inspect(*source, fmt::format("pid {}", *target.pid));
    }

    void inspect(Source& source, const std::string& subject) {
        LookOptions look = look_;
        const auto page = [&](std::uint64_t bytes) {
            return bytes & ~(source.host().page_size - 1);
        };
        for (AddressRange& range : look.only) {
            range.start = Address{page(range.start.value)};
            range.end = Address{page(range.end.value + source.host().page_size - 1)};
        }
        const Census census = pagesift::look(source, look);
        for (const Gap& gap : census.gaps) {
            if (!gap.incomplete) continue;
            outcome_.partial = true;
            messages_.warn(subject, gap.source + ": " + gap.reason);
        }
        sink_.end(census);
        ++outcome_.answered;
    }

    const Options& options_;
    const Environment& environment_;
    const Messages& messages_;
    Output output_;
    report::ReportOptions report_;
    report::Sink sink_;
    os::OpenOptions open_;
    LookOptions look_;
    Outcome outcome_;
    os::Machine machine_; ///< only where a target is a process
};

} // namespace

Exit run_inspect(const Options& options, const Environment& environment, const Messages& messages) {
    return Inspection{options, environment, messages}.run();
}

} // namespace pagesift::cli
