// SPDX-License-Identifier: MIT
#include "cli/advise.hpp"
#include "pagesift/remote.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace pagesift::cli {
namespace {

using advice::Plan;

/// Above this, smaps takes much longer than everything else: the kernel goes through all pages.
constexpr std::uint64_t most_bytes_for_smaps = 256 << 20;

/// What a look says that a plan has no use for.
bool is_beside_the_point(const Gap& gap) {
    // Where the page map hides entries there is nothing to be done.
    const bool hidden = gap.source == "pagemap" && gap.range && !gap.incomplete;
    return hidden || gap.source == "contents" || gap.source == "page tables" ||
           gap.source == "where";
}

class Advising {
public:
    Advising(const Options& options, const Environment& environment, const Messages& messages)
        : options_(options),
          environment_(environment),
          messages_(messages),
          plan_(make_advise_plan(options, environment)),
          brake_(plan_, environment),
          idle_(options),
          boot_id_(os::read_boot_id(plan_.open)),
          output_(options.output, *environment.out),
          sink_(report::make_advise_sink(output_.stream(), report_options(options, environment))) {}

    Exit run() {
        // Before anything is done: where pressure is not measured, nothing may go on as if it were.
        if (plan_.psi_percent && plan_.apply) os::read_pressure(environment_.own_pid, plan_.open);
        if (!options_.advise.plan.empty())
            run_kept();
        else
            run_targets();
        sink_.finish();
        output_.close();
        if (outcome_.answered == 0 && outcome_.failed == 0 && !outcome_.interrupted)
            return outcome_.partial ? Exit::partial : Exit::complete;
        return outcome_.code();
    }

private:
    bool interrupted() {
        if (environment_.interrupted && environment_.interrupted()) outcome_.interrupted = true;
        return outcome_.interrupted;
    }

    /// One target fails for itself; a result that cannot be written ends everything.
    template <class Work> void attempt(Work&& work) {
        if (interrupted()) return;
        try {
            work();
        } catch (const Error& error) {
            if (error.kind() == ErrorKind::failed || error.kind() == ErrorKind::usage) throw;
            messages_.error(error);
            ++outcome_.failed;
        }
    }

    // --- Who ---

    void run_targets() {
        std::vector<Target> targets = plan_.targets;
        if (plan_.selection) targets = select();
        if (std::any_of(targets.begin(), targets.end(), [](const Target& t) { return t.pid; }))
            machine_ = os::open_machine(plan_.open);
        if (idle_.asked())
            idle_.measure(allowed(targets), machine_, plan_, environment_, messages_);
        for (const Target& target : targets)
            attempt([&] {
                if (target.pid)
                    advise_process(*target.pid);
                else
                    plan_recording(target.text);
            });
    }

    /// Those that may be acted on; why others may not is said when their turn comes.
    std::vector<std::uint32_t> allowed(const std::vector<Target>& targets) const {
        std::vector<std::uint32_t> pids;
        for (const Target& target : targets) {
            if (!target.pid) continue;
            try {
                os::open_actuator(*target.pid, 0, plan_.protect, plan_.open);
                pids.push_back(*target.pid);
            } catch (const Error&) { // NOLINT(bugprone-empty-catch)
            }
        }
        return pids;
    }

    std::vector<Target> select() {
        auto everyone = list_everyone(
            plan_.open, {!plan_.selection->exes.empty(), !plan_.selection->cgroups.empty()});
        std::vector<Target> targets;
        for (const auto& identity : scan::select(std::move(everyone), *plan_.selection)) {
            const auto text = fmt::format("{}", identity.pid);
            try {
                // Whoever is protected was not meant by a selector.
                os::open_actuator(identity.pid, identity.start_time, plan_.protect, plan_.open);
                targets.push_back({text, identity.pid});
            } catch (const Error& error) {
                if (error.kind() == ErrorKind::gone) continue;
                messages_.warn("left out", error.what());
            }
        }
        return targets;
    }

    void plan_recording(const std::string& file) {
        const auto bytes = read_whole_file(file, "a target is a pid, 'self' or a recording");
        for (const auto& source : snapshot::load_recording(bytes, file))
            finish(make_plan(*source, recorded_situation(source->host()), ""), {});
    }

    // --- One process ---

    /// Reads smaps where VmFlags are worth the time.
    std::unique_ptr<Source> open_source(std::uint32_t pid, bool& with_flags) {
        auto open = plan_.open;
        auto source = os::open_process(pid, machine_, open);
        const auto status = procfs::parse_status(source->process().status);
        with_flags = open.smaps == os::OpenOptions::Smaps::on;
        if (open.smaps != os::OpenOptions::Smaps::automatic) return source;
        const auto bytes = status.vm_rss_bytes.value_or(0) + status.vm_swap_bytes.value_or(0);
        // Whoever acts takes longer than that, and is to know all that there is to be known.
        const bool by_flags = plan_.action && is_inside(*plan_.action);
        if (bytes > most_bytes_for_smaps && !plan_.apply && !by_flags) return source;
        with_flags = true;
        open.smaps = os::OpenOptions::Smaps::on;
        return os::open_process(pid, machine_, open);
    }

