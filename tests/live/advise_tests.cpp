// SPDX-License-Identifier: MIT
// Advice on real memory: what it did, what it left alone, and that every byte is what it was.
#include "advise.hpp"
#include "control_group.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

const std::size_t page = witness::page_size();
const std::size_t slot = witness::slot_size();
constexpr std::size_t some = 4 << 20;
constexpr int madv_guard_install = 102;

char* pointer(std::uint64_t at) { return reinterpret_cast<char*>(at); }

void map_shared(std::uint64_t at, std::size_t bytes) {
    if (mmap(pointer(at), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) != pointer(at))
        _exit(1);
    fill(at, bytes);
}

Words on(const Target& target, const char* action, const Words& more = {}) {
    Words words{action, "-a", target.address(), target.pid_text()};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

/// Nobody else's page may be in the way of "all of it": some are still in another processor's batch
/// or under I/O when the call comes.
bool nearly(std::uint64_t bytes, std::uint64_t whole) {
    return bytes <= whole && bytes * 10 >= whole * 9;
}

/// Sum over the answer to inspect, of a part.
std::uint64_t inspected(const Target& target, const char* path) {
    const auto answer = inspect(target.pid(), {"-a", target.address(), "--top", "0"});
    const auto value = field(answer, "totals").value(json::json_pointer(path), json());
    return value.is_number() ? value.get<std::uint64_t>() : 0;
}

} // namespace

// --- Before and after ----------------------------------------------------------------------------

TEST_CASE("advise: the default only plans") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::file);
    if (!machine) return;
    const Target target(some, map_private);
    const auto planned = advise(on(target, "pageout"));
    CHECK(planned.outcome.exit_code == 0);
    CHECK(planned.total("bytes") == some);
    CHECK(field(planned.process, "effect").is_null());
    CHECK(field(planned.process, "applied") == false);
    CHECK(target.present() == some / page);
    const auto same = advise(on(target, "pageout", {"-n"}));
    CHECK(same.total("bytes") == some);
    CHECK(target.swapped() == 0);
    CHECK(advise(on(target, "pageout", {"-n", "--apply"})).outcome.exit_code == 2);
}

TEST_CASE("advise: page-out to a swap file moves memory, keeps copies, and loses nothing") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::file);
    if (!machine) return;
    const Target target(some, map_private);
    const auto done = advise(on(target, "pageout", {"--apply"}));
    CHECK(done.outcome.exit_code == 0);
    const auto moved = done.effect("moved_bytes");
    CHECK(nearly(moved, some));
    CHECK(moved == target.swapped() * page);
    CHECK(done.effect("advised_bytes") == some);
    // What was written stays in the swap cache until memory is short.
    CHECK(done.effect("freed_bytes") + done.effect("kept_bytes") == moved);
    CHECK(done.effect("kept_bytes") * 2 > moved);
    CHECK(done.effect("swap_used_after_bytes") >=
          done.effect("swap_used_before_bytes") + moved / 2);
    CHECK(target.intact());
}

TEST_CASE("advise: page-out to zram frees memory at once") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    const Target target(some, map_private);
    const auto done = advise(on(target, "pageout", {"--apply"}));
    CHECK(done.outcome.exit_code == 0);
    CHECK(nearly(done.effect("moved_bytes"), some));
    CHECK(done.effect("freed_bytes") * 10 >= done.effect("moved_bytes") * 9);
    CHECK(target.intact());
}

TEST_CASE("advise: shared memory goes to swap and comes back, without its entries") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    const Target target(some, map_shared);
    const auto done = advise(on(target, "pageout", {"--apply"}));
    CHECK(nearly(done.effect("moved_bytes"), some));
    CHECK(nearly(inspected(target, "/states/shmem_swapped_bytes"), some));
    if (takes("willneed")) {
        const auto swapped = inspected(target, "/states/shmem_swapped_bytes");
        const auto read = advise(on(target, "willneed", {"--apply"}));
        CHECK(read.total("bytes") == swapped);
        CHECK(nearly(read.effect("moved_bytes"), swapped));
        // It waits in the swap cache; that it is there, the page cache does not say.
        CHECK(inspected(target, "/states/shmem_swapped_bytes") == swapped);
    }
    CHECK(target.intact());
}

