// SPDX-License-Identifier: MIT
// Fixed points in kernel memory: what this process knows of itself by ordinary means, and the way
// from its own descriptors to the kernel's objects behind them.
#pragma once

#include "os/file.hpp"
#include "os/probe.hpp"
#include "pagesift/walk.hpp"

#include <string_view>

namespace pagesift::os {

/// One past the last frame of any zone, from the text of /proc/zoneinfo; 0: it names none.
std::uint64_t parse_frame_end(std::string_view zoneinfo);
/// "address sizes : 48 bits physical" of /proc/cpuinfo.
std::optional<unsigned> parse_physical_bits(std::string_view cpuinfo);

/// Things of our own whose place in the kernel is known, to find everything else by and to check
/// it with: a page of random bytes, a memfd of one page, descriptors of both and of our page map.
class OwnThings {
public:
    /// @throws Error failed where they cannot be made
    OwnThings();

    /// Reads the frames again, which the kernel may move at any time. @throws Error denied where
    /// frames are hidden, which takes CAP_SYS_ADMIN to lift
    void read_frames();

    /// For walk::find_kernel and walk::self_check; task and tgid are the reader's to fill in.
    walk::Own& own() { return own_; }

private:
    std::uint64_t frame_at(Address address) const;

    Fd pagemap_, kpageflags_, memfd_;
    Scratch page_, shared_;
    walk::Own own_;
};

/// The struct file of @p fd in this process, which must stay open. Checked by its inode number and
/// tried again, because another thread that opens a file may move the table of descriptors; empty
/// where it does not come out the same.
std::optional<std::uint64_t> find_file(walk::KernelMemory& memory, const walk::KernelLayout& layout,
                                       std::uint64_t own_task, int fd);

/// The address of the task_struct of which @p copy is a copy (KcoreReader::own_task): by its place
/// in the list of processes, so the copy must be of a process' first thread. Empty: not found.
std::optional<std::uint64_t> find_own_task(walk::KernelMemory& memory,
                                           const walk::KernelLayout& layout,
                                           std::span<const std::byte> copy);

} // namespace pagesift::os
