// SPDX-License-Identifier: MIT
//
// bench_lens MODE PID START END [ROUNDS]
//
// One primitive of the exact lens, held against what it replaces, over one range of a process that
// stands still:
//   walk   every page-table entry, the present and the young ones counted; against reading the same
//          range of pagemap in preads of 512 KiB, of which nothing is counted
//   cache  the page-cache tree of a shared mapping; against one cachestat(2) for each page
//   zero   the zero test of every page, all of which must be present; against a process_vm_readv
//          loop as in peers/readv_loop.cpp, which copies the same pages and looks at none
// First both must agree page by page. Then they take turns in this one thread, and each time the
// lens must find what it found before. Prints one line of JSON, in which "wrong" says what did not
// agree. Exits 3 where there is no exact lens.
#include "contest.hpp"
#include "os/kernel_view.hpp"
#include "pagesift/abi.hpp"
#include "peers/peer.hpp"

#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <sstream>
#include <string_view>

using namespace pagesift;
using namespace pagesift::bench;

namespace {

struct Target {
    std::string process; ///< its folder in /proc
    pid_t pid = 0;
    std::uint64_t start = 0, end = 0;

    std::uint64_t pages() const { return (end - start) / page_size(); }
};

[[noreturn]] void fail(const std::string& subject) {
    throw std::system_error(errno, std::generic_category(), subject);
}

/// Reads the target's pagemap in portions of 512 KiB and hands each on.
template <class Sink> void read_pagemap(const File& pagemap, const Target& target, Sink sink) {
    static std::vector<std::uint64_t> entries(512 * 1024 / 8);
    for (std::uint64_t at = target.start; at < target.end;) {
        const std::uint64_t want =
            std::min<std::uint64_t>(entries.size(), (target.end - at) / page_size());
        const ssize_t got = ::pread(pagemap.fd(), entries.data(), want * 8,
                                    static_cast<off_t>(at / page_size() * 8));
        if (got < 8) fail("pagemap");
        const auto count = static_cast<std::uint64_t>(got) / 8;
        sink(std::span<const std::uint64_t>{entries.data(), count});
        at += count * page_size();
    }
}

// --- walk ----------------------------------------------------------------------------------------

class WalkContest {
public:
    static constexpr const char* peer = "pagemap";

    WalkContest(const os::KernelView& view, const Target& target)
        : view_(view), target_(target), pagemap_(target.process + "/pagemap") {
        const auto top = view.find_top_table(pagemap_.fd());
        if (!top) throw std::runtime_error("the top page table was not found");
        top_ = *top;
    }

    std::uint64_t pages() const { return target_.pages(); }

    std::uint64_t check() {
        std::uint64_t differing = 0, at = 0;
        std::vector<std::uint64_t> walked = walk_words();
        read_pagemap(pagemap_, target_, [&](std::span<const std::uint64_t> entries) {
            for (const std::uint64_t entry : entries) {
                constexpr std::uint64_t known = entry_present | entry_swap | entry_frame;
                differing += ((entry ^ walked[at++]) & known) != 0;
            }
        });
        expect("pages that differ from pagemap", differing, 0);
        const Counts plain = count_decoded(), quick = count();
        expect("present entries", quick.present, plain.present);
        const std::uint64_t referenced = referenced_pages();
        if (quick.young > plain.young || plain.young > referenced)
            throw Wrong(std::to_string(quick.young) + " young entries, decoded " +
                        std::to_string(plain.young) + ", smaps has " + std::to_string(referenced) +
                        " referenced pages");
        young_ = quick.young;
        return quick.present;
    }

    std::uint64_t run_lens() const { return count().present; }

    void run_peer() const {
        read_pagemap(pagemap_, target_, [](std::span<const std::uint64_t>) {});
    }

    /// Once all accessed bits are cleared, the walk must find none.
    void check_after() const {
        std::FILE* file = std::fopen((target_.process + "/clear_refs").c_str(), "w");
        if (file == nullptr || std::fputs("1", file) < 0 || std::fclose(file) != 0)
            fail("clear_refs");
        expect("young entries after clear_refs", count().young, 0);
    }

    std::string facts() const { return ",\"young_pages\":" + std::to_string(young_); }

private:
    struct Counts {
        std::uint64_t present = 0, young = 0;
    };

    template <class Sink> void walk(Sink sink) const {
        const auto counts = walk::walk_tables(view_.memory(), view_.kernel(), top_,
                                              {Address{target_.start}, Address{target_.end}}, sink);
        expect("parts that the walk gave up", counts.unknown, 0);
    }

    /// The entries of a run that lie in the range; none of what has no PTE table.
    static std::span<const std::uint64_t> entries_of(const walk::SlotRun& run) {
        if (run.entries.empty()) return {};
        return run.entries.subspan((run.range.start - run.slot_start).value / page_size(),
                                   run.range.size().value / page_size());
    }

