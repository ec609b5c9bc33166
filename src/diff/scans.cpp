// SPDX-License-Identifier: MIT
#include "pagesift/diff.hpp"
#include "pagesift/scan_diff.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <tuple>

namespace pagesift {
namespace {

using scan::Per;
using scan::Record;

/// What makes two records those of the same thing, within one start of one machine.
using Key = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::string, std::string>;

bool is_grouped(Per per) { return per == Per::comm || per == Per::cgroup; }

std::uint64_t number_of(const Record& record, std::string_view field) {
    const auto* number = std::get_if<std::uint64_t>(&record.at(field));
    return number != nullptr ? *number : 0;
}

Key key_of(const Record& record, Per per) {
    if (is_grouped(per)) return {0, 0, 0, record.text_at(scan::per_word(per)), {}};
    const std::uint64_t pid = number_of(record, "pid");
    const std::uint64_t start_time = number_of(record, "start_time_ticks");
    const std::string comm = start_time == 0 ? record.text_at("comm") : std::string{};
    if (per == Per::process) return {pid, start_time, 0, comm, {}};
    return {pid, start_time, number_of(record, "start"), comm, record.text_at("name")};
}

bool same_machine(const ScanPicture& a, const ScanPicture& b) {
    return a.summary.host_name == b.summary.host_name;
}

bool same_boot(const ScanPicture& a, const ScanPicture& b) {
    return a.boot.empty() || b.boot.empty() || a.boot == b.boot;
}

class RecordPairing {
public:
    RecordPairing(ScanDiff& diff, const scan::Where& where) : diff_(diff), where_(where) {}

    void pair(std::vector<Record> before, std::vector<Record> after) {
        const Per per = diff_.before.summary.per;
        const bool same = is_grouped(per) || (same_machine(diff_.before, diff_.after) &&
                                              same_boot(diff_.before, diff_.after));
        std::multimap<Key, std::size_t> waiting;
        for (std::size_t i = 0; same && i < before.size(); ++i)
            waiting.emplace(key_of(before[i], per), i);
        std::vector<bool> taken(before.size());
        for (Record& record : after) {
            const auto found = waiting.find(key_of(record, per));
            RecordPair pair{{}, std::move(record)};
            if (found != waiting.end()) {
                taken[found->second] = true;
                pair.before = std::move(before[found->second]);
                waiting.erase(found);
            }
            add(std::move(pair));
        }
        for (std::size_t i = 0; i < before.size(); ++i)
            if (!taken[i]) add({std::move(before[i]), {}});
        sort();
    }

private:
    void add(RecordPair pair) {
        const auto holds = [&](const std::optional<Record>& record) {
            return record && where_.matches(*record) == Tri::yes;
        };
        if (!holds(pair.before) && !holds(pair.after)) return;
        auto& list = !pair.before ? diff_.only_after : !pair.after ? diff_.only_before : diff_.both;
        list.push_back(std::move(pair));
    }

    void sort() {
        const auto size = [](const RecordPair& pair) {
            const auto change = pair.memory_change();
            return change ? *change < 0 ? -*change : *change : -1;
        };
        std::stable_sort(diff_.both.begin(), diff_.both.end(),
                         [&](const auto& a, const auto& b) { return size(a) > size(b); });
        for (auto* list : {&diff_.only_before, &diff_.only_after})
            std::stable_sort(list->begin(), list->end(),
                             [](const auto& a, const auto& b) { return a.memory() > b.memory(); });
    }

