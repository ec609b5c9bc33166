// SPDX-License-Identifier: MIT
#include "made_up_source.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/figures.hpp"
#include "pagesift/scan.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::scan;
using pagesift::test::MadeUpPage;
using pagesift::test::MadeUpSource;

namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t anon_flags = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED) | kpf(KPF_LRU);
constexpr std::uint64_t heap = 0x10000000, file = 0x20000000, shm = 0x30000000;
constexpr procfs::Device disk{8, 1}, memory{0, 1};

Value bytes(std::uint64_t value) { return Value{value}; }

std::uint64_t number(const Record& record, std::string_view field) {
    INFO(field);
    const auto* const value = std::get_if<std::uint64_t>(&record.at(field));
    REQUIRE(value);
    return *value;
}

Identity identity() {
    Identity one;
    one.pid = 42;
    one.parent = 1;
    one.start_time = 77;
    one.comm = "made up";
    one.uid = 1000;
    one.cgroup = "/a.slice";
    return one;
}

/// Anonymous memory, a file and shared memory: pages of all three mapped once and thrice, in swap,
/// and in the page cache only. Only the inodes tell one such process from another.
struct Process {
    MadeUpSource made_up;

    explicit Process(std::uint64_t inodes = 100, std::uint32_t sharers = 3) {
        made_up.map(heap, heap + 10 * page);
        Mapping& text = made_up.map(file, file + 8 * page, Backing::file);
        text.inode = inodes;
        text.device = disk;
        text.offset = 4 * page;
        text.name = "/usr/lib/libmade-up.so";
        Mapping& shared = made_up.map(shm, shm + 6 * page, Backing::shmem);
        shared.inode = inodes + 1;
        shared.device = memory;
        shared.shared = true;
        put(heap, 0, {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | 1, .flags = anon_flags});
        put(heap, 1, {.entry = PM_PRESENT | 2, .flags = anon_flags, .map_count = sharers});
        put(heap, 2, {.entry = PM_SWAP | 9 << 5});
        put(file, 0,
            {.entry = PM_PRESENT | PM_FILE | 3, .flags = kpf(KPF_LRU), .map_count = sharers});
        put(file, 1, {.cache = Cache::cached});
        put(file, 2, {.cache = Cache::cached});
        put(file, 3, {.cache = Cache::absent});
        put(shm, 0,
            {.entry = PM_PRESENT | PM_FILE | 4,
             .flags = kpf(KPF_LRU) | kpf(KPF_SWAPBACKED),
             .map_count = sharers});
        put(shm, 1, {.cache = Cache::absent});
        for (std::uint64_t i = 4; i < 8; ++i) put(file, i, {.cache = Cache::hole});
        for (std::uint64_t i = 2; i < 6; ++i) put(shm, i, {.cache = Cache::hole});
        made_up.text.status = "Name:\tx\nTgid:\t42\nVmSize:\t96 kB\nVmPTE:\t40 kB\n";
    }
    void put(std::uint64_t start, std::uint64_t index, MadeUpPage what) {
        made_up.pages[start + index * page] = what;
    }

    Census look_closely(ZeroTest zero = ZeroTest::off) {
        LookOptions options;
        options.want.zero = zero;
        return look(made_up, options);
    }
};

Rollup rollup_of(std::string_view text) {
    Rollup rollup;
    rollup.sizes = procfs::parse_size_fields(text);
    rollup.status =
        procfs::parse_status("Tgid:\t42\nVmSize:\t1000 kB\nVmRSS:\t90 kB\nVmPTE:\t8 kB\n");
    return rollup;
}

bool mentions(const Record& record, std::string_view part) {
    for (const Gap& gap : record.gaps)
        if (gap.reason.find(part) != gap.reason.npos) return true;
    return false;
}

} // namespace

