// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "made_up_tables.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::test;
using namespace pagesift::walk;

namespace {

constexpr std::uint64_t GiB = 1 << 30;

/// A process in a kernel of 16 GiB, with everything that is known of it.
struct OwnProcess {
    MadeUpMemory memory;
    Kernel kernel = made_up_kernel();
    KernelLayout& layout = kernel.layout;
    MadeUpTables tables{memory, kernel};
    std::vector<std::byte> bytes = std::vector<std::byte>(4096);
    Own own;

    static constexpr std::uint64_t task = 0xffff9a4300000000, files = 0xffff9a4300001000,
                                   table = 0xffff9a4300002000, fds = 0xffff9a4300003000,
                                   mm = 0xffff9a4300004000, inode = 0xffff9a4300005000,
                                   mapping = 0xffff9a4300006000, file = 0xffff9a4300007000;

    OwnProcess() {
        for (std::size_t i = 0; i < bytes.size(); ++i)
            bytes[i] = static_cast<std::byte>(i * 167 >> 3);
        own = {.task = task,
               .tgid = 4711,
               .pagemap_fd = 5,
               .file_fd = 6,
               .file_inode = 98765,
               .memfd = 7,
               .memfd_frame = 0x54321,
               .page = Address{0x7f0012345000},
               .page_frame = 0x3abcde,
               .page_bytes = bytes,
               .page_kpageflags =
                   abi::kpf(abi::KPF_UPTODATE) | abi::kpf(abi::KPF_LRU) | abi::kpf(abi::KPF_ANON),
               .frame_end = kernel.bases.frame_end,
               .physical_bits = 46};
        memory.put32(task + layout.task_struct_tgid, own.tgid);
        memory.put32(task + layout.task_struct_tgid + 4, 0x77777777);
        memory.put(task + layout.task_struct_mm, mm);
        memory.put(task + layout.task_struct_files, files);
        memory.put(files + layout.files_struct_fdt, table);
        memory.put(table + layout.fdtable_fd, fds);
        for (const std::uint64_t fd : {5u, 6u, 7u}) memory.put(fds + fd * 8, file_of_fd(fd));
        memory.put(file_of_fd(5) + layout.file_private_data, mm);
        memory.put(file_of_fd(6) + layout.file_f_inode, inode);
        memory.put(inode + layout.inode_i_ino, own.file_inode);
        memory.put(file_of_fd(7) + layout.file_f_mapping, mapping);
        memory.put(head(), struct_page(own.memfd_frame));
        memory.put(mm + layout.mm_struct_pgd, tables.pgd);
        memory.put(mm + layout.mm_struct_task_size, (std::uint64_t{1} << 47) - 4096);
        tables.set(own.page.value, 1, own.page_frame << 12 | page_bits);
        const std::uint64_t pgd_frame = (tables.pgd - kernel.bases.direct_map) / 4096;
        memory.put(struct_page(pgd_frame) + *layout.pt_mm, mm);
        memory.put_bytes(address(own.page_frame), bytes.data(), bytes.size());
        const std::uint64_t page = struct_page(own.page_frame);
        memory.put(page, std::uint64_t{1} << layout.PG_uptodate |
                             std::uint64_t{1} << layout.PG_lru | std::uint64_t{7} << 60);
        memory.put(page + *layout.folio_mapping, 0xffff9a4300009001);
        memory.put(page + *layout.folio_index, own.page.value >> 12);
    }
    static std::uint64_t file_of_fd(std::uint64_t fd) { return file + fd * 4096; }
    std::uint64_t head() const {
        return mapping + layout.address_space_i_pages + layout.xarray_xa_head;
    }
    std::uint64_t struct_page(std::uint64_t frame) const {
        return kernel.bases.vmemmap + frame * layout.page_bytes;
    }
    std::uint64_t address(std::uint64_t frame) const {
        return kernel.bases.direct_map + frame * 4096;
    }
    Bases find() { return find_kernel(memory, layout, own).bases; }
    std::string refusal() {
        const auto error = error_of([&] { find(); });
        if (!error) return "";
        CHECK(error->kind() == ErrorKind::unsupported);
        return error->what();
    }
    bool is_refused_for(const char* why) { return refusal().find(why) != std::string::npos; }
};

std::string failed(const std::vector<Check>& checks) {
    std::string names;
    for (const Check& check : checks)
        if (!check.passed) names += (names.empty() ? "" : " ") + check.name;
    return names;
}

} // namespace

TEST_CASE("bases: both are found, by the owner of the top table and the own page") {
    OwnProcess p;
    CHECK(p.find() == p.kernel.bases);
}

