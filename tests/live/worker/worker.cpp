// SPDX-License-Identifier: MIT
// worker: a process that uses its memory and knows how. Ranges of every kind that pages can have
// are hot, warm and cold; each page has contents of its own, which every access compares; and every
// access is noted with its time. Says in one line of JSON what it holds, works until its standard
// input ends, compares all of its pages, and says in a second line what came of it.
//
//     worker [--pages N] [--slots N] [--threads N] [--warm-period SECONDS] [--hot-pause
//     MICROSECONDS]
//            [--log FILE --seconds N] [--directory DIR] [--no-tight]
//
//   --pages      of each range of small pages (4 MiB of them)
//   --slots      huge pages of each range of those (1); 0: none
//   --warm-period  between two accesses to a warm page, on average: each is to any of them (3)
//   --hot-pause  after each pass over all hot pages (10000)
//   --log        where the history of accesses goes at the end, which --seconds (30) must cover
//   --directory  for the files that are mapped (/var/tmp); they are gone at once
//   --no-tight   without the pages that one thread on one CPU reads without a pause
//
// What it needs for itself, the history above all, is locked into memory and no part of its ranges.
#include "history.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "zoo/witness.hpp"

namespace pagesift::live {

namespace {

using nlohmann::json;
namespace witness = zoo::witness;

struct Options {
    std::uint64_t pages = (std::uint64_t{4} << 20) / witness::page_size();
    std::uint64_t slots = 1;
    unsigned threads = 2;
    double warm_period = 3;
    unsigned hot_pause_us = 10000;
    std::string log;
    double seconds = 30;
    std::string directory = "/var/tmp";
    bool tight = true;
};

[[noreturn]] void fail(const std::string& subject) {
    throw std::runtime_error(subject + ": " + std::strerror(errno));
}

const std::uint64_t page_size = witness::page_size();
constexpr std::uint64_t tight_pages = 16;

enum class Kind { anon, thp, shmem, file };
constexpr std::array kind_names = {"anon", "thp", "shmem", "file"};
enum class Heat { hot, warm, cold, tight };
constexpr std::array heat_names = {"hot", "warm", "cold", "tight"};

template <class Enum, class Names> const char* name_of(Enum value, const Names& names) {
    return names.at(static_cast<std::size_t>(value));
}

// Contents ---------------------------------------------------------------------------------------

/// The first word of a page; the others count up from it. No two pages are alike, nor is one like
/// itself after a write.
std::uint64_t first_word(std::uint64_t page, std::uint64_t generation) {
    std::uint64_t x = (page << 32 | generation) + 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

void write_contents(volatile std::uint64_t* words, std::uint64_t page, std::uint64_t generation) {
    const std::uint64_t first = first_word(page, generation);
    for (std::uint64_t i = 0; i < page_size / 8; ++i) words[i] = first + i;
}

bool has_contents(const volatile std::uint64_t* words, std::uint64_t page,
                  std::uint64_t generation) {
    const std::uint64_t first = first_word(page, generation);
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < page_size / 8; ++i) wrong |= words[i] ^ (first + i);
    return wrong == 0;
}

// Memory -----------------------------------------------------------------------------------------

struct Range {
    Kind kind = Kind::anon;
    Heat heat = Heat::hot;
    std::byte* start = nullptr;
    std::uint64_t first = 0; ///< number of its first page among all
    std::uint64_t pages = 0;
    std::uint64_t unit_pages = 1; ///< that share one accessed bit

    volatile std::uint64_t* words(std::uint64_t index) const {
        return reinterpret_cast<volatile std::uint64_t*>(start + index * page_size);
    }
};

/// Address space with room around it, so that the kernel makes no one mapping of two ranges.
std::byte* reserve(std::uint64_t bytes, std::uint64_t alignment) {
    const std::uint64_t room = bytes + alignment + 2 * page_size;
    void* at = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) fail("mmap");
    const auto start = reinterpret_cast<std::uint64_t>(at) + page_size;
    return reinterpret_cast<std::byte*>((start + alignment - 1) / alignment * alignment);
}

/// A file that holds the contents of the range, generation 0, and has no name.
int make_file(const Range& range, const std::string& directory) {
    const int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) fail(directory);
    std::vector<std::uint64_t> words(page_size / 8);
    for (std::uint64_t i = 0; i < range.pages; ++i) {
        write_contents(words.data(), range.first + i, 0);
        if (write(fd, words.data(), page_size) != static_cast<ssize_t>(page_size)) fail(directory);
    }
    if (fsync(fd) != 0) fail("fsync");
    return fd;
}

bool is_huge(const Range& range) {
    const auto mapping =
        witness::mapping_at(getpid(), reinterpret_cast<std::uint64_t>(range.start));
    if (!mapping) return false;
    const auto found = mapping->bytes.find("AnonHugePages");
    return found != mapping->bytes.end() && found->second >= range.pages * page_size;
}

