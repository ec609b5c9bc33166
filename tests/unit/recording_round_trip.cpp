// SPDX-License-Identifier: MIT
#include "recordings.hpp"

#include "pagesift/abi.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::snapshot;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t base = 0x7f0000000000;

/// Columns as a kernel fills them: runs of frames up and down, swap slots, holes, repeats, noise.
class RandomBlocks {
public:
    explicit RandomBlocks(unsigned seed) : random_(seed) {}

    PageBlock block(std::uint64_t start, std::uint64_t pages) {
        PageBlock b = block_at(start, column<std::uint64_t>(
                                          pages, [&] { return entry(); }, true));
        if (roll(4) != 0)
            b.flags = column<std::uint64_t>(pages, [&] { return random_() >> roll(64); });
        if (roll(2) != 0) b.map_counts = column<std::uint32_t>(pages, [&] { return roll(4); });
        if (roll(2) != 0)
            b.folio_orders = column<std::uint8_t>(
                pages, [&] { return roll(4) == 0 ? PageBlock::unknown_order : roll(11); });
        if (roll(2) != 0) b.pmd_mapped = column<std::uint8_t>(pages, [&] { return roll(2); });
        if (roll(4) == 0) b.zero_page = column<std::uint8_t>(pages, [&] { return roll(2); });
        if (roll(2) != 0) b.cache = column<Cache>(pages, [&] { return roll(5); });
        if (roll(2) != 0) b.content = column<Content>(pages, [&] { return roll(5); });
        if (roll(2) != 0) b.entry_bits = column<std::uint8_t>(pages, [&] { return roll(8); });
        if (roll(2) != 0)
            b.swap_entries = column<std::uint64_t>(
                pages, [&] { return roll(2) != 0 ? pagemap_swap(3, roll(1 << 20)) : 0; }, true);
        return b;
    }
    std::uint64_t roll(std::uint64_t sides) { return random_() % sides; }

private:
    std::uint64_t entry() {
        switch (roll(6)) {
        case 0: return 0;
        case 1: return PM_SOFT_DIRTY;
        case 2: return PM_SWAP | roll(32) | roll(std::uint64_t{1} << 40) << 5;
        case 3: return random_();  // bits of any future
        case 4: return PM_PRESENT; // hidden frame
        default: return PM_PRESENT | PM_MMAP_EXCLUSIVE | roll(std::uint64_t{1} << 40);
        }
    }
    template <class T, class Make>
    std::vector<T> column(std::uint64_t pages, Make&& make, bool steps = false) {
        std::vector<T> values;
        while (values.size() < pages) {
            std::uint64_t value = make();
            const std::uint64_t length = roll(3) == 0 ? 1 : 1 + roll(40);
            constexpr std::uint64_t strides[] = {0, 1, 32, ~std::uint64_t{0},
                                                 0 - std::uint64_t{32}};
            const std::uint64_t stride = steps ? strides[roll(5)] : 0;
            for (std::uint64_t i = 0; i < length && values.size() < pages; ++i, value += stride)
                values.push_back(static_cast<T>(value));
        }
        return values;
    }
    std::mt19937_64 random_;
};

Recorded random_recording(unsigned seed) {
    RandomBlocks random{seed};
    Recorded r;
    std::uint64_t at = base;
    for (std::size_t m = 0; m < 3; ++m) {
        const std::uint64_t pages = 1 + random.roll(300);
        r.mappings.push_back(mapping_at(at, pages, static_cast<Backing>(random.roll(6))));
        for (std::uint64_t left = pages; left > 0;) {
            const std::uint64_t n = 1 + random.roll(left);
            r.blocks.emplace_back(m, random.block(at, n));
            at += n * page_size;
            left -= n;
        }
        at += random.roll(3) * page_size;
    }
    return r;
}

void check_rows(Source& source, const Recorded& recorded) {
    for (const auto& [mapping, block] : recorded.blocks) {
        const auto rows = read_rows(source, recorded.mappings[mapping], block.range);
        const bool hidden = block.entries.empty();
        for (std::size_t i = 0; i < rows.size(); ++i)
            if (!hidden && rows[i] != row_of(block, i))
                FAIL("page ", i, " of the block at ", block.range.start.value);
    }
}

} // namespace

TEST_CASE("recording: random blocks come back page by page, as text and compressed") {
    for (unsigned seed = 0; seed < 60; ++seed) {
        const Recorded recorded = random_recording(seed);
        for (const auto encoding : {Encoding::text, Encoding::zstd}) {
            CAPTURE(seed);
            const auto source = load_one(recorded.bytes(encoding));
            check_rows(*source, recorded);
            CHECK(source->gaps().empty());
        }
    }
}

