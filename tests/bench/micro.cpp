// SPDX-License-Identifier: MIT
//
// The rooms that do work for each mapping or each page, alone and on made-up input.
#include "pagesift/abi.hpp"
#include "pagesift/classify.hpp"
#include "pagesift/procfs.hpp"

#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift {
namespace {

constexpr std::uint64_t mapping_bytes = 4 * 4096;

void append_maps_line(std::string& text, std::uint64_t index) {
    char line[160];
    const std::uint64_t start = 0x7f0000000000 + index * mapping_bytes;
    std::snprintf(
        line, sizeof line, "%jx-%jx %s 00000000 00:00 0 %s\n", static_cast<std::uintmax_t>(start),
        static_cast<std::uintmax_t>(start + mapping_bytes), index % 2 == 0 ? "rw-p" : "r--p",
        index % 4 == 0 ? "                         /usr/lib/libmade-up.so.6" : "");
    text += line;
}

std::string make_maps(std::uint64_t count) {
    std::string text;
    for (std::uint64_t index = 0; index < count; ++index) append_maps_line(text, index);
    return text;
}

std::string make_smaps(std::uint64_t count) {
    constexpr std::array keys{
        "Size",          "KernelPageSize", "MMUPageSize",     "Rss",
        "Pss",           "Pss_Dirty",      "Shared_Clean",    "Shared_Dirty",
        "Private_Clean", "Private_Dirty",  "Referenced",      "Anonymous",
        "KSM",           "LazyFree",       "AnonHugePages",   "ShmemPmdMapped",
        "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap",
        "SwapPss",       "Locked"};
    std::string text;
    for (std::uint64_t index = 0; index < count; ++index) {
        append_maps_line(text, index);
        for (const char* key : keys) {
            char line[64];
            std::snprintf(line, sizeof line, "%-16s%8u kB\n", (std::string(key) + ":").c_str(),
                          16u);
            text += line;
        }
        text += "THPeligible:    0\nVmFlags: rd wr mr mw me ac sd \n";
    }
    return text;
}

void parse_pieces(benchmark::State& state, const std::string& text, std::uint64_t expected) {
    constexpr std::size_t piece = 4096; // what a read of these files returns
    for (auto _ : state) {
        procfs::MapsParser parser;
        std::uint64_t count = 0;
        const procfs::MapsParser::Sink sink = [&](procfs::MappingText&& mapping) {
            benchmark::DoNotOptimize(mapping);
            ++count;
        };
        for (std::size_t at = 0; at < text.size(); at += piece)
            parser.feed(std::string_view(text).substr(at, piece), sink);
        parser.finish(sink);
        if (count != expected) state.SkipWithError("not every mapping was parsed");
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(expected) * state.iterations());
    state.SetBytesProcessed(static_cast<std::int64_t>(text.size()) * state.iterations());
}

void parse_maps(benchmark::State& state) {
    const auto count = static_cast<std::uint64_t>(state.range(0));
    parse_pieces(state, make_maps(count), count);
}
BENCHMARK(parse_maps)->Arg(1000)->Arg(40000)->Unit(benchmark::kMicrosecond);

void parse_smaps(benchmark::State& state) {
    const auto count = static_cast<std::uint64_t>(state.range(0));
    parse_pieces(state, make_smaps(count), count);
}
BENCHMARK(parse_smaps)->Arg(1000)->Arg(40000)->Unit(benchmark::kMicrosecond);

HostFacts made_up_host() {
    HostFacts host;
    host.frames_visible = true;
    host.ksm_flag_true = true;
    host.soft_dirty = false;
    return host;
}

PageFacts present_page(std::uint64_t frame, std::uint64_t flags) {
    PageFacts page;
    page.entry = (std::uint64_t{1} << 63) | (std::uint64_t{1} << 56) | frame;
    page.flags = flags;
    page.map_count = 1;
    return page;
}

// UPTODATE, DIRTY, LRU, MMAP, ANON, SWAPBACKED; the second kind is ACTIVE too.
constexpr std::uint64_t anon_flags = 0x5838;
constexpr std::uint64_t active_anon_flags = anon_flags | 0x40;

// Pages of one kind in a row, as most memory is; the frame number always differs.
void classify_alike(benchmark::State& state) {
    const HostFacts host = made_up_host();
    Classifier classifier(host, Mapping{});
    PageFacts page = present_page(1, anon_flags);
    for (auto _ : state) {
        ++page.entry;
        benchmark::DoNotOptimize(classifier.classify(page));
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(classify_alike);

// Neighbours that differ, so that remembering the last answer does not help.
void classify_mixed(benchmark::State& state) {
    const HostFacts host = made_up_host();
    Classifier classifier(host, Mapping{});
    PageFacts swapped;
    swapped.entry = std::uint64_t{1} << 62 | 0x1234 << 5;
    const std::vector<PageFacts> pages{present_page(1, anon_flags), PageFacts{}, swapped,
                                       present_page(9, active_anon_flags)};
    std::size_t index = 0;
    for (auto _ : state)
        benchmark::DoNotOptimize(classifier.classify(pages[index++ % pages.size()]));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(classify_mixed);

void tally_mixed(benchmark::State& state) {
    const HostFacts host = made_up_host();
    Classifier classifier(host, Mapping{});
    const std::array classes{classifier.classify(present_page(1, anon_flags)),
                             classifier.classify(PageFacts{}),
                             classifier.classify(present_page(9, active_anon_flags))};
    Tally tally;
    std::size_t index = 0;
    for (auto _ : state) tally.add(classes[index++ % classes.size()], 1);
    benchmark::DoNotOptimize(tally.pages());
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(tally_mixed);

} // namespace
} // namespace pagesift

BENCHMARK_MAIN();
