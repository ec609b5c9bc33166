// SPDX-License-Identifier: MIT
#include "proof.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <sstream>

#include <sys/mman.h>
#include <unistd.h>

namespace pagesift::zoo {

namespace {

std::string where(Pages range, std::size_t index) {
    std::ostringstream text;
    text << "page " << index << " of " << range.count << " at 0x" << std::hex << range.at;
    return text.str();
}

template <class Claim> void expect_entries(Pages range, const char* what, Claim claim) {
    const auto all = entries(range);
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (claim(all[i])) continue;
        std::ostringstream text;
        text << where(range, i) << " is " << what << " (entry 0x" << std::hex << all[i] << ")";
        throw ProofFailed("not so: " + text.str());
    }
}

} // namespace

std::vector<char> random_page() {
    static std::mt19937_64 random{std::random_device{}()};
    std::vector<char> page(witness::page_size());
    for (std::size_t at = 0; at < page.size(); at += 8) {
        const std::uint64_t word = random() | 1;
        std::memcpy(page.data() + at, &word, 8);
    }
    return page;
}

void fill(std::uint64_t at, std::size_t pages) {
    for (std::size_t i = 0; i < pages; ++i) {
        const auto page = random_page();
        std::memcpy(pointer(at + bytes_of(i)), page.data(), page.size());
    }
}

void fill_with_zeroes(std::uint64_t at, std::size_t pages) {
    std::memset(pointer(at), 0, bytes_of(pages));
}

void touch(std::uint64_t at, std::size_t pages) {
    for (std::size_t i = 0; i < pages; ++i)
        (void)*static_cast<volatile const char*>(pointer(at + bytes_of(i)));
}

void advise(std::uint64_t at, std::size_t pages, int advice, const char* what) {
    if (madvise(pointer(at), bytes_of(pages), advice) != 0)
        throw Unavailable(std::string(what) + ": " + strerror(errno));
}

void page_out(std::uint64_t at, std::size_t pages) {
    for (int tries = 0; tries < 40; ++tries) {
        advise(at, pages, MADV_PAGEOUT, "MADV_PAGEOUT");
        const auto all = entries({at, pages});
        if (std::none_of(all.begin(), all.end(), witness::present)) return;
        usleep(20'000);
    }
    throw ProofFailed("MADV_PAGEOUT leaves pages in memory");
}

void drain_batches() {
    // MADV_COLD drains the batches of the CPU it runs on before it looks at any page.
    static char own[1];
    const auto page = reinterpret_cast<std::uint64_t>(own) / witness::page_size();
    madvise(pointer(page * witness::page_size()), 1, MADV_COLD);
}

std::vector<std::uint64_t> entries(Pages range) {
    auto all = witness::pagemap(getpid(), range.at, range.count);
    expect(all.size() == range.count, "pagemap answers for every page of the zoo");
    return all;
}

void expect_none(Pages range) { expect_entries(range, "none", witness::none); }
void expect_present(Pages range) { expect_entries(range, "present", witness::present); }

void expect_swapped(Pages range, std::uint64_t type) {
    expect_entries(range, "in the swap area", [type](std::uint64_t e) {
        return witness::swapped(e) && witness::swap_type(e) == type;
    });
}

void expect_marker(Pages range, std::uint64_t which) {
    expect_entries(range, "a marker", [which](std::uint64_t e) {
        return witness::marker(e) && witness::swap_offset(e) == which;
    });
}

void expect_flags(Pages range, std::initializer_list<witness::KpfBit> set,
                  std::initializer_list<witness::KpfBit> clear) {
    expect_present(range);
    const auto all = entries(range);
    for (std::size_t i = 0; i < all.size(); ++i) {
        const auto flags = witness::folio_flags(witness::frame(all[i]));
        for (auto bit : set)
            expect(witness::has(flags, bit), where(range, i) + " has flag " + std::to_string(bit));
        for (auto bit : clear)
            expect(!witness::has(flags, bit) ||
                       (bit == witness::kpf_ksm && witness::ksm_flag_lies()),
                   where(range, i) + " has no flag " + std::to_string(bit));
    }
}

void expect_count(Pages range, std::uint64_t count) {
    const auto all = entries(range);
    for (std::size_t i = 0; i < all.size(); ++i)
        expect(witness::present(all[i]) && witness::kpagecount(witness::frame(all[i])) == count,
               where(range, i) + " is mapped " + std::to_string(count) + " times");
}

void expect_smaps(std::uint64_t at, const std::string& field, std::size_t pages) {
    const auto mapping = witness::mapping_at(getpid(), at);
    expect(mapping && mapping->start == at, "a mapping starts at the exhibit");
    const auto found = mapping->bytes.find(field);
    expect(found != mapping->bytes.end(), "smaps has " + field);
    expect(found->second == bytes_of(pages), "smaps " + field + " is " +
                                                 std::to_string(bytes_of(pages)) +
                                                 " bytes and not " + std::to_string(found->second));
}

void expect_resident(Pages range, bool resident) {
    const auto all = witness::resident(range.at, range.count);
    expect(all.size() == range.count, "mincore answers");
    for (std::size_t i = 0; i < all.size(); ++i)
        expect(all[i] == resident, where(range, i) + (resident ? " is cached" : " is not cached"));
}

void expect_cache(int fd, Pages file_range, std::size_t cached, std::size_t evicted) {
    const auto stat = witness::cachestat(fd, bytes_of(file_range.at), bytes_of(file_range.count));
    if (!stat) return; // before 6.5; the other claims of the exhibit stand alone there
    expect(stat->cached == cached, "cachestat counts " + std::to_string(cached) +
                                       " pages in the cache and not " +
                                       std::to_string(stat->cached));
    expect(stat->evicted == evicted, "cachestat counts " + std::to_string(evicted) +
                                         " evicted pages and not " + std::to_string(stat->evicted));
}

void expect_zeroes(Pages range) {
    const auto* bytes = static_cast<const char*>(pointer(range.at));
    expect(std::all_of(bytes, bytes + bytes_of(range.count), [](char c) { return c == 0; }),
           "every byte is 0");
}

} // namespace pagesift::zoo
