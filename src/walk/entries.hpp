// SPDX-License-Identifier: MIT
// What all architectures' entry formats share.
#pragma once

#include "pagesift/walk.hpp"

namespace pagesift::walk {

/// @p entry in the words of pagemap, see EntryFormat::to_pagemap.
std::uint64_t pagemap_word(const Entry& entry);

} // namespace pagesift::walk
