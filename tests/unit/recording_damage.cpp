// SPDX-License-Identifier: MIT
#include "error_of.hpp"
#include "recordings.hpp"

#include "pagesift/abi.hpp"

using namespace pagesift;
using namespace pagesift::abi;
using namespace pagesift::snapshot;
using namespace pagesift::test;

namespace {

Recorded small_recording() {
    Recorded r;
    r.host.release = "6.18";
    r.process.pid = 42;
    r.process.comm = "cat\n";
    r.mappings = {mapping_at(0x10000, 8, Backing::shmem)};
    r.mappings[0].name = "/dev/zero (deleted)";
    PageBlock block = block_at(0x10000, {PM_PRESENT | 7, PM_PRESENT | 8, 0, 0, PM_SWAP | 64});
    block.flags = {0x28, 0x28, 0, 0, 0};
    block.cache.assign(5, Cache::hole);
    r.blocks = {{0, block}, {0, uniform_block({Address{0x15000}, Address{0x18000}}, 0)}};
    r.gaps = {{"kpageflags", std::nullopt, "why", "how", false}};
    return r;
}

/// The error of loading @p bytes; loading must fail with this kind and no other way.
std::optional<Error> refusal(const std::string& bytes) {
    auto error = error_of([&] { load_recording(bytes, "x.rec"); });
    if (error) CHECK(error->kind() == ErrorKind::bad_input);
    return error;
}

std::string message(const std::string& bytes) {
    const auto error = refusal(bytes);
    return error ? error->what() : "(was loaded)";
}

} // namespace

TEST_CASE("recording: cut anywhere it is refused, as text and compressed") {
    for (const auto encoding : {Encoding::text, Encoding::zstd}) {
        const std::string bytes = small_recording().bytes(encoding);
        REQUIRE_FALSE(refusal(bytes));
        for (std::size_t length = 0; length < bytes.size(); ++length)
            CHECK_MESSAGE(refusal(bytes.substr(0, length)), "cut to ", length);
    }
}

TEST_CASE("recording: a text in which any one byte is another is refused") {
    const std::string bytes = small_recording().bytes();
    for (std::size_t at = 0; at < bytes.size(); ++at)
        for (const unsigned flip : {0x01u, 0x20u, 0x80u, 0xffu}) {
            std::string damaged = bytes;
            damaged[at] = static_cast<char>(static_cast<unsigned char>(damaged[at]) ^ flip);
            CHECK_MESSAGE(refusal(damaged), "byte ", at, " flipped by ", flip);
        }
}

TEST_CASE(
    "recording: a compressed one in which any one byte is another never tells another story") {
    const Recorded recorded = small_recording();
    const std::string text = recorded.bytes();
    const std::string bytes = recorded.bytes(Encoding::zstd);
    std::size_t loaded = 0;
    for (std::size_t at = 0; at < bytes.size(); ++at)
        for (unsigned bit = 0; bit < 8; ++bit) {
            std::string damaged = bytes;
            damaged[at] = static_cast<char>(static_cast<unsigned char>(damaged[at]) ^ (1u << bit));
            std::vector<std::unique_ptr<Source>> sources;
            const auto error = error_of([&] { sources = load_recording(damaged, "x.rec"); });
            if (error) continue;
            // Header bits of a frame may differ and still unpack to the same text.
            ++loaded;
            REQUIRE(sources.size() == 1);
            Recorded again = recorded;
            again.mappings = sources[0]->mappings({});
            again.process = sources[0]->process();
            again.gaps = sources[0]->gaps();
            CHECK(again.bytes() == text);
            CHECK(read_rows(*sources[0], recorded.mappings[0], recorded.mappings[0].range) ==
                  read_rows(*load_one(bytes), recorded.mappings[0], recorded.mappings[0].range));
        }
    CHECK(loaded < 32);
}

TEST_CASE("recording: two lines exchanged, one lost or one doubled are refused") {
    const std::string bytes = small_recording().bytes();
    std::vector<std::string> lines;
    std::istringstream in{bytes};
    for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
    const auto joined = [](const std::vector<std::string>& all) {
        std::string text;
        for (const auto& line : all) text += line;
        return text;
    };
    REQUIRE(joined(lines) == bytes);
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
        auto lost = lines;
        lost.erase(lost.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK(refusal(joined(lost)));
        auto doubled = lines;
        doubled.insert(doubled.begin() + static_cast<std::ptrdiff_t>(i), lines[i]);
        CHECK(refusal(joined(doubled)));
        auto exchanged = lines;
        std::swap(exchanged[i], exchanged[i + 1]);
        if (exchanged != lines) CHECK(refusal(joined(exchanged)));
    }
}

TEST_CASE("recording: anything behind the end is refused") {
    for (const auto encoding : {Encoding::text, Encoding::zstd}) {
        const std::string bytes = small_recording().bytes(encoding);
        for (const std::string more : {"\n", "x", "end 1 00000000\n"}) CHECK(refusal(bytes + more));
        CHECK(refusal(bytes + bytes));
    }
}

TEST_CASE("recording: an unfinished one is refused") {
    std::ostringstream out;
    {
        RecordingWriter writer{out, Encoding::text, HostFacts{}};
        small_recording().write(writer);
    }
    CHECK(refusal(out.str()));
}

TEST_CASE("recording: the message names file, line and fault") {
    const std::string bytes = small_recording().bytes();
    const auto replaced = [&](std::string_view from, std::string_view to) {
        std::string text = bytes;
        text.replace(text.find(from), from.size(), to);
        return text;
    };
    CHECK(message(replaced("page-size 4096", "page-size 4095")) ==
          "x.rec: line 2: '4095' is not a page size");
    CHECK(message(replaced("flags 28*2", "flags 28*3")) ==
          "x.rec: line 11: more values than the block's 5 pages");
    CHECK(message(replaced("why", "who"))
              .starts_with("x.rec: line 19: the file is damaged: its end"));
    CHECK(message(bytes.substr(0, bytes.find("block 0"))).find("cut short") != std::string::npos);
    CHECK(message("hello") == "x.rec: not a recording of pagesift");
    CHECK(message("") == "x.rec: not a recording of pagesift");
    CHECK(message("\x28\xb5\x2f\xfd").find("cut short") != std::string::npos);
}

TEST_CASE("recording: one of a newer format is refused, saying so and what to do") {
    const auto error = refusal(sealed("pagesift-recording 2\nprocess 1\ndone\n"));
    REQUIRE(error);
    CHECK(std::string{error->what()}.find("format 2") != std::string::npos);
    CHECK(error->hint().find("newer pagesift") != std::string::npos);
    CHECK(refusal(sealed("pagesift-recording 0\n")));
    CHECK(refusal(sealed("pagesift-recording 1.5\n")));
    CHECK(refusal(sealed("pagesift-recording\n")));
    CHECK(refusal(sealed("pagesift-recordings 1\n")));
}

TEST_CASE("recording: the first bytes tell whether a file may be one") {
    CHECK(is_recording(small_recording().bytes()));
    CHECK(is_recording(small_recording().bytes(Encoding::zstd)));
    CHECK_FALSE(is_recording(""));
    CHECK_FALSE(is_recording("pagesift"));
    CHECK_FALSE(is_recording("\x7f"
                             "ELF"));
    CHECK_FALSE(is_recording("pagesift-recordings"));
}
