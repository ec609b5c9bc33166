// SPDX-License-Identifier: MIT
// Several processes, watched in one window.
#pragma once

#include "cli/cold.hpp"

#include <exception>

namespace pagesift::cli {

class ColdWatch {
public:
    /// Opens all processes; what goes wrong with one is a message. Throws Error(usage).
    ColdWatch(std::span<const std::uint32_t> pids, const os::Machine& machine,
              const MeasureOptions& options, const Environment& environment);
    ~ColdWatch();
    ColdWatch(const ColdWatch&) = delete;
    ColdWatch& operator=(const ColdWatch&) = delete;

    /// Waits until the window is over, or SIGINT.
    void run();
    /// For each process in turn that was watched to the end: @p take finishes its watch.
    void finish(const std::function<void(cold::Watch&)>& take);

    std::size_t failed() const { return failed_; } ///< processes that could not be watched
    bool interrupted() const { return interrupted_; }

private:
    struct Watched;
    class Bar;

    void say_what_it_costs() const;
    void on_each(const std::function<void(Watched&)>& act);
    void fail(const Error& error); ///< in its handler
    bool sleep_until(std::chrono::steady_clock::time_point end, Bar& bar) const;

    const MeasureOptions& options_;
    const Environment& environment_;
    std::chrono::nanoseconds interval_;
    std::uint64_t rounds_;
    std::vector<std::unique_ptr<Watched>> watched_;
    std::exception_ptr last_error_;
    std::size_t failed_ = 0;
    bool interrupted_ = false;
};

} // namespace pagesift::cli
