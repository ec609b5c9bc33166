// SPDX-License-Identifier: MIT
#include "cli/cold_watch.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <thread>

namespace pagesift::cli {
namespace {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;
using Seconds = std::chrono::duration<double>;

os::AccessKind kind_of(const MeasureOptions& options) {
    using os::AccessKind;
    if (options.passive && options.source != "auto" && options.source != "lru")
        throw Error{ErrorKind::usage, "--passive", 0, "--source lru, or without --passive",
                    "source " + options.source + " clears what it reads"};
    if (options.passive || options.source == "lru") return AccessKind::lru;
    if (options.source == "exact") return AccessKind::exact;
    if (options.source == "idle-bitmap") return AccessKind::idle_bitmap;
    if (options.source == "referenced") return AccessKind::referenced;
    if (options.source == "soft-dirty") return AccessKind::soft_dirty;
    return AccessKind::automatic;
}

} // namespace

struct ColdWatch::Watched {
    std::uint32_t pid;
    std::unique_ptr<Source> source;
    os::Access access;
    std::unique_ptr<cold::Watch> watch;
};

/// "[####      ] 12/30 s, round 2 of 3" on a terminal.
class ColdWatch::Bar {
public:
    Bar(std::ostream* out, Nanoseconds window, std::uint64_t rounds)
        : out_(out), window_(window), rounds_(rounds) {}
    ~Bar() {
        if (!drawn_) return;
        try {
            fmt::print(*out_, "\r\033[K");
            out_->flush();
        } catch (...) { // NOLINT(bugprone-empty-catch): a bar that stays is no reason to end
        }
    }
    Bar(const Bar&) = delete;
    Bar& operator=(const Bar&) = delete;

    void begin() { begin_ = Clock::now(); }
    void round(std::uint64_t number) { round_ = number; }
    void tick() {
        static constexpr std::chrono::milliseconds between{100};
        static constexpr std::size_t cells = 20;
        const auto now = Clock::now();
        if (!out_ || now < next_) return;
        next_ = now + between;
        drawn_ = true;
        const double share = std::min(Seconds{now - begin_} / Seconds{window_}, 1.0);
        std::string bar(static_cast<std::size_t>(share * cells), '#');
        bar.resize(cells, ' ');
        fmt::print(*out_, "\r[{}] {:.0f}/{:.0f} s, round {} of {}\033[K", bar,
                   Seconds{now - begin_}.count(), Seconds{window_}.count(), round_, rounds_);
        out_->flush();
    }

private:
    std::ostream* out_;
    Nanoseconds window_;
    std::uint64_t rounds_, round_ = 1;
    Clock::time_point begin_ = Clock::now(), next_ = begin_;
    bool drawn_ = false;
};

ColdWatch::ColdWatch(std::span<const std::uint32_t> pids, const os::Machine& machine,
                     const MeasureOptions& options, const Environment& environment)
    : options_(options), environment_(environment) {
    const os::AccessKind kind = kind_of(options);
    if (options.where.needs_contents())
        throw Error{ErrorKind::usage, "--where", 0, "",
                    "zero-filled and ksm-zero are known only where contents are read, which cold "
                    "does not"};
    interval_ = options.interval.value_or(options.window);
    const auto count = static_cast<std::uint64_t>(options.window / interval_);
    rounds_ = std::max<std::uint64_t>(count, 1);
    if (rounds_ > cold::most_rounds)
        throw Error{ErrorKind::usage, "--interval", 0, "",
                    fmt::format("the window has {} of them, and {} are the most", rounds_,
                                cold::most_rounds)};
    const std::string boot_id = os::read_boot_id(options.open);
    for (const std::uint32_t pid : pids) {
        try {
            auto one = std::make_unique<Watched>();
            one->pid = pid;
            one->source = os::open_process(pid, machine, options.open);
            one->access = os::open_access(pid, kind, machine, options.open);
            cold::WatchOptions watch;
            watch.jobs = options.jobs;
            watch.only = options.only;
            watch.where = options.where;
            watch.boot_id = boot_id;
            watch.gaps = one->access.passed_over;
            const std::uint64_t page = one->source->host().page_size;
            for (AddressRange& range : watch.only)
                range = {Address{range.start.value / page * page},
                         Address{(range.end.value + page - 1) / page * page}};
            one->watch =
                std::make_unique<cold::Watch>(*one->source, *one->access.source, std::move(watch));
            watched_.push_back(std::move(one));
        } catch (const Error& error) {
            fail(error);
        }
    }
    if (watched_.empty() && last_error_ && !options.messages) std::rethrow_exception(last_error_);
    say_what_it_costs();
}

ColdWatch::~ColdWatch() = default;

void ColdWatch::fail(const Error& error) {
    if (options_.messages) options_.messages->error(error);
    last_error_ = std::current_exception();
    ++failed_;
}

/// Before anything is done, to who sits there and can still say no.
void ColdWatch::say_what_it_costs() const {
    if (options_.quiet || !environment_.err_is_terminal || watched_.empty()) return;
    const AccessTraits& traits = watched_.front()->access.source->traits();
    if (!traits.writes) return;
    fmt::print(*environment_.err,
               "pagesift: clears accessed bits of {} {} time{}, under the process' mmap lock for "
               "some 40 ms a GiB each; to whoever else watches accesses, its pages look idle "
               "then\n",
               watched_.size() == 1 ? fmt::format("pid {}", watched_.front()->pid)
                                    : fmt::format("{} processes", watched_.size()),
               rounds_, rounds_ == 1 ? "" : "s");
    environment_.err->flush();
}

/// What fails is watched no longer.
void ColdWatch::on_each(const std::function<void(Watched&)>& act) {
    for (auto& one : watched_) {
        try {
            act(*one);
        } catch (const Error& error) {
            fail(error);
            one.reset();
        }
    }
    std::erase(watched_, nullptr);
}

/// @return false: interrupted
bool ColdWatch::sleep_until(Clock::time_point end, Bar& bar) const {
    static constexpr std::chrono::milliseconds slice{20};
    while (!(environment_.interrupted && environment_.interrupted())) {
        const auto left = end - Clock::now();
        if (left <= left.zero()) return true;
        std::this_thread::sleep_for(std::min<Nanoseconds>(left, slice));
        bar.tick();
    }
    return false;
}

void ColdWatch::run() {
    Bar bar{options_.quiet || !environment_.err_is_terminal ? nullptr : environment_.err,
            options_.window, rounds_};
    on_each([](Watched& one) { one.watch->begin(); });
    // From the end of the last clearing, so that every process is watched for the whole window.
    Clock::time_point begin{};
    for (const auto& one : watched_) begin = std::max(begin, one->watch->round_began());
    bar.begin();
    for (std::uint64_t round = 1; round <= rounds_ && !interrupted_ && !watched_.empty(); ++round) {
        bar.round(round);
        const bool last = round == rounds_;
        const auto rounds = static_cast<std::int64_t>(round);
        interrupted_ = !sleep_until(begin + (last ? options_.window : interval_ * rounds), bar);
        on_each([&](Watched& one) {
            if (interrupted_) one.watch->interrupt();
            one.watch->end_round(last || interrupted_ ? cold::Last::yes : cold::Last::no);
        });
    }
}

void ColdWatch::finish(const std::function<void(cold::Watch&)>& take) {
    on_each([&](Watched& one) { take(*one.watch); });
}

} // namespace pagesift::cli
