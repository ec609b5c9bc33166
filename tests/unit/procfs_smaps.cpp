// SPDX-License-Identifier: MIT
#include "pagesift/procfs.hpp"

#include <doctest/doctest.h>
#include <iomanip>
#include <sstream>
#include <string>

using namespace pagesift;
using namespace pagesift::procfs;

namespace {

std::vector<MappingText> parse(std::string_view text, std::size_t piece = 4096,
                               std::size_t* ignored = nullptr) {
    std::vector<MappingText> mappings;
    MapsParser parser;
    const auto keep = [&](MappingText&& m) { mappings.push_back(std::move(m)); };
    while (!text.empty()) {
        parser.feed(text.substr(0, piece), keep);
        text.remove_prefix(std::min(piece, text.size()));
    }
    parser.finish(keep);
    if (ignored) *ignored = parser.ignored_lines();
    return mappings;
}

std::optional<std::uint64_t> field(const MappingText& m, std::string_view key) {
    return m.fields.find(key);
}

constexpr std::string_view heap =
    "55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]\n"
    "Size:                132 kB\n"
    "KernelPageSize:        4 kB\n"
    "Rss:                  12 kB\n"
    "Pss:                  12 kB\n"
    "Referenced:            8 kB\n"
    "Swap:                 64 kB\n"
    "FuturePages:           3 kB\n"
    "FutureCount:           7\n"
    "THPeligible:           0\n"
    "ProtectionKey:         0\n"
    "VmFlags: rd wr mr mw me ac zz sd \n";

std::string many_mappings(unsigned count) {
    std::string text;
    for (unsigned i = 0; i < count; ++i) {
        std::ostringstream line;
        line << std::hex << std::setfill('0') << std::setw(12) << 0x10000000 + i * 0x2000 << '-'
             << std::setw(12) << 0x10001000 + i * 0x2000 << " rw-p 00000000 00:00 0 \n";
        text += line.str();
        text += heap.substr(heap.find('\n') + 1);
    }
    return text;
}

} // namespace

TEST_CASE("smaps: sizes are bytes and figures without a unit stay as they are") {
    const auto mappings = parse(heap);
    REQUIRE(mappings.size() == 1);
    CHECK(field(mappings[0], "Rss") == 12 * 1024);
    CHECK(field(mappings[0], "Swap") == 64 * 1024);
    CHECK(field(mappings[0], "THPeligible") == 0);
}

TEST_CASE("smaps: fields that only a newer kernel knows are kept") {
    const auto mappings = parse(heap);
    REQUIRE(mappings.size() == 1);
    CHECK(field(mappings[0], "FuturePages") == 3 * 1024);
    CHECK(field(mappings[0], "FutureCount") == 7);
    CHECK_FALSE(field(mappings[0], "PastPages"));
}

TEST_CASE("smaps: VmFlags keeps codes without a meaning here") {
    const auto mappings = parse(heap);
    REQUIRE(mappings.size() == 1);
    REQUIRE(mappings[0].vm_flags);
    CHECK(mappings[0].vm_flags->text == "rd wr mr mw me ac zz sd");
    CHECK(mappings[0].vm_flags->has(VmFlag::soft_dirty));
    CHECK_FALSE(mappings[0].vm_flags->has(VmFlag::locked));
}

TEST_CASE("smaps: every flag that decides something has its two letters") {
    const auto flags = parse_vm_flags("lo ht pf io mm mg hg nh um uw ui sd sl wf");
    for (const auto flag :
         {VmFlag::locked, VmFlag::hugetlb, VmFlag::pfnmap, VmFlag::io, VmFlag::mixedmap,
          VmFlag::mergeable, VmFlag::hugepage, VmFlag::no_hugepage, VmFlag::uffd_missing,
          VmFlag::uffd_wp, VmFlag::uffd_minor, VmFlag::soft_dirty, VmFlag::sealed,
          VmFlag::wipe_on_fork})
        CHECK(flags.has(flag));
    CHECK(parse_vm_flags("").bits == 0);
    CHECK(parse_vm_flags(" l o lolo").bits == 0);
}

TEST_CASE("smaps: pieces of every size give the same fields") {
    const auto whole = parse(heap);
    for (std::size_t piece = 1; piece <= heap.size(); ++piece) {
        const auto mappings = parse(heap, piece);
        REQUIRE(mappings.size() == 1);
        CHECK(mappings[0].fields == whole[0].fields);
        CHECK(mappings[0].vm_flags == whole[0].vm_flags);
    }
}

