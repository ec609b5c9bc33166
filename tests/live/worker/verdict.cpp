// SPDX-License-Identifier: MIT
#include "worker/verdict.hpp"

#include <algorithm>
#include <cstdlib>
#include <ostream>
#include <sstream>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

std::uint64_t ns(double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); }

std::uint64_t before(std::uint64_t time, double seconds) {
    return time - std::min(time, ns(seconds));
}

std::string as_time(double seconds) {
    std::ostringstream out;
    out << seconds << 's';
    return out.str();
}

/// Of the pages that share an accessed bit with this one.
bool unit_possibly(const History& history, const WorkerRange& range, std::uint64_t index,
                   std::uint64_t begin, std::uint64_t end) {
    const std::uint64_t first = index / range.unit_pages * range.unit_pages;
    for (std::uint64_t i = first; i < std::min(first + range.unit_pages, range.pages); ++i)
        if (history.possibly(range.first + i, begin, end)) return true;
    return false;
}

void judge_page(const History& history, const WorkerRange& range, std::uint64_t index,
                const Measured::Age* age, const Measured& measured, double least, Score& score) {
    const auto surely = [&](History::Row row, double seconds) {
        return history.surely(range.first + index, row,
                              std::max(before(measured.end, seconds), measured.latest_begin()),
                              measured.earliest_end());
    };
    const auto idle = age != nullptr ? age->idle_seconds : std::nullopt;
    ++score.pages;
    score.touched += surely(History::Row::sure, measured.window);
    score.unknown += age == nullptr || !age->said;
    score.idle_but_touched += idle && surely(History::Row::sure, *idle);
    score.idle_but_written += idle && surely(History::Row::wrote, *idle);
    // Between surely accessed and surely not lies what happened about when the program looked.
    const std::uint64_t since = measured.begin + ns(std::max(0.0, measured.window - least));
    const bool cold = !unit_possibly(history, range, index, since, measured.end);
    if (!cold && !surely(History::Row::sure, least)) {
        ++score.unclear;
        return;
    }
    const bool called = idle && *idle >= least;
    score.cold += cold;
    score.called_cold += called;
    score.both += cold && called;
}

double ratio(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 1 : static_cast<double>(part) / static_cast<double>(whole);
}

} // namespace

double window_seconds() {
    const char* wanted = std::getenv("PAGESIFT_COLD_SECONDS");
    return wanted != nullptr ? std::strtod(wanted, nullptr) : 3;
}

std::uint64_t Measured::latest_begin() const { return std::max(begin, before(end, window)); }
std::uint64_t Measured::earliest_end() const { return std::min(end, begin + ns(window)); }

const Measured::Age* Measured::find(std::uint64_t address) const {
    auto after = std::upper_bound(ages.begin(), ages.end(), address,
                                  [](std::uint64_t at, const Age& age) { return at < age.start; });
    if (after == ages.begin()) return nullptr;
    --after;
    return address < after->end ? &*after : nullptr;
}

Measured measure(pid_t pid, Rounds rounds, const std::vector<std::string>& arguments) {
    const double window = window_seconds();
    std::vector<std::string> all = {"cold", "--quiet", "--ranges", "--format", "json"};
    all.insert(all.end(),
               {"--window", as_time(window), "--interval",
                as_time(rounds == Rounds::one ? window : round_seconds), std::to_string(pid)});
    all.insert(all.end(), arguments.begin(), arguments.end());
    Measured measured;
    measured.begin = now_ns();
    auto outcome = run_pagesift(all, {.seconds = window + 60});
    measured.end = now_ns();
    measured.exit_code = outcome.exit_code;
    measured.err = std::move(outcome.err);
    const auto answer = json::parse(outcome.out, nullptr, false);
    if (!answer.is_array() || answer.size() != 1) return measured;
    measured.process = answer[0];
    const json seconds = field(measured.process, "window_seconds");
    REQUIRE(seconds.is_number());
    measured.window = seconds;
    CHECK(measured.window >= 0.9 * window);
    for (const json& step : field(measured.process, "idle_steps_seconds"))
        measured.steps.push_back(step);
    for (const json& range : field(measured.process, "ranges")) {
        const json idle = field(range, "idle_seconds");
        measured.ages.push_back(
            {address(range["start"]), address(range["end"]),
             idle.is_number() ? std::optional{idle.get<double>()} : std::nullopt,
             field(range, "activity") != "unknown"});
    }
    return measured;
}

Score& Score::operator+=(const Score& other) {
    pages += other.pages;
    touched += other.touched;
    unknown += other.unknown;
    unclear += other.unclear;
    idle_but_touched += other.idle_but_touched;
    idle_but_written += other.idle_but_written;
    cold += other.cold;
    called_cold += other.called_cold;
    both += other.both;
    return *this;
}

double Score::precision() const { return ratio(both, called_cold); }
double Score::recall() const { return ratio(both, cold); }

std::ostream& operator<<(std::ostream& out, const Score& score) {
    return out << score.pages << " pages, " << score.touched << " touched, " << score.unknown
               << " unknown, " << score.idle_but_touched << " touched and called idle; "
               << score.cold << " cold, " << score.called_cold << " called so, precision "
               << score.precision() << ", recall " << score.recall() << ", " << score.unclear
               << " too close to tell";
}

Scores judge_all(const WorkerProcess& worker, const History& history, const Measured& measured,
                 double least) {
    Scores scores;
    std::ostringstream text;
    for (const WorkerRange& range : worker.ranges()) {
        Score& score = scores[range.name()];
        for (std::uint64_t i = 0; i < range.pages; ++i)
            judge_page(history, range, i, measured.find(range.start + i * worker.page_size()),
                       measured, least, score);
        // All is well with most of them.
        if (score.unknown + score.idle_but_touched > 0 || score.both != score.cold ||
            score.both != score.called_cold)
            text << '\n' << range.name() << ": " << score;
        scores["all"] += score;
    }
    MESSAGE("idle for " << least << " s: " << scores["all"] << text.str());
    return scores;
}

} // namespace pagesift::live