TEST_CASE("bases: no data page is read but the own one") {
    OwnProcess p;
    const auto& bases = p.kernel.bases;
    p.memory.before = [&](const Piece& piece) {
        const bool of_ram = piece.address >= bases.direct_map - 16 * GiB &&
                            piece.address < bases.direct_map + 11 * GiB;
        if (of_ram) CHECK(piece.address / 4096 == p.address(p.own.page_frame) / 4096);
    };
    // Only what lies above the first 11 GiB is the process's own.
    p.find();
}

TEST_CASE("bases: a kernel without owners of tables is searched by the own page's bytes") {
    OwnProcess p;
    p.layout.pt_mm = {};
    CHECK(p.find() == p.kernel.bases);
    p.own.unaccepted_memory = true;
    CHECK(p.is_refused_for("not accepted"));
}

TEST_CASE("bases: nothing that fits is a refusal") {
    OwnProcess p;
    const std::uint64_t pgd_frame = (p.tables.pgd - p.kernel.bases.direct_map) / 4096;
    p.memory.put(p.struct_page(pgd_frame) + *p.layout.pt_mm, OwnProcess::mm + 64);
    CHECK(p.is_refused_for("places of the direct map has the own top page table"));
    p.layout.pt_mm = {};
    p.memory.put8(p.address(p.own.page_frame) + 4095, 0x11);
    CHECK(p.is_refused_for(" 0 have the own page's contents"));
}

TEST_CASE("bases: a freed top table that still names the mm is told apart by the own page") {
    OwnProcess p;
    // The top table lies in the first GiB: candidates lie below, and their frames above.
    const std::uint64_t pgd_frame = (p.tables.pgd - p.kernel.bases.direct_map) / 4096;
    p.memory.put(p.struct_page(pgd_frame + 3 * (GiB / 4096)) + *p.layout.pt_mm, OwnProcess::mm);
    CHECK(p.find() == p.kernel.bases);
    p.own.unaccepted_memory = true;
    CHECK(p.is_refused_for("not accepted"));
}

TEST_CASE("bases: two that fit are a refusal") {
    OwnProcess p;
    p.layout.pt_mm = {};
    const std::uint64_t other = p.address(p.own.page_frame) - 2 * GiB;
    p.memory.put_bytes(other, p.bytes.data(), p.bytes.size());
    CHECK(p.is_refused_for(" 2 have the own page's contents"));
    p.memory.put8(other + 4095, 0x11); // a difference at the very end will do
    CHECK(p.find() == p.kernel.bases);
}

TEST_CASE("bases: the owner alone is not believed") {
    OwnProcess p;
    p.memory.put8(p.address(p.own.page_frame) + 2000, 0x11);
    CHECK(p.is_refused_for(" 0 have the own page's contents"));
}

TEST_CASE("bases: a base that is beyond what RAM there is, is no candidate") {
    OwnProcess p;
    // The top table in the fourth GiB of a machine that is said to have three.
    const std::uint64_t pgd = p.address(0xd0000);
    p.memory.page(pgd);
    p.memory.put(OwnProcess::mm + p.layout.mm_struct_pgd, pgd);
    p.memory.put(p.struct_page(0xd0000) + *p.layout.pt_mm, OwnProcess::mm);
    CHECK(p.find().direct_map == p.kernel.bases.direct_map);
    p.own.frame_end = 0xc0000;
    p.own.page_frame = 0xb0000;
    CHECK(p.is_refused_for("none of 3 places of the direct map has the own top page table"));
}

TEST_CASE("bases: a folio that is no struct page at a round base is a refusal") {
    OwnProcess p;
    for (const std::uint64_t folio :
         {p.struct_page(p.own.memfd_frame) + 64, p.struct_page(p.own.memfd_frame) | 1,
          std::uint64_t{0}, p.own.memfd_frame * 64 - 64}) {
        p.memory.put(p.head(), folio);
        CHECK(p.is_refused_for("is not the struct page of frame"));
    }
}

TEST_CASE("bases: a memfd of huge pages has its folio below nodes") {
    OwnProcess p;
    const std::uint64_t node = 0xffff9a4300010008, below = 0xffff9a4300011008;
    p.memory.put(p.head(), node | 2);
    p.memory.put(node + p.layout.xa_node_slots, below | 2);
    p.memory.put(below + p.layout.xa_node_slots, p.struct_page(p.own.memfd_frame));
    CHECK(p.find() == p.kernel.bases);
    p.memory.put(below + p.layout.xa_node_slots, below | 2); // in circles
    CHECK(p.is_refused_for("is not the struct page of frame"));
}

TEST_CASE("bases: hidden frames, and ways that end, are refusals") {
    OwnProcess p;
    p.own.page_frame = 0;
    CHECK(p.is_refused_for("hidden"));
    p.own.page_frame = 0x3abcde;
    p.own.page_bytes = p.own.page_bytes.first(100);
    CHECK(p.is_refused_for("not known whole"));
    p.own.page_bytes = p.bytes;
    p.memory.put(OwnProcess::fds + 5 * 8, 0);
    CHECK(p.is_refused_for("does not lead to the own open files"));
    p.own.task = 0xffffc90000000000;
    CHECK(p.is_refused_for("does not lead to the own open files"));
}

