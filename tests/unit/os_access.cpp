// SPDX-License-Identifier: MIT
// The ways to see accesses, on folders that look like /proc and /sys. The idle bitmap is tested
// here alone: no kernel that the live tests run on has it.
#include "error_of.hpp"
#include "os/reclaim_counters.hpp"
#include "os_fake_root.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <algorithm>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

using namespace pagesift;
using namespace pagesift::abi;
using pagesift::os::AccessKind;
using pagesift::test::FakeRoot;

namespace {

std::uint64_t page_size() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }
constexpr std::uint64_t base = 0x10000000;
constexpr std::uint64_t lru = kpf(KPF_ANON) | kpf(KPF_LRU);

/// Six pages from the base on, and what is watched of them.
class Watched {
public:
    FakeRoot root;
    os::OpenOptions options;
    os::Machine machine;
    Mapping mapping;

    Watched() {
        const std::uint64_t end = base + 6 * page_size();
        root.process(42, fmt::format("{:x}-{:x} rw-p 00000000 00:00 0 [heap]\n", base, end));
        root.write("proc/42/clear_refs", "");
        smaps(0);
        entries(
            {PM_PRESENT | 5, PM_PRESENT | 6, PM_PRESENT | 7, 0, PM_SWAP | 8 << 5, PM_PRESENT | 9});
        flags(5, {lru, lru, lru, 0, lru});
        faults(3);
        options.root = root.path();
        mapping.range = {Address{base}, Address{end}};
        mapping.page_size = page_size();
        machine = os::open_machine(options);
    }

    void entries(const std::vector<std::uint64_t>& words) {
        root.write_words("proc/42/pagemap", base / page_size(), words);
    }
    void flags(std::uint64_t first, const std::vector<std::uint64_t>& words) {
        root.write_words("proc/kpageflags", first, words);
        root.write_words("proc/kpagecount", first, std::vector<std::uint64_t>(words.size(), 1));
    }
    void smaps(unsigned referenced) {
        root.write("proc/42/smaps",
                   fmt::format("{:x}-{:x} rw-p 00000000 00:00 0 [heap]\nRss: 16 kB\nReferenced: {} "
                               "kB\nVmFlags: rd wr\n",
                               base, base + 6 * page_size(), referenced));
    }
    void faults(unsigned minor) {
        root.write("proc/42/stat", fmt::format("42 (a) b) S 1 1 1 0 -1 4194560 {} 9 1 9 0 0 0 0 20 "
                                               "0 1 0 777 1 1 1\n",
                                               minor));
    }
    void setting(const std::string& name, const std::string& text) {
        root.write(name, text);
        machine = os::open_machine(options);
    }
    std::string cleared() const {
        std::ifstream file{root.path() + "/proc/42/clear_refs"};
        return {std::istreambuf_iterator<char>{file}, {}};
    }

    void open(AccessKind kind) {
        source = os::open_access(42, kind, machine, options).source;
        look(Sight::note);
        source->forget();
    }
    /// A letter a page: i idle, a accessed, ? unknown, _ none.
    std::string look(Sight which = Sight::last) {
        source->prepare({mapping});
        TouchBlock block;
        source->sight(mapping, mapping.range, which, block);
        std::string letters;
        for (const Touch touch : block.touches)
            letters += touch == Touch::idle       ? 'i'
                       : touch == Touch::accessed ? 'a'
                       : touch == Touch::unknown  ? '?'
                                                  : '_';
        return letters;
    }

    std::unique_ptr<AccessSource> source;
};

ErrorKind error_of(Watched& watched, AccessKind kind) {
    const auto error =
        test::error_of([&] { os::open_access(42, kind, watched.machine, watched.options); });
    return error ? error->kind() : ErrorKind::usage;
}

} // namespace