TEST_CASE("advise: willneed reads private memory, and entries stay swap entries") {
    if (!have_root() || !takes("pageout") || !takes("willneed")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    const Target target(some, map_private);
    advise(on(target, "pageout", {"--apply"}));
    const auto swapped = target.swapped() * page;
    REQUIRE(nearly(swapped, some));
    const auto read = advise(on(target, "willneed", {"--apply"}));
    CHECK(read.outcome.exit_code == 0);
    CHECK(read.total("bytes") == swapped);
    CHECK(nearly(read.effect("moved_bytes"), swapped));
    CHECK(target.swapped() * page == swapped);
    CHECK(target.intact());
}

TEST_CASE("advise: cold clears accessed bits and leaves everything in memory") {
    if (!have_root() || !takes("cold")) return;
    const Target target(some, map_private);
    const auto done = advise(on(target, "cold", {"--apply"}));
    CHECK(done.outcome.exit_code == 0);
    CHECK(nearly(done.effect("moved_bytes"), some));
    CHECK(target.present() == some / page);
    CHECK(target.intact());
}

TEST_CASE("advise: collapse makes huge pages of full slots and asks before it fills others") {
    if (!have_root() || !takes("collapse")) return;
    const Target target(2 * slot, [](std::uint64_t at, std::size_t bytes) {
        mmap(pointer(at), bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0);
        // Small pages first: huge ones are only forbidden while they are made.
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
        fill(at, slot + slot / 4);
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    });
    const auto planned = advise(on(target, "collapse"));
    CHECK(planned.total("bytes") == slot);
    CHECK(planned.skipped("costs_more") == slot);
    const auto done = advise(on(target, "collapse", {"--apply"}));
    if (done.effect("moved_bytes") == 0)
        return skip("no huge page was to be had: " + done.outcome.err);
    CHECK(done.effect("moved_bytes") == slot);
    const auto forced = advise(on(target, "collapse", {"--apply", "--force-fill"}));
    CHECK(forced.total("fill_bytes") == slot - slot / 4);
    CHECK(forced.skipped("already_huge") == slot);
    CHECK(is_filled(target.pid(), target.at, slot + slot / 4));
}

TEST_CASE("advise: where the program wants no huge page there is none") {
    if (!have_root() || !takes("collapse")) return;
    const Target target(slot, map_private); // MADV_NOHUGEPAGE
    const auto planned = advise(on(target, "collapse", {"--apply"}));
    CHECK(planned.outcome.exit_code == 0);
    CHECK(planned.skipped("no_huge_page") == slot);
    CHECK(planned.effect("calls") == 0);
}

TEST_CASE("advise: a huge page goes whole, and is not split for a part of it") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram, 4 * slot);
    if (!machine) return;
    const Target target(slot, [](std::uint64_t at, std::size_t bytes) {
        mmap(pointer(at), bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0);
        madvise(pointer(at), bytes, MADV_HUGEPAGE);
        fill(at, bytes);
    });
    if (inspected(target, "/attributes/pmd_mapped_bytes") != slot)
        return skip("no huge page was to be had");
    char half[64];
    std::snprintf(half, sizeof half, "%llx+%zu", static_cast<unsigned long long>(target.at),
                  slot / 2);
    const auto part = advise({"pageout", "-a", half, target.pid_text(), "--apply"});
    CHECK(part.total("bytes") == 0);
    CHECK(part.skipped("folio_split") == slot / 2);
    CHECK(inspected(target, "/attributes/pmd_mapped_bytes") == slot);
    const auto whole = advise(on(target, "pageout", {"--apply"}));
    CHECK(whole.effect("moved_bytes") == slot);
    CHECK(target.intact());
}

// --- What is left alone --------------------------------------------------------------------------

