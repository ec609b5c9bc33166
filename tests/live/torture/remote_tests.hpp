// SPDX-License-Identifier: MIT
#pragma once

#include "pagesift/remote.hpp"
#include "torture/torture.hpp"

#include <memory>
#include <string>

namespace pagesift::live {

/// Whether remote calls are offered here; skips where they are not.
bool can_call();

/// Numbers that a target and its test share.
class SharedNumbers {
public:
    SharedNumbers();
    ~SharedNumbers();
    SharedNumbers(const SharedNumbers&) = delete;
    SharedNumbers& operator=(const SharedNumbers&) = delete;
    std::atomic<std::uint64_t>& operator[](std::size_t i) const { return numbers_[i]; }
    /// Whether a number grows within some seconds.
    bool grows(std::size_t i) const;

private:
    std::atomic<std::uint64_t>* numbers_;
};

std::unique_ptr<os::RemoteTarget> open_target(pid_t pid);

/// For machines that are slow, or have much else to do.
os::StopOptions patient();

/// Stops a process for nothing. What it was refused with; empty: it was not.
std::string why_refused(pid_t pid, const os::StopOptions& options = patient());

/// Checks that nothing is wrong but calls that a signal has interrupted.
void check_unharmed(Victim& victim);

} // namespace pagesift::live
