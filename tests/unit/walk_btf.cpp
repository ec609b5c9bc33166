// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "made_up_btf.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/walk.hpp"
#include "walk/btf.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::test;
using namespace pagesift::walk;

namespace {

/// A reader of made-up BTF, together with the bytes that it looks at.
struct Made {
    explicit Made(const MadeUpBtf& made, std::vector<std::string_view> names = {"s", "t", "e"})
        : bytes(made.bytes()), btf(bytes, names) {}
    std::vector<std::byte> bytes;
    Btf btf;
};

struct Types {
    std::string_view left_out;
    bool old_kernel = false;
    const char* compound = "compound_head";
    std::uint32_t slots = 64, page_bytes = 64, young = 12;
};

/// Everything that a layout needs, at places of its own.
MadeUpBtf made_up_types(const Types& types = {}) {
    MadeUpBtf btf;
    const auto word = btf.add_int(8);
    using Members = std::vector<MadeUpBtf::Member>;
    const auto add = [&](const char* name, std::uint32_t bytes, Members members) {
        std::erase_if(members, [&](const MadeUpBtf::Member& m) {
            return std::string{name} + "." + m.name == types.left_out;
        });
        return btf.add_struct(name, bytes, members);
    };
    const auto slots = btf.add_array(word, types.slots);
    add("task_struct", 4096,
        {{"tgid", word, 100}, {"files", word, 200}, {"mm", word, 300}, {"tasks", word, 400}});
    add("files_struct", 128, {{"count", word}, {"fdt", word, 32}});
    add("fdtable", 64, {{"max_fds", word}, {"fd", word, 8}});
    add("file", 256,
        {{"f_mapping", word, 216}, {"f_inode", word, 16}, {"private_data", word, 200}});
    add("inode", 512, {{"i_ino", word, 64}});
    add("mm_struct", 1024, {{"pgd", word, 128}, {"task_size", word, 136}});
    add("address_space", 256, {{"host", word}, {"i_pages", word, 8}});
    add("xarray", 16, {{"xa_lock", word}, {"xa_head", word, 8}});
    add("xa_node", 576,
        {{"shift", word, 0},
         {"offset", word, 1},
         {"parent", word, 8},
         {"array", word, 16},
         {"slots", slots, 40}});
    const auto in_page = btf.add_struct("", 40, {{"mapping", word, 16}, {"index", word, 24}});
    const auto tail = btf.add_struct("", 8, {{types.compound, word}});
    const auto table = btf.add_struct("", 40, {{"pt_mm", word, 8}});
    Members uses = {{"", in_page}, {"", tail}};
    if (types.old_kernel) uses.push_back({"", table});
    const auto either = btf.add_union("", 40, uses);
    add("page", types.page_bytes, {{"flags", word}, {"", either, 8}, {"_mapcount", word, 48}});
    if (!types.old_kernel) {
        add("ptdesc", 64, {{"pt_mm", word, 24}});
        btf.add_enum("pagetype", {{"PGTY_buddy", 0xf0}, {"PGTY_table", 0xf2}});
    }
    add("folio", 64, {{"mapping", word, 24}});
    btf.add_enum("pageflags", {{"PG_locked", 0},
                               {"PG_referenced", 2},
                               {"PG_uptodate", 3},
                               {"PG_lru", 5},
                               {"PG_head", 6},
                               {"PG_active", 8},
                               {"PG_owner_priv_1", 10},
                               {"PG_swapcache", 10},
                               {"PG_reserved", 14},
                               {"PG_mappedtodisk", 16},
                               {"PG_swapbacked", 18},
                               {"PG_young", types.young}});
    return btf;
}

} // namespace

TEST_CASE("btf: members are found by name, also in anonymous members and along a path") {
    MadeUpBtf made;
    const auto word = made.add_int(8);
    const auto inner = made.add_struct("", 16, {{"a", word}, {"b", word, 8}});
    const auto either = made.add_union("", 16, {{"c", word}, {"", inner}});
    const auto named = made.add_struct("named", 32, {{"x", word, 24}});
    const auto as_typedef = made.add_typedef("named_t", made.add_const(named));
    made.add_struct("s", 64, {{"first", word}, {"", either, 8}, {"n", as_typedef, 32}});
    const Made m{made};
    CHECK(m.btf.offset("s", "first") == 0u);
    CHECK(m.btf.offset("s", "b") == 16u);
    CHECK(m.btf.offset("s", "c") == 8u);
    CHECK(m.btf.offset("s", "n.x") == 56u);
    CHECK(m.btf.size("s") == 64u);
    CHECK(m.btf.offset("s", "d") == std::nullopt);
    CHECK(m.btf.offset("s", "n.y") == std::nullopt);
    CHECK(m.btf.offset("s", "first.x") == std::nullopt);
    CHECK(m.btf.offset("t", "first") == std::nullopt);
    CHECK(m.btf.offset("named", "x") == std::nullopt); // was not announced
    CHECK(m.btf.offset("s", "") == std::nullopt);
}