TEST_CASE("access: what reclaim did is a sum that moves, or not known") {
    FakeRoot root;
    const os::Root opened{root.path()};
    const os::ReclaimCounters counters{opened};
    CHECK(!counters.read().all);
    root.write("proc/vmstat", "nr_free_pages 5\n");
    CHECK(!counters.read().all);
    CHECK(!counters.read().refills);
    const std::string others = "nr_free_pages 6\npgfault 7\npgsteal_kswapd 8\n";
    root.write("proc/vmstat", others + "pgscan_kswapd 1\npgrefill 2\npgdeactivate 4\n");
    CHECK(counters.read().all == 7u);
    CHECK(counters.read().refills == 6u);
    root.write("proc/vmstat", others + "pgscan_kswapd 1\npgrefill 2\npgdeactivate 4\n"
                                       "pgscan_anon 8\nallocstall_normal 16\npageoutrun 32\n"
                                       "pgmigrate_success 64\n");
    CHECK(counters.read().all == 127u);
}

TEST_CASE("access: the idle bitmap says which frames nobody touched") {
    Watched w;
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {0, 0});
    w.open(AccessKind::idle_bitmap);
    CHECK(w.look(Sight::again) == "iii_ii");
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {1 << 5 | 1 << 7 | 1 << 9});
    CHECK(w.look(Sight::again) == "iai_ii");
    // Only what was accessed is set again: of the others nothing is lost between rounds.
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {0});
    w.source->forget();
    CHECK(w.look() == "aia_ia");
    CHECK(w.source->traits().name == "idle-bitmap");
}

TEST_CASE("access: frames that the idle bitmap cannot know are unknown") {
    Watched w;
    w.flags(6, {kpf(KPF_ANON)}); // on no LRU list
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {0, 0});
    w.open(AccessKind::idle_bitmap);
    // The third page is another one now, the fourth new, the last gone.
    w.entries(
        {PM_PRESENT | 5, PM_PRESENT | 6, PM_PRESENT | 8, PM_PRESENT | 10, PM_SWAP | 8 << 5, 0});
    w.flags(8, {lru, lru, lru});
    CHECK(w.look() == "i??ai_");
    w.mapping.backing = Backing::file; // what is new may have come by fault-around
    CHECK(w.look() == "i???i_");
}

TEST_CASE("access: large folios have one idle bit, that of their head") {
    Watched w;
    const std::uint64_t head = lru | kpf(KPF_COMPOUND_HEAD) | kpf(KPF_THP);
    const std::uint64_t tail = lru | kpf(KPF_COMPOUND_TAIL) | kpf(KPF_THP);
    w.entries({PM_PRESENT | 16, PM_PRESENT | 17, PM_PRESENT | 18, PM_PRESENT | 19, 0, 0});
    w.flags(16, {head, tail, tail, tail, lru});
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {0, 0});
    w.open(AccessKind::idle_bitmap);
    CHECK(w.look(Sight::again) == "iiii__");
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {0xfe << 16});
    CHECK(w.look() == "aaaa__");
}

TEST_CASE("access: Referenced answers for whole mappings, and only for pages that stayed") {
    Watched w;
    w.open(AccessKind::referenced);
    CHECK(w.cleared() == "14");
    w.entries({PM_PRESENT | 5, PM_PRESENT | 66, PM_PRESENT | 7, PM_PRESENT | 8, PM_SWAP | 8 << 5,
               PM_SWAP | 9 << 5});
    CHECK(w.look() == "i?i?i?");
    w.smaps(4);
    CHECK(w.look() == "aaaai?");
    w.root.write("proc/42/smaps", "");
    CHECK(w.look() == "????i?");
}

TEST_CASE("access: swapped pages are idle only if the process had no page fault") {
    Watched w;
    w.open(AccessKind::referenced);
    w.faults(4);
    CHECK(w.look() == "iii_?i");
    CHECK(w.look() == "iii_ii");
    w.root.write("proc/42/stat", "42 (a");
    CHECK(w.look() == "iii_?i");
}

