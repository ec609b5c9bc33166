// SPDX-License-Identifier: MIT
// Acting from inside: the process stands still in slices, and what must hold is proven in the same
// slice in which the advice is given.
#include "advice/measure.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <tuple>

namespace pagesift::advice {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Stops in a row in which nothing came about, or that did not come about.
constexpr unsigned most_vain_stops = 8;

class InsideApplication {
public:
    InsideApplication(const Plan& plan, Source& source, InsideActuator& actuator,
                      const ApplyOptions& options)
        : plan_(plan),
          source_(source),
          actuator_(actuator),
          options_(options),
          request_(inside_request(plan, options.max_stop)) {}

    Effect run() {
        // Nothing was done yet, so this one is thrown.
        if (auto refusal = actuator_.why_not(request_)) throw Error{*refusal};
        const auto begin = Clock::now();
        effect_.moved.assign(plan_.ranges.size(), 0);
        effect_.stops.emplace();
        std::tie(effect_.tables_before_bytes, effect_.rss_before_bytes) = sizes();
        for (const Batch& batch : make_batches(plan_, options_.batch_bytes)) run_batch(batch);
        std::tie(effect_.tables_after_bytes, effect_.rss_after_bytes) = sizes();
        look_for_tables();
        finish();
        effect_.elapsed_seconds = seconds_since(begin);
        return std::move(effect_);
    }

private:
    /// A range of the plan, as it is now.
    struct Task {
        AddressRange range;
        std::size_t planned = 0; ///< of Plan::ranges
        std::shared_ptr<const Mapping> live;
    };

    bool over() {
        if (!effect_.interrupted && options_.interrupted && options_.interrupted())
            effect_.interrupted = true;
        return effect_.interrupted || effect_.ended || hopeless_;
    }

    std::pair<std::optional<std::uint64_t>, std::optional<std::uint64_t>> sizes() {
        try {
            const auto status = procfs::parse_status(source_.process().status);
            return {status.vm_pte_bytes, status.vm_rss_bytes};
        } catch (const Error&) {
            return {};
        }
    }

    void run_batch(const Batch& batch) {
        std::deque<Task> tasks;
        bool proven = false; // and what did not pass is accounted for
        try {
            if (!over() && options_.before_batch) options_.before_batch(batch.bytes);
            if (!over()) {
                tasks = prove_before(batch);
                proven = true;
            }
        } catch (const Error& error) {
            effect_.ended = error;
        }
        if (!proven)
            for (const PlannedRange& range : batch.ranges) leave({range.range, 0, {}});
        while (!tasks.empty()) {
            if (over())
                leave_all(tasks);
            else
                stop_once(tasks);
        }
        if (options_.after_batch) options_.after_batch(batch.bytes);
    }

    /// What can be seen while the process runs: mappings, and what smaps said of them.
    std::deque<Task> prove_before(const Batch& batch) {
        if (!actuator_.is_same())
            throw Error{ErrorKind::gone, "pid " + std::to_string(plan_.identity.pid), 0, "",
                        "the process has ended, or another one has its number"};
        const auto now = source_.mappings(options_.want);
        std::deque<Task> tasks;
        for (const PlannedRange& range : batch.ranges) {
            const Mapping& then = plan_.mappings[range.mapping];
            const Mapping* found = find_same(now, then, range.range);
            if (found == nullptr) {
                stay(range.range, Reason::mapping_changed);
                continue;
            }
            auto live = std::make_shared<Mapping>(*found);
            if (!live->smaps) live->smaps = then.smaps;
            if (const auto reason = objection_to_mapping(plan_.action, *live)) {
                stay(range.range, *reason);
                continue;
            }
            tasks.push_back({range.range, index_of(range.range.start), std::move(live)});
        }
        return tasks;
    }

    void stop_once(std::deque<Task>& tasks) {
        std::vector<InsideRange> ranges;
        ranges.reserve(tasks.size());
        for (const Task& task : tasks)
            ranges.push_back({task.range, plan_.ranges[task.planned].unit_bytes, task.live.get()});
        const auto begin = Clock::now();
        try {
            const auto answer = actuator_.advise(request_, ranges);
            effect_.calls += answer.calls;
            note_stop(answer.stopped_seconds);
            effect_.stops->threads = std::max(effect_.stops->threads, answer.threads);
            effect_.stops->processes = std::max(effect_.stops->processes, answer.processes);
            vain_ = answer.parts.empty() ? vain_ + 1 : 0;
            std::vector<std::pair<Task, AddressRange>> done;
            for (const InsidePart& part : answer.parts) take(tasks, part, done);
            // What was read after an earlier stop is older than this one.
            source_.forget_read_ahead();
            for (const auto& [task, range] : done) try_measure(task, range);
            if (answer.ended) effect_.ended = answer.ended;
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::failed) {
                effect_.ended = error;
                return;
            }
            // At most so long; it may not have come to stand still at all.
            note_stop(seconds_since(begin));
            ++vain_;
            last_failure_ = error;
        }
        hopeless_ = vain_ >= most_vain_stops;
        if (vain_ > 0 && !hopeless_ && options_.pause) options_.pause();
    }