TEST_CASE("scan: a record of smaps_rollup") {
    const Record r = make_record(
        identity(), rollup_of("Rss: 100 kB\nPss: 50 kB\nPss_Anon: 30 kB\nPss_File: 20 kB\n"
                              "Pss_Shmem: 0 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n"
                              "Anonymous: 30 kB\nAnonHugePages: 0 kB\nShared_Hugetlb: 0 kB\n"
                              "Private_Hugetlb: 0 kB\nSwap: 7 kB\nSwapPss: 5 kB\n"));
    CHECK(r.at("pid") == bytes(42));
    CHECK(r.at("parent_pid") == bytes(1));
    CHECK(r.at("uid") == bytes(1000));
    CHECK(r.at("exe") == Value{});
    CHECK(r.at("depth") == Value{std::string{"totals"}});
    CHECK(r.at("size_bytes") == bytes(1000 << 10));
    CHECK(r.at("rss_bytes") == bytes(100 << 10));
    CHECK(r.at("private_bytes") == bytes(3 << 10));
    CHECK(r.at("swap_pss_bytes") == bytes(5 << 10));
    CHECK(r.at("page_tables_bytes") == bytes(8 << 10));
    CHECK(r.at("complete") == Value{true});
    // Not in this text, and not looked at: unknown, and never 0.
    CHECK(r.at("ksm_merged_bytes") == Value{});
    CHECK(mentions(r, "does not tell KSM"));
    CHECK(r.at("swapped_bytes") == Value{});
    CHECK(r.at("empty_tables") == Value{});
}

TEST_CASE("scan: without smaps_rollup there is a reason, and what status says") {
    const Record r = make_record(identity(), rollup_of(""));
    CHECK(r.at("pss_bytes") == Value{});
    CHECK(r.at("swap_bytes") == Value{});
    CHECK(r.at("rss_bytes") == bytes(90 << 10));
    REQUIRE(r.gaps.size() == 1);
    CHECK(r.gaps[0].source == "smaps_rollup");
}

TEST_CASE("scan: a process without memory certainly holds none") {
    Rollup rollup;
    rollup.status = procfs::parse_status("Tgid:\t2\nKthread:\t1\n");
    CHECK(make_record(identity(), rollup).at("pss_bytes") == bytes(0));
    // Of a status that could not be read nothing follows.
    CHECK(make_record(identity(), Rollup{}).at("pss_bytes") == Value{});
}

TEST_CASE("scan: a record of pages has the figures of the census") {
    Process source;
    const Census census = source.look_closely();
    const Record r = make_record(identity(), census, Depth::pages);
    CHECK(r.at("size_bytes") == bytes(24 * page));
    CHECK(r.at("rss_bytes") == bytes(4 * page));
    CHECK(r.at("present_bytes") == bytes(4 * page));
    CHECK(r.at("anon_bytes") == bytes(2 * page));
    CHECK(r.at("file_bytes") == bytes(page));
    CHECK(r.at("shmem_bytes") == bytes(page));
    CHECK(r.at("swapped_bytes") == bytes(page));
    CHECK(r.at("shmem_swapped_bytes") == bytes(page));
    CHECK(r.at("swap_bytes") == bytes(2 * page));
    CHECK(r.at("cached_bytes") == bytes(2 * page));
    CHECK(r.at("uncached_bytes") == bytes(page));
    CHECK(r.at("private_bytes") == bytes(page));
    CHECK(r.at("pss_bytes") == bytes(page + 3 * (page * 4096 / 3) / 4096));
    CHECK(r.at("pss_file_bytes") == bytes(page / 3));
    CHECK(r.at("page_tables_bytes") == bytes(40 << 10));
    CHECK(r.at("processes") == bytes(1));
    // Contents were not read.
    CHECK(r.at("zero_filled_bytes") == Value{});
    CHECK(r.at("zero_filled_low_bytes") == Value{});
    CHECK(r.at("sampled_share") == Value{});
    // Only smaps_rollup knows.
    CHECK(r.at("swap_pss_bytes") == Value{});
    std::uint64_t states = 0;
    for (const Word& word : state_table())
        states += number(r, word.field == "unknown" ? "unknown_state_bytes"
                                                    : std::string{word.field} + "_bytes");
    CHECK(states == number(r, "size_bytes"));
}

TEST_CASE("scan: a rollup adds what the pages did not tell, and changes nothing that they did") {
    Process source;
    Record r = make_record(identity(), source.look_closely(), Depth::pages);
    add_rollup(r, rollup_of("Rss: 4 kB\nSwapPss: 3 kB\n"));
    CHECK(r.at("swap_pss_bytes") == bytes(3 << 10));
    CHECK(r.at("rss_bytes") == bytes(4 * page));
}