TEST_CASE("advise: what is locked, shared, given up, guarded or watched stays") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    SUBCASE("locked") {
        const Target target(some, [](std::uint64_t at, std::size_t bytes) {
            map_private(at, bytes);
            mlock(pointer(at), bytes);
        });
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(done.skipped("mlocked") == some);
        CHECK(done.effect("calls") == 0);
        CHECK(target.present() == some / page);
        CHECK(target.intact());
    }
    SUBCASE("shared by fork") {
        const Target target(some, [](std::uint64_t at, std::size_t bytes) {
            map_private(at, bytes);
            if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;) pause();
            }
        });
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(done.skipped("shared") == some);
        CHECK(target.present() == some / page);
        CHECK(target.intact());
    }
    SUBCASE("given up with MADV_FREE") {
        const Target target(some, [](std::uint64_t at, std::size_t bytes) {
            map_private(at, bytes);
            madvise(pointer(at), bytes, MADV_FREE);
            // The last pages wait in a batch; other memory pushes them out of it.
            static char other[1 << 20];
            for (std::size_t i = 0; i < sizeof other; i += page) other[i] = 1;
            madvise(other, sizeof other, MADV_FREE);
        });
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(nearly(done.skipped("lazyfree"), some));
        CHECK(target.present() * page >= done.skipped("lazyfree"));
        CHECK(is_filled(target.pid(), target.at, page));
    }
    SUBCASE("guarded") {
        void* const own = mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        const bool has_guards = madvise(own, page, madv_guard_install) == 0;
        munmap(own, page);
        if (!has_guards) return skip("the kernel has no guard regions");
        const Target target(some, [](std::uint64_t at, std::size_t bytes) {
            map_private(at, bytes);
            if (madvise(pointer(at + bytes / 2), page, madv_guard_install) != 0) _exit(7);
        });
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(nearly(done.effect("moved_bytes"), some - page));
        const auto guard = witness::pagemap(target.pid(), target.at + some / 2, 1);
        REQUIRE(guard.size() == 1);
        CHECK(witness::marker(guard[0]));
        CHECK(is_filled(target.pid(), target.at, some / 2));
        CHECK(is_filled(target.pid(), target.at + some / 2 + page, some / 2 - page));
    }
    SUBCASE("watched by userfaultfd") {
        const Target target(some, [](std::uint64_t at, std::size_t bytes) {
            map_private(at, bytes);
            const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
            uffdio_api api{};
            api.api = UFFD_API;
            uffdio_register area{};
            area.range = {at, bytes};
            area.mode = UFFDIO_REGISTER_MODE_MISSING;
            if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0 ||
                ioctl(fd, UFFDIO_REGISTER, &area) != 0)
                _exit(7);
        });
        int status = 0;
        if (waitpid(target.pid(), &status, WNOHANG | WNOWAIT) == target.pid())
            return skip("no userfaultfd");
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(done.skipped("userfaultfd") == some);
        CHECK(target.present() == some / page);
        CHECK(target.intact());
    }
}

TEST_CASE("advise: of files, copies of one's own go to swap and nothing else is lost") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    char file[] = "/var/tmp/pagesift-live-XXXXXX"; // /tmp may be a tmpfs
    const int fd = mkostemp(file, O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(ftruncate(fd, some) == 0);
    const auto map_file = [&](int flags) {
        return [&, flags](std::uint64_t address, std::size_t bytes) {
            if (mmap(pointer(address), bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) !=
                pointer(address))
                _exit(1);
            fill(address, bytes / 2);
            volatile char sum = 0;
            for (std::size_t i = bytes / 2; i < bytes; i += page) sum = sum + pointer(address)[i];
        };
    };
    SUBCASE("private") {
        const Target target(some, map_file(MAP_PRIVATE));
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(done.outcome.exit_code == 0);
        CHECK(target.swapped() * page >= some / 2 * 9 / 10);
        CHECK(is_filled(target.pid(), target.at, some / 2));
    }
    SUBCASE("shared") {
        const Target target(some, map_file(MAP_SHARED));
        const auto done = advise(on(target, "pageout", {"--apply"}));
        CHECK(done.skipped("shared_file") == some);
        CHECK(done.effect("calls") == 0);
        CHECK(is_filled(target.pid(), target.at, some / 2));
    }
    close(fd);
    unlink(file);
}

