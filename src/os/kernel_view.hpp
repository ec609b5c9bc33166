// SPDX-License-Identifier: MIT
// The live kernel's memory, found and checked: what the walkers of walk.hpp work on.
#pragma once

#include "os/file.hpp"
#include "pagesift/walk.hpp"

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace pagesift::os {

class BpfReader;

/// A reader, the kernel it reads, and the way from a descriptor of this process into it. One
/// thread at a time; others take a clone each, and make it themselves or are given it.
class KernelView {
public:
    enum class Way { bpf, kcore };

    struct Parts {
        std::unique_ptr<walk::KernelMemory> memory;
        BpfReader* bpf = nullptr; ///< memory, if it is one
        std::uint64_t task = 0;   ///< the own task_struct, for readers that cannot name the caller
        std::shared_ptr<const walk::Kernel> kernel;
        bool flags_checked = false;
    };
    explicit KernelView(Parts parts);
    ~KernelView();
    KernelView(const KernelView&) = delete;
    KernelView& operator=(const KernelView&) = delete;

    walk::KernelMemory& memory() const { return *parts_.memory; }
    const walk::Kernel& kernel() const { return *parts_.kernel; }
    Way way() const { return parts_.bpf ? Way::bpf : Way::kcore; }

    /// Whether the flags of struct page were compared with kpageflags, which only root and
    /// CAP_DAC_READ_SEARCH may open. Where they were not, they are not to be used.
    bool flags_checked() const { return parts_.flags_checked; }

    /// Why the flags of struct page are not to be used: not checked, or this kernel's BTF does not
    /// tell all that reading them takes. Empty: they may be used.
    std::string flags_trouble() const;

    /// A second view of the same kernel; it costs a reader, but no search and no checks.
    /// @throws Error where a second reader is refused
    std::unique_ptr<KernelView> clone() const;

    /// The top page table of the process whose /proc/PID/pagemap is open as @p pagemap_fd. The
    /// descriptor keeps the process' mm_struct from being freed: as long as it is open, a walk sees
    /// the process' tables or, once it has ended, an empty top table. Empty: not found for certain.
    std::optional<std::uint64_t> find_top_table(int pagemap_fd) const;

    /// The page cache (struct address_space) of an open file, O_PATH included; the descriptor keeps
    /// it. Empty: not found for certain, as on overlayfs, which has inode numbers of its own.
    std::optional<std::uint64_t> find_mapping(int fd) const;

private:
    std::uint64_t own_task() const;

    Parts parts_;
};

struct KernelViewResult {
    std::unique_ptr<KernelView> view; ///< none: see the reason
    std::string reason;               ///< why there is none, and for each way that was tried
    std::string remedy;               ///< what would help; empty: nothing on this machine
    std::vector<walk::Check> checks;  ///< as far as they were made; one that failed is the reason
};

/// Finds a way to read kernel memory, learns this kernel's structures from its BTF, finds its bases
/// and checks all of it on this process itself. A view is handed out only if every check passed
/// (but for page flags, see flags_checked).
/// Call it in the process' first thread. Takes about 2 ms; touches two pages of its own and leaves
/// nothing behind. Never throws for what a kernel or a privilege lacks.
/// @param without "bpf", "bpf-syscall", "kcore": ways not to use
KernelViewResult open_kernel_view(const std::set<std::string>& without);

} // namespace pagesift::os
