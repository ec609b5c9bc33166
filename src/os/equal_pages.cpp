// SPDX-License-Identifier: MIT
// How much memory is there twice.
#include "os/file.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

constexpr std::uint64_t piece_bytes = 1 << 20;

/// Of a page's contents; 0: all zero. Different contents have the same number once in 2^64 pairs,
/// which an estimate can bear.
std::uint64_t number_of(std::span<const std::uint64_t> words) {
    std::uint64_t bits = 0, sum = 0x9e3779b97f4a7c15;
    for (const std::uint64_t word : words) {
        bits |= word;
        sum = (sum ^ word) * 0xd6e8feb86659fd93;
        sum ^= sum >> 32;
    }
    return bits == 0 ? 0 : std::max<std::uint64_t>(sum, 1);
}

} // namespace

std::optional<std::uint64_t> read_equal_bytes(std::uint32_t pid, AddressRange range,
                                              const OpenOptions& options) {
    const Root root{options.root};
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const Fd page_map = root.open(fmt::format("proc/{}/pagemap", pid), O_RDONLY).fd;
    if (!page_map || !root.live() || !proc_has_own_pids()) return {};
    std::vector<std::uint64_t> entries, words(piece_bytes / 8), numbers;
    bool read_any = false;
    for (Address at = range.start; at < range.end;) {
        const AddressRange piece{at, std::min(at + Bytes{piece_bytes}, range.end)};
        at = piece.end;
        entries.assign(piece.size().value / page, 0);
        if (read_words(page_map.get(), piece.start.value / page, entries) < 0) return {};
        for (std::size_t first = 0; first < entries.size();) {
            std::size_t last = first;
            const auto is_own = [](std::uint64_t entry) {
                return (entry & abi::PM_PRESENT) != 0 && (entry & abi::PM_FILE) == 0;
            };
            while (last < entries.size() && is_own(entries[last])) ++last;
            const std::size_t count = last - first;
            const iovec to{words.data(), count * page};
            const iovec from{reinterpret_cast<void*>(piece.start.value + first * page),
                             count * page};
            const auto got =
                count == 0 ? 0 : ::process_vm_readv(static_cast<pid_t>(pid), &to, 1, &from, 1, 0);
            for (std::size_t i = 0; got > 0 && i < static_cast<std::size_t>(got) / page; ++i) {
                read_any = true;
                if (const auto number = number_of(std::span{words}.subspan(i * page / 8, page / 8)))
                    numbers.push_back(number);
            }
            first = last + 1;
        }
    }
    if (!read_any) return {};
    std::sort(numbers.begin(), numbers.end());
    const auto all = numbers.size();
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    return (all - numbers.size()) * page;
}

} // namespace pagesift::os
