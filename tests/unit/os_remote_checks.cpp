// SPDX-License-Identifier: MIT
// What /proc says of a thread that a call is to be made in.
#include "os/remote_checks.hpp"
#include "os_fake_root.hpp"

#include <doctest/doctest.h>

using namespace pagesift::os;
using pagesift::test::FakeRoot;

namespace {

void write_thread(FakeRoot& fake, char state, unsigned flags, const char* pending) {
    const std::string folder = "proc/70/task/70/";
    fake.write(folder + "stat", std::string{"70 (a) "} + state + " 1 1 1 0 -1 " +
                                    std::to_string(flags) +
                                    " 1 0 0 0 0 0 0 0 20 0 1 0 777 4096 1 1\n");
    fake.write(folder + "status", "Name:\ta\nSigQ:\t0/95\nSigPnd:\t" + std::string{pending} +
                                      "\nShdPnd:\t0000000000000100\n");
}

} // namespace

TEST_CASE("remote checks: who has been killed is ending, long before he has ended") {
    FakeRoot fake;
    const Root root{fake.path()};
    static constexpr unsigned exiting = 0x4, randomized = 0x400000;
    struct Case {
        char state;
        unsigned flags;
        const char* pending;
        bool ending, ended;
    };
    for (const Case& one : {Case{'S', randomized, "0000000000000000", false, false},
                            Case{'R', randomized, "0000000000004000", false, false}, // SIGTERM
                            Case{'R', randomized, "0000000000000100", true, false},  // SIGKILL
                            Case{'R', randomized | exiting, "0000000000000000", true, false},
                            Case{'Z', randomized | exiting, "0000000000000000", true, true},
                            Case{'X', randomized | exiting, "0000000000000000", true, true}}) {
        write_thread(fake, one.state, one.flags, one.pending);
        CAPTURE(one.state);
        CAPTURE(one.pending);
        CHECK(is_ending(root, 70) == one.ending);
        CHECK(has_ended(root, 70) == one.ended);
    }
    CHECK(is_ending(root, 71)); // there is none
    CHECK(has_ended(root, 71));
}
