// SPDX-License-Identifier: MIT
//
// The floor: the system calls that any reader of the proc files must issue to classify every page
// with `--zero off`, on one thread, with nothing classified, kept or printed.
//   1. maps, once;
//   2. pagemap of every mapping, in bulk (128 KiB a read; 16 KiB to 4 MiB cost the same);
//   3. kpageflags of every present frame, in ascending runs. A frame read for nothing costs what a
//      wanted one does, so runs are joined over very small gaps only;
//   4. for shared memory, under the entries that pagemap calls none, the cheapest calls found that
//      tell none, cached and swapped apart:
//      a. SEEK_DATA/SEEK_HOLE inside those spans only: data is cached or swapped;
//      b. how many pages of the object are swapped, from the Swap line of this process's own smaps
//         after mapping the whole object here, untouched. The kernel keeps that number, so it
//         costs microseconds (mm/shmem.c:shmem_swap_usage). 0: all data is cached. As many as
//         there is data: all of it is swapped;
//      c. only where b does not settle it, cachestat(2) for each segment of a, halving those that
//         are mixed. It costs some 200 ns for each swapped page, more than all of the above, and
//         bisecting without a is dearer still, whatever the first step.
//   5. for other files, cachestat of each span of none entries.
// usage: floor PID [--phases]      --phases prints what each step took, on standard error
#include "peer.hpp"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

using namespace pagesift::bench;

namespace {

struct Span {
    std::uint64_t start;
    std::uint64_t end;
    std::uint64_t size() const { return end - start; }
};

struct CachestatRange {
    std::uint64_t offset;
    std::uint64_t length;
};
struct Cachestat {
    std::uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

Cachestat cachestat(int fd, Span bytes) {
    constexpr long number = 451;
    CachestatRange range{bytes.start, bytes.size()};
    Cachestat answer{};
    // A regular file of someone else is refused: such pages stay unknown at no cost.
    (void)::syscall(number, fd, &range, &answer, 0);
    return answer;
}

// One bit a frame: sorts for the price of a pass.
class FrameSet {
public:
    void add(std::uint64_t frame) {
        const std::uint64_t word = frame / 64;
        if (word >= words_.size()) words_.resize(word + word / 4 + 1024);
        words_[word] |= std::uint64_t{1} << (frame % 64);
    }

