// SPDX-License-Identifier: MIT
// Both lenses beside each other, what only the exact one says, and how it is asked for.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <linux/capability.h>
#include <set>
#include <sstream>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

constexpr std::size_t page = 4096;

bool is_open(const json& value) { return value.is_null() || value == "unknown"; }

/// What other programs change at any moment: who else maps the page of a file.
bool is_of_others(const json& entry, const std::string& key) {
    return field(entry, "kind") == "file" && (key == "sharers" || key == "exclusive");
}

/// kpageflags without what reclaim, write-back and the reader itself change: mmap, swapbacked,
/// anon, compound, huge, thp, slab, zero_page, reserved, mlocked, unevictable, owner_2, offline.
std::uint64_t lasting_flags(const json& value) {
    constexpr std::uint64_t lasting = 0x7'01c7'd880;
    return value.is_string() ? std::stoull(value.get<std::string>(), nullptr, 16) & lasting : 0;
}

bool is_same(const std::string& key, const json& one, const json& other) {
    return key == "flags" ? lasting_flags(one) == lasting_flags(other) : one == other;
}

/// What one lens says and the other says otherwise, in words; empty where they agree. What the
/// first does not know, the other may.
std::string contradiction(const json& proc, const json& exact, const char* list) {
    if (proc[list].size() != exact[list].size()) return std::string("other ") + list;
    for (std::size_t i = 0; i < proc[list].size(); ++i) {
        const auto& one = proc[list][i];
        const auto& other = exact[list][i];
        for (const auto& [key, value] : one.items()) {
            const bool nested = key == "attributes";
            const json many = nested ? value : json{{key, value}};
            const json others = nested ? other[key] : json{{key, other[key]}};
            for (const auto& [name, known] : many.items())
                if (!is_open(known) && !is_of_others(one, name) &&
                    !is_same(name, known, others[name]))
                    return name + ": " + one.dump() + " is not " + other.dump();
        }
    }
    return "";
}

/// The same of mappings, whose sums are less by what the first lens does not know.
std::string mappings_contradiction(json proc, json exact) {
    if (proc["mappings"].size() != exact["mappings"].size()) return "other mappings";
    for (std::size_t i = 0; i < proc["mappings"].size(); ++i) {
        json &one = proc["mappings"][i], &other = exact["mappings"][i];
        for (const auto* group : {"states", "kinds"}) {
            const bool all_known = one[group]["unknown_bytes"] == 0;
            for (const auto& [name, bytes] : one[group].items()) {
                const auto& others = other[group][name];
                if (!is_open(bytes) && name != "unknown_bytes" &&
                    (all_known ? bytes != others : bytes > others))
                    return name + ": " + one.dump() + " is not " + other.dump();
            }
            one.erase(group);
        }
    }
    return contradiction(proc, exact, "mappings");
}

std::uint64_t place(const json& range, const char* key) {
    return std::stoull(range[key].get<std::string>(), nullptr, 16);
}

/// The same of ranges, which end elsewhere where the first lens does not know what a page is.
std::string ranges_contradiction(const json& proc, const json& exact) {
    std::size_t i = 0, j = 0;
    const auto &ones = proc["ranges"], &others = exact["ranges"];
    while (i < ones.size() && j < others.size()) {
        json one = ones[i], other = others[j];
        const auto start = std::max(place(one, "start"), place(other, "start"));
        const auto end = std::min(place(one, "end"), place(other, "end"));
        if (start >= end) return "other ranges at " + one.dump() + " and " + other.dump();
        for (json* range : {&one, &other}) {
            // What the part that both have says of itself.
            if ((*range)["swap_offset"].is_number() && (*range)["swap_contiguous"] == true)
                (*range)["swap_offset"] = (*range)["swap_offset"].get<std::uint64_t>() +
                                          (start - place(*range, "start")) / page;
            for (const auto* key : {"start", "end", "pages", "bytes", "swap_contiguous"})
                range->erase(key);
        }
        // An attribute is null where pages of a run differ, and the longer run may hold more.
        for (const auto& [name, value] : other["attributes"].items())
            if (value.is_null()) one["attributes"].erase(name);
        auto differs = contradiction({{"ranges", json::array({one})}},
                                     {{"ranges", json::array({other})}}, "ranges");
        if (!differs.empty()) return differs;
        const bool one_ends = place(ones[i], "end") == end;
        if (place(others[j], "end") == end) ++j;
        if (one_ends) ++i;
    }
    return i == ones.size() && j == others.size() ? "" : "other ranges at the end";
}

