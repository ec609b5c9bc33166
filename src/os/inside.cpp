// SPDX-License-Identifier: MIT
// Advice from inside: what `InsideActuator` says, by the remote call.
#include "os/probe.hpp"
#include "os/remote_checks.hpp"
#include "os/remote_writers.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/remote.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

namespace pagesift::os {
namespace {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;
using Outcome = InsidePart::Outcome;

/// Between two looks at the clock, at most. How much fits into a step shows as it goes.
constexpr std::uint64_t step_bytes = 4 << 20;
constexpr std::uint64_t step_slots = 64;
/// Of what a stop may take, one step takes about one part in so many.
constexpr int steps_a_stop = 8;

/// No machine stops a thread, and lets it go again, in less; 30 us were measured.
constexpr Nanoseconds least_stop_of_thread = std::chrono::microseconds{10};

/// Of what a stop may take, this part is for making all stand still: letting them go takes as long.
constexpr double share_of_stopping = 0.6;

bool is_same_place(const procfs::Mapping& now, const procfs::Mapping& then) {
    return now.readable == then.readable && now.writable == then.writable &&
           now.executable == then.executable && now.shared == then.shared &&
           now.device == then.device && now.inode == then.inode &&
           (then.inode == 0 ||
            now.offset - now.range.start.value == then.offset - then.range.start.value);
}

bool is_all_zero(std::span<const std::uint64_t> words) {
    std::uint64_t bits = 0;
    for (const std::uint64_t word : words) bits |= word;
    return bits == 0;
}

/// What is done within one stop.
class Work {
public:
    Work(const Root& root, std::uint32_t pid, const InsideRequest& request,
         std::span<const InsideRange> ranges, Nanoseconds leaving, StoppedProcess& stopped,
         InsideAnswer& answer)
        : root_(root),
          pid_(pid),
          request_(request),
          ranges_(ranges),
          leaving_(leaving),
          stopped_(stopped),
          answer_(answer),
          page_(static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))) {}

    void run() {
        try {
            go();
            flush();
            finish_flight();
        } catch (...) {
            // What was on its way may have come about, as whoever measures will see.
            land({});
            throw;
        }
    }

private:
    void go() {
        if (!has_time()) return;
        if (request_.sole_writer)
            if (const auto writer = find_writer(root_, pid_, stopped_.threads()))
                throw Error{ErrorKind::unsupported, fmt::format("process {}", pid_), 0, "",
                            "something else may write to its memory: " + *writer};
        read_mappings();
        for (const InsideRange& range : ranges_) {
            if (!has_time()) return;
            if (!is_where_it_was(range)) {
                add(range.range, Outcome::mapping_changed);
                continue;
            }
            if (!go_through(range)) return;
        }
    }

    bool has_time() const {
        const int calls = (flight_.empty() ? 0 : 1) + (queue_.empty() ? 0 : 1);
        return stopped_.elapsed() + leaving_ + next_step_ + flight_time_ * calls <
               request_.max_stop;
    }

    // Calls are made together, because each trip of the child takes longer than a short call, and
    // while they are made what comes next is proven. What was proven stays true until its call:
    // nothing else runs, and no call of a flight is about the same memory.

    void add(AddressRange range, Outcome outcome) {
        if (queue_.empty() && flight_.empty())
            emit({range, outcome, 0}, range_);
        else
            queue_.push_back({{range, outcome, 0}, range_});
    }

    void call(AddressRange range) {
        queue_.push_back({{range, Outcome::advised, 0}, range_});
        waiting_.push_back(range);
        waiting_bytes_ += range.size().value;
        const bool may_wait = request_.proof == Proof::empty ||
                              (request_.proof == Proof::zero && waiting_bytes_ < bytes_a_flight);
        if (may_wait && waiting_.size() < stopped_.most_together()) return;
        flush();
        if (request_.proof == Proof::none) finish_flight();
    }

    /// Sends what is queued on its way.
    void flush() {
        finish_flight();
        flight_.swap(queue_);
        took_off_ = Clock::now();
        const auto ranges = std::exchange(waiting_, {});
        waiting_bytes_ = 0;
        if (stopped_.begin_advice(ranges, request_.advice)) return;
        std::vector<int> errors;
        errors.reserve(ranges.size());
        for (const AddressRange& range : ranges)
            errors.push_back(stopped_.advise(range, request_.advice));
        land(errors);
    }

