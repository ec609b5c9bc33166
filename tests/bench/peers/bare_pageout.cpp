// SPDX-License-Identifier: MIT
//
// The bare calls behind `advise pageout --apply`: pidfd_open(2) and process_madvise(2) over one
// range, and nothing else: no look before, none after, no question whether anything came of it.
// 64 MiB a call; one call for all of it, and 2 MiB a call, took the same within the noise.
// usage: bare_pageout PID START END
#include "peer.hpp"

#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>

using namespace pagesift::bench;

namespace {

[[noreturn]] void fail(const char* subject) {
    throw std::system_error(errno, std::generic_category(), subject);
}

void page_out(int pidfd, std::uint64_t start, std::uint64_t end) {
    constexpr std::uint64_t bytes_a_call = std::uint64_t{64} << 20;
    constexpr int advice = 21; // MADV_PAGEOUT
    constexpr long number = 440;
    while (start < end) {
        const iovec range{reinterpret_cast<void*>(start),
                          std::min<std::uint64_t>(bytes_a_call, end - start)};
        const long done = ::syscall(number, pidfd, &range, 1, advice, 0);
        if (done <= 0) fail("process_madvise");
        start += static_cast<std::uint64_t>(done);
    }
}

} // namespace

int main(int argc, char** argv) {
    return run_peer(argc, argv, "bare_pageout", [&](const std::string&) {
        if (argc != 4) throw std::runtime_error("START and END are missing");
        const auto pidfd = static_cast<int>(::syscall(SYS_pidfd_open, std::atoi(argv[1]), 0));
        if (pidfd < 0) fail("pidfd_open");
        page_out(pidfd, std::strtoull(argv[2], nullptr, 16), std::strtoull(argv[3], nullptr, 16));
        ::close(pidfd);
    });
}
