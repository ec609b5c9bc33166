// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

#include <algorithm>

namespace pagesift::scan {
namespace {

/// Who comes first where the key decides nothing, so that the order is always the same.
bool comes_before(const Record& a, const Record& b) {
    static const std::size_t places[] = {*find_field("pid"), *find_field("start_time_ticks"),
                                         *find_field("start"), *find_field("cgroup"),
                                         *find_field("comm")};
    for (const std::size_t place : places)
        if (a.values[place] != b.values[place]) return a.values[place] < b.values[place];
    return false;
}

} // namespace

SortKey SortKey::parse(std::string_view text) {
    SortKey key;
    key.reversed = text.starts_with('-');
    const auto name = key.reversed ? text.substr(1) : text;
    const auto field = find_field(name);
    if (!field)
        throw Error{ErrorKind::usage, "--sort", 0, "the fields are listed in pagesift-scan(1)",
                    "there is no field '" + escape_text(name) + "'"};
    key.field = *field;
    return key;
}

bool SortKey::before(const Record& a, const Record& b) const {
    const Value& left = a.values[field];
    const Value& right = b.values[field];
    if (is_known(left) != is_known(right)) return is_known(left);
    if (left == right) return comes_before(a, b);
    const bool rises = std::holds_alternative<std::string>(left) != reversed;
    return rises ? left < right : right < left;
}

void Ranking::add(Record record) {
    const auto before = [&](const Record& a, const Record& b) { return key_.before(a, b); };
    if (most_ == 0) {
        records_.push_back(std::move(record));
        return;
    }
    // A heap whose top is the last of those kept.
    if (records_.size() == most_) {
        ++left_out_;
        if (!before(record, records_.front())) return;
        std::pop_heap(records_.begin(), records_.end(), before);
        records_.pop_back();
    }
    records_.push_back(std::move(record));
    std::push_heap(records_.begin(), records_.end(), before);
}

std::vector<Record> Ranking::take() {
    std::sort(records_.begin(), records_.end(),
              [&](const Record& a, const Record& b) { return key_.before(a, b); });
    return std::exchange(records_, {});
}

} // namespace pagesift::scan