TEST_CASE("scan: contents that were read in part give bounds, and in full a figure") {
    Process source;
    source.made_up.facts.frames_visible = true;
    for (std::uint64_t i = 3; i < 10; ++i)
        source.put(heap, i,
                   {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | (100 + i),
                    .flags = anon_flags,
                    .content = i < 6 ? Content::zero : Content::other});
    SUBCASE("sampled: of 11 candidates 7 were read") {
        const Record r =
            make_record(identity(), source.look_closely(ZeroTest::sample), Depth::content);
        CHECK(r.at("zero_filled_bytes") == Value{});
        const std::uint64_t low = number(r, "zero_filled_low_bytes") / page;
        const std::uint64_t high = number(r, "zero_filled_high_bytes") / page;
        CHECK(low >= 3);  // these were seen
        CHECK(high <= 7); // four were seen not to be
        CHECK(low <= high);
        CHECK(std::get<double>(r.at("sampled_share")) == doctest::Approx(7.0 / 11));
    }
    SUBCASE("all") {
        const Record r =
            make_record(identity(), source.look_closely(ZeroTest::all), Depth::content);
        CHECK(r.at("zero_filled_bytes") == bytes(3 * page));
        CHECK(r.at("zero_filled_low_bytes") == bytes(3 * page));
        CHECK(r.at("zero_filled_high_bytes") == bytes(7 * page)); // four were not readable
    }
}

TEST_CASE("scan: what the kernel hides is unknown, with a reason") {
    Process source;
    source.made_up.flags_readable = false;
    source.made_up.facts.frames_visible = false;
    for (auto& [address, one] : source.made_up.pages) one.map_count = 0;
    const Record r = make_record(identity(), source.look_closely(), Depth::pages);
    CHECK(r.at("ksm_bytes") == Value{});
    CHECK(r.at("thp_bytes") == Value{});
    CHECK(r.at("pss_bytes") == Value{});
    CHECK(r.at("pss_file_bytes") == Value{});
    CHECK(r.at("private_bytes") == Value{});
    CHECK(r.at("folio_unaligned_bytes") == Value{});
    CHECK(r.at("rss_bytes") == bytes(4 * page));
    CHECK(mentions(r, "hidden"));
}

TEST_CASE("scan: a record with a missing range is not complete") {
    Process source;
    Census census = source.look_closely();
    census.gaps.push_back(
        {"pagemap", AddressRange{Address{heap}, Address{file}}, "gone", "", true});
    const Record r = make_record(identity(), census, Depth::pages);
    CHECK(r.at("complete") == Value{false});
    CHECK(r.at("rss_bytes") == Value{});
}

TEST_CASE("scan: the records of the mappings add up to that of the process") {
    Process source;
    const Census census = source.look_closely();
    const Record whole = make_record(identity(), census, Depth::pages);
    for (const char* field : {"size_bytes", "rss_bytes", "swap_bytes", "anon_bytes", "file_bytes",
                              "cached_bytes", "swapped_bytes", "private_bytes"}) {
        INFO(field);
        std::uint64_t sum = 0;
        for (const MappingCensus& mapping : census.mappings)
            sum += number(make_record(identity(), census, mapping, Depth::pages), field);
        CHECK(sum == number(whole, field));
    }
    const Record text = make_record(identity(), census, census.mappings[1], Depth::pages);
    CHECK(text.at("pid") == bytes(42));
    CHECK(text.at("start") == bytes(file));
    CHECK(text.at("end") == bytes(file + 8 * page));
    CHECK(text.at("name") == Value{std::string{"/usr/lib/libmade-up.so"}});
    CHECK(text.at("backing") == Value{std::string{"file"}});
    CHECK(text.at("permissions") == Value{std::string{"rw-p"}});
    CHECK(text.at("empty_tables") == Value{}); // of the process, not of a mapping
}

