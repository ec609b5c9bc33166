// SPDX-License-Identifier: MIT
#include "cli/scan.hpp"

#include <cmath>
#include <ctime>
#include <fmt/format.h>
#include <fmt/ostream.h>

namespace pagesift::cli {
namespace {

using Seconds = std::chrono::duration<double>;

/// What a process costs beside its pages, as if it had so many bytes more.
constexpr std::uint64_t bytes_beside = 64 << 20;
/// How much longer than on average a process may take, byte for byte.
constexpr double leeway = 2;
constexpr std::chrono::milliseconds least{50};
/// What is in flight at SIGINT may be finished within this time.
constexpr std::chrono::milliseconds grace{1000};
/// Of the progress bar: until it shows, and between two drawings.
constexpr std::chrono::milliseconds silence{500}, between{100};

/// Processor time of all threads of this process.
double cpu_clock() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

} // namespace

void sleep_until(Clock::time_point end, const Environment& environment) {
    static constexpr std::chrono::milliseconds slice{50};
    while (!(environment.interrupted && environment.interrupted())) {
        const auto left = end - Clock::now();
        if (left <= left.zero()) return;
        std::this_thread::sleep_for(std::min<Nanoseconds>(left, slice));
    }
}

Budget::Budget(const ScanPlan& plan, const Environment& environment)
    : environment_(environment),
      pace_(plan.cpu_share),
      paced_(plan.cpu_share > 0),
      jobs_(plan.jobs),
      cpu_begin_(cpu_clock()) {
    if (plan.max_time) end_ = begin_ + *plan.max_time;
}

void Budget::expect(std::size_t processes, std::uint64_t bytes) {
    bytes_left_ = processes * bytes_beside + bytes;
}

Budget::Share Budget::share(std::uint64_t bytes) {
    Share share;
    if (!end_) return share;
    const std::uint64_t mine = bytes + bytes_beside;
    const auto left = std::max(bytes_left_.fetch_sub(mine), mine);
    const double part = leeway * jobs_ * static_cast<double>(mine) / static_cast<double>(left);
    const auto now = Clock::now();
    const auto time = std::chrono::duration_cast<Nanoseconds>(part * Seconds{*end_ - now});
    share.end = std::min(*end_, now + std::max<Nanoseconds>(time, least));
    return share;
}

void Budget::rest() {
    if (!paced_) return;
    const auto cpu = std::chrono::duration_cast<Nanoseconds>(Seconds{cpu_seconds()});
    const auto pause = pace_.rest(Clock::now() - begin_, cpu);
    // Behind the end of the scan there is no more work to wait for.
    if (pause > pause.zero())
        sleep_until(std::min(Clock::now() + pause, end_.value_or(Clock::time_point::max())),
                    environment_);
}

bool Budget::stop(Share& share) {
    rest();
    const auto now = Clock::now();
    if (interrupted()) {
        const std::lock_guard lock{mutex_};
        if (!interrupted_at_) interrupted_at_ = now;
        if (now - *interrupted_at_ >= grace) share.used_up = true;
    }
    if (share.end && now >= *share.end) share.used_up = true;
    return share.used_up;
}

bool Budget::over() const { return interrupted() || (end_ && Clock::now() >= *end_); }

double Budget::elapsed_seconds() const { return Seconds{Clock::now() - begin_}.count(); }

double Budget::cpu_seconds() const { return cpu_clock() - cpu_begin_; }

Progress::Progress(std::ostream* out, std::size_t processes, std::uint64_t bytes)
    : out_(out), processes_(processes), bytes_(bytes), next_(begin_ + silence) {}

Progress::~Progress() {
    if (!drawn_) return;
    try {
        fmt::print(*out_, "\r\033[K");
        out_->flush();
    } catch (...) { // NOLINT(bugprone-empty-catch): a bar that stays is no reason to end
    }
}

void Progress::add(std::uint64_t bytes) {
    if (!out_) return;
    {
        const std::lock_guard lock{mutex_};
        ++processes_done_;
        bytes_done_ += bytes;
    }
    tick();
}

void Progress::advance(std::uint64_t bytes) {
    if (!out_) return;
    {
        const std::lock_guard lock{mutex_};
        bytes_done_ += bytes;
    }
    tick();
}

void Progress::tick() {
    if (!out_) return;
    const std::lock_guard lock{mutex_};
    const auto now = Clock::now();
    if (now < next_) return;
    next_ = now + between;
    drawn_ = true;
    draw();
}

void Progress::draw() {
    static constexpr std::size_t cells = 20;
    const auto weight = [](std::size_t processes, std::uint64_t bytes) {
        return static_cast<double>(processes * bytes_beside + bytes);
    };
    const double all = weight(processes_, bytes_);
    const double share = all > 0 ? weight(processes_done_, bytes_done_) / all : 1;
    std::string bar(static_cast<std::size_t>(share * cells), '#');
    bar.resize(cells, ' ');
    std::string left;
    if (share > 0.01) {
        const double seconds = Seconds{Clock::now() - begin_}.count() * (1 - share) / share;
        const auto whole = std::llround(seconds);
        left = fmt::format(", {}:{:02} left", whole / 60, whole % 60);
    }
    fmt::print(*out_, "\r[{}] {}/{} processes, {}/{}{}\033[K", bar, processes_done_, processes_,
               human_bytes(bytes_done_), human_bytes(bytes_), left);
    out_->flush();
}

} // namespace pagesift::cli
