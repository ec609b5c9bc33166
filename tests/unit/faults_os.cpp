// SPDX-License-Identifier: MIT
// Files of a process that are missing, cut short at every byte, folders, or refuse to be read.
#include "error_of.hpp"
#include "faults.hpp"
#include "os/file.hpp"
#include "os_fake_root.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <unistd.h>

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::test;

namespace {

namespace fs = std::filesystem;

std::uint64_t page_size() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }
constexpr std::uint64_t base = 0x10000000;

std::string line_of_maps(std::uint64_t first, std::uint64_t end, std::string_view rest) {
    return fmt::format("{:x}-{:x} rw-p 00000000 00:00 0 {}\n", base + first * page_size(),
                       base + end * page_size(), rest);
}

/// Sixteen pages in two mappings: large, merged, shared, swapped, marked, and the zero page.
void fill(FakeRoot& root) {
    root.process(42, line_of_maps(0, 8, "[heap]") + line_of_maps(8, 16, ""));
    const std::uint64_t guard = PM_SWAP | PM_GUARD_REGION | pagemap_swap(31, 4);
    root.write_words("proc/42/pagemap", base / page_size(),
                     {PM_PRESENT | PM_MMAP_EXCLUSIVE | 16, PM_PRESENT | PM_MMAP_EXCLUSIVE | 17, 0,
                      PM_PRESENT | 18, PM_PRESENT | 19, pagemap_swap(0, 9), guard, 0, 0,
                      PM_PRESENT | PM_MMAP_EXCLUSIVE | 20, 0, PM_PRESENT | 21, pagemap_swap(0, 4),
                      0, 0, PM_PRESENT | PM_MMAP_EXCLUSIVE | 22});
    const std::uint64_t anon = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED) | kpf(KPF_UPTODATE);
    root.write_words("proc/kpageflags", 16,
                     {anon | kpf(KPF_THP) | kpf(KPF_COMPOUND_HEAD),
                      anon | kpf(KPF_THP) | kpf(KPF_COMPOUND_TAIL), kpf(KPF_ZERO_PAGE),
                      anon | kpf(KPF_KSM), anon, anon | kpf(KPF_KSM), anon});
    root.write_words("proc/kpagecount", 16, {1, 1, 0, 3, 1, 2, 1});
    root.write("proc/42/ksm_stat", "ksm_rmap_items 0\n");
    root.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swap file 100 10 -2\n");
}

Census look_at(const FakeRoot& root) {
    os::OpenOptions options;
    options.root = root.path();
    const auto source = os::open_process(42, os::open_machine(options), options);
    LookOptions look_options;
    look_options.jobs = 1;
    return look(*source, look_options);
}

constexpr const char* files[] = {
    "proc/42/stat",    "proc/42/status", "proc/42/maps",     "proc/42/pagemap", "proc/kpageflags",
    "proc/kpagecount", "proc/42/comm",   "proc/42/ksm_stat", "proc/swaps",
};

/// What may be said of it, whatever file is broken.
void check_answer(const Census& census, const Census& whole, const std::string& file) {
    check_sums(census);
    for (const MappingCensus& entry : census.mappings) {
        const bool true_range = std::any_of(
            whole.mappings.begin(), whole.mappings.end(),
            [&](const MappingCensus& known) { return known.mapping.range == entry.mapping.range; });
        CHECK(true_range);
    }
    for (std::size_t i = 0; i < state_count; ++i) {
        const auto state = static_cast<State>(i);
        CHECK(census.totals.state_pages(state) <= whole.totals.state_pages(state));
    }
    const bool all = census.totals.pages() == whole.totals.pages();
    // A file of mappings that ends behind a line is one of fewer mappings.
    if (!all && file != "proc/42/maps") CHECK(is_partial(census));
    if (!all || !census.frames_known) return;
    for (std::size_t i = 0; i < kind_count; ++i) {
        const auto kind = static_cast<Kind>(i);
        if (kind == Kind::unknown) continue;
        CHECK(census.totals.kind_pages(kind) <= whole.totals.kind_pages(kind));
        // What is merged and by how many is told by map counts.
        const bool ksm = kind == Kind::ksm || kind == Kind::ksm_sole;
        if (file != "proc/kpageflags" && !ksm)
            CHECK(census.totals.kind_pages(kind) == whole.totals.kind_pages(kind));
    }
    if (census.totals.pss_unknown_pages == 0 && file == "proc/kpagecount")
        CHECK(census.totals.pss_shifted == whole.totals.pss_shifted);
}

void check_look(const FakeRoot& root, const Census& whole, const std::string& file) {
    CAPTURE(file);
    ++injected_faults();
    std::optional<Census> census;
    const auto error = error_of([&] { census = look_at(root); });
    REQUIRE((error || census));
    if (error) CHECK(std::string{error->what()}.size() > 3);
    if (census) check_answer(*census, whole, file);
}

/// A file of which every read is refused (EIO): there is nothing at the start of our own memory.
void make_unreadable(const fs::path& file) {
    fs::remove(file);
    fs::create_symlink("/proc/self/mem", file);
}

std::string contents_of(const fs::path& file) {
    std::ifstream in{file, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
}

} // namespace

