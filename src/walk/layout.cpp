// SPDX-License-Identifier: MIT
// Which members the walkers need of the kernel, as two tables. No offset is known beforehand.
#include "pagesift/abi.hpp"
#include "pagesift/walk.hpp"
#include "walk/btf.hpp"

#include <algorithm>

namespace pagesift::walk {

namespace {

enum class Ask : std::uint8_t { offset, size, length, enumerator };

/// One figure: from the first of up to two places that has it, because members move between types.
template <class Field> struct Wanted {
    Field KernelLayout::*field;
    Ask ask;
    std::string_view type, name, other_type{}, other_name{};
};

using L = KernelLayout;

constexpr Wanted<std::uint32_t> required[] = {
    {&L::task_struct_files, Ask::offset, "task_struct", "files"},
    {&L::task_struct_mm, Ask::offset, "task_struct", "mm"},
    {&L::task_struct_tgid, Ask::offset, "task_struct", "tgid"},
    {&L::files_struct_fdt, Ask::offset, "files_struct", "fdt"},
    {&L::fdtable_fd, Ask::offset, "fdtable", "fd"},
    {&L::file_f_mapping, Ask::offset, "file", "f_mapping"},
    {&L::file_f_inode, Ask::offset, "file", "f_inode"},
    {&L::file_private_data, Ask::offset, "file", "private_data"},
    {&L::inode_i_ino, Ask::offset, "inode", "i_ino"},
    {&L::mm_struct_pgd, Ask::offset, "mm_struct", "pgd"},
    {&L::mm_struct_task_size, Ask::offset, "mm_struct", "task_size"},
    {&L::address_space_i_pages, Ask::offset, "address_space", "i_pages"},
    {&L::xarray_xa_head, Ask::offset, "xarray", "xa_head"},
    {&L::xa_node_shift, Ask::offset, "xa_node", "shift"},
    {&L::xa_node_offset, Ask::offset, "xa_node", "offset"},
    {&L::xa_node_parent, Ask::offset, "xa_node", "parent"},
    {&L::xa_node_array, Ask::offset, "xa_node", "array"},
    {&L::xa_node_slots, Ask::offset, "xa_node", "slots"},
    {&L::xa_node_slot_count, Ask::length, "xa_node", "slots"},
    {&L::page_flags, Ask::offset, "page", "flags"},
    {&L::page_bytes, Ask::size, "page", ""},
    {&L::PG_referenced, Ask::enumerator, "pageflags", "PG_referenced"},
    {&L::PG_uptodate, Ask::enumerator, "pageflags", "PG_uptodate"},
    {&L::PG_lru, Ask::enumerator, "pageflags", "PG_lru"},
    {&L::PG_head, Ask::enumerator, "pageflags", "PG_head"},
    {&L::PG_active, Ask::enumerator, "pageflags", "PG_active"},
};

constexpr Wanted<std::optional<std::uint32_t>> optional[] = {
    {&L::task_struct_tasks, Ask::offset, "task_struct", "tasks"},
    {&L::page_compound_head, Ask::offset, "page", "compound_head", "page", "compound_info"},
    {&L::page_mapcount, Ask::offset, "page", "_mapcount"},
    {&L::folio_mapping, Ask::offset, "folio", "mapping", "page", "mapping"},
    {&L::folio_index, Ask::offset, "folio", "index", "page", "index"},
    {&L::pt_mm, Ask::offset, "ptdesc", "pt_mm", "page", "pt_mm"},
    {&L::page_type, Ask::offset, "page", "page_type"},
    {&L::PGTY_table, Ask::enumerator, "pagetype", "PGTY_table"},
    {&L::PG_young, Ask::enumerator, "pageflags", "PG_young"},
    {&L::PG_idle, Ask::enumerator, "pageflags", "PG_idle"},
    {&L::PG_reserved, Ask::enumerator, "pageflags", "PG_reserved"},
    {&L::PG_swapbacked, Ask::enumerator, "pageflags", "PG_swapbacked"},
    {&L::PG_swapcache, Ask::enumerator, "pageflags", "PG_swapcache"},
    {&L::PG_workingset, Ask::enumerator, "pageflags", "PG_workingset"},
    {&L::PG_hwpoison, Ask::enumerator, "pageflags", "PG_hwpoison"},
};

/// fs/proc/page.c: stable_page_flags. Two names stand for one bit where it was renamed.
constexpr std::pair<std::string_view, abi::KpfBit> repeated_flags[] = {
    {"PG_locked", abi::KPF_LOCKED},
    {"PG_error", abi::KPF_ERROR},
    {"PG_referenced", abi::KPF_REFERENCED},
    {"PG_uptodate", abi::KPF_UPTODATE},
    {"PG_dirty", abi::KPF_DIRTY},
    {"PG_lru", abi::KPF_LRU},
    {"PG_active", abi::KPF_ACTIVE},
    {"PG_writeback", abi::KPF_WRITEBACK},
    {"PG_reclaim", abi::KPF_RECLAIM},
    {"PG_swapbacked", abi::KPF_SWAPBACKED},
    {"PG_unevictable", abi::KPF_UNEVICTABLE},
    {"PG_mlocked", abi::KPF_MLOCKED},
    {"PG_idle", abi::KPF_IDLE},
    {"PG_mappedtodisk", abi::KPF_OWNER_2},
    {"PG_owner_2", abi::KPF_OWNER_2},
    {"PG_private", abi::KPF_PRIVATE},
    {"PG_private_2", abi::KPF_PRIVATE_2},
    {"PG_owner_priv_1", abi::KPF_OWNER_PRIVATE},
    {"PG_uncached", abi::KPF_UNCACHED},
    {"PG_arch_1", abi::KPF_ARCH},
    {"PG_arch_2", abi::KPF_ARCH_2},
    {"PG_arch_3", abi::KPF_ARCH_3},
};

std::vector<ShownFlag> find_shown_flags(const Btf& btf) {
    std::vector<ShownFlag> shown;
    for (const auto& [name, kpf_bit] : repeated_flags) {
        const auto bit = btf.enumerator("pageflags", name);
        if (bit && *bit >= 0 && *bit < 64)
            shown.push_back({static_cast<std::uint8_t>(*bit), static_cast<std::uint8_t>(kpf_bit)});
    }
    std::sort(shown.begin(), shown.end(), [](ShownFlag a, ShownFlag b) { return a.bit < b.bit; });
    return shown;
}

std::vector<std::string_view> type_names() {
    std::vector<std::string_view> names;
    for (const auto& wanted : required) names.push_back(wanted.type);
    for (const auto& wanted : optional) {
        names.push_back(wanted.type);
        if (!wanted.other_type.empty()) names.push_back(wanted.other_type);
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
}

std::optional<std::uint32_t> ask_once(const Btf& btf, Ask ask, std::string_view type,
                                      std::string_view name) {
    switch (ask) {
    case Ask::offset: return btf.offset(type, name);
    case Ask::size: return btf.size(type);
    case Ask::length: return btf.array_length(type, name);
    case Ask::enumerator: break;
    }
    const auto value = btf.enumerator(type, name);
    if (!value || *value < 0) return {};
    return static_cast<std::uint32_t>(*value);
}

template <class Field>
std::optional<std::uint32_t> answer(const Btf& btf, const Wanted<Field>& wanted) {
    const auto first = ask_once(btf, wanted.ask, wanted.type, wanted.name);
    if (first || wanted.other_type.empty()) return first;
    return ask_once(btf, wanted.ask, wanted.other_type, wanted.other_name);
}

template <class Field> std::string name_of(const Wanted<Field>& wanted) {
    if (wanted.ask == Ask::size) return "sizeof " + std::string{wanted.type};
    return std::string{wanted.type} + "." + std::string{wanted.name};
}

/// Figures that no kernel can have, and with which the walkers would go astray.
void check_plausible(const KernelLayout& layout) {
    const std::uint32_t slots = layout.xa_node_slot_count;
    const auto is_power = [](std::uint32_t n) { return n != 0 && (n & (n - 1)) == 0; };
    const auto refuse = [](const char* what) {
        throw Error{ErrorKind::unsupported, "kernel BTF", 0, {}, what};
    };
    if (!is_power(slots) || slots < 2 || slots > 64) refuse("xa_node.slots has a strange length");
    if (layout.xa_node_slots > 512) refuse("xa_node.slots lies too far behind");
    for (const auto at :
         {layout.xa_node_shift, layout.xa_node_offset, layout.xa_node_parent, layout.xa_node_array})
        if (at + 8 > layout.xa_node_slots + slots * 8) refuse("xa_node has a strange order");
    if (layout.page_bytes < 32 || layout.page_bytes > 256 || layout.page_bytes % 8 != 0 ||
        layout.page_flags > layout.page_bytes - 8)
        refuse("struct page has a strange size");
    for (const auto bit :
         {layout.PG_referenced, layout.PG_uptodate, layout.PG_lru, layout.PG_head, layout.PG_active,
          layout.PG_young.value_or(0), layout.PG_idle.value_or(0), layout.PG_reserved.value_or(0),
          layout.PG_swapbacked.value_or(0), layout.PG_swapcache.value_or(0),
          layout.PG_workingset.value_or(0), layout.PG_hwpoison.value_or(0)})
        if (bit > 63) refuse("a page flag has a strange number");
    for (const auto member : {layout.page_compound_head, layout.page_mapcount, layout.folio_mapping,
                              layout.folio_index, layout.pt_mm, layout.page_type})
        if (member.value_or(0) > layout.page_bytes - 4) refuse("struct page has a strange member");
}

} // namespace

KernelLayout find_layout(std::span<const std::byte> btf) {
    const Btf types{btf, type_names()};
    KernelLayout layout;
    std::string absent;
    for (const auto& wanted : required) {
        if (const auto value = answer(types, wanted))
            layout.*wanted.field = *value;
        else
            absent += (absent.empty() ? "" : ", ") + name_of(wanted);
    }
    if (!absent.empty())
        throw Error{ErrorKind::unsupported, "kernel BTF", 0, {}, "does not tell " + absent};
    for (const auto& wanted : optional) {
        layout.*wanted.field = answer(types, wanted);
        if (!(layout.*wanted.field)) layout.missing.push_back(name_of(wanted));
    }
    layout.compound_info =
        !types.offset("page", "compound_head") && types.offset("page", "compound_info").has_value();
    layout.shown_flags = find_shown_flags(types);
    check_plausible(layout);
    return layout;
}

} // namespace pagesift::walk
