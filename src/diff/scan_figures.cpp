// SPDX-License-Identifier: MIT
#include "pagesift/scan_diff.hpp"

#include "pagesift/diff.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace pagesift {
namespace {

using scan::Record;
using scan::Unit;

/// More than any machine has: what a damaged history says must not overflow a sum.
constexpr std::uint64_t most = std::uint64_t{1} << 61;

/// Bounds of samples, whose difference bounds nothing, and what is about the look alone.
constexpr std::array<std::string_view, 3> left_out{"zero_filled_low_bytes",
                                                   "zero_filled_high_bytes", "unknown_processes"};

std::size_t field_of(std::string_view word, std::string_view taken, std::string_view instead) {
    return *scan::find_field(fmt::format("{}_bytes", word == taken ? instead : word));
}

/// What stands behind a field: it decides what makes two values comparable.
enum class Sort : std::uint8_t { plain, always, state, kind, broad_kind };

struct Compared {
    std::vector<std::size_t> fields;
    std::vector<Sort> sorts; ///< one a field
    std::size_t unknown_state = 0, unknown_processes = 0;
};

Sort sort_of(std::size_t field) {
    if (scan::fields()[field].name == "processes") return Sort::always;
    for (const Word& word : state_table()) {
        // Present is what smaps counts too, and unknown is what it says.
        if (word.field == "present" || word.field == "unknown" || word.field.empty()) continue;
        if (field_of(word.field, "unknown", "unknown_state") == field) return Sort::state;
    }
    for (std::size_t i = 0; i < kind_count; ++i) {
        const Word& word = kind_table()[i];
        if (word.field.empty() || field_of(word.field, "unknown", "unknown_kind") != field)
            continue;
        return takes_in_others(static_cast<Kind>(i)) ? Sort::broad_kind : Sort::kind;
    }
    return Sort::plain;
}

const Compared& compared() {
    static const Compared all = [] {
        Compared c;
        for (std::size_t i = 0; i < scan::fields().size(); ++i) {
            const scan::Field& field = scan::fields()[i];
            if (!field.additive || field.unit == Unit::seconds) continue;
            if (std::find(left_out.begin(), left_out.end(), field.name) != left_out.end()) continue;
            c.fields.push_back(i);
            c.sorts.push_back(sort_of(i));
        }
        c.unknown_state = *scan::find_field("unknown_state_bytes");
        c.unknown_processes = *scan::find_field("unknown_processes");
        return c;
    }();
    return all;
}

std::optional<std::uint64_t> number_at(const Record& record, std::size_t field) {
    if (field >= record.values.size()) return {};
    const auto* number = std::get_if<std::uint64_t>(&record.values[field]);
    return number != nullptr && *number < most ? std::optional{*number} : std::nullopt;
}

/// Neither cut off, nor a sum that lacks something.
bool is_complete(const Record& record) {
    const auto* complete = std::get_if<bool>(&record.at("complete"));
    const bool whole = complete == nullptr || *complete;
    return whole && number_at(record, compared().unknown_processes).value_or(0) == 0;
}

bool states_known(const Record& record) {
    return number_at(record, compared().unknown_state).value_or(0) == 0;
}

/// Which record tells kinds apart that the other one counts elsewhere.
struct Kinds {
    bool less_before = false, less_after = false;

    explicit Kinds(const std::vector<FieldChange>& changes) {
        for (std::size_t i = 0; i < changes.size(); ++i) {
            if (compared().sorts[i] != Sort::kind && compared().sorts[i] != Sort::broad_kind)
                continue;
            less_before |= !changes[i].before && changes[i].after;
            less_after |= changes[i].before && !changes[i].after;
        }
    }
    bool comparable(const FieldChange& change) const {
        return (!less_before || change.before == 0u) && (!less_after || change.after == 0u);
    }
};

std::int64_t memory_of(const Record& record) {
    std::uint64_t sum = 0;
    for (const char* name : {"rss_bytes", "swap_bytes"})
        sum += number_at(record, *scan::find_field(name)).value_or(0);
    return static_cast<std::int64_t>(sum);
}

} // namespace

std::span<const std::size_t> compared_fields() { return compared().fields; }

std::vector<FieldChange> field_changes(const Record& before, const Record& after) {
    std::vector<FieldChange> changes;
    for (const std::size_t field : compared().fields)
        changes.push_back({field, number_at(before, field), number_at(after, field), true});
    const Kinds kinds{changes};
    const bool complete = is_complete(before) && is_complete(after);
    const bool states = states_known(before) && states_known(after);
    for (std::size_t i = 0; i < changes.size(); ++i) {
        const Sort sort = compared().sorts[i];
        if (sort == Sort::always) continue;
        changes[i].comparable = complete && (sort != Sort::state || states) &&
                                (sort != Sort::broad_kind || kinds.comparable(changes[i]));
    }
    return changes;
}

std::vector<FieldChange> RecordPair::changes() const {
    static const Record nothing;
    return field_changes(before ? *before : nothing, after ? *after : nothing);
}

std::optional<std::int64_t> RecordPair::memory_change() const {
    if (!before || !after || !is_complete(*before) || !is_complete(*after)) return {};
    for (const char* name : {"rss_bytes", "swap_bytes"}) {
        const std::size_t field = *scan::find_field(name);
        if (!number_at(*before, field) || !number_at(*after, field)) return {};
    }
    return memory_of(*after) - memory_of(*before);
}

std::int64_t RecordPair::memory() const { return memory_of(newest()); }

} // namespace pagesift