TEST_CASE("recording: any part of a block can be read, from any page on") {
    const Recorded recorded = random_recording(7);
    const auto source = load_one(recorded.bytes());
    RandomBlocks random{8};
    for (int i = 0; i < 500; ++i) {
        const auto& [mapping, block] = recorded.blocks[random.roll(recorded.blocks.size())];
        const std::uint64_t pages = block.range.size().value / page_size;
        const std::uint64_t first = random.roll(pages);
        const std::uint64_t count = 1 + random.roll(pages - first);
        const Address start = block.range.start + Bytes{first * page_size};
        const auto rows = read_rows(*source, recorded.mappings[mapping],
                                    {start, start + Bytes{count * page_size}});
        for (std::size_t k = 0; k < count; ++k)
            if (rows[k] != row_of(block, first + k)) FAIL("page ", first + k);
    }
}

TEST_CASE("recording: host, process, mappings, wishes, tables and gaps come back as they were") {
    Recorded r;
    r.host.page_size = 4096;
    r.host.release = "6.18.44-odd release\n";
    r.host.machine = "x86_64";
    r.host.host_name = "a b ";
    r.host.counted_table_levels = 4;
    r.host.frames_visible = true;
    r.host.ksm_flag_true = false;
    r.host.settings = {{"ksm/run", "1"}, {"odd key", "two\nlines "}, {"empty", ""}};
    r.host.swaps = {{"/dev/zram0", "partition", 1 << 30, 4096, -2}, {"/a b\n", "", 0, 0, 5}};
    r.process = {4711,
                 "evil\x1b[2J\n",
                 "/bin/\xff (deleted)",
                 "4711 (a) b) S 1",
                 "Name:\tx\nUid:\t0\n",
                 "ksm_zero_pages 3\n"};
    r.want = {true, false, ZeroTest::sample, 0.125};
    r.mappings = {mapping_at(base, 16), mapping_at(base + 16 * page_size, 1, Backing::shmem)};
    // NOLINTNEXTLINE(misc-misleading-bidirectional): that is what is tested
    r.mappings[0].name = "/tmp/new\nline \\012 \xe2\x80\xae ";
    r.mappings[0].offset = 0x123000;
    r.mappings[0].device = {0xfe, 0xabcdef};
    r.mappings[0].inode = ~std::uint64_t{0};
    r.mappings[0].executable = r.mappings[0].shared = r.mappings[0].remote_file = true;
    auto smaps = std::make_shared<SmapsFacts>();
    smaps->vm_flags = procfs::parse_vm_flags("rd wr zz lo");
    smaps->swap_bytes = 65536;
    r.mappings[0].smaps = smaps;
    r.mappings[1].page_size = 2 << 20;
    r.asked = {r.mappings[0].range, r.mappings[1].range};
    r.owned = {{Address{base}, Address{base + page_size}}};
    r.gaps = {{"kpageflags", std::nullopt, "hidden\nreason", "CAP_SYS_ADMIN", false},
              {"pagemap", r.mappings[1].range, "gone", "", true}};

    const std::string text = r.bytes();
    CHECK(text.find(" \n") == text.npos);
    CHECK(std::all_of(text.begin(), text.end(),
                      [](char c) { return c == '\n' || (c >= ' ' && c < '\x7f'); }));
    const auto source = load_one(r.bytes(Encoding::zstd));
    const HostFacts& host = source->host();
    CHECK(host.page_size == 4096);
    CHECK(host.release == r.host.release);
    CHECK(host.machine == "x86_64");
    CHECK(host.host_name == "a b ");
    CHECK(host.counted_table_levels == 4);
    CHECK(host.frames_visible == true);
    CHECK(host.ksm_flag_true == false);
    CHECK_FALSE(host.soft_dirty.has_value());
    CHECK_FALSE(host.tables_located.has_value());
    CHECK(host.settings == r.host.settings);
    REQUIRE(host.swaps.size() == 2);
    CHECK(host.swaps[0].priority == -2);
    CHECK(host.swaps[0].kind == "partition");
    CHECK(host.swaps[1].name == "/a b\n");
    const ProcessText process = source->process();
    CHECK(process.pid == 4711);
    CHECK(process.comm == r.process.comm);
    CHECK(process.exe == r.process.exe);
    CHECK(process.stat == r.process.stat);
    CHECK(process.status == r.process.status);
    CHECK(process.ksm_stat == r.process.ksm_stat);
    CHECK(source->mappings(r.want) == r.mappings);
    CHECK(source->locate_tables(r.asked) == r.owned);
    CHECK(source->gaps() == r.gaps);
}

