// SPDX-License-Identifier: MIT
// The entry of the remote call's live tests. A second role: run with --generations N, a thread that
// is not the first replaces the program by itself, N times, and the last one returns 42.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>

#include "harness.hpp"
#include "torture/victim.hpp"

namespace {

int run_generations(const char* program, int left) {
    if (left == 0) return 42;
    for (int i = 0; i < 3; ++i)
        std::thread{[] {
            for (;;) pagesift::live::nap(700);
        }}.detach();
    std::thread{[=] {
        pagesift::live::nap(static_cast<unsigned>(12000 + 700 * (left % 10)));
        const auto number = std::to_string(left - 1);
        ::execl(program, program, "--generations", number.c_str(), nullptr);
        ::_exit(77);
    }}.detach();
    for (;;) pagesift::live::nap(700);
}

} // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::string_view{argv[1]} == "--generations")
        return run_generations("/proc/self/exe", std::atoi(argv[2]));
    doctest::Context context(argc, argv);
    const int result = context.run();
    if (!context.shouldExit()) pagesift::live::report_skips();
    return result;
}
