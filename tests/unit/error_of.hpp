// SPDX-License-Identifier: MIT
#pragma once

#include "pagesift/base.hpp"

#include <optional>

namespace pagesift::test {

/// The Error that @p action throws, if it does.
template <class Action> std::optional<Error> error_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error;
    }
    return {};
}

} // namespace pagesift::test
