// SPDX-License-Identifier: MIT
#include "pagesift/diff.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace pagesift;

namespace {

Mapping mapping(std::uint64_t start, std::uint64_t end, std::string name = {},
                Backing backing = Backing::anon) {
    Mapping m;
    m.range = {Address{start}, Address{end}};
    m.readable = m.writable = true;
    m.name = std::move(name);
    m.backing = backing;
    return m;
}

Mapping file(std::uint64_t start, std::uint64_t end, std::uint64_t offset,
             const std::string& name = "/lib") {
    Mapping m = mapping(start, end, name, Backing::file);
    m.offset = offset;
    m.inode = 7;
    return m;
}

using Maps = std::vector<Mapping>;

/// "grown", or "grown,new" for several pairs.
std::string changes(const Maps& before, const Maps& after, bool same_memory = true) {
    std::string words;
    for (const MappingPair& pair : pair_mappings(before, after, same_memory))
        words += (words.empty() ? "" : ",") +
                 std::string{mapping_change_table()[static_cast<std::size_t>(pair.change)].name};
    return words;
}

ProcessText process(std::uint32_t pid, std::uint64_t start, const std::string& comm = "a",
                    std::uint64_t stack = 0) {
    ProcessText text;
    text.pid = pid;
    text.comm = comm;
    text.exe = "/bin/" + comm;
    if (start != 0)
        text.stat = fmt::format("{} (a b) c) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0 0 0 0 "
                                "{} 0 0",
                                pid, start, stack);
    return text;
}

} // namespace

TEST_CASE("diff: a mapping that keeps its addresses is the same, whatever its permissions") {
    Mapping protected_now = mapping(0x1000, 0x5000);
    protected_now.writable = false;
    CHECK(changes({mapping(0x1000, 0x5000)}, {protected_now}) == "same");
}

TEST_CASE("diff: a mapping that changed its bounds is paired by what both have") {
    const auto pairs =
        pair_mappings(Maps{mapping(0x2000, 0x6000)}, Maps{mapping(0x1000, 0x4000)}, true);
    REQUIRE(pairs.size() == 1);
    CHECK(pairs[0].change == MappingChange::shrunk);
    CHECK(pairs[0].common_bytes == 0x2000);
    CHECK(changes({mapping(0x1000, 0x2000)}, {mapping(0x1000, 0x4000)}) == "grown");
    CHECK(changes({mapping(0x1000, 0x3000)}, {mapping(0x2000, 0x4000)}) == "moved");
}

TEST_CASE("diff: what touches and what has another name is not paired") {
    CHECK(changes({mapping(0x1000, 0x2000)}, {mapping(0x2000, 0x3000)}) == "gone,new");
    CHECK(changes({mapping(0x1000, 0x2000, "[heap]")}, {mapping(0x1000, 0x2000)}) == "gone,new");
    CHECK(changes({mapping(0x1000, 0x2000)}, {mapping(0x1000, 0x2000, "", Backing::shmem)}) ==
          "gone,new");
}

TEST_CASE("diff: one mapping that became several is split, several that became one are merged") {
    const Maps one{mapping(0x1000, 0x9000)};
    const Maps two{mapping(0x1000, 0x3000), mapping(0x4000, 0x9000)};
    CHECK(changes(one, two) == "split");
    CHECK(changes(two, one) == "merged");
    CHECK(pair_mappings(one, two, true)[0].common_bytes == 0x7000);
}

TEST_CASE("diff: a file is the same at an address only if the same part of it is") {
    CHECK(changes({file(0x1000, 0x5000, 0)}, {file(0x3000, 0x5000, 0x2000)}) == "shrunk");
    CHECK(changes({file(0x1000, 0x5000, 0)}, {file(0x3000, 0x5000, 0)}) == "gone,new");
    CHECK(changes({file(0x1000, 0x2000, 0)}, {file(0x1000, 0x2000, 0, "/lib (deleted)")}) ==
          "same");
}

