// SPDX-License-Identifier: MIT
// What pagesift says of the zoo, page by page, against what the zoo is.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <doctest/doctest.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

/// The exhibits that the project promises. A zoo without one of them is no longer the zoo.
constexpr const char* promised[] = {
    "untouched",
    "zero-page",
    "huge-zero-page",
    "zero-filled",
    "anon-dirty",
    "anon-clean-swapped-in",
    "anon-swapped-file",
    "anon-swapped-zram",
    "zero-filled-swapped",
    "file-clean",
    "file-dirty",
    "file-cached",
    "file-uncached",
    "file-hole",
    "file-beyond-end",
    "file-private-cow",
    "file-private-cow-swapped",
    "memfd-present",
    "memfd-swapped",
    "memfd-cached",
    "memfd-hole",
    "tmpfs-present",
    "tmpfs-swapped",
    "tmpfs-cached",
    "tmpfs-hole",
    "sysv-present",
    "sysv-swapped",
    "sysv-cached",
    "sysv-hole",
    "shared-anon-present",
    "shared-anon-swapped",
    "shared-anon-zram-swapped",
    "shared-anon-cached",
    "shared-anon-hole",
    "shmem-private",
    "memfd-read-hole",
    "memfd-fallocated",
    "fork-shared",
    "fork-cow-broken",
    "ksm-shared",
    "ksm-sole",
    "ksm-zero",
    "ksm-use-zero-pages",
    "thp-pmd",
    "thp-pte",
    "thp-middle",
    "thp-shmem",
    "thp-zero-filled",
    "thp-swapped",
    "file-large-folio",
    "hugetlb-private",
    "hugetlb-shared",
    "hugetlb-zero-filled",
    "hugetlb-untouched",
    "lazyfree",
    "mlocked",
    "guard",
    "guard-on-file",
    "uffd-wp-marker",
    "uffd-wp-marker-on-shmem",
    "uffd-wp-present",
    "uffd-wp-swapped",
    "poison",
    "uffd-missing",
    "hwpoison",
    "high-address",
    "marker-only-table",
    "empty-table",
    "empty-table-spanning",
    "empty-table-partly-mapped",
    "prot-none",
    "prot-none-filled",
    "pfnmap",
};

/// These need a reason on every machine, and none of the skips counts them.
constexpr const char* never_exhibited[] = {"migrating", "unknown", "present-unknown",
                                           "marker-other"};

/// What some kernels cannot tell. pagesift may call it unknown there, if it gives this reason.
struct Blind {
    const char* exhibits; ///< how their names begin
    const char* word;     ///< "state" or "kind"
    const char* source;   ///< of the gap
    const char* reason;   ///< part of it
};
constexpr Blind blind[] = {
    {"ksm-", "kind", "kpageflags", "which pages KSM merged is unknown"},
    {"memfd-swapped", "state", "mincore", "may be in the swap cache"},
    {"tmpfs-swapped", "state", "mincore", "may be in the swap cache"},
    {"sysv-swapped", "state", "mincore", "may be in the swap cache"},
    {"shared-anon-", "state", "mincore", "may be in the swap cache"},
    {"shmem-private", "state", "mincore", "may be in the swap cache"},
};

/// A part of the reason that @p process gives for calling something unknown, where that is allowed.
std::optional<std::string> excuse(const json& process, const std::string& exhibit,
                                  const std::string& word) {
    for (const auto& allowed : blind) {
        if (word != allowed.word || exhibit.rfind(allowed.exhibits, 0) != 0) continue;
        for (const auto& gap : process["gaps"]) {
            const std::string reason = gap["reason"];
            if (gap["source"] == allowed.source && reason.find(allowed.reason) != reason.npos)
                return allowed.reason;
        }
    }
    return std::nullopt;
}

std::string text(const json& value) { return value.is_null() ? "-" : value.dump(); }

/// Collects what differs, so that one wrong rule does not print a thousand lines.
class Differences {
public:
    void note(const std::string& exhibit, const json& address, const std::string& what,
              const json& expected, const json& seen) {
        std::ostringstream line;
        line << exhibit << ": " << what << " is " << text(expected) << ", pagesift says "
             << text(seen);
        auto& found = lines_[line.str()];
        if (found.first == 0) found.second = text(address);
        ++found.first;
    }
    void excused(const std::string& exhibit, const std::string& word, const std::string& reason) {
        excused_.insert(exhibit + ": " + word + " is unknown: " + reason);
    }
    const std::set<std::string>& excuses() const { return excused_; }
    bool none() const { return lines_.empty(); }
    void check() const {
        for (const auto& [line, where] : lines_)
            FAIL_CHECK(line << " (" << where.first << " pages, first " << where.second << ")");
    }

private:
    std::map<std::string, std::pair<std::size_t, std::string>> lines_;
    std::set<std::string> excused_;
};

