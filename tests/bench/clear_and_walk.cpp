// SPDX-License-Identifier: MIT
//
// clear_and_walk PID
//
// What a round of `pagesift cold` cannot do without, and nothing else: "1" written to clear_refs,
// then one walk of all page tables in which nothing is looked at. Prints what both took as one line
// of JSON; finding the kernel's structures is not in it.
#include "os/kernel_view.hpp"
#include "pagesift/walk.hpp"
#include "peers/peer.hpp"

using namespace pagesift;
using namespace pagesift::bench;

namespace {

void clear(const std::string& process) {
    const std::string path = process + "/clear_refs";
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    const bool cleared = fd >= 0 && ::write(fd, "1", 1) == 1;
    if (fd >= 0) ::close(fd);
    if (!cleared) throw std::system_error(errno, std::generic_category(), path);
}

void run(const std::string& process) {
    const auto opened = os::open_kernel_view({});
    if (!opened.view) throw std::runtime_error(opened.reason);
    const File pagemap(process + "/pagemap");
    const auto top = opened.view->find_top_table(pagemap.fd());
    if (!top) throw std::runtime_error("the top page table was not found");
    const auto mappings = read_mappings(process);
    const auto begin = std::chrono::steady_clock::now();
    clear(process);
    const double cleared = seconds_since(begin);
    std::uint64_t tables = 0;
    for (const auto& mapping : mappings)
        walk::walk_tables(opened.view->memory(), opened.view->kernel(), *top,
                          {Address{mapping.start}, Address{mapping.end}},
                          [&](const walk::SlotRun& found) { tables += !found.entries.empty(); });
    std::printf("{\"loop_seconds\":%.6f,\"clear_seconds\":%.6f,\"tables\":%llu}\n",
                seconds_since(begin), cleared, static_cast<unsigned long long>(tables));
}

} // namespace

int main(int argc, char** argv) { return run_peer(argc, argv, "clear_and_walk", run); }
