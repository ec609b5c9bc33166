// SPDX-License-Identifier: MIT
// The entry of the exact lens' live tests. A second role: run with --view, the program says whether
// it can have a view of the kernel, and why not.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>
#include <string_view>

#include "harness.hpp"
#include "os/kernel_view.hpp"

namespace {

int say_view() {
    const auto result = pagesift::os::open_kernel_view({"kcore"});
    std::cout << (result.view ? "view" : result.reason + " (" + result.remedy + ")") << '\n';
    return result.view ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view{argv[1]} == "--view") return say_view();
    doctest::Context context(argc, argv);
    const int result = context.run();
    if (!context.shouldExit()) pagesift::live::report_skips();
    return result;
}
