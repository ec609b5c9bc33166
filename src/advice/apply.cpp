// SPDX-License-Identifier: MIT
#include "advice/folios.hpp"
#include "advice/measure.hpp"
#include "advice/slots.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace pagesift::advice {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Worth another try after a while. EAGAIN and EBUSY: madvise(2), MADV_COLLAPSE.
bool passes(const Stayed& one) {
    return one.reason == Reason::fresh ||
           (one.reason == Reason::refused && (one.error == EAGAIN || one.error == EBUSY));
}

/// The parts of a range that the action still is for; why others are not goes to @p object.
template <class Object>
std::vector<AddressRange> still_fitting(const Plan& plan, const Situation& situation,
                                        const Mapping& mapping, const SecondLook& seen,
                                        const Object& object) {
    std::vector<AddressRange> fitting;
    const auto keep = [&](AddressRange range) {
        if (!fitting.empty() && fitting.back().end == range.start)
            fitting.back().end = range.end;
        else
            fitting.push_back(range);
    };
    if (plan.action == Action::collapse) {
        // What it costs was decided when the plan was made.
        Spans spans{0};
        SlotPlanner slots{situation, true, spans};
        for (const Stretch& stretch : seen.stretches) slots.add(mapping, stretch);
        slots.finish();
        spans.finish();
        for (const auto& range : spans.ranges) keep(range.range);
        for (const auto& range : spans.skipped) object(range.range, range.reason);
        return fitting;
    }
    FolioGate gate{situation.host.page_size, [&](const Stretch& s) { keep(s.range); },
                   [&](const Stretch& s) { object(s.range, Reason::folio_split); }};
    for (const Stretch& stretch : seen.stretches) {
        auto reason = objection(plan.action, situation, mapping, stretch);
        if (!is_candidate(plan.action, mapping, stretch)) reason = Reason::state_changed;
        if (!reason) {
            gate.add(stretch);
            continue;
        }
        gate.flush();
        object(stretch.range, *reason);
    }
    gate.flush();
    return fitting;
}

class Application {
public:
    Application(const Plan& plan, const Situation& situation, Source& source, Actuator& actuator,
                const ApplyOptions& options)
        : plan_(plan),
          situation_(situation),
          source_(source),
          actuator_(actuator),
          options_(options),
          measure_(plan, situation, source, actuator, options.want, effect_) {}

    Effect run() {
        const auto begin = Clock::now();
        effect_.moved.assign(plan_.ranges.size(), 0);
        effect_.before = actuator_.gauges();
        act_on(make_batches(plan_, options_.batch_bytes));
        for (unsigned i = 0; i < options_.retries && !over(); ++i)
            if (!try_again()) break;
        try {
            effect_.after = actuator_.gauges();
        } catch (const Error& error) {
            end(error);
        }
        measure_.finish();
        std::stable_sort(
            effect_.stayed.begin(), effect_.stayed.end(),
            [](const Stayed& a, const Stayed& b) { return a.range.start < b.range.start; });
        effect_.elapsed_seconds = seconds_since(begin);
        return std::move(effect_);
    }

private:
    bool over() {
        if (!effect_.interrupted && options_.interrupted && options_.interrupted())
            effect_.interrupted = true;
        return effect_.interrupted || effect_.ended;
    }

    /// The first reason is the one that counts.
    void end(const Error& error) {
        if (!effect_.ended) effect_.ended = error;
    }

    void act_on(const std::vector<Batch>& batches) {
        for (const Batch& batch : batches) {
            try {
                if (!over() && options_.before_batch) options_.before_batch(batch.bytes);
            } catch (const Error& error) {
                end(error);
            }
            if (over()) {
                for (const PlannedRange& range : batch.ranges) leave(range.range, range.mapping);
                continue;
            }
            act(batch);
            if (options_.after_batch) options_.after_batch(batch.bytes);
        }
    }

    /// Of what is not come to any more.
    void leave(AddressRange range, std::size_t mapping) {
        const auto [reason, error] = why_left(effect_);
        stay(range, mapping, reason, error);
    }

