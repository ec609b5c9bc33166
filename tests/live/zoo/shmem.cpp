// SPDX-License-Identifier: MIT
// Shared memory in all its dresses. A page that this process does not map may be cached, in swap,
// or not there at all, and the page table says the same nothing for the three of them.
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

constexpr std::size_t part = 8;

enum class Backing { memfd, tmpfs, system_v, shared_anonymous };

int memfd(Keeper& keeper, std::size_t pages) {
    const int fd = memfd_create("zoo", MFD_CLOEXEC);
    if (fd < 0) throw Unavailable("memfd_create failed");
    keeper.keep_open(fd);
    if (ftruncate(fd, static_cast<off_t>(bytes_of(pages))) != 0)
        throw Unavailable("ftruncate of a memfd");
    return fd;
}

int tmpfs_file(Keeper& keeper, std::size_t pages) {
    char path[] = "/dev/shm/pagesift-zoo-XXXXXX";
    const int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) throw Unavailable("no tmpfs at /dev/shm");
    unlink(path);
    keeper.keep_open(fd);
    if (ftruncate(fd, static_cast<off_t>(bytes_of(pages))) != 0)
        throw Unavailable("ftruncate of a tmpfs file");
    return fd;
}

std::uint64_t attach_system_v(Keeper& keeper, std::size_t pages) {
    const int id = shmget(IPC_PRIVATE, bytes_of(pages), IPC_CREAT | 0600);
    if (id < 0) throw Unavailable("shmget failed");
    const auto at = keeper.place();
    const bool attached = shmat(id, pointer(at), 0) == pointer(at);
    shmctl(id, IPC_RMID, nullptr); // lives on until this process detaches
    if (!attached) throw Unavailable("shmat failed");
    keeper.adopt(at, bytes_of(pages));
    return at;
}

/// A shared mapping without any page in it.
std::uint64_t map_shared(Keeper& keeper, Backing backing, std::size_t pages) {
    constexpr int access = PROT_READ | PROT_WRITE;
    const auto bytes = bytes_of(pages);
    std::uint64_t at = 0;
    switch (backing) {
    case Backing::memfd:
        at = keeper.map(keeper.place(), bytes, access, MAP_SHARED, "a memfd", memfd(keeper, pages));
        break;
    case Backing::tmpfs:
        at = keeper.map(keeper.place(), bytes, access, MAP_SHARED, "a tmpfs file",
                        tmpfs_file(keeper, pages));
        break;
    case Backing::system_v: at = attach_system_v(keeper, pages); break;
    case Backing::shared_anonymous:
        at = keeper.map(keeper.place(), bytes, access, MAP_SHARED | MAP_ANONYMOUS,
                        "shared anonymous memory");
        break;
    }
    madvise(pointer(at), bytes, MADV_NOHUGEPAGE);
    return at;
}

/// The object behind a mapping of this process, for cachestat. Closed by the caller; -1 if refused.
int open_backing(std::uint64_t at, std::size_t pages) {
    char path[80];
    std::snprintf(path, sizeof path, "/proc/self/map_files/%llx-%llx",
                  static_cast<unsigned long long>(at),
                  static_cast<unsigned long long>(at + bytes_of(pages)));
    return open(path, O_RDONLY | O_CLOEXEC);
}

/// The claim of expect_cache for the whole of a shared mapping that is @p total pages long.
void expect_behind(std::uint64_t at, std::size_t total, Pages pages, std::size_t cached,
                   std::size_t evicted) {
    const int fd = open_backing(at, total);
    expect(fd >= 0, "map_files opens");
    try {
        expect_cache(fd, pages, cached, evicted);
    } catch (...) {
        close(fd);
        throw;
    }
    close(fd);
}

void expect_shmem(Pages pages) {
    expect_flags(pages, {kpf_swapbacked}, {kpf_anon, kpf_zero_page, kpf_thp});
}

/// prefix-present, prefix-cached, prefix-hole: neighbours in one mapping.
std::vector<Exhibit> in_memory(Keeper& keeper, const std::string& prefix, Backing backing) {
    constexpr std::size_t total = 3 * part;
    const auto at = map_shared(keeper, backing, total);
    const auto cached_at = at + bytes_of(part), hole_at = at + bytes_of(2 * part);
    fill(at, 2 * part);
    advise(cached_at, part, MADV_DONTNEED, "MADV_DONTNEED");

    Exhibit there{.name = prefix + "-present", .start = at, .runs = {present(part, "shmem")}};
    there.settle = [=] { touch(at, part); };
    there.prove = [=] {
        expect_shmem({at, part});
        expect_smaps(at, "Rss", part);
        expect_smaps(at, "Swap", 0);
    };
    there.proof = "written; KPF_SWAPBACKED and not KPF_ANON, smaps Rss";

    Exhibit cached{
        .name = prefix + "-cached", .start = cached_at, .runs = {in_state(part, "cached")}};
    cached.prove = [=] {
        expect_none({cached_at, part});
        expect_resident({cached_at, part}, true);
        expect_behind(at, total, {part, part}, part, 0);
    };
    cached.proof = "written, then MADV_DONTNEED; pagemap none, mincore and cachestat say cached";

    Exhibit hole{.name = prefix + "-hole", .start = hole_at, .runs = {in_state(part, "none")}};
    hole.prove = [=] {
        expect_none({hole_at, part});
        expect_resident({hole_at, part}, false);
        expect_behind(at, total, {2 * part, part}, 0, 0);
    };
    hole.proof = "never touched; pagemap none, mincore not resident, cachestat 0";
    return {there, cached, hole};
}

