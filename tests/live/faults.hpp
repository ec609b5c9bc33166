// SPDX-License-Identifier: MIT
// System calls of pagesift that fail: strace answers in the kernel's place (strace(1), -e inject).
#pragma once

#include "harness.hpp"

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace pagesift::live {

/// Of some calls of this name the Nth is answered like this.
struct Fault {
    std::string call;
    std::string answer; ///< for -e inject
};

/// Skips where strace cannot do that.
bool can_inject();

/// A run of pagesift under strace. @p options of strace
Words strace(const Words& options, const Words& arguments);
/// The same, with one fault: the call of that name that is the Nth of its thread.
Words with_fault(const Fault& fault, std::size_t nth, const Words& arguments);

/// How many calls of a name there are, and how many of them the dynamic loader makes.
struct Calls {
    std::size_t all = 0, before_main = 0;
};
/// Calls of one run by name, of the thread that makes the most of them.
std::map<std::string, Calls> count_calls(const Words& arguments);

/// The places to try: about @p most, from the beginning to the end; all with PAGESIFT_FAULTS=all.
std::vector<std::size_t> places(const Calls& calls, std::size_t most);

} // namespace pagesift::live
