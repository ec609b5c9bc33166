// SPDX-License-Identifier: MIT
// Advice from inside, on real memory: page tables and zeros that go, every byte that stays, and
// whom it refuses.
#include "advise.hpp"
#include "zoo/witness.hpp"

#include <atomic>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <linux/aio_abi.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

const std::size_t page = witness::page_size();
const std::size_t slot = witness::slot_size();

char* pointer(std::uint64_t at) { return reinterpret_cast<char*>(at); }

void map(std::uint64_t at, std::size_t bytes, int flags) {
    if (mmap(pointer(at), bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) != pointer(at))
        _exit(1);
    madvise(pointer(at), bytes, MADV_NOHUGEPAGE);
}

/// Every second slot is filled, the others have an empty table.
constexpr std::size_t table_slots = 16;
void make_tables(std::uint64_t at, std::size_t bytes) {
    map(at, bytes, MAP_PRIVATE);
    for (std::size_t i = 0; i < bytes / slot; ++i) {
        fill(at + i * slot, page);
        // Too short to free the table.
        if (i % 2 == 1) madvise(pointer(at + i * slot), page, MADV_DONTNEED);
    }
}
bool tables_intact(const Target& target) {
    for (std::size_t i = 0; i < table_slots; i += 2)
        if (!is_filled(target.pid(), target.at + i * slot, page)) return false;
    return true;
}

std::vector<char> memory_of(pid_t pid, std::uint64_t at) {
    std::vector<char> bytes(page, 1);
    const iovec here{bytes.data(), page};
    const iovec there{pointer(at), page};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) != static_cast<ssize_t>(page)) bytes.clear();
    return bytes;
}

/// By turns a page of zeros that was written, and one of contents.
void make_zeros(std::uint64_t at, std::size_t bytes) {
    map(at, bytes, MAP_PRIVATE);
    for (std::size_t i = 0; i < bytes / page; ++i) {
        if (i % 2 == 1)
            std::memset(pointer(at + i * page), 0, page);
        else
            fill(at + i * page, page);
    }
}
bool zeros_intact(const Target& target) {
    const std::vector<char> zeros(page, 0);
    for (std::size_t i = 0; i < target.bytes / page; ++i) {
        if (i % 2 == 0 && !is_filled(target.pid(), target.at + i * page, page)) return false;
        if (i % 2 == 1 && memory_of(target.pid(), target.at + i * page) != zeros) return false;
    }
    return true;
}

} // namespace

// --- pt-reclaim ----------------------------------------------------------------------------------

TEST_CASE("advise inside: empty page tables go, and nothing else") {
    if (!can_do("pt-reclaim")) return;
    const Target target(table_slots * slot, make_tables);
    const auto planned = advise(on_inside(target, "pt-reclaim"));
    CHECK(planned.outcome.exit_code == 0);
    CHECK(planned.total("bytes") == table_slots / 2 * slot);
    CHECK(planned.total("expected_freed_bytes") == table_slots / 2 * page);
    CHECK(field(planned.process, "effect").is_null());
    CHECK(advise(on_inside(target, "pt-reclaim")).total("bytes") == table_slots / 2 * slot);
    const auto done = advise(on_inside(target, "pt-reclaim", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.effect("moved_bytes") == table_slots / 2 * slot);
    CHECK(done.effect("freed_bytes") == table_slots / 2 * page);
    CHECK(done.effect("tables_before_bytes") - done.effect("tables_after_bytes") ==
          table_slots / 2 * page);
    const json effect = field(done.process, "effect");
    CHECK(field(effect, "freed_tables").size() == table_slots / 2);
    const json stops = field(effect, "stops");
    CHECK(stops.value("count", 0) >= 1);
    CHECK(stops.value("longest_seconds", 0.0) > 0);
    CHECK(stops.value("p99_seconds", 9.0) <= stops.value("longest_seconds", 0.0));
    CHECK(stops.value("total_seconds", 0.0) >= stops.value("longest_seconds", 9.0));
    CHECK(tables_intact(target));
    CHECK(advise(on_inside(target, "pt-reclaim")).total("bytes") == 0);
}

TEST_CASE("advise inside: a plan of tables that have been filled since is not believed") {
    if (!can_do("pt-reclaim")) return;
    int go[2];
    REQUIRE(pipe(go) == 0);
    const Target target(table_slots * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_tables(at, bytes);
        std::thread{[=] {
            char byte = 0;
            if (read(go[0], &byte, 1) == 1) fill(at + slot, page);
        }}.detach();
    });
    const TemporaryDirectory folder;
    const std::string plan = folder.path() + "/plan.json";
    CHECK(advise(on_inside(target, "pt-reclaim", {"-o", plan})).outcome.exit_code == 0);
    REQUIRE(write(go[1], "x", 1) == 1);
    for (int i = 0; i < 500 && !is_filled(target.pid(), target.at + slot, page); ++i) usleep(10000);
    const auto done = advise({"--plan", plan, "--apply", "--max-stop", "500ms"});
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.stayed("state_changed") == slot);
    CHECK(done.effect("moved_bytes") == (table_slots / 2 - 1) * slot);
    CHECK(is_filled(target.pid(), target.at + slot, page));
    CHECK(tables_intact(target));
    close(go[0]);
    close(go[1]);
}

