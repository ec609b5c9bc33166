// SPDX-License-Identifier: MIT
#include "os/access_target.hpp"

#include "os/probe.hpp"
#include "os/scan.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The leader's files are empty once it has exited; those of another thread show the same memory.
std::string find_base(const Root& root, std::uint32_t pid) {
    std::string base = fmt::format("proc/{}", pid);
    if (procfs::parse_status(root.read_text(base + "/status").text).has_memory()) return base;
    for (const auto& thread : root.list(base + "/task")) {
        std::string other = "proc/" + thread;
        if (procfs::parse_status(root.read_text(other + "/status").text).has_memory()) return other;
    }
    return base;
}

} // namespace

AccessTarget::AccessTarget(std::uint32_t pid, const OpenOptions& options, const HostFacts& host)
    : root_(options.root),
      pid_(pid),
      base_(find_base(root_, pid)),
      page_size_(host.page_size),
      leaps_(!options.without.contains("pagemap-scan") && host_has_pagemap_scan()) {
    auto opened = root_.open(base_ + "/pagemap", O_RDONLY);
    if (!opened.fd) {
        if (opened.error == ENOENT || opened.error == ESRCH) throw_gone();
        throw Error{ErrorKind::denied, "/" + base_ + "/pagemap", opened.error,
                    "needs the target's uid, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"};
    }
    pagemap_ = std::move(opened.fd);
}

void AccessTarget::throw_gone() const {
    throw Error{ErrorKind::gone, fmt::format("pid {}", pid_), 0, "",
                "the process ended, or replaced its memory, while it was watched"};
}

Address AccessTarget::next_populated(AddressRange range) const {
    if (!leaps_ || range.empty()) return range.start;
    return os::next_populated(pagemap_.get(), range).value_or(range.start);
}

OpenResult AccessTarget::open_clear_refs() const {
    return root_.open(base_ + "/clear_refs", O_WRONLY);
}

void AccessTarget::expect_alive(const std::vector<Mapping>& mappings) const {
    std::uint64_t word = 0;
    // The descriptor stays with the memory that it was opened on, whatever process has the number
    // now and whatever program that runs; of memory that is gone nothing can be read.
    if (mappings.empty() ||
        read_words(pagemap_.get(), mappings.front().range.start.value / page_size_, {&word, 1}) <=
            0)
        throw_gone();
}

std::optional<std::uint64_t> AccessTarget::faults() const {
    // proc_pid_stat(5): minflt is field 10, majflt field 12; they include the other threads'.
    const std::string stat = root_.read_text(fmt::format("proc/{}/stat", pid_)).text;
    const auto behind_name = stat.rfind(')');
    if (behind_name == stat.npos) return {};
    std::uint64_t sum = 0;
    unsigned field = 2;
    for (std::size_t at = behind_name + 1; at < stat.size() && field <= 12;) {
        const auto begin = stat.find_first_not_of(' ', at);
        if (begin == stat.npos) return {};
        at = std::min(stat.find(' ', begin), stat.size());
        ++field;
        if (field != 10 && field != 12) continue;
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(stat.data() + begin, stat.data() + at, value);
        if (error != std::errc{} || end != stat.data() + at) return {};
        sum += value;
    }
    return field > 12 ? std::optional{sum} : std::nullopt;
}

std::vector<unsigned> AccessTarget::processors() const {
    // Every other one is too many threads for a set on the stack; beyond its size nothing is known.
    std::vector<bool> allowed(CPU_SETSIZE, false);
    for (const auto& thread : root_.list(fmt::format("proc/{}/task", pid_))) {
        pid_t tid = 0;
        std::from_chars(thread.data() + thread.rfind('/') + 1, thread.data() + thread.size(), tid);
        cpu_set_t set;
        CPU_ZERO(&set);
        if (tid == 0 || ::sched_getaffinity(tid, sizeof set, &set) != 0) continue;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &set)) allowed[static_cast<std::size_t>(cpu)] = true;
    }
    const auto online = static_cast<unsigned>(std::max(::sysconf(_SC_NPROCESSORS_CONF), 1L));
    std::vector<unsigned> found;
    for (unsigned cpu = 0; cpu < std::min<std::size_t>(online, allowed.size()); ++cpu)
        if (allowed[cpu]) found.push_back(cpu);
    return found;
}

