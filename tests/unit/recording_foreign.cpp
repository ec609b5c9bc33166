// SPDX-License-Identifier: MIT
// Recordings that were made to do harm, or by a later version.
#include "error_of.hpp"
#include "recordings.hpp"

#include "pagesift/abi.hpp"

#include <chrono>
#include <functional>
#include <zstd.h>

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::snapshot;
using namespace pagesift::test;

namespace {

constexpr const char* first_line = "pagesift-recording 1\n";
std::string with_head(const std::string& lines) { return first_line + lines; }

std::string with_mapping(const std::string& lines) {
    return with_head("process 1\nmapping 10000-20000 rw-p 0 00:00 0 backing=anon page-size=4096\n" +
                     lines);
}

std::string in_block(const std::string& lines) {
    return sealed(with_mapping("block 0 10000-14000\n" + lines + "done\n"));
}

bool is_refused(const std::string& bytes) {
    const auto error = error_of([&] { load_recording(bytes, "x.rec"); });
    return error && error->kind() == ErrorKind::bad_input;
}

std::string compressed(const std::string& text) {
    std::string out(ZSTD_compressBound(text.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
    return out;
}

double seconds(const std::function<void()>& action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

} // namespace

TEST_CASE("recording: lines, keys and facts of a later version are passed over") {
    const auto source = load_one(sealed(
        "pagesift-recording 1\n# a remark\n\nhost page-size 4096\nhost flux-density 7\n"
        "walrus 1 2 3\nprocess 9\ncgroup /a/b\nwant frames=yes colour=blue\n"
        "mapping 10000-20000 rw-p 0 00:00 0 backing=anon sealed=yes page-size=4096 name=[x]\n"
        "smaps rss=4096 pss=17 flags=rd\nblock 0 10000-11000\nentries p.5\nages 3\n"
        "gap all detail pagemap\nreason r\nseverity 3\ndone\n"));
    CHECK(source->process().pid == 9);
    const auto mappings = source->mappings({});
    REQUIRE(mappings.size() == 1);
    CHECK(mappings[0].name == "[x]");
    CHECK(mappings[0].smaps->rss_bytes == 4096);
    CHECK(read_rows(*source, mappings[0], {Address{0x10000}, Address{0x11000}})[0][0] ==
          static_cast<std::int64_t>(PM_PRESENT | 5));
}

TEST_CASE("recording: a known word with something unexpected behind it is refused") {
    for (const char* line :
         {"host page-size 0", "host page-size 3", "host page-size 99999999999999999999",
          "host page-size -4096", "host page-size 268435456", "host table-levels 0",
          "host table-levels 99", "host frames-visible maybe", "host release \\q",
          "swap-area 1 2 x file /a", "swap-area 1", "process x", "process", "process 4294967296",
          "want frames=yes", "comm x", "done", "Host page-size 4096", "\x1b[2J"})
        CHECK_MESSAGE(is_refused(sealed(with_head(std::string{line} + "\n"))), std::string{line});
    for (const char* line : {"host page-size 4096",
                             "setting a b",
                             "process 2",
                             "want zero=some",
                             "want frames=1",
                             "want sample-share=nan",
                             "want sample-share=-1",
                             "want sample-share=2",
                             "mapping 10000-20000 rw-p 0 00:00 0",
                             "mapping 8000-9000 rw-p 0 00:00 0",
                             "mapping 20000-20000 rw-p 0 00:00 0",
                             "mapping 30000-20000 rw-p 0 00:00 0",
                             "mapping 20001-30000 rw-p 0 00:00 0",
                             "mapping 20000-30000 rwxx 0 00:00 0",
                             "mapping 20000-30000 rw 0 00:00 0",
                             "mapping 20000-30000 rw-p",
                             "mapping",
                             "mapping 20000-30000 rw-p 0 0000 0",
                             "mapping 20000-30000 rw-p g 00:00 0",
                             "mapping 20000-30000 rw-p 0 00:00 0 backing=ham",
                             "mapping 20000-30000 rw-p 0 00:00 0 page-size=0",
                             "mapping 20000-30000 rw-p 0 00:00 0 name=\\x4",
                             "smaps rss=x",
                             "smaps flags=\\",
                             "block 1 10000-11000",
                             "block 0 10000-21000",
                             "block 0 f000-11000",
                             "block x 1-2",
                             "block 0 10000-10800",
                             "entries 0",
                             "tables-asked 1000",
                             "tables-owned 1-2",
                             "gap here detail x",
                             "gap all maybe x",
                             "reason lonely"})
        CHECK_MESSAGE(is_refused(sealed(with_mapping(std::string{line} + "\ndone\n"))),
                      std::string{line});
}

TEST_CASE("recording: a process without its last line is refused") {
    CHECK(is_refused(sealed(with_head("process 1\n"))));
    CHECK(is_refused(sealed(with_mapping("block 0 10000-11000\nentries 0\n"))));
    CHECK(is_refused(sealed(with_head("process 1\ndone\nprocess 2\n"))));
}

TEST_CASE("recording: columns that do not fit their block are refused") {
    CHECK_FALSE(is_refused(in_block("entries 0*4\n")));
    CHECK_FALSE(is_refused(in_block("entries 0*2\nentries 0*2\nflags 0*4\n")));
    for (const char* lines :
         {"entries 0*3\n", "entries 0*5\n", "entries 0*18446744073709551615\n", "entries 0*0 0*4\n",
          "entries 0*4\nflags 0*3\n", "entries 0 0 0 0 0\n", "entries\nflags 0*2\n"})
        CHECK_MESSAGE(is_refused(in_block(lines)), std::string{lines});
}

TEST_CASE("recording: values that no column has are refused") {
    for (const char* lines : {"entries q.5*4\n",
                              "entries .5*4\n",
                              "entries p.*4\n",
                              "entries p.80000000000000*4\n",
                              "entries s.5*4\n",
                              "entries s.20:1*4\n",
                              "entries s.1:4000000000000*4\n",
                              "entries p.7fffffffffffff+2 0*2\n",
                              "entries p.0-2 0*2\n",
                              "entries p.1- 0*3\n",
                              "entries p.5*-1\n",
                              "entries p.5~4\n",
                              "entries  0*4\n",
                              "flags -1*4\n",
                              "flags x*4\n",
                              "map-counts 4294967296*4\n",
                              "folio-orders 64*4\n",
                              "folio-orders 256*4\n",
                              "pmd-mapped 256*4\n",
                              "cache hola*4\n",
                              "cache 1*4\n",
                              "content Zero*4\n",
                              "flags 1+4\n"})
        CHECK_MESSAGE(is_refused(in_block(lines)), std::string{lines});
}

TEST_CASE("recording: blocks that overlap or go backward are refused") {
    CHECK(is_refused(in_block("entries 0*4\nblock 0 13000-15000\nentries 0*2\n")));
    CHECK(is_refused(sealed(with_mapping("block 0 14000-15000\nentries 0\nblock 0 10000-11000\n"
                                         "entries 0\ndone\n"))));
    CHECK(is_refused(in_block("entries 0*4\nmapping 20000-30000 rw-p 0 00:00 0\n")));
}

TEST_CASE("recording: columns without entries are kept out of every answer") {
    const auto source = load_one(in_block("flags 28*4\ncontent zero*4\n"));
    PageBlock block;
    source->read_block({}, {Address{0x10000}, Address{0x14000}}, want_all, block);
    CHECK(block.entries.empty());
    CHECK(block.flags.empty());
    CHECK(block.range.end == Address{0x14000});
}

TEST_CASE("recording: a whole address space of present pages is read in small blocks") {
    const auto source = load_one(
        sealed(with_head("process 1\n"
                         "mapping 0-fffffffffffff000 rw-p 0 00:00 0\nblock 0 0-fffffffffffff000\n"
                         "entries p.0*4503599627370495\ndone\n")));
    PageBlock block;
    const AddressRange whole{Address{0}, Address{0xfffffffffffff000}};
    source->read_block(source->mappings({})[0], whole, {}, block);
    CHECK(block.entries.size() <= 65536);
    source->read_block({}, {Address{0xffffffffffffe000}, whole.end}, {}, block);
    CHECK(block.entries.size() == 1);
}

TEST_CASE("recording: a small file that unpacks to very much is refused before it fills memory") {
    std::string text = first_line;
    while (text.size() < (std::size_t{96} << 20)) text += "zzzz 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    const std::string bytes = compressed(text);
    REQUIRE(bytes.size() < 100000);
    const auto error = error_of([&] { load_recording(bytes, "bomb"); });
    REQUIRE(error);
    CHECK(std::string{error->what()}.find("unpacks to more than") != std::string::npos);
}

TEST_CASE("recording: a line without end is refused") {
    const auto error =
        error_of([] { load_recording(compressed(with_head(std::string(8 << 20, 'a'))), "long"); });
    REQUIRE(error);
    CHECK(std::string{error->what()}.find("line without end") != std::string::npos);
}

TEST_CASE("recording: compressed data that are no recording are named as such") {
    const auto error = error_of([] { load_recording(compressed("hello\n"), "x.zst"); });
    REQUIRE(error);
    CHECK(std::string{error->what()} == "x.zst: not a recording of pagesift");
}

TEST_CASE(
    "recording: reading a block of very many runs piece by piece takes no longer than its length") {
    std::string text =
        with_head("process 1\nmapping 0-40000000000 rw-p 0 00:00 0\nblock 0 0-40000000000\n");
    for (int line = 0; line < 2048; ++line) {
        text += "entries";
        for (int i = 0; i < 128; ++i) text += i % 2 == 0 ? " p.7*4096" : " p.9*4096";
        text += '\n';
    }
    const auto source = load_one(sealed(text + "done\n"));
    PageBlock block;
    const double spent = seconds([&] {
        for (std::uint64_t at = 0; at < 0x40000000000; at += 0x40000000)
            source->read_block({}, {Address{at}, Address{at + 0x1000000}}, {}, block);
    });
    CHECK(spent < 2);
}

TEST_CASE("recording: very many unrecorded pieces make few gaps") {
    std::string text = with_head("process 1\nmapping 0-10000000 rw-p 0 00:00 0\n");
    for (int i = 0; i < 30000; ++i) {
        std::ostringstream line;
        line << std::hex << "block 0 " << i * 0x2000 << '-' << i * 0x2000 + 0x1000
             << "\nentries 0\n";
        text += line.str();
    }
    const auto source = load_one(sealed(text + "done\n"));
    const auto mapping = source->mappings({})[0];
    read_rows(*source, mapping, mapping.range);
    const auto gaps = source->gaps();
    CHECK(gaps.size() <= 101);
    CHECK(gaps.back().incomplete);
}
