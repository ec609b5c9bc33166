// SPDX-License-Identifier: MIT
// The readers of kernel memory on the live kernel: what they read and what they refuse.
#include "exact/exact.hpp"
#include "os/bpf_reader.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <sstream>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

using os::BpfReader;
using os::open_kernel_view;
using walk::Piece;

namespace {

/// What the kernel has to say while this lives. None of it may be about us.
class KernelLog {
public:
    KernelLog() : taint_(slurp("/proc/sys/kernel/tainted")) { ::lseek(log_, 0, SEEK_END); }
    ~KernelLog() { ::close(log_); }
    KernelLog(const KernelLog&) = delete;
    KernelLog& operator=(const KernelLog&) = delete;

    std::string complaints() const {
        std::string found;
        char record[8192];
        for (ssize_t n; (n = ::read(log_, record, sizeof record)) > 0;) {
            const std::string_view text(record, static_cast<std::size_t>(n));
            for (const char* word : {"BUG", "Oops", "WARNING", "fault"})
                if (text.find(word) != std::string_view::npos) found += text;
        }
        if (slurp("/proc/sys/kernel/tainted") != taint_) found += "tainted";
        return found;
    }

private:
    std::string taint_;
    int log_ = ::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
};

void try_addresses(walk::KernelMemory& memory, const RandomPage& own,
                   const std::vector<std::uint64_t>& bad) {
    for (const auto address : bad) {
        const std::vector<Piece> pieces{{own.address(), 8}, {address, 8}, {own.address(), 8}};
        const auto copied = memory.read(pieces);
        CAPTURE(address);
        CHECK(copied.good[0] == 1);
        CHECK(copied.good[1] == 0);
        CHECK(copied.good[2] == 1);
    }
    std::mt19937 random{1};
    for (int i = 0; i < 20000; ++i) try_pieces(memory, own, bad, random);
}

/// The start of the kernel's own code; 0: hidden.
std::uint64_t kernel_text() {
    std::istringstream symbols{slurp("/proc/kallsyms")};
    for (std::string line; std::getline(symbols, line);)
        if (line.ends_with(" _stext")) return std::stoull(line, nullptr, 16);
    return 0;
}

} // namespace

TEST_CASE("exact reader: random pieces of an own page come whole, and bad addresses not at all") {
    const auto view = open_view({"kcore"});
    if (!view) return;
    const RandomPage own{*view};
    auto bad = bad_addresses(*view, own.bytes());
    const KernelLog log;
    // A reader of its own asks the kernel for all of them but the user's and what is not canonical.
    for (const auto kind : {BpfReader::Kind::automatic, BpfReader::Kind::raw_tracepoint}) {
        BpfReader reader{kind};
        try_addresses(reader, own, bad);
    }
    // That of a view keeps to RAM and struct pages.
    bad.push_back(kernel_text());
    try_addresses(view->memory(), own, bad);
    try_addresses(view->clone()->memory(), own, bad);
    CHECK(log.complaints().empty());
}

TEST_CASE("exact reader: more than one call takes is refused, and no piece is no call") {
    const auto view = open_view();
    if (!view) return;
    const RandomPage own{*view};
    auto& memory = view->memory();
    CHECK(memory.most_pieces() >= 16);
    CHECK(memory.most_bytes() >= 16 * page);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(memory.most_pieces() + 1, {own.address(), 8})),
                    Error);
    CHECK_THROWS_AS(
        memory.read(std::vector<Piece>(memory.most_bytes() / page + 1, {own.address(), page})),
        Error);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(1, {own.address(), 4097})), Error);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(1, {own.address(), ~0u})), Error);
    CHECK(memory.read({}).bytes.empty());
    CHECK(memory.read(std::vector<Piece>(16, {own.address(), 4096})).bytes.size() == 16 * page);
}

TEST_CASE("exact reader: threads with a clone each get their own answers") {
    const auto view = open_view();
    if (!view) return;
    const RandomPage own{*view};
    const auto bad = bad_addresses(*view, own.bytes());
    std::atomic<unsigned> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t)
        threads.emplace_back([&, t, clone = view->clone()] {
            const std::size_t offset = t * 1024;
            for (unsigned i = 0; i < 50000; ++i) {
                const Piece pieces[] = {{bad[i % bad.size()], 8}, {own.address() + offset, 1024}};
                const auto copied = clone->memory().read(pieces);
                if (copied.good[0] != 0 || copied.good[1] != 1 ||
                    std::memcmp(copied.bytes.data() + 8, own.bytes() + offset, 1024) != 0)
                    ++wrong;
            }
            const int fd = open_pagemap("self");
            if (!clone->find_top_table(fd)) ++wrong;
            ::close(fd);
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
}

TEST_CASE("exact reader: from nothing to a checked view takes less than 10 ms") {
    if (!open_view()) return;
    BpfReader ready;
    if (milliseconds([&] { ready.caller(); }) > 0.02) return skip("an emulated machine");
#ifdef __SANITIZE_ADDRESS__
    return skip("a sanitizer's build");
#endif
    std::vector<double> taken;
    for (int i = 0; i < 21; ++i) taken.push_back(milliseconds([] { open_kernel_view({}); }));
    std::sort(taken.begin(), taken.end());
    const double reader = milliseconds([] { BpfReader{}; });
    MESSAGE("view: best ", taken.front(), " ms, median ", taken[10], " ms; reader alone ", reader,
            " ms");
    // The best of them, because the machine may have other work.
    CHECK(taken.front() < 10);
}

} // namespace pagesift::live
