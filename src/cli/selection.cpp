// SPDX-License-Identifier: MIT
#include "cli/selection.hpp"

namespace pagesift::cli {
namespace {

std::vector<std::uint32_t> parse_pids(const std::vector<std::string>& texts,
                                      std::string_view option, const Environment& environment) {
    std::vector<std::uint32_t> pids;
    for (const std::string& text : texts) {
        const auto pid = text == "self" ? std::optional{environment.own_pid} : parse_pid(text);
        if (!pid)
            throw Error{ErrorKind::usage, std::string{option}, 0, "",
                        "'" + escape_text(text) + "' is not a process id"};
        pids.push_back(*pid);
    }
    return pids;
}

/// As /proc/PID/cgroup has it; a path below the usual mount point of cgroup2 is meant so too.
std::string parse_cgroup(std::string path) {
    static constexpr std::string_view mount_point = "/sys/fs/cgroup";
    if (path.starts_with(mount_point) &&
        (path.size() == mount_point.size() || path[mount_point.size()] == '/'))
        path.erase(0, mount_point.size());
    while (path.ends_with('/')) path.pop_back();
    if (!path.starts_with('/')) path.insert(0, "/");
    return path;
}

scan::Identity to_identity(os::ProcessEntry&& entry) {
    scan::Identity identity;
    identity.pid = entry.pid;
    identity.parent = entry.parent;
    identity.start_time = entry.start_time;
    identity.uid = entry.uid;
    identity.user = std::move(entry.user);
    identity.comm = std::move(entry.comm);
    identity.exe = std::move(entry.exe);
    identity.cgroup = std::move(entry.cgroup);
    identity.rss_bytes = entry.rss_bytes;
    return identity;
}

} // namespace

scan::Selection parse_selection(const Options& options, const Environment& environment,
                                const os::OpenOptions& open) {
    const SelectorArguments& given = options.select;
    scan::Selection selection;
    selection.pids = parse_pids(options.pids, "--pid", environment);
    selection.comms = given.comms;
    selection.exes = given.exes;
    selection.children_of = parse_pids(given.children_of, "--children-of", environment);
    for (const std::string& path : given.cgroups) selection.cgroups.push_back(parse_cgroup(path));
    for (const std::string& name : given.users) {
        const auto uid = os::find_user(name, open);
        if (!uid)
            throw Error{ErrorKind::usage, "--user", 0, "",
                        "there is no user '" + escape_text(name) + "'"};
        selection.uids.push_back(*uid);
    }
    if (!given.min_rss.empty()) selection.min_rss_bytes = parse_size(given.min_rss, "--min-rss");
    return selection;
}

bool has_selectors(const Options& options) {
    const SelectorArguments& given = options.select;
    return !given.comms.empty() || !given.exes.empty() || !given.users.empty() ||
           !given.cgroups.empty() || !given.children_of.empty() || !given.min_rss.empty();
}

std::vector<scan::Identity> list_everyone(const os::OpenOptions& open, os::ListWant want) {
    std::vector<scan::Identity> everyone;
    auto entries = os::list_processes(open, want);
    everyone.reserve(entries.size());
    for (auto& entry : entries) everyone.push_back(to_identity(std::move(entry)));
    return everyone;
}

} // namespace pagesift::cli