TEST_CASE("advise inside: threads that write all the time lose nothing") {
    if (!can_do("pt-reclaim")) return;
    // Each round writes to an empty slot, reads it back, and empties it again.
    struct Shared {
        std::atomic<std::uint64_t> rounds, losses;
    };
    void* const raw =
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(raw != MAP_FAILED);
    auto* const shared = new (raw) Shared{};
    const Target target(table_slots * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_tables(at, bytes);
        std::thread{[=] {
            for (std::uint64_t round = 0;; ++round) {
                const std::uint64_t i = (round * 2 + 1) % table_slots;
                auto* const word =
                    reinterpret_cast<volatile std::uint64_t*>(at + i * slot + round % 64 * page);
                *word = round | 1;
                for (int spin = 0; spin < 20000; ++spin)
                    if (*word != (round | 1)) ++shared->losses;
                madvise(pointer(at + i * slot + round % 64 * page), page, MADV_DONTNEED);
                ++shared->rounds;
            }
        }}.detach();
    });
    for (int i = 0; i < 5; ++i) {
        const auto done = advise(on_inside(target, "pt-reclaim", {"--apply"}));
        CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    }
    CHECK(shared->rounds > 0);
    CHECK(shared->losses == 0);
    CHECK(tables_intact(target));
    munmap(raw, page);
}

TEST_CASE("advise inside: markers are no empty table, and shared memory keeps its contents") {
    if (!can_do("pt-reclaim")) return;
    const Target target(4 * slot, [](std::uint64_t at, std::size_t bytes) {
        map(at, bytes, MAP_SHARED);
        fill(at, bytes);
        // Only entries go: contents stay in the page cache.
        for (std::uint64_t i = 0; i < bytes; i += slot / 2)
            madvise(pointer(at + i), slot / 2, MADV_DONTNEED);
    });
    const auto done = advise(on_inside(target, "pt-reclaim", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.effect("moved_bytes") == 4 * slot);
    CHECK(target.intact());

    bool guarded = false;
    const Target guards(2 * slot, [](std::uint64_t at, std::size_t bytes) {
        map(at, bytes, MAP_PRIVATE);
        madvise(pointer(at), page, 102); // MADV_GUARD_INSTALL
    });
    guarded = witness::pagemap(guards.pid(), guards.at, 1)[0] != 0;
    if (!guarded) return skip("the kernel has no guard regions");
    const auto planned = advise(on_inside(guards, "pt-reclaim", {"--apply"}));
    CHECK(planned.total("bytes") == 0);
    CHECK(planned.skipped("markers") == slot);
    CHECK(witness::pagemap(guards.pid(), guards.at, 1)[0] != 0);
}

// --- zero-drop -----------------------------------------------------------------------------------

TEST_CASE("advise inside: pages of zeros are given back, and read as zeros") {
    if (!can_do("zero-drop")) return;
    const Target target(2 * slot, make_zeros);
    const std::size_t half = target.bytes / 2;
    const auto planned = advise(on_inside(target, "zero-drop"));
    CHECK(planned.total("bytes") == half);
    CHECK(target.present() * page == target.bytes);
    const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.effect("moved_bytes") == half);
    CHECK(done.effect("freed_bytes") == half);
    CHECK(target.present() * page == half);
    CHECK(done.effect("rss_before_bytes") >= done.effect("rss_after_bytes") + half / 2);
    CHECK(zeros_intact(target));
}

