// SPDX-License-Identifier: MIT
// The readers of kernel memory, as far as they can be tried without a privilege: /proc/kcore as a
// made-up file, and the eBPF reader's request for it.
#include "error_of.hpp"
#include "os/bpf_program.hpp"
#include "os/bpf_reader.hpp"
#include "os/kcore_reader.hpp"
#include "os/kernel_anchor.hpp"
#include "os_fake_root.hpp"

#include <cstring>
#include <doctest/doctest.h>
#include <elf.h>

using namespace pagesift;
using namespace pagesift::os;
using pagesift::test::error_of;
using pagesift::test::FakeRoot;

namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t direct_map = 0xffff888000000000;
constexpr std::uint64_t kernel_text = 0xffffffff81000000;

std::string bytes_of(const void* what, std::size_t size) {
    return {static_cast<const char*>(what), size};
}

/// A core file as fs/proc/kcore.c writes one: headers, notes, then what the segments hold.
struct MadeUpCore {
    Elf64_Ehdr header{};
    std::vector<Elf64_Phdr> segments;
    std::string notes;
    std::string contents;
    static constexpr std::uint64_t contents_offset = 2 * page;

    MadeUpCore() {
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_type = ET_CORE;
        header.e_phoff = sizeof header;
        header.e_phentsize = sizeof(Elf64_Phdr);
        segment(PT_NOTE, 0, 0, page);
    }
    void segment(std::uint32_t type, std::uint64_t address, std::uint64_t bytes,
                 std::uint64_t offset) {
        Elf64_Phdr segment{};
        segment.p_type = type;
        segment.p_vaddr = address;
        segment.p_filesz = segment.p_memsz = bytes;
        segment.p_offset = offset;
        segments.push_back(segment);
    }
    void note(std::uint32_t type, const std::string& name, const std::string& text) {
        const Elf64_Nhdr head{static_cast<Elf64_Word>(name.size() + 1),
                              static_cast<Elf64_Word>(text.size()), type};
        notes += bytes_of(&head, sizeof head);
        for (const auto& part : {name + '\0', text}) {
            notes += part;
            notes.resize((notes.size() + 3) / 4 * 4);
        }
    }
    std::string file() {
        header.e_phnum = static_cast<Elf64_Half>(segments.size());
        segments[0].p_filesz = notes.size();
        std::string all = bytes_of(&header, sizeof header);
        for (const auto& segment : segments) all += bytes_of(&segment, sizeof segment);
        all.resize(page);
        all += notes;
        all.resize(contents_offset);
        return all + contents;
    }
};

/// Two pages of the direct map, "a" and "b", and one of the kernel's text, "t".
MadeUpCore small_core() {
    MadeUpCore core;
    core.note(NT_PRSTATUS, "CORE", "status");
    core.note(NT_TASKSTRUCT, "CORE", "own task");
    core.segment(PT_LOAD, kernel_text, page, MadeUpCore::contents_offset + 2 * page);
    core.segment(PT_LOAD, direct_map + page, 2 * page, MadeUpCore::contents_offset);
    core.contents =
        std::string(page, 'a') + std::string(page - 1, 'b') + 'e' + std::string(page, 't');
    return core;
}

FakeRoot& with_core(FakeRoot& root, MadeUpCore core = small_core()) {
    root.write("proc/kcore", core.file());
    return root;
}

std::string text_of(std::span<const std::byte> bytes) {
    return bytes_of(bytes.data(), bytes.size());
}

std::span<const std::byte> as_bytes(const std::string& text) {
    return std::as_bytes(std::span{text});
}

ErrorKind kind_of(MadeUpCore core) {
    FakeRoot root;
    with_core(root, std::move(core));
    const auto error = error_of([&] { KcoreReader{Root{root.path()}}; });
    REQUIRE(error);
    return error->kind();
}

} // namespace

TEST_CASE("kcore: pieces come from the segment that holds them, one after the other") {
    FakeRoot root;
    KcoreReader reader{Root{with_core(root).path()}};
    const std::vector<walk::Piece> pieces{
        {direct_map + 2 * page - 2, 2}, {kernel_text, 3}, {direct_map + 3 * page - 2, 2}};
    const auto copied = reader.read(pieces);
    CHECK(text_of(copied.bytes) == "aatttbe");
    CHECK(std::vector<std::uint8_t>(copied.good.begin(), copied.good.end()) ==
          std::vector<std::uint8_t>{1, 1, 1});
}