TEST_CASE("advise: without swap, and with too little, no page is worse off") {
    if (!have_root() || !takes("pageout")) return;
    if (has_swap()) return skip("the machine has swap of its own");
    const Target target(some, map_private);
    const auto none = advise(on(target, "pageout", {"--apply"}));
    CHECK(none.outcome.exit_code == 0);
    CHECK(none.skipped("no_swap") == some);
    CHECK(none.effect("calls") == 0);
    const auto machine = with_swap(SwapOn::file, 1 << 20);
    if (!machine) return;
    const auto little = advise(on(target, "pageout", {"--apply"}));
    CHECK(little.total("bytes") <= 1 << 20);
    CHECK(little.skipped("swap_full") == some - little.total("bytes"));
    CHECK(target.present() * page >= some - (1 << 20));
    CHECK(target.intact());
}

TEST_CASE("advise: what has lost its room in swap since the plan is said to have none") {
    if (!have_root() || !takes("pageout")) return;
    if (has_swap()) return skip("the machine has swap of its own");
    const TemporaryDirectory folder;
    const auto plan = folder.path() + "/plan.json";
    const Target target(16 << 20, map_private);
    auto machine = with_swap(SwapOn::file, 64 << 20);
    if (!machine) return;
    CHECK(advise(on(target, "pageout", {"-o", plan})).outcome.exit_code == 0);
    machine.reset();
    machine = with_swap(SwapOn::file, 4 << 20);
    if (!machine) return;
    const auto done = advise({"--apply", "--plan", plan});
    CHECK(done.total("bytes") == target.bytes);
    CHECK(done.effect("moved_bytes") <= 4 << 20);
    CHECK(done.effect("moved_bytes") + done.stayed("swap_full") >= target.bytes - 64 * page);
    CHECK(done.stayed("in_use") == 0);
    CHECK(target.intact());
}

TEST_CASE("advise: a cgroup's limit on swap is one of the plan, and of what is left") {
    if (!have_root() || !takes("pageout")) return;
    const ControlGroup group;
    if (!group.ready() || !group.limit_swap_below(64 << 20))
        return skip("no cgroup with a limit on swap: needs version 2");
    const auto machine = with_swap(SwapOn::file, 64 << 20);
    if (!machine) return;
    const Target target(16 << 20, [&](std::uint64_t at, std::size_t bytes) {
        group.add_below(getpid());
        map_private(at, bytes);
    });
    const TemporaryDirectory folder;
    const auto plan = folder.path() + "/plan.json";
    CHECK(advise(on(target, "pageout", {"-o", plan})).outcome.exit_code == 0);
    REQUIRE(group.limit_swap_below(1 << 20));
    const auto limited = advise(on(target, "pageout"));
    CHECK(limited.total("bytes") <= 1 << 20);
    CHECK(limited.skipped("swap_full") == target.bytes - limited.total("bytes"));
    // Two plans at once do not count on the same room.
    const Target second(4 << 20, [&](std::uint64_t at, std::size_t bytes) {
        group.add_below(getpid());
        map_private(at, bytes);
    });
    const auto both = run({program_of("PAGESIFT_BIN"), "advise", "pageout", "--format", "json",
                           target.pid_text(), second.pid_text()});
    std::uint64_t sum = 0;
    for (const auto& process : json::parse(both.out, nullptr, false)) {
        const auto bytes = field(field(process, "totals"), "bytes");
        REQUIRE(bytes.is_number());
        sum += bytes.get<std::uint64_t>();
    }
    CHECK(sum > 0);
    CHECK(sum <= 1 << 20);
    // What was planned before is stopped by the kernel.
    const auto done = advise({"--apply", "--plan", plan});
    CHECK(done.total("bytes") == target.bytes);
    CHECK(done.effect("moved_bytes") <= 1 << 20);
    CHECK(done.effect("moved_bytes") > 0);
    CHECK(done.effect("moved_bytes") + done.stayed("swap_full") >= target.bytes - 64 * page);
    // None at all, as containers often have it.
    REQUIRE(group.limit_swap_below(0));
    const auto none = advise(on(target, "pageout", {"--apply"}));
    CHECK(none.effect("calls") == 0);
    CHECK(none.skipped("swap_full") == target.present() * page);
    CHECK(target.intact());
}