using Pages = std::map<std::uint64_t, const json*>;

Pages by_address(const json& process) {
    Pages pages;
    for (const auto& page : process["pages"]) pages[address(page["address"])] = &page;
    return pages;
}

void compare(const json& process, const json& exhibit, const json& run, const json& page,
             Differences& differences) {
    const std::string name = exhibit["name"];
    const auto note = [&](const std::string& what, const json& expected, const json& seen) {
        if (expected != seen) differences.note(name, page["address"], what, expected, seen);
    };
    for (const char* word : {"state", "kind", "marker"}) {
        const auto seen = field(page, word);
        const auto reason =
            seen == "unknown" && run[word] != seen ? excuse(process, name, word) : std::nullopt;
        if (reason)
            differences.excused(name, word, *reason);
        else
            note(word, run[word], seen);
    }
    for (const auto& [attribute, value] : exhibit["attributes"].items()) {
        if (run["state"] != "present" && run["state"] != "swapped") continue;
        const auto seen = field(page["attributes"], attribute.c_str());
        if (!seen.is_null()) note("attribute " + attribute, value, seen); // null: it does not know
    }
    if (run["state"] != "present") return;
    for (const char* number : {"sharers", "folio_pages"})
        if (exhibit.contains(number) && !field(page, number).is_null())
            note(number, exhibit[number], page[number]);
}

void compare_swap(const json& exhibit, const std::vector<const json*>& pages,
                  Differences& differences) {
    if (!exhibit.contains("swap")) return;
    auto expected = exhibit["swap"].begin();
    for (const json* page : pages) {
        if ((*page)["state"] != "swapped" || expected == exhibit["swap"].end()) continue;
        const json seen = {field(*page, "swap_type"), field(*page, "swap_offset")};
        if (seen != *expected)
            differences.note(exhibit["name"], (*page)["address"], "swap slot", *expected, seen);
        ++expected;
    }
}

void compare_exhibit(const json& process, const json& exhibit, const Pages& pages,
                     Differences& differences) {
    const std::uint64_t page_size = process["page_size"];
    std::uint64_t at = address(exhibit["start"]);
    std::vector<const json*> seen;
    for (const auto& run : exhibit["runs"]) {
        for (std::uint64_t i = 0; i < run["pages"].get<std::uint64_t>(); ++i, at += page_size) {
            const auto page = pages.find(at);
            if (page == pages.end()) {
                differences.note(exhibit["name"], json(at), "page", run["state"], json());
                continue;
            }
            seen.push_back(page->second);
            compare(process, exhibit, run, *page->second, differences);
        }
    }
    compare_swap(exhibit, seen, differences);
}

/// Looks at a zoo through one lens and compares everything. The kernel may take back a page between
/// the zoo's proof and the look (some machines push out what is idle), so what differs must differ
/// three times.
/// @param kinds what the first run of an exhibit is called instead, by its name
void compare_with_zoo(std::vector<std::string> options, const std::string& lens,
                      const std::map<std::string, std::string>& kinds) {
    INFO("the " << lens << " lens");
    options.insert(options.end(), {"--lens", lens});
    Differences differences;
    for (int tries = 0; tries < 3; ++tries) {
        const auto zoo = stopped_zoo(tries == 0 ? ZooAge::young : ZooAge::fresh);
        if (!zoo) return;
        auto truth = zoo->description();
        const auto seen = inspect(zoo->pid(), options);
        REQUIRE(seen.is_object());
        CHECK(seen["lens"] == lens);
        check_invariants(seen);
        const auto pages = by_address(seen);
        differences = {};
        for (auto& exhibit : truth["exhibits"]) {
            const auto other = kinds.find(exhibit["name"]);
            if (other != kinds.end()) exhibit["runs"][0]["kind"] = other->second;
            compare_exhibit(seen, exhibit, pages, differences);
        }
        CHECK(seen["page_size"] == truth["page_size"]);
        if (differences.none()) break;
    }
    differences.check();
    for (const auto& reason : differences.excuses()) skip(reason);
}

