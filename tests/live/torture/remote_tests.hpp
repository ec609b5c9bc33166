// SPDX-License-Identifier: MIT
#pragma once

namespace pagesift::live {

/// Whether remote calls are offered here; skips where they are not.
bool can_call();

} // namespace pagesift::live