TEST_CASE("advise inside: a plan of zeros that were written to since is not believed") {
    if (!can_do("zero-drop")) return;
    int go[2];
    REQUIRE(pipe(go) == 0);
    const Target target(2 * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        std::thread{[=] {
            char byte = 0;
            // The last byte of one page, and all of another.
            if (read(go[0], &byte, 1) != 1) return;
            pointer(at + 2 * page)[-1] = 1;
            fill(at + 5 * page, page);
        }}.detach();
    });
    const TemporaryDirectory folder;
    const std::string plan = folder.path() + "/plan.json";
    CHECK(advise(on_inside(target, "zero-drop", {"-o", plan})).outcome.exit_code == 0);
    REQUIRE(write(go[1], "x", 1) == 1);
    for (int i = 0; i < 500 && !is_filled(target.pid(), target.at + 5 * page, page); ++i)
        usleep(10000);
    const auto done = advise({"--plan", plan, "--apply", "--max-stop", "500ms"});
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.stayed("state_changed") == 2 * page);
    CHECK(done.effect("moved_bytes") == target.bytes / 2 - 2 * page);
    CHECK(is_filled(target.pid(), target.at + 5 * page, page));
    CHECK(memory_of(target.pid(), target.at + page).back() == 1);
    close(go[0]);
    close(go[1]);
}

TEST_CASE("advise inside: mappings that are others since the plan are left alone") {
    if (!can_do("zero-drop")) return;
    int go[2], gone[2];
    REQUIRE(pipe(go) == 0);
    REQUIRE(pipe(gone) == 0);
    const Target target(4 * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        std::thread{[=] {
            char byte = 0;
            if (read(go[0], &byte, 1) != 1) return;
            // Of the four slots: one is gone, one is shared memory now, one can only be read.
            munmap(pointer(at), slot);
            map(at + slot, slot, MAP_SHARED);
            std::memset(pointer(at + slot), 0, slot);
            mprotect(pointer(at + 2 * slot), slot, PROT_READ);
            if (write(gone[1], "x", 1) != 1) _exit(1);
        }}.detach();
    });
    const TemporaryDirectory folder;
    const std::string plan = folder.path() + "/plan.json";
    CHECK(advise(on_inside(target, "zero-drop", {"-o", plan})).outcome.exit_code == 0);
    char byte = 0;
    REQUIRE(write(go[1], "x", 1) == 1);
    REQUIRE(read(gone[0], &byte, 1) == 1);
    const auto done = advise({"--plan", plan, "--apply", "--max-stop", "500ms"});
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.stayed("mapping_changed") == 3 * slot / 2);
    CHECK(done.effect("moved_bytes") == slot / 2);
    for (std::uint64_t at = target.at + 2 * slot; at < target.at + 4 * slot; at += 2 * page)
        CHECK(is_filled(target.pid(), at, page));
    for (const int file : {go[0], go[1], gone[0], gone[1]}) close(file);
}

TEST_CASE("advise inside: mappings that change all the time lose nothing") {
    if (!can_do("zero-drop") || !can_do("pt-reclaim")) return;
    struct Shared {
        std::atomic<std::uint64_t> rounds, losses;
    };
    void* const raw =
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(raw != MAP_FAILED);
    auto* const shared = new (raw) Shared{};
    // What is zeros, or nothing, in one moment is contents in the next, in another mapping.
    const Target target(4 * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        std::thread{[=] {
            for (std::uint64_t round = 0;; ++round) {
                const std::uint64_t first = at + round % 4 * slot;
                map(first, slot, round % 3 == 0 ? MAP_SHARED : MAP_PRIVATE);
                fill(first, 16 * page);
                for (int spin = 0; spin < 20; ++spin)
                    if (!holds(first, 16 * page)) ++shared->losses;
                map(first, slot, MAP_PRIVATE);
                std::memset(pointer(first), 0, 64 * page);
                if (round % 2 == 0) madvise(pointer(first), 64 * page, MADV_DONTNEED);
                ++shared->rounds;
            }
        }}.detach();
    });
    for (int i = 0; i < 6; ++i) {
        const auto done =
            advise(on_inside(target, i % 2 == 0 ? "zero-drop" : "pt-reclaim", {"--apply"}));
        CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    }
    CHECK(shared->rounds > 0);
    CHECK(shared->losses == 0);
    munmap(raw, page);
}

