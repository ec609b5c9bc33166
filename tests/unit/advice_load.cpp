// SPDX-License-Identifier: MIT
// Kept plans: read back as they were written, and refused when anybody has tampered with them.
#include "error_of.hpp"
#include "made_up_advice.hpp"
#include "pagesift/report.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sstream>

using namespace pagesift;
using namespace pagesift::advice;
using namespace pagesift::test;
using nlohmann::json;

namespace {

constexpr std::uint64_t base = 0x10000000;

std::string render(const Plan& plan, const Effect* effect = nullptr) {
    std::ostringstream out;
    report::ReportOptions options;
    options.format = report::Format::json;
    const auto sink = report::make_advise_sink(out, options);
    sink.process(plan, effect);
    sink.finish();
    return out.str();
}

Plan some_plan(Action action = Action::pageout) {
    MadeUpSource source;
    Mapping& mapping = source.map(base, base + 2 * slot);
    mapping.name = "[anon:\x1b[31m name]";
    Mapping& file = source.map(base + 2 * slot, base + 2 * slot + 8 * page, Backing::file);
    file.inode = 77;
    file.offset = 0x3000;
    file.device = {8, 1};
    for (std::uint64_t i = 0; i < 512; ++i) {
        source.pages[base + i * page] = huge_page(0x10000, i, 9, action != Action::collapse);
        source.pages[base + slot + i * page] = anon_page(100 + i);
    }
    source.pages[base + 2 * slot] = file_page(5000);
    source.pages[base + slot].flags |= abi::kpf(abi::KPF_MLOCKED);
    Plan plan = make_plan(source, action);
    plan.comm = "some";
    return plan;
}

/// What load_plans says of a text; empty: it takes it.
std::string said(const std::string& text) {
    const auto error = error_of([&] { load_plans(text, "plan.json"); });
    if (!error) return {};
    CHECK(error->kind() == ErrorKind::bad_input);
    return error->what();
}

/// What is said of a plan in which @p change changed something.
std::string refusal(const std::function<void(json&)>& change, Action action = Action::pageout) {
    json document = json::parse(render(some_plan(action)));
    change(document[0]);
    return said(document.dump());
}

bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

} // namespace

TEST_CASE("advice: a plan is read back as it was written") {
    for (const Action action : {Action::pageout, Action::cold, Action::collapse}) {
        const Plan plan = some_plan(action);
        const auto loaded = load_plans(render(plan), "plan.json");
        REQUIRE(loaded.size() == 1);
        CHECK(loaded[0].action == plan.action);
        CHECK(loaded[0].identity == plan.identity);
        CHECK(loaded[0].ranges == plan.ranges);
        CHECK(loaded[0].skipped == plan.skipped);
        CHECK(loaded[0].forecast.bytes == plan.forecast.bytes);
        CHECK(loaded[0].forecast.freed_bytes == plan.forecast.freed_bytes);
        REQUIRE(loaded[0].mappings.size() == plan.mappings.size());
        for (std::size_t i = 0; i < plan.mappings.size(); ++i)
            CHECK(find_same(loaded[0].mappings, plan.mappings[i], plan.mappings[i].range) !=
                  nullptr);
    }
}

TEST_CASE("advice: what is no plan is refused, with what is wrong") {
    CHECK(has(said(""), "not JSON"));
    CHECK(has(said("[{]"), "not JSON"));
    CHECK(has(said("7"), "neither an object nor an array"));
    CHECK(has(said("[7]"), "no object"));
    CHECK(has(said("[{\"schema\":\"pagesift.inspect/1\"}]"), "not a plan"));
    CHECK(has(said("[{\"schema\":\"pagesift.advise/2\"}]"), "another version"));
    CHECK(has(said(std::string(100'000, '[')), "not JSON"));
    CHECK(has(said(std::string(100'000, '[') + std::string(100'000, ']')), "no object"));
    CHECK(load_plans("[]", "plan.json").empty());
}

TEST_CASE("advice: a plan in which somebody changed something is refused") {
    CHECK(has(refusal([](json& plan) { plan["action"] = "dontneed"; }), "action"));
    CHECK(has(refusal([](json& plan) { plan["pid"] = 0; }), "pid"));
    CHECK(has(refusal([](json& plan) { plan["pid"] = -1; }), "pid"));
    CHECK(has(refusal([](json& plan) { plan["pid"] = 4294967296 + 5; }), "pid"));
    CHECK(has(refusal([](json& plan) { plan.erase("boot_id"); }), "boot_id"));
    CHECK(has(refusal([](json& plan) { plan["page_size"] = 4097; }), "page_size"));
    CHECK(has(refusal([](json& plan) { plan["page_size"] = 0; }), "page_size"));
    CHECK(has(refusal([](json& plan) { plan["slot_bytes"] = 4096; }), "page_size"));
    CHECK(has(refusal([](json& plan) { plan["ranges"] = 3; }), "list"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["mapping"] = 99; }), "not listed"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["mapping"] = 1; }), "leaves its mapping"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["start"] = "0x10"; }), "whole pages"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["start"] = "10000000"; }), "address"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["start"] = "0x"; }), "address"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["start"] = "0x11111111111111111000"; }),
              "address"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["end"] = "0x1000"; }), "empty"));
    CHECK(has(refusal([](json& plan) { plan["ranges"].push_back(plan["ranges"][0]); }), "overlap"));
    CHECK(has(refusal([](json& plan) { plan["mappings"][1]["start"] = "0x10000000"; }), "overlap"));
    CHECK(has(refusal([](json& plan) { plan["mappings"][0]["permissions"] = "rw"; }),
              "four letters"));
    CHECK(has(refusal([](json& plan) { plan["mappings"][0]["backing"] = "gold"; }), "backing"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["state"] = "gold"; }), "word of ours"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["unit_bytes"] = 0; }), "unit_bytes"));
    CHECK(
        has(refusal([](json& plan) { plan["ranges"][0]["unit_bytes"] = 3 * page; }), "unit_bytes"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["fill_bytes"] = 1e6; }), "fill_bytes"));
    CHECK(has(refusal([](json& plan) { plan["skipped"][0]["reason"] = "gold"; }), "reason"));
    CHECK(has(refusal([](json& plan) { plan["ranges"][0]["unit_bytes"] = page; }, Action::collapse),
              "aligned"));
    // Text that would do something to a terminal comes out as text.
    const auto shown = refusal([](json& plan) { plan["schema"] = "pagesift.advise/\x1b[31m"; });
    CHECK(shown.find('\x1b') == shown.npos);
}
