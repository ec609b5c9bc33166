// SPDX-License-Identifier: MIT
//
// A bare process_vm_readv loop over every present page: what moving the bytes costs, with nothing
// done to them. Which pages are present is found out before the clock starts; the figure that
// counts is loop_seconds, not the time of the process.
// usage: readv_loop PID [BUFFER_KIB]      (default 128; 64 to 512 were alike within the noise)
#include "peer.hpp"

#include <sys/uio.h>

#include <algorithm>

using namespace pagesift::bench;

namespace {

struct Range {
    std::uint64_t start;
    std::uint64_t end;
};

// Frame 0 of the zero page and special mappings do not matter here: the workload holds neither in
// any number. A mapping that cannot be read ([vvar]) is dropped when its first read fails.
std::vector<Range> present_ranges(const std::string& process) {
    const File pagemap(process + "/pagemap");
    std::vector<std::uint64_t> entries(16 * 1024);
    std::vector<Range> ranges;
    for (const Mapping& mapping : read_mappings(process)) {
        for (std::uint64_t at = mapping.start; at < mapping.end;) {
            const std::uint64_t want =
                std::min<std::uint64_t>(entries.size(), (mapping.end - at) / page_size());
            const ssize_t got = ::pread(pagemap.fd(), entries.data(), want * 8,
                                        static_cast<off_t>(at / page_size() * 8));
            if (got <= 0) break;
            for (std::uint64_t index = 0; index < static_cast<std::uint64_t>(got) / 8; ++index) {
                const std::uint64_t page = at + index * page_size();
                if ((entries[index] & entry_present) == 0) continue;
                if (!ranges.empty() && ranges.back().end == page)
                    ranges.back().end += page_size();
                else
                    ranges.push_back({page, page + page_size()});
            }
            at += static_cast<std::uint64_t>(got) / 8 * page_size();
        }
    }
    return ranges;
}

} // namespace

int main(int argc, char** argv) {
    return run_peer(argc, argv, "readv_loop", [&](const std::string& process) {
        const auto pid = static_cast<pid_t>(std::atoi(argv[1]));
        const std::vector<Range> ranges = present_ranges(process);
        std::vector<char> buffer((argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 128) * 1024);

        std::uint64_t bytes = 0;
        const auto started = std::chrono::steady_clock::now();
        for (const Range& range : ranges) {
            for (std::uint64_t at = range.start; at < range.end;) {
                const iovec local{buffer.data(), buffer.size()};
                const iovec remote{reinterpret_cast<void*>(at),
                                   std::min<std::uint64_t>(buffer.size(), range.end - at)};
                const ssize_t got = ::process_vm_readv(pid, &local, 1, &remote, 1, 0);
                if (got <= 0) break;
                at += static_cast<std::uint64_t>(got);
                bytes += static_cast<std::uint64_t>(got);
            }
        }
        std::printf("{\"bytes\":%ju,\"loop_seconds\":%.6f}\n", static_cast<std::uintmax_t>(bytes),
                    seconds_since(started));
    });
}