TEST_CASE("bases: five levels are seen at the size of the address space") {
    OwnProcess p;
    CHECK(find_kernel(p.memory, p.layout, p.own).entries.levels == 4);
    p.memory.put(OwnProcess::mm + p.layout.mm_struct_task_size, (std::uint64_t{1} << 56) - 4096);
    CHECK(find_kernel(p.memory, p.layout, p.own).entries.levels == 5);
}

TEST_CASE("self-check: a kernel that says what is known passes every check") {
    OwnProcess p;
    const auto checks = self_check(p.memory, p.kernel, p.own);
    CHECK(checks.size() == 8);
    CHECK(failed(checks) == "");
    for (const Check& check : checks) CHECK_FALSE(check.detail.empty());
}

TEST_CASE("self-check: each check fails by itself") {
    struct Fault {
        const char* fails;
        std::function<void(OwnProcess&)> make;
    };
    const Fault faults[] = {
        {"own-task", [](OwnProcess& p) { p.own.tgid = 4712; }},
        {"own-mm",
         [](OwnProcess& p) { p.memory.put(OwnProcess::task + p.layout.task_struct_mm, 0x10); }},
        {"open-file", [](OwnProcess& p) { p.own.file_inode = 1; }},
        {"open-file", [](OwnProcess& p) { p.own.file_fd = 1; }},
        {"open-file", [](OwnProcess& p) { p.own.file_fd = -1; }},
        {"page-tables",
         [](OwnProcess& p) { p.tables.set(p.own.page.value, 1, 0x777000 | page_bits); }},
        {"page-tables", [](OwnProcess& p) { p.tables.set(p.own.page.value, 3, 0); }},
        {"direct-map", [](OwnProcess& p) { p.memory.put8(p.address(p.own.page_frame), 0x99); }},
        {"direct-map",
         [](OwnProcess& p) { p.memory.put8(p.address(p.own.page_frame) + 4095, 0x11); }},
        {"direct-map", [](OwnProcess& p) { p.memory.forget(p.address(p.own.page_frame)); }},
        {"direct-map", [](OwnProcess& p) { p.own.page_bytes = {}; }},
        {"page-flags", [](OwnProcess& p) { *p.own.page_kpageflags |= abi::kpf(abi::KPF_ACTIVE); }},
        {"page-flags", [](OwnProcess& p) { p.own.page_kpageflags = {}; }},
        {"page-flags", [](OwnProcess& p) { p.layout.PG_lru = 1; }},
        {"page-mapping", [](OwnProcess& p) { p.layout.folio_mapping = {}; }},
        {"page-mapping",
         [](OwnProcess& p) {
             p.memory.put(p.struct_page(p.own.page_frame) + *p.layout.folio_mapping, 0x1000);
         }},
        {"page-index", [](OwnProcess& p) { p.layout.folio_index = 40; }},
    };
    for (const Fault& fault : faults) {
        OwnProcess p;
        fault.make(p);
        CHECK(failed(self_check(p.memory, p.kernel, p.own)) == fault.fails);
    }
}

TEST_CASE("self-check: with wrong bases nothing of a page passes") {
    OwnProcess p;
    Kernel wrong = p.kernel;
    wrong.bases.vmemmap -= GiB;
    CHECK(failed(self_check(p.memory, wrong, p.own)) == "page-flags page-mapping page-index");
    wrong = p.kernel;
    wrong.bases.direct_map -= GiB;
    CHECK(failed(self_check(p.memory, wrong, p.own)) == "page-tables direct-map");
}

TEST_CASE("anchors: a task is found along the list, which ends or goes in circles") {
    MadeUpMemory memory;
    const KernelLayout layout = made_up_kernel().layout;
    const std::uint64_t tasks[] = {0xffffffff82000000, 0xffff9a4000001000, 0xffff9a4000002000};
    const auto link = [&](std::size_t from, std::size_t to) {
        memory.put32(tasks[from] + layout.task_struct_tgid, static_cast<std::uint32_t>(from));
        memory.put(tasks[from] + *layout.task_struct_tasks, tasks[to] + *layout.task_struct_tasks);
    };
    link(0, 1), link(1, 2), link(2, 0);
    CHECK(find_task(memory, layout, tasks[0], 2) == tasks[2]);
    CHECK(find_task(memory, layout, tasks[0], 3) == std::nullopt);
    memory.forget(tasks[2]);
    CHECK(find_task(memory, layout, tasks[0], 3) == std::nullopt);
}
