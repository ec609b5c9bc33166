// SPDX-License-Identifier: MIT
// The victim as a program of its own, linked statically: it says "ready", works until its input
// ends, and then says how much it has checked and what of it was wrong.
#include "torture/victim.hpp"

#include <cstdio>
#include <memory>
#include <thread>
#include <unistd.h>

namespace {

using namespace pagesift::live;

void report_at_end_of_input(const VictimReport& report) {
    while (report.ready == 0) nap(1000);
    std::puts("ready");
    std::fflush(stdout);
    for (char byte = 0; ::read(STDIN_FILENO, &byte, 1) > 0;) continue;
    std::uint64_t turns = 0, wrong = 0;
    for (int i = 0; i < report.threads; ++i) {
        const Ledger& ledger = report.ledgers[i];
        const std::uint64_t interrupted = ledger.interruption_is_normal ? 0 : +ledger.interrupted;
        turns += ledger.turns;
        wrong += ledger.wrong + ledger.lost + interrupted;
        if (ledger.wrong + ledger.lost + interrupted > 0)
            std::fprintf(stderr, "%s: %llu wrong (line %llu), %llu lost, %llu interrupted\n",
                         ledger.name, static_cast<unsigned long long>(ledger.wrong),
                         static_cast<unsigned long long>(ledger.what),
                         static_cast<unsigned long long>(ledger.lost),
                         static_cast<unsigned long long>(interrupted));
    }
    std::printf("checked %llu wrong %llu\n", static_cast<unsigned long long>(turns),
                static_cast<unsigned long long>(wrong));
    std::fflush(stdout);
    ::_exit(0);
}

} // namespace

int main() {
    auto report = std::make_unique<VictimReport>();
    std::thread{[&] { report_at_end_of_input(*report); }}.detach();
    run_victim(*report, VictimKind::advised);
}