    static void require_same(Actuator& actuator, std::uint32_t pid) {
        if (!actuator.is_same())
            throw Error{ErrorKind::gone, fmt::format("pid {}", pid), 0, "",
                        "the process has ended"};
    }

    static bool is_inside(advice::Action action) { return advice::info_of(action).inside; }

    /// Why not, where it cannot be done. Nothing happens to the process.
    std::optional<Error> open_inside(std::uint32_t pid, std::uint64_t start_time,
                                     std::unique_ptr<InsideActuator>& inside) const {
        try {
            inside = os::open_inside(pid, start_time, machine_.host);
            return {};
        } catch (const Error& error) {
            return error;
        }
    }

    void advise_process(std::uint32_t pid) {
        // First of all, so that whoever is not to be acted on is not even looked at. Whoever still
        // is the same once the source is open is the one that this looks at.
        const auto actuator = os::open_actuator(pid, 0, plan_.protect, plan_.open);
        bool with_flags = false;
        const auto source = open_source(pid, with_flags);
        require_same(*actuator, pid);
        std::unique_ptr<InsideActuator> inside;
        auto refusal = is_inside(*plan_.action)
                           ? open_inside(pid, source->process().start_time(), inside)
                           : why_not(*actuator, *plan_.action, pid);
        if (refusal && plan_.apply) throw Error{*refusal};
        auto situation = read_situation(source->host(), pid, plan_.open);
        const auto allowance = os::read_swap_allowance(pid, plan_.open);
        promised_.limit(situation, allowance);
        Plan plan = make_plan(*source, situation, boot_id_);
        if (inside && !refusal)
            refusal = inside->why_not(advice::inside_request(plan, plan_.max_stop));
        if (refusal)
            plan.gaps.push_back(
                {inside || is_inside(plan.action) ? "remote call" : "process_madvise", std::nullopt,
                 refusal->what(), refusal->hint(), false});
        if (!with_flags)
            plan.gaps.push_back({"smaps", std::nullopt,
                                 "VmFlags were not read, so what is registered with userfaultfd, "
                                 "or wants no huge pages, is not told apart",
                                 "--smaps on", false});
        if (!plan_.apply) {
            promised_.add(plan, allowance);
            return finish(plan, {});
        }
        act(plan, situation, *actuator, inside.get());
    }

    Plan make_plan(Source& source, const advice::Situation& situation, const std::string& boot_id) {
        const auto process = source.process();
        const advice::Identity identity{process.pid, process.start_time(), boot_id};
        advice::Request request = plan_.request;
        request.action = *plan_.action;
        idle_.give(request, identity);
        LookOptions look = plan_.look;
        look.only = in_whole_pages(std::move(look.only), source.host().page_size);
        if (request.action == advice::Action::pt_reclaim) {
            // Whether a table is empty shows only in all of it.
            const auto only = std::exchange(look.only, {});
            const Census census = pagesift::look(source, look);
            return finish_plan(advice::plan_tables(request, situation, census, only), census,
                               identity);
        }
        advice::Planner planner{std::move(request), situation};
        look.on_mappings = [&](const ProcessText&, std::span<const Mapping> mappings) {
            planner.begin(mappings);
        };
        look.on_stretch = [&](const Stretch& stretch) { planner.add(stretch); };
        const Census census = pagesift::look(source, look);
        return finish_plan(planner.finish(), census, identity);
    }

    Plan finish_plan(Plan plan, const Census& census, const advice::Identity& identity) {
        plan.identity = identity;
        plan.comm = census.process.comm;
        plan.exe = census.process.exe;
        plan.lens = census.lens;
        plan.interrupted = census.interrupted;
        for (const Gap& gap : census.gaps) {
            if (gap.incomplete) {
                outcome_.partial = true;
                messages_.warn(fmt::format("pid {}", plan.identity.pid),
                               gap.source + ": " + gap.reason);
            }
            if (!is_beside_the_point(gap)) plan.gaps.push_back(gap);
        }
        return plan;
    }

    // --- A plan that was kept ---

    void run_kept() {
        const auto plans = advice::load_plans(
            read_whole_file(options_.advise.plan, "what advise --format json wrote"),
            options_.advise.plan);
        if (plan_.apply) machine_ = os::open_machine(plan_.open);
        for (const Plan& plan : plans)
            attempt([&] {
                if (plan_.apply)
                    act_as_kept(plan);
                else
                    finish(plan, {});
            });
    }

