// SPDX-License-Identifier: MIT
// Every recording in tests/fixtures is looked at and counted; expected.json says what must be
// found, in pages. A state, kind or marker that it does not name must not be found.
#include "pagesift/classify.hpp"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

using namespace pagesift;
using nlohmann::json;

namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& file) {
    std::ifstream in{file, std::ios::binary};
    REQUIRE_MESSAGE(in, file.string());
    return {std::istreambuf_iterator<char>{in}, {}};
}

std::vector<fs::path> fixtures() {
    std::vector<fs::path> folders;
    for (const auto& entry : fs::directory_iterator{PAGESIFT_FIXTURE_DIR})
        if (entry.is_directory()) folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end());
    return folders;
}

Census look_at(const fs::path& folder, const json& expected, unsigned jobs) {
    const std::string bytes = read(folder / "recording.txt");
    auto sources = snapshot::load_recording(bytes, folder.filename().string());
    REQUIRE(sources.size() == 1);
    LookOptions options;
    options.jobs = jobs;
    if (expected.value("want", "") == "zero") options.want.zero = ZeroTest::all;
    return look(*sources[0], options);
}

/// The counts that are not zero, by field name.
template <class Count> json counts(std::span<const Word> words, Count&& count) {
    json found = json::object();
    for (std::size_t i = 0; i < words.size(); ++i)
        if (const std::uint64_t pages = count(i); pages != 0)
            found[words[i].name.empty() ? "other" : std::string{words[i].field}] = pages;
    return found;
}

json counts_of(const Tally& tally) {
    json all;
    all["states"] = counts(state_table(),
                           [&](std::size_t i) { return tally.state_pages(static_cast<State>(i)); });
    all["kinds"] =
        counts(kind_table(), [&](std::size_t i) { return tally.kind_pages(static_cast<Kind>(i)); });
    all["markers"] = counts(marker_table(), [&](std::size_t i) {
        return i == 0 ? 0 : tally.marker_pages(static_cast<Marker>(i));
    });
    return all;
}

json tables_of(const PageTables& tables) {
    const auto number = [](const std::optional<std::uint64_t>& n) { return n ? json(*n) : json(); };
    return {{"needed", tables.needed_tables},
            {"empty", number(tables.empty_tables)},
            {"located", number(tables.located_tables)},
            {"marker_only", tables.marker_only_tables}};
}

std::uint64_t sum(const json& numbers) {
    std::uint64_t total = 0;
    for (const auto& number : numbers) total += number.get<std::uint64_t>();
    return total;
}

} // namespace

TEST_CASE("fixtures: each is counted as expected.json says") {
    const auto folders = fixtures();
    REQUIRE(folders.size() >= 8);
    for (const auto& folder : folders) {
        const std::string name = folder.filename().string();
        CAPTURE(name);
        const json expected = json::parse(read(folder / "expected.json"));
        const Census census = look_at(folder, expected, 1);
        CHECK(census.host.page_size == expected.at("page_size"));
        const json found = counts_of(census.totals);
        for (const char* what : {"states", "kinds", "markers"})
            CHECK_MESSAGE(found.at(what) == expected.value(what, json::object()), name, ": ",
                          std::string{what}, " are ", found.at(what).dump());
        if (expected.contains("page_tables"))
            CHECK_MESSAGE(tables_of(census.tables) == expected["page_tables"], name,
                          ": tables are ", tables_of(census.tables).dump());
        for (const auto& source : expected.value("gaps", json::array()))
            CHECK_MESSAGE(std::any_of(census.gaps.begin(), census.gaps.end(),
                                      [&](const Gap& gap) { return gap.source == source; }),
                          name, ": no gap of ", source.dump());
    }
}

TEST_CASE("fixtures: every page has one state, and every present page one kind") {
    for (const auto& folder : fixtures()) {
        const std::string name = folder.filename().string();
        CAPTURE(name);
        const Census census = look_at(folder, json::object(), 1);
        for (const MappingCensus& m : census.mappings) {
            const std::uint64_t pages = m.mapping.range.size().value / census.host.page_size;
            const json found = counts_of(m.tally);
            CHECK(sum(found["states"]) == pages);
            CHECK(sum(found["kinds"]) == m.tally.state_pages(State::present));
            CHECK(sum(found["markers"]) == m.tally.state_pages(State::marker));
        }
    }
}

TEST_CASE("fixtures: two workers find what one finds") {
    for (const auto& folder : fixtures()) {
        const Census one = look_at(folder, json::object(), 1);
        const Census two = look_at(folder, json::object(), 2);
        CHECK(counts_of(one.totals) == counts_of(two.totals));
        CHECK(tables_of(one.tables) == tables_of(two.tables));
    }
}

TEST_CASE(
    "fixtures: the example in pagesift-recording(5) is a recording, and says what it says there") {
    const fs::path manual = fs::path{PAGESIFT_FIXTURE_DIR} / "../../man/pagesift-recording.5.scd";
    const std::string page = read(manual);
    const auto begin = page.find("```\n") + 4;
    std::string text = page.substr(begin, page.find("```", begin) - begin);
    // The manual's own escape.
    for (auto at = text.find("\\\\"); at != text.npos; at = text.find("\\\\", at + 1))
        text.erase(at, 1);
    const auto sources = snapshot::load_recording(text, "the example");
    REQUIRE(sources.size() == 1);
    const Census census = look(*sources[0], {});
    CHECK(census.process.comm == "example\n");
    CHECK(census.totals.state_pages(State::present) == 512 + 2);
    CHECK(census.totals.state_pages(State::swapped) == 16);
    CHECK(census.totals.state_pages(State::none) == 1518);
}