/// Processes that can be looked at and are no monsters.
std::vector<pid_t> some_processes() {
    std::vector<pid_t> pids;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
        const auto pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
        const auto resident = pid > 0 ? zoo::witness::status(pid, "VmRSS") : std::nullopt;
        if (resident && *resident > 0 && *resident < (64u << 20)) pids.push_back(pid);
    }
    return pids;
}

} // namespace

TEST_CASE("lens: both lenses say the same of every page of the zoo") {
    if (lenses().back() != "exact") return;
    std::string differs;
    for (int tries = 0; tries < 3; ++tries) {
        const auto zoo = stopped_zoo(tries == 0 ? ZooAge::young : ZooAge::fresh);
        if (!zoo) return;
        const auto look = [&](const char* lens) {
            return inspect(zoo->pid(), {"--pages", "--zero", "all", "--lens", lens});
        };
        // This one first: the other leaves traces.
        const auto exact = look("exact"), proc = look("proc");
        REQUIRE(proc["pages"].size() > 1000);
        differs = contradiction(proc, exact, "pages");
        if (differs.empty()) differs = mappings_contradiction(proc, exact);
        if (differs.empty()) break;
    }
    CHECK(differs == "");
}

TEST_CASE("lens: both lenses say the same of the machine's processes") {
    if (!have_root() || lenses().back() != "exact") return;
    std::size_t compared = 0;
    for (const pid_t pid : some_processes()) {
        const auto look = [&](const char* lens) {
            const auto outcome = run_pagesift({"inspect", "--ranges", "--format", "json", "--lens",
                                               lens, "-p", std::to_string(pid)});
            const auto seen = json::parse(outcome.out, nullptr, false);
            return seen.is_array() && seen.size() == 1 ? seen[0] : json();
        };
        // A process that runs differs from itself as well, and may do so between two looks that are
        // the same: what a fork shares for a moment.
        std::optional<std::string> differs;
        for (int tries = 0; tries < 5 && differs != ""; ++tries) {
            const auto before = look("proc"), exact = look("exact"), after = look("proc");
            if (before.is_null() || exact.is_null() || after.is_null()) break; // it has ended
            if (before["ranges"] == after["ranges"]) differs = ranges_contradiction(before, exact);
        }
        if (!differs) continue;
        CHECK_MESSAGE(*differs == "", "pid " << pid << ": " << *differs);
        ++compared;
    }
    MESSAGE(compared << " processes compared");
    CHECK(compared > 0);
}

namespace {

/// Touches every third page of a part of memory again, each time it is told to.
constexpr std::size_t touched_each = 3;

/// How many pages of [start, start + pages) that were touched, and were not, are not called so.
std::string wrong_young(pid_t pid, const char* start, std::size_t pages) {
    std::ostringstream range;
    range << std::hex << reinterpret_cast<std::uintptr_t>(start) << '+' << std::dec << pages * page;
    const auto seen = inspect(pid, {"--pages", "--lens", "exact", "-a", range.str()});
    std::size_t missed = 0, invented = 0, unknown = 0, i = 0;
    for (const auto& one : seen["pages"]) {
        const auto& young = one["attributes"]["young"];
        const bool touched = i++ % touched_each == 0;
        unknown += young.is_null();
        missed += young == false && touched;
        invented += young == true && !touched;
    }
    if (i != pages) return "not all pages are listed";
    if (missed + invented + unknown == 0) return "";
    std::ostringstream text;
    text << missed << " missed, " << invented << " invented, " << unknown << " unknown";
    return text.str();
}

} // namespace

