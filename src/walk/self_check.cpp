// SPDX-License-Identifier: MIT
// Is what the kernel's memory says of this process what is known of it otherwise?
#include "pagesift/abi.hpp"
#include "walk/gather.hpp"
#include "walk/hex.hpp"

#include <algorithm>

namespace pagesift::walk {

namespace {

using Value = std::optional<std::uint64_t>;

std::string text_of(Value value) { return value ? hex(*value) : "unreadable"; }

/// Passed where both are known and the same.
Check same(std::string name, Value found, Value expected, const char* what) {
    return {std::move(name), found && found == expected,
            std::string{what} + " " + text_of(found) + ", expected " + text_of(expected)};
}

class Checks {
public:
    Checks(KernelMemory& memory, const Kernel& kernel, const Own& own)
        : memory_(memory), kernel_(kernel), layout_(kernel.layout), own_(own) {}

    std::vector<Check> all() {
        return {task(), mm(), inode(), frame(), contents(), flags(), anon(), index()};
    }

private:
    Value word(Value object, std::uint32_t offset) {
        return object ? read_word(memory_, *object + offset) : std::nullopt;
    }

    /// A word of the own page's struct page.
    Value page_word(std::optional<std::uint32_t> offset) {
        if (!offset) return {};
        return read_word(memory_,
                         kernel_.bases.vmemmap + own_.page_frame * layout_.page_bytes + *offset);
    }

    Value own_mm() {
        const auto file = file_of(memory_, layout_, own_.task, own_.pagemap_fd);
        return file ? mm_of(memory_, layout_, *file) : std::nullopt;
    }

    Check task() {
        auto tgid = word(own_.task, layout_.task_struct_tgid);
        if (tgid) tgid = *tgid & 0xffffffff;
        return same("own-task", tgid, own_.tgid, "tgid");
    }

    Check mm() {
        // Which it is stays here: addresses of the kernel are not for print.
        const auto found = own_mm();
        const auto expected = word(own_.task, layout_.task_struct_mm);
        if (!found || !expected) return {"own-mm", false, "unreadable"};
        return {"own-mm", *found == *expected,
                std::string{"mm of the open pagemap is "} + (*found == *expected ? "" : "not ") +
                    "that of the own task"};
    }

    Check inode() {
        const auto file = file_of(memory_, layout_, own_.task, own_.file_fd);
        const auto inode = word(file, layout_.file_f_inode);
        return same("open-file", word(inode, layout_.inode_i_ino), own_.file_inode, "inode number");
    }

    Check frame() {
        const auto mm = own_mm();
        const auto pgd = mm ? pgd_of(memory_, layout_, *mm) : std::nullopt;
        const auto frame = pgd ? translate(memory_, kernel_, *pgd, own_.page) : std::nullopt;
        return same("page-tables", frame, own_.page_frame, "frame");
    }

    Check contents() {
        std::size_t differing = 0, unreadable = 0;
        static constexpr std::uint32_t portion = 256;
        const std::uint64_t start =
            kernel_.bases.direct_map + (own_.page_frame << kernel_.entries.page_shift);
        read_each(
            memory_, own_.page_bytes.size() / portion, portion,
            [&](std::size_t i) { return start + i * portion; },
            [&](std::size_t i, const std::byte* bytes) {
                const auto known = own_.page_bytes.subspan(i * portion, portion);
                if (!bytes)
                    unreadable += portion;
                else if (!std::equal(known.begin(), known.end(), bytes))
                    differing += portion;
            });
        const bool whole = own_.page_bytes.size() == kernel_.entries.page_bytes();
        return {"direct-map", whole && differing == 0 && unreadable == 0,
                std::to_string(own_.page_bytes.size()) + " bytes compared, " +
                    std::to_string(differing) + " differ, " + std::to_string(unreadable) +
                    " unreadable"};
    }

    /// The flags that kpageflags repeats without a condition (fs/proc/page.c: stable_page_flags).
    Check flags() {
        const auto flags = page_word(layout_.page_flags);
        if (!flags || !own_.page_kpageflags)
            return {"page-flags", false, flags ? "kpageflags unreadable" : "unreadable"};
        const std::pair<std::uint32_t, abi::KpfBit> repeated[] = {
            {layout_.PG_referenced, abi::KPF_REFERENCED},
            {layout_.PG_uptodate, abi::KPF_UPTODATE},
            {layout_.PG_lru, abi::KPF_LRU},
            {layout_.PG_active, abi::KPF_ACTIVE},
        };
        std::uint64_t found = 0, expected = 0;
        for (const auto& [bit, kpf_bit] : repeated) {
            found |= (*flags >> bit & 1) << kpf_bit;
            expected |= *own_.page_kpageflags & abi::kpf(kpf_bit);
        }
        return same("page-flags", found, expected, "flags");
    }

    /// include/linux/page-flags.h: bit 0 of mapping for anonymous pages, bits 0 and 1 for KSM.
    Check anon() {
        auto mapping = page_word(layout_.folio_mapping);
        if (mapping) mapping = *mapping & 3;
        return same("page-mapping", mapping, 1, "low bits of mapping");
    }

    Check index() {
        return same("page-index", page_word(layout_.folio_index),
                    own_.page.value >> kernel_.entries.page_shift, "index");
    }

    KernelMemory& memory_;
    const Kernel& kernel_;
    const KernelLayout& layout_;
    const Own& own_;
};

} // namespace

std::vector<Check> self_check(KernelMemory& memory, const Kernel& kernel, const Own& own) {
    return Checks{memory, kernel, own}.all();
}

} // namespace pagesift::walk
