// SPDX-License-Identifier: MIT
// The child of the target that makes the calls, and that keeps all other threads still. Why it is
// the child that does so: remote_parent.hpp.
#pragma once

#include "os/remote_checks.hpp"
#include "os/remote_parent.hpp"

#include <array>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace pagesift::os {

class Puppet {
public:
    using Clock = Tracer::Clock;

    /// @param child of @p parent: traced, stopped, and not run yet
    Puppet(Tracer& tracer, const Root& root, pid_t child, const Parent& parent,
           Clock::time_point began);

    /// Makes a system call: its value or -errno. Signals to the child are swallowed: what is sent
    /// to the target's process group reaches the target's own threads.
    std::int64_t call(long number, const std::array<std::uint64_t, 4>& arguments);

    /// Stops every thread of the target and of all that share its memory, again and again until
    /// there is no new one. Afterwards they stand still as long as the child lives.
    /// @param parent is stopped already
    /// @throws Error denied: the child may not trace a thread; failed: one did not stop in time
    void hold_all(std::uint32_t target, pid_t parent, Sharers& sharers);

    /// madvise(2) on one range after the other, which goes on until finish_advice(): 0 or an errno
    /// for each. As many as the list takes, each of fewer than arch::errand_most_pages pages.
    void begin_advice(std::span<const AddressRange> ranges, int advice);
    std::vector<int> finish_advice();
    std::size_t most_together() const { return room_.list_bytes() / sizeof(std::uint64_t); }

    /// Ends the child. All that it held go on.
    void end();

    pid_t pid() const { return pid_; }
    const Root& root() const { return root_; }
    Clock::time_point began() const { return began_; }
    unsigned held() const { return static_cast<unsigned>(held_.size()); }
    const std::set<pid_t>& threads() const { return held_; } ///< that stand still
    const Fd& page_map(); ///< of the child; opened when it is first asked for

private:
    bool hold_new(std::uint32_t process); ///< whether there were any
    void hold(std::span<const pid_t> threads);
    /// One part of the errand: how many bytes of the list it went through, and result() there.
    std::pair<std::size_t, std::int64_t> run_errand(std::uint64_t part, std::uint64_t first,
                                                    std::uint64_t last);
    void begin_errand(std::uint64_t part, std::uint64_t first, std::uint64_t last,
                      std::uint64_t argument = 0);
    std::pair<std::size_t, std::int64_t> finish_errand(std::uint64_t first);
    void send_asked(std::size_t from);

    Tracer& tracer_;
    const Root& root_;
    pid_t pid_;
    const DetourRoom& room_;
    std::uint64_t call_address_;
    arch::Errand errand_;
    std::uint64_t errand_address_ = 0;
    std::vector<std::uint64_t> asked_; ///< of begin_advice, as the errand has them
    std::uint64_t list_ = 0;
    int advice_ = 0;
    Clock::time_point began_;
    arch::Registers base_;
    std::set<pid_t> held_; ///< the parent among them
    Fd page_map_;
};

} // namespace pagesift::os
