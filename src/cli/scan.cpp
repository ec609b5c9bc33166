// SPDX-License-Identifier: MIT
#include "cli/scan.hpp"

#include <fmt/format.h>

namespace pagesift::cli {
namespace {

/// What came of one process.
struct Seen {
    enum class End { answered, ended, denied, failed, skipped } end = End::answered;
    bool partial = false, sampled = false;
    std::optional<Error> error;
    scan::Record record;
    std::optional<scan::Share> share; ///< none: its pages were not looked at
};

/// A scan, or one after another.
class Scans {
public:
    Scans(const Options& options, const Environment& environment, const Messages& messages)
        : options_(options),
          environment_(environment),
          messages_(messages),
          plan_(make_plan(options, environment)),
          output_(options, plan_, environment),
          machine_(os::open_machine(plan_.open)) {}

    Exit run() {
        const auto begin = Clock::now();
        for (std::uint64_t done = 1;; ++done) {
            run_one();
            if (done == plan_.count || outcome_.interrupted) break;
            // From the first one on, so that a scan's length does not add up; missed ones are left.
            const auto since = Clock::now() - begin;
            sleep_until(begin + (since / *plan_.interval + 1) * *plan_.interval, environment_);
            if (environment_.interrupted && environment_.interrupted()) {
                outcome_.interrupted = true;
                break;
            }
        }
        output_.finish();
        return exit_code();
    }

private:
    // --- One scan ---

    void run_one() {
        Budget budget{plan_, environment_};
        summary_ = new_summary();
        totals_ = scan::Sum{};
        groups_.clear();
        undecided_ = unreached_ = sampled_ = 0;
        // Metrics are chosen and added up by their sink.
        if (plan_.sort && !metrics()) ranking_.emplace(*plan_.sort, plan_.top);
        const auto chosen = choose();
        std::uint64_t bytes = 0;
        for (const auto& identity : chosen) bytes += identity.rss_bytes.value_or(0);
        budget.expect(chosen.size(), bytes);
        output_.begin(summary_);
        {
            Progress progress{progress_stream(), chosen.size(), bytes};
            budget_ = &budget;
            progress_ = &progress;
            look_at_all(chosen);
            progress_ = nullptr;
            budget_ = nullptr;
        }
        for (const auto& [name, sum] : groups_) emit(sum.record());
        if (ranking_) hand_on_ranked();
        end_summary(budget);
        output_.end(summary_);
    }

    scan::Summary new_summary() const {
        scan::Summary summary;
        summary.host_name = machine_.host->host_name;
        summary.release = machine_.host->release;
        summary.begin = std::chrono::system_clock::now();
        summary.depth = plan_.depth;
        summary.per = plan_.per;
        summary.lens = machine_.host->lens;
        summary.gaps = machine_.gaps;
        return summary;
    }

    std::vector<scan::Identity> choose() {
        auto everyone = list_everyone(plan_.open, plan_.list);
        const bool hidden = os::hides_processes(plan_.open);
        for (const std::uint32_t pid : plan_.selection.pids) {
            const auto has_pid = [&](const auto& identity) { return identity.pid == pid; };
            if (std::any_of(everyone.begin(), everyone.end(), has_pid)) continue;
            complain(fmt::format("pid {}", pid),
                     hidden ? "no process with memory of its own, or hidden (hidepid)"
                            : "no process with memory of its own");
            ++outcome_.failed;
        }
        // Those that were named are there, or were complained of.
        if (hidden && plan_.selection.pids.empty()) note_hidden();
        auto chosen = scan::select(std::move(everyone), plan_.selection);
        summary_.chosen = chosen.size();
        return chosen;
    }

    void note_hidden() {
        static constexpr auto reason =
            "/proc hides processes of other users (mount option hidepid), which are missing";
        summary_.gaps.push_back({"scan", std::nullopt, reason, "root", true});
        complain("scan", reason);
        outcome_.partial = true;
    }