TEST_CASE("access: hints of the LRU lists are told from what was there before") {
    Watched w;
    w.flags(5, {lru, lru | kpf(KPF_REFERENCED), lru, 0, lru | kpf(KPF_ACTIVE)});
    w.open(AccessKind::lru);
    CHECK(w.cleared().empty());
    CHECK(w.source->traits().proves_idle == false);
    w.flags(5, {lru | kpf(KPF_ACTIVE), lru | kpf(KPF_REFERENCED), lru, 0, lru});
    CHECK(w.look() == "a?i_i?");
    CHECK(w.source->gaps().empty());
}

TEST_CASE("access: under MGLRU the hints mean nothing") {
    for (const char* enabled : {"0x0007\n", "0x0001\n"}) {
        Watched w;
        w.setting("sys/kernel/mm/lru_gen/enabled", enabled);
        w.open(AccessKind::lru);
        w.flags(5, {lru | kpf(KPF_ACTIVE)});
        CHECK(w.look() == "???_i?");
        REQUIRE(w.source->gaps().size() == 1);
        CHECK(w.source->gaps()[0].incomplete);
    }
    Watched off;
    off.setting("sys/kernel/mm/lru_gen/enabled", "0x0000\n");
    off.open(AccessKind::lru);
    CHECK(off.look() == "iii_ii");
}

TEST_CASE("access: soft-dirty bits tell writes, where the kernel has them") {
    Watched w;
    CHECK(error_of(w, AccessKind::soft_dirty) == ErrorKind::unsupported);
    auto host = std::make_shared<HostFacts>(*w.machine.host);
    host->soft_dirty = true;
    w.machine.host = host;
    w.open(AccessKind::soft_dirty);
    CHECK(w.cleared() == "4");
    CHECK(w.source->traits().reads_seen == false);
    w.entries({PM_PRESENT | 5, PM_PRESENT | PM_SOFT_DIRTY | 6, PM_PRESENT | 7, PM_PRESENT | 8,
               PM_SWAP | 8 << 5, PM_SWAP | PM_SOFT_DIRTY | 9 << 5});
    CHECK(w.look() == "iai?ia");
}

TEST_CASE("access: auto takes the first that works, and says why the others would not do") {
    Watched w;
    auto access = os::open_access(42, AccessKind::automatic, w.machine, w.options);
    CHECK(access.source->traits().name == "referenced");
    REQUIRE(access.passed_over.size() == 2);
    CHECK(access.passed_over[0].source == "source exact");
    CHECK(access.passed_over[1].source == "source idle-bitmap");
    CHECK(!access.passed_over[1].reason.empty());
    w.root.write_words("sys/kernel/mm/page_idle/bitmap", 0, {0, 0});
    CHECK(os::open_access(42, AccessKind::automatic, w.machine, w.options).source->traits().name ==
          "idle-bitmap");
    std::filesystem::remove(w.root.path() + "/sys/kernel/mm/page_idle/bitmap");
    std::filesystem::remove(w.root.path() + "/proc/42/clear_refs");
    access = os::open_access(42, AccessKind::automatic, w.machine, w.options);
    CHECK(access.source->traits().name == "lru");
    CHECK(access.passed_over.size() == 4);
}

TEST_CASE("access: what cannot be had is an error that says so") {
    Watched w;
    CHECK(error_of(w, AccessKind::exact) == ErrorKind::unsupported);
    CHECK(error_of(w, AccessKind::idle_bitmap) == ErrorKind::unsupported);
    std::filesystem::remove(w.root.path() + "/proc/kpageflags");
    CHECK(error_of(w, AccessKind::lru) == ErrorKind::denied);
    std::filesystem::remove(w.root.path() + "/proc/42/pagemap");
    CHECK(error_of(w, AccessKind::automatic) == ErrorKind::gone);
}

TEST_CASE("access: memory that is gone is an error, not idle") {
    Watched w;
    w.open(AccessKind::referenced);
    std::filesystem::resize_file(w.root.path() + "/proc/42/pagemap", 0);
    const auto error = test::error_of([&] { w.look(); });
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::gone);
}
