// SPDX-License-Identifier: MIT
#include "pagesift/diff.hpp"

namespace pagesift {
namespace {

constexpr std::array<Word, fate_count> fates{{
    {"zero-filled", "zero_filled", "present, and every byte is zero"},
    {"other-content", "other_content", "present, and holds something other than zeroes"},
    {"contents-unread", "contents_unread", "present, but its contents were not read"},
    {"zero-page", "zero_page", "the shared zero page stands in its place"},
    {"merged", "merged", "merged by KSM"},
    {"swapped", "swapped", "in swap"},
    {"cached", "cached", "no longer mapped, but in the page cache"},
    {"freed", "freed", "nothing there any more, in the same mapping"},
    {"unmapped", "unmapped", "the mapping is gone, or another one is in its place"},
    {"other", "other", "a marker, a migration entry or a frame without struct page"},
    {"unknown", "unknown", "the second picture does not tell"},
}};

constexpr std::array<Word, mapping_change_count> changes{{
    {"same", "same", "has the addresses it had"},
    {"grown", "grown", "is larger, and shares addresses with what it was"},
    {"shrunk", "shrunk", "is smaller, and shares addresses with what it was"},
    {"moved", "moved", "has its size but other addresses"},
    {"split", "split", "became several mappings"},
    {"merged", "merged", "several mappings became fewer"},
    {"new", "new", "was not there"},
    {"gone", "gone", "is not there any more"},
}};

} // namespace

std::span<const Word, fate_count> fate_table() { return fates; }
std::span<const Word, mapping_change_count> mapping_change_table() { return changes; }

bool takes_in_others(Kind kind) {
    switch (kind) {
    case Kind::ksm:
    case Kind::ksm_sole:
    case Kind::thp:
    case Kind::hugetlb:
    case Kind::anon:
    case Kind::file:
    case Kind::shmem:
    case Kind::unknown: return true;
    case Kind::zero_page:
    case Kind::zero_filled:
    case Kind::ksm_zero:
    case Kind::special:
    case Kind::not_present: break;
    }
    return false;
}

Fate fate_of(const Sighting& now, bool contents_read) {
    if (!now.mapped) return Fate::unmapped;
    switch (now.state) {
    case State::none:
    case State::uncached: return Fate::freed;
    case State::cached: return Fate::cached;
    case State::swapped:
    case State::shmem_swapped: return Fate::swapped;
    case State::marker:
    case State::migrating: return Fate::other;
    case State::unknown: return Fate::unknown;
    case State::present: break;
    }
    switch (now.kind) {
    case Kind::zero_page: return Fate::zero_page;
    case Kind::zero_filled: return Fate::zero_filled;
    case Kind::ksm:
    case Kind::ksm_sole:
    case Kind::ksm_zero: return Fate::merged;
    case Kind::thp:
    case Kind::hugetlb:
    case Kind::anon:
    case Kind::file:
    case Kind::shmem: return contents_read ? Fate::other_content : Fate::contents_unread;
    case Kind::special: return Fate::other;
    case Kind::unknown:
    case Kind::not_present: break;
    }
    return Fate::unknown;
}

} // namespace pagesift