    void act_as_kept(Plan plan) {
        const std::uint32_t pid = plan.identity.pid;
        const auto subject = fmt::format("pid {}", pid);
        if (plan.identity.boot_id != boot_id_ || boot_id_.empty())
            throw Error{ErrorKind::gone, subject, 0, "make a new plan",
                        "the plan was made before this machine was started"};
        if (plan.identity.start_time == 0)
            throw Error{ErrorKind::bad_input, subject, 0, "make a new plan",
                        "the plan does not say when the process was started"};
        const auto actuator =
            os::open_actuator(pid, plan.identity.start_time, plan_.protect, plan_.open);
        std::unique_ptr<InsideActuator> inside;
        const auto refusal = is_inside(plan.action)
                                 ? open_inside(pid, plan.identity.start_time, inside)
                                 : why_not(*actuator, plan.action, pid);
        if (refusal) throw Error{*refusal};
        plan_.action = plan.action;
        bool with_flags = false;
        const auto source = open_source(pid, with_flags);
        require_same(*actuator, pid);
        if (plan.page_size != source->host().page_size ||
            plan.slot_bytes != source->host().slot_bytes())
            throw Error{ErrorKind::bad_input, subject, 0, "make a new plan",
                        "the plan is for another page size"};
        const auto now = source->mappings(plan_.look.want);
        for (Mapping& mapping : plan.mappings)
            if (const auto* found = advice::find_same(now, mapping, mapping.range))
                mapping.smaps = found->smaps;
        act(plan, read_situation(source->host(), pid, plan_.open), *actuator, inside.get());
    }

    // --- Acting ---

    void act(const Plan& plan, const advice::Situation& situation, Actuator& actuator,
             InsideActuator* inside) {
        if (interrupted()) return finish(plan, {});
        auto open = plan_.open;
        // What is done from inside must keep to flags, so they are read again before each batch.
        // For what is done from outside they only say what is worth it.
        if (inside != nullptr) open.smaps = os::OpenOptions::Smaps::on;
        const auto source = os::open_process(plan.identity.pid, machine_, open);
        require_same(actuator, plan.identity.pid);
        Progress progress{environment_.err_is_terminal && !options_.quiet ? environment_.err
                                                                          : nullptr,
                          1, plan.forecast.bytes};
        advice::ApplyOptions apply;
        apply.batch_bytes = brake_.batch_bytes(plan.action);
        apply.max_stop = plan_.max_stop;
        apply.retries = plan_.retries;
        apply.interrupted = environment_.interrupted;
        apply.before_batch = [&](std::uint64_t bytes) {
            progress.tick();
            brake_.wait(plan.identity.pid, bytes);
        };
        apply.after_batch = [&](std::uint64_t bytes) { progress.advance(bytes); };
        apply.pause = [&] {
            sleep_until(Clock::now() + std::chrono::milliseconds{20}, environment_);
        };
        const auto effect = inside != nullptr
                                ? advice::apply_inside(plan, *source, *inside, apply)
                                : advice::apply(plan, situation, *source, actuator, apply);
        finish(plan, &effect);
    }

    void finish(const Plan& plan, const advice::Effect* effect) {
        // The next process has what this one leaves.
        auto& left = plan_.request.max_bytes;
        if (left) *left -= std::min(*left, plan.forecast.bytes);
        outcome_.interrupted =
            outcome_.interrupted || plan.interrupted || (effect != nullptr && effect->interrupted);
        if (effect != nullptr) complain(plan, *effect);
        sink_.process(plan, effect);
        ++outcome_.answered;
    }

    void complain(const Plan& plan, const advice::Effect& effect) {
        const auto subject = fmt::format("pid {}", plan.identity.pid);
        if (effect.ended) {
            outcome_.partial = true;
            messages_.error(*effect.ended);
        }
        if (effect.stayed_bytes(advice::Reason::no_time) > 0) {
            outcome_.partial = true;
            messages_.warn(subject, "did not stand still soon enough for all of it; --max-stop");
        }
        for (const auto& one : effect.stayed) {
            if (one.reason != advice::Reason::refused || effect.ended) continue;
            outcome_.partial = true;
            messages_.warn(subject,
                           fmt::format("{} refused ({}){}{}", advice::info_of(plan.action).kernel,
                                       errno_name(one.error),
                                       advice::explain(plan.action, one.error).empty() ? "" : ": ",
                                       advice::explain(plan.action, one.error)));
            break;
        }
    }

    const Options& options_;
    const Environment& environment_;
    const Messages& messages_;
    AdvisePlan plan_;
    Brake brake_;
    IdleTimes idle_;
    std::string boot_id_;
    Output output_;
    report::AdviseSink sink_;
    os::Machine machine_;
    Outcome outcome_;
    PromisedSwap promised_;
};

} // namespace

Exit run_advise(const Options& options, const Environment& environment, const Messages& messages) {
    return Advising{options, environment, messages}.run();
}

} // namespace pagesift::cli