TEST_CASE("btf: a name is compared whole") {
    MadeUpBtf made;
    const auto word = made.add_int(8);
    made.add_struct("ss", 8, {{"ab", word}});
    made.add_struct("s", 16, {{"ab", word}, {"a", word, 8}});
    const Made m{made};
    CHECK(m.btf.offset("s", "a") == 8u);
    CHECK(m.btf.size("s") == 16u);
}

TEST_CASE("btf: bit fields have no byte offset, and shift nobody else's") {
    MadeUpBtf made;
    const auto word = made.add_int(8);
    made.add_struct("s", 64, {{"bits", word, 8, 3}, {"whole", word, 16}});
    const Made m{made};
    CHECK(m.btf.offset("s", "bits") == std::nullopt);
    CHECK(m.btf.offset("s", "whole") == 16u);
}

TEST_CASE("btf: enumerators and lengths of arrays") {
    MadeUpBtf made;
    const auto word = made.add_int(8);
    made.add_enum("e", {{"one", 1}, {"less", 0xffffffff}});
    made.add_struct(
        "s", 64, {{"array", made.add_typedef("t", made.add_array(word, 64)), 8}, {"word", word}});
    const Made m{made};
    CHECK(m.btf.enumerator("e", "one") == 1);
    CHECK(m.btf.enumerator("e", "less") == -1);
    CHECK(m.btf.enumerator("e", "none") == std::nullopt);
    CHECK(m.btf.enumerator("s", "array") == std::nullopt);
    CHECK(m.btf.offset("e", "one") == std::nullopt);
    CHECK(m.btf.size("e") == std::nullopt);
    CHECK(m.btf.array_length("s", "array") == 64u);
    CHECK(m.btf.array_length("s", "word") == std::nullopt);
}

TEST_CASE("btf: two definitions answer where they agree") {
    MadeUpBtf made;
    const auto word = made.add_int(8);
    made.add_struct("s", 16, {{"same", word, 8}, {"moved", word}});
    made.add_struct("s", 16, {{"moved", word, 4}, {"same", word, 8}});
    made.add_struct("t", 0, {}); // a declaration without members is no definition
    made.add_struct("t", 8, {{"a", word}});
    const Made m{made};
    CHECK(m.btf.offset("s", "same") == 8u);
    CHECK(m.btf.offset("s", "moved") == std::nullopt);
    CHECK(m.btf.size("t") == 8u);
}

TEST_CASE("btf: types that hold themselves come to an end") {
    MadeUpBtf made;
    const auto word = made.add_int(8);
    // Ids go up one by one: each of these names itself or the next.
    made.add_struct("s", 8, {{"", word + 1}, {"", word + 1}, {"", word + 1}});
    made.add_typedef("loop", word + 2);
    made.add_struct("t", 8, {{"m", word + 2}});
    const Made m{made};
    CHECK(m.btf.offset("s", "x") == std::nullopt);
    CHECK(m.btf.offset("t", "m.x") == std::nullopt);
}

TEST_CASE("btf: what is cut off anywhere is refused, and never read behind") {
    const auto whole = made_up_types().bytes();
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const std::vector<std::byte> cut{whole.begin(), whole.begin() + static_cast<long>(size)};
        const auto error = error_of([&] { find_layout(cut); });
        REQUIRE(error);
        CHECK(error->kind() == ErrorKind::bad_input);
    }
}

TEST_CASE("btf: a type that reaches out of its section is refused") {
    MadeUpBtf made;
    made.add_struct("s", 16, {{"a", made.add_int(8)}, {"b", 1, 8}});
    auto bytes = made.bytes();
    std::uint32_t length;
    std::memcpy(&length, bytes.data() + 12, sizeof length);
    for (std::uint32_t less = 1; less < 12 + 2 * 12; ++less) {
        const std::uint32_t shorter = length - less;
        std::memcpy(bytes.data() + 12, &shorter, sizeof shorter);
        const std::string_view names[] = {"s"};
        const auto error = error_of([&] { Btf{bytes, names}; });
        REQUIRE(error);
        CHECK(std::string{error->what()} == "kernel BTF: a type is cut off");
    }
}

