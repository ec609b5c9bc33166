// SPDX-License-Identifier: MIT
#include "os_fake_root.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/classify.hpp"
#include "pagesift/os.hpp"

#include <doctest/doctest.h>
#include <filesystem>
#include <sstream>
#include <unistd.h>

using namespace pagesift;
using namespace pagesift::abi;
using pagesift::test::FakeRoot;

namespace {

// The readers go by this machine's page size, so what they are given does as well.
std::uint64_t page_size() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }
constexpr std::uint64_t base = 0x10000000;

/// A line of maps for the pages [first, end) from the base on, up to the inode.
std::string line_of_maps(std::uint64_t first, std::uint64_t end, const std::string& name = "") {
    std::ostringstream line;
    line << std::hex << base + first * page_size() << '-' << base + end * page_size()
         << " rw-p 00000000 00:00 0 " << name << '\n';
    return line.str();
}

std::string one_mapping() { return line_of_maps(0, 16, "[heap]"); }

Census look_at(const FakeRoot& root, unsigned pid = 42, ZeroTest zero = ZeroTest::off) {
    os::OpenOptions options;
    options.root = root.path();
    const auto source = os::open_process(pid, os::open_machine(options), options);
    LookOptions look_options;
    look_options.want.zero = zero;
    return look(*source, look_options);
}

ErrorKind error_of(const FakeRoot& root, unsigned pid = 42) {
    try {
        look_at(root, pid);
    } catch (const Error& error) {
        return error.kind();
    }
    FAIL("no error");
    return ErrorKind::failed;
}

bool is_incomplete(const Census& census) {
    for (const Gap& gap : census.gaps)
        if (gap.incomplete) return true;
    return false;
}

/// Sixteen pages from the base on: three present, two swapped, a guard, the rest none.
FakeRoot& fill(FakeRoot& root) {
    root.process(42, one_mapping());
    const std::uint64_t guard = PM_SWAP | PM_GUARD_REGION | 4 << 5 | 31;
    root.write_words("proc/42/pagemap", base / page_size(),
                     {PM_PRESENT | PM_MMAP_EXCLUSIVE | 5, 0, PM_PRESENT | 6, PM_PRESENT | 7,
                      PM_SWAP | 8 << 5, PM_SWAP | 9 << 5, guard, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    const std::uint64_t anon = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED);
    root.write_words("proc/kpageflags", 5, {anon, anon | kpf(KPF_KSM), kpf(KPF_ZERO_PAGE)});
    root.write_words("proc/kpagecount", 5, {1, 1, 0});
    return root;
}

} // namespace

TEST_CASE("process: a folder that looks like one is read like one") {
    FakeRoot root;
    const Census census = look_at(fill(root));
    CHECK(census.process.comm == "a (b) c");
    CHECK(census.process.start_time() == 777);
    CHECK(census.totals.pages() == 16);
    CHECK(census.totals.kind_pages(Kind::anon) == 1);
    CHECK(census.totals.kind_pages(Kind::ksm_sole) == 1);
    CHECK(census.totals.kind_pages(Kind::zero_page) == 1);
    CHECK(census.totals.state_pages(State::swapped) == 2);
    CHECK(census.totals.marker_pages(Marker::guard) == 1);
    CHECK(census.totals.state_pages(State::none) == 10);
    CHECK(census.tables.needed_tables == 3);
    CHECK_FALSE(is_incomplete(census));
}

TEST_CASE("process: a page map that ends early leaves a gap, and what came before it") {
    FakeRoot root;
    fill(root);
    std::filesystem::resize_file(root.path() + "/proc/42/pagemap",
                                 (base / page_size() + 5) * 8 + 3);
    const Census census = look_at(root);
    CHECK(census.totals.pages() == 5);
    CHECK(is_incomplete(census));
}

TEST_CASE("process: without kpageflags kinds are what the entries say, and a gap says why") {
    FakeRoot root;
    fill(root);
    std::filesystem::remove(root.path() + "/proc/kpageflags");
    const Census census = look_at(root);
    CHECK_FALSE(census.frames_known);
    CHECK(census.totals.state_pages(State::present) == 3);
    bool said = false;
    for (const Gap& gap : census.gaps) said = said || gap.source == "kpageflags";
    CHECK(said);
}

TEST_CASE("process: an entry that points to a broken frame is marked, one that migrates is not") {
    FakeRoot root;
    root.process(42, one_mapping());
    std::vector<std::uint64_t> entries(16);
    entries[0] = PM_SWAP | 70 << 5 | 27;
    entries[1] = PM_SWAP | 71 << 5 | 27;
    entries[2] = PM_SWAP | 70 << 5 | 3; // a swap slot of that number, not a frame
    root.write_words("proc/42/pagemap", base / page_size(), entries);
    root.write_words("proc/kpageflags", 70, {kpf(KPF_HWPOISON), kpf(KPF_ANON)});
    const Census census = look_at(root);
    CHECK(census.totals.state_pages(State::migrating) == 2);
    CHECK(census.totals.marker_pages(Marker::hwpoison) == 1);
    CHECK(census.totals.state_pages(State::swapped) == 1);
}

