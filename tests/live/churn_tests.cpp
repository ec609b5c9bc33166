// SPDX-License-Identifier: MIT
// A process that changes all the time, looked at through the exact lens: what is read while it
// changes may be unknown, but is never impossible.
#include "harness.hpp"
#include "zoo/machine.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <random>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

constexpr std::size_t page = 4096, slot = std::size_t{2} << 20;
constexpr std::size_t pages = 8 * slot / page;

/// Ten minutes are a good test; PAGESIFT_CHURN_SECONDS says how long this one is.
std::chrono::seconds length_of_churn() {
    const char* wanted = std::getenv("PAGESIFT_CHURN_SECONDS");
    return std::chrono::seconds{wanted != nullptr ? std::strtol(wanted, nullptr, 10) : 5};
}

/// One change to anonymous memory at @p anon and to a file that is mapped at @p shared.
void change(char* anon, char* shared, int fd, std::mt19937& random) {
    const std::size_t first = random() % pages, count = 1 + random() % 256;
    const std::size_t n = std::min(count, pages - first);
    char* const at = (random() % 2 == 0 ? anon : shared) + first * page;
    switch (random() % 8) {
    case 0:
    case 1:
    case 2:
        for (std::size_t i = 0; i < n; ++i) at[i * page] = static_cast<char>(random());
        break;
    case 3:
    case 4: madvise(at, n * page, MADV_PAGEOUT); break;
    case 5: madvise(at, n * page, MADV_DONTNEED); break;
    case 6: // whole slots, whose tables go where the kernel gives them back
        madvise(anon + random() % 8 * slot, slot, MADV_DONTNEED);
        break;
    default:
        if (random() % 16 == 0) {
            const pid_t child = fork();
            if (child == 0) _exit(0);
            waitpid(child, nullptr, 0);
        } else {
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(first * page), static_cast<off_t>(n * page));
        }
    }
}

} // namespace

TEST_CASE("churn: a process that changes all the time shows nothing impossible") {
    if (!have_root() || lenses().back() != "exact") return;
    release_zoo();
    zoo::Machine machine;
    constexpr std::size_t area_pages = 4 * pages;
    try {
        machine.add_swap_file(area_pages * page);
    } catch (const zoo::Unavailable& reason) {
        return skip(std::string("no swap file: ") + reason.what());
    }
    machine.release();
    const int fd = memfd_create("churn", MFD_CLOEXEC);
    REQUIRE(ftruncate(fd, static_cast<off_t>(pages * page)) == 0);
    const auto map = [&](int flags, int file) {
        void* const at = mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, flags, file, 0);
        REQUIRE(at != MAP_FAILED);
        return static_cast<char*>(at);
    };
    char* const anon = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
    char* const shared = map(MAP_SHARED, fd);
    {
        const Child child{[&](const auto& ready) {
            ready();
            for (std::mt19937 random{1};;) change(anon, shared, fd, random);
        }};
        std::size_t looks = 0, impossible = 0;
        std::uint64_t swapped = 0, unknown = 0, all = 0;
        constexpr std::uint64_t enough = 100; // for which a slow machine takes longer
        const auto begin = std::chrono::steady_clock::now();
        const auto length = [&] {
            return swapped > enough ? length_of_churn() : 6 * length_of_churn();
        };
        for (; std::chrono::steady_clock::now() < begin + length(); ++looks) {
            const auto seen =
                inspect(child.pid(), {"--ranges", "--zero", "all", "--lens", "exact"});
            REQUIRE(seen.is_object());
            check_invariants(seen);
            const auto& states = seen["totals"]["states"];
            for (const auto& [name, bytes] : states.items()) all += bytes.get<std::uint64_t>();
            unknown += states["unknown_bytes"].get<std::uint64_t>();
            for (const auto& run : seen["ranges"]) {
                if (!run["swap_offset"].is_number()) continue;
                ++swapped;
                const auto offset = run["swap_offset"].get<std::uint64_t>();
                impossible += offset == 0 || offset >= area_pages; // the header, or behind the end
            }
        }
        MESSAGE(looks << " looks, " << swapped << " runs of swapped pages, " << impossible
                      << " impossible, " << unknown / page << " of " << all / page
                      << " pages unknown");
        CHECK(looks > 1);
        CHECK(swapped > enough);
        CHECK(impossible == 0);
        CHECK(unknown * 1000 < all);
    }
    munmap(anon, pages * page);
    munmap(shared, pages * page);
    close(fd);
}

} // namespace pagesift::live