    void finish_flight() {
        if (!flight_.empty()) land(stopped_.finish_advice());
    }

    /// @param errors of its calls, in their order; those that are missing were not answered
    void land(const std::vector<int>& errors) {
        // The next one may take twice as long.
        flight_time_ = (Clock::now() - took_off_) * 2;
        answer_.calls += errors.size();
        auto error = errors.begin();
        for (Queued& queued : flight_) {
            if (queued.part.outcome == Outcome::advised) {
                const bool answered = error != errors.end();
                if (answered) queued.part.error = *error++;
                if (!answered) queued.part.outcome = Outcome::unanswered;
                if (queued.part.error != 0) queued.part.outcome = Outcome::refused;
            }
            emit(queued.part, queued.range);
        }
        flight_.clear();
    }

    void emit(const InsidePart& part, std::size_t range) {
        auto& parts = answer_.parts;
        if (!parts.empty() && parts.back().range.end == part.range.start &&
            parts.back().outcome == part.outcome && parts.back().error == part.error &&
            range == last_)
            parts.back().range.end = part.range.end;
        else
            parts.push_back(part);
        last_ = range;
    }

    /// The memory that is acted on is the witness'.
    void read_mappings() {
        const auto text = root_.read_text(fmt::format("proc/{}/maps", stopped_.witness()));
        procfs::MapsParser parser;
        const auto keep = [&](procfs::MappingText&& found) {
            mappings_.push_back(std::move(found.mapping));
        };
        if (text.error != 0)
            throw Error{ErrorKind::failed, fmt::format("process {}", pid_), text.error};
        parser.feed(text.text, keep);
        parser.finish(keep);
    }

    bool is_where_it_was(const InsideRange& range) {
        ++range_;
        const auto behind = std::upper_bound(
            mappings_.begin(), mappings_.end(), range.range.start,
            [](Address at, const procfs::Mapping& m) { return at < m.range.start; });
        if (behind == mappings_.begin() || range.mapping == nullptr) return false;
        const auto& found = *std::prev(behind);
        return range.range.end <= found.range.end && is_same_place(found, *range.mapping);
    }

    std::uint64_t bytes_of_step(const InsideRange& range) const {
        const std::uint64_t unit = std::max(range.unit_bytes, page_);
        const auto most = request_.proof == Proof::empty ? step_slots : step_bytes / unit;
        return std::clamp<std::uint64_t>(most, 1, std::max(units_a_step_, std::uint64_t{1})) * unit;
    }

    /// False: the time is over.
    bool go_through(const InsideRange& range) {
        AddressRange rest = range.range;
        while (!rest.empty()) {
            if (!has_time()) return false;
            const auto begin = Clock::now();
            const auto bytes = std::min(rest.size().value, bytes_of_step(range));
            step({rest.start, rest.start + Bytes{bytes}}, std::max(range.unit_bytes, page_));
            rest.start = rest.start + Bytes{bytes};
            pace(Clock::now() - begin);
        }
        return true;
    }

    /// Begins small and doubles while that is quick.
    void pace(Nanoseconds step) {
        if (step * (2 * steps_a_stop) < request_.max_stop)
            units_a_step_ = std::min(units_a_step_ * 2, most_units);
        else if (step * steps_a_stop > request_.max_stop)
            units_a_step_ = std::max(units_a_step_ / 2, std::uint64_t{1});
        // The next one may take twice as long.
        next_step_ = step * 2;
    }

    void step(AddressRange range, std::uint64_t unit) {
        switch (request_.proof) {
        case Proof::none: return call(range);
        case Proof::empty:
            if (stopped_.is_empty(range)) return call(range);
            return by_units(range, unit, [&](AddressRange one) { return stopped_.is_empty(one); });
        case Proof::zero:
            read(range);
            return by_units(range, unit, [&](AddressRange one) { return is_zero(range, one); });
        }
    }

