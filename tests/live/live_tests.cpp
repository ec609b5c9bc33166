// SPDX-License-Identifier: MIT
// The live tests' entry. Other roles, as the target of a test: with --exec-again N the program
// executes itself N times; with --be-charged GROUP it fills memory that is charged to a control
// group; with --keep-still it has a bit of everything, and neither changes nor loses it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.hpp"

namespace {

int exec_again(char** argv) {
    const long left = std::strtol(argv[2], nullptr, 10);
    if (left <= 0) return 0;
    // A different size each time: an answer mixed from two programs cannot add up by chance.
    const std::string next = std::to_string(left - 1);
    const std::string padding(static_cast<std::size_t>(left % 7) * 4096, 'x');
    execl("/proc/self/exe", argv[0], argv[1], next.c_str(), padding.c_str(),
          static_cast<char*>(nullptr));
    return 1;
}

char* map(std::size_t bytes, int kind) {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) _exit(1);
    return static_cast<char*>(at);
}

/// Waits until the test closes our standard input.
void wait_for_end() {
    for (char byte = 0; read(STDIN_FILENO, &byte, 1) > 0;) {
    }
}

/// Joins the group while it has little memory of its own, and takes 48 MiB of its own and 16 MiB of
/// shared memory, both with a child; and 8 MiB in swap that is not the child's.
int be_charged(const char* group) {
    constexpr std::size_t MiB = std::size_t{1} << 20;
    std::ofstream(std::string(group) + "/cgroup.procs") << getpid() << std::endl;
    std::memset(map(48 * MiB, MAP_PRIVATE), 'x', 48 * MiB);
    std::memset(map(16 * MiB, MAP_SHARED), 'y', 16 * MiB);
    const pid_t child = fork();
    if (child == 0) {
        wait_for_end();
        _exit(0);
    }
    char* const swapped = map(8 * MiB, MAP_PRIVATE);
    std::minstd_rand random{1};
    for (std::size_t i = 0; i < 8 * MiB; ++i) swapped[i] = static_cast<char>(random());
    madvise(swapped, 8 * MiB, 21); // MADV_PAGEOUT
    if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
    wait_for_end();
    waitpid(child, nullptr, 0);
    return 0;
}

/// Private and shared memory, parts of it untouched or zero; what is there is locked.
int keep_still() {
    constexpr std::size_t KiB = std::size_t{1} << 10;
    char* const own = map(4096 * KiB, MAP_PRIVATE);
    for (std::size_t i = 0; i < 2048 * KiB; ++i) own[i] = static_cast<char>(i % 251 + 1);
    std::memset(own + 3072 * KiB, 0, 512 * KiB);
    char* const shared = map(1024 * KiB, MAP_SHARED);
    std::memset(shared, 'x', 256 * KiB);
    mlock2(own, 4096 * KiB, MLOCK_ONFAULT);
    mlock2(shared, 1024 * KiB, MLOCK_ONFAULT);
    madvise(shared, 256 * KiB, MADV_DONTNEED); // stays in the page cache
    if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
    wait_for_end();
    for (std::size_t i = 0; i < 2048 * KiB; ++i)
        if (own[i] != static_cast<char>(i % 251 + 1)) return 2;
    for (std::size_t i = 0; i < 256 * KiB; ++i)
        if (shared[i] != 'x') return 3;
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    if (argc >= 3 && std::strcmp(argv[1], "--exec-again") == 0) return exec_again(argv);
    if (argc >= 3 && std::strcmp(argv[1], "--be-charged") == 0) return be_charged(argv[2]);
    if (argc >= 2 && std::strcmp(argv[1], "--keep-still") == 0) return keep_still();
    doctest::Context context(argc, argv);
    const int result = context.run();
    pagesift::live::release_zoo();
    if (!context.shouldExit()) pagesift::live::report_skips();
    return result;
}
