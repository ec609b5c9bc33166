// SPDX-License-Identifier: MIT
// The list of mappings, and what stands behind each.
#pragma once

#include "os/file.hpp"
#include "pagesift/source.hpp"

#include <map>
#include <set>

namespace pagesift::os {

/// Device numbers of the kernel's own mounts, which no mountinfo shows, and what it makes of
/// [vvar].
struct KernelDevices {
    std::set<procfs::Device> shmem;   ///< memfd, System V, shared anonymous
    std::set<procfs::Device> hugetlb; ///< memfd and shared anonymous huge pages, one mount a size
    /// Of [vvar] and the like those that are not VM_PFNMAP, so that pagemap shows their entries; on
    /// most kernels there are none (7.2 has [vvar] here, but not [vvar_vclock]).
    std::set<std::string> shown_data;
};

/// Found by making one memfd of each kind on this process, without touching it, and from the
/// VmFlags of its own mappings.
KernelDevices probe_kernel_devices();

struct MappingReader {
    const Root& root;
    std::string base; ///< "proc/4711"
    std::uint64_t page_size;
    const KernelDevices& devices;
    bool procmap_query = true;
    GapLog& gaps;

    /// Reads all mappings without smaps. [vsyscall] is left out: it is the kernel's page, beyond
    /// every task's address space. Throws Error (gone, denied).
    std::vector<Mapping> read() const;

    /// Adds what smaps knows (VmFlags, Swap, Referenced, page size) to @p mappings; a mapping that
    /// changed between the two reads stays without.
    void add_smaps(std::vector<Mapping>& mappings) const;

private:
    bool read_by_query(int maps_fd, std::vector<Mapping>& mappings) const;
    void read_by_text(int maps_fd, std::vector<Mapping>& mappings) const;
    void find_backings(std::vector<Mapping>& mappings) const;
};

/// True when @p mapping cannot be judged, or not quickly, without what smaps says of it.
bool needs_smaps(const Mapping& mapping);

/// Settles what VmFlags say about the backing: frames without struct pages, huge pages.
void apply_vm_flags(Mapping& mapping);

} // namespace pagesift::os