    void note_stop(double seconds) { effect_.stops->seconds.push_back(seconds); }

    /// Takes what a stop has dealt with off the front.
    void take(std::deque<Task>& tasks, const InsidePart& part,
              std::vector<std::pair<Task, AddressRange>>& done) {
        using Outcome = InsidePart::Outcome;
        Task& task = tasks.front();
        const auto bytes = part.range.size().value;
        switch (part.outcome) {
        case Outcome::advised:
            effect_.advised_bytes += bytes;
            done.emplace_back(task, part.range);
            break;
        case Outcome::unanswered:
            // Of the others nothing that is looked at tells.
            if (plan_.action == Action::zero_drop || plan_.action == Action::unmerge)
                done.emplace_back(task, part.range);
            else
                stay(part.range, Reason::unknown);
            break;
        case Outcome::not_proven: stay(part.range, Reason::state_changed); break;
        case Outcome::mapping_changed: stay(part.range, Reason::mapping_changed); break;
        case Outcome::refused: stay(part.range, Reason::refused, part.error); break;
        }
        task.range.start = part.range.end;
        if (task.range.empty()) tasks.pop_front();
    }

    void leave(const Task& task) {
        if (!effect_.interrupted && !effect_.ended) return stay(task.range, Reason::no_time);
        const auto [reason, error] = why_left(effect_);
        stay(task.range, reason, error);
    }
    void leave_all(std::deque<Task>& tasks) {
        for (const Task& task : tasks) leave(task);
        tasks.clear();
    }

    std::size_t index_of(Address address) const {
        const auto behind = std::upper_bound(
            plan_.ranges.begin(), plan_.ranges.end(), address,
            [](Address at, const PlannedRange& range) { return at < range.range.start; });
        return static_cast<std::size_t>(behind - plan_.ranges.begin()) - 1;
    }

    void stay(AddressRange range, Reason reason, int error = 0) {
        auto& stayed = effect_.stayed;
        const std::size_t mapping = plan_.ranges[index_of(range.start)].mapping;
        if (!stayed.empty() && stayed.back().mapping == mapping && stayed.back().reason == reason &&
            stayed.back().error == error && stayed.back().range.end == range.start)
            stayed.back().range.end = range.end;
        else
            stayed.push_back({range, mapping, reason, error});
    }

    // --- What came of it ---

    void count(AddressRange range) {
        auto& sum = effect_.moved[index_of(range.start)];
        if (sum) *sum += range.size().value;
        if (effect_.moved_bytes) *effect_.moved_bytes += range.size().value;
    }

    Tri moved(const Stretch& stretch) const {
        const PageClass& cls = stretch.cls;
        if (cls.state == State::unknown || cls.state == State::migrating) return Tri::unknown;
        const bool present = cls.state == State::present;
        if (plan_.action == Action::zero_drop)
            return !present || cls.kind == Kind::zero_page ? Tri::yes : Tri::no;
        if (present && cls.kind == Kind::unknown) return Tri::unknown;
        const bool ksm =
            cls.kind == Kind::ksm || cls.kind == Kind::ksm_sole || cls.kind == Kind::ksm_zero;
        return ksm ? Tri::no : Tri::yes;
    }

    /// What was done stays done, whether it can be looked at or not.
    void try_measure(const Task& task, AddressRange range) {
        try {
            measure(task, range);
        } catch (const Error& error) {
            if (!effect_.ended) effect_.ended = error;
            stay(range, Reason::unknown);
        }
    }

    void measure(const Task& task, AddressRange range) {
        // Tables are looked for at the end, and what KSM makes of it comes with time.
        if (plan_.action == Action::pt_reclaim) return;
        if (plan_.action == Action::merge) return count(range);
        const auto after = look_again(source_, *task.live, range, options_.want, {});
        Address at = range.start;
        for (const Stretch& stretch : after.stretches) {
            const Tri answer = moved(stretch);
            if (answer == Tri::yes) count(stretch.range);
            if (answer == Tri::no) stay(stretch.range, Reason::in_use);
            if (answer == Tri::unknown) stay(stretch.range, Reason::unknown);
            at = stretch.range.end;
        }
        if (at < range.end) stay({at, range.end}, Reason::unknown);
    }

