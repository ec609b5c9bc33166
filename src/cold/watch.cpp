// SPDX-License-Identifier: MIT
#include "cold/joiner.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

namespace pagesift::cold {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

/// In whole milliseconds, and never more than it was: idle times are lower bounds.
double seconds_between(TimePoint from, TimePoint to) {
    const auto whole = std::chrono::floor<std::chrono::milliseconds>(to - from);
    return static_cast<double>(std::max<std::int64_t>(whole.count(), 0)) / 1000;
}

/// Costs are written with so many digits, and are to be the same when they are read again.
double in_microseconds(double seconds) { return std::round(seconds * 1e6) / 1e6; }

/// What has no frames with flags, or is a device's, has no age.
bool has_ages(const Mapping& mapping) {
    return mapping.backing != Backing::special && mapping.backing != Backing::device;
}

[[noreturn]] void throw_gone(std::uint32_t pid) {
    throw Error{ErrorKind::gone, "pid " + std::to_string(pid), 0, "",
                "the process ended, or replaced its memory, while it was watched"};
}

Place place_of(const Mapping& mapping) {
    return {mapping.range, mapping.name, mapping.permissions(), mapping.backing};
}

} // namespace

/// Reads what `source` reads, and lets `access` judge it on the way.
class LastSighting final : public Source {
public:
    LastSighting(Source& source, AccessSource& access, MarkBook& marks, std::uint64_t round)
        : source_(source), access_(access), marks_(marks), round_(round) {}

    const HostFacts& host() const override { return source_.host(); }
    ProcessText process() override { return source_.process(); }
    std::vector<Mapping> mappings(const Want& want) override {
        auto mappings = source_.mappings(want);
        access_.prepare(mappings);
        marks_.keep_only(mappings);
        return mappings;
    }
    void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                    PageBlock& block) override {
        source_.read_block(mapping, wanted, want, block);
        if (block.range.empty()) throw_gone(source_.process().pid);
        if (!has_ages(mapping)) return;
        TouchBlock touches;
        for (AddressRange rest = block.range; !rest.empty(); rest.start = touches.range.end) {
            if (rest.start != block.range.start || !access_.judge_block(mapping, block, touches))
                access_.sight(mapping, rest, Sight::last, touches);
            if (touches.range.empty()) throw_gone(source_.process().pid);
            const std::lock_guard lock{mutex_};
            marks_.note(touches, round_);
        }
    }
    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override {
        return source_.locate_tables(ranges);
    }
    std::vector<Gap> gaps() const override { return source_.gaps(); }

    /// Of the marks, which are written to by several threads.
    std::mutex& mutex() { return mutex_; }

private:
    Source& source_;
    AccessSource& access_;
    MarkBook& marks_;
    std::uint64_t round_;
    std::mutex mutex_;
};

class Watch::Impl {
public:
    Impl(Source& source, AccessSource& access, WatchOptions options)
        : source_(source),
          access_(access),
          options_(std::move(options)),
          marks_(source.host().page_size) {}

    void begin() {
        process_ = source_.process();
        sight_all(Sight::note);
        forget();
    }

    void end_round(Last last) {
        const TimePoint sighted = now();
        sighted_at_ = std::chrono::system_clock::now();
        ++rounds_;
        end_ = sighted;
        // Pages that are accessed from here on until they are sighted are accessed: a claim to have
        // been idle until now stays true.
        in_finish_ = last == Last::yes && access_.judges_blocks();
        if (in_finish_) return;
        sight_all(last == Last::yes ? Sight::last : Sight::again);
        if (!access_.stands()) marks_.doubt(rounds_);
        if (last == Last::yes) return;
        forget();
        if (access_.is_blind_between_rounds())
            clear_.blind_seconds += std::chrono::duration<double>(begins_.back() - sighted).count();
    }

    Ages finish(const std::function<void(const Ages&)>& on_begin,
                const std::function<void(const Range&)>& on_range) {
        Ages ages = summary();
        LookOptions look;
        look.want.cache = false;
        look.jobs = options_.jobs;
        look.only = options_.only;
        look.where = options_.where;
        look.on_mappings = [&](const ProcessText& process, std::span<const Mapping> mappings) {
            ages.identity.comm = process.comm;
            for (const Mapping& mapping : mappings) ages.mappings.push_back(place_of(mapping));
            if (on_begin) on_begin(ages);
        };
        Joiner joiner{marks_, ages, [&](const Range& range) {
                          if (on_range)
                              on_range(range);
                          else
                              ages.ranges.push_back(range);
                      }};
        LastSighting sighting{source_, access_, marks_, rounds_};
        look.on_run = [&](const Run& run) {
            const std::lock_guard lock{sighting.mutex()};
            joiner.add(run);
        };
        if (in_finish_)
            look.on_piece = [&] {
                // Asking takes time, and a doubt stays.
                if (!joiner.doubts() && !access_.stands()) joiner.doubt();
            };
        Source& source = in_finish_ ? static_cast<Source&>(sighting) : source_;
        const Census census = pagesift::look(source, look);
        joiner.flush();
        ages.undecided_bytes = census.undecided_pages * ages.page_size;
        add_gaps(ages, census);
        return ages;
    }

