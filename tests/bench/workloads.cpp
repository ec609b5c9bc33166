// SPDX-License-Identifier: MIT
//
// bench_workload NAME [--scale F] [--scratch DIR]
//
// Builds one address space for the benchmarks, prints one line of JSON when it is ready and waits
// for the end of its standard input. Where it says "touches", a line of input makes it write to
// every page again, which it answers with a line. Nothing of it outlives its end: not the swap
// file, not the zram device, not the memory cgroup. All have names made from the process id, so
// that whoever started this program can remove them after it was killed outright.

#include "population.hpp"
#include "region.hpp"
#include "zram.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

using namespace pagesift::bench;

namespace {

struct Options {
    std::string name;
    double scale = 1.0;
    std::string scratch;
};

std::uint64_t scaled(std::uint64_t bytes, double scale, std::uint64_t unit) {
    const auto units = static_cast<std::uint64_t>(static_cast<double>(bytes / unit) * scale);
    return (units == 0 ? 1 : units) * unit;
}

// Pages that no swap device can shorten and no zero test can confuse with zeroes.
class Noise {
public:
    void fill(std::uint64_t* page) {
        for (std::uint64_t word = 0; word < page_size / 8; word += 8) page[word] = next();
    }

    std::uint64_t next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_;
    }

private:
    std::uint64_t state_ = 88172645463325252ULL;
};

// What every workload does once it is built: say so, then wait, and touch its memory whenever it is
// told to.
using Touch = std::function<void()>;
using Ready = std::function<void(const Facts&, const Touch& touch)>;

// A word that Noise leaves alone. What was written is no longer what swap has of the page.
void touch(const Region& region) {
    for (std::uint64_t page = 0; page < region.pages(); ++page) {
        check_stop();
        volatile std::uint64_t* word = region.page(page) + 1;
        *word = *word + 1;
    }
}

void build_shared16g(const Options& options, const Ready& ready) {
    constexpr std::uint64_t block = 256 * kib;
    const SwapFile swap(options.scratch, scaled(6 * gib + 512 * mib, options.scale, 64 * mib));
    const MemoryCgroup cgroup(scaled(4 * gib, options.scale, 16 * mib));
    const Region region(scaled(16 * gib, options.scale, 2 * block), MAP_SHARED | MAP_NORESERVE);

    Noise noise;
    const std::uint64_t block_pages = block / page_size;
    for (std::uint64_t first = 0; first < region.pages(); first += 2 * block_pages) {
        check_stop();
        for (std::uint64_t page = first; page < first + block_pages; ++page)
            noise.fill(region.page(page));
    }
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages() / 2));
    ready(facts, nullptr);
}

void build_dense8g(const Options& options, const Ready& ready) {
    const Region region(scaled(8 * gib, options.scale, 2 * mib), MAP_PRIVATE | MAP_NORESERVE);
    Noise noise;
    for (std::uint64_t page = 0; page < region.pages(); ++page) noise.fill(region.page(page));
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages()));
    ready(facts, [&] { touch(region); });
}

// What is to be paged out, with a place to go to.
void build_cold1g(const Options& options, const Ready& ready) {
    const std::uint64_t bytes = scaled(gib, options.scale, 2 * mib);
    const OwnSwap swap(options.scratch, bytes + bytes / 4);
    const Region region(bytes, MAP_PRIVATE | MAP_NORESERVE);
    Noise noise;
    for (std::uint64_t page = 0; page < region.pages(); ++page) noise.fill(region.page(page));
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages()));
    facts.emplace_back("swap_path", "\"" + swap.path() + "\"");
    ready(facts, [&] { touch(region); });
}

void build_sparse1t(const Options& options, const Ready& ready) {
    constexpr std::uint64_t touched = 64;
    const Region region(scaled(tib, options.scale, touched * 2 * mib), MAP_PRIVATE | MAP_NORESERVE);
    for (std::uint64_t index = 0; index < touched; ++index)
        *region.at(region.bytes() / touched * index) = std::byte{1};
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(touched));
    ready(facts, nullptr);
}