TEST_CASE("advise inside: huge pages of zeros go whole or not at all") {
    if (!can_do("zero-drop")) return;
    const Target target(2 * slot, [](std::uint64_t at, std::size_t bytes) {
        map(at, bytes, MAP_PRIVATE);
        madvise(pointer(at), bytes, MADV_HUGEPAGE);
        std::memset(pointer(at), 0, bytes);
        fill(at + slot + 7 * page, page);
    });
    if (witness::mapping_at(target.pid(), target.at)
            .value_or(witness::Mapping{})
            .bytes["AnonHugePages"] != 2 * slot)
        return skip("there are no huge pages to be had");
    const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.effect("moved_bytes") == slot);
    CHECK(done.skipped("folio_split") == slot - page);
    CHECK(target.present() * page == slot);
    CHECK(is_filled(target.pid(), target.at + slot + 7 * page, page));
}

TEST_CASE("advise inside: threads that write into zeros lose nothing") {
    if (!can_do("zero-drop")) return;
    struct Shared {
        std::atomic<std::uint64_t> rounds, losses;
    };
    void* const raw =
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(raw != MAP_FAILED);
    auto* const shared = new (raw) Shared{};
    const Target target(2 * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        std::thread{[=] {
            for (std::uint64_t round = 0;; ++round) {
                const std::uint64_t i = (round * 2 + 1) % (bytes / page);
                auto* const word = reinterpret_cast<volatile std::uint64_t*>(at + i * page + 8);
                *word = round | 1;
                for (int spin = 0; spin < 20000; ++spin)
                    if (*word != (round | 1)) ++shared->losses;
                *word = 0;
                ++shared->rounds;
            }
        }}.detach();
    });
    for (int i = 0; i < 5; ++i) {
        const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
        CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
        CHECK(done.effect("advised_bytes") > 0);
    }
    CHECK(shared->rounds > 0);
    CHECK(shared->losses == 0);
    munmap(raw, page);
}

namespace {

/// Refused as a whole, with these words, and nothing was done.
void check_refused(const char* words,
                   const std::function<void(std::uint64_t, std::size_t)>& special) {
    const std::string wanted = words;
    CAPTURE(wanted);
    const Target target(slot, [&](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        special(at, bytes);
    });
    const auto planned = advise(on_inside(target, "zero-drop"));
    CHECK_MESSAGE(remark_of(planned).find(words) != std::string::npos, remark_of(planned));
    const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
    CHECK(done.outcome.exit_code == 1);
    CHECK_MESSAGE(done.outcome.err.find(words) != std::string::npos, done.outcome.err);
    CHECK(target.present() * page == target.bytes);
    CHECK(zeros_intact(target));
}

/// A child of the target: ends with it, and does not keep the test from hearing that it is ready.
[[noreturn]] void wait_for_ever() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int file = 3; file < 256; ++file) close(file);
    for (;;) pause();
}

/// A character device of which nobody says that it leaves memory alone.
std::string some_device() {
    for (const char* path : {"/dev/loop-control", "/dev/cpu_dma_latency", "/dev/rtc0", "/dev/mem"})
        if (const int file = open(path, O_RDONLY); file >= 0) {
            close(file);
            return path;
        }
    return {};
}

/// These pages are left alone with that reason, others are not.
void check_left_alone(const char* reason,
                      const std::function<bool(std::uint64_t, std::size_t)>& special) {
    const std::string why = reason;
    CAPTURE(why);
    const Target target(2 * slot, [&](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        if (!special(at, slot)) _exit(1);
    });
    if (target.present() == 0) return skip(std::string("cannot be made here: ") + reason);
    const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.skipped(reason) > 0);
    CHECK_MESSAGE(done.effect("moved_bytes") == slot / 2, field(done.process, "effect").dump());
}

} // namespace

