// SPDX-License-Identifier: MIT
#include "harness.hpp"

#include <algorithm>
#include <map>
#include <sstream>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

/// What does not hold, each with its place. A broken sum breaks in a thousand places: the first few
/// are told.
class Broken {
public:
    void expect(bool holds, const json& place, const char* claim) {
        if (holds) return;
        if (++count_ <= 5) text_ << "\n  " << claim << " at " << place.dump();
    }
    std::string text() const {
        return count_ <= 5 ? text_.str() : text_.str() + "\n  and " + std::to_string(count_ - 5);
    }

private:
    std::ostringstream text_;
    std::size_t count_ = 0;
};

/// The sum of the numbers of an object; what is unknown (null) counts nothing.
std::uint64_t sum(const json& object) {
    std::uint64_t total = 0;
    for (const auto& value : object)
        if (value.is_number()) total += value.get<std::uint64_t>();
    return total;
}

void check_sums(const json& holder, std::uint64_t size, const json& place, Broken& broken) {
    broken.expect(sum(holder["states"]) == size, place, "states add up to the size");
    const auto present = holder["states"]["present_bytes"].get<std::uint64_t>();
    const bool all_known = std::none_of(holder["kinds"].begin(), holder["kinds"].end(),
                                        [](const json& bytes) { return bytes.is_null(); });
    broken.expect(all_known ? sum(holder["kinds"]) == present : sum(holder["kinds"]) <= present,
                  place, "kinds add up to what is present");
    const auto broken_frames = holder["markers"]["hwpoison_bytes"].get<std::uint64_t>();
    broken.expect(sum(holder["markers"]) - broken_frames == holder["states"]["marker_bytes"], place,
                  "markers add up to the state marker");
    broken.expect(broken_frames <= holder["states"]["migrating_bytes"], place,
                  "entries of broken frames count as migrating");
}

void check_mappings(const json& process, Broken& broken) {
    const auto& totals = process["totals"];
    const bool partial = std::any_of(process["gaps"].begin(), process["gaps"].end(),
                                     [](const json& gap) { return gap["incomplete"] == true; });
    std::uint64_t size = 0, last_end = 0;
    std::map<std::string, std::uint64_t> states;
    for (const auto& mapping : process["mappings"]) {
        const auto start = address(mapping["start"]), end = address(mapping["end"]);
        broken.expect(start >= last_end && start < end, mapping["start"], "mappings are in order");
        last_end = end;
        const auto counted = mapping["counted_bytes"].get<std::uint64_t>();
        broken.expect(mapping["whole"] == (counted == end - start) && counted <= end - start,
                      mapping["start"], "a mapping is counted whole, or marked");
        broken.expect(mapping["whole"] || partial, mapping["start"],
                      "what is not counted is a gap that is marked as incomplete");
        size += counted;
        check_sums(mapping, counted, mapping["start"], broken);
        for (const auto& state : mapping["states"].items())
            states[state.key()] += state.value().get<std::uint64_t>();
    }
    broken.expect(totals["size_bytes"] == size, "totals",
                  "what is counted of mappings adds up to the size");
    check_sums(totals, size, "totals", broken);
    for (const auto& state : totals["states"].items())
        broken.expect(state.value() == states[state.key()], state.key(),
                      "mappings add up to the total");
}

void check_ranges(const json& process, Broken& broken) {
    const auto page_size = process["page_size"].get<std::uint64_t>();
    std::uint64_t last_end = 0, size = 0;
    auto mapping = process["mappings"].begin();
    for (const auto& range : process["ranges"]) {
        const auto& place = range["start"];
        const auto start = address(range["start"]), end = address(range["end"]);
        broken.expect(start >= last_end && start < end, place, "ranges are in order");
        broken.expect(range["pages"].get<std::uint64_t>() * page_size == end - start, place,
                      "a range has as many pages as its addresses say");
        while (mapping != process["mappings"].end() && address((*mapping)["end"]) <= start)
            ++mapping;
        broken.expect(mapping != process["mappings"].end() &&
                          start >= address((*mapping)["start"]) &&
                          end <= address((*mapping)["end"]),
                      place, "a range lies in a mapping");
        broken.expect((range["state"] == "present") != range["kind"].is_null(), place,
                      "what is present has a kind, and nothing else has");
        const bool may_be_named = range["state"] == "migrating" && range["marker"] == "hwpoison";
        broken.expect(may_be_named || (range["state"] == "marker") != range["marker"].is_null(),
                      place, "a marker is named, and nothing else is");
        last_end = end;
        size += end - start;
        if (mapping == process["mappings"].end()) break;
    }
    broken.expect(process["totals"]["size_bytes"] == size, "ranges", "ranges add up to the size");
}

} // namespace

std::string broken_invariants(const json& process) {
    if (!process.is_object()) return "no answer";
    Broken broken;
    broken.expect(process["schema"] == "pagesift.inspect/1", process["schema"],
                  "the schema's name");
    broken.expect(json::parse(process.dump()) == process, "all", "the text parses to itself");
    check_mappings(process, broken);
    if (process.contains("ranges")) check_ranges(process, broken);
    return broken.text();
}

void check_invariants(const json& process) {
    const auto broken = broken_invariants(process);
    CHECK_MESSAGE(broken.empty(), broken);
}

} // namespace pagesift::live