void build_mappings40k(const Options& options, const Ready& ready) {
    constexpr std::uint64_t pages_each = 4;
    const std::uint64_t count = scaled(40000, options.scale, 2);
    const std::uint64_t bytes_each = pages_each * page_size;
    const Region region(count * bytes_each, MAP_PRIVATE | MAP_NORESERVE);

    // Seven mappings of eight hold three pages, the eighth none.
    std::uint64_t written = 0;
    for (std::uint64_t index = 0; index < count; ++index) {
        if (index % 8 == 7) continue;
        for (std::uint64_t page = 0; page + 1 < pages_each; ++page, ++written)
            *region.page(index * pages_each + page) = index + 1;
    }
    for (std::uint64_t index = 1; index < count; index += 2)
        if (mprotect(region.at(index * bytes_each), bytes_each, PROT_READ) != 0)
            fail("mprotect (is vm.max_map_count above the number of mappings?)");
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("mappings", std::to_string(count));
    facts.emplace_back("written_pages", std::to_string(written));
    ready(facts, nullptr);
}

void build_zero4g(const Options& options, const Ready& ready) {
    const Region region(scaled(4 * gib, options.scale, 2 * mib), MAP_PRIVATE | MAP_NORESERVE);
    Noise noise;
    std::uint64_t zero_filled = 0;
    for (std::uint64_t page = 0; page < region.pages(); ++page) {
        std::uint64_t* words = region.page(page);
        if (page % 2 == 0) {
            // A write of zero makes a real page; a read would map the shared zero page.
            *static_cast<volatile std::uint64_t*>(words) = 0;
            ++zero_filled;
        } else if (page % 16 == 15) {
            words[page_size / 8 - 1] = 1; // nothing but its last word tells it from zeroes
        } else {
            noise.fill(words);
        }
    }
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages()));
    facts.emplace_back("zero_pages", std::to_string(zero_filled));
    ready(facts, nullptr);
}

// Half of it touched, in blocks: cached pages and holes, and nothing in swap.
void build_shared4g(const Options& options, const Ready& ready) {
    constexpr std::uint64_t block = 256 * kib;
    const Region region(scaled(4 * gib, options.scale, 2 * block), MAP_SHARED | MAP_NORESERVE);
    for (std::uint64_t at = 0; at < region.bytes(); at += page_size)
        if (at / block % 2 == 0) *region.at(at) = std::byte{1};
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages() / 2));
    ready(facts, nullptr);
}

// Every second page-table slot holds one page, and each of the others a table without entries.
void build_tables4000(const Options& options, const Ready& ready) {
    const SlotPairs pairs(scaled(tables_wanted, options.scale, 1));
    pairs.make();
    Facts facts;
    pairs.region().add_facts(facts);
    facts.emplace_back("tables", std::to_string(pairs.count()));
    ready(facts, [&] { pairs.make(); });
}

// Zeroes that were written, and are written again when it is touched.
void build_zeroes1g(const Options& options, const Ready& ready) {
    const Region region(scaled(gib, options.scale, 2 * mib), MAP_PRIVATE | MAP_NORESERVE);
    const auto write = [&] {
        for (std::uint64_t page = 0; page < region.pages(); ++page)
            *static_cast<volatile std::uint64_t*>(region.page(page)) = 0;
    };
    write();
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages()));
    facts.emplace_back("zero_pages", std::to_string(region.pages()));
    ready(facts, write);
}

enum class Contents { zeroes, noise };

template <Contents contents> void build_2g(const Options& options, const Ready& ready) {
    const Region region(scaled(2 * gib, options.scale, 2 * mib), MAP_PRIVATE | MAP_NORESERVE);
    Noise noise;
    for (std::uint64_t page = 0; page < region.pages(); ++page) {
        if constexpr (contents == Contents::noise)
            noise.fill(region.page(page));
        else
            *static_cast<volatile std::uint64_t*>(region.page(page)) = 0;
    }
    Facts facts;
    region.add_facts(facts);
    facts.emplace_back("written_pages", std::to_string(region.pages()));
    facts.emplace_back("zero_pages",
                       std::to_string(contents == Contents::zeroes ? region.pages() : 0));
    ready(facts, nullptr);
}