TEST_CASE("btf: a kind that is not known cannot be stepped over") {
    MadeUpBtf made;
    made.add_kind(20);
    const auto error = error_of([&] { Made{made}; });
    REQUIRE(error);
    CHECK(std::string{error->what()} == "kernel BTF: kind 20 is not known");
}

TEST_CASE("layout: every figure comes from the types") {
    const KernelLayout layout = find_layout(made_up_types().bytes());
    CHECK(layout.task_struct_tgid == 100);
    CHECK(layout.task_struct_mm == 300);
    CHECK(layout.file_f_mapping == 216);
    CHECK(layout.file_private_data == 200);
    CHECK(layout.mm_struct_pgd == 128);
    CHECK(layout.xa_node_slots == 40);
    CHECK(layout.xa_node_slot_count == 64);
    CHECK(layout.page_bytes == 64);
    CHECK(layout.page_compound_head == 8u);
    CHECK_FALSE(layout.compound_info);
    CHECK(layout.pt_mm == 24u);
    CHECK(layout.folio_mapping == 24u);
    CHECK(layout.folio_index == 32u); // folio has none, page has
    CHECK(layout.PG_head == 6);
    CHECK(layout.PG_young == 12u);
    CHECK(layout.PGTY_table == 0xf2u);
    CHECK(layout.missing == std::vector<std::string>{"page.page_type", "pageflags.PG_idle",
                                                     "pageflags.PG_workingset",
                                                     "pageflags.PG_hwpoison"});
    std::vector<std::pair<int, int>> shown; // swapcache is no flag of its own, young is not shown
    for (const auto& [bit, kpf_bit] : layout.shown_flags) shown.emplace_back(bit, kpf_bit);
    CHECK(shown == std::vector<std::pair<int, int>>{{0, abi::KPF_LOCKED},
                                                    {2, abi::KPF_REFERENCED},
                                                    {3, abi::KPF_UPTODATE},
                                                    {5, abi::KPF_LRU},
                                                    {8, abi::KPF_ACTIVE},
                                                    {10, abi::KPF_OWNER_PRIVATE},
                                                    {16, abi::KPF_OWNER_2},
                                                    {18, abi::KPF_SWAPBACKED}});
}

TEST_CASE("layout: the word that names a folio's head has had two names") {
    Types types;
    types.compound = "compound_info"; // 7.2
    const KernelLayout layout = find_layout(made_up_types(types).bytes());
    CHECK(layout.page_compound_head == 8u);
    CHECK(layout.compound_info);
    CHECK(missing_of_plain_pages(layout).empty());
    types.compound = "something_else";
    const KernelLayout unknown = find_layout(made_up_types(types).bytes());
    CHECK(unknown.page_compound_head == std::nullopt);
    CHECK_FALSE(unknown.compound_info);
    CHECK(missing_of_plain_pages(unknown) == "page.compound_head");
    CHECK(std::count(unknown.missing.begin(), unknown.missing.end(), "page.compound_head") == 1);
}

TEST_CASE("layout: on an old kernel a table's owner stands in page") {
    const KernelLayout layout = find_layout(made_up_types({.old_kernel = true}).bytes());
    CHECK(layout.pt_mm == 16u);
    CHECK(layout.PGTY_table == std::nullopt);
}

TEST_CASE("layout: what must be there and is not is named") {
    const auto error =
        error_of([] { find_layout(made_up_types({.left_out = "file.f_mapping"}).bytes()); });
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(std::string{error->what()} == "kernel BTF: does not tell file.f_mapping");
    const auto everything = error_of([] { find_layout(MadeUpBtf{}.bytes()); });
    REQUIRE(everything);
    for (const char* name :
         {"task_struct.files", "xa_node.slots", "sizeof page", "pageflags.PG_lru"})
        CHECK(std::string{everything->what()}.find(name) != std::string::npos);
}

TEST_CASE("layout: figures with which a walk would go astray are refused") {
    const auto is_refused = [](const Types& types) {
        const auto error = error_of([&] { find_layout(made_up_types(types).bytes()); });
        return error && error->kind() == ErrorKind::unsupported;
    };
    CHECK_FALSE(is_refused({}));
    CHECK_FALSE(is_refused({.slots = 16}));
    for (const std::uint32_t slots : {0u, 1u, 48u, 128u, 0x80000000u})
        CHECK(is_refused({.slots = slots}));
    for (const std::uint32_t bytes : {0u, 8u, 52u, 65u, 0x10000u})
        CHECK(is_refused({.page_bytes = bytes}));
    CHECK(is_refused({.young = 64}));
}
