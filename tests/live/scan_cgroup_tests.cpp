// SPDX-License-Identifier: MIT
// Control groups: who is in one, and how the sums over it compare with the kernel's own accounts.
#include "control_group.hpp"
#include "harness.hpp"
#include "zoo/machine.hpp"

#include <cstdlib>
#include <fstream>
#include <map>

#include <doctest/doctest.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

/// Records of `scan --format json`, without its totals.
json records_of(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"scan", "--format", "json"});
    const auto outcome = run_pagesift(arguments);
    CHECK_MESSAGE(outcome.exit_code == 0, outcome.err);
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    return answer[0]["records"];
}

/// A shell that does nothing and has a name of its own to be found by.
Background start_idle() { return Background({"/bin/sh", "-c", "read line"}); }

/// "name value" lines.
std::map<std::string, std::uint64_t> read_values(const std::string& path) {
    std::map<std::string, std::uint64_t> values;
    std::ifstream in(path);
    std::string name;
    for (std::uint64_t value = 0; in >> name >> value;) values[name] = value;
    return values;
}

std::optional<std::uint64_t> read_value(const std::string& path) {
    std::ifstream in(path);
    std::uint64_t value = 0;
    return in >> value ? std::optional{value} : std::nullopt;
}

/// What the kernel says is charged to a group, in bytes.
struct Charged {
    std::uint64_t anon = 0, shmem = 0;
    std::optional<std::uint64_t> swap;
    std::uint64_t swap_cache = 0; ///< in swap, and in memory still
};

std::optional<Charged> read_charged(const std::string& folder) {
    const auto stat = read_values(folder + "/memory.stat");
    const bool second = stat.count("anon") == 1;
    const char* const anon = second ? "anon" : "rss";
    if (stat.count(anon) == 0 || stat.count("shmem") == 0) return {};
    Charged charged{stat.at(anon), stat.at("shmem"), {}};
    if (second)
        charged.swap = read_value(folder + "/memory.swap.current");
    else if (stat.count("swap") == 1)
        charged.swap = stat.at("swap");
    if (stat.count("swapcached") == 1) charged.swap_cache = stat.at("swapcached");
    return charged;
}

constexpr std::uint64_t MiB = 1 << 20;

bool is_near(std::uint64_t a, std::uint64_t b) {
    // Charges are counted on each processor, in portions (MEMCG_CHARGE_BATCH), and summed up late.
    return (a > b ? a - b : b - a) <= 2 * MiB;
}

} // namespace

TEST_CASE("scan: a control group holds those below it, and has a record of its own") {
    if (!have_root()) return;
    const ControlGroup group;
    if (!group.ready()) return skip("no control groups");
    const Background inside = start_idle(), outside = start_idle();
    group.add_below(inside.pid());
    const auto chosen = records_of({"--cgroup", group.name()});
    REQUIRE(chosen.size() == 1);
    CHECK(chosen[0]["pid"] == inside.pid());
    CHECK(chosen[0]["cgroup"] == group.name() + "/below");
    CHECK(records_of({"--cgroup", group.name() + "/bel"}).empty());
    const auto grouped = records_of({"--per", "cgroup", "--cgroup", group.name()});
    REQUIRE(grouped.size() == 1);
    CHECK(grouped[0]["cgroup"] == group.name() + "/below");
    CHECK(grouped[0]["processes"] == 1);
}

TEST_CASE("scan: the sums of a control group are what is charged to it") {
    if (!have_root()) return;
    release_zoo();
    const ControlGroup group;
    if (!group.ready() || !read_charged(group.below())) return skip("no memory.stat of a group");
    zoo::Machine machine;
    bool swaps = true;
    try {
        machine.add_swap_file(64 * MiB);
    } catch (const zoo::Unavailable& reason) {
        swaps = false;
        skip(std::string("no swap file: ") + reason.what());
    }
    machine.release();
    {
        Background inside({"/proc/self/exe", "--be-charged", group.below()});
        REQUIRE(inside.wait_for_line(60) == "ready");
        std::string seen;
        bool agreed = false;
        // Something else may move pages meanwhile.
        for (int tries = 0; tries < 10 && !agreed; ++tries) {
            const auto sums = records_of({"--per", "cgroup", "--cgroup", group.name()});
            const auto charged = read_charged(group.below());
            REQUIRE(sums.size() == 1);
            REQUIRE(charged);
            CHECK(sums[0]["processes"] == 2);
            const auto anon = sums[0]["pss_anon_bytes"].get<std::uint64_t>();
            const auto shmem = sums[0]["pss_shmem_bytes"].get<std::uint64_t>();
            const auto swap = sums[0]["swap_bytes"].get<std::uint64_t>();
            seen = "anon " + std::to_string(anon) + " of " + std::to_string(charged->anon) +
                   ", shmem " + std::to_string(shmem) + " of " + std::to_string(charged->shmem) +
                   ", swap " + std::to_string(swap) + " of " +
                   std::to_string(charged->swap.value_or(0)) + " and " +
                   std::to_string(charged->swap_cache);
            CHECK(anon >= 48 * MiB);
            CHECK(anon < 72 * MiB); // in full it would be over 96
            agreed = is_near(anon, charged->anon) && is_near(shmem, charged->shmem) &&
                     (!charged->swap || is_near(swap, *charged->swap) ||
                      is_near(swap, *charged->swap + charged->swap_cache));
            if (swaps) CHECK(swap >= 7 * MiB);
        }
        CHECK_MESSAGE(agreed, seen);
        MESSAGE(seen);
    }
}

} // namespace pagesift::live