    void interrupt() { interrupted_ = true; }
    TimePoint round_began() const { return begins_.empty() ? TimePoint{} : begins_.back(); }

private:
    TimePoint now() const {
        return options_.now ? options_.now() : std::chrono::steady_clock::now();
    }

    void forget() {
        const ForgetCost cost = access_.forget();
        begins_.push_back(now());
        if (!access_.traits().writes) return;
        ++clear_.times;
        clear_.total_seconds += cost.seconds;
        clear_.locked_seconds += cost.locked_seconds;
        clear_.longest_locked_seconds =
            std::max(clear_.longest_locked_seconds, cost.locked_seconds);
    }

    void sight_all(Sight which) {
        Want want;
        want.cache = false;
        auto mappings = source_.mappings(want);
        access_.prepare(mappings);
        marks_.keep_only(mappings);
        const auto status = procfs::parse_status(source_.process().status);
        const std::uint64_t resident =
            status.vm_rss_bytes.value_or(0) + status.vm_swap_bytes.value_or(0);
        std::erase_if(mappings, [](const Mapping& m) { return !has_ages(m); });
        const auto pieces =
            snapshot::plan_pieces(mappings, options_.only, source_.host(), resident);
        snapshot::in_order(
            options_.jobs, pieces.size(),
            [&](std::size_t i) { return sight_piece(mappings, pieces[i], which); },
            [&](std::vector<TouchBlock>&& blocks) {
                if (which == Sight::note) return;
                for (const TouchBlock& block : blocks) marks_.note(block, rounds_);
            });
    }

    std::vector<TouchBlock> sight_piece(std::span<const Mapping> mappings,
                                        const snapshot::Piece& piece, Sight which) {
        std::vector<TouchBlock> blocks;
        for (const snapshot::Part& part : piece.parts)
            for (AddressRange rest = part.range; !rest.empty();) {
                TouchBlock block;
                access_.sight(mappings[part.mapping], rest, which, block);
                if (block.range.empty()) throw_gone(process_.pid);
                rest.start = block.range.end;
                if (which != Sight::note) blocks.push_back(std::move(block));
            }
        return blocks;
    }

    Ages summary() const {
        Ages ages;
        ages.identity = {process_.pid, process_.start_time(), options_.boot_id, process_.comm,
                         process_.exe};
        ages.page_size = source_.host().page_size;
        ages.source = access_.traits();
        ages.rounds = rounds_;
        ages.interrupted = interrupted_;
        ages.gaps = options_.gaps;
        ages.clear = {
            clear_.times, in_microseconds(clear_.total_seconds),
            in_microseconds(clear_.locked_seconds), in_microseconds(clear_.longest_locked_seconds),
            // However short it was: there was one.
            clear_.blind_seconds > 0 ? std::max(in_microseconds(clear_.blind_seconds), 1e-6) : 0};
        for (std::size_t i = 0; i < rounds_; ++i)
            ages.steps.push_back(seconds_between(begins_[i], end_));
        ages.steps.push_back(0);
        ages.window_seconds = ages.steps.front();
        ages.sighted_unix_milliseconds = static_cast<std::uint64_t>(
            std::chrono::floor<std::chrono::milliseconds>(sighted_at_.time_since_epoch()).count());
        return ages;
    }

    void add_gaps(Ages& ages, const Census& census) const {
        for (const Gap& gap : census.gaps)
            if (matters(gap, ages)) add_gap(ages.gaps, gap);
        for (const Gap& gap : access_.gaps()) add_gap(ages.gaps, gap);
    }

    /// Contents and page tables nobody asked for, and what has no frames has no age.
    static bool matters(const Gap& gap, const Ages& ages) {
        if (gap.source == "contents" || gap.source == "page tables") return false;
        return !gap.range ||
               std::none_of(ages.mappings.begin(), ages.mappings.end(), [&](const Place& place) {
                   return place.range == *gap.range && place.backing == Backing::special;
               });
    }

    static void add_gap(std::vector<Gap>& gaps, const Gap& gap) {
        if (std::find(gaps.begin(), gaps.end(), gap) == gaps.end()) gaps.push_back(gap);
    }

    Source& source_;
    AccessSource& access_;
    WatchOptions options_;
    ProcessText process_;
    MarkBook marks_;
    std::uint64_t rounds_ = 0;      ///< that have ended
    std::vector<TimePoint> begins_; ///< of rounds: the ends of forget()
    std::chrono::system_clock::time_point sighted_at_{};
    TimePoint end_{}; ///< when the last sighting began
    ClearCost clear_;
    bool interrupted_ = false;
    bool in_finish_ = false; ///< the last sighting is made by the look at what pages are
};

Watch::Watch(Source& source, AccessSource& access, WatchOptions options)
    : impl_(std::make_unique<Impl>(source, access, std::move(options))) {}
Watch::~Watch() = default;
Watch::Watch(Watch&&) noexcept = default;
Watch& Watch::operator=(Watch&&) noexcept = default;

void Watch::begin() { impl_->begin(); }
void Watch::end_round(Last last) { impl_->end_round(last); }
std::chrono::steady_clock::time_point Watch::round_began() const { return impl_->round_began(); }
void Watch::interrupt() { impl_->interrupt(); }
Ages Watch::finish(const std::function<void(const Ages&)>& on_begin,
                   const std::function<void(const Range&)>& on_range) {
    return impl_->finish(on_begin, on_range);
}

} // namespace pagesift::cold
