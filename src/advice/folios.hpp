// SPDX-License-Identifier: MIT
// Lets whole large folios through and holds back parts of them: the kernel splits a folio to act on
// a part.
#pragma once

#include "pagesift/advice.hpp"

#include <functional>
#include <vector>

namespace pagesift::advice {

/// Pages @p first to @p first + @p pages of a stretch. Frames are known only where they follow from
/// those at its ends.
Stretch part_of(const Stretch& stretch, std::uint64_t first, std::uint64_t pages,
                std::uint64_t page_size);

class FolioGate {
public:
    /// @p whole gets stretches of small pages and of whole folios; @p split what is part of one.
    /// Both in address order, each for itself.
    FolioGate(std::uint64_t page_size, std::function<void(const Stretch&)> whole,
              std::function<void(const Stretch&)> split)
        : page_size_(page_size), whole_(std::move(whole)), split_(std::move(split)) {}

    /// Whether it belongs to the folio before it, when that is not whole yet.
    enum class Joint { by_frames, same_stretch };
    void add(const Stretch& stretch, Joint joint = Joint::by_frames);
    /// What comes next is not chosen, or lies elsewhere.
    void flush();

private:
    bool goes_on(const Stretch& stretch, Joint joint) const;

    std::uint64_t page_size_;
    std::function<void(const Stretch&)> whole_, split_;
    std::vector<Stretch> begun_; ///< parts of one folio, from its first page on
    std::uint64_t begun_pages_ = 0;
};

} // namespace pagesift::advice