TEST_CASE("advise inside: zeros stay where something else may write to them") {
    if (!can_do("zero-drop")) return;
    check_refused("asynchronous I/O", [](auto, auto) {
        aio_context_t context = 0;
        if (syscall(SYS_io_setup, 8, &context) != 0) _exit(1);
    });
    check_refused("userfaultfd", [](auto, auto) {
        if (syscall(SYS_userfaultfd, O_CLOEXEC) < 0) _exit(1);
    });
    const std::string device = some_device();
    if (device.empty())
        skip("there is no device to open");
    else
        check_refused(device.c_str(), [&](auto, auto) {
            if (open(device.c_str(), O_RDONLY) < 0) _exit(1);
        });
    check_refused("a socket of family", [](auto, auto) {
        if (socket(AF_PACKET, SOCK_RAW, 0) < 0) _exit(1);
    });
    check_refused("open files of its own", [](auto, auto) {
        static char stack[65536];
        const auto body = [](void*) -> int { wait_for_ever(); };
        if (clone(body, stack + sizeof stack, CLONE_VM | SIGCHLD, nullptr) < 0) _exit(1);
    });
}

namespace {

/// With an io_uring to which these pages are registered; they are pinned as long as it is open.
bool pin(const char* pages) {
    std::vector<char> parameters(120, 0);
    const auto ring = syscall(425, 4, parameters.data());
    const iovec buffer{const_cast<char*>(pages), 16 * page};
    // io_uring_register, IORING_REGISTER_BUFFERS
    return ring >= 0 && syscall(427, ring, 0, &buffer, 1) == 0;
}

/// Newer kernels do not count what root pins.
bool counts_pinned() {
    const Target target(slot, [](std::uint64_t at, std::size_t bytes) {
        make_zeros(at, bytes);
        if (!pin(pointer(at))) _exit(1);
    });
    std::ifstream status{"/proc/" + std::to_string(target.pid()) + "/status"};
    const std::string text{std::istreambuf_iterator<char>{status}, {}};
    return text.find("VmPin:\t       0 kB") == std::string::npos;
}

} // namespace

TEST_CASE("advise inside: zeros stay while io_uring is open, and with pinned pages") {
    if (!can_do("zero-drop")) return;
    std::vector<char> parameters(120, 0);                                  // struct io_uring_params
    const int ring = static_cast<int>(syscall(425, 4, parameters.data())); // io_uring_setup
    if (ring < 0) return skip("io_uring is not allowed");
    close(ring);
    check_refused("io_uring", [](auto, auto) {
        std::vector<char> own(120, 0);
        if (syscall(425, 4, own.data()) < 0) _exit(1);
    });
    check_refused(counts_pinned() ? "VmPin" : "io_uring", [](std::uint64_t at, std::size_t) {
        if (!pin(pointer(at))) _exit(1);
    });
}

TEST_CASE("advise inside: zeros stay while another process may be a monitor of their memory") {
    if (!can_do("zero-drop")) return;
    const int file = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    if (file < 0) return skip("userfaultfd is not allowed");
    close(file);
    // It may have got it from the target, by a socket.
    const Child monitor([](const auto& ready) {
        if (syscall(SYS_userfaultfd, O_CLOEXEC) < 0) _exit(1);
        ready();
    });
    const Target target(slot, make_zeros);
    const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
    CHECK(done.outcome.exit_code == 1);
    CHECK_MESSAGE(done.outcome.err.find("has a userfaultfd, which may be for its memory") !=
                      std::string::npos,
                  done.outcome.err);
    CHECK(zeros_intact(target));
}

TEST_CASE("advise inside: zeros stay in mappings that are special") {
    if (!can_do("zero-drop")) return;
    check_left_alone("mlocked", [](auto at, auto bytes) { return mlock(pointer(at), bytes) == 0; });
    check_left_alone("wipe_on_fork", [](auto at, auto bytes) {
        return madvise(pointer(at), bytes, MADV_WIPEONFORK) == 0;
    });
    check_left_alone("special", [](auto at, auto bytes) {
        return madvise(pointer(at), bytes, MADV_DONTFORK) == 0;
    });
    check_left_alone("shared", [](auto at, auto bytes) {
        // A second process that has the first half.
        madvise(pointer(at + bytes), bytes, MADV_DONTFORK);
        const pid_t pid = fork();
        if (pid == 0) wait_for_ever();
        return pid > 0 && madvise(pointer(at + bytes), bytes, MADV_DOFORK) == 0;
    });
}

