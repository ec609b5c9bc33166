// SPDX-License-Identifier: MIT
// The sums of a look at the zoo, against the kernel's own.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <map>
#include <utility>

#include <doctest/doctest.h>

namespace pagesift::live {

TEST_CASE("zoo: totals are those of smaps_rollup") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    // Other processes that come and go move the shares of common libraries, and an ager moves
    // pages: what is compared is a look during which the kernel's own figures stood still.
    auto rollup = zoo::witness::smaps_rollup(zoo->pid());
    nlohmann::json seen;
    for (int tries = 0; tries < 20; ++tries) {
        seen = inspect(zoo->pid(), {"--pages", "--zero", "off"});
        const auto before = std::exchange(rollup, zoo::witness::smaps_rollup(zoo->pid()));
        if (before == rollup) break;
    }
    REQUIRE(!rollup.empty());
    REQUIRE(seen.is_object());
    const auto& totals = seen["totals"];
    const std::pair<std::string, std::string> fields[] = {
        {"rss_bytes", "Rss"},
        {"anonymous_bytes", "Anonymous"},
        {"swap_bytes", "Swap"},
        {"ksm_bytes", "KSM"},
        {"anon_huge_pages_bytes", "AnonHugePages"},
        {"shared_hugetlb_bytes", "Shared_Hugetlb"},
        {"private_hugetlb_bytes", "Private_Hugetlb"}};
    for (const auto& pair : fields) {
        const auto& ours = pair.first;
        const auto& kernels = pair.second;
        INFO(kernels);
        CHECK_MESSAGE(totals.contains(ours), ours << " is in totals");
        if (!totals.contains(ours)) continue;
        if (rollup.count(kernels) != 0) CHECK(totals[ours] == json(rollup[kernels]));
    }
    // The kernel cuts Pss off at whole kilobytes, once a mapping or once in all.
    const auto pss = totals["pss_bytes"].get<std::uint64_t>();
    const auto slack = seen["mappings"].size() * 1024;
    CHECK(pss <= rollup["Pss"] + slack);
    // While it looks, pagesift maps the common libraries itself, which at most halves their shares.
    CHECK(pss + slack + rollup["Pss_File"] / 2 >= rollup["Pss"]);
}

TEST_CASE("zoo: a look without contents leaves what is referenced as it was") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    bool unchanged = false;
    // Whoever ages this machine's memory changes the figure too, but not at every moment.
    for (int tries = 0; tries < 10 && !unchanged; ++tries) {
        const auto before = zoo::witness::smaps_rollup(zoo->pid());
        inspect(zoo->pid(), {"--ranges", "--zero", "off"});
        unchanged =
            before.at("Referenced") == zoo::witness::smaps_rollup(zoo->pid()).at("Referenced");
    }
    CHECK(unchanged);
}

TEST_CASE("zoo: reading all contents breaks no merge and no sharing") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    const auto frames = [&] {
        std::map<std::string, std::uint64_t> all;
        const auto seen = inspect(zoo->pid(), {"--pages", "--zero", "off"});
        for (const auto& page : seen["pages"])
            if (page["state"] == "present" && page["pfn"].is_number())
                all[page["address"].get<std::string>()] = page["pfn"].get<std::uint64_t>();
        return all;
    };
    const auto before = frames();
    REQUIRE(before.size() > 1000);
    inspect(zoo->pid(), {"--zero", "all"});
    // A page that was copied would have another frame; one that the machine's ager took has none.
    std::size_t copied = 0;
    for (const auto& [address, frame] : frames()) {
        const auto found = before.find(address);
        copied += found != before.end() && found->second != frame;
    }
    CHECK(copied == 0);
}

