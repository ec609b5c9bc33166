// SPDX-License-Identifier: MIT
#include "cli/diff_history.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

using Sources = std::vector<std::unique_ptr<Source>>;

Sources load(const std::string& path) {
    return snapshot::load_recording(read_whole_file(path, "pagesift record makes a recording"),
                                    path);
}

std::vector<ProcessText> texts_of(const Sources& sources) {
    std::vector<ProcessText> texts;
    for (const auto& source : sources) texts.push_back(source->process());
    return texts;
}

class Comparison {
public:
    Comparison(const Options& options, const Environment& environment, const Messages& messages)
        : options_(options),
          environment_(environment),
          messages_(messages),
          targets_(parse_targets(options, environment)) {
        if (targets_.size() != 2)
            throw Error{ErrorKind::usage, "diff", 0, "pagesift diff --help shows how to call it",
                        "takes two pictures, or a history"};
        if (targets_[0].pid)
            throw Error{ErrorKind::usage, escape_text(targets_[0].text), 0,
                        "pagesift record -o FILE --zero all PID, and give FILE first",
                        "only the second picture can be a process"};
        diff_.jobs = jobs(options, environment);
        diff_.interrupted = environment.interrupted;
        if (!options.where.empty()) diff_.where = Filter::parse(options.where);
    }

    Exit run() {
        const Sources before = load(targets_[0].text);
        Sources after = open_after();
        const auto old_texts = texts_of(before), new_texts = texts_of(after);
        const Pairing pairing = pair_processes(old_texts, new_texts);
        Output output{options_.output, *environment_.out};
        const auto sink =
            report::make_diff_sink(output.stream(), report_options(options_, environment_),
                                   {targets_[0].text, targets_[1].text});
        diff_.on_begin = sink.begin;
        if (options_.ranges) diff_.on_range = sink.range;
        for (const ProcessPair& pair : pairing.pairs) {
            try {
                compare_pair(*before[pair.before], *after[pair.after], pair.match, sink);
            } catch (const Error& error) {
                // A result that cannot be written ends everything.
                if (error.kind() == ErrorKind::failed) throw;
                messages_.error(error);
                ++outcome_.failed;
            }
            outcome_.interrupted = environment_.interrupted && environment_.interrupted();
            if (outcome_.interrupted) break;
        }
        // Of a live process only itself was asked for.
        if (!targets_[1].pid || pairing.pairs.empty())
            for (const std::size_t i : pairing.only_before)
                sink.only(old_texts[i], Picture::before);
        for (const std::size_t j : pairing.only_after) sink.only(new_texts[j], Picture::after);
        sink.finish();
        output.close();
        if (pairing.pairs.empty())
            messages_.error(Error{ErrorKind::gone, "pictures", 0,
                                  "processes are paired by pid and start time, or by pid, name and "
                                  "program",
                                  "no process is in both"});
        return outcome_.code();
    }

private:
    Sources open_after() {
        const Target& target = targets_[1];
        if (!target.pid) return load(target.text);
        const auto open = open_options(options_);
        machine_ = os::open_machine(open);
        Sources sources;
        sources.push_back(os::open_process(*target.pid, machine_, open));
        return sources;
    }

    void compare_pair(Source& before, Source& after, Match match, const report::DiffSink& sink) {
        // A process is looked at as the recording was made, so that the two can be compared.
        diff_.want_before = snapshot::recorded_want(before).value_or(Want{});
        diff_.want_after = snapshot::recorded_want(after).value_or(diff_.want_before);
        diff_.match = match;
        const ProcessDiff diff = compare(before, after, diff_);
        const std::string subject = fmt::format("pid {}", diff.before.process.pid);
        for (const Census* census : {&diff.before, &diff.after})
            for (const Gap& gap : census->gaps) {
                if (!gap.incomplete) continue;
                outcome_.partial = true;
                messages_.warn(subject, fmt::format("{} ({}): {}", gap.source,
                                                    census == &diff.before ? "before" : "after",
                                                    gap.reason));
            }
        sink.end(diff);
        ++outcome_.answered;
    }

    const Options& options_;
    const Environment& environment_;
    const Messages& messages_;
    std::vector<Target> targets_;
    DiffOptions diff_;
    Outcome outcome_;
    os::Machine machine_; ///< only where the second picture is a process
};

} // namespace

Exit run_diff(const Options& options, const Environment& environment, const Messages& messages) {
    std::vector<HistoryTarget> histories;
    for (const std::string& target : options.targets)
        if (auto history = find_history(target)) histories.push_back(std::move(*history));
    const std::size_t given = options.targets.size();
    if (!histories.empty() && histories.size() == given && given <= 2)
        return diff_histories(options, environment, histories);
    if (!histories.empty() && given == 2)
        throw Error{ErrorKind::usage, "diff", 0, "give two scans of histories, or two recordings",
                    "cannot compare a scan with something else"};
    return Comparison{options, environment, messages}.run();
}

} // namespace pagesift::cli