TEST_CASE("process: contents of device memory are not read, and a gap says so") {
    FakeRoot root;
    fill(root);
    root.write("proc/42/smaps", one_mapping() + "Rss:  12 kB\nVmFlags: rd wr io mm\n");
    const Census census = look_at(root, 42, ZeroTest::all);
    CHECK(census.totals.content_asked == 0);
    bool said = false;
    for (const Gap& gap : census.gaps)
        said = said || (gap.source == "contents" && gap.reason.find("VM_IO") != gap.reason.npos);
    CHECK(said);
}

TEST_CASE("process: what is not there is gone, and a thread is not a process") {
    FakeRoot root;
    fill(root);
    CHECK(error_of(root, 43) == ErrorKind::gone);
    root.process(50, one_mapping());
    root.write("proc/50/status", "Name:\tx\nTgid:\t42\nVmSize:\t 1 kB\n");
    CHECK(error_of(root, 50) == ErrorKind::gone);
    std::filesystem::remove(root.path() + "/proc/42/pagemap");
    CHECK(error_of(root) == ErrorKind::gone);
}

TEST_CASE("process: kernel threads and zombies are refused by name") {
    FakeRoot root;
    fill(root);
    root.write("proc/42/status", "Name:\tkthreadd\nTgid:\t42\nState:\tS (sleeping)\n");
    CHECK(error_of(root) == ErrorKind::unsupported);
    root.write("proc/42/status", "Name:\tx\nTgid:\t42\nState:\tZ (zombie)\n");
    CHECK(error_of(root) == ErrorKind::gone);
}

TEST_CASE("process: one whose leader has exited is read through another thread") {
    FakeRoot root;
    fill(root);
    std::filesystem::create_directories(root.path() + "/proc/42/task/42");
    std::filesystem::create_directories(root.path() + "/proc/42/task/44");
    root.write("proc/44/status", "Name:\tx\nTgid:\t42\nVmSize:\t 1 kB\nVmPTE:\t12 kB\n");
    for (const char* name : {"maps", "pagemap"})
        std::filesystem::rename(root.path() + "/proc/42/" + name, root.path() + "/proc/44/" + name);
    root.write("proc/42/status", "Name:\tx\nTgid:\t42\nState:\tZ (zombie)\n");
    CHECK(look_at(root).totals.state_pages(State::present) == 3);
}

TEST_CASE("process: hostile maps neither crash nor add up wrongly") {
    FakeRoot root;
    fill(root);
    root.write("proc/42/maps",
               line_of_maps(0, 4) + line_of_maps(2, 8) + // overlaps what came before
                   "nonsense\n" + line_of_maps(9, 8) + line_of_maps(10, 11, "/x\\012y\x1b[2J") +
                   "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n" +
                   "2000c800-2000d800 rw-p 00000000 00:00 0 \n" + // no whole pages
                   "1000c000-1000d");
    const Census census = look_at(root);
    CHECK(census.mappings.size() == 3);
    CHECK(census.totals.pages() == 9);
    CHECK(is_incomplete(census)); // lines were lost
}

TEST_CASE("process: this one can be looked at, and its own sizes agree") {
    os::OpenOptions options;
    const auto source = os::open_process(static_cast<std::uint32_t>(::getpid()),
                                         os::open_machine(options), options);
    const Census census = look(*source, {});
    std::uint64_t size = 0;
    for (const auto& entry : census.mappings) size += entry.mapping.range.size().value;
    CHECK(census.totals.pages() * census.host.page_size == size);
    CHECK(census.totals.state_pages(State::present) > 100);
}

TEST_CASE("process: probing for features tells its own story") {
    const auto [features, checks] = os::probe_features({});
    CHECK(features.size() > 15);
    const auto lens = std::find_if(features.begin(), features.end(),
                                   [](const Feature& f) { return f.name == "exact-lens"; });
    REQUIRE(lens != features.end());
    // All of them, or the lens says why not; page flags may lack a privilege.
    for (const SelfCheck& check : checks)
        if (lens->works == true && check.name != "page-flags") CHECK(check.passed);
    CHECK((lens->works == true ? checks.size() == 8 : !lens->detail.empty()));
    for (const Feature& feature : features) {
        CHECK_FALSE(feature.name.empty());
        CHECK_FALSE(feature.unlocks.empty());
        if (feature.works.value_or(false)) CHECK(feature.remedy.empty());
    }
}
