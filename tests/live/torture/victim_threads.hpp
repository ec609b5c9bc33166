// SPDX-License-Identifier: MIT
#pragma once

#include "torture/victim.hpp"

namespace pagesift::live {

void start_common_threads();
void start_waiting_threads();
void start_sleeping_threads();
void start_racing_threads();
void start_area_threads();
[[noreturn]] void run_main_thread(Ledger& ledger);

} // namespace pagesift::live
