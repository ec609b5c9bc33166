// SPDX-License-Identifier: MIT
#include "diff/follower.hpp"

#include <fmt/format.h>

namespace pagesift {
namespace {

LookOptions look_options(const DiffOptions& options, const Want& want) {
    LookOptions look;
    look.want = want;
    look.jobs = options.jobs;
    look.where = options.where;
    look.all_runs = true;
    look.interrupted = options.interrupted;
    return look;
}

void check_page_sizes(const HostFacts& before, const HostFacts& after) {
    if (before.page_size == after.page_size) return;
    throw Error{ErrorKind::bad_input, "page sizes", 0, "",
                fmt::format("pages have {} in the first picture and {} in the second",
                            human_bytes(before.page_size), human_bytes(after.page_size))};
}

void explain_processes(ProcessDiff& diff) {
    if (diff.match == Match::assumed)
        diff.notes.emplace_back("the start time is not known: taken for the same process by its "
                                "pid, name and program");
    if (diff.match == Match::replaced)
        diff.notes.emplace_back("started at another time: a new process with the same pid, name "
                                "and program, whose memory is all new");
    else if (diff.executed)
        diff.notes.emplace_back("executed a program in between: all of its memory is new");
    const HostFacts &a = diff.before.host, &b = diff.after.host;
    if (!a.host_name.empty() && !b.host_name.empty() && a.host_name != b.host_name)
        diff.notes.emplace_back("the pictures are from machines of different names");
    if (diff.before.lens != diff.after.lens)
        diff.notes.push_back(fmt::format("looked at with different lenses, {} and {}: what only "
                                         "one of them sees may look like a change",
                                         escape_text(diff.before.lens),
                                         escape_text(diff.after.lens)));
}

void explain_where(ProcessDiff& diff, const Filter& where) {
    if (!where.always())
        diff.notes.emplace_back("only pages that match --where in one picture or both; figures "
                                "are of those that match in the picture");
}

void explain_contents(ProcessDiff& diff) {
    const auto gap = [&](std::string reason) {
        diff.gaps.push_back({"contents", std::nullopt, std::move(reason),
                             "record --zero all, before and after", false});
    };
    const bool before = diff.contents_known(Picture::before);
    const bool after = diff.contents_known(Picture::after);
    if (!before && !after)
        gap("not all contents were read in either picture, so the fate of zero-filled pages is not "
            "known");
    else if (!before)
        gap("not all contents were read in the first picture, so the fate of zero-filled pages is "
            "not known");
    else if (!after)
        gap("not all contents were read in the second picture, so pages that stayed zero-filled "
            "cannot be told from those that were written");
    else if (diff.zero_filled.unread_pages != 0 || diff.zero_filled.of(Fate::contents_unread) != 0)
        diff.gaps.push_back({"contents", std::nullopt,
                             "some pages could not be read, or changed while they were read: they "
                             "count as not read",
                             "", false});
}

} // namespace

ProcessDiff compare(Source& before, Source& after, const DiffOptions& options) {
    check_page_sizes(before.host(), after.host());
    const std::uint64_t page_size = after.host().page_size;
    ProcessDiff diff;
    diff.match = options.match;
    RunStream stream{before, look_options(options, options.want_before)};
    LookOptions look = look_options(options, options.want_after);
    std::optional<Follower> follower;
    std::vector<Mapping> mappings;
    look.on_mappings = [&](const ProcessText& process, std::span<const Mapping> found) {
        mappings.assign(found.begin(), found.end());
        diff.executed = executed_between(stream.process(), process);
        const bool same_memory = options.match != Match::replaced && !diff.executed;
        if (options.on_begin) options.on_begin(stream.process(), process);
        follower.emplace(stream, mappings, options, same_memory);
    };
    look.on_run = [&](const Run& run) { follower->add(run); };
    diff.after = pagesift::look(after, look);
    follower->finish();
    follower->give(diff, page_size);
    diff.before = stream.finish();
    explain_processes(diff);
    explain_where(diff, options.where);
    explain_contents(diff);
    return diff;
}

} // namespace pagesift