TEST_CASE("recording: several processes share a file and a host") {
    Recorded first, second;
    first.process.pid = 1;
    second.process.pid = 2;
    second.mappings = {mapping_at(base, 1)};
    second.blocks = {{0, block_at(base, {PM_PRESENT | 5})}};
    std::ostringstream out;
    RecordingWriter writer{out, Encoding::text, first.host};
    first.write(writer);
    second.write(writer);
    writer.finish();
    const auto sources = load_recording(out.str(), "two");
    REQUIRE(sources.size() == 2);
    CHECK(sources[0]->process().pid == 1);
    CHECK(sources[0]->mappings({}).empty());
    CHECK(sources[1]->process().pid == 2);
    check_rows(*sources[1], second);
}

TEST_CASE("recording: a recording of nothing is one") {
    std::ostringstream out;
    RecordingWriter writer{out, Encoding::text, HostFacts{}};
    writer.finish();
    CHECK(load_recording(out.str(), "none").empty());
}

TEST_CASE("recording: a terabyte of holes is a few lines, and is read in one block") {
    Recorded r;
    const std::uint64_t pages = std::uint64_t{1} << 28;
    r.mappings = {mapping_at(base, pages)};
    const AddressRange whole = r.mappings[0].range;
    const Address middle = whole.start + Bytes{(pages / 2) * page_size};
    r.blocks = {{0, uniform_block({whole.start, middle}, 0)},
                {0, block_at(middle.value, {PM_PRESENT | 77})},
                {0, uniform_block({middle + Bytes{page_size}, whole.end}, 0)}};
    const std::string bytes = r.bytes();
    CHECK(bytes.size() < 600);
    const auto source = load_one(bytes);
    PageBlock block;
    source->read_block(r.mappings[0], whole, {}, block);
    CHECK(block.uniform);
    CHECK(block.range == AddressRange{whole.start, middle});
    source->read_block(r.mappings[0], {middle, whole.end}, {}, block);
    CHECK(block.entries.front() == (PM_PRESENT | 77));
    CHECK(block.range.end < whole.end);
}

TEST_CASE("recording: scattered pages take nine bytes of text each") {
    Recorded r;
    const std::uint64_t pages = 1 << 18;
    r.mappings = {mapping_at(base, pages)};
    std::mt19937_64 random{1}; // NOLINT(cert-msc32-c,cert-msc51-cpp): the same every time
    for (std::uint64_t at = 0; at < pages; at += 65536) {
        PageBlock block = block_at(base + at * page_size, std::vector<std::uint64_t>(65536));
        for (auto& entry : block.entries)
            entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | random() % (1 << 23);
        block.flags.assign(65536, 0x5828);
        r.blocks.emplace_back(0, std::move(block));
    }
    const std::string text = r.bytes();
    CHECK(text.size() < pages * 9);
    CHECK(r.bytes(Encoding::zstd).size() < text.size() / 2);
    const auto source = load_one(text);
    const AddressRange last{Address{base + (pages - 4) * page_size}, r.mappings[0].range.end};
    const auto rows = read_rows(*source, r.mappings[0], last);
    for (std::size_t i = 0; i < 4; ++i) CHECK(rows[i] == row_of(r.blocks.back().second, 65532 + i));
}

TEST_CASE("recording: frames that go down and swap slots that go up are runs") {
    Recorded r;
    r.mappings = {mapping_at(base, 2000)};
    std::vector<std::uint64_t> entries;
    for (std::uint64_t i = 0; i < 1000; ++i) entries.push_back(PM_PRESENT | (5000 - i));
    for (std::uint64_t i = 0; i < 1000; ++i) entries.push_back(PM_SWAP | 3 | (700 + i) << 5);
    r.blocks = {{0, block_at(base, std::move(entries))}};
    const std::string bytes = r.bytes();
    CHECK(bytes.find("entries p.1388-1000 s.3:2bc+1000\n") != bytes.npos);
    check_rows(*load_one(bytes), r);
}

TEST_CASE("recording: pages that were not recorded are unknown, and a gap says which") {
    Recorded r;
    r.mappings = {mapping_at(base, 10)};
    r.blocks = {{0, block_at(base + 4 * page_size, {1, 2})}};
    const auto source = load_one(r.bytes());
    const auto rows = read_rows(*source, r.mappings[0], r.mappings[0].range);
    REQUIRE(rows.size() == 10);
    CHECK(rows[3][0] == -1);
    CHECK(rows[4][0] == 1);
    CHECK(rows[6][0] == -1);
    const auto gaps = source->gaps();
    REQUIRE(gaps.size() == 2);
    CHECK(gaps[0].incomplete);
    CHECK(gaps[0].range == AddressRange{Address{base}, Address{base + 4 * page_size}});
    CHECK(gaps[1].range == AddressRange{Address{base + 6 * page_size}, r.mappings[0].range.end});
    read_rows(*source, r.mappings[0], r.mappings[0].range);
    CHECK(source->gaps() == gaps);
}

