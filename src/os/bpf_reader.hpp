// SPDX-License-Identifier: MIT
// Kernel memory through a small eBPF program (bpf_program.hpp).
#pragma once

#include "os/bpf_program.hpp"
#include "os/file.hpp"
#include "pagesift/walk.hpp"

#include <array>
#include <memory>

namespace pagesift::os {

/// Reads kernel memory by running a program of its own in the kernel, in the calling thread. Needs
/// CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, in the initial user namespace, and no lockdown in
/// confidentiality mode; before Linux 5.11 also 512 KiB of memory that it may lock, or
/// CAP_SYS_RESOURCE. It only reads: bpf_probe_read_kernel goes through
/// copy_from_kernel_nofault (mm/maccess.c), which refuses user addresses and turns a fault into a
/// refusal. Program and map live as long as this object: they are pinned nowhere, attached to
/// nothing, closed on exec and not inherited by a child.
///
/// One thread at a time; other threads take a clone each. A reader holds 272 KiB.
class BpfReader final : public walk::KernelMemory {
public:
    /// How the program is run. Kernels before 5.14 know no system-call programs.
    enum class Kind { automatic, system_call, raw_tracepoint };

    /// @throws Error denied or unsupported; its hint names what is missing
    explicit BpfReader(Kind kind = Kind::automatic);

    /// A second reader, for another thread. Costs as much as the first and needs the same
    /// privileges. @throws Error as the constructor
    std::unique_ptr<BpfReader> clone() const;

    std::size_t most_pieces() const override { return BpfArea::most_pieces; }
    std::size_t most_bytes() const override { return BpfArea::most_bytes; }
    walk::Copied read(std::span<const walk::Piece> pieces) override;

    /// The calling thread, in the kernel's eyes.
    struct Caller {
        std::uint64_t task = 0; ///< address of its task_struct
        /// As in the initial PID namespace, whatever namespace this process sees.
        std::uint32_t tgid = 0, tid = 0;
    };
    Caller caller();

    Kind kind() const { return kind_; }

    /// Kernel addresses from start on, so many bytes.
    struct Bounds {
        std::uint64_t start = 0, bytes = 0;
    };
    /// From here on, and in clones, a piece that does not lie within one of these is not good and
    /// not asked of the kernel. A reader that knows where RAM is can be kept from ever following a
    /// stray pointer into a device's registers, which the kernel maps elsewhere (ioremap).
    void confine(const Bounds& direct_map, const Bounds& vmemmap) {
        bounds_ = {direct_map, vmemmap};
    }

private:
    std::size_t run();
    bool may_read(const walk::Piece& piece) const;

    struct Unmap {
        void operator()(BpfArea* area) const;
    };

    Kind kind_;
    std::unique_ptr<BpfArea, Unmap> area_;
    Fd program_;
    std::array<Bounds, 2> bounds_{};
};

} // namespace pagesift::os