std::set<std::string> cells_of(const json& description) {
    std::set<std::string> cells;
    for (const auto& exhibit : description["exhibits"]) {
        for (const auto& run : exhibit["runs"]) {
            const std::string state = run["state"];
            cells.insert(state);
            if (!run["kind"].is_null()) cells.insert(state + "/" + run["kind"].get<std::string>());
            if (!run["marker"].is_null())
                cells.insert("marker/" + run["marker"].get<std::string>());
        }
    }
    for (const auto& missing : description["absent"])
        if (!missing["reason"].get<std::string>().empty()) {
            const std::string cell = missing["cell"];
            cells.insert(cell);
            cells.insert(cell.substr(0, cell.find('/')));
        }
    return cells;
}

/// "shmem_swapped_bytes" -> "shmem-swapped"
std::string word_of(std::string field_name) {
    field_name.erase(field_name.rfind("_bytes"));
    std::replace(field_name.begin(), field_name.end(), '_', '-');
    return field_name;
}

} // namespace

TEST_CASE("zoo: every page of every exhibit is called what it is") {
    for (const auto& lens : lenses())
        compare_with_zoo({"--pages", "--ranges", "--zero", "all"}, lens, {});
}

TEST_CASE("zoo: without reading contents nothing is called zero-filled, and all else is the same") {
    for (const auto& lens : lenses())
        compare_with_zoo({"--pages", "--zero", "off"}, lens,
                         {{"zero-filled", "anon"},
                          {"memfd-read-hole", "shmem"},
                          {"ksm-zero", "ksm"},
                          {"thp-zero-filled", "thp"},
                          {"hugetlb-zero-filled", "hugetlb"}});
}

TEST_CASE("zoo: what is promised is exhibited, or there is a reason") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    std::set<std::string> exhibited;
    for (const auto& exhibit : zoo->description()["exhibits"]) exhibited.insert(exhibit["name"]);
    std::map<std::string, std::string> reasons;
    for (const auto& missing : zoo->description()["absent"])
        reasons[missing["name"]] = missing["reason"];
    for (const std::string name : promised) {
        if (exhibited.count(name) != 0) continue;
        const auto reason = reasons.find(name);
        CHECK_MESSAGE(reason != reasons.end(), name << " is neither exhibited nor explained");
        if (reason != reasons.end()) skip(name + ": " + reason->second);
    }
    for (const char* name : never_exhibited) CHECK(reasons.count(name) == 1);
}

TEST_CASE("zoo: every state, kind and marker that pagesift knows has an exhibit or a reason") {
    const auto zoo = stopped_zoo();
    if (!zoo) return;
    const auto cells = cells_of(zoo->description());
    const auto totals = inspect(zoo->pid(), {})["totals"];
    const auto check = [&](const char* group, const std::string& prefix) {
        REQUIRE(totals.contains(group));
        for (const auto& total : totals[group].items()) {
            const auto cell = prefix + word_of(total.key());
            CHECK_MESSAGE(cells.count(cell) != 0, cell << " has neither an exhibit nor a reason");
        }
    };
    check("states", "");
    check("kinds", "present/");
    check("markers", "marker/");
    CHECK(totals["states"].size() >= 9);
    CHECK(totals["kinds"].size() >= 12);
    CHECK(totals["markers"].size() >= 3);
}

TEST_CASE("zoo: killed without a word, it leaves the machine as it was") {
    if (!have_root()) return;
    release_zoo();
    const auto machine = [] {
        std::ostringstream all;
        for (const auto& area : zoo::witness::swap_areas()) all << area.path << '\n';
        for (const char* path :
             {"/sys/kernel/mm/ksm/run", "/sys/kernel/mm/ksm/use_zero_pages",
              "/sys/kernel/mm/ksm/pages_to_scan", "/sys/kernel/mm/transparent_hugepage/enabled",
              "/proc/sys/vm/nr_hugepages"})
            all << std::ifstream(path).rdbuf();
        return all.str();
    };
    const auto before = machine();
    Zoo zoo;
    REQUIRE(zoo.ready());
    zoo.stop(); // the kernel kills what is stopped as well
    zoo.process().signal(SIGKILL);
    zoo.process().wait(10);
    CHECK(zoo.process().wait_for_end_of_output(30));
    CHECK(machine() == before);
}

} // namespace pagesift::live