TEST_CASE("lens: young pages are those that were touched since that was cleared") {
    if (!have_root() || lenses().back() != "exact") return;
    constexpr std::size_t pages = 4096;
    auto* const start = static_cast<char*>(
        mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    REQUIRE(start != MAP_FAILED);
    madvise(start, pages * page, MADV_NOHUGEPAGE);
    const Child child{[&](const auto& ready) {
        for (std::size_t i = 0; i < pages; ++i) start[i * page] = 1;
        ready();
        raise(SIGSTOP);
        while (true) {
            // Processors may still hold entries from before they were cleared.
            mprotect(start, pages * page, PROT_READ);
            mprotect(start, pages * page, PROT_READ | PROT_WRITE);
            for (std::size_t i = 0; i < pages; i += touched_each) start[i * page] = 2;
            raise(SIGSTOP);
        }
    }};
    // The machine's ager may clear bits too, but not at every moment.
    std::string wrong;
    for (int tries = 0; tries < 5; ++tries) {
        wait_until_stopped(child.pid());
        std::ofstream("/proc/" + std::to_string(child.pid()) + "/clear_refs") << '1' << std::flush;
        kill(child.pid(), SIGCONT);
        usleep(100'000);
        wait_until_stopped(child.pid());
        wrong = wrong_young(child.pid(), start, pages);
        if (wrong.empty()) break;
        MESSAGE(wrong);
    }
    CHECK(wrong == "");
    munmap(start, pages * page);
}

TEST_CASE("lens: what cannot be had is said, and an answer names the lens that gave it") {
    if (!have_root() || lenses().back() != "exact") return;
    const auto pid = std::to_string(getpid());
    CHECK(inspect(getpid(), {})["lens"] == "exact");
    CHECK(inspect(getpid(), {"--lens", "proc"})["lens"] == "proc");
    const std::vector<std::string> hidden = {"--without", "bpf", "--without", "kcore"};
    const auto automatic = inspect(getpid(), hidden);
    CHECK(automatic["lens"] == "proc");
    const auto& gaps = automatic["gaps"];
    CHECK(std::any_of(gaps.begin(), gaps.end(),
                      [](const json& gap) { return gap["source"] == "exact lens"; }));
    std::vector<std::string> command = {"inspect", "--lens", "exact", "-p", pid};
    command.insert(command.end(), hidden.begin(), hidden.end());
    const auto refused = run_pagesift(command);
    CHECK(refused.exit_code == 1);
    CHECK(refused.err.find("--lens exact: ") != std::string::npos);
    CHECK(refused.out.empty());
    // And without the privilege.
    const auto as_nobody =
        run_pagesift({"inspect", "--lens", "exact", "self"}, {.as_nobody = true});
    CHECK(as_nobody.exit_code == 1);
    CHECK(as_nobody.err.find("CAP_BPF") != std::string::npos);
    CHECK(run_pagesift({"inspect", "--top", "0", "self"}, {.as_nobody = true}).exit_code == 0);
}

namespace {

constexpr std::uint64_t bit(unsigned capability) { return std::uint64_t{1} << capability; }

/// Swapped pages of shared memory, and those of them whose place in swap is known.
std::pair<std::size_t, std::size_t> swapped_shared(const json& seen) {
    std::pair<std::size_t, std::size_t> found;
    for (const auto& one : seen["pages"]) {
        if (one["state"] != "shmem-swapped") continue;
        ++found.first;
        found.second += one["swap_offset"].is_number();
    }
    return found;
}

} // namespace

TEST_CASE("lens: with its capabilities and no others it works for somebody who is not root") {
    if (lenses().back() != "exact") return;
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    constexpr std::uint64_t others = bit(CAP_SYS_PTRACE) | bit(CAP_DAC_READ_SEARCH);
    constexpr std::uint64_t of_lens = bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_SYS_ADMIN) | others;
    const auto look = [&](std::uint64_t capabilities) {
        return run_pagesift({"inspect", "--lens", "exact", "--pages", "--format", "json", "-p",
                             std::to_string(zoo->pid())},
                            {.as_nobody = true, .capabilities = capabilities});
    };
    rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    auto outcome = look(of_lens);
    // Before Linux 5.11 also this, and the message must say so. It stays for the rest of this case.
    if (outcome.exit_code != 0 && outcome.err.find("ulimit -l") != std::string::npos) {
        const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
        REQUIRE(::setrlimit(RLIMIT_MEMLOCK, &none) == 0);
        outcome = look(of_lens);
        MESSAGE("this kernel wants memory that may be locked");
    }
    REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
    const auto seen = json::parse(outcome.out, nullptr, false)[0];
    CHECK(seen["lens"] == "exact");
    const auto [swapped, placed] = swapped_shared(seen);
    CHECK(swapped == swapped_shared(inspect(zoo->pid(), {"--pages"})).first);
    CHECK(placed == swapped);
    CHECK(seen["totals"]["page_tables"]["located_tables"].is_number());
    // Newer kernels (6.13) take CAP_PERFMON for CAP_SYS_PTRACE.
    const std::pair<unsigned, const char*> needs[] = {{CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
                                                      {CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"}};
    for (const auto& [needed, name] : needs) {
        const auto refused = look(of_lens & ~bit(needed));
        CHECK(refused.exit_code == 1);
        CHECK_MESSAGE(refused.err.find(name) != std::string::npos, refused.err);
    }
    REQUIRE(::setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
}

TEST_CASE("lens: pages that a userfaultfd watches are read as well") {
    if (lenses().back() != "exact") return;
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    const auto watched = [&](const std::string& lens) {
        const auto seen = inspect(zoo->pid(), {"--zero", "all", "--lens", lens});
        return std::count_if(seen["gaps"].begin(), seen["gaps"].end(), [](const json& gap) {
            return gap["source"] == "contents" &&
                   gap["reason"].get<std::string>().find("userfaultfd") != std::string::npos;
        });
    };
    CHECK(watched("proc") > 0);
    CHECK(watched("exact") == 0);
}

} // namespace pagesift::live
