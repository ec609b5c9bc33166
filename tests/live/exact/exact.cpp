// SPDX-License-Identifier: MIT
#include "exact/exact.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

using os::KernelView;
using walk::Piece;

std::unique_ptr<KernelView> open_view(const std::set<std::string>& without) {
    auto result = os::open_kernel_view(without);
    for (const auto& check : result.checks)
        CHECK_MESSAGE((check.passed || result.view), check.name, ": ", check.detail);
    if (!result.view) skip("no exact lens: " + result.reason);
    return std::move(result.view);
}

std::string slurp(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

int open_pagemap(const std::string& process) {
    return ::open(("/proc/" + process + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
}

std::vector<std::uint64_t> read_pagemap(int fd, std::uint64_t address, std::size_t pages) {
    std::vector<std::uint64_t> entries(pages);
    const auto n = ::pread(fd, entries.data(), pages * 8, static_cast<off_t>(address / page * 8));
    entries.resize(n > 0 ? static_cast<std::size_t>(n) / 8 : 0);
    return entries;
}

std::vector<std::uint64_t> own_pagemap(const void* address, std::size_t pages) {
    const int fd = open_pagemap("self");
    auto entries = read_pagemap(fd, reinterpret_cast<std::uintptr_t>(address), pages);
    ::close(fd);
    return entries;
}

RandomPage::RandomPage(const KernelView& view)
    : bytes_(static_cast<unsigned char*>(
          ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    ::mlock(bytes_, page);
    std::mt19937 random{4711};
    std::generate_n(bytes_, page, [&] { return static_cast<unsigned char>(random() | 1); });
    const auto entry = own_pagemap(bytes_, 1).at(0);
    address_ = view.kernel().bases.direct_map + (entry & ((std::uint64_t{1} << 55) - 1)) * page;
}

RandomPage::~RandomPage() { ::munmap(bytes_, page); }

std::vector<std::uint64_t> bad_addresses(const KernelView& view, const void* own) {
    const auto& bases = view.kernel().bases;
    return {0,
            page,
            reinterpret_cast<std::uintptr_t>(own), // mapped, but the user's
            0x00007fffffffe000,
            0x0000800000000000, // not canonical with four levels
            0x0100000000000000, // nor with five
            0xfeffffffffffff00,
            0xffffffffff600000, // vsyscall
            bases.direct_map - page,
            bases.direct_map + bases.frame_end * page + (std::uint64_t{1} << 40),
            bases.vmemmap - page,
            0xffffffffffffe000,
            ~std::uint64_t{7}};
}

void try_pieces(walk::KernelMemory& memory, const RandomPage& own,
                const std::vector<std::uint64_t>& bad, std::mt19937& random) {
    std::vector<Piece> pieces(random() % memory.most_pieces() + 1);
    std::vector<std::uint8_t> good;
    std::string expected;
    std::size_t room = memory.most_bytes();
    for (auto& piece : pieces) {
        piece.bytes = static_cast<std::uint32_t>(
            std::min<std::size_t>(room, random() % 3 == 0 ? random() % page + 1 : random() % 64));
        room -= piece.bytes;
        const auto offset = random() % (page - piece.bytes + 1);
        good.push_back(random() % 8 != 0 || piece.bytes == 0);
        piece.address = good.back() ? own.address() + offset : bad[random() % bad.size()];
        if (!good.back()) piece.bytes = std::min<std::uint32_t>(piece.bytes, 8);
        expected += good.back() ? std::string(reinterpret_cast<const char*>(own.bytes()) + offset,
                                              piece.bytes)
                                : std::string(piece.bytes, '\0');
    }
    const auto copied = memory.read(pieces);
    REQUIRE(copied.bytes.size() == expected.size());
    REQUIRE(copied.good.size() == good.size());
    REQUIRE(std::memcmp(copied.bytes.data(), expected.data(), expected.size()) == 0);
    REQUIRE(std::equal(good.begin(), good.end(), copied.good.begin()));
}

std::string in_child(const std::function<std::string()>& body) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        const std::string text = body();
        _exit(::write(ends[1], text.data(), text.size()) < 0 ? 1 : 0);
    }
    ::close(ends[1]);
    std::string text(4096, '\0');
    const auto n = ::read(ends[0], text.data(), text.size());
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFEXITED(status));
    text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return text;
}

double milliseconds(const std::function<void()>& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    return taken.count();
}

} // namespace pagesift::live