    /// False: there is nothing to try again.
    bool try_again() {
        Plan again;
        again.action = plan_.action;
        again.page_size = plan_.page_size;
        std::stable_sort(
            effect_.stayed.begin(), effect_.stayed.end(),
            [](const Stayed& a, const Stayed& b) { return a.range.start < b.range.start; });
        for (const Stayed& one : effect_.stayed) {
            if (!passes(one)) continue;
            PlannedRange range = plan_.ranges[measure_.index_of(one.range.start)];
            range.range = one.range;
            again.ranges.push_back(range);
        }
        if (again.ranges.empty()) return false;
        counted_.clear();
        for (const Stayed& one : effect_.stayed)
            if (one.reason == Reason::fresh) counted_.push_back(one.range);
        std::erase_if(effect_.stayed, passes);
        ++effect_.retries;
        if (options_.pause) options_.pause();
        try {
            drain(again.ranges.front());
        } catch (const Error& error) {
            end(error);
        }
        act_on(make_batches(again, options_.batch_bytes));
        return true;
    }

    /// Fresh pages wait in the batch of the processor that made them. Each processor puts its own
    /// on their lists when it is given this advice, which does nothing worse than page-out will.
    void drain(const PlannedRange& range) {
        if (plan_.action != Action::pageout && plan_.action != Action::cold) return;
        const AddressRange page{range.range.start, range.range.start + Bytes{plan_.page_size}};
        actuator_.advise_everywhere(abi::advice::cold, page);
    }

    void act(const Batch& batch) {
        std::vector<Part> parts;
        std::size_t looked_at = 0; // of the batch's ranges
        try {
            find_parts(batch, parts, looked_at);
            measure_.begin();
            // The kernel would keep them, and make them look recently used.
            std::erase_if(parts, [&](const Part& part) {
                const bool full = measure_.has_no_room(part.range);
                if (full) stay(part.range, part.mapping, Reason::swap_full);
                return full;
            });
            measure_.begin();
            call(parts);
        } catch (const Error& error) {
            end(error);
            for (; looked_at < batch.ranges.size(); ++looked_at)
                leave(batch.ranges[looked_at].range, batch.ranges[looked_at].mapping);
        }
        for (const Part& part : parts) {
            if (!part.called)
                leave(part.range, part.mapping);
            else
                measure(part);
        }
    }

    void measure(const Part& part) {
        try {
            measure_.add(part);
        } catch (const Error& error) {
            end(error);
            measure_.give_up(part);
        }
    }

    void find_parts(const Batch& batch, std::vector<Part>& parts, std::size_t& looked_at) {
        if (!actuator_.is_same())
            throw Error{ErrorKind::gone, "pid " + std::to_string(plan_.identity.pid), 0, "",
                        "the process has ended, or another one has its number"};
        const auto now = source_.mappings(options_.want);
        for (const PlannedRange& range : batch.ranges) {
            const Mapping& then = plan_.mappings[range.mapping];
            const Mapping* found = find_same(now, then, range.range);
            if (found == nullptr)
                stay(range.range, range.mapping, Reason::mapping_changed);
            else
                add_parts(range, *found, then, parts);
            ++looked_at;
        }
    }

    void add_parts(const PlannedRange& range, const Mapping& found, const Mapping& then,
                   std::vector<Part>& parts) {
        auto mapping = std::make_shared<Mapping>(found);
        if (!mapping->smaps) mapping->smaps = then.smaps;
        auto seen = look_again(source_, *mapping, range.range, options_.want, {});
        Address at = range.range.start;
        const auto fitting =
            still_fitting(plan_, situation_, *mapping, seen, [&](AddressRange left, Reason reason) {
                stay(left, range.mapping, reason);
            });
        for (const Stretch& stretch : seen.stretches) at = std::max(at, stretch.range.end);
        if (at < range.range.end) stay({at, range.range.end}, range.mapping, Reason::unknown);
        for (const AddressRange& one : fitting) {
            Part part;
            part.range = one;
            part.mapping = range.mapping;
            part.live = mapping;
            part.frames = frames_of(seen, one);
            part.fresh = fresh_of(seen, one);
            parts.push_back(std::move(part));
        }
    }

