// SPDX-License-Identifier: MIT
#include "cli/advise.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>

namespace pagesift::cli {
namespace {

using advice::Action;

constexpr std::uint64_t most_batch_bytes = 64 << 20;
constexpr std::uint64_t most_inside_batch_bytes = 1 << 30;
constexpr std::uint64_t most_table_batch_bytes = std::uint64_t{1} << 40; // of address space
constexpr std::chrono::milliseconds psi_interval{500};

std::optional<std::uint64_t> size_of(const std::string& text, const char* option) {
    if (text.empty()) return {};
    const auto size = parse_size(text, option);
    if (size == 0) throw Error{ErrorKind::usage, option, 0, "", "0 would do nothing"};
    return size;
}

void add_request(AdvisePlan& plan, const Options& options) {
    const AdviseArguments& given = options.advise;
    plan.request.min_run_bytes = size_of(given.min_run, "--min-run").value_or(0);
    plan.request.max_bytes = size_of(given.max_bytes, "--max-bytes");
    plan.rate_bytes = size_of(given.rate, "--rate");
    plan.request.force_fill = given.force_fill;
    plan.psi_percent = given.psi;
    plan.retries = given.retry;
    plan.max_stop = parse_duration(given.max_stop, "--max-stop");
    if (plan.max_stop <= Nanoseconds{0} || plan.max_stop > std::chrono::seconds{60})
        throw Error{ErrorKind::usage, "--max-stop", 0, "", "must be more than 0 and at most 60s"};
}

void add_look(AdvisePlan& plan, const Options& options, const Environment& environment) {
    // What is not mapped matters only where it is to be mapped again.
    plan.look.want.cache = plan.action == Action::willneed || plan.action == Action::collapse;
    if (plan.action == Action::zero_drop || plan.action == Action::merge)
        plan.look.want.zero = ZeroTest::all;
    plan.look.jobs = jobs(options, environment);
    plan.look.interrupted = environment.interrupted;
    for (const auto& text : options.addresses)
        plan.look.only.push_back(parse_address_range(text, "--address"));
    if (!options.where.empty()) plan.look.where = Filter::parse(options.where);
    if (plan.look.where.needs_contents()) plan.look.want.zero = ZeroTest::all;
}

void check_kept_plan(const Options& options) {
    const AdviseArguments& given = options.advise;
    const bool chooses = !options.targets.empty() || !options.pids.empty() ||
                         !given.action.empty() || has_selectors(options) ||
                         !options.where.empty() || !options.addresses.empty() ||
                         !given.cold.empty() || !given.min_run.empty() || !given.max_bytes.empty();
    if (chooses)
        throw Error{ErrorKind::usage, "--plan", 0, "",
                    "the plan says what to do to whom; nothing else may choose"};
}

} // namespace

AdvisePlan make_advise_plan(const Options& options, const Environment& environment) {
    AdvisePlan plan;
    plan.open = open_options(options);
    plan.apply = options.advise.apply;
    plan.protect = options.advise.force ? os::Protect::kernel_only : os::Protect::all;
    plan.action = advice::find_action(options.advise.action);
    add_request(plan, options);
    if (!options.advise.plan.empty()) {
        check_kept_plan(options);
        plan.look.jobs = jobs(options, environment);
        return plan;
    }
    if (!plan.action)
        throw Error{ErrorKind::usage, "advise", 0, "pagesift advise pageout PID, for instance",
                    "name an action: pageout, cold, willneed, collapse, pt-reclaim, zero-drop, "
                    "merge or unmerge"};
    add_look(plan, options, environment);
    if (plan.action == Action::pt_reclaim && !options.where.empty())
        throw Error{ErrorKind::usage, "--where", 0, "--address chooses among them",
                    "pt-reclaim is about page tables, which have no pages to choose by"};
    const bool ages = plan.action == Action::pageout || plan.action == Action::cold;
    if (!options.advise.cold.empty() && !ages)
        throw Error{ErrorKind::usage, "--cold", 0, "", "goes with pageout and cold only"};
    if (has_selectors(options)) {
        plan.selection = parse_selection(options, environment, plan.open);
        for (const auto& text : options.targets) {
            const auto pid = text == "self" ? std::optional{environment.own_pid} : parse_pid(text);
            if (!pid)
                throw Error{ErrorKind::usage, escape_text(text), 0, "",
                            "selectors choose among processes only"};
            plan.selection->pids.push_back(*pid);
        }
    } else {
        plan.targets = parse_targets(options, environment);
    }
    if (plan.apply)
        for (const Target& target : plan.targets)
            if (!target.pid)
                throw Error{ErrorKind::usage, "--apply", 0, "give a process id",
                            "a recording cannot be acted on"};
    return plan;
}

advice::Situation read_situation(const HostFacts& host, std::uint32_t pid,
                                 const os::OpenOptions& open) {
    advice::Situation situation;
    situation.host = host;
    situation.host.swaps = os::read_swaps(open);
    situation = recorded_situation(situation.host);
    situation.available_bytes = os::read_available_bytes(open);
    situation.equal_bytes = [pid, open](AddressRange range) {
        return os::read_equal_bytes(pid, range, open);
    };
    situation.owns_file = [pid, open](const Mapping& mapping) {
        const auto owns = os::owns_file(pid, mapping, open);
        return owns ? (*owns ? Tri::yes : Tri::no) : Tri::unknown;
    };
    return situation;
}

advice::Situation recorded_situation(const HostFacts& host) {
    advice::Situation situation;
    situation.host = host;
    std::size_t compressed = 0;
    for (const auto& area : host.swaps) {
        situation.swap_present = true;
        situation.swap_free_bytes += area.size_bytes - std::min(area.used_bytes, area.size_bytes);
        compressed += area.name.starts_with("/dev/zram");
    }
    if (situation.swap_present && compressed == host.swaps.size())
        situation.swap_frees = Tri::yes;
    else if (compressed == 0)
        situation.swap_frees = Tri::no;
    return situation;
}

void PromisedSwap::limit(advice::Situation& situation,
                         const std::optional<os::SwapAllowance>& allowance) const {
    std::uint64_t& free = situation.swap_free_bytes;
    free -= std::min(free, bytes_);
    if (!allowance) return;
    const auto promised = of_cgroup_.find(allowance->cgroup);
    const std::uint64_t taken = promised == of_cgroup_.end() ? 0 : promised->second;
    free = std::min(free, allowance->bytes - std::min(allowance->bytes, taken));
}

void PromisedSwap::add(const advice::Plan& plan,
                       const std::optional<os::SwapAllowance>& allowance) {
    const std::uint64_t bytes = advice::swap_bytes(plan);
    bytes_ += bytes;
    if (allowance) of_cgroup_[allowance->cgroup] += bytes;
}

std::optional<Error> why_not(Actuator& actuator, Action action, std::uint32_t pid) {
    const auto& info = advice::info_of(action);
    const int error = actuator.advise(info.number, {}).error;
    const std::string subject = fmt::format("pid {}", pid);
    switch (error) {
    case 0: return {};
    case EPERM:
        return Error{
            ErrorKind::denied, subject, error,
            "run as root, or with the capability: setpriv --inh-caps +sys_nice --ambient-caps "
            "+sys_nice, or AmbientCapabilities in a unit; a user namespace or a container has "
            "its own, which do not count",
            fmt::format("{} needs CAP_SYS_NICE in the initial user namespace, also on own "
                        "processes",
                        info.kernel)};
    case EACCES:
        return Error{ErrorKind::denied, subject, error,
                     "needs the target's uid, or CAP_SYS_PTRACE"};
    case EINVAL:
    case ENOSYS:
        return Error{ErrorKind::unsupported, subject, error, "pagesift doctor shows what it knows",
                     fmt::format("this kernel does not take {} for another process", info.kernel)};
    case ESRCH: return Error{ErrorKind::gone, subject, 0, "", "the process has ended"};
    default: return Error{ErrorKind::failed, subject, error};
    }
}

std::uint64_t Brake::batch_bytes(advice::Action action) const {
    // Their calls are cut by time; between them mappings are read again, with flags.
    if (advice::info_of(action).inside && !plan_.rate_bytes)
        return action == Action::pt_reclaim ? most_table_batch_bytes : most_inside_batch_bytes;
    if (!plan_.rate_bytes) return most_batch_bytes;
    return std::clamp<std::uint64_t>(*plan_.rate_bytes / 4, 1 << 16, most_batch_bytes);
}

void Brake::wait(std::uint32_t pid, std::uint64_t bytes) {
    const auto begin = Clock::now();
    const auto interrupted = [&] { return environment_.interrupted && environment_.interrupted(); };
    while (plan_.psi_percent && !interrupted()) {
        const auto now = os::read_pressure(pid, plan_.open);
        if (std::max(now.memory, now.io) <= *plan_.psi_percent) break;
        sleep_until(Clock::now() + psi_interval, environment_);
    }
    if (plan_.rate_bytes) {
        if (next_) sleep_until(*next_, environment_);
        const std::chrono::duration<double> share{static_cast<double>(bytes) /
                                                  static_cast<double>(*plan_.rate_bytes)};
        next_ = std::max(next_.value_or(begin), Clock::now() - std::chrono::milliseconds{250}) +
                std::chrono::duration_cast<Nanoseconds>(share);
    }
    waited_ += std::chrono::duration<double>(Clock::now() - begin).count();
}

} // namespace pagesift::cli