    /// Straight from the entries of x86_64: _PAGE_PRESENT, _PAGE_PROTNONE and _PAGE_ACCESSED.
    Counts count() const {
        Counts counts;
        walk([&](const walk::SlotRun& run) {
            for (const std::uint64_t raw : entries_of(run)) {
                const std::uint64_t present = (raw | raw >> 8) & 1;
                counts.present += present;
                counts.young += raw >> 5 & present;
            }
        });
        return counts;
    }

    /// The same through the format's own way to decode them, one by one.
    Counts count_decoded() const {
        Counts counts;
        const walk::EntryFormat& format = view_.kernel().entries;
        walk([&](const walk::SlotRun& run) {
            for (const std::uint64_t raw : entries_of(run)) {
                const walk::Entry entry = format.decode(format, raw, 1);
                counts.present += entry.kind == walk::EntryKind::present;
                counts.young += entry.young;
            }
        });
        return counts;
    }

    std::vector<std::uint64_t> walk_words() const {
        std::vector<std::uint64_t> words(target_.pages());
        walk([&](const walk::SlotRun& run) {
            const std::uint64_t first = (run.range.start.value - target_.start) / page_size();
            const std::uint64_t count = run.range.size().value / page_size();
            walk::write_pagemap(view_.kernel().entries, run,
                                std::span{words}.subspan(first, count));
        });
        return words;
    }

    /// smaps counts what is young, or was when somebody cleared it (fs/proc/task_mmu.c).
    std::uint64_t referenced_pages() const {
        std::istringstream smaps{read_whole(target_.process + "/smaps")};
        std::uint64_t kib = 0;
        bool inside = false;
        for (std::string line; std::getline(smaps, line);) {
            unsigned long start = 0, end = 0, value = 0;
            if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2)
                inside = start < target_.end && end > target_.start;
            else if (inside && std::sscanf(line.c_str(), "Referenced: %lu", &value) == 1)
                kib += value;
        }
        return kib * 1024 / page_size();
    }

    const os::KernelView& view_;
    const Target& target_;
    File pagemap_;
    std::uint64_t top_ = 0, young_ = 0;
};

// --- cache ---------------------------------------------------------------------------------------

class CacheContest {
public:
    static constexpr const char* peer = "cachestat";

    CacheContest(const os::KernelView& view, const Target& target)
        : view_(view), target_(target), mapping_(find_mapping(target)), file_(path()) {
        const auto tree = view.find_mapping(file_.fd());
        if (!tree) throw std::runtime_error("the page cache was not found");
        tree_ = *tree;
        first_ = (mapping_.offset + (target.start - mapping_.start)) / page_size();
    }

    std::uint64_t pages() const { return target_.pages(); }

    std::uint64_t check() {
        std::uint64_t differing = 0;
        walk([&](std::uint64_t first, std::span<const walk::CachedPage> pages) {
            for (std::size_t i = 0; i < pages.size(); ++i)
                differing += pages[i].state != state_of(ask(first + i));
        });
        expect("pages that differ from cachestat", differing, 0);
        return run_lens();
    }

    /// Pages that are in memory or in swap.
    std::uint64_t run_lens() {
        std::uint64_t found = 0;
        walk([&](std::uint64_t, std::span<const walk::CachedPage> pages) {
            for (const walk::CachedPage& page : pages) found += page.state != State::hole;
        });
        return found;
    }

    void run_peer() const {
        for (std::uint64_t i = 0; i < target_.pages(); ++i) ask(first_ + i);
    }

    void check_after() const {}
    std::string facts() const { return {}; }

private:
    using State = walk::CachedPage::State;

    static Mapping find_mapping(const Target& target) {
        for (const Mapping& mapping : read_mappings(target.process))
            if (mapping.start <= target.start && target.end <= mapping.end) return mapping;
        throw std::runtime_error("the range is in no mapping");
    }

    std::string path() const {
        std::ostringstream path;
        path << target_.process << "/map_files/" << std::hex << mapping_.start << '-'
             << mapping_.end;
        return path.str();
    }

    /// In portions of 64 Ki pages, as pagesift looks at a mapping.
    template <class Sink> void walk(Sink sink) {
        constexpr std::uint64_t portion = 64 * 1024;
        pages_.resize(portion);
        for (std::uint64_t done = 0; done < target_.pages(); done += portion) {
            const auto pages = std::span{pages_}.first(std::min(portion, target_.pages() - done));
            const auto counts =
                walk::walk_page_cache(view_.memory(), view_.kernel(), tree_, first_ + done, pages);
            expect("pages that the walk gave up", counts.unknown, 0);
            sink(first_ + done, pages);
        }
    }

