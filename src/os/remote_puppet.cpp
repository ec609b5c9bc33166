// SPDX-License-Identifier: MIT
#include "os/remote_puppet.hpp"

#include "pagesift/abi.hpp"
#include "pagesift/remote.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pagesift::os {

Puppet::Puppet(Tracer& tracer, const Root& root, pid_t child, const Parent& parent,
               Clock::time_point began)
    : tracer_(tracer),
      root_(root),
      pid_(child),
      room_(parent.room()),
      call_address_(parent.call_address()),
      errand_(arch::make_errand()),
      began_(began),
      base_(tracer.registers(child)) {}

std::int64_t Puppet::call(long number, const std::array<std::uint64_t, 4>& arguments) {
    tracer_.set_registers(pid_, arch::system_call(base_, call_address_, number, arguments),
                          "call prepared");
    while (true) {
        tracer_.single_step(pid_);
        tracer_.wait(pid_);
        // Still there: it was a signal that stopped it, before the call.
        const auto after = tracer_.registers(pid_);
        if (arch::instruction(after) != call_address_) return arch::result(after);
    }
}

void Puppet::begin_errand(std::uint64_t part, std::uint64_t first, std::uint64_t last,
                          std::uint64_t argument) {
    if (errand_address_ == 0) errand_address_ = room_.write_errand(errand_.code);
    tracer_.set_registers(pid_,
                          arch::on_errand(base_, errand_address_ + part, first, last, argument),
                          "sent on the errand");
    tracer_.resume(pid_);
}

std::pair<std::size_t, std::int64_t> Puppet::finish_errand(std::uint64_t first) {
    while (true) {
        tracer_.wait(pid_);
        const auto after = tracer_.registers(pid_);
        if (arch::instruction(after) == errand_address_ + errand_.end)
            return {arch::errand_position(after) - first, arch::result(after)};
        // A signal has stopped it. What it did itself it would do again.
        if (tracer_.is_fault(pid_))
            throw Error{ErrorKind::unsupported, fmt::format("process {}", pid_), 0, "",
                        "cannot run instructions behind the vdso of its parent"};
        tracer_.resume(pid_);
    }
}

std::pair<std::size_t, std::int64_t> Puppet::run_errand(std::uint64_t part, std::uint64_t first,
                                                        std::uint64_t last) {
    begin_errand(part, first, last);
    return finish_errand(first);
}

/// At most a list of threads: seizes them all, then waits for them all.
void Puppet::hold(std::span<const pid_t> threads) {
    const std::uint64_t first = room_.write_list(std::as_bytes(threads));
    const std::uint64_t last = first + threads.size_bytes();
    for (std::size_t at = 0; at < threads.size(); ++at) {
        const auto [done, result] = run_errand(errand_.seize, first + at * sizeof(pid_t), last);
        at += done / sizeof(pid_t);
        if (at == threads.size()) break;
        const auto error = static_cast<int>(-result);
        if (error != ESRCH && !has_ended(root_, threads[at]))
            throw Error{
                ErrorKind::denied, fmt::format("thread {}", threads[at]), error,
                "the target's own child must be let trace it: the target may be traced "
                "already, not dumpable (prctl PR_SET_DUMPABLE), or under a security module "
                "(kernel.yama.ptrace_scope, AppArmor)",
                fmt::format("cannot be stopped by a child of its process ({})", errno_name(error))};
        // Its number may come again.
        if (is_gone(root_, threads[at])) held_.erase(threads[at]);
    }
    try {
        run_errand(errand_.wait, first, last);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::failed) throw;
        for (const pid_t thread : threads)
            if (!stands_still(root_, thread))
                throw Error{ErrorKind::failed, fmt::format("thread {}", thread), 0,
                            "try again later: it sleeps where nothing wakes it",
                            "did not stop in time"};
        throw;
    }
}

bool Puppet::hold_new(std::uint32_t process) {
    // Each round holds all that were there when it began, so few are needed.
    static constexpr int most_rounds = 100;
    bool found = false;
    Patience patience;
    for (int round = 0; round < most_rounds; ++round, patience.pause()) {
        std::vector<pid_t> fresh;
        const auto threads = list_threads(root_, process);
        for (const pid_t thread : threads)
            if (held_.insert(thread).second) fresh.push_back(thread);
        const std::size_t most = room_.list_bytes() / sizeof(pid_t);
        for (std::size_t at = 0; at < fresh.size(); at += most)
            hold(std::span{fresh}.subspan(at, std::min(most, fresh.size() - at)));
        found = found || !fresh.empty();
        // The list may be short; who is not in it is counted nevertheless.
        if (fresh.empty() && threads.size() >= count_threads(root_, process)) return found;
    }
    throw Error{ErrorKind::failed, fmt::format("process {}", process), 0, "try again",
                "makes threads without end"};
}

