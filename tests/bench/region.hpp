// SPDX-License-Identifier: MIT
// Memory of the benchmarks' workloads.
#pragma once

#include "pressure.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace pagesift::bench {

using Facts = std::vector<std::pair<std::string, std::string>>;

class Region {
public:
    Region(std::uint64_t bytes, int flags) : bytes_(bytes) {
        const int protection = PROT_READ | PROT_WRITE;
        void* start = mmap(nullptr, bytes, protection, MAP_ANONYMOUS | flags, -1, 0);
        if (start == MAP_FAILED) fail("mmap of " + std::to_string(bytes) + " bytes");
        start_ = static_cast<std::byte*>(start);
        // Every figure is about 4 KiB pages: machines with THP=always must not differ. EINVAL is
        // what a kernel without transparent huge pages answers.
        if (madvise(start, bytes, MADV_NOHUGEPAGE) != 0 && errno != EINVAL)
            fail("madvise(MADV_NOHUGEPAGE)");
    }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
    ~Region() { munmap(start_, bytes_); }

    std::uint64_t bytes() const { return bytes_; }
    std::uint64_t pages() const { return bytes_ / page_size; }
    std::byte* at(std::uint64_t offset) const { return start_ + offset; }
    std::uint64_t* page(std::uint64_t index) const {
        return reinterpret_cast<std::uint64_t*>(start_ + index * page_size);
    }

    void add_facts(Facts& facts) const {
        char text[64];
        std::snprintf(text, sizeof text, "\"%#jx\"", reinterpret_cast<std::uintmax_t>(start_));
        facts.emplace_back("start", text);
        std::snprintf(text, sizeof text, "\"%#jx\"",
                      reinterpret_cast<std::uintmax_t>(start_ + bytes_));
        facts.emplace_back("end", text);
        facts.emplace_back("bytes", std::to_string(bytes_));
    }

private:
    std::byte* start_;
    std::uint64_t bytes_;
};

// Page-table slots by pairs: of each, the first one holds a page, and the second one an empty table
// once it was made.
class SlotPairs {
public:
    static constexpr std::uint64_t slot = 2 * mib;

    explicit SlotPairs(std::uint64_t count)
        : count_(count), region_(2 * (count + 1) * slot, MAP_PRIVATE | MAP_NORESERVE) {
        const auto start = reinterpret_cast<std::uintptr_t>(region_.at(0));
        first_ = region_.at((slot - start % slot) % slot);
    }

    std::uint64_t count() const { return count_; }
    const Region& region() const { return region_; }
    std::byte* empty(std::uint64_t index) const { return first_ + (2 * index + 1) * slot; }

    void make() const {
        for (std::uint64_t index = 0; index < count_; ++index) {
            *(first_ + 2 * index * slot) = std::byte{1};
            *empty(index) = std::byte{1};
            // Too short to free the table.
            if (madvise(empty(index), page_size, MADV_DONTNEED) != 0) fail("madvise");
        }
    }

private:
    std::uint64_t count_;
    Region region_;
    std::byte* first_ = nullptr;
};

inline constexpr std::uint64_t tables_wanted = 4000;

} // namespace pagesift::bench
