// SPDX-License-Identifier: MIT
// The page tables of the whole machine, and whose they are.
#include "exact/exact.hpp"
#include "os/page_table_census.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

using os::PageTableCensus;
using os::ProcessTables;

namespace {

constexpr std::size_t slot = 512 * page;

/// The machine through this lens; nothing where the test is skipped.
std::optional<os::Machine> try_machine(const os::OpenOptions& options) {
    if (!open_view(options.without)) return {}; // which says why
    return os::open_machine(options);
}

os::OpenOptions exact_lens(std::set<std::string> without = {}) {
    os::OpenOptions options;
    options.lens = os::OpenOptions::Lens::exact;
    options.without = std::move(without);
    return options;
}

/// A line of a file of /proc in bytes.
std::uint64_t field_of(pid_t pid, const std::string& file, const std::string& name) {
    const auto text = slurp("/proc/" + std::to_string(pid) + "/" + file);
    const auto at = text.find(name + ":");
    return at == text.npos ? 0 : std::stoull(text.substr(at + name.size() + 1)) * 1024;
}

const ProcessTables* find(const PageTableCensus& census, pid_t pid) {
    const auto found = std::find_if(
        census.processes.begin(), census.processes.end(),
        [&](const ProcessTables& one) { return one.pid == static_cast<std::uint32_t>(pid); });
    return found == census.processes.end() ? nullptr : &*found;
}

/// The tables of those levels that VmPTE counts.
std::uint64_t counted(const ProcessTables& process) {
    return process.tables[0] + process.tables[1] + process.tables[2];
}

/// How many tables have no type on this kernel if @p untyped were seen without: none, or all from
/// some level upwards, but never PTE or PMD tables.
std::uint64_t explained(const PageTableCensus& census, std::uint64_t untyped) {
    std::array<std::uint64_t, 5> sums{};
    for (const auto& process : census.processes)
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += process.tables[i];
    std::uint64_t best = 0, above = 0;
    for (std::size_t level = sums.size(); level-- > 2;) {
        above += sums[level];
        if (above <= untyped) best = above;
    }
    return best;
}

/// A child that stands still each time it has done something: first nothing, then @p empty tables
/// that hold nothing and one huge page where there are such.
class Fixture {
public:
    explicit Fixture(std::size_t empty)
        : child_([empty](const auto& ready) {
              auto* const memory =
                  static_cast<char*>(::mmap(nullptr, (empty + 2) * slot, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
              const auto misplaced = reinterpret_cast<std::uintptr_t>(memory) % slot;
              auto* const start = memory + (slot - misplaced) % slot;
              ::madvise(start, empty * slot, MADV_NOHUGEPAGE);
              ::madvise(start + empty * slot, slot, MADV_HUGEPAGE);
              ready();
              ::raise(SIGSTOP);
              for (std::size_t i = 0; i < empty; ++i) start[i * slot] = 1;
              // One page at a time: a call for a whole slot may free its table as well.
              for (std::size_t i = 0; i < empty; ++i)
                  ::madvise(start + i * slot, page, MADV_DONTNEED);
              start[empty * slot] = 1;
              ::raise(SIGSTOP);
          }) {
        wait_until_stopped(child_.pid());
    }
    void go_on() const {
        ::kill(child_.pid(), SIGCONT);
        // It is no longer stopped once the signal is sent.
        wait_until_stopped(child_.pid());
    }
    pid_t pid() const { return child_.pid(); }

private:
    Child child_;
};

} // namespace

TEST_CASE("exact reader: of all processes, the one that holds empty tables is named") {
    if (!have_root()) return;
    const auto options = exact_lens({"kpageflags"});
    const auto machine = try_machine(options);
    if (!machine) return;
    constexpr std::size_t empty = 300;
    const Fixture fixture{empty};
    const auto before = os::count_page_tables(*machine, options);
    fixture.go_on();
    const auto after = os::count_page_tables(*machine, options);
    const auto* const first = find(before, fixture.pid());
    const auto* const second = find(after, fixture.pid());
    REQUIRE(first);
    REQUIRE(second);
    CHECK(second->empty_tables == first->empty_tables + empty);
    CHECK(second->comm + '\n' == slurp("/proc/" + std::to_string(fixture.pid()) + "/comm"));
    CHECK(std::is_sorted(
        after.processes.begin(), after.processes.end(),
        [](const auto& a, const auto& b) { return a.empty_tables > b.empty_tables; }));
    CHECK_FALSE(after.typed);
    CHECK(after.gaps.size() == 1);
}

TEST_CASE("exact reader: the sum of the walks is VmPTE, of a process that stands still") {
    if (!have_root()) return;
    const auto options = exact_lens({"kpageflags"});
    const auto machine = try_machine(options);
    if (!machine) return;
    const Fixture fixture{20};
    fixture.go_on();
    const auto census = os::count_page_tables(*machine, options);
    const auto* const process = find(census, fixture.pid());
    REQUIRE(process);
    CHECK(process->vm_pte_bytes == field_of(fixture.pid(), "status", "VmPTE"));
    // Huge pages have a table in reserve.
    const auto huge = field_of(fixture.pid(), "smaps_rollup", "AnonHugePages") / slot;
    CHECK(process->deposited_tables == huge);
    CHECK((counted(*process) + huge) * page == process->vm_pte_bytes);
    CHECK(process->unknown == 0);
    const auto through = exact_lens({"bpf", "kpageflags"});
    if (const auto other = try_machine(through)) {
        const auto again = os::count_page_tables(*other, through);
        REQUIRE(find(again, fixture.pid()));
        CHECK(find(again, fixture.pid())->tables == process->tables);
        CHECK(find(again, fixture.pid())->empty_tables == process->empty_tables);
    }
}

TEST_CASE("exact reader: processes that share an address space are one") {
    if (!have_root()) return;
    const auto options = exact_lens({"kpageflags"});
    const auto machine = try_machine(options);
    if (!machine) return;
    // A child of vfork(2) runs in its parent's memory, and the parent waits for it.
    auto* const child = static_cast<std::atomic<pid_t>*>(
        ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const Child parent{[&](const auto& ready) {
        ready();
        if (::vfork() != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        *child = ::getpid();
        for (;;) ::pause();
    }};
    for (int i = 0; i < 5000 && *child == 0; ++i) ::usleep(1000);
    REQUIRE(*child != 0);
    const auto census = os::count_page_tables(*machine, options);
    const auto* const one = find(census, parent.pid());
    const auto* const other = find(census, *child);
    CHECK((one == nullptr) != (other == nullptr));
    REQUIRE((one || other));
    CHECK((one ? one : other)->sharers == 2);
    ::munmap(child, page);
}

TEST_CASE("exact reader: every table that a walk meets has the type of page tables") {
    const auto view = open_view();
    if (!view || !have_root()) return;
    const Fixture fixture{20};
    fixture.go_on();
    const int fd = open_pagemap(std::to_string(fixture.pid()));
    const auto top = view->find_top_table(fd);
    REQUIRE(top);
    os::TableFrames frames;
    os::add_table_frames(*view, *top, os::Half::user, frames);
    const auto& format = view->kernel().entries;
    const auto counts = walk::walk_tables(
        view->memory(), view->kernel(), *top,
        {Address{0}, Address{std::uint64_t{1} << format.address_bits}}, [](const auto&) {});
    ::close(fd);
    const int flags = ::open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    REQUIRE(flags >= 0);
    for (unsigned level = 0; level < format.levels; ++level) {
        CAPTURE(level);
        REQUIRE(frames[level].size() == counts.tables[level]);
        std::vector<std::uint8_t> said(frames[level].size());
        walk::read_page_tables(view->memory(), view->kernel(), frames[level], said);
        std::size_t typed = 0, otherwise = 0;
        for (std::size_t i = 0; i < frames[level].size(); ++i) {
            std::uint64_t word = 0;
            REQUIRE(::pread(flags, &word, 8, static_cast<off_t>(frames[level][i] * 8)) == 8);
            const bool is_table = (word & abi::kpf(abi::KPF_PGTABLE)) != 0;
            typed += is_table;
            otherwise += said[i] != 0xff && (said[i] != 0) != is_table;
        }
        CHECK(otherwise == 0);
        // Those above are typed by newer kernels only: of 6.1 none, of 6.12 PUD tables, then all.
        CHECK((typed == frames[level].size() || (level >= 2 && typed == 0)));
        MESSAGE("level ", level + 1, ": ", typed, " of ", frames[level].size(), " typed");
    }
    ::close(flags);
}

namespace {

/// Tables that came or went between two looks, in every process.
std::uint64_t moved(const PageTableCensus& before, const PageTableCensus& after) {
    std::uint64_t sum = 0;
    const auto add = [&](const ProcessTables& one, const ProcessTables* other) {
        const auto had = other ? counted(*other) : 0;
        sum += counted(one) > had ? counted(one) - had : had - counted(one);
    };
    for (const auto& one : before.processes) add(one, find(after, static_cast<pid_t>(one.pid)));
    for (const auto& one : after.processes)
        if (!find(before, static_cast<pid_t>(one.pid))) add(one, nullptr);
    return sum;
}

/// What does not hold of a census while @p movement tables came or went; empty: all does.
std::string broken(const PageTableCensus& census, std::uint64_t movement) {
    constexpr std::uint64_t tolerance = 64; // what the kernel has beside, and ended processes
    // However much moves, a whole part that is left out must show: the kernel's are over a hundred.
    const std::uint64_t slack = std::min(movement, tolerance);
    const auto& typed = *census.typed;
    const auto untyped = census.frames - typed.of_processes;
    if (untyped > explained(census, untyped) + slack)
        return std::to_string(untyped) + " tables have not the type of page tables";
    // Other namespaces may have any number of processes.
    const bool sees_all =
        std::filesystem::read_symlink("/proc/self/ns/pid").string() == "pid:[4026531836]";
    const auto nobodys = census.unattributed();
    const auto least = -static_cast<std::int64_t>(slack);
    const auto most = static_cast<std::int64_t>(slack + tolerance);
    if (nobodys < least || (sees_all && nobodys > most))
        return std::to_string(nobodys) + " frames are nobody's";
    return "";
}

std::string describe(const PageTableCensus& census, std::uint64_t movement) {
    const auto& typed = *census.typed;
    std::ostringstream text;
    text << typed.all << " frames: " << typed.of_processes << " of " << census.processes.size()
         << " processes, " << census.deposited_tables() << " in reserve, " << typed.of_kernel
         << " of the kernel, " << census.not_read_tables << " of " << census.not_read
         << " processes that cannot be read, " << census.unattributed() << " nobody's; "
         << census.frames - typed.of_processes << " tables without the type; " << movement
         << " came or went";
    return text.str();
}

} // namespace

TEST_CASE("exact reader: the machine's page tables are those of its processes and its kernel") {
    if (!have_root()) return;
    const auto options = exact_lens(), walks_only = exact_lens({"kpageflags"});
    const auto machine = try_machine(options);
    if (!machine) return;
    const Fixture fixture{300};
    fixture.go_on();
    // Programs that run while it is counted make and free tables; a fault of ours shows each time.
    std::string wrong = "not tried";
    for (int tries = 0; tries < 20 && !wrong.empty(); ++tries) {
        const auto before = os::count_page_tables(*machine, walks_only);
        PageTableCensus census;
        const double taken =
            milliseconds([&] { census = os::count_page_tables(*machine, options); });
        PageTableCensus after;
        const double walks =
            milliseconds([&] { after = os::count_page_tables(*machine, walks_only); });
        const auto movement = moved(before, after);
        REQUIRE(census.typed);
        CHECK(census.typed->of_processes >= 300);
        wrong = broken(census, movement);
        MESSAGE(describe(census, movement), "; ", taken, " ms, of which walks ", walks, " ms");
    }
    CHECK(wrong == "");
}

TEST_CASE("exact reader: the walks of all processes agree with what the kernel counts") {
    if (!have_root()) return;
    const auto options = exact_lens({"kpageflags"});
    const auto machine = try_machine(options);
    if (!machine) return;
    const auto before = os::count_page_tables(*machine, options);
    const auto after = os::count_page_tables(*machine, options);
    std::size_t compared = 0;
    for (const auto& one : after.processes) {
        const auto pid = static_cast<pid_t>(one.pid);
        const auto* const other = find(before, pid);
        if (!other || other->tables != one.tables || other->vm_pte_bytes != one.vm_pte_bytes ||
            one.vm_pte_bytes != field_of(pid, "status", "VmPTE"))
            continue; // it runs
        ++compared;
        CAPTURE(pid);
        CHECK(one.unknown == 0);
        CHECK((counted(one) + one.deposited_tables) * page == one.vm_pte_bytes);
        // A huge page that is all zero has a table in reserve as well, and is nowhere counted.
        CHECK(one.deposited_tables >= field_of(pid, "smaps_rollup", "AnonHugePages") / slot);
    }
    MESSAGE(compared, " of ", after.processes.size(), " processes compared");
    CHECK(compared > 0);
}

} // namespace pagesift::live
