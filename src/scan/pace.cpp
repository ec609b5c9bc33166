// SPDX-License-Identifier: MIT
#include "pagesift/scan.hpp"

namespace pagesift::scan {

Pace::Duration Pace::rest(Duration elapsed, Duration cpu) const {
    if (share_ <= 0) return {};
    // In seconds, because nanoseconds over a small share leave the range of Duration.
    static constexpr double most = 24.0 * 3600;
    const double owed = std::chrono::duration<double>(cpu).count() / share_ -
                        std::chrono::duration<double>(elapsed).count();
    if (!(owed > 0)) return {};
    return std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>(owed < most ? owed : most));
}

} // namespace pagesift::scan