TEST_CASE("recording: a block that could not be read comes back empty") {
    Recorded r;
    r.mappings = {mapping_at(base, 4)};
    PageBlock unreadable;
    unreadable.range = r.mappings[0].range;
    r.blocks = {{0, unreadable}};
    const auto source = load_one(r.bytes());
    for (const auto& row : read_rows(*source, r.mappings[0], r.mappings[0].range))
        CHECK(row[0] == -1);
    CHECK(source->gaps().empty());
}

TEST_CASE("recording: present pages never come as a uniform block") {
    Recorded r;
    r.mappings = {mapping_at(base, 500)};
    r.blocks = {{0, block_at(base, std::vector<std::uint64_t>(500, PM_PRESENT))}};
    const auto source = load_one(r.bytes());
    PageBlock block;
    source->read_block(r.mappings[0], r.mappings[0].range, {}, block);
    CHECK_FALSE(block.uniform);
    CHECK(block.entries.size() == 500);
}

TEST_CASE("recording: contents and page cache are kept from whoever does not want them") {
    Recorded r;
    r.want = {true, true, ZeroTest::all, 1};
    r.mappings = {mapping_at(base, 2, Backing::shmem)};
    PageBlock block = block_at(base, {0, PM_PRESENT | 9});
    block.cache = {Cache::absent, Cache::not_asked};
    block.content = {Content::not_read, Content::zero};
    block.swap_entries = {0, pagemap_swap(1, 77)};
    r.blocks = {{0, block}};
    const auto source = load_one(r.bytes());
    source->read_block(r.mappings[0], r.mappings[0].range, {true, false, ZeroTest::off, 0}, block);
    CHECK(block.cache.empty());
    CHECK(block.content.empty());
    CHECK(block.swap_entries.empty());
    CHECK(source->gaps().empty());
}

TEST_CASE("recording: what is wanted and was not recorded is a gap") {
    Recorded r;
    r.want = {true, false, ZeroTest::off, 0};
    const auto source = load_one(r.bytes());
    source->mappings({true, true, ZeroTest::all, 1});
    const auto gaps = source->gaps();
    REQUIRE(gaps.size() == 2);
    CHECK(gaps[0].reason.find("contents") != std::string::npos);
    CHECK(gaps[1].reason.find("page cache") != std::string::npos);
}

TEST_CASE("recording: tables are located where the recorded source was asked, and nowhere else") {
    const auto range = [](std::uint64_t start, std::uint64_t end) {
        return AddressRange{Address{start * page_size}, Address{end * page_size}};
    };
    Recorded r;
    r.asked = {range(100, 200), range(200, 300), range(400, 500)};
    r.owned = {range(150, 250), range(450, 460)};
    const auto source = load_one(r.bytes());
    const auto ask = [&](std::vector<AddressRange> ranges) {
        return source->locate_tables(ranges);
    };
    CHECK(ask({range(100, 300)}) == std::vector{range(150, 250)});
    CHECK(ask({range(160, 170), range(410, 470)}) == std::vector{range(160, 170), range(450, 460)});
    CHECK(ask({range(100, 120)}) == std::vector<AddressRange>{});
    CHECK(ask({}) == std::vector<AddressRange>{});
    CHECK_FALSE(ask({range(100, 301)}));
    CHECK_FALSE(ask({range(0, 10)}));
    Recorded silent;
    silent.asked = r.asked;
    CHECK_FALSE(load_one(silent.bytes())->locate_tables(r.asked));
}

TEST_CASE("recording: several threads read the same process") {
    const Recorded recorded = random_recording(3);
    const auto source = load_one(recorded.bytes());
    std::vector<std::size_t> rows(4);
    {
        std::vector<std::jthread> threads;
        threads.reserve(rows.size());
        for (auto& count : rows)
            threads.emplace_back([&] {
                PageBlock block;
                for (AddressRange rest = recorded.mappings[0].range; !rest.empty();
                     rest.start = block.range.end) {
                    source->read_block(recorded.mappings[0], rest, want_all, block);
                    count += block.range.size().value / page_size;
                }
                source->gaps();
            });
    }
    for (const auto count : rows)
        CHECK(count == recorded.mappings[0].range.size().value / page_size);
}
