// SPDX-License-Identifier: MIT
//
// bench_process BYTES
//
// One of the many processes of a workload: writes to every page of so much private memory, says so
// by one byte on standard output, and sleeps until its standard input ends.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
    const std::uint64_t bytes = argc == 2 ? std::strtoull(argv[1], nullptr, 10) : 0;
    if (bytes == 0) {
        std::fputs("usage: bench_process BYTES\n", stderr);
        return 2;
    }
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        std::perror("bench_process: mmap");
        return 1;
    }
    // As in the other workloads: every figure is about small pages.
    madvise(start, bytes, MADV_NOHUGEPAGE);
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    for (std::uint64_t at = 0; at < bytes; at += page)
        *reinterpret_cast<volatile std::uint64_t*>(static_cast<char*>(start) + at) = at + 1;
    char byte = 0;
    if (write(STDOUT_FILENO, &byte, 1) != 1) return 1;
    close(STDOUT_FILENO);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    return 0;
}
