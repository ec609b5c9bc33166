// SPDX-License-Identifier: MIT
// What writes to a process' memory without being a thread of it, and so goes on while all of its
// threads stand still.
#pragma once

#include "os/file.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace pagesift::os {

/// What could write to the memory of @p pid, in words; empty: nothing that is known. Looked at are,
/// of @p threads, which are all that have that memory:
///
/// - VmPin: pages that a device or io_uring may write to (mm/gup.c, account of pinned_vm)
/// - mappings named "/[aio]": requests of io_submit(2) may be under way
/// - every open file: plain files, folders, pipes, block devices, terminals, /dev/null and its
/// like,
///   and of kernel objects those of the list in the .cpp. All else is refused, known writers by
///   name: io_uring, userfaultfd, vhost, vfio, RDMA, KVM, DMA buffers
/// - sockets: local ones, IPv4, IPv6 and netlink. Others may write to memory that was registered
///   with them (AF_XDP, RDS, SMC)
/// - open files that not all of the threads have
///
/// Not seen is what has been handed to another process and closed here.
///
/// Takes some microseconds for each open file and thread.
/// @throws Error denied where files cannot be looked at; gone
std::optional<std::string> find_writer(const Root& root, std::uint32_t pid,
                                       std::span<const std::uint32_t> threads);

/// A process, not @p pid, that has a userfaultfd: it may be one for the memory of @p pid. Looks at
/// the files of all processes that it may look at, so it takes a while.
std::optional<std::string> find_monitor(const Root& root, std::uint32_t pid);

} // namespace pagesift::os