TEST_CASE("zoo: the pages of a look, counted, are those of smaps_rollup") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    const auto rollup = zoo::witness::smaps_rollup(zoo->pid());
    const auto seen = inspect(zoo->pid(), {"--pages", "--zero", "all"});
    REQUIRE(seen.is_object());
    const auto page_size = seen["page_size"].get<std::uint64_t>();
    std::uint64_t resident = 0, swap = 0, unknown = 0, ksm = 0, hugetlb = 0;
    auto mapping = seen["mappings"].begin();
    for (const auto& page : seen["pages"]) {
        while (address((*mapping)["end"]) <= address(page["address"])) ++mapping;
        const auto kind = field(page, "kind");
        // The kernel counts a frame that is being moved, or is broken, as still there.
        const bool present =
            page["state"] == "migrating" ||
            (page["state"] == "present" && kind != "zero-page" && kind != "special");
        if ((*mapping)["backing"] == "hugetlb")
            hugetlb += present ? page_size : 0;
        else
            resident += present ? page_size : 0;
        if (page["state"] == "unknown") unknown += page_size;
        if (page["state"] == "swapped" || page["state"] == "shmem-swapped") swap += page_size;
        if (kind.is_string() && kind.get<std::string>().rfind("ksm", 0) == 0) ksm += page_size;
    }
    CHECK(resident == rollup.at("Rss"));
    if (unknown == 0) CHECK(swap == rollup.at("Swap"));
    CHECK(swap + unknown >= rollup.at("Swap"));
    CHECK(hugetlb == rollup.at("Private_Hugetlb") + rollup.at("Shared_Hugetlb"));
    // Where the kernel's flag lies, the pages are unknown and the sum comes from smaps.
    if (rollup.count("KSM") != 0 && !seen["totals"]["kinds"]["ksm_bytes"].is_null())
        CHECK(ksm == rollup.at("KSM"));
}

TEST_CASE("zoo: page tables are counted, and empty ones are told from the rest") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    std::uint64_t empty = 0, spanning = 0, reclaimable = 0, marker_only = 0;
    for (const auto& slot : zoo->description()["slots"]) {
        const bool is_empty = slot["state"] == "empty";
        empty += is_empty ? 1 : 0;
        spanning += is_empty && slot["mappings"] > 1 ? 1 : 0;
        reclaimable += slot["reclaimable"] ? 1 : 0;
        marker_only += slot["state"] == "marker-only" ? 1 : 0;
    }
    const auto counted = zoo::witness::count_tables(zoo->pid());
    const auto page_size = zoo->description()["page_size"].get<std::uint64_t>();
    // The C library's own memory may hold an empty table or two that the zoo does not know of.
    REQUIRE(counted.accounted >= counted.needed + empty);
    for (const auto& lens : lenses()) {
        INFO("the " << lens << " lens");
        const auto seen = inspect(zoo->pid(), {"--lens", lens});
        const auto& tables = seen["totals"]["page_tables"];
        CHECK(tables["total_bytes"] == json(counted.accounted * page_size));
        CHECK(tables["empty_tables"] == json(counted.accounted - counted.needed));
        CHECK(tables["marker_only_tables"] == json(marker_only));
        // This one knows of each.
        if (lens == "exact") CHECK(tables["located_tables"] == tables["empty_tables"]);
        if (tables["located_tables"].is_null()) continue;
        CHECK(tables["located_tables"].get<std::uint64_t>() >= empty);
        CHECK(tables["reclaimable_bytes"] == json(reclaimable * page_size));
        CHECK(tables["spanning_tables"] == json(spanning));
    }
}

namespace {

void check_slots(const json& made, const json& seen) {
    std::map<std::uint64_t, json> listed;
    for (const auto& slot : seen) listed[address(slot["start"])] = slot;
    for (const auto& truth : made) {
        INFO(truth.dump());
        const auto slot = listed.find(address(truth["start"]));
        const bool must_be_listed = truth["state"] == "empty" || truth["state"] == "marker-only";
        CHECK((slot != listed.end()) == must_be_listed);
        if (slot == listed.end()) continue;
        CHECK(slot->second["state"] == truth["state"]);
        CHECK(slot->second["reclaimable"] == truth["reclaimable"]);
        CHECK(slot->second["spanning"] == (truth["state"] == "empty" && truth["mappings"] > 1));
    }
}

} // namespace

TEST_CASE("zoo: slots that hold nothing, or nothing but markers, are listed as what they are") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    for (const auto& lens : lenses()) {
        INFO("the " << lens << " lens");
        const auto seen = inspect(zoo->pid(), {"--lens", lens});
        if (seen["totals"]["page_tables"]["located_tables"].is_null()) {
            CHECK(lens == "proc");
            CHECK_FALSE(seen["gaps"].empty());
            skip("this kernel does not tell where its empty tables are");
            continue;
        }
        check_slots(zoo->description()["slots"], field(seen, "slots"));
    }
}

} // namespace pagesift::live
