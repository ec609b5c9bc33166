// SPDX-License-Identifier: MIT
#include "control_group.hpp"

#include <fstream>

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

/// Whether memory is charged to groups of version 1.
bool is_of_version_1() {
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);)
        if (line.find(":memory:") != std::string::npos) return true;
    return false;
}

void write(const std::string& path, const char* text) { std::ofstream(path) << text; }

} // namespace

ControlGroup::ControlGroup() : first_(is_of_version_1()) {
    // Memory is charged by one version at a time. A mount of the other would take it away.
    if (mount("none", mount_.path().c_str(), first_ ? "cgroup" : "cgroup2", 0,
              first_ ? "memory" : nullptr) != 0)
        return;
    // Already so wherever memory is controlled by version 2, and no file of version 1.
    if (!first_) write(mount_.path() + "/cgroup.subtree_control", "+memory");
    folder_ = mount_.path() + name();
    if (mkdir(folder_.c_str(), 0755) == 0 && mkdir(below().c_str(), 0755) == 0) {
        if (!first_) write(folder_ + "/cgroup.subtree_control", "+memory");
        return;
    }
    folder_.clear();
    umount(mount_.path().c_str());
}

ControlGroup::~ControlGroup() {
    if (folder_.empty()) return;
    for (int tries = 0; tries < 100; ++tries, usleep(10'000))
        if (rmdir(below().c_str()) == 0) break;
    rmdir(folder_.c_str());
    umount(mount_.path().c_str());
}

std::string ControlGroup::name() const { return "/pagesift-" + std::to_string(getpid()); }

void ControlGroup::add_below(pid_t pid) const {
    std::ofstream(below() + "/cgroup.procs") << pid << std::endl;
}

std::uint64_t ControlGroup::charged_below() const {
    std::ifstream in(below() + (first_ ? "/memory.usage_in_bytes" : "/memory.current"));
    std::uint64_t bytes = 0;
    return in >> bytes ? bytes : 0;
}

bool ControlGroup::limit_below(std::uint64_t bytes) const {
    // Version 1 gives up (EBUSY) where it cannot take enough away at once.
    for (int tries = 0; tries < 50; ++tries, usleep(100'000)) {
        std::ofstream out(below() + (first_ ? "/memory.limit_in_bytes" : "/memory.max"));
        out << bytes << std::flush;
        if (out.good()) return true;
    }
    return false;
}

bool ControlGroup::limit_swap_below(std::uint64_t bytes) const {
    if (first_) return false;
    std::ofstream out(below() + "/memory.swap.max");
    out << bytes << std::flush;
    return out.good();
}

} // namespace pagesift::live
