// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT
#include "faults.hpp"

#include <iostream>

namespace pagesift::test {

std::size_t& injected_faults() {
    static std::size_t count = 0;
    return count;
}

} // namespace pagesift::test

int main(int argc, char** argv) {
    doctest::Context context{argc, argv};
    const int failed = context.run();
    if (context.shouldExit() || failed != 0) return failed;
    const auto faults = pagesift::test::injected_faults();
    std::cout << faults << " faults were injected\n";
    // Of all tests; whoever chooses some has fewer.
    constexpr std::size_t enough = 2000;
    if (argc > 1 || faults >= enough) return 0;
    std::cerr << "there are to be at least " << enough << '\n';
    return 1;
}
