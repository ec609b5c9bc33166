// SPDX-License-Identifier: MIT
#include "advice/folios.hpp"
#include "made_up_actuator.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::advice;
using pagesift::test::page;

namespace {

constexpr std::uint64_t base = 0x10000000;

/// Of folios of four pages.
Stretch stretch(std::uint64_t first_page, std::uint64_t pages, std::uint64_t first_frame) {
    Stretch result;
    result.range = {Address{base + first_page * page}, Address{base + (first_page + pages) * page}};
    result.folio_pages = 4;
    result.folio_page = first_frame % 4;
    result.first_frame = first_frame;
    result.last_frame = first_frame + pages - 1;
    return result;
}

struct Rig {
    std::uint64_t whole = 0, split = 0; ///< pages
    FolioGate gate{page, [this](const Stretch& one) { whole += one.range.size().value / page; },
                   [this](const Stretch& one) { split += one.range.size().value / page; }};
};

} // namespace

TEST_CASE("folios: parts that lie side by side are one whole") {
    Rig rig;
    rig.gate.add(stretch(0, 6, 100));
    rig.gate.add(stretch(6, 2, 106));
    CHECK(rig.whole == 8);
    rig.gate.flush();
    CHECK(rig.split == 0);
}

TEST_CASE("folios: nothing is lost where a folio begins before the last one is whole") {
    for (const auto joint : {FolioGate::Joint::by_frames, FolioGate::Joint::same_stretch}) {
        Rig rig;
        rig.gate.add(stretch(0, 2, 100));
        rig.gate.add(stretch(2, 4, 200), joint);
        rig.gate.flush();
        CHECK(rig.whole == 4);
        CHECK(rig.split == 2);
    }
}

TEST_CASE("folios: a hole, or another folio, ends the one that has begun") {
    for (const Stretch& next : {stretch(3, 2, 102), stretch(2, 2, 202)}) {
        Rig rig;
        rig.gate.add(stretch(0, 2, 100));
        rig.gate.add(next);
        rig.gate.flush();
        CHECK(rig.whole == 0);
        CHECK(rig.split == 4);
    }
}