void Puppet::hold_all(std::uint32_t target, pid_t parent, Sharers& sharers) {
    held_ = {parent};
    for (bool found = true; found;) {
        found = false;
        // One process after the other, the target first: a thread of it that waits in vfork(2)
        // stands still only when its child, which shares the memory until then, has called
        // execve(2).
        for (const std::uint32_t process : sharers.look_again(target, pid_))
            found = hold_new(process) || found;
    }
}

void Puppet::begin_advice(std::span<const AddressRange> ranges, int advice) {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    advice_ = advice;
    asked_.clear();
    for (const AddressRange& range : ranges)
        asked_.push_back(range.start.value + range.size().value / page);
    if (!asked_.empty()) send_asked(0);
}

void Puppet::send_asked(std::size_t from) {
    const auto bytes = std::as_bytes(std::span{asked_}.subspan(from));
    list_ = room_.write_list(bytes);
    begin_errand(errand_.advise, list_, list_ + bytes.size(), static_cast<std::uint64_t>(advice_));
}

std::vector<int> Puppet::finish_advice() {
    std::vector<int> errors;
    while (errors.size() < asked_.size()) {
        const auto [done, result] = finish_errand(list_);
        errors.resize(errors.size() + done / sizeof(std::uint64_t), 0);
        if (errors.size() == asked_.size()) break;
        // One that was refused is passed over.
        errors.push_back(static_cast<int>(-result));
        if (errors.size() < asked_.size()) send_asked(errors.size());
    }
    asked_.clear();
    return errors;
}

void Puppet::end() {
    ::kill(pid_, SIGKILL);
    tracer_.step("child killed");
    tracer_.wait_for_end(pid_);
}

const Fd& Puppet::page_map() {
    if (!page_map_) page_map_ = root_.open(fmt::format("proc/{}/pagemap", pid_), O_RDONLY).fd;
    return page_map_;
}

// What the work sees ------------------------------------------------------------------------------

std::uint32_t StoppedProcess::witness() const { return static_cast<std::uint32_t>(puppet_.pid()); }

std::vector<std::uint32_t> StoppedProcess::threads() const {
    std::vector<std::uint32_t> threads;
    for (const pid_t thread : puppet_.threads())
        threads.push_back(static_cast<std::uint32_t>(thread));
    return threads;
}

bool StoppedProcess::is_empty(AddressRange range) {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    if (range.empty() || range.start.value % page != 0 || range.end.value % page != 0) return false;
    std::array<std::uint64_t, 512> words;
    for (std::uint64_t at = range.start.value / page; at < range.end.value / page;) {
        const std::span<std::uint64_t> part{
            words.data(), static_cast<std::size_t>(
                              std::min<std::uint64_t>(words.size(), range.end.value / page - at))};
        const auto got = read_words(puppet_.page_map().get(), at, part);
        if (got != static_cast<std::int64_t>(part.size())) return false;
        for (const std::uint64_t word : part)
            if ((word & ~abi::PM_SOFT_DIRTY) != 0) return false;
        at += part.size();
    }
    return true;
}

int StoppedProcess::advise(AddressRange range, int advice) {
    const auto result = puppet_.call(SYS_madvise, {range.start.value, range.size().value,
                                                   static_cast<std::uint64_t>(advice), 0});
    return result < 0 ? static_cast<int>(-result) : 0;
}

bool StoppedProcess::begin_advice(std::span<const AddressRange> ranges, int advice) {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    const auto fits = [&](const AddressRange& range) {
        return range.start.value % page == 0 && range.size().value % page == 0 &&
               range.size().value / page < arch::errand_most_pages;
    };
    if (ranges.size() > most_together() || !std::all_of(ranges.begin(), ranges.end(), fits))
        return false;
    puppet_.begin_advice(ranges, advice);
    return true;
}

std::size_t StoppedProcess::most_together() const { return puppet_.most_together(); }

std::vector<int> StoppedProcess::finish_advice() { return puppet_.finish_advice(); }

std::chrono::nanoseconds StoppedProcess::elapsed() const {
    return Puppet::Clock::now() - puppet_.began();
}

} // namespace pagesift::os