TEST_CASE("diff: a mapping with a name that is elsewhere has moved, and shares no addresses") {
    const auto pairs =
        pair_mappings(Maps{file(0x1000, 0x3000, 0x1000)}, Maps{file(0x8000, 0xa000, 0x1000)}, true);
    REQUIRE(pairs.size() == 1);
    CHECK(pairs[0].change == MappingChange::moved);
    CHECK(pairs[0].common_bytes == 0);
    CHECK(changes({file(0x1000, 0x3000, 0)}, {file(0x8000, 0x9000, 0)}) == "gone,new");
    CHECK(changes({mapping(0x1000, 0x3000)}, {mapping(0x8000, 0xa000)}) == "gone,new");
    // Two of one size: each finds one partner.
    CHECK(changes({file(0x1000, 0x2000, 0), file(0x3000, 0x4000, 0)},
                  {file(0x8000, 0x9000, 0), file(0xa000, 0xb000, 0)}) == "moved,moved");
}

TEST_CASE("diff: in another memory nothing is paired") {
    CHECK(changes({file(0x1000, 0x3000, 0)}, {file(0x1000, 0x3000, 0)}, false) == "gone,new");
}

TEST_CASE("diff: processes are paired by pid and start time") {
    const std::vector<ProcessText> a{process(1, 10), process(2, 20, "b"), process(3, 30, "c")};
    const std::vector<ProcessText> b{process(3, 30, "renamed"), process(1, 10), process(4, 40)};
    const Pairing p = pair_processes(a, b);
    REQUIRE(p.pairs.size() == 2);
    CHECK(p.pairs[0].before == 0);
    CHECK(p.pairs[0].after == 1);
    CHECK(p.pairs[1].before == 2);
    CHECK(p.pairs[1].after == 0);
    CHECK(p.pairs[1].match == Match::same);
    CHECK(p.only_before == std::vector<std::size_t>{1});
    CHECK(p.only_after == std::vector<std::size_t>{2});
}

TEST_CASE("diff: without a start time pid, name and program decide, and it is said so") {
    using Texts = std::vector<ProcessText>;
    const auto match = [](const ProcessText& a, const ProcessText& b) {
        const Pairing p = pair_processes(Texts{a}, Texts{b});
        return p.pairs.empty() ? std::nullopt : std::optional{p.pairs[0].match};
    };
    CHECK(match(process(1, 0), process(1, 0)) == Match::assumed);
    CHECK(match(process(1, 10), process(1, 0)) == Match::assumed);
    CHECK(match(process(1, 10), process(1, 11)) == Match::replaced);
    CHECK(match(process(1, 10), process(1, 11, "b")) == std::nullopt);
    CHECK(match(process(1, 0), process(2, 0)) == std::nullopt);
}

TEST_CASE("diff: a pid that is there twice is in two pairs, each process once") {
    const std::vector<ProcessText> a{process(1, 10), process(1, 10), process(1, 10)};
    const std::vector<ProcessText> b{process(1, 10), process(1, 10)};
    const Pairing p = pair_processes(a, b);
    REQUIRE(p.pairs.size() == 2);
    CHECK(p.pairs[0].after == 0);
    CHECK(p.pairs[1].after == 1);
    CHECK(p.only_before == std::vector<std::size_t>{2});
    CHECK(p.only_after.empty());
}

TEST_CASE("diff: a new stack or another file means that a program was executed") {
    CHECK_FALSE(executed_between(process(1, 10, "a", 0x7000), process(1, 10, "a", 0x7000)));
    CHECK(executed_between(process(1, 10, "a", 0x7000), process(1, 10, "a", 0x8000)));
    CHECK(executed_between(process(1, 10, "a"), process(1, 10, "b")));
    // Hidden: says nothing.
    CHECK_FALSE(executed_between(process(1, 10, "a", 0x7000), process(1, 10, "a", 0)));
    CHECK_FALSE(executed_between(process(1, 10, "a", 1), process(1, 10, "a", 0x7000)));
    ProcessText deleted = process(1, 10);
    deleted.exe += " (deleted)";
    CHECK_FALSE(executed_between(process(1, 10), deleted));
}