    abi::cachestat ask(std::uint64_t page) const {
        abi::cachestat_range range{page * page_size(), page_size()};
        abi::cachestat answer{};
        if (::syscall(abi::NR_cachestat, file_.fd(), &range, &answer, 0u) != 0) fail("cachestat");
        return answer;
    }

    /// A page of tmpfs that is evicted is in swap (mm/filemap.c: filemap_cachestat).
    static State state_of(const abi::cachestat& answer) {
        return answer.nr_cache != 0     ? State::folio
               : answer.nr_evicted != 0 ? State::swap
                                        : State::hole;
    }

    const os::KernelView& view_;
    const Target& target_;
    Mapping mapping_;
    File file_;
    std::uint64_t tree_ = 0, first_ = 0;
    std::vector<walk::CachedPage> pages_;
};

// --- zero ----------------------------------------------------------------------------------------

class ZeroContest {
public:
    static constexpr const char* peer = "process_vm_readv";

    ZeroContest(const os::KernelView& view, const Target& target)
        : view_(view), target_(target), answers_(target.pages()), buffer_(128 * 1024) {
        const File pagemap(target.process + "/pagemap");
        read_pagemap(pagemap, target, [&](std::span<const std::uint64_t> entries) {
            for (const std::uint64_t entry : entries) {
                if ((entry & entry_present) == 0) throw std::runtime_error("a page is not present");
                frames_.push_back(entry & entry_frame);
            }
        });
    }

    std::uint64_t pages() const { return target_.pages(); }

    std::uint64_t check() {
        const std::uint64_t zero = run_lens();
        const std::vector<char> zeroes(page_size());
        std::uint64_t differing = 0, at = 0;
        copy([&](const char* pages, std::uint64_t count) {
            for (std::uint64_t i = 0; i < count; ++i) {
                const bool is_zero =
                    std::memcmp(pages + i * page_size(), zeroes.data(), page_size()) == 0;
                differing += answers_[at++] != (is_zero ? walk::Zero::zero : walk::Zero::not_zero);
            }
        });
        expect("pages that differ from their contents", differing, 0);
        return zero;
    }

    std::uint64_t run_lens() {
        walk::test_zero(view_.memory(), view_.kernel(), frames_, answers_);
        return static_cast<std::uint64_t>(
            std::count(answers_.begin(), answers_.end(), walk::Zero::zero));
    }

    void run_peer() {
        copy([](const char*, std::uint64_t) {});
    }

    void check_after() const {}
    std::string facts() const { return {}; }

private:
    template <class Sink> void copy(Sink sink) {
        for (std::uint64_t at = target_.start; at < target_.end;) {
            const iovec local{buffer_.data(), buffer_.size()};
            const iovec remote{reinterpret_cast<void*>(at),
                               std::min<std::uint64_t>(buffer_.size(), target_.end - at)};
            const ssize_t got = ::process_vm_readv(target_.pid, &local, 1, &remote, 1, 0);
            if (got != static_cast<ssize_t>(remote.iov_len)) fail("process_vm_readv");
            sink(buffer_.data(), remote.iov_len / page_size());
            at += remote.iov_len;
        }
    }

    const os::KernelView& view_;
    const Target& target_;
    std::vector<std::uint64_t> frames_;
    std::vector<walk::Zero> answers_;
    std::vector<char> buffer_;
};

template <class Contest>
void run(const os::KernelView& view, const Target& target, unsigned rounds) {
    Contest contest(view, target);
    take_turns(contest, rounds);
}

struct Mode {
    std::string_view name;
    void (*run)(const os::KernelView&, const Target&, unsigned);
};
constexpr Mode modes[] = {
    {"walk", run<WalkContest>}, {"cache", run<CacheContest>}, {"zero", run<ZeroContest>}};

} // namespace

int main(int argc, char** argv) {
    const auto* mode = std::find_if(std::begin(modes), std::end(modes), [&](const Mode& known) {
        return argc > 4 && known.name == argv[1];
    });
    const int rounds = argc > 5 ? std::atoi(argv[5]) : 15;
    Target target;
    if (argc > 4) {
        target.pid = std::atoi(argv[2]);
        target.process = std::string("/proc/").append(argv[2]);
        target.start = std::strtoull(argv[3], nullptr, 16);
        target.end = std::strtoull(argv[4], nullptr, 16);
    }
    if (mode == std::end(modes) || target.pid <= 0 || target.pages() == 0 || rounds < 1) {
        std::fputs("usage: bench_lens walk|cache|zero PID START END [ROUNDS]\n", stderr);
        return 2;
    }
    try {
        const auto opened = os::open_kernel_view({});
        if (!opened.view) {
            std::fprintf(stderr, "bench_lens: no exact lens: %s\n", opened.reason.c_str());
            return 3;
        }
        mode->run(*opened.view, target, static_cast<unsigned>(rounds));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_lens: %s: %s\n", argv[1], error.what());
        return 1;
    }
    return 0;
}