// --- Limits --------------------------------------------------------------------------------------

TEST_CASE("advise: limits and selectors hold") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    const Target target(some, [](std::uint64_t at, std::size_t bytes) {
        prctl(PR_SET_NAME, "advise-me");
        map_private(at, bytes);
    });
    const auto limited = advise(on(target, "pageout", {"--max-bytes", "1M", "--apply"}));
    CHECK(limited.total("bytes") == 1 << 20);
    CHECK(target.swapped() * page <= 1 << 20);
    const auto long_runs = advise(on(target, "pageout", {"--min-run", "1G"}));
    CHECK(long_runs.total("bytes") == 0);
    CHECK(long_runs.skipped("too_short") > 0);
    const auto own = std::to_string(getpid());
    const auto chosen =
        advise({"pageout", "--comm", "advise-m?", "--children-of", own, "-a", target.address()});
    CHECK(field(chosen.process, "pid") == target.pid());
    CHECK(chosen.total("bytes") > 0);
    const auto nobody = advise({"pageout", "--comm", "advise-you", "--children-of", own});
    CHECK(nobody.outcome.exit_code == 0);
    CHECK(nobody.process.is_null());
    // What a selector also finds, and is protected, is left out with a word.
    const auto ours = advise({"pageout", "--comm", "live_tests", "-a", target.address()});
    CHECK(ours.outcome.err.find("left out") != std::string::npos);
    CHECK(target.intact());
}

TEST_CASE("advise: --rate is kept") {
    if (!have_root() || !takes("cold")) return;
    const Target target(some, map_private);
    const auto begin = std::chrono::steady_clock::now();
    const auto done = advise(on(target, "cold", {"--apply", "--rate", "4M"}));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    CHECK(done.effect("advised_bytes") == some);
    CHECK(took.count() > 0.6); // 4 MiB, the first quarter of which waits for nobody
}

TEST_CASE("advise: --psi holds back, or says that the kernel does not measure it") {
    if (!have_root() || !takes("cold")) return;
    const Target target(some, map_private);
    const auto done = advise(on(target, "cold", {"--apply", "--psi", "100"}));
    std::ifstream pressure("/proc/pressure/memory");
    std::string line;
    if (std::getline(pressure, line)) {
        CHECK(done.outcome.exit_code == 0);
        CHECK(done.effect("advised_bytes") == some);
    } else {
        CHECK(done.outcome.exit_code == 1);
        CHECK(done.outcome.err.find("--psi") != std::string::npos);
        CHECK(done.outcome.err.find("psi=1") != std::string::npos);
    }
}

TEST_CASE("advise: SIGINT lets the call in flight end and prints what was done") {
    if (!have_root() || !takes("cold")) return;
    const Target target(some, map_private);
    const char* program = std::getenv("PAGESIFT_BIN");
    REQUIRE(program != nullptr);
    Background running({program, "advise", "cold", "--format", "json", "--apply", "--rate", "512K",
                        "-a", target.address(), target.pid_text()});
    std::this_thread::sleep_for(std::chrono::milliseconds{1500});
    running.signal(SIGINT);
    std::string text;
    while (const auto line = running.wait_for_line(20)) text += *line;
    const int status = running.wait(20);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 130);
    const auto answer = json::parse(text, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    const auto effect = field(answer[0], "effect");
    CHECK(field(effect, "interrupted") == true);
    const auto advised = field(effect, "advised_bytes").get<std::uint64_t>();
    CHECK(advised > 0);
    CHECK(advised < some);
    CHECK(field(field(effect, "stayed"), "interrupted_bytes") == some - advised);
    CHECK(target.intact());
}

