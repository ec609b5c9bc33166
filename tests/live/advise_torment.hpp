// SPDX-License-Identifier: MIT
// Every action on a program that works, again and again.
//
//     Rack rack;                                // swap, and ksmd running
//     if (!rack.ready()) return;
//     const Background program({...});
//     check_moved(torment(program.pid()));      // then ask the program what it still knows
#pragma once

#include "advise.hpp"

#include <map>
#include <memory>
#include <string>

#include <sys/types.h>

namespace pagesift::live {

/// What the actions need of the machine. Skips where it cannot be had.
class Rack {
public:
    Rack();
    bool ready() const { return ready_; }

private:
    std::unique_ptr<zoo::Machine> machine_;
    std::unique_ptr<Ksm> ksm_;
    bool ready_ = false;
};

/// How long each program works on while that is done to it; PAGESIFT_PROGRAM_SECONDS.
double torment_seconds();

struct Torment {
    struct Sum {
        int times = 0, refused = 0;
        std::uint64_t advised_bytes = 0, moved_bytes = 0;
        double longest_stop = 0; ///< seconds
    };
    int rounds = 0;
    std::map<std::string, Sum> sums; ///< by action
    std::uint64_t paged_out = 0, paged_in = 0;
};

/// All actions that this kernel has, on a process and those children that it has at the moment, for
/// torment_seconds() and at least twice. CHECKs that each of them succeeds, at times at least, and
/// that the process is still there.
Torment torment(pid_t pid);

/// CHECKs that memory has really moved, and that zeros were given back and pages offered to KSM.
/// Prints it all.
void check_moved(const Torment& toll);

} // namespace pagesift::live