    /// A bar would mix with records that go to the same terminal as they come.
    std::ostream* progress_stream() const {
        const bool mixed =
            environment_.out_is_terminal && options_.output.empty() && !ranking_ && !by_group();
        return environment_.err_is_terminal && !options_.quiet && !mixed ? environment_.err
                                                                         : nullptr;
    }

    void look_at_all(const std::vector<scan::Identity>& chosen) {
        // Parts are handed on as they are found, so there is one process at a time.
        const unsigned together = plan_.by_part() ? 1 : plan_.jobs;
        look_jobs_ = plan_.by_part() || chosen.size() < plan_.jobs ? plan_.jobs : 1;
        std::size_t i = 0;
        snapshot::in_order(
            together, chosen.size(),
            [&](std::size_t n) { return std::make_unique<Seen>(look_at(chosen[n])); },
            [&](std::unique_ptr<Seen>&& seen) { take(chosen[i++], std::move(*seen)); });
    }

    // --- One process; called on several threads ---

    Seen look_at(const scan::Identity& identity) {
        Seen seen;
        if (budget_->over()) {
            seen.end = Seen::End::skipped;
            return seen;
        }
        try {
            if (plan_.depth == scan::Depth::totals)
                sum_up(identity, seen);
            else
                look_at_pages(identity, seen);
        } catch (const Error& error) {
            // A result that cannot be written ends everything; parts are written from here.
            if (plan_.by_part() && error.kind() == ErrorKind::failed) throw;
            seen.end = end_of(identity, error);
            seen.error = error;
        }
        budget_->rest();
        return seen;
    }

    Seen::End end_of(const scan::Identity& identity, const Error& error) const {
        // What exits while it is looked at may seem to be many things: a kernel thread, forbidden.
        if (error.kind() == ErrorKind::gone || !may_be_there(identity)) return Seen::End::ended;
        return error.kind() == ErrorKind::denied ? Seen::End::denied : Seen::End::failed;
    }

    bool may_be_there(const scan::Identity& identity) const {
        try {
            return os::is_same_process(identity.pid, identity.start_time, plan_.open);
        } catch (const Error&) {
            return true;
        }
    }

    scan::Rollup read_rollup(const scan::Identity& identity) const {
        auto texts = os::read_rollup(identity.pid, identity.start_time, plan_.open);
        return {procfs::parse_size_fields(texts.smaps_rollup), procfs::parse_status(texts.status),
                std::move(texts.gaps)};
    }

    void sum_up(const scan::Identity& identity, Seen& seen) const {
        const auto begin = Clock::now();
        seen.record = make_record(identity, read_rollup(identity));
        seen.record.set("elapsed_seconds",
                        std::chrono::duration<double>(Clock::now() - begin).count());
    }

    void require_same(const scan::Identity& identity) const {
        if (!os::is_same_process(identity.pid, identity.start_time, plan_.open))
            throw Error{ErrorKind::gone, fmt::format("pid {}", identity.pid), 0, "",
                        "the process has ended"};
    }

    void look_at_pages(const scan::Identity& identity, Seen& seen) {
        const auto source = os::open_process(identity.pid, machine_, plan_.open);
        auto share = budget_->share(identity.rss_bytes.value_or(0));
        std::span<const Mapping> mappings;
        LookOptions look;
        look.want = plan_.want;
        look.jobs = look_jobs_;
        look.interrupted = [&] {
            progress_->tick();
            return budget_->stop(share);
        };
        // The page map and the mappings of the process that was chosen are at hand from here on,
        // and of no other: what has its number later is not looked at.
        look.on_mappings = [&](const ProcessText&, std::span<const Mapping> all) {
            require_same(identity);
            mappings = all;
        };
        if (plan_.per == scan::Per::range)
            look.on_run = [&](const Run& run) {
                emit(
                    make_record(identity, source->host(), mappings[run.mapping], run, plan_.depth));
            };
        const std::uint64_t one_in = sampled_one_in(identity);
        if (one_in > 1)
            look.choose = [&](std::span<const Mapping> all) {
                return scan::sample_blocks(all, source->host(), one_in,
                                           identity.pid ^ identity.start_time << 32);
            };
        Census census = pagesift::look(*source, look);
        if (one_in > 1 && !census.interrupted) scan::extrapolate(census);
        seen.partial = share.used_up || is_partial(census);
        // What is missing because the process has ended is nothing to complain of.
        if (seen.partial && !share.used_up) require_same(identity);
        seen.record = make_record(identity, census, plan_.depth);
        if (one_in > 1) mark_sampled(seen, one_in);
        if (plan_.rollup_too || one_in > 1) add_rollup(seen.record, read_rollup(identity));
        if (share.used_up) mark_cut_off(seen.record, census);
        seen.share = share_of(seen.record, census);
        if (plan_.per == scan::Per::mapping)
            for (const MappingCensus& mapping : census.mappings)
                emit(make_record(identity, census, mapping, plan_.depth));
    }

