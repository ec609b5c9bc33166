// SPDX-License-Identifier: MIT
#include "pagesift/abi.hpp"

#include <array>

namespace pagesift::abi {

std::span<const FlagName> kpageflags_table() {
    static constexpr std::array table{
        FlagName{KPF_LOCKED, "locked"},
        FlagName{KPF_ERROR, "error"},
        FlagName{KPF_REFERENCED, "referenced"},
        FlagName{KPF_UPTODATE, "uptodate"},
        FlagName{KPF_DIRTY, "dirty"},
        FlagName{KPF_LRU, "lru"},
        FlagName{KPF_ACTIVE, "active"},
        FlagName{KPF_SLAB, "slab"},
        FlagName{KPF_WRITEBACK, "writeback"},
        FlagName{KPF_RECLAIM, "reclaim"},
        FlagName{KPF_BUDDY, "buddy"},
        FlagName{KPF_MMAP, "mmap"},
        FlagName{KPF_ANON, "anon"},
        FlagName{KPF_SWAPCACHE, "swapcache"},
        FlagName{KPF_SWAPBACKED, "swapbacked"},
        FlagName{KPF_COMPOUND_HEAD, "compound_head"},
        FlagName{KPF_COMPOUND_TAIL, "compound_tail"},
        FlagName{KPF_HUGE, "huge"},
        FlagName{KPF_UNEVICTABLE, "unevictable"},
        FlagName{KPF_HWPOISON, "hwpoison"},
        FlagName{KPF_NOPAGE, "nopage"},
        FlagName{KPF_KSM, "ksm"},
        FlagName{KPF_THP, "thp"},
        FlagName{KPF_OFFLINE, "offline"},
        FlagName{KPF_ZERO_PAGE, "zero_page"},
        FlagName{KPF_IDLE, "idle"},
        FlagName{KPF_PGTABLE, "pgtable"},
        FlagName{KPF_RESERVED, "reserved"},
        FlagName{KPF_MLOCKED, "mlocked"},
        FlagName{KPF_OWNER_2, "owner_2"},
        FlagName{KPF_PRIVATE, "private"},
        FlagName{KPF_PRIVATE_2, "private_2"},
        FlagName{KPF_OWNER_PRIVATE, "owner_private"},
        FlagName{KPF_ARCH, "arch"},
        FlagName{KPF_UNCACHED, "uncached"},
        FlagName{KPF_SOFTDIRTY, "softdirty"},
        FlagName{KPF_ARCH_2, "arch_2"},
        FlagName{KPF_ARCH_3, "arch_3"},
    };
    return table;
}

} // namespace pagesift::abi