TEST_CASE("kcore: what lies outside the segments is not good and all zero") {
    FakeRoot root;
    KcoreReader reader{Root{with_core(root).path()}};
    for (const std::uint64_t address :
         {std::uint64_t{0}, std::uint64_t{0x7fffffffe000}, direct_map, direct_map + 3 * page,
          direct_map + 3 * page - 7, kernel_text - 8, kernel_text + page, ~std::uint64_t{7}}) {
        const std::vector<walk::Piece> pieces{
            {direct_map + page, 8}, {address, 8}, {kernel_text, 8}};
        const auto copied = reader.read(pieces);
        CHECK(text_of(copied.bytes) == "aaaaaaaa" + std::string(8, '\0') + "tttttttt");
        CHECK(copied.good[0] == 1);
        CHECK(copied.good[1] == 0);
        CHECK(copied.good[2] == 1);
    }
}

TEST_CASE("kcore: a file that ends before a segment does gives a piece that is not good") {
    auto core = small_core();
    core.contents.resize(page + 100);
    FakeRoot root;
    KcoreReader reader{Root{with_core(root, core).path()}};
    const std::vector<walk::Piece> pieces{{direct_map + 2 * page + 96, 8}, {kernel_text, 8}};
    const auto copied = reader.read(pieces);
    CHECK(text_of(copied.bytes) == std::string(16, '\0'));
    CHECK(copied.good[0] == 0);
    CHECK(copied.good[1] == 0);
}

TEST_CASE("kcore: the own task is found among the notes") {
    FakeRoot root;
    CHECK(text_of(KcoreReader{Root{with_core(root).path()}}.own_task()) == "own task");

    auto core = small_core();
    core.notes.clear();
    core.note(NT_TASKSTRUCT, "KERN", "not ours");
    CHECK(find_task_note(as_bytes(core.notes)).empty());
    core.note(NT_TASKSTRUCT, "CORE", "ours");
    CHECK(text_of(find_task_note(as_bytes(core.notes))) == "ours");
    for (std::size_t length = 0; length < core.notes.size(); ++length)
        CHECK(find_task_note(as_bytes(core.notes).first(length)).empty());
}

TEST_CASE("kcore: memory that is added or removed meanwhile ends the reader") {
    FakeRoot root;
    KcoreReader reader{Root{with_core(root).path()}};
    auto core = small_core();
    core.segment(PT_LOAD, direct_map + 8 * page, page, MadeUpCore::contents_offset);
    with_core(root, core);
    const std::vector<walk::Piece> pieces{{kernel_text, 8}};
    CHECK(error_of([&] { reader.read(pieces); }));
}

TEST_CASE("kcore: more than one call takes is refused") {
    FakeRoot root;
    KcoreReader reader{Root{with_core(root).path()}};
    CHECK(error_of([&] { reader.read(std::vector<walk::Piece>(65, {kernel_text, 8})); }));
    CHECK(error_of([&] { reader.read(std::vector<walk::Piece>(17, {kernel_text, 4096})); }));
    CHECK(error_of([&] { reader.read(std::vector<walk::Piece>(1, {kernel_text, 4097})); }));
    CHECK_FALSE(error_of([&] { reader.read(std::vector<walk::Piece>(16, {kernel_text, 4096})); }));
    CHECK(reader.read({}).bytes.empty());
}

TEST_CASE("kcore: damaged headers are refused, and absent ones are unsupported") {
    FakeRoot root;
    const auto absent = error_of([&] { KcoreReader{Root{root.path()}}; });
    REQUIRE(absent);
    CHECK(absent->kind() == ErrorKind::unsupported);

    auto core = small_core();
    core.header.e_ident[0] = 'x';
    CHECK(kind_of(core) == ErrorKind::bad_input);
    core = small_core();
    core.header.e_ident[EI_CLASS] = ELFCLASS32;
    CHECK(kind_of(core) == ErrorKind::bad_input);
    core = small_core();
    core.header.e_phentsize = 32;
    CHECK(kind_of(core) == ErrorKind::bad_input);
    core = small_core();
    core.header.e_phoff = ~std::uint64_t{0};
    CHECK(kind_of(core) == ErrorKind::bad_input);
    core = small_core();
    core.segments[1].p_vaddr = ~std::uint64_t{0} - 7;
    CHECK(kind_of(core) == ErrorKind::bad_input);
    core = small_core();
    core.segments[1].p_offset = ~std::uint64_t{0};
    CHECK(kind_of(core) == ErrorKind::bad_input);
}

TEST_CASE("kcore: a file cut at any byte of its headers is refused") {
    const std::string whole = small_core().file();
    const auto size = parse_kcore_size(as_bytes(whole));
    CHECK(size == sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr));
    CHECK(parse_kcore(as_bytes(whole).first(size)).segments.size() == 2);
    for (std::size_t length = 0; length < size; ++length)
        CHECK(error_of([&] { parse_kcore(as_bytes(whole).first(length)); }));
}