/// Maps and fills a range. A text: why this machine cannot have it.
std::optional<std::string> build(Range& range, const Options& options) {
    constexpr int madv_collapse = 25; // Linux 6.1; newer than Debian 12's headers
    const std::uint64_t bytes = range.pages * page_size;
    const bool huge = range.kind == Kind::thp;
    range.start = reserve(bytes, huge ? witness::slot_size() : page_size);
    int flags = MAP_FIXED | (range.kind == Kind::shmem ? MAP_SHARED : MAP_PRIVATE), fd = -1;
    if (range.kind == Kind::file)
        fd = make_file(range, options.directory);
    else
        flags |= MAP_ANONYMOUS;
    if (mmap(range.start, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) != range.start) fail("mmap");
    if (fd >= 0) close(fd);
    madvise(range.start, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (std::uint64_t i = 0; i < range.pages; ++i) {
        if (range.kind != Kind::file)
            write_contents(range.words(i), range.first + i, 0);
        else if (i % 8 == 0) // a copy of the file's page
            write_contents(range.words(i), range.first + i, 0);
        else if (!has_contents(range.words(i), range.first + i, 0))
            throw std::runtime_error("a file does not hold what was written");
    }
    for (int tries = 0; huge && !is_huge(range); ++tries, usleep(20'000)) {
        if (tries == 10) return "the kernel has no huge page to give";
        madvise(range.start, bytes, madv_collapse);
    }
    return {};
}

// Work -------------------------------------------------------------------------------------------

class Worker {
public:
    explicit Worker(const Options& options) : options_(options) {
        for (const Kind kind : {Kind::anon, Kind::thp, Kind::shmem, Kind::file})
            for (const Heat heat : {Heat::hot, Heat::warm, Heat::cold}) add(kind, heat);
        if (options.tight) add(Kind::anon, Heat::tight);
        generations_.resize(pages_);
        lock(generations_);
        history_ = History(options.log.empty() ? 0 : pages_, options.seconds);
        lock(history_.words());
    }

    json describe() const {
        json ranges = json::array();
        for (const Range& range : ranges_) {
            std::ostringstream start, end;
            start << "0x" << std::hex << reinterpret_cast<std::uint64_t>(range.start);
            end << "0x" << std::hex
                << reinterpret_cast<std::uint64_t>(range.start) + range.pages * page_size;
            ranges.push_back({{"kind", name_of(range.kind, kind_names)},
                              {"heat", name_of(range.heat, heat_names)},
                              {"start", start.str()},
                              {"end", end.str()},
                              {"first", range.first},
                              {"pages", range.pages},
                              {"unit_pages", range.unit_pages}});
        }
        return {
            {"pid", getpid()}, {"page_size", page_size}, {"ranges", ranges}, {"absent", absent_}};
    }

    void start() {
        for (unsigned i = 0; i < options_.threads; ++i)
            threads_.emplace_back([this, i] { work(i); });
        if (options_.tight) threads_.emplace_back([this] { hit(ranges_.back()); });
    }

    /// Ends the work, compares everything, and says what came of it.
    json finish() {
        stop_ = true;
        for (auto& thread : threads_) thread.join();
        for (const Range& range : ranges_)
            for (std::uint64_t i = 0; i < range.pages; ++i) compare(range, i);
        const bool saved = options_.log.empty() || history_.save(options_.log);
        return {{"accesses", accesses_.load()},
                {"wrong_pages", wrong_.load()},
                {"first_wrong", first_wrong_.load()},
                {"history", saved && history_.whole()}};
    }

private:
    /// An allocator's memory, for good; without the right to lock it, it stays as it is.
    static void lock(std::vector<std::uint64_t>& words) {
        if (!words.empty()) mlock(words.data(), words.size() * 8);
    }

    void add(Kind kind, Heat heat) {
        Range range{.kind = kind, .heat = heat, .first = pages_, .pages = options_.pages};
        if (kind == Kind::thp) {
            if (options_.slots == 0) return;
            range.unit_pages = witness::slot_size() / page_size;
            range.pages = options_.slots * range.unit_pages;
        } else if (heat == Heat::tight) {
            range.pages = tight_pages;
        }
        if (const auto reason = build(range, options_)) {
            absent_.push_back({{"kind", name_of(kind, kind_names)}, {"reason", *reason}});
            munmap(range.start, range.pages * page_size);
            return;
        }
        pages_ += range.pages;
        ranges_.push_back(range);
    }

    void compare(const Range& range, std::uint64_t index) {
        const std::uint64_t page = range.first + index;
        if (has_contents(range.words(index), page, generations_[page])) return;
        std::uint64_t none = ~std::uint64_t{0};
        first_wrong_.compare_exchange_strong(none, page);
        ++wrong_;
    }

    /// Compares a page, and writes to it anew if so told.
    void use(const Range& range, std::uint64_t index, bool writes) {
        const std::uint64_t page = range.first + index, before = now_ns();
        compare(range, index);
        if (writes) write_contents(range.words(index), page, ++generations_[page]);
        if (history_.pages() != 0) history_.note(page, before, now_ns(), writes);
    }

    /// Pages that are not copies of the file's stay the file's.
    static bool may_write(const Range& range, std::uint64_t index) {
        return range.kind != Kind::file || index % 8 == 0;
    }

    /// Thread @p number has every so many-th page, of hot and of warm ones.
    void work(unsigned number) {
        std::mt19937_64 random{number};
        std::vector<std::pair<const Range*, std::uint64_t>> warm;
        for (const Range& range : ranges_)
            for (std::uint64_t i = number; i < range.pages; i += options_.threads)
                if (range.heat == Heat::warm) warm.emplace_back(&range, i);
        double owed = 0;
        std::uint64_t accesses = 0;
        for (std::uint64_t last = now_ns(); !stop_;) {
            for (const Range& range : ranges_)
                for (std::uint64_t i = number; range.heat == Heat::hot && i < range.pages;
                     i += options_.threads, ++accesses)
                    use(range, i, random() % 8 == 0 && may_write(range, i));
            const std::uint64_t now = now_ns();
            // Half a second is the most that is made up for after a stop.
            owed += static_cast<double>(warm.size()) / options_.warm_period *
                    std::min(0.5, static_cast<double>(now - last) * 1e-9);
            last = now;
            for (; owed >= 1 && !stop_ && !warm.empty(); --owed, ++accesses) {
                const auto& [range, index] = warm[random() % warm.size()];
                use(*range, index, random() % 4 == 0 && may_write(*range, index));
            }
            usleep(options_.hot_pause_us);
        }
        accesses_ += accesses;
    }

    /// Reads a few pages again and again on one CPU, which keeps their entries in its TLB.
    void hit(const Range& range) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(static_cast<std::size_t>(sched_getcpu()), &one);
        sched_setaffinity(0, sizeof one, &one);
        while (!stop_) {
            const std::uint64_t before = now_ns();
            std::uint64_t sum = 0;
            for (int times = 0; times < 1000; ++times)
                for (std::uint64_t i = 0; i < range.pages; ++i) sum += *range.words(i);
            const std::uint64_t after = now_ns();
            for (std::uint64_t i = 0; i < range.pages && history_.pages() != 0; ++i)
                history_.note(range.first + i, before, after, false);
            accesses_ += 1 + (sum & 1); // so that the reads are needed
        }
    }

    Options options_;
    std::vector<Range> ranges_;
    json absent_ = json::array();
    std::uint64_t pages_ = 0;
    std::vector<std::uint64_t> generations_; ///< by page: how often it was written to
    History history_;
    std::vector<std::thread> threads_;
    std::atomic<bool> stop_ = false;
    std::atomic<std::uint64_t> accesses_ = 0, wrong_ = 0, first_wrong_ = ~std::uint64_t{0};
};

std::optional<Options> parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "--no-tight") {
            options.tight = false;
            continue;
        }
        if (i + 1 == argc) return {};
        const char* const value = argv[++i];
        if (word == "--pages")
            options.pages = std::strtoull(value, nullptr, 10);
        else if (word == "--slots")
            options.slots = std::strtoull(value, nullptr, 10);
        else if (word == "--threads")
            options.threads = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
        else if (word == "--warm-period")
            options.warm_period = std::strtod(value, nullptr);
        else if (word == "--hot-pause")
            options.hot_pause_us = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
        else if (word == "--seconds")
            options.seconds = std::strtod(value, nullptr);
        else if (word == "--log")
            options.log = value;
        else if (word == "--directory")
            options.directory = value;
        else
            return {};
    }
    if (options.threads == 0 || options.pages == 0 || options.warm_period <= 0) return {};
    return options;
}

} // namespace

} // namespace pagesift::live

int main(int argc, char** argv) {
    using namespace pagesift::live;
    const auto options = parse(argc, argv);
    if (!options) {
        std::cerr << "usage: worker [--pages N] [--slots N] [--threads N]\n"
                     "              [--warm-period SECONDS] [--hot-pause MICROSECONDS] [--log FILE "
                     "--seconds N]\n"
                     "              [--directory DIR] [--no-tight]\n";
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
        Worker worker(*options);
        std::cout << worker.describe().dump() << std::endl;
        worker.start();
        char byte = 0;
        while (read(STDIN_FILENO, &byte, 1) > 0 || errno == EINTR) errno = 0;
        const auto result = worker.finish();
        std::cout << result.dump() << std::endl;
        return result["wrong_pages"] == 0 ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << "worker: " << error.what() << '\n';
        return 1;
    }
}
