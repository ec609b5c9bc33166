// SPDX-License-Identifier: MIT
#include "pagesift/diff.hpp"

#include <algorithm>
#include <numeric>

namespace pagesift {
namespace {

bool same_program(const ProcessText& a, const ProcessText& b) {
    return a.pid == b.pid && a.comm == b.comm && a.exe == b.exe;
}

/// The name without what the kernel adds once the file is deleted.
std::string_view own_name(std::string_view name) {
    static constexpr std::string_view deleted = " (deleted)";
    if (name.ends_with(deleted)) name.remove_suffix(deleted.size());
    return name;
}

bool same_object(const Mapping& a, const Mapping& b) {
    return own_name(a.name) == own_name(b.name) && a.backing == b.backing && a.shared == b.shared &&
           a.inode == b.inode && a.device == b.device;
}

/// The same thing at the same addresses: of a file, also the same part of it at each address.
bool continues(const Mapping& a, const Mapping& b) {
    return same_object(a, b) &&
           (a.inode == 0 || a.offset - a.range.start.value == b.offset - b.range.start.value);
}

bool moved_to(const Mapping& a, const Mapping& b) {
    return !a.name.empty() && same_object(a, b) && a.range.size() == b.range.size() &&
           a.offset == b.offset && a.permissions() == b.permissions();
}

/// Sets that grow together: each mapping of both sides begins as one of its own.
class Sets {
public:
    explicit Sets(std::size_t count) : parent_(count) {
        std::iota(parent_.begin(), parent_.end(), std::size_t{0});
    }
    std::size_t find(std::size_t i) {
        while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
        return i;
    }
    void join(std::size_t a, std::size_t b) { parent_[find(a)] = find(b); }

private:
    std::vector<std::size_t> parent_;
};

MappingChange change_of(const MappingPair& pair, std::span<const Mapping> before,
                        std::span<const Mapping> after) {
    if (pair.before.empty()) return MappingChange::added;
    if (pair.after.empty()) return MappingChange::gone;
    if (pair.after.size() > pair.before.size()) return MappingChange::split;
    if (pair.before.size() > 1 && pair.before.size() > pair.after.size())
        return MappingChange::merged;
    std::uint64_t old_bytes = 0, new_bytes = 0;
    bool same = true;
    for (std::size_t i = 0; i < pair.before.size(); ++i) {
        const AddressRange a = before[pair.before[i]].range, b = after[pair.after[i]].range;
        old_bytes += a.size().value;
        new_bytes += b.size().value;
        same = same && a == b;
    }
    if (same) return MappingChange::same;
    return new_bytes > old_bytes   ? MappingChange::grown
           : new_bytes < old_bytes ? MappingChange::shrunk
                                   : MappingChange::moved;
}

Address start_of(const MappingPair& pair, std::span<const Mapping> before,
                 std::span<const Mapping> after) {
    return pair.after.empty() ? before[pair.before[0]].range.start
                              : after[pair.after[0]].range.start;
}

/// Pairs what is gone with what is new where it is the same thing elsewhere; first come.
void pair_moved(std::vector<MappingPair>& pairs, std::span<const Mapping> before,
                std::span<const Mapping> after) {
    std::vector<MappingPair*> added;
    for (MappingPair& pair : pairs)
        if (pair.change == MappingChange::added && !after[pair.after[0]].name.empty())
            added.push_back(&pair);
    // By name, so that many mappings do not have to be compared with many.
    const auto name = [&](const MappingPair* p) { return own_name(after[p->after[0]].name); };
    std::stable_sort(added.begin(), added.end(),
                     [&](auto* a, auto* b) { return name(a) < name(b); });
    for (MappingPair& gone : pairs) {
        if (gone.change != MappingChange::gone) continue;
        const Mapping& old = before[gone.before[0]];
        const auto first = std::partition_point(
            added.begin(), added.end(), [&](auto* p) { return name(p) < own_name(old.name); });
        for (auto at = first; at != added.end() && name(*at) == own_name(old.name); ++at) {
            if ((*at)->change != MappingChange::added) continue;
            if (!moved_to(old, after[(*at)->after[0]])) continue;
            (*at)->change = MappingChange::moved;
            (*at)->before = std::move(gone.before);
            gone.before.clear();
            break;
        }
    }
    std::erase_if(pairs, [](const MappingPair& p) { return p.before.empty() && p.after.empty(); });
}

} // namespace

std::vector<MappingPair> pair_mappings(std::span<const Mapping> before,
                                       std::span<const Mapping> after, bool same_memory) {
    Sets sets{before.size() + after.size()};
    std::vector<std::uint64_t> common(before.size());
    for (std::size_t i = 0, j = 0; same_memory && i < before.size() && j < after.size();) {
        const AddressRange shared = before[i].range.intersect(after[j].range);
        if (!shared.empty() && continues(before[i], after[j])) {
            sets.join(i, before.size() + j);
            common[i] += shared.size().value;
        }
        before[i].range.end <= after[j].range.end ? ++i : ++j;
    }
    std::vector<MappingPair> pairs;
    std::vector<std::size_t> place(before.size() + after.size(), ~std::size_t{0});
    const auto pair_with = [&](std::size_t member) -> MappingPair& {
        std::size_t& at = place[sets.find(member)];
        if (at == ~std::size_t{0}) {
            at = pairs.size();
            pairs.emplace_back();
        }
        return pairs[at];
    };
    for (std::size_t i = 0; i < before.size(); ++i) {
        MappingPair& pair = pair_with(i);
        pair.before.push_back(i);
        pair.common_bytes += common[i];
    }
    for (std::size_t j = 0; j < after.size(); ++j) pair_with(before.size() + j).after.push_back(j);
    for (MappingPair& pair : pairs) pair.change = change_of(pair, before, after);
    if (same_memory) pair_moved(pairs, before, after);
    std::stable_sort(pairs.begin(), pairs.end(), [&](const auto& a, const auto& b) {
        return start_of(a, before, after) < start_of(b, before, after);
    });
    return pairs;
}

Pairing pair_processes(std::span<const ProcessText> before, std::span<const ProcessText> after) {
    Pairing result;
    std::vector<bool> taken(after.size());
    std::vector<std::optional<ProcessPair>> found(before.size());
    const auto pair_all = [&](auto&& fits) {
        for (std::size_t i = 0; i < before.size(); ++i) {
            for (std::size_t j = 0; j < after.size() && !found[i]; ++j) {
                if (taken[j]) continue;
                const std::optional<Match> match = fits(before[i], after[j]);
                if (!match) continue;
                found[i] = ProcessPair{i, j, *match};
                taken[j] = true;
            }
        }
    };
    pair_all([](const ProcessText& a, const ProcessText& b) -> std::optional<Match> {
        const bool same = a.pid == b.pid && a.start_time() != 0 && a.start_time() == b.start_time();
        return same ? std::optional{Match::same} : std::nullopt;
    });
    pair_all([](const ProcessText& a, const ProcessText& b) -> std::optional<Match> {
        if (!same_program(a, b)) return {};
        const bool known = a.start_time() != 0 && b.start_time() != 0;
        return known ? Match::replaced : Match::assumed;
    });
    for (std::size_t i = 0; i < before.size(); ++i) {
        if (found[i])
            result.pairs.push_back(*found[i]);
        else
            result.only_before.push_back(i);
    }
    for (std::size_t j = 0; j < after.size(); ++j)
        if (!taken[j]) result.only_after.push_back(j);
    return result;
}

bool executed_between(const ProcessText& before, const ProcessText& after) {
    const std::string_view a = own_name(before.exe), b = own_name(after.exe);
    if (!a.empty() && !b.empty() && a != b) return true;
    const auto old_stack = procfs::parse_stack_start(before.stat);
    const auto new_stack = procfs::parse_stack_start(after.stat);
    return old_stack && new_stack && *old_stack != *new_stack;
}

} // namespace pagesift