TEST_CASE("scan: a record of a range") {
    Process source;
    std::vector<Run> runs;
    LookOptions options;
    options.on_run = [&](const Run& run) { runs.push_back(run); };
    const Census census = look(source.made_up, options);
    REQUIRE(runs.size() > 2);
    const auto record = [&](const Run& run) {
        return make_record(identity(), census.host, census.mappings[run.mapping].mapping, run,
                           Depth::pages);
    };
    const Record anon = record(runs[0]);
    CHECK(anon.at("start") == bytes(heap));
    CHECK(anon.at("size_bytes") == bytes(2 * page));
    CHECK(anon.at("state") == Value{std::string{"present"}});
    CHECK(anon.at("kind") == Value{std::string{"anon"}});
    CHECK(anon.at("marker") == Value{});
    const Record swapped = record(runs[1]);
    CHECK(swapped.at("state") == Value{std::string{"swapped"}});
    CHECK(swapped.at("kind") == Value{});
    CHECK(swapped.at("swap_offset") == bytes(9));
    CHECK(swapped.at("swap_type") == bytes(0));
}

TEST_CASE("scan: for processes that share nothing a sum equals the sum of their records") {
    Sum sum;
    std::vector<Record> records;
    for (const std::uint64_t inodes : {100u, 200u, 300u}) {
        Process source{inodes, 1};
        const Census census = source.look_closely(ZeroTest::all);
        records.push_back(make_record(identity(), census, Depth::content));
        sum.add(share_of(records.back(), census));
    }
    const Record total = sum.record();
    for (std::size_t i = 0; i < fields().size(); ++i) {
        if (!fields()[i].additive || fields()[i].unit == Unit::seconds) continue;
        if (fields()[i].name == "unknown_processes") continue;
        INFO(fields()[i].name);
        const auto* const one = std::get_if<std::uint64_t>(&records[0].values[i]);
        Value expected;
        if (one) expected = *one * 3;
        CHECK(total.values[i] == expected);
    }
}

TEST_CASE("scan: processes that share memory together hold it once") {
    Sum sum;
    for (int i = 0; i < 3; ++i) {
        Process source{100, 3};
        const Census census = source.look_closely();
        sum.add(share_of(make_record(identity(), census, Depth::pages), census));
    }
    const Record total = sum.record();
    const auto about = [&](const char* field) {
        return static_cast<double>(number(total, field)) / page;
    };
    CHECK(about("anon_bytes") == doctest::Approx(3 + 1).epsilon(0.001));
    CHECK(about("file_bytes") == doctest::Approx(1).epsilon(0.001));
    CHECK(about("shmem_bytes") == doctest::Approx(1).epsilon(0.001));
    CHECK(about("present_bytes") == doctest::Approx(6).epsilon(0.001));
    CHECK(about("pss_bytes") == doctest::Approx(6).epsilon(0.001));
    CHECK(about("cached_bytes") == 2);
    CHECK(about("uncached_bytes") == 1);
    CHECK(about("shmem_swapped_bytes") == 1);
    CHECK(about("swapped_bytes") == 3); // a swap entry has no count
    CHECK(about("swap_bytes") == 4);
    // What each of them says of itself.
    CHECK(about("rss_bytes") == 12);
    CHECK(about("size_bytes") == 72);
}

TEST_CASE("scan: a share of which the map count is not known is unknown in the sum") {
    Sum sum;
    for (const bool known : {true, false}) {
        Process source;
        if (!known) source.made_up.pages[file].map_count = 0;
        const Census census = source.look_closely();
        const Record r = make_record(identity(), census, Depth::pages);
        CHECK(r.at("file_bytes") == bytes(page));
        CHECK((share_of(r, census).record.at("file_bytes") == Value{}) == !known);
        CHECK(share_of(r, census).record.at("anon_bytes") != Value{});
        sum.add(share_of(r, census));
    }
    CHECK(sum.unknown(*find_field("file_bytes")) == 1);
    CHECK(sum.unknown(*find_field("present_bytes")) == 1);
    CHECK(sum.record().at("file_bytes") == bytes(page / 3));
    CHECK(sum.record().at("unknown_processes") == bytes(1));
}

TEST_CASE("figures: a large mapping that is all holes does not overflow its share") {
    Tally tally;
    PageClass none;
    none.state = State::none;
    tally.add(none, std::uint64_t{1} << 44); // 57 bits of address space
    CHECK(share_figures(tally, page).of(State::none) == std::uint64_t{1} << 56);
}