TEST_CASE("advise inside: a process that is traced is refused") {
    if (!can_do("zero-drop")) return;
    const Target target(slot, make_zeros);
    REQUIRE(ptrace(PTRACE_SEIZE, target.pid(), nullptr, nullptr) == 0);
    const auto done = advise(on_inside(target, "zero-drop", {"--apply"}));
    CHECK(done.outcome.exit_code == 1);
    CHECK(done.outcome.err.find("is traced by") != std::string::npos);
    int status = 0;
    ptrace(PTRACE_INTERRUPT, target.pid(), nullptr, nullptr);
    REQUIRE(waitpid(target.pid(), &status, 0) == target.pid());
    ptrace(PTRACE_DETACH, target.pid(), nullptr, nullptr);
    CHECK(zeros_intact(target));
}

// --- KSM -----------------------------------------------------------------------------------------

namespace {

/// Half of the pages have the same contents, by fours.
void make_pairs(std::uint64_t at, std::size_t bytes) {
    map(at, bytes, MAP_PRIVATE);
    fill(at, bytes);
    for (std::size_t i = 0; i + 4 <= bytes / page; i += 4) {
        std::memset(pointer(at + i * page), 7, page);
        std::memset(pointer(at + (i + 1) * page), 7, page);
    }
}

std::string flags_of(const Target& target) {
    return witness::mapping_at(target.pid(), target.at).value_or(witness::Mapping{}).vm_flags;
}

std::size_t merged(const Target& target) {
    std::size_t count = 0;
    for (const auto entry : witness::pagemap(target.pid(), target.at, target.bytes / page))
        count += witness::present(entry) &&
                 witness::has(witness::kpageflags(witness::frame(entry)), witness::kpf_ksm);
    return count;
}

} // namespace

TEST_CASE("advise inside: KSM is told of what is there twice, and of nothing else") {
    if (!can_do("merge")) return;
    const Target nothing(slot, map_private);
    const auto alone = advise(on_inside(nothing, "merge", {"--apply"}));
    CHECK(alone.total("bytes") == 0);
    CHECK(alone.skipped("no_gain") == slot);
    CHECK(flags_of(nothing).find(" mg ") == std::string::npos);

    const Target target(slot, make_pairs);
    const auto planned = advise(on_inside(target, "merge"));
    CHECK(planned.total("gain_bytes") == slot / 2 - page);
    bool told = false;
    for (const json& gap : field(planned.process, "gaps"))
        told = told || field(gap, "source") == "ksm";
    CHECK(told);
    const auto done = advise(on_inside(target, "merge", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.effect("advised_bytes") == slot);
    CHECK(flags_of(target).find(" mg ") != std::string::npos);
    CHECK(advise(on_inside(target, "merge")).skipped("already_mergeable") == slot);
}

TEST_CASE("advise inside: KSM pages of one user become ordinary pages") {
    if (!can_do("unmerge")) return;
    if (witness::ksm_flag_lies()) return skip("which pages KSM merged is unknown");
    const auto ksm = with_ksm();
    if (!ksm) return;
    const Target target(64 * page, [](std::uint64_t at, std::size_t bytes) {
        make_pairs(at, bytes);
        madvise(pointer(at), bytes, MADV_MERGEABLE);
        // All that is equal has one frame then; once but one are gone it has one user.
        for (int i = 0; i < 3000; ++i) {
            usleep(10000);
            std::ifstream file("/proc/self/ksm_merging_pages");
            std::size_t count = 0;
            if (!(file >> count) || count >= bytes / page / 2) break;
        }
        for (std::size_t i = 0; i + 4 <= bytes / page; i += 4) {
            if (i > 0) std::memset(pointer(at + i * page), 8, 8);
            std::memset(pointer(at + (i + 1) * page), 9, 8);
        }
        // No more merging, or what was written would be merged again.
        madvise(pointer(at + page), bytes - page, MADV_UNMERGEABLE);
    });
    if (merged(target) != 1) return skip("ksmd does not merge in time");
    const auto done = advise(on_inside(target, "unmerge", {"--apply"}));
    CHECK_MESSAGE(done.outcome.exit_code == 0, done.outcome.err);
    CHECK(done.total("bytes") == page);
    CHECK(done.effect("moved_bytes") == page);
    CHECK(merged(target) == 0);
    CHECK(memory_of(target.pid(), target.at) == std::vector<char>(page, 7));
}

} // namespace pagesift::live
