// SPDX-License-Identifier: MIT
// Trying an interface on this process itself. Each probe makes what it needs and removes it again.
#pragma once

#include "pagesift/source.hpp"

#include <memory>
#include <optional>

namespace pagesift::os {

/// Anonymous memory of our own, unmapped at the end; never a huge page unless asked for.
class Scratch {
public:
    enum class Huge { never, if_possible };
    /// Throws Error when there is no memory. @p alignment is a power of two, at least a page.
    Scratch(std::size_t bytes, std::size_t alignment, Huge huge = Huge::never);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    char* data() const { return aligned_; }
    Address address() const { return Address{reinterpret_cast<std::uintptr_t>(aligned_)}; }

private:
    void* raw_ = nullptr;
    std::size_t raw_bytes_ = 0;
    char* aligned_ = nullptr;
};

bool host_has_cachestat();
bool host_has_pagemap_scan();
std::optional<bool> probe_frames_visible();
/// KPF_KSM was set on every anonymous page by kernels from 6.10 until a fix of 2026.
std::optional<bool> probe_ksm_flag();
/// Whether kpageflags bit 34 shows PG_anon_exclusive on this kernel (6.12; on older ones it is
/// another flag). Tried on a page of our own before and after a fork; asked once.
bool probe_exclusive_flag();
std::optional<bool> probe_soft_dirty();
bool probe_pagemap_scan(std::uint64_t category);
bool probe_procmap_query();
/// Does PAGE_IS_WRITTEN tell an empty page table from no table? True on 6.18 and some others.
std::optional<bool> probe_located_tables(const HostFacts& host);
/// Does MADV_DONTNEED free an empty page table (CONFIG_PT_RECLAIM)? By VmPTE of this process.
std::optional<bool> probe_pt_reclaim(const HostFacts& host);
/// Does madvise(2) know @p advice? Tried on a page of our own, which nobody needs.
bool probe_advice(int advice);
/// Does process_madvise(2) take @p advice for another process? Tried on a child that waits, because
/// newer kernels take any advice for the caller itself; on one page, or on a whole slot (for advice
/// on huge pages). Empty: refused for a reason that is not the advice, such as no huge page to be
/// had.
std::optional<bool> probe_remote_advice(int advice, std::size_t bytes);
unsigned probe_counted_levels(std::uint64_t page_size);

} // namespace pagesift::os
