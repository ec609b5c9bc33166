// SPDX-License-Identifier: MIT
// What remote calls do when nobody kills them: their effect, what is stopped, what is refused.
#include "torture/remote_tests.hpp"

#include "harness.hpp"
#include "pagesift/remote.hpp"
#include "torture/torture.hpp"

#include <doctest/doctest.h>

namespace pagesift::live {

bool can_call() {
    if (!have_root()) return false;
    Victim victim{VictimKind::sleepy};
    try {
        os::RemoteTarget{static_cast<std::uint32_t>(victim.pid()), start_time(victim.pid())};
        return true;
    } catch (const Error& error) {
        skip(std::string{error.what()}.substr(std::string{error.what()}.find(':') + 2));
        return false;
    }
}

} // namespace pagesift::live
