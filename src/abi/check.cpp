// SPDX-License-Identifier: MIT
// Holds this room's copies against the system's headers, wherever these have the name.
#include "pagesift/abi.hpp"

#include <cstddef>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kernel-page-flags.h>
#include <linux/magic.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define SYSTEM_VALUE(name) constexpr auto system_##name = name

#ifdef PAGEMAP_SCAN
static_assert(sizeof(::pm_scan_arg) == sizeof(pagesift::abi::pm_scan_arg));
#endif
#ifdef SYS_cachestat
static_assert(SYS_cachestat == pagesift::abi::NR_cachestat);
#endif

SYSTEM_VALUE(KPF_KSM);
SYSTEM_VALUE(KPF_THP);
SYSTEM_VALUE(KPF_ZERO_PAGE);
SYSTEM_VALUE(KPF_PGTABLE);
SYSTEM_VALUE(KPF_HUGE);
SYSTEM_VALUE(KPF_UNEVICTABLE);
SYSTEM_VALUE(KPF_SWAPBACKED);
SYSTEM_VALUE(KPF_ANON);
SYSTEM_VALUE(TMPFS_MAGIC);
SYSTEM_VALUE(HUGETLBFS_MAGIC);
SYSTEM_VALUE(CAP_DAC_OVERRIDE);
SYSTEM_VALUE(CAP_FOWNER);
SYSTEM_VALUE(CAP_SYS_PTRACE);
SYSTEM_VALUE(CAP_SYS_ADMIN);
SYSTEM_VALUE(CAP_SYS_NICE);
SYSTEM_VALUE(CAP_CHECKPOINT_RESTORE);
#undef KPF_KSM
#undef KPF_THP
#undef KPF_ZERO_PAGE
#undef KPF_PGTABLE
#undef KPF_HUGE
#undef KPF_UNEVICTABLE
#undef KPF_SWAPBACKED
#undef KPF_ANON
#undef TMPFS_MAGIC
#undef HUGETLBFS_MAGIC
#undef CAP_DAC_OVERRIDE
#undef CAP_FOWNER
#undef CAP_SYS_PTRACE
#undef CAP_SYS_ADMIN
#undef CAP_SYS_NICE
#undef CAP_CHECKPOINT_RESTORE

namespace pagesift::abi {

static_assert(system_KPF_KSM == KPF_KSM);
static_assert(system_KPF_THP == KPF_THP);
static_assert(system_KPF_ZERO_PAGE == KPF_ZERO_PAGE);
static_assert(system_KPF_PGTABLE == KPF_PGTABLE);
static_assert(system_KPF_HUGE == KPF_HUGE);
static_assert(system_KPF_UNEVICTABLE == KPF_UNEVICTABLE);
static_assert(system_KPF_SWAPBACKED == KPF_SWAPBACKED);
static_assert(system_KPF_ANON == KPF_ANON);
static_assert(system_TMPFS_MAGIC == TMPFS_MAGIC);
static_assert(system_HUGETLBFS_MAGIC == HUGETLBFS_MAGIC);
static_assert(system_CAP_DAC_OVERRIDE == CAP_DAC_OVERRIDE);
static_assert(system_CAP_FOWNER == CAP_FOWNER);
static_assert(system_CAP_SYS_PTRACE == CAP_SYS_PTRACE);
static_assert(system_CAP_SYS_ADMIN == CAP_SYS_ADMIN);
static_assert(system_CAP_SYS_NICE == CAP_SYS_NICE);
static_assert(system_CAP_CHECKPOINT_RESTORE == CAP_CHECKPOINT_RESTORE);

static_assert(advice::willneed == MADV_WILLNEED && advice::cold == MADV_COLD &&
              advice::pageout == MADV_PAGEOUT && advice::dontneed == MADV_DONTNEED &&
              advice::mergeable == MADV_MERGEABLE && advice::unmergeable == MADV_UNMERGEABLE);

static_assert(sizeof(pm_scan_arg) == 96 && PAGEMAP_SCAN == _IOWR('f', 16, pm_scan_arg));
static_assert(sizeof(procmap_query) == 104 && PROCMAP_QUERY == _IOWR('f', 17, procmap_query));
static_assert(offsetof(procmap_query, vma_name_addr) == 88);
static_assert(sizeof(cachestat) == 40);

} // namespace pagesift::abi
