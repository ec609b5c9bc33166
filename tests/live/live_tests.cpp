// SPDX-License-Identifier: MIT
// The live tests' entry. A second role: run with --exec-again N, the program executes itself N
// times and so is the target of a test.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include <unistd.h>

#include "harness.hpp"

namespace {

int exec_again(char** argv) {
    const long left = std::strtol(argv[2], nullptr, 10);
    if (left <= 0) return 0;
    // A different size each time: an answer mixed from two programs cannot add up by chance.
    const std::string next = std::to_string(left - 1);
    const std::string padding(static_cast<std::size_t>(left % 7) * 4096, 'x');
    execl("/proc/self/exe", argv[0], argv[1], next.c_str(), padding.c_str(),
          static_cast<char*>(nullptr));
    return 1;
}

} // namespace

int main(int argc, char** argv) {
    if (argc >= 3 && std::strcmp(argv[1], "--exec-again") == 0) return exec_again(argv);
    doctest::Context context(argc, argv);
    const int result = context.run();
    pagesift::live::release_zoo();
    if (!context.shouldExit()) pagesift::live::report_skips();
    return result;
}