TEST_CASE("advise: --cold takes what is idle, measured now or before, and leaves what is used") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    const TemporaryDirectory folder;
    const std::string file = folder.path() + "/cold.json";
    const std::uint64_t at = free_addresses(some);
    const Child child([&](const auto& ready) {
        map_private(at, some);
        // The first quarter is in use. It is a mapping of its own, because some sources have one
        // answer a mapping.
        mprotect(pointer(at), some / 4, PROT_READ);
        ready();
        for (;;) {
            volatile char sum = 0;
            for (std::size_t i = 0; i < some / 4; i += page) sum = sum + pointer(at)[i];
            usleep(1000);
        }
    });
    const auto pid = std::to_string(child.pid());
    char range[64];
    std::snprintf(range, sizeof range, "%llx+%zu", static_cast<unsigned long long>(at), some);
    const auto planned = advise({"pageout", "--cold", "2s", "-a", range, pid});
    if (planned.process.is_null())
        return skip("nothing here tells accesses: " + planned.outcome.err);
    CHECK(planned.total("bytes") <= some * 3 / 4);
    const auto measured =
        run_pagesift({"cold", "--window", "2s", "--format", "json", "-o", file, "-a", range, pid});
    CHECK(measured.exit_code == 0);
    const auto long_ago =
        advise({"pageout", "--cold", file, "--idle", "1h", "-a", range, pid, "--apply"});
    CHECK(long_ago.total("bytes") == 0);
    CHECK(long_ago.skipped("not_idle") == some);
    const auto done = advise({"pageout", "--cold", file, "-a", range, pid, "--apply"});
    CHECK(done.outcome.exit_code == 0);
    CHECK(nearly(done.effect("moved_bytes"), some * 3 / 4));
    CHECK(done.skipped("not_idle") >= some / 4);
    const auto used = witness::pagemap(child.pid(), at, some / 4 / page);
    CHECK(std::all_of(used.begin(), used.end(), witness::present));
    CHECK(is_filled(child.pid(), at, some));
    // Of another process it says nothing.
    const Target other(some, map_private);
    const auto refused = advise(on(other, "pageout", {"--cold", file, "--apply"}));
    CHECK(refused.outcome.exit_code == 1);
    CHECK(other.present() == some / page);
}

// --- Kept plans ----------------------------------------------------------------------------------

