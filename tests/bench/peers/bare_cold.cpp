// SPDX-License-Identifier: MIT
//
// The floor of one round of `cold`: clear the accessed bits, then read the accessed bit of every
// page once, and nothing else. There is no wait in between and nothing is kept or said of a page.
//   1. "1" is written to clear_refs;
//   2. the page tables of every mapping are walked with pagesift's own walk, on one thread, and
//      the young entries are counted: no way to read these bits is known that costs less (smaps
//      walks the same tables and adds up a dozen figures, the idle bitmap asks rmap for each page).
// Opening the exact lens is part of it, as it is of any program that walks.
// usage: bare_cold PID [--phases]      --phases prints what each step took, on standard error
#include "os/kernel_view.hpp"
#include "peer.hpp"

#include <cstring>

using namespace pagesift;
using namespace pagesift::bench;

namespace {

void clear_accessed_bits(const std::string& process) {
    const int fd = ::open((process + "/clear_refs").c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ::write(fd, "1", 1) != 1)
        throw std::system_error(errno, std::generic_category(), process + "/clear_refs");
    ::close(fd);
}

// Straight from the entries of x86_64, as in bench_lens: this is what the bound was set on.
std::uint64_t count_young(const walk::SlotRun& run) {
    std::uint64_t young = 0;
    for (const std::uint64_t raw : run.entries) young += raw >> 5 & (raw | raw >> 8) & 1;
    return young;
}

} // namespace

int main(int argc, char** argv) {
    const bool phases = argc > 2 && std::strcmp(argv[2], "--phases") == 0;
    return run_peer(argc, argv, "bare_cold", [&](const std::string& process) {
        auto started = std::chrono::steady_clock::now();
        const auto report = [&](const char* phase) {
            if (phases)
                std::fprintf(stderr, "%-12s %8.3f ms\n", phase, seconds_since(started) * 1e3);
            started = std::chrono::steady_clock::now();
        };
        const auto opened = os::open_kernel_view({});
        if (!opened.view) throw std::runtime_error("no exact lens: " + opened.reason);
        report("lens");
        clear_accessed_bits(process);
        report("clear_refs");
        const File pagemap(process + "/pagemap");
        const auto top = opened.view->find_top_table(pagemap.fd());
        if (!top) throw std::runtime_error("the top page table was not found");
        std::uint64_t young = 0;
        for (const Mapping& mapping : read_mappings(process))
            walk::walk_tables(opened.view->memory(), opened.view->kernel(), *top,
                              {Address{mapping.start}, Address{mapping.end}},
                              [&](const walk::SlotRun& run) { young += count_young(run); });
        report("walk");
        std::printf("%ju\n", static_cast<std::uintmax_t>(young));
    });
}
