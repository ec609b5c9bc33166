// SPDX-License-Identifier: MIT
// What the tests of the kernel's memory share. Unlike the other live tests these link the program's
// os room: a reader of kernel memory cannot be seen from outside.
#pragma once

#include "harness.hpp"
#include "os/kernel_view.hpp"

#include <random>

namespace pagesift::live {

constexpr std::uint64_t page = 4096;

/// A view, or nothing where the test is skipped.
std::unique_ptr<os::KernelView> open_view(const std::set<std::string>& without = {});

std::string slurp(const std::string& path);
int open_pagemap(const std::string& process);
std::vector<std::uint64_t> read_pagemap(int fd, std::uint64_t address, std::size_t pages);
std::vector<std::uint64_t> own_pagemap(const void* address, std::size_t pages);

/// A locked page of random bytes, and where the kernel sees it.
class RandomPage {
public:
    explicit RandomPage(const os::KernelView& view);
    ~RandomPage();
    RandomPage(const RandomPage&) = delete;
    RandomPage& operator=(const RandomPage&) = delete;
    const unsigned char* bytes() const { return bytes_; }
    std::uint64_t address() const { return address_; }

private:
    unsigned char* bytes_;
    std::uint64_t address_ = 0;
};

/// Addresses at which there is nothing to read, or nothing that may be read.
std::vector<std::uint64_t> bad_addresses(const os::KernelView& view, const void* own);

/// A random request, of which some pieces are bad, compared with what it must give.
void try_pieces(walk::KernelMemory& memory, const RandomPage& own,
                const std::vector<std::uint64_t>& bad, std::mt19937& random);

/// Runs @p body in a child and gives back what it returns. The child has not read anything before.
std::string in_child(const std::function<std::string()>& body);

double milliseconds(const std::function<void()>& action);

} // namespace pagesift::live
