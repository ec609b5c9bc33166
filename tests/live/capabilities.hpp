// SPDX-License-Identifier: MIT
// The smallest set of capabilities with which a command does all that it does for root, on a
// process of another user. docs/security.md and the man page have the same table, and the units of
// contrib/ no more than its rows (tests/check/security, tests/check/units).
#pragma once

#include <linux/capability.h>
#include <string>
#include <vector>

namespace pagesift::live {

struct CommandNeeds {
    std::string command;
    std::vector<unsigned> capabilities;
};

inline const std::vector<CommandNeeds>& needs_of_commands() {
    static const std::vector<CommandNeeds> needs{
        {"inspect --lens proc", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"inspect --lens exact", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"inspect --file-cache on", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"record", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"scan", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"diff", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"cold --source exact", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"cold --source idle-bitmap", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"cold --source referenced", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"cold --source soft-dirty", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"cold --source lru", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"advise pageout", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_NICE, CAP_SYS_PTRACE}},
        {"advise cold", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_NICE, CAP_SYS_PTRACE}},
        {"advise willneed", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_NICE, CAP_SYS_PTRACE}},
        {"advise collapse", {CAP_DAC_READ_SEARCH, CAP_SYS_NICE, CAP_SYS_PTRACE}},
        {"advise pt-reclaim", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"advise zero-drop", {CAP_DAC_OVERRIDE, CAP_SYS_ADMIN, CAP_SYS_PTRACE}},
        {"advise merge", {CAP_DAC_OVERRIDE, CAP_SYS_PTRACE}},
        {"doctor", {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_NICE}},
    };
    return needs;
}

inline std::string name_of_capability(unsigned number) {
    switch (number) {
    case CAP_DAC_OVERRIDE: return "CAP_DAC_OVERRIDE";
    case CAP_DAC_READ_SEARCH: return "CAP_DAC_READ_SEARCH";
    case CAP_SYS_ADMIN: return "CAP_SYS_ADMIN";
    case CAP_SYS_NICE: return "CAP_SYS_NICE";
    case CAP_SYS_PTRACE: return "CAP_SYS_PTRACE";
    default: return "capability " + std::to_string(number);
    }
}

} // namespace pagesift::live
