// SPDX-License-Identifier: MIT
// Regular files on a real file system: what is mapped, what is only cached, what is neither.
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

constexpr std::size_t some_pages = 8;

std::uint64_t map_file(Keeper& keeper, std::size_t pages, int protection, int sharing, int fd) {
    return keeper.map(keeper.place(), bytes_of(pages), protection, sharing, "mapping a file", fd);
}

/// Takes clean pages of a file out of the page cache. The kernel skips what is in passing states.
void drop_from_cache(int fd, std::size_t first, std::size_t pages, std::uint64_t mapped_at) {
    for (int tries = 0; tries < 40; ++tries, usleep(20'000)) {
        fsync(fd);
        posix_fadvise(fd, static_cast<off_t>(bytes_of(first)), static_cast<off_t>(bytes_of(pages)),
                      POSIX_FADV_DONTNEED);
        bool left = false;
        for (bool in : resident(mapped_at + bytes_of(first), pages)) left = left || in;
        if (!left) return;
    }
    throw ProofFailed("POSIX_FADV_DONTNEED leaves pages in the cache");
}

std::vector<Exhibit> file_clean(Keeper& keeper) {
    const int fd = keeper.file(some_pages);
    const auto at = map_file(keeper, some_pages, PROT_READ, MAP_SHARED, fd);
    touch(at, some_pages);
    Exhibit e{.name = "file-clean", .start = at, .runs = {present(some_pages, "file")}};
    e.attributes = {{"dirty", false}};
    e.settle = [=] { touch(at, some_pages); };
    e.prove = [=] {
        expect_flags({at, some_pages}, {}, {kpf_anon, kpf_swapbacked, kpf_dirty, kpf_thp});
        expect_smaps(at, "Rss", some_pages);
        expect_smaps(at, "Private_Clean", some_pages);
        expect_resident({at, some_pages}, true);
    };
    e.proof =
        "written, synced, read through a mapping; not KPF_ANON, not KPF_DIRTY, clean in smaps";
    return {e};
}

std::vector<Exhibit> file_dirty(Keeper& keeper) {
    const int fd = keeper.file(some_pages);
    const auto at = map_file(keeper, some_pages, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    Exhibit e{.name = "file-dirty", .start = at, .runs = {present(some_pages, "file")}};
    e.attributes = {{"dirty", true}};
    e.settle = [=] { fill(at, some_pages); }; // write-back cleans pages after some seconds
    e.settle();
    e.prove = [=] {
        expect_flags({at, some_pages}, {kpf_dirty}, {kpf_anon, kpf_swapbacked, kpf_thp});
        expect_smaps(at, "Private_Dirty", some_pages);
    };
    e.proof = "written through a shared mapping; KPF_DIRTY, smaps Private_Dirty";
    return {e};
}

/// One file, mapped once and never touched: pages that are cached, pages that are not, a hole, and
/// pages beyond the end of the file.
std::vector<Exhibit> file_unmapped(Keeper& keeper) {
    constexpr std::size_t part = some_pages;
    const int fd = keeper.file(2 * part);
    if (ftruncate(fd, static_cast<off_t>(bytes_of(3 * part))) != 0)
        throw Unavailable("ftruncate of a file below /var/tmp");
    const auto at = map_file(keeper, 4 * part, PROT_READ, MAP_SHARED, fd);
    drop_from_cache(fd, 0, 2 * part, at);
    // Reading page by page without readahead keeps the rest of the file out of the cache.
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    const auto cache = [=] {
        std::vector<char> page(page_size());
        for (std::size_t i = 0; i < part; ++i)
            if (pread(fd, page.data(), page.size(), static_cast<off_t>(bytes_of(i))) < 1)
                throw Unavailable("reading a file below /var/tmp");
    };
    cache();
    const auto make = [&](const char* name, std::size_t index, const char* state) {
        Exhibit e{
            .name = name, .start = at + index * bytes_of(part), .runs = {in_state(part, state)}};
        e.table = Table::none;
        return e;
    };
    auto cached = make("file-cached", 0, "cached");
    cached.settle = cache;
    cached.prove = [=] {
        expect_none({at, part});
        expect_resident({at, part}, true);
        expect_cache(fd, {0, part}, part, 0);
    };
    cached.proof = "read(2) but never mapped in; pagemap none, mincore resident, cachestat agrees";

    auto uncached = make("file-uncached", 1, "uncached");
    uncached.prove = [=] {
        expect_none({at + bytes_of(part), part});
        expect_resident({at + bytes_of(part), part}, false);
        expect(lseek(fd, static_cast<off_t>(bytes_of(part)), SEEK_HOLE) ==
                   static_cast<off_t>(bytes_of(2 * part)),
               "the file has data there");
    };
    uncached.proof = "dropped with POSIX_FADV_DONTNEED; mincore not resident, SEEK_HOLE says data";

    auto hole = make("file-hole", 2, "none");
    hole.prove = [=] {
        expect_none({at + bytes_of(2 * part), part});
        expect_resident({at + bytes_of(2 * part), part}, false);
        expect(lseek(fd, static_cast<off_t>(bytes_of(2 * part)), SEEK_DATA) == -1,
               "the file has no data there");
    };
    hole.proof = "ftruncate'd and never written; mincore not resident, SEEK_DATA finds nothing";

    auto beyond = make("file-beyond-end", 3, "none");
    beyond.prove = [=] {
        expect_none({at + bytes_of(3 * part), part});
        expect(lseek(fd, 0, SEEK_END) == static_cast<off_t>(bytes_of(3 * part)),
               "the file ends before");
    };
    beyond.proof = "mapped beyond the end of the file; pagemap none";
    return {cached, uncached, hole, beyond};
}

std::vector<Exhibit> private_cow(Keeper& keeper) {
    const int fd = keeper.file(some_pages);
    const auto at = map_file(keeper, some_pages, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    touch(at, some_pages);
    fill(at + bytes_of(3), 2);
    Exhibit e{.name = "file-private-cow",
              .start = at,
              .runs = {present(3, "file"), present(2, "anon"), present(3, "file")}};
    e.settle = [=] { touch(at, some_pages); };
    e.prove = [=] {
        expect_flags({at, 3}, {}, {kpf_anon, kpf_thp});
        expect_flags({at + bytes_of(3), 2}, {kpf_anon}, {kpf_thp, kpf_zero_page});
        expect_flags({at + bytes_of(5), 3}, {}, {kpf_anon, kpf_thp});
        expect_smaps(at, "Anonymous", 2);
    };
    e.proof = "two pages of a private file mapping written; KPF_ANON on those, smaps Anonymous 2";
    return {e};
}

std::vector<Exhibit> private_cow_swapped(Keeper& keeper) {
    keeper.use_swap(Need::swap_file);
    const auto type = keeper.swap_type(Need::swap_file);
    const int fd = keeper.file(some_pages);
    const auto at = map_file(keeper, some_pages, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    fill(at, some_pages);
    Exhibit e{
        .name = "file-private-cow-swapped", .start = at, .runs = {in_state(some_pages, "swapped")}};
    e.settle = [=] { page_out(at, some_pages); };
    e.settle();
    e.prove = [=] {
        expect_swapped({at, some_pages}, type);
        expect_smaps(at, "Swap", some_pages);
    };
    e.proof = "a private file mapping written and paged out; the entries carry the swap type";
    return {e};
}

} // namespace

std::vector<Step> file_steps() {
    return {
        {{{"file-clean", "present/file"}}, Need::nothing, file_clean},
        {{{"file-dirty", "present/file"}}, Need::nothing, file_dirty},
        {{{"file-cached", "cached"},
          {"file-uncached", "uncached"},
          {"file-hole", "none"},
          {"file-beyond-end", "none"}},
         Need::nothing,
         file_unmapped},
        {{{"file-private-cow", "present/file"}}, Need::nothing, private_cow},
        {{{"file-private-cow-swapped", "swapped"}}, Need::swap_file, private_cow_swapped},
    };
}

} // namespace pagesift::zoo
