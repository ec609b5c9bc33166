// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <algorithm>
#include <fnmatch.h>
#include <set>
#include <tuple>

namespace pagesift::scan {
namespace {

template <class T> bool contains(const std::vector<T>& wanted, const T& value) {
    return std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

bool matches(const std::string& glob, const std::string& text) {
    return ::fnmatch(glob.c_str(), text.c_str(), 0) == 0;
}

/// A name that is not known matches nothing, not even "*".
bool exe_matches(const std::vector<std::string>& globs, std::string exe) {
    if (exe.empty()) return false;
    static constexpr std::string_view deleted = " (deleted)";
    const auto whole = exe;
    if (exe.ends_with(deleted)) exe.resize(exe.size() - deleted.size());
    const auto last = exe.substr(exe.rfind('/') + 1);
    return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) {
        return matches(glob, whole) || matches(glob, exe) || matches(glob, last);
    });
}

bool is_in_cgroup(std::string_view path, std::string_view of) {
    if (path.empty()) return false;
    while (path.starts_with('/')) path.remove_prefix(1);
    while (of.starts_with('/')) of.remove_prefix(1);
    while (of.ends_with('/')) of.remove_suffix(1);
    if (of.empty()) return true;
    return path.starts_with(of) && (path.size() == of.size() || path[of.size()] == '/');
}

bool holds(const Selection& s, const Identity& one) {
    const auto any = [](const auto& values, auto&& test) {
        return values.empty() || std::any_of(values.begin(), values.end(), test);
    };
    return (s.pids.empty() || contains(s.pids, one.pid)) &&
           any(s.comms, [&](const auto& glob) { return matches(glob, one.comm); }) &&
           (s.exes.empty() || exe_matches(s.exes, one.exe)) &&
           (s.uids.empty() || (one.uid && contains(s.uids, *one.uid))) &&
           any(s.cgroups, [&](const auto& path) { return is_in_cgroup(one.cgroup, path); }) &&
           (s.min_rss_bytes == 0 || one.rss_bytes.value_or(0) >= s.min_rss_bytes);
}

/// Places of the descendants of @p root. The list was not read in one moment: a parent's pid may
/// have gone to a younger process, which then is nobody's parent here, and parents may even form
/// a circle.
void add_descendants(const std::vector<Identity>& everyone,
                     const std::multimap<std::uint32_t, std::size_t>& by_parent, std::uint32_t root,
                     std::set<std::size_t>& found) {
    std::set<std::size_t> seen;
    std::vector<std::size_t> next;
    const auto add_children = [&](std::uint32_t pid, std::uint64_t born) {
        const auto [first, last] = by_parent.equal_range(pid);
        for (auto child = first; child != last; ++child) {
            const Identity& one = everyone[child->second];
            if (one.pid == root || one.start_time < born) continue;
            if (seen.insert(child->second).second) next.push_back(child->second);
        }
    };
    // Of a root that is listed twice the older one is meant: its children are a superset.
    std::uint64_t born = ~std::uint64_t{0};
    for (const Identity& one : everyone)
        if (one.pid == root) born = std::min(born, one.start_time);
    add_children(root, born == ~std::uint64_t{0} ? 0 : born);
    while (!next.empty()) {
        const Identity& one = everyone[next.back()];
        next.pop_back();
        add_children(one.pid, one.start_time);
    }
    found.insert(seen.begin(), seen.end());
}

std::vector<Identity> descendants(const std::vector<Identity>& everyone,
                                  const std::vector<std::uint32_t>& roots) {
    std::multimap<std::uint32_t, std::size_t> by_parent;
    for (std::size_t i = 0; i < everyone.size(); ++i) by_parent.emplace(everyone[i].parent, i);
    std::set<std::size_t> found;
    for (const std::uint32_t root : roots) add_descendants(everyone, by_parent, root, found);
    std::vector<Identity> result;
    result.reserve(found.size());
    for (const std::size_t i : found) result.push_back(everyone[i]);
    return result;
}

} // namespace

std::vector<Identity> select(std::vector<Identity> everyone, const Selection& selection) {
    if (!selection.children_of.empty()) everyone = descendants(everyone, selection.children_of);
    std::erase_if(everyone, [&](const Identity& one) { return !holds(selection, one); });
    const auto name = [](const Identity& one) { return std::tuple{one.pid, one.start_time}; };
    std::sort(everyone.begin(), everyone.end(),
              [&](const Identity& a, const Identity& b) { return name(a) < name(b); });
    everyone.erase(
        std::unique(everyone.begin(), everyone.end(),
                    [&](const Identity& a, const Identity& b) { return name(a) == name(b); }),
        everyone.end());
    return everyone;
}

} // namespace pagesift::scan