TEST_CASE("bpf program: it ends, and no jump leaves it") {
    const auto program = bpf_program(3);
    CHECK(program.size() < 64);
    CHECK(program.back().code == (BPF_JMP | BPF_EXIT));
    for (std::size_t i = 0; i < program.size(); ++i) {
        const auto code = program[i].code;
        if ((code & 7) != BPF_JMP || code == (BPF_JMP | BPF_CALL) || code == (BPF_JMP | BPF_EXIT))
            continue;
        const auto goal = static_cast<std::ptrdiff_t>(i) + 1 + program[i].off;
        CHECK(goal >= 2);
        CHECK(goal < static_cast<std::ptrdiff_t>(program.size()));
    }
}

TEST_CASE("bpf reader: it is there, or says what is missing") {
    const auto error = error_of([] { BpfReader reader; });
    if (!error) return;
    CHECK((error->kind() == ErrorKind::denied || error->kind() == ErrorKind::unsupported));
    CHECK_FALSE(error->hint().empty());
}

TEST_CASE("anchors: the end of RAM and the width of frames are read from /proc's texts") {
    CHECK(parse_frame_end("Node 0, zone      DMA\n"
                          "  pages free     3840\n"
                          "        spanned  4095\n"
                          "        present  3999\n"
                          "  start_pfn:           1\n"
                          "Node 0, zone   Normal\n"
                          "        spanned  262144\n"
                          "  start_pfn:           1048576\n"
                          "Node 0, zone  Movable\n"
                          "        spanned  0\n"
                          "  start_pfn:           0\n") == 1048576 + 262144);
    CHECK(parse_frame_end("") == 0);
    CHECK(parse_frame_end("        spanned  \n  start_pfn: x\n") == 0);
    CHECK(parse_physical_bits("model name\t: x\n"
                              "address sizes\t: 46 bits physical, 48 bits virtual\n"
                              "\n"
                              "address sizes\t: 45 bits physical, 48 bits virtual\n") == 46);
    CHECK_FALSE(parse_physical_bits("flags\t: fpu\naddress sizes\t:"));
    CHECK_FALSE(parse_physical_bits("address sizes\t: 4711 bits physical"));
}

namespace {

/// Tasks in a circle of /proc/kcore's making: each a page of the direct map with a list_head.
struct MadeUpTasks {
    walk::KernelLayout layout;
    std::vector<std::vector<std::uint64_t>> words;

    explicit MadeUpTasks(std::size_t count) : words(count, std::vector<std::uint64_t>(page / 8)) {
        layout.task_struct_files = 16;
        layout.task_struct_mm = 24;
        layout.task_struct_tasks = 32;
        for (std::size_t i = 0; i < count; ++i) {
            words[i][2] = 0xffff888000100000 + i;
            words[i][3] = 0xffff888000200000 + i;
            words[i][4] = address((i + 1) % count) + 32;
            words[i][5] = address((i + count - 1) % count) + 32;
        }
    }
    static std::uint64_t address(std::size_t i) { return direct_map + page * (i + 1); }
    std::span<const std::byte> task(std::size_t i) const {
        return std::as_bytes(std::span{words[i]});
    }
    std::optional<std::uint64_t> find(std::span<const std::byte> copy) const {
        MadeUpCore core;
        core.segment(PT_LOAD, address(0), page * words.size(), MadeUpCore::contents_offset);
        for (std::size_t i = 0; i < words.size(); ++i) core.contents += text_of(task(i));
        FakeRoot root;
        KcoreReader reader{Root{with_core(root, core).path()}};
        return find_own_task(reader, layout, copy);
    }
};

} // namespace

TEST_CASE("anchors: a copy of the own task leads to the task") {
    MadeUpTasks tasks{3};
    for (std::size_t i = 0; i < 3; ++i) CHECK(tasks.find(tasks.task(i)) == MadeUpTasks::address(i));
    CHECK(MadeUpTasks{1}.find(MadeUpTasks{1}.task(0)) == MadeUpTasks::address(0));
}

TEST_CASE("anchors: a task that is not as its copy is none") {
    const MadeUpTasks tasks{3};
    for (const unsigned word : {2u, 3u, 4u}) {
        auto other = tasks;
        other.words[1][word] += 8;
        CHECK_FALSE(other.find(tasks.task(1)));
        CHECK_FALSE(tasks.find(other.task(1)));
    }
    auto stray = tasks;
    stray.words[1][4] = ~std::uint64_t{7};
    CHECK_FALSE(stray.find(stray.task(1)));
    for (const unsigned bytes : {0u, 16u, 32u, 39u})
        CHECK_FALSE(tasks.find(tasks.task(1).first(bytes)));
    auto unlisted = tasks;
    unlisted.layout.task_struct_tasks.reset();
    CHECK_FALSE(unlisted.find(unlisted.task(1)));
}