// Programs of their own, each with its libraries, heap and stack beside the 8 MiB.
void build_processes1000(const Options& options, const Ready& ready) {
    constexpr std::uint64_t bytes_each = 8 * mib;
    Population population;
    population.start(scaled(1000, options.scale, 1), bytes_each);
    std::string pids;
    for (const pid_t pid : population.pids())
        pids += (pids.empty() ? "" : ",") + std::to_string(pid);
    ready({{"processes", std::to_string(population.pids().size())},
           {"bytes_each", std::to_string(bytes_each)},
           {"pids", "[" + pids + "]"}},
          nullptr);
}

struct Workload {
    std::string_view name;
    void (*build)(const Options&, const Ready&);
};

constexpr Workload workloads[] = {
    {"shared16g", build_shared16g},
    {"dense8g", build_dense8g},
    {"cold1g", build_cold1g},
    {"sparse1t", build_sparse1t},
    {"mappings40k", build_mappings40k},
    {"zero4g", build_zero4g},
    {"shared4g", build_shared4g},
    {"noise2g", build_2g<Contents::noise>},
    {"zeroes2g", build_2g<Contents::zeroes>},
    {"tables4000", build_tables4000},
    {"zeroes1g", build_zeroes1g},
    {"processes1000", build_processes1000},
};

std::optional<Options> parse_options(int argc, char** argv) {
    Options options;
    const char* temporary = std::getenv("TMPDIR");
    options.scratch = temporary != nullptr && *temporary != '\0' ? temporary : "/var/tmp";
    for (int index = 1; index < argc; ++index) {
        const std::string_view word = argv[index];
        if (word == "--scale" && index + 1 < argc)
            options.scale = std::strtod(argv[++index], nullptr);
        else if (word == "--scratch" && index + 1 < argc)
            options.scratch = argv[++index];
        else if (options.name.empty() && !word.starts_with('-'))
            options.name = word;
        else
            return std::nullopt;
    }
    if (options.name.empty() || !(options.scale > 0 && options.scale <= 1)) return std::nullopt;
    return options;
}

// With a handler, so that a signal ends the wait or the building and the destructors run.
void catch_signals() {
    struct sigaction action = {};
    action.sa_handler = [](int) { stop_wanted = 1; };
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaction(signal, &action, nullptr);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

void wait_for_end_of_input(const Touch& touch) {
    char byte = 0;
    while (stop_wanted == 0) {
        const ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got == 0 || (got < 0 && errno != EINTR)) return;
        if (got < 0 || byte != '\n' || !touch) continue;
        touch();
        std::puts("touched");
        std::fflush(stdout);
    }
}

} // namespace

int main(int argc, char** argv) {
    const auto options = parse_options(argc, argv);
    const Workload* chosen = nullptr;
    for (const Workload& workload : workloads)
        if (options && workload.name == options->name) chosen = &workload;
    if (chosen == nullptr) {
        std::fputs("usage: bench_workload NAME [--scale F] [--scratch DIR]   (0 < F <= 1)\nnames:",
                   stderr);
        for (const Workload& workload : workloads)
            std::fprintf(stderr, " %s", std::string(workload.name).c_str());
        std::fputs("\n", stderr);
        return 2;
    }
    catch_signals();
    const auto started = std::chrono::steady_clock::now();
    try {
        chosen->build(*options, [&](const Facts& facts, const Touch& touch) {
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
            std::printf("{\"name\":\"%s\",\"pid\":%d,\"page_size\":%ju,\"build_seconds\":%.2f",
                        options->name.c_str(), getpid(), static_cast<std::uintmax_t>(page_size),
                        took.count());
            for (const auto& [key, value] : facts)
                std::printf(",\"%s\":%s", key.c_str(), value.c_str());
            std::printf(",\"touches\":%s}\n", touch ? "true" : "false");
            std::fflush(stdout);
            wait_for_end_of_input(touch);
        });
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_workload: %s: %s\n", options->name.c_str(), error.what());
        return 1;
    }
    return 0;
}