    template <class Proven> void by_units(AddressRange range, std::uint64_t unit, Proven proven) {
        AddressRange good{range.start, range.start};
        const auto finish = [&] {
            if (!good.empty()) call(good);
        };
        for (Address at = range.start; at < range.end; at = at + Bytes{unit}) {
            const AddressRange one{at, std::min(at + Bytes{unit}, range.end)};
            if (proven(one)) {
                good.end = one.end;
                continue;
            }
            finish();
            add(one, Outcome::not_proven);
            good = {one.end, one.end};
        }
        finish();
    }

    // --- Zeros ---

    /// Entries, and contents of those pages that are in memory: others would be swapped in, or
    /// made.
    void read(AddressRange range) {
        const std::uint64_t pages = range.size().value / page_;
        entries_.assign(pages, 0);
        words_.assign(range.size().value / 8, 1);
        if (!page_map_)
            page_map_ = root_.open(fmt::format("proc/{}/pagemap", stopped_.witness()), O_RDONLY).fd;
        if (read_words(page_map_.get(), range.start.value / page_, entries_) !=
            static_cast<std::int64_t>(pages))
            entries_.assign(pages, 0);
        for (std::uint64_t first = 0; first < pages;) {
            std::uint64_t last = first;
            while (last < pages && is_own(entries_[last])) ++last;
            if (last > first) read_contents(range, first, last);
            first = last + 1;
        }
    }

    static bool is_own(std::uint64_t entry) {
        return (entry & abi::PM_PRESENT) != 0 &&
               (entry & (abi::PM_FILE | abi::PM_SWAP | abi::PM_UFFD_WP)) == 0;
    }

    void read_contents(AddressRange range, std::uint64_t first, std::uint64_t last) {
        auto* const here = reinterpret_cast<std::uint8_t*>(words_.data()) + first * page_;
        const iovec to{here, (last - first) * page_};
        const iovec from{reinterpret_cast<void*>(range.start.value + first * page_), to.iov_len};
        const auto got =
            ::process_vm_readv(static_cast<pid_t>(stopped_.witness()), &to, 1, &from, 1, 0);
        const auto whole = got < 0 ? 0 : static_cast<std::uint64_t>(got) / page_ * page_;
        // What was not read is not proven.
        std::fill(words_.begin() + static_cast<std::ptrdiff_t>((first * page_ + whole) / 8),
                  words_.begin() + static_cast<std::ptrdiff_t>(last * page_ / 8), 1);
    }

    bool is_zero(AddressRange read, AddressRange one) const {
        const auto first = (one.start - read.start).value / page_;
        const auto count = one.size().value / page_;
        const auto entries = std::span{entries_}.subspan(first, count);
        return std::all_of(entries.begin(), entries.end(), is_own) &&
               is_all_zero(std::span{words_}.subspan(first * page_ / 8, one.size().value / 8));
    }

    const Root& root_;
    std::uint32_t pid_;
    const InsideRequest& request_;
    std::span<const InsideRange> ranges_;
    Nanoseconds leaving_;
    StoppedProcess& stopped_;
    InsideAnswer& answer_;
    std::uint64_t page_;
    static constexpr std::uint64_t most_units = 4096;
    std::uint64_t units_a_step_ = 1;
    Nanoseconds next_step_{};
    std::size_t range_ = 0, last_ = 0;
    struct Queued {
        InsidePart part; ///< advised: will be
        std::size_t range;
    };
    static constexpr std::uint64_t bytes_a_flight = 256 << 10;
    std::vector<Queued> queue_, flight_;
    std::vector<AddressRange> waiting_; ///< calls of the queue
    std::uint64_t waiting_bytes_ = 0;
    Clock::time_point took_off_;
    Nanoseconds flight_time_{};
    std::vector<procfs::Mapping> mappings_;
    Fd page_map_;
    std::vector<std::uint64_t> entries_, words_;
};

class RemoteActuator final : public InsideActuator {
public:
    RemoteActuator(std::uint32_t pid, std::uint64_t start_time,
                   std::shared_ptr<const HostFacts> host)
        : target_(pid, start_time), pid_(pid), start_time_(start_time), host_(std::move(host)) {}