/// Swapped pages, with one page of every other state between them.
std::vector<Exhibit> in_swap(Keeper& keeper, const std::string& prefix, Backing backing,
                             Need area) {
    keeper.use_swap(area);
    constexpr std::size_t run = 3, total = 3 * (run + 1);
    const auto at = map_shared(keeper, backing, total);
    const auto page = [at](std::size_t index) { return at + bytes_of(index); };
    fill(at, total - 1);
    for (const std::size_t first : {0u, 4u, 8u}) page_out(page(first), run);
    advise(page(7), 1, MADV_DONTNEED, "MADV_DONTNEED");

    Exhibit e{.name = prefix + "-swapped",
              .start = at,
              .runs = {in_state(run, "shmem-swapped"), present(1, "shmem"),
                       in_state(run, "shmem-swapped"), in_state(1, "cached"),
                       in_state(run, "shmem-swapped"), in_state(1, "none")}};
    e.prove = [=] {
        for (const std::size_t first : {0u, 4u, 8u}) {
            expect_none({page(first), run});
            // The swap file keeps a copy in the swap cache, which is no page-cache page.
            expect_behind(at, total, {first, run}, 0, run);
        }
        expect_shmem({page(3), 1});
        expect_none({page(7), 1});
        expect_behind(at, total, {7, 1}, 1, 0);
        expect_behind(at, total, {11, 1}, 0, 0);
        expect_smaps(at, "Swap", 3 * run);
    };
    e.proof = "paged out; pagemap none, cachestat counts them evicted, smaps Swap agrees";
    return {e};
}

std::vector<Exhibit> memfd_in_memory(Keeper& keeper) {
    return in_memory(keeper, "memfd", Backing::memfd);
}
std::vector<Exhibit> memfd_in_swap(Keeper& keeper) {
    return in_swap(keeper, "memfd", Backing::memfd, Need::swap_file);
}
std::vector<Exhibit> tmpfs_in_memory(Keeper& keeper) {
    return in_memory(keeper, "tmpfs", Backing::tmpfs);
}
std::vector<Exhibit> tmpfs_in_swap(Keeper& keeper) {
    return in_swap(keeper, "tmpfs", Backing::tmpfs, Need::swap_file);
}
std::vector<Exhibit> system_v_in_memory(Keeper& keeper) {
    return in_memory(keeper, "sysv", Backing::system_v);
}
std::vector<Exhibit> system_v_in_swap(Keeper& keeper) {
    return in_swap(keeper, "sysv", Backing::system_v, Need::swap_file);
}
std::vector<Exhibit> shared_anonymous_in_memory(Keeper& keeper) {
    return in_memory(keeper, "shared-anon", Backing::shared_anonymous);
}
std::vector<Exhibit> shared_anonymous_in_swap(Keeper& keeper) {
    return in_swap(keeper, "shared-anon", Backing::shared_anonymous, Need::swap_file);
}
std::vector<Exhibit> shared_anonymous_in_zram(Keeper& keeper) {
    return in_swap(keeper, "shared-anon-zram", Backing::shared_anonymous, Need::zram);
}

/// A read of a hole allocates a page, unlike in private memory.
std::vector<Exhibit> read_hole(Keeper& keeper) {
    const auto at = map_shared(keeper, Backing::memfd, part);
    touch(at, part);
    Exhibit e{.name = "memfd-read-hole", .start = at, .runs = {present(part, "zero-filled")}};
    e.prove = [=] {
        expect_shmem({at, part});
        expect_zeroes({at, part});
        expect_smaps(at, "Rss", part);
    };
    e.proof = "read and never written; KPF_SWAPBACKED without KPF_ZERO_PAGE, the bytes are 0";
    return {e};
}