template <class Take> void PageNotes::each(AddressRange range, bool make, Take&& take) {
    const std::uint64_t first = range.start.value / page_size_;
    const std::uint64_t end = range.end.value / page_size_;
    for (std::uint64_t page = first; page < end;) {
        const std::uint64_t slot = page % chunk_pages;
        const std::uint64_t count = std::min(chunk_pages - slot, end - page);
        std::uint64_t* chunk = nullptr;
        {
            const std::lock_guard lock{mutex_};
            if (make) {
                Chunk& made = chunks_[page / chunk_pages];
                if (!made) made = std::make_unique<std::uint64_t[]>(chunk_pages);
                chunk = made.get();
            } else if (const auto found = chunks_.find(page / chunk_pages);
                       found != chunks_.end()) {
                chunk = found->second.get();
            }
        }
        take(page - first, count, chunk ? chunk + slot : nullptr);
        page += count;
    }
}

void PageNotes::get(AddressRange range, std::span<std::uint64_t> notes) {
    each(range, false, [&](std::size_t at, std::size_t count, const std::uint64_t* chunk) {
        const auto part = notes.subspan(at, count);
        if (chunk)
            std::copy_n(chunk, count, part.begin());
        else
            std::fill(part.begin(), part.end(), 0);
    });
}

void PageNotes::set(AddressRange range, std::span<const std::uint64_t> notes) {
    const std::uint64_t first = range.start.value / page_size_;
    for (std::size_t i = 0; i < notes.size();) {
        const std::uint64_t slot = (first + i) % chunk_pages;
        const std::size_t count = std::min<std::size_t>(chunk_pages - slot, notes.size() - i);
        const auto part = notes.subspan(i, count);
        const bool any = std::any_of(part.begin(), part.end(), [](auto note) { return note != 0; });
        const Address start{(first + i) * page_size_};
        each({start, start + Bytes{count * page_size_}}, any,
             [&](std::size_t, std::size_t, std::uint64_t* chunk) {
                 if (chunk) std::copy(part.begin(), part.end(), chunk);
             });
        i += count;
    }
}

void PageNotes::clear(AddressRange range) {
    if (range.empty()) return;
    const std::lock_guard lock{mutex_};
    const std::uint64_t chunk_bytes = chunk_pages * page_size_;
    for (auto found = chunks_.lower_bound(range.start.value / chunk_bytes);
         found != chunks_.end() && found->first * chunk_bytes < range.end.value; ++found) {
        const Address start{found->first * chunk_bytes};
        const AddressRange part = range.intersect({start, start + Bytes{chunk_bytes}});
        std::fill_n(found->second.get() + (part.start - start).value / page_size_,
                    part.size().value / page_size_, 0);
    }
}

RefClearer::RefClearer(const AccessTarget& target, const HostFacts& host)
    : target_(target),
      flushes_by_write_(host.soft_dirty == false || !target.root().live()),
      live_(target.root().live()) {
    auto opened = target.open_clear_refs();
    if (!opened.fd)
        throw Error{ErrorKind::denied, "/" + target.base() + "/clear_refs", opened.error,
                    "needs the target's uid, or CAP_DAC_OVERRIDE"};
    file_ = std::move(opened.fd);
}

double RefClearer::write(char what) {
    const auto begin = Clock::now();
    // The process of this descriptor, or none: its number may be another's by now.
    while (::write(file_.get(), &what, 1) != 1) {
        if (errno == ESRCH) target_.throw_gone();
        if (errno != EINTR)
            throw Error{ErrorKind::failed, "/" + target_.base() + "/clear_refs", errno};
    }
    return seconds_since(begin);
}

ForgetCost RefClearer::clear_soft_dirty() {
    const double locked = write('4');
    return {locked, locked};
}

ForgetCost RefClearer::clear() {
    const auto begin = Clock::now();
    const double locked = write('1');
    const ForgetCost flushed = flush();
    return {seconds_since(begin), locked + flushed.locked_seconds};
}

ForgetCost RefClearer::flush() {
    const auto begin = Clock::now();
    double locked = 0;
    if (flushes_by_write_)
        locked = write('4');
    else if (live_)
        visit_processors(target_.processors());
    return {seconds_since(begin), locked};
}

namespace {

/// In a child: nothing that another thread of its parent may have held a lock on.
[[noreturn]] void visit(const std::vector<unsigned>& processors) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (const unsigned cpu : processors) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        // Where it comes back, it runs there. A processor on which it may not run is left out.
        ::sched_setaffinity(0, sizeof set, &set);
    }
    ::_exit(0);
}

} // namespace

void visit_processors(const std::vector<unsigned>& processors) {
    static constexpr std::size_t visitors = 8; // more than TLB_NR_DYN_ASIDS
    std::array<pid_t, visitors> children{};
    for (pid_t& child : children) {
        child = ::fork();
        if (child == 0) visit(processors);
    }
    for (const pid_t child : children)
        while (child > 0 && ::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
        }
}

} // namespace pagesift::os