    std::vector<std::uint64_t> frames_of(const SecondLook& seen, AddressRange range) const {
        // look_again() has no holes between its stretches but where it was cut short.
        const Address begin = seen.stretches.front().range.start;
        const auto first = (range.start - begin).value / plan_.page_size;
        const auto count = range.size().value / plan_.page_size;
        if (first + count > seen.frames.size()) return {};
        const auto at = seen.frames.begin() + static_cast<std::ptrdiff_t>(first);
        return {at, at + static_cast<std::ptrdiff_t>(count)};
    }

    static std::vector<AddressRange> fresh_of(const SecondLook& seen, AddressRange range) {
        std::vector<AddressRange> fresh;
        for (const Stretch& stretch : seen.stretches)
            if (const auto part = stretch.range.intersect(range);
                stretch.on_lru == Tri::no && !part.empty())
                fresh.push_back(part);
        return fresh;
    }

    /// vector_madvise() stops at the first range that fails and tells of the error only when that
    /// is the very first one, so the rest is called for again from there.
    void call(std::vector<Part>& parts) {
        std::vector<AddressRange> ranges;
        ranges.reserve(parts.size());
        for (const Part& part : parts) ranges.push_back(part.range);
        static constexpr std::size_t most = 1024; // UIO_MAXIOV
        for (std::size_t at = 0; at < ranges.size();) {
            const auto count = std::min(most, ranges.size() - at);
            for (std::size_t i = at; i < at + count; ++i) parts[i].called = true;
            const auto done = actuator_.advise(info_of(plan_.action).number,
                                               std::span{ranges}.subspan(at, count));
            ++effect_.calls;
            effect_.call_seconds += done.seconds;
            effect_.longest_call_seconds = std::max(effect_.longest_call_seconds, done.seconds);
            std::uint64_t left = done.done_bytes;
            const std::size_t begin = at, end = at + count;
            while (at < end && left >= ranges[at].size().value) {
                left -= ranges[at].size().value;
                effect_.advised_bytes += uncounted_bytes(ranges[at]);
                parts[at++].advised = true;
            }
            if (done.error == 0 && at > begin) continue;
            const int error = done.error != 0 ? done.error : EIO;
            if (at < end) parts[at++].error = error;
            if (error != ESRCH) continue;
            // Nobody is there for the others either.
            for (; at < parts.size(); ++at) {
                parts[at].called = true;
                parts[at].error = error;
            }
        }
    }

    /// Without what an earlier try has gone through already.
    std::uint64_t uncounted_bytes(AddressRange range) const {
        std::uint64_t bytes = range.size().value;
        auto one = std::partition_point(counted_.begin(), counted_.end(), [&](AddressRange before) {
            return before.end <= range.start;
        });
        for (; one != counted_.end() && one->start < range.end; ++one)
            bytes -= one->intersect(range).size().value;
        return bytes;
    }

    void stay(AddressRange range, std::size_t mapping, Reason reason, int error = 0) {
        effect_.stayed.push_back({range, mapping, reason, error});
    }

    const Plan& plan_;
    const Situation& situation_;
    Source& source_;
    Actuator& actuator_;
    const ApplyOptions& options_;
    Effect effect_;
    Measure measure_;
    std::vector<AddressRange> counted_; ///< in Effect::advised_bytes already; by address
};

} // namespace

std::string_view explain(Action action, int error) {
    const bool collapse = action == Action::collapse;
    switch (error) {
    case EINVAL:
        return collapse
                   ? "the range cannot be one huge page: nothing in it is mapped, the program "
                     "forbids huge pages here, or pages are pinned"
                   : "the mapping is locked in memory, of huge pages of a pool, or of a device";
    case ENOMEM:
        return collapse ? "no free huge page, or the memory cgroup is full"
                        : "a part of the range is no longer mapped";
    case EAGAIN: return "pages were in use or isolated at that moment; --retry";
    case EBUSY: return "pages could not be locked or isolated at that moment; --retry";
    case ESRCH: return "the process has ended";
    case EPERM: return "needs CAP_SYS_NICE in the initial user namespace";
    case EBADF: return "the mapping has no file to read";
    case EIO: return "reading from swap or a file failed";
    default: return "";
    }
}

Effect apply(const Plan& plan, const Situation& situation, Source& source, Actuator& actuator,
             const ApplyOptions& options) {
    return Application{plan, situation, source, actuator, options}.run();
}

} // namespace pagesift::advice
