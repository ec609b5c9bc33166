// SPDX-License-Identifier: MIT
#include "cli/diff_history.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>
#include <fstream>

namespace pagesift::cli {
namespace {

using report::History;
using Entries = std::vector<History::Entry>;

bool is_database(const std::string& file) {
    // The first 16 bytes of every database, with their zero: sqlite.org/fileformat.html.
    static constexpr std::string_view magic{"SQLite format 3\0", 16};
    std::array<char, magic.size()> start{};
    std::ifstream in{file, std::ios::binary};
    in.read(start.data(), static_cast<std::streamsize>(start.size()));
    return in && std::string_view{start.data(), start.size()} == magic;
}

std::optional<std::int64_t> parse_scan(std::string_view text) {
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end) return {};
    return number;
}

/// A history that is open, and its scans.
struct Book {
    std::string file;
    History history;
    Entries scans;

    explicit Book(const std::string& name)
        : file(name), history(name, History::Use::read), scans(history.scans()) {
        if (scans.empty()) throw Error{ErrorKind::bad_input, file, 0, {}, "holds no scan"};
    }

    const History::Entry& at(std::int64_t number) const {
        const auto count = static_cast<std::int64_t>(scans.size());
        if (number < 0 && number >= -count) return scans[static_cast<std::size_t>(count + number)];
        for (const History::Entry& entry : scans)
            if (number > 0 && entry.id == number) return entry;
        throw Error{ErrorKind::bad_input, fmt::format("{}@{}", file, number), 0,
                    fmt::format("it has {} scan{}, from {} to {}; @-1 is the newest", count,
                                count == 1 ? "" : "s", scans.front().id, scans.back().id),
                    "no such scan"};
    }

    const History::Entry& newest_per(scan::Per per) const {
        for (auto entry = scans.rbegin(); entry != scans.rend(); ++entry)
            if (entry->summary.per == per) return *entry;
        throw Error{ErrorKind::bad_input,
                    file,
                    0,
                    {},
                    fmt::format("has no scan with records per {}", scan::per_word(per))};
    }

    /// The last one before @p entry of the same machine and with the same sort of records.
    const History::Entry& before(const History::Entry& entry) const {
        const History::Entry* found = nullptr;
        for (const History::Entry& other : scans) {
            if (other.id == entry.id) break;
            if (other.summary.per == entry.summary.per &&
                other.summary.host_name == entry.summary.host_name)
                found = &other;
        }
        if (found != nullptr) return *found;
        throw Error{ErrorKind::bad_input, fmt::format("{}@{}", file, entry.id), 0,
                    "pagesift scan --format sqlite -o FILE adds one",
                    fmt::format("no earlier scan of this machine with records per {}",
                                scan::per_word(entry.summary.per))};
    }

    ScanSide side(const History::Entry& entry) const {
        ScanSide side{{entry.id, entry.boot_id, entry.summary}, {}};
        history.records(entry.id, [&](const scan::Record& r) { side.records.push_back(r); });
        return side;
    }
    std::string name(const History::Entry& entry) const {
        return fmt::format("{}@{}", file, entry.id);
    }
};

void check_options(const Options& options) {
    for (const auto& [given, name] :
         {std::pair{options.mappings, "--mappings"}, std::pair{options.ranges, "--ranges"}})
        if (given)
            throw Error{ErrorKind::usage, name, 0,
                        "pagesift record --zero all makes recordings, which have them",
                        "scans of a history hold no pages"};
}

struct Chosen {
    ScanSide before, after;
    report::PictureNames names;
};

Chosen choose(const std::vector<HistoryTarget>& targets) {
    const Book first{targets[0].file};
    if (targets.size() == 1) {
        const History::Entry& after = first.at(targets[0].scan.value_or(-1));
        const History::Entry& before = first.before(after);
        return {first.side(before), first.side(after), {first.name(before), first.name(after)}};
    }
    const Book second{targets[1].file};
    // A file without a number stands for its newest scan, of the sort that the other one has.
    const History::Entry& after = targets[1].scan ? second.at(*targets[1].scan)
                                  : targets[0].scan
                                      ? second.newest_per(first.at(*targets[0].scan).summary.per)
                                      : second.at(-1);
    const History::Entry& before =
        targets[0].scan ? first.at(*targets[0].scan) : first.newest_per(after.summary.per);
    if (first.file == second.file && before.id == after.id)
        throw Error{ErrorKind::usage, first.name(before), 0,
                    "FILE@N is the scan with the number N, FILE alone the newest",
                    "is the same scan twice"};
    return {first.side(before), second.side(after), {first.name(before), second.name(after)}};
}

} // namespace

std::optional<HistoryTarget> find_history(const std::string& text) {
    if (is_database(text)) return HistoryTarget{text, {}};
    const auto at = text.rfind('@');
    if (at == text.npos) return {};
    const auto scan = parse_scan(std::string_view{text}.substr(at + 1));
    if (!scan || !is_database(text.substr(0, at))) return {};
    return HistoryTarget{text.substr(0, at), scan};
}

Exit diff_histories(const Options& options, const Environment& environment,
                    const std::vector<HistoryTarget>& targets) {
    check_options(options);
    scan::Where where;
    if (!options.where.empty()) where = scan::Where::parse(options.where);
    Chosen chosen = choose(targets);
    const ScanDiff diff = compare_scans(std::move(chosen.before), std::move(chosen.after), where);
    Output output{options.output, *environment.out};
    report::render_scan_diff(output.stream(), diff, chosen.names,
                             report_options(options, environment));
    output.close();
    return diff.partial ? Exit::partial : Exit::complete;
}

} // namespace pagesift::cli