    bool is_same() override {
        return is_process(own_root(), pid_, start_time_) &&
               !has_ended(own_root(), static_cast<pid_t>(pid_));
    }

    std::optional<Error> why_not(const InsideRequest& request) override {
        const auto subject = fmt::format("process {}", pid_);
        if (request.proof == Proof::empty) {
            const auto frees = probe_pt_reclaim(*host_);
            if (frees != true)
                return Error{ErrorKind::unsupported, subject, 0,
                             "needs CONFIG_PT_RECLAIM: Linux 6.14 on x86_64, 7.0 elsewhere",
                             frees ? "this kernel frees no page tables by MADV_DONTNEED"
                                   : "whether this kernel frees page tables is not known"};
        }
        if (auto refusal = too_many_threads(request.max_stop)) return refusal;
        if (!request.sole_writer) return {};
        try {
            std::vector<std::uint32_t> threads;
            Sharers sharers{own_root()};
            sharers.look(pid_, static_cast<pid_t>(pid_));
            for (const std::uint32_t process : sharers.look_again(pid_, 0))
                for (const pid_t thread : list_threads(own_root(), process))
                    threads.push_back(static_cast<std::uint32_t>(thread));
            auto writer = find_writer(own_root(), pid_, threads);
            if (!writer) writer = find_monitor(own_root(), pid_);
            if (!writer) return {};
            return Error{ErrorKind::unsupported, subject, 0, "",
                         "something else may write to its memory: " + *writer};
        } catch (const Error& error) {
            return error;
        }
    }

    InsideAnswer advise(const InsideRequest& request,
                        std::span<const InsideRange> ranges) override {
        InsideAnswer answer;
        StopOptions options;
        // Whoever does not stand still by then is let go.
        options.patience =
            std::max(std::chrono::duration_cast<Nanoseconds>(request.max_stop * share_of_stopping),
                     Nanoseconds{std::chrono::milliseconds{1}});
        options.dead_man = std::max<Nanoseconds>(options.dead_man, request.max_stop * 4);
        Nanoseconds worked{};
        StopReport report;
        const auto begin = Clock::now();
        try {
            report = target_.with_all_stopped(
                [&](StoppedProcess& stopped) {
                    // Where threads were slow to stop, they will be slow to go on.
                    const auto leaving = std::max(leaving_, stopped.elapsed() / 2);
                    Work{own_root(), pid_, request, ranges, leaving, stopped, answer}.run();
                    worked = stopped.elapsed();
                },
                options);
        } catch (const Error& error) {
            // A stop that took too long, or ended badly, has done what it has done.
            if (answer.parts.empty()) throw;
            answer.stopped_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
            if (error.kind() != ErrorKind::failed) answer.ended = error;
            return answer;
        }
        // Of the last stops, so that one that was slow does not stay in the way for ever.
        leaving_ = (leaving_ * 3 + (report.stopped - worked)) / 4;
        answer.stopped_seconds = std::chrono::duration<double>(report.stopped).count();
        answer.threads = report.threads;
        answer.processes = report.processes;
        return answer;
    }

private:
    /// Trying would keep them longer than is allowed, and come to nothing.
    std::optional<Error> too_many_threads(Nanoseconds max_stop) const {
        const auto threads = count_threads(own_root(), pid_);
        if (threads * least_stop_of_thread < max_stop) return {};
        const auto likely =
            std::chrono::ceil<std::chrono::milliseconds>(threads * least_stop_of_thread * 5);
        return Error{
            ErrorKind::unsupported, fmt::format("process {}", pid_), 0,
            fmt::format("--max-stop {}ms", likely.count()),
            fmt::format("its {} threads cannot all be stopped within --max-stop", threads)};
    }

    RemoteTarget target_;
    std::uint32_t pid_;
    std::uint64_t start_time_;
    std::shared_ptr<const HostFacts> host_;
    Nanoseconds leaving_ = std::chrono::microseconds{500};
};

} // namespace

std::unique_ptr<InsideActuator> open_inside(std::uint32_t pid, std::uint64_t start_time,
                                            std::shared_ptr<const HostFacts> host) {
    return std::make_unique<RemoteActuator>(pid, start_time, std::move(host));
}

} // namespace pagesift::os