    ScanDiff& diff_;
    const scan::Where& where_;
};

/// Whether the totals of a scan lack a figure of some process, by field.
std::vector<bool> lacking(const ScanSide& side) {
    const scan::Summary& s = side.picture.summary;
    const bool lacks = number_of(s.totals, "unknown_processes") != 0;
    // Where all of the addends are there, they tell which fields it is.
    const bool told = s.per == Per::process && s.left_out == 0;
    std::vector<bool> fields(scan::fields().size(), lacks && !told);
    fields[*scan::find_field("processes")] = false;
    if (!lacks || !told) return fields;
    for (const Record& record : side.records)
        for (const std::size_t field : compared_fields())
            if (!scan::is_known(record.values[field])) fields[field] = true;
    return fields;
}

std::vector<FieldChange> compare_totals(const ScanSide& before, const ScanSide& after) {
    Record a = before.picture.summary.totals, b = after.picture.summary.totals;
    // What was seen in part is in the sum as far as it was seen, and counted in a note. What is
    // not known at all is decided here.
    for (Record* record : {&a, &b}) {
        record->set("complete", {});
        record->set("unknown_processes", {});
    }
    const auto lacks_before = lacking(before), lacks_after = lacking(after);
    std::vector<FieldChange> changes = field_changes(a, b);
    for (FieldChange& change : changes)
        change.comparable =
            change.comparable && !lacks_before[change.field] && !lacks_after[change.field];
    return changes;
}

void explain_machines(ScanDiff& diff) {
    const ScanPicture &a = diff.before, &b = diff.after;
    const bool grouped = is_grouped(a.summary.per);
    if (!same_machine(a, b))
        diff.notes.push_back(
            fmt::format("scans of different machines, {} and {}: {}",
                        escape_text(a.summary.host_name), escape_text(b.summary.host_name),
                        grouped ? "groups are paired by name" : "no process is the same"));
    else if (!same_boot(a, b) && !grouped)
        diff.notes.emplace_back("the machine was started anew in between: no process is the same");
    else if ((a.boot.empty() || b.boot.empty()) && !grouped)
        diff.notes.emplace_back("it is not known whether the machine was started anew in between: "
                                "processes are paired by pid and start time alone");
}

template <class Test> bool any_record(const ScanDiff& diff, Test&& test) {
    for (const auto* pairs : {&diff.both, &diff.only_before, &diff.only_after})
        for (const RecordPair& pair : *pairs)
            if ((pair.before && test(*pair.before)) || (pair.after && test(*pair.after)))
                return true;
    return false;
}

bool is_part(const Record& record, std::string_view share) {
    const auto* part = std::get_if<double>(&record.at(share));
    return part != nullptr && *part < 1;
}

void explain_looks(ScanDiff& diff) {
    const scan::Summary &a = diff.before.summary, &b = diff.after.summary;
    if (a.depth != b.depth)
        diff.notes.push_back(fmt::format("scans of different depth, {} and {}: the change of what "
                                         "only one of them tells apart is unknown",
                                         scan::depth_word(a.depth), scan::depth_word(b.depth)));
    if (a.lens != b.lens)
        diff.notes.push_back(fmt::format("looked at with different lenses, {} and {}: what only "
                                         "one of them sees may look like a change",
                                         escape_text(a.lens), escape_text(b.lens)));
    if (any_record(diff, [](const Record& one) { return is_part(one, "sampled_share"); }))
        diff.notes.emplace_back("contents of a sample were read: zero-filled memory is estimated, "
                                "and small changes of it mean nothing");
    // What was cut off lacks the rest, and is no estimate of it.
    const auto is_estimate = [](const Record& one) {
        return is_part(one, "looked_share") && one.at("complete") != scan::Value{false};
    };
    if (any_record(diff, is_estimate))
        diff.notes.emplace_back("processes larger than --max-process-bytes were looked at in part: "
                                "figures of pages are estimated, and small changes of them mean "
                                "nothing");
}

void explain_missing(ScanDiff& diff, Picture picture) {
    const bool first = picture == Picture::before;
    const scan::Summary& s = (first ? diff.before : diff.after).summary;
    const std::string_view which = first ? "first" : "second";
    if (s.left_out != 0)
        diff.notes.push_back(fmt::format("{} record{} of the {} scan {} left out by --where or "
                                         "--top: what is only in the {} may have been there",
                                         s.left_out, s.left_out == 1 ? "" : "s", which,
                                         s.left_out == 1 ? "was" : "were",
                                         first ? "second" : "first"));
    std::string missing;
    const auto add = [&](std::uint64_t number, std::string_view what) {
        if (number == 0) return;
        missing += fmt::format("{}{} {}", missing.empty() ? "" : ", ", number, what);
    };
    add(s.partial, "seen in part");
    add(s.denied, "that may not be looked at");
    add(s.skipped, "not reached");
    const auto unknown = number_of(s.totals, "unknown_processes");
    add(unknown, "of which the totals lack some figure");
    if (!missing.empty())
        diff.notes.push_back(fmt::format("processes of the {} scan: {}", which, missing));
    if (s.interrupted) diff.notes.push_back(fmt::format("the {} scan was interrupted", which));
    diff.partial = diff.partial || s.interrupted || s.partial + s.denied + s.skipped != 0;
}

} // namespace

std::string_view net_changes_note() {
    return "net changes only: what became of single pages, zero-filled ones among them, takes two "
           "recordings (pagesift record --zero all)";
}

ScanDiff compare_scans(ScanSide before, ScanSide after, const scan::Where& where) {
    const Per per = before.picture.summary.per;
    if (per != after.picture.summary.per)
        throw Error{ErrorKind::bad_input, "scans", 0, "choose them by @N",
                    fmt::format("the first has records per {}, the second per {}",
                                scan::per_word(per), scan::per_word(after.picture.summary.per))};
    if (per == Per::range)
        throw Error{ErrorKind::bad_input, "scans", 0,
                    "pagesift record keeps pictures whose ranges can be compared",
                    "records of ranges cannot be paired"};
    ScanDiff diff;
    diff.totals = compare_totals(before, after);
    diff.before = std::move(before.picture);
    diff.after = std::move(after.picture);
    RecordPairing{diff, where}.pair(std::move(before.records), std::move(after.records));
    explain_machines(diff);
    explain_looks(diff);
    explain_missing(diff, Picture::before);
    explain_missing(diff, Picture::after);
    return diff;
}

} // namespace pagesift
