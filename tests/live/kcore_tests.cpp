// SPDX-License-Identifier: MIT
// The exact lens where BPF may not be used: the whole command through /proc/kcore.
#include "harness.hpp"

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

/// Whether the exact lens works through /proc/kcore here; otherwise the test is skipped.
bool have_kcore() {
    if (lenses().back() != "exact") return false;
    const auto attempt =
        run_pagesift({"inspect", "--lens", "exact", "--without", "bpf", "--top", "0", "self"});
    if (attempt.exit_code == 0) return true;
    skip("no exact lens without bpf: " + attempt.err.substr(0, attempt.err.find('\n')));
    return false;
}

/// What the command says of a process that stands still: through bpf, kcore, and bpf again. What
/// the machine changes meanwhile, such as accessed bits, differs between the first and the last.
struct Looks {
    json before, kcore, after;
};

/// Without what other programs change at any moment: flags, and who else maps the page of a file.
json of_its_own(json pages) {
    for (auto& entry : pages) {
        entry.erase("flags");
        if (field(entry, "kind") != "file") continue;
        for (const char* key : {"sharers", "exclusive"}) {
            entry.erase(key);
            if (entry.contains("attributes")) entry["attributes"].erase(key);
        }
    }
    return pages;
}

/// What kcore shows otherwise, in words; empty: nothing.
std::string difference(const Looks& looks) {
    const auto before = of_its_own(looks.before["pages"]), after = of_its_own(looks.after["pages"]),
               kcore = of_its_own(looks.kcore["pages"]);
    if (before.size() != kcore.size() || before.size() != after.size()) return "other pages";
    std::size_t compared = 0;
    for (std::size_t i = 0; i < kcore.size(); ++i) {
        if (before[i] != after[i]) continue;
        ++compared;
        if (before[i] != kcore[i]) return before[i].dump() + " is not " + kcore[i].dump();
    }
    if (compared < kcore.size() / 2)
        return std::to_string(kcore.size() - compared) + " pages changed meanwhile";
    const auto &totals = looks.before["totals"], &others = looks.kcore["totals"];
    for (const char* part : {"states", "kinds", "markers", "page_tables", "undecided_pages"})
        if (totals[part] != others[part])
            return std::string{part} + ": " + totals[part].dump() + " is not " +
                   others[part].dump();
    if (looks.before["slots"] != looks.kcore["slots"]) return "other slots";
    return looks.before["gaps"] == looks.kcore["gaps"] ? "" : "gaps: " + looks.kcore["gaps"].dump();
}

/// What doctor says of the exact lens.
json diagnosis(const std::vector<std::string>& without) {
    std::vector<std::string> command = {"doctor", "--format", "json"};
    for (const auto& interface : without) command.insert(command.end(), {"--without", interface});
    const auto answer = json::parse(run_pagesift(command).out, nullptr, false);
    for (const auto& feature : answer["features"])
        if (feature["name"] == "exact-lens") return feature;
    return {};
}

bool mentions(const json& text, const char* part) {
    return text.is_string() && text.get<std::string>().find(part) != std::string::npos;
}

} // namespace

TEST_CASE("kcore: it shows what bpf shows, of every page of the zoo") {
    if (!have_root() || !have_kcore()) return;
    std::string differs;
    for (int tries = 0; tries < 3; ++tries) {
        const auto zoo = stopped_zoo(tries == 0 ? ZooAge::young : ZooAge::fresh);
        if (!zoo) return;
        const auto look = [&](const char* without) {
            return inspect(zoo->pid(),
                           {"--pages", "--zero", "all", "--lens", "exact", "--without", without});
        };
        const Looks looks{look("kcore"), look("bpf"), look("kcore")};
        for (const json& one : {looks.before, looks.kcore, looks.after}) {
            REQUIRE(one["lens"] == "exact");
            REQUIRE(one["pages"].size() > 1000);
            REQUIRE(one["totals"]["page_tables"]["located_tables"].is_number());
        }
        differs = difference(looks);
        if (differs.empty()) {
            MESSAGE(looks.kcore["pages"].size(), " pages, ",
                    looks.kcore["totals"]["page_tables"]["located_tables"].dump(),
                    " empty tables located");
            break;
        }
    }
    CHECK(differs == "");
}

TEST_CASE("kcore: doctor says which way the kernel's memory is read") {
    if (!have_root() || lenses().back() != "exact") return;
    const auto bpf = diagnosis({"kcore"});
    CHECK(bpf["works"] == true);
    CHECK(mentions(bpf["detail"], "eBPF"));
    CHECK_FALSE(mentions(bpf["detail"], "kcore"));
    CHECK(diagnosis({"bpf", "kcore"})["works"] == false);
    const auto kcore = diagnosis({"bpf"});
    CHECK(mentions(kcore["detail"], "proc/kcore"));
    if (!have_kcore()) {
        CHECK(kcore["works"] == false);
        return;
    }
    CHECK(kcore["works"] == true);
    CHECK_FALSE(mentions(kcore["detail"], "eBPF"));
}

} // namespace pagesift::live