TEST_CASE("smaps: a text cut anywhere gives no field that was not there in full") {
    const auto whole = parse(heap);
    for (std::size_t length = 0; length < heap.size(); ++length)
        for (const auto& m : parse(heap.substr(0, length)))
            for (const auto& [key, value] : m.fields) CHECK(field(whole[0], key) == value);
}

TEST_CASE("smaps: fields of an overlapping line say nothing of what is left of it") {
    const auto mappings = parse("1000-3000 rw-p 00000000 00:00 0 \nRss: 8 kB\n"
                                "1000-5000 rw-p 00000000 00:00 0 \nRss: 16 kB\nVmFlags: rd lo \n");
    REQUIRE(mappings.size() == 2);
    CHECK(mappings[1].fields.empty());
    CHECK(mappings[1].vm_flags->has(VmFlag::locked));
}

TEST_CASE("smaps: numbers that are none, negative or beyond 64 bits of bytes are counted out") {
    std::size_t ignored = 0;
    const auto mappings =
        parse("1000-2000 rw-p 00000000 00:00 0 \nRss: many kB\nPss: -4 kB\n"
              "Swap: 18014398509481984 kB\nLocked: 99999999999999999999\nReferenced:\nSize 4 kB\n",
              4096, &ignored);
    REQUIRE(mappings.size() == 1);
    CHECK(mappings[0].fields.empty());
    CHECK(ignored == 6);
}

TEST_CASE("smaps: fields before the first mapping belong to none") {
    std::size_t ignored = 0;
    CHECK(parse("Rss: 4 kB\n", 4096, &ignored).empty());
    CHECK(ignored == 1);
}

TEST_CASE("smaps: a line that is no mapping ends the one before it") {
    const auto mappings = parse("1000-2000 rw-p 00000000 00:00 0 \nRss: 4 kB\n"
                                "?? garbage\nRss: 8 kB\n"
                                "2000-3000 rw-p 00000000 00:00 0 \nRss: 12 kB\n");
    REQUIRE(mappings.size() == 2);
    CHECK(field(mappings[0], "Rss") == 4096);
    CHECK(field(mappings[1], "Rss") == 12288);
}

TEST_CASE("smaps: nothing of a mapping is left to the one behind it") {
    const auto mappings = parse("1000-2000 rw-p 00000000 00:00 0 [a]\nRss: 4 kB\nVmFlags: rd \n"
                                "2000-3000 rw-p 00000000 00:00 0 \n");
    REQUIRE(mappings.size() == 2);
    CHECK(mappings[1].fields.empty());
    CHECK_FALSE(mappings[1].vm_flags);
    CHECK(mappings[1].mapping.name == "");
    // A sink that moves nothing leaves more to be used again.
    MapsParser parser;
    std::size_t with_flags = 0, with_fields = 0;
    const auto count = [&](MappingText&& m) {
        with_flags += m.vm_flags.has_value();
        with_fields += !m.fields.empty();
    };
    parser.feed("1000-2000 rw-p 0 00:00 0\nRss: 4 kB\nVmFlags: rd\n2000-3000 rw-p 0 00:00 0\n",
                count);
    parser.finish(count);
    CHECK(with_flags == 1);
    CHECK(with_fields == 1);
}

TEST_CASE("smaps: the last value of a field that comes twice counts") {
    const auto mappings =
        parse("1000-2000 rw-p 00000000 00:00 0 \nRss: 4 kB\nPss: 1 kB\nRss: 8 kB\n");
    REQUIRE(mappings.size() == 1);
    CHECK(field(mappings[0], "Rss") == 8192);
}

TEST_CASE("smaps: forty thousand mappings arrive, each with its fields") {
    const auto mappings = parse(many_mappings(40000));
    REQUIRE(mappings.size() == 40000);
    CHECK(field(mappings.back(), "Swap") == 64 * 1024);
    CHECK(mappings.back().mapping.range.start.value == 0x10000000 + 39999 * 0x2000);
}

TEST_CASE("size fields: a rollup or meminfo is read by key") {
    const auto fields = parse_size_fields("55d0-7ffd ---p 00000000 00:00 0  [rollup]\n"
                                          "Rss:   2048 kB\nPss_Anon:  12 kB\nHugePages_Total: 4\n");
    CHECK(fields.find("Rss") == 2048 * 1024);
    CHECK(fields.find("Pss_Anon") == 12 * 1024);
    CHECK_FALSE(fields.find("HugePages_Total"));
}
