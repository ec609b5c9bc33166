// SPDX-License-Identifier: MIT
// The program that makes remote calls is killed in the middle of them. PAGESIFT_TORTURE_SECONDS
// makes it last longer (./dev torture).
#include "harness.hpp"
#include "torture/remote_tests.hpp"
#include "torture/torture.hpp"

#include <doctest/doctest.h>

namespace pagesift::live {

TEST_CASE("remote call: its victim notices nothing when it is killed at any step or time") {
    if (!can_call()) return;
    const auto toll = torture(torture_seconds(8), ToolPlan::Way::product, VictimKind::full, 4711);
    MESSAGE(toll.text());
    CHECK_MESSAGE(toll.harmless(), toll.text());
    CHECK(toll.killed > 0);
    CHECK(toll.done > 0);
}

TEST_CASE("remote call: no write is lost to a call that comes late") {
    if (!can_call()) return;
    const auto toll = torture(torture_seconds(4), ToolPlan::Way::product, VictimKind::racing, 4712);
    MESSAGE(toll.text());
    CHECK_MESSAGE(toll.harmless(), toll.text());
    CHECK(toll.killed > 0);
}

TEST_CASE("remote call: a victim under seccomp notices nothing either") {
    if (!can_call()) return;
    const auto toll =
        torture(torture_seconds(4) / 2, ToolPlan::Way::product, VictimKind::filtered, 4714);
    MESSAGE(toll.text());
    CHECK_MESSAGE(toll.harmless(), toll.text());
    CHECK(toll.killed > 0);
    CHECK(toll.done > 0);
}

TEST_CASE("remote call: the torture notices a call that is not safe") {
    if (!can_call()) return;
    Toll toll;
    for (std::uint64_t round = 0; round < 10 && toll.harmless(); ++round)
        toll = torture(2, ToolPlan::Way::naive, VictimKind::full, 4713 + round);
    MESSAGE(toll.text());
    CHECK_FALSE(toll.harmless());
}

} // namespace pagesift::live