    /// Of how many blocks one is looked at, so that it is about --max-process-bytes.
    std::uint64_t sampled_one_in(const scan::Identity& identity) const {
        const std::uint64_t bytes = identity.rss_bytes.value_or(0);
        if (!plan_.max_process_bytes || bytes <= *plan_.max_process_bytes) return 1;
        return (bytes - 1) / std::max<std::uint64_t>(*plan_.max_process_bytes, 1) + 1;
    }

    static void mark_sampled(Seen& seen, std::uint64_t one_in) {
        seen.sampled = true;
        seen.record.gaps.push_back(
            {"scan", std::nullopt,
             fmt::format("larger than --max-process-bytes: of blocks of pages one in {} was looked "
                         "at, from which figures of single pages are estimated",
                         one_in),
             "a larger --max-process-bytes", false});
    }

    static bool is_partial(const Census& census) {
        return std::any_of(census.gaps.begin(), census.gaps.end(),
                           [](const Gap& gap) { return gap.incomplete; });
    }

    void mark_cut_off(scan::Record& record, const Census& census) const {
        std::uint64_t all = 0;
        for (const auto& entry : census.mappings) all += entry.mapping.range.size().value;
        const std::uint64_t seen = census.totals.pages() * census.host.page_size;
        record.set("complete", false);
        record.set("looked_share",
                   all == 0 ? 0.0 : static_cast<double>(seen) / static_cast<double>(all));
        record.gaps.push_back(
            {"scan", std::nullopt,
             fmt::format("cut off after {:.1f} s by {}", census.elapsed_seconds,
                         budget_->interrupted() ? "an interrupt" : "its share of --max-time"),
             budget_->interrupted() ? "" : "a longer --max-time", true});
    }

    // --- Results, in order; called on one thread ---

    void take(const scan::Identity& identity, Seen&& seen) {
        progress_->add(identity.rss_bytes.value_or(0));
        switch (seen.end) {
        case Seen::End::ended: ++summary_.ended; return;
        case Seen::End::skipped:
            ++summary_.skipped;
            ++unreached_;
            return;
        case Seen::End::denied:
            ++summary_.denied;
            ++denied_[identity.user.empty() && identity.uid ? fmt::format("{}", *identity.uid)
                                                            : identity.user];
            if (seen.error) denied_hint_ = seen.error->hint();
            return;
        case Seen::End::failed:
            ++summary_.skipped;
            complain(fmt::format("pid {} ({})", identity.pid, identity.comm), seen.error->what());
            ++outcome_.failed;
            return;
        case Seen::End::answered: break;
        }
        ++summary_.answered;
        summary_.partial += seen.partial;
        sampled_ += seen.sampled;
        add(totals_, seen);
        if (plan_.per == scan::Per::cgroup) add(groups_[identity.cgroup], seen);
        if (plan_.per == scan::Per::comm) add(groups_[identity.comm], seen);
        if (plan_.per == scan::Per::process) emit(std::move(seen.record));
    }

    static void add(scan::Sum& sum, const Seen& seen) {
        if (seen.share)
            sum.add(*seen.share);
        else
            sum.add(seen.record);
    }

    void emit(scan::Record record) {
        const Tri fits = plan_.where.matches(record);
        undecided_ += fits == Tri::unknown;
        if (fits != Tri::yes)
            ++summary_.left_out;
        else if (ranking_)
            ranking_->add(std::move(record));
        else
            output_.record(record);
    }