TEST_CASE("advise: a kept plan does what it says, if all of it is still true") {
    if (!have_root() || !takes("pageout")) return;
    const auto machine = with_swap(SwapOn::zram);
    if (!machine) return;
    const TemporaryDirectory folder;
    const std::string file = folder.path() + "/plan.json";
    auto* const go = static_cast<volatile int*>(
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    // Three mappings side by side in the plan: one stays, one is given another right, one goes.
    const std::uint64_t at = free_addresses(3 * some);
    const Child child([&](const auto& ready) {
        for (std::size_t i = 0; i < 3; ++i) map_private(at + i * some, some - page);
        ready();
        while (*go == 0) usleep(1000);
        mprotect(pointer(at + some), some - page, PROT_READ | PROT_WRITE | PROT_EXEC);
        munmap(pointer(at + 2 * some), some);
        madvise(pointer(at), some / 2, MADV_FREE);
        fill(at + some / 4, some / 4);
        *go = 2;
    });
    const auto pid = std::to_string(child.pid());
    char range[64];
    std::snprintf(range, sizeof range, "%llx+%zu", static_cast<unsigned long long>(at), 3 * some);
    const auto made =
        run_pagesift({"advise", "pageout", "--format", "json", "-o", file, "-a", range, pid});
    REQUIRE(made.exit_code == 0);
    const auto plan = json::parse(std::ifstream(file), nullptr, false);
    REQUIRE(plan.is_array());
    CHECK(plan[0]["totals"]["bytes"] == 3 * (some - page));

    SUBCASE("of another process") {
        auto other = plan;
        other[0]["start_time_ticks"] = plan[0]["start_time_ticks"].get<std::uint64_t>() - 1;
        std::ofstream(file) << other;
        const auto refused = advise({"--plan", file, "--apply"});
        CHECK(refused.outcome.exit_code == 1);
        CHECK(refused.outcome.err.find("another one has its number") != std::string::npos);
    }
    SUBCASE("of another boot") {
        auto other = plan;
        other[0]["boot_id"] = "00000000-0000-0000-0000-000000000000";
        std::ofstream(file) << other;
        const auto refused = advise({"--plan", file, "--apply"});
        CHECK(refused.outcome.exit_code == 1);
        CHECK(refused.outcome.err.find("before this machine was started") != std::string::npos);
    }
    SUBCASE("damaged") {
        std::ofstream(file) << plan.dump().substr(0, 1000);
        CHECK(advise({"--plan", file, "--apply"}).outcome.exit_code == 1);
    }
    SUBCASE("with targets beside it") {
        CHECK(advise({"--plan", file, "--apply", "--comm", "x"}).outcome.exit_code == 2);
        CHECK(advise({"pageout", "--plan", file, "--apply", pid}).outcome.exit_code == 2);
    }
    SUBCASE("only shown") {
        const auto shown = advise({"--plan", file});
        CHECK(shown.outcome.exit_code == 0);
        CHECK(shown.total("bytes") == 3 * (some - page));
    }
    SUBCASE("as it was") {
        const auto done = advise({"--plan", file, "--apply"});
        CHECK(done.outcome.exit_code == 0);
        CHECK(nearly(done.effect("moved_bytes"), 3 * (some - page)));
        for (std::size_t i = 0; i < 3; ++i)
            CHECK(is_filled(child.pid(), at + i * some, some - page));
    }
    SUBCASE("after its mappings have changed") {
        *go = 1;
        while (*go != 2) usleep(1000);
        const auto done = advise({"--plan", file, "--apply"});
        CHECK(done.stayed("mapping_changed") == 2 * (some - page));
        // Also what was written to again: the kernel learns of that only when it needs memory.
        CHECK(nearly(done.stayed("lazyfree"), some / 2));
        CHECK(done.effect("moved_bytes") <= some - page - done.stayed("lazyfree"));
        CHECK(is_filled(child.pid(), at + some / 4, some * 3 / 4 - page));
        CHECK(is_filled(child.pid(), at + some, some - page));
        CHECK(is_filled(child.pid(), at, page)); // given up, and not discarded by us
    }
    munmap(const_cast<int*>(go), page);
}

// --- Refusals ------------------------------------------------------------------------------------

TEST_CASE("advise: whom it refuses, and what it says") {
    if (!have_root() || !takes("pageout")) return;
    const auto says = [](const Words& arguments, int code, const char* words,
                         const RunOptions& options = {}) {
        const auto refused = run_pagesift(Words(arguments), options);
        CHECK_MESSAGE(refused.exit_code == code, refused.err);
        CHECK_MESSAGE(refused.err.find(words) != std::string::npos, refused.err);
        CHECK(refused.out.find("\"effect\":{") == std::string::npos);
    };
    const auto own = std::to_string(getpid());
    says({"advise", "pageout", "--apply", "1"}, 1, "is init");
    says({"advise", "pageout", "--apply", own}, 1, "started it");
    says({"advise", "pageout", "--apply", "self"}, 1, "pagesift itself");
    says({"advise", "pageout", "--apply", "4194303"}, 1, "no such process");
    says({"advise", "pageout", "--apply", "nothing.txt"}, 2, "cannot be acted on");
    says({"advise", "pageout"}, 2, "no target");
    says({"advise", "--apply", "1"}, 2, "ACTION");
    says({"advise"}, 2, "name an action");
    std::ifstream stat("/proc/2/stat");
    std::string line;
    if (std::getline(stat, line) && line.find("kthreadd") != std::string::npos)
        says({"advise", "pageout", "--apply", "2", "--force"}, 1, "kernel thread");
    else
        skip("pid 2 is no kernel thread");
    const pid_t zombie = fork();
    if (zombie == 0) _exit(0);
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(zombie), &info, WEXITED | WNOWAIT);
    says({"advise", "pageout", "--apply", std::to_string(zombie)}, 1, "zombie");
    waitpid(zombie, nullptr, 0);
}