    // Ascending runs; two that are no further apart than `gap` frames come as one.
    template <typename Visit> void for_each_run(std::uint64_t gap, Visit visit) const {
        Span run{0, 0};
        for (std::uint64_t index = 0; index < words_.size(); ++index) {
            for (std::uint64_t word = words_[index]; word != 0;) {
                const auto first = static_cast<unsigned>(std::countr_zero(word));
                const auto count = static_cast<unsigned>(std::countr_one(word >> first));
                const std::uint64_t start = index * 64 + first;
                if (run.end != 0 && start - run.end <= gap) {
                    run.end = start + count;
                } else {
                    if (run.end != 0) visit(run);
                    run = {start, start + count};
                }
                if (first + count >= 64) break;
                word &= ~std::uint64_t{0} << (first + count);
            }
        }
        if (run.end != 0) visit(run);
    }

private:
    std::vector<std::uint64_t> words_;
};

// The spans of none entries of one mapping, as addresses; the frames go into `frames`.
std::vector<Span> read_entries(const File& pagemap, const Mapping& mapping, FrameSet& frames) {
    static std::vector<std::uint64_t> entries(16 * 1024);
    std::vector<Span> none;
    for (std::uint64_t at = mapping.start; at < mapping.end;) {
        const std::uint64_t want =
            std::min<std::uint64_t>(entries.size(), (mapping.end - at) / page_size());
        const ssize_t got = ::pread(pagemap.fd(), entries.data(), want * 8,
                                    static_cast<off_t>(at / page_size() * 8));
        if (got <= 0) break;
        for (std::uint64_t index = 0; index < static_cast<std::uint64_t>(got) / 8; ++index) {
            const std::uint64_t entry = entries[index];
            if ((entry & entry_present) != 0) {
                frames.add(entry & entry_frame);
            } else if (mapping.inode != 0 && (entry & entry_swap) == 0) {
                const std::uint64_t page = at + index * page_size();
                if (!none.empty() && none.back().end == page)
                    none.back().end += page_size();
                else
                    none.push_back({page, page + page_size()});
            }
        }
        at += static_cast<std::uint64_t>(got) / 8 * page_size();
    }
    return none;
}

void read_flags(const FrameSet& frames) {
    constexpr std::uint64_t gap = 2;
    const File kpageflags("/proc/kpageflags");
    std::vector<std::uint64_t> flags(8 * 1024);
    frames.for_each_run(gap, [&](Span run) {
        for (std::uint64_t frame = run.start; frame < run.end; frame += flags.size()) {
            const std::uint64_t count = std::min<std::uint64_t>(flags.size(), run.end - frame);
            if (::pread(kpageflags.fd(), flags.data(), count * 8, static_cast<off_t>(frame * 8)) <=
                0)
                break;
        }
    });
}

std::uint64_t swapped_bytes_of_object(const File& object, std::uint64_t size) {
    void* here = ::mmap(nullptr, size, PROT_NONE, MAP_SHARED, object.fd(), 0);
    if (here == MAP_FAILED)
        throw std::system_error(errno, std::generic_category(), "mmap of shared memory");
    const std::string smaps = read_whole("/proc/self/smaps");
    ::munmap(here, size);
    char prefix[32];
    std::snprintf(prefix, sizeof prefix, "%jx-", reinterpret_cast<std::uintmax_t>(here));
    const auto at = smaps.find("\nSwap:", smaps.find(prefix));
    return at == std::string::npos
               ? 0
               : std::strtoull(smaps.c_str() + at + std::strlen("\nSwap:"), nullptr, 10) * 1024;
}

void ask_mixed(int fd, Span bytes) {
    const Cachestat answer = cachestat(fd, bytes);
    const std::uint64_t pages = bytes.size() / page_size();
    if (pages <= 1 || answer.cache == pages || answer.evicted == pages) return;
    const std::uint64_t middle = bytes.start + pages / 2 * page_size();
    ask_mixed(fd, {bytes.start, middle});
    ask_mixed(fd, {middle, bytes.end});
}

void ask_shared_memory(const File& object, const Mapping& mapping, const std::vector<Span>& none) {
    std::vector<Span> segments;
    std::uint64_t data = 0;
    for (const Span& span : none) {
        const std::uint64_t end = span.end - mapping.start + mapping.offset;
        std::uint64_t at = span.start - mapping.start + mapping.offset;
        while (at < end) {
            const off_t first = ::lseek(object.fd(), static_cast<off_t>(at), SEEK_DATA);
            if (first < 0 || static_cast<std::uint64_t>(first) >= end) break;
            const off_t last = ::lseek(object.fd(), first, SEEK_HOLE);
            at = std::min(end, static_cast<std::uint64_t>(last));
            segments.push_back({static_cast<std::uint64_t>(first), at});
            data += segments.back().size();
        }
    }
    if (data == 0) return;
    struct stat status = {};
    ::fstat(object.fd(), &status);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    const bool whole = mapping.offset == 0 && mapping.end - mapping.start >= size;
    const std::uint64_t swapped = swapped_bytes_of_object(object, size);
    if (swapped == 0 || (whole && swapped == data)) return;
    for (const Span& segment : segments) ask_mixed(object.fd(), segment);
}

void ask_page_cache(const std::string& process, const Mapping& mapping,
                    const std::vector<Span>& none) {
    char name[64];
    std::snprintf(name, sizeof name, "/map_files/%jx-%jx",
                  static_cast<std::uintmax_t>(mapping.start),
                  static_cast<std::uintmax_t>(mapping.end));
    const File object(process + name);
    struct statfs status = {};
    if (::fstatfs(object.fd(), &status) != 0) return;
    if (status.f_type == TMPFS_MAGIC) {
        ask_shared_memory(object, mapping, none);
        return;
    }
    for (const Span& span : none)
        cachestat(object.fd(), {span.start - mapping.start + mapping.offset,
                                span.end - mapping.start + mapping.offset});
}

} // namespace

int main(int argc, char** argv) {
    const bool phases = argc > 2 && std::strcmp(argv[2], "--phases") == 0;
    return run_peer(argc, argv, "floor", [&](const std::string& process) {
        auto started = std::chrono::steady_clock::now();
        const auto report = [&](const char* phase) {
            if (phases)
                std::fprintf(stderr, "%-12s %8.3f ms\n", phase, seconds_since(started) * 1e3);
            started = std::chrono::steady_clock::now();
        };
        FrameSet frames;
        std::vector<std::pair<Mapping, std::vector<Span>>> unmapped;
        const std::vector<Mapping> mappings = read_mappings(process);
        report("maps");
        const File pagemap(process + "/pagemap");
        for (const Mapping& mapping : mappings) {
            std::vector<Span> none = read_entries(pagemap, mapping, frames);
            if (!none.empty()) unmapped.emplace_back(mapping, std::move(none));
        }
        report("pagemap");
        read_flags(frames);
        report("kpageflags");
        for (const auto& [mapping, none] : unmapped) ask_page_cache(process, mapping, none);
        report("page cache");
    });
}