    void hand_on_ranked() {
        for (const auto& record : ranking_->take()) output_.record(record);
        summary_.left_out += ranking_->left_out();
    }

    void end_summary(const Budget& budget) {
        summary_.interrupted = budget.interrupted();
        summary_.totals = totals_.record();
        if (undecided_ > 0)
            summary_.gaps.push_back(
                {"where", std::nullopt,
                 fmt::format("{} could not be decided by --where and {} left out",
                             count_of(undecided_, "record"), undecided_ == 1 ? "was" : "were"),
                 "", false});
        if (sampled_ > 0)
            summary_.gaps.push_back(
                {"scan", std::nullopt,
                 fmt::format("{} larger than --max-process-bytes and looked at in part, the rest "
                             "is estimated",
                             sampled_ == 1 ? "1 process is"
                                           : fmt::format("{} processes are", sampled_)),
                 "a larger --max-process-bytes", false});
        complain_of_missing();
        summary_.elapsed_seconds = budget.elapsed_seconds();
        summary_.cpu_seconds = budget.cpu_seconds();
        outcome_.answered += summary_.answered;
        outcome_.interrupted = summary_.interrupted;
        outcome_.partial =
            outcome_.partial || summary_.partial + summary_.denied + summary_.skipped > 0;
    }

    static std::string count_of(std::uint64_t number, std::string_view noun) {
        const std::string_view ending = number == 1 ? "" : noun.ends_with('s') ? "es" : "s";
        return fmt::format("{} {}{}", number, noun, ending);
    }

    /// The summary has the numbers; standard error has the reasons as well.
    void complain_of_missing() {
        std::string owners;
        for (const auto& [user, processes] : denied_)
            owners += fmt::format("{}{} of {}", owners.empty() ? "" : ", ", processes,
                                  user.empty() ? "nobody known" : escape_text(user));
        denied_.clear();
        if (summary_.denied > 0)
            complain("scan",
                     fmt::format("{} may not be looked at: {} ({})",
                                 count_of(summary_.denied, "process"), owners, denied_hint_));
        if (summary_.interrupted) return;
        if (unreached_ > 0)
            complain("scan",
                     fmt::format("--max-time was over before {}", count_of(unreached_, "process")));
        if (summary_.partial > 0)
            complain("scan", fmt::format("of {} ranges are missing",
                                         count_of(summary_.partial, "process")));
    }

    /// What is the same in every scan is said once.
    void complain(const std::string& subject, const std::string& text) {
        static constexpr std::size_t most = 20;
        if (said_.size() < most && said_.insert(subject + ": " + text).second)
            messages_.warn(subject, text);
    }

    bool metrics() const { return options_.format == "openmetrics"; }
    bool by_group() const { return plan_.by_group(); }

    Exit exit_code() const {
        // A machine on which nobody was to be found is an answer, too.
        if (!outcome_.interrupted && outcome_.answered == 0 && outcome_.failed == 0 &&
            !outcome_.partial)
            return Exit::complete;
        return outcome_.code();
    }

    const Options& options_;
    const Environment& environment_;
    const Messages& messages_;
    ScanPlan plan_;
    ScanOutput output_;
    os::Machine machine_;
    Outcome outcome_;

    // Of the scan that is under way.
    scan::Summary summary_;
    scan::Sum totals_;
    std::map<std::string, scan::Sum> groups_;
    std::optional<scan::Ranking> ranking_; ///< none: records are handed on as they come
    std::size_t undecided_ = 0, unreached_ = 0, sampled_ = 0;
    Budget* budget_ = nullptr;
    Progress* progress_ = nullptr;
    unsigned look_jobs_ = 1;
    std::map<std::string, std::size_t> denied_; ///< by user
    std::string denied_hint_;
    std::set<std::string> said_; ///< in all scans
};

} // namespace

Exit run_scan(const Options& options, const Environment& environment, const Messages& messages) {
    return Scans{options, environment, messages}.run();
}

} // namespace pagesift::cli