/// A private mapping of shared memory: what the page table lacks is to be sought behind it.
std::vector<Exhibit> private_mapping(Keeper& keeper) {
    keeper.use_swap(Need::swap_file);
    const auto type = keeper.swap_type(Need::swap_file);
    constexpr std::size_t run = 4, total = 6 * run;
    const int fd = memfd(keeper, total);
    const auto shared = keeper.map(keeper.place(), bytes_of(total), PROT_READ | PROT_WRITE,
                                   MAP_SHARED, "a memfd", fd);
    madvise(pointer(shared), bytes_of(total), MADV_NOHUGEPAGE);
    fill(shared, 5 * run);
    page_out(shared + bytes_of(3 * run), run);
    munmap(pointer(shared), bytes_of(total));

    const auto at = keeper.map(keeper.place(), bytes_of(total), PROT_READ | PROT_WRITE, MAP_PRIVATE,
                               "a memfd, privately", fd);
    madvise(pointer(at), bytes_of(total), MADV_NOHUGEPAGE);
    const auto page = [at](std::size_t index) { return at + bytes_of(index); };
    touch(at, run);
    fill(page(run), 2 * run);
    page_out(page(2 * run), run);
    // A fault maps cached neighbours as well; these are to stay unmapped.
    advise(page(4 * run), run, MADV_DONTNEED, "MADV_DONTNEED");

    Exhibit e{.name = "shmem-private",
              .start = at,
              .runs = {present(run, "shmem"), present(run, "anon"), in_state(run, "swapped"),
                       in_state(run, "shmem-swapped"), in_state(run, "cached"),
                       in_state(run, "none")}};
    e.settle = [=] { page_out(page(2 * run), run); };
    e.prove = [=] {
        expect_shmem({at, run});
        expect_flags({page(run), run}, {kpf_anon}, {kpf_zero_page, kpf_thp});
        expect_swapped({page(2 * run), run}, type);
        expect_none({page(3 * run), 3 * run});
        expect_cache(fd, {3 * run, run}, 0, run);
        expect_cache(fd, {4 * run, run}, run, 0);
        expect_cache(fd, {5 * run, run}, 0, 0);
        expect_smaps(at, "Anonymous", run);
    };
    e.proof = "a memfd mapped privately, read, written, paged out; flags, entries and cachestat";
    return {e};
}

/// Allocated, and never written to: no data for lseek(2), and memory all the same.
std::vector<Exhibit> fallocated(Keeper& keeper) {
    constexpr std::size_t total = 3 * part;
    const int fd = memfd(keeper, total);
    const auto at = keeper.map(keeper.place(), bytes_of(total), PROT_READ | PROT_WRITE, MAP_SHARED,
                               "a memfd", fd);
    madvise(pointer(at), bytes_of(total), MADV_NOHUGEPAGE);
    if (!cachestat(fd, 0, 1)) throw Unavailable("no cachestat, which alone shows these pages");
    if (::fallocate(fd, 0, static_cast<off_t>(bytes_of(part)),
                    static_cast<off_t>(bytes_of(part))) != 0)
        throw Unavailable("fallocate of a memfd");
    fill(at, 1);
    Exhibit e{.name = "memfd-fallocated",
              .start = at,
              .runs = {present(1, "shmem"), in_state(part - 1, "none"), in_state(part, "cached"),
                       in_state(part, "none")}};
    e.settle = [=] { touch(at, 1); };
    e.prove = [=] {
        expect_none({at + bytes_of(1), total - 1});
        expect(lseek(fd, static_cast<off_t>(page_size()), SEEK_DATA) < 0, "the file has no data");
        expect_cache(fd, {1, part - 1}, 0, 0);
        expect_cache(fd, {part, part}, part, 0);
        expect_cache(fd, {2 * part, part}, 0, 0);
    };
    e.proof = "allocated with fallocate(2); no data for SEEK_DATA, cachestat says cached";
    return {e};
}

std::vector<Label> in_memory_labels(const char* present_name, const char* cached_name,
                                    const char* hole_name) {
    return {{present_name, "present/shmem"}, {cached_name, "cached"}, {hole_name, "none"}};
}

} // namespace

std::vector<Step> shmem_steps() {
    return {
        {in_memory_labels("memfd-present", "memfd-cached", "memfd-hole"), Need::nothing,
         memfd_in_memory},
        {{{"memfd-swapped", "shmem-swapped"}}, Need::swap_file, memfd_in_swap},
        {in_memory_labels("tmpfs-present", "tmpfs-cached", "tmpfs-hole"), Need::nothing,
         tmpfs_in_memory},
        {{{"tmpfs-swapped", "shmem-swapped"}}, Need::swap_file, tmpfs_in_swap},
        {in_memory_labels("sysv-present", "sysv-cached", "sysv-hole"), Need::nothing,
         system_v_in_memory},
        {{{"sysv-swapped", "shmem-swapped"}}, Need::swap_file, system_v_in_swap},
        {in_memory_labels("shared-anon-present", "shared-anon-cached", "shared-anon-hole"),
         Need::nothing, shared_anonymous_in_memory},
        {{{"shared-anon-swapped", "shmem-swapped"}}, Need::swap_file, shared_anonymous_in_swap},
        {{{"memfd-read-hole", "present/zero-filled"}}, Need::nothing, read_hole},
        {{{"memfd-fallocated", "cached"}}, Need::nothing, fallocated},
        {{{"shmem-private", "shmem-swapped"}}, Need::swap_file, private_mapping},
    };
}

std::vector<Step> shmem_zram_steps() {
    return {
        {{{"shared-anon-zram-swapped", "shmem-swapped"}}, Need::zram, shared_anonymous_in_zram}};
}

} // namespace pagesift::zoo
