// SPDX-License-Identifier: MIT
#include "advice/folios.hpp"

#include <algorithm>

namespace pagesift::advice {

Stretch part_of(const Stretch& stretch, std::uint64_t first, std::uint64_t pages,
                std::uint64_t page_size) {
    Stretch result = stretch;
    result.range.start = stretch.range.start + Bytes{first * page_size};
    result.range.end = result.range.start + Bytes{pages * page_size};
    const std::uint64_t folio = stretch.folio_pages.value_or(1);
    if (folio == 1) return result;
    result.folio_page = (stretch.folio_page + first) % folio;
    const std::uint64_t all = stretch.range.size().value / page_size;
    const bool in_first = stretch.folio_page + first + pages <= folio;
    const bool in_last = pages <= folio && first + pages == all;
    if (first > 0)
        result.first_frame = in_last    ? stretch.last_frame + 1 - pages
                             : in_first ? stretch.first_frame + first
                                        : 0;
    if (first + pages < all)
        result.last_frame = in_first ? stretch.first_frame + first + pages - 1 : 0;
    return result;
}

void FolioGate::flush() {
    for (const Stretch& stretch : begun_) split_(stretch);
    begun_.clear();
    begun_pages_ = 0;
}

bool FolioGate::goes_on(const Stretch& stretch, Joint joint) const {
    return !begun_.empty() && begun_.back().folio_pages == stretch.folio_pages &&
           begun_.back().range.end == stretch.range.start && begun_pages_ == stretch.folio_page &&
           (joint == Joint::same_stretch || begun_.back().last_frame + 1 == stretch.first_frame);
}

void FolioGate::add(const Stretch& stretch, Joint joint) {
    // Of a folio of unknown size a part may be all there is to see.
    if (!stretch.folio_pages) {
        flush();
        return split_(stretch);
    }
    if (*stretch.folio_pages == 1) {
        flush();
        return whole_(stretch);
    }
    const std::uint64_t folio = *stretch.folio_pages;
    const std::uint64_t pages = stretch.range.size().value / page_size_;
    std::uint64_t at = 0;
    if (stretch.folio_page != 0 || !begun_.empty()) {
        const bool joined = goes_on(stretch, joint);
        if (!joined) flush();
        if (stretch.folio_page != 0) at = std::min(pages, folio - stretch.folio_page);
        if (joined) {
            begun_.push_back(part_of(stretch, 0, at, page_size_));
            begun_pages_ += at;
            if (begun_pages_ < folio) return;
            for (const Stretch& one : begun_) whole_(one);
            begun_.clear();
            begun_pages_ = 0;
        } else if (at > 0) {
            split_(part_of(stretch, 0, at, page_size_));
        }
    }
    const std::uint64_t whole = (pages - at) / folio * folio;
    if (whole > 0) whole_(part_of(stretch, at, whole, page_size_));
    const std::uint64_t rest = pages - at - whole;
    if (rest == 0) return;
    begun_.push_back(part_of(stretch, at + whole, rest, page_size_));
    begun_pages_ = rest;
}

} // namespace pagesift::advice