    /// Which of the slots have no table any more.
    void look_for_tables() {
        if (plan_.action != Action::pt_reclaim) return;
        std::vector<AddressRange> asked;
        Address at = Address{0};
        std::stable_sort(
            effect_.stayed.begin(), effect_.stayed.end(),
            [](const Stayed& a, const Stayed& b) { return a.range.start < b.range.start; });
        // Planned, less what was not advised.
        auto left = effect_.stayed.begin();
        for (const PlannedRange& range : plan_.ranges) {
            at = range.range.start;
            while (left != effect_.stayed.end() && left->range.start < range.range.end) {
                if (at < left->range.start) asked.push_back({at, left->range.start});
                at = std::max(at, left->range.end);
                ++left;
            }
            if (at < range.range.end) asked.push_back({at, range.range.end});
        }
        std::optional<std::vector<AddressRange>> owned;
        try {
            if (!effect_.ended || effect_.ended->kind() != ErrorKind::gone)
                owned = source_.locate_tables(asked);
        } catch (const Error& error) {
            if (!effect_.ended) effect_.ended = error;
        }
        if (!owned) {
            effect_.moved_bytes.reset();
            effect_.moved.assign(plan_.ranges.size(), std::nullopt);
            return;
        }
        std::vector<AddressRange> kept;
        auto next = owned->begin();
        for (const AddressRange& range : asked) {
            at = range.start;
            for (; next != owned->end() && next->start < range.end; ++next) {
                add_freed({at, std::max(at, next->start)});
                kept.push_back(next->intersect(range));
                at = std::max(at, next->end);
                if (next->end > range.end) break;
            }
            add_freed({at, std::max(at, range.end)});
        }
        for (const AddressRange& range : kept) stay(range, Reason::in_use);
    }
    void add_freed(AddressRange range) {
        if (range.empty()) return;
        count(range);
        auto& freed = effect_.freed_tables;
        if (!freed.empty() && freed.back().end == range.start)
            freed.back().end = range.end;
        else
            freed.push_back(range);
    }

    void finish() {
        effect_.kept_bytes.reset();
        if (plan_.action == Action::pt_reclaim)
            effect_.freed_bytes =
                effect_.moved_bytes
                    ? std::optional{*effect_.moved_bytes / plan_.slot_bytes * plan_.page_size}
                    : std::nullopt;
        else if (plan_.action == Action::zero_drop)
            effect_.freed_bytes = effect_.moved_bytes;
        else
            effect_.freed_bytes.reset();
        const auto& stops = *effect_.stops;
        effect_.call_seconds = stops.total();
        effect_.longest_call_seconds = stops.longest();
        if (effect_.advised_bytes == 0) {
            if (hopeless_ && last_failure_) throw Error{*last_failure_};
            if (effect_.ended && effect_.ended->kind() != ErrorKind::gone)
                throw Error{*effect_.ended};
        }
        std::stable_sort(
            effect_.stayed.begin(), effect_.stayed.end(),
            [](const Stayed& a, const Stayed& b) { return a.range.start < b.range.start; });
    }

    const Plan& plan_;
    Source& source_;
    InsideActuator& actuator_;
    const ApplyOptions& options_;
    InsideRequest request_;
    Effect effect_;
    unsigned vain_ = 0;
    bool hopeless_ = false;
    std::optional<Error> last_failure_;
};

} // namespace

double Stops::longest() const {
    return seconds.empty() ? 0 : *std::max_element(seconds.begin(), seconds.end());
}

double Stops::total() const {
    double sum = 0;
    for (const double one : seconds) sum += one;
    return sum;
}

double Stops::percentile(double share) const {
    if (seconds.empty()) return 0;
    auto sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    const auto rank =
        static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
    return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}

InsideRequest inside_request(const Plan& plan, std::chrono::nanoseconds max_stop) {
    InsideRequest request;
    request.advice = info_of(plan.action).number;
    request.max_stop = max_stop;
    if (plan.action == Action::zero_drop) {
        request.proof = Proof::zero;
        request.sole_writer = true;
    }
    if (plan.action == Action::pt_reclaim) {
        request.proof = Proof::empty;
        // What is shared stays in its file whatever happens to entries.
        for (const PlannedRange& range : plan.ranges)
            request.sole_writer = request.sole_writer || !plan.mappings[range.mapping].shared;
    }
    return request;
}

Effect apply_inside(const Plan& plan, Source& source, InsideActuator& actuator,
                    const ApplyOptions& options) {
    return InsideApplication{plan, source, actuator, options}.run();
}

} // namespace pagesift::advice