TEST_CASE("faults: the files of a process may be missing, empty, folders or unreadable") {
    FakeRoot intact;
    fill(intact);
    const Census whole = look_at(intact);
    REQUIRE(whole.totals.pages() == 16);
    REQUIRE(whole.totals.kind_pages(Kind::thp) == 2);
    for (const std::string file : files) {
        for (int way = 0; way < 5; ++way) {
            CAPTURE(way);
            FakeRoot root;
            fill(root);
            const fs::path path = fs::path{root.path()} / file;
            fs::remove(path);
            if (way == 1) root.write(file, "");
            if (way == 2) fs::create_directory(path);
            if (way == 3) make_unreadable(path);
            if (way == 4) fs::create_symlink("nowhere", path);
            check_look(root, whole, file);
        }
    }
}

TEST_CASE("faults: mappings and status that cannot be read are no process without any") {
    for (const std::string file : {"proc/42/maps", "proc/42/stat"}) {
        FakeRoot root;
        fill(root);
        make_unreadable(fs::path{root.path()} / file);
        ++injected_faults();
        const auto error = error_of([&] { look_at(root); });
        REQUIRE(error);
        CHECK(error->kind() == ErrorKind::denied);
    }
}

TEST_CASE("faults: page flags that cannot be read are unknown, with a gap that says so") {
    FakeRoot root;
    fill(root);
    make_unreadable(fs::path{root.path()} / "proc/kpageflags");
    ++injected_faults();
    const Census census = look_at(root);
    CHECK_FALSE(census.frames_known);
    CHECK(std::any_of(census.gaps.begin(), census.gaps.end(),
                      [](const Gap& gap) { return gap.source == "kpageflags"; }));
}

TEST_CASE("faults: map counts that cannot be read are unknown, with a gap that says so") {
    FakeRoot root;
    fill(root);
    make_unreadable(fs::path{root.path()} / "proc/kpagecount");
    ++injected_faults();
    const Census census = look_at(root);
    CHECK(census.totals.pss_unknown_pages > 0);
    CHECK(std::any_of(census.gaps.begin(), census.gaps.end(),
                      [](const Gap& gap) { return gap.source == "kpagecount"; }));
}

TEST_CASE("faults: files of a process that end at any byte") {
    FakeRoot intact;
    fill(intact);
    const Census whole = look_at(intact);
    FakeRoot root;
    fill(root);
    for (const std::string file : files) {
        const fs::path path = fs::path{root.path()} / file;
        const std::string text = contents_of(path);
        // Of the files of words only the last part is no hole.
        const std::size_t from = file.ends_with("pagemap")        ? base / page_size() * 8
                                 : file.starts_with("proc/kpage") ? 15 * 8
                                                                  : 0;
        for (std::size_t bytes = text.size(); bytes-- > from;) {
            CAPTURE(bytes);
            fs::resize_file(path, bytes);
            check_look(root, whole, file);
        }
        std::ofstream{path, std::ios::binary} << text;
    }
    check_answer(look_at(root), whole, "");
}

TEST_CASE("faults: a list of processes is whole, or an error") {
    const auto fill_list = [](FakeRoot& root) {
        for (const unsigned pid : {7u, 42u, 99u}) root.process(pid, line_of_maps(0, 8, ""));
    };
    for (const unsigned pid : {7u, 42u, 99u})
        for (int way = 0; way < 4; ++way) {
            CAPTURE(pid);
            CAPTURE(way);
            FakeRoot root;
            fill_list(root);
            const fs::path path = fs::path{root.path()} / fmt::format("proc/{}/stat", pid);
            os::OpenOptions options;
            options.root = root.path();
            REQUIRE(os::list_processes(options, {}).size() == 3);
            fs::remove(path);
            if (way == 1) fs::create_directory(path);
            if (way == 2) make_unreadable(path);
            if (way == 3) fs::create_symlink("nowhere", path);
            ++injected_faults();
            std::size_t found = 0;
            const auto error = error_of([&] { found = os::list_processes(options, {}).size(); });
            // A process whose file is not there has ended.
            const bool ended = way == 0 || way == 3;
            CHECK(error.has_value() == !ended);
            if (ended) CHECK(found == 2);
            const auto unsure = error_of([&] { os::is_same_process(pid, 777, options); });
            CHECK(unsure.has_value() == !ended);
        }
}

TEST_CASE("faults: words that end early, and reads that are refused") {
    FakeRoot root;
    std::vector<std::uint64_t> words(64);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = i + 1;
    root.write_words("words", 0, words);
    const fs::path path = fs::path{root.path()} / "words";
    const os::Root opened{root.path()};
    for (std::size_t bytes = words.size() * 8; bytes-- > 0;) {
        fs::resize_file(path, bytes);
        const auto file = opened.open("words", O_RDONLY);
        for (const std::uint64_t first : {0u, 1u, 31u, 63u}) {
            std::vector<std::uint64_t> out(words.size() - first, ~std::uint64_t{0});
            const auto n = os::read_words(file.fd.get(), first, out);
            ++injected_faults();
            const std::size_t there = bytes / 8;
            REQUIRE(n == static_cast<std::int64_t>(there > first ? there - first : 0));
            for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
                REQUIRE(out[i] == first + i + 1);
        }
    }
    make_unreadable(path);
    const auto file = opened.open("words", O_RDONLY);
    std::uint64_t word = 0;
    CHECK(os::read_words(file.fd.get(), 0, {&word, 1}) == -EIO);
    CHECK(os::read_text(file.fd.get()).error == EIO);
    injected_faults() += 2;
}