TEST_CASE("advise: a process whose first thread has exited cannot be reached, and it says so") {
    if (!have_root() || !takes("pageout")) return;
    const Child child([](const auto& ready) {
        std::thread([] {
            for (;;) pause();
        }).detach();
        ready();
        syscall(SYS_exit, 0); // the first thread alone
    });
    for (int tries = 0; tries < 200; ++tries) {
        std::ifstream stat("/proc/" + std::to_string(child.pid()) + "/stat");
        std::string line;
        std::getline(stat, line);
        if (line.find(") Z ") != std::string::npos) break;
        usleep(10'000);
    }
    const auto refused =
        run_pagesift({"advise", "pageout", "--apply", std::to_string(child.pid())});
    CHECK(refused.exit_code == 1);
    CHECK_MESSAGE(refused.err.find("first thread has exited") != std::string::npos, refused.err);
}

TEST_CASE("advise: without CAP_SYS_NICE it refuses, names it, and still plans") {
    if (!have_root() || !takes("cold")) return;
    const Background sleeper({"/bin/sh", "-c", "echo up; read line"}, true);
    const auto pid = std::to_string(sleeper.pid());
    usleep(200'000);
    RunOptions nobody;
    nobody.as_nobody = true;
    const auto refused = run_pagesift({"advise", "cold", "--apply", pid}, nobody);
    CHECK(refused.exit_code == 1);
    CHECK_MESSAGE(refused.err.find("CAP_SYS_NICE") != std::string::npos, refused.err);
    CHECK(refused.err.find("hint: ") != std::string::npos);
    const auto planned = run_pagesift({"advise", "cold", "--format", "json", pid}, nobody);
    CHECK(planned.exit_code == 0);
    CHECK(planned.out.find("CAP_SYS_NICE") != std::string::npos);
    // Of another user nothing is to be had at all.
    const Target roots(some, map_private);
    const auto others = run_pagesift({"advise", "cold", "--apply", roots.pid_text()}, nobody);
    CHECK(others.exit_code == 1);
    CHECK(others.err.find("CAP_SYS_PTRACE") != std::string::npos);
    // With it, and what else a look needs, it works.
    nobody.capabilities = std::uint64_t{1} << CAP_SYS_NICE | std::uint64_t{1} << CAP_SYS_PTRACE |
                          std::uint64_t{1} << CAP_SYS_ADMIN |
                          std::uint64_t{1} << CAP_DAC_READ_SEARCH |
                          std::uint64_t{1} << CAP_DAC_OVERRIDE;
    const auto done = advise(on(roots, "cold", {"--apply"}), nobody);
    CHECK(done.outcome.exit_code == 0);
    CHECK(done.effect("advised_bytes") == some);
}

TEST_CASE("advise: a process that ends meanwhile is no crash") {
    if (!have_root() || !takes("cold")) return;
    const char* program = std::getenv("PAGESIFT_BIN");
    REQUIRE(program != nullptr);
    auto target = std::make_unique<Target>(some, map_private);
    Background running({program, "advise", "cold", "--format", "json", "--apply", "--rate", "1M",
                        "-a", target->address(), target->pid_text()});
    std::this_thread::sleep_for(std::chrono::milliseconds{700});
    target.reset();
    std::string text;
    while (const auto line = running.wait_for_line(20)) text += *line;
    const int status = running.wait(20);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 3);
    const auto answer = json::parse(text, nullptr, false);
    REQUIRE(answer.is_array());
    CHECK(field(field(answer[0], "effect"), "ended").is_string());
}

} // namespace pagesift::live
