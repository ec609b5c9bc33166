// SPDX-License-Identifier: MIT
// What seccomp filters would say of a system call. A filter is a small program
// (networking/filter.rst, linux/seccomp.h); it is run here, so that a thread is sent to calls only
// of which it is known beforehand that it may make them.
#pragma once

#include <array>
#include <cstdint>
#include <linux/filter.h>
#include <optional>
#include <span>

namespace pagesift::os {

/// What of a system call is known; a filter that looks at anything else decides nothing.
struct FilteredCall {
    std::uint32_t number = 0;
    std::uint32_t architecture = 0; ///< AUDIT_ARCH_ of linux/audit.h
    std::array<std::optional<std::uint64_t>, 6> arguments;
};

/// What the filter returns, SECCOMP_RET_ of linux/seccomp.h. Empty: it depends on what is not
/// known, or the program is none that the kernel would take
/// (kernel/seccomp.c:seccomp_check_filter).
std::optional<std::uint32_t> run_filter(std::span<const sock_filter> program,
                                        const FilteredCall& call);

} // namespace pagesift::os
