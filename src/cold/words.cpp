// SPDX-License-Identifier: MIT
#include "pagesift/cold.hpp"

namespace pagesift::cold {
namespace {

constexpr std::array<Word, activity_count> activities{{
    {"idle", "idle", "not accessed in the last round, nor perhaps before"},
    {"accessed", "accessed", "accessed in the last round"},
    {"unknown", "unknown", "evidence of the last round may have been lost"},
}};

constexpr std::array<Word, 3> grains{{
    {"page", "page", "the answer is the page's own"},
    {"huge", "huge", "one answer for all pages of a huge entry"},
    {"mapping", "mapping", "one answer for all pages of a mapping"},
}};

} // namespace

std::span<const Word, activity_count> activity_table() { return activities; }
std::span<const Word, 3> grain_table() { return grains; }

} // namespace pagesift::cold
