// SPDX-License-Identifier: MIT
#include "exhibit.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <numeric>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proof.hpp"
#include "witness.hpp"

namespace pagesift::zoo {

namespace {

constexpr std::size_t arena_slots = 1024;
constexpr std::uint64_t swap_area_bytes = 64ull << 20;

std::string failure(const char* what) { return std::string(what) + ": " + strerror(errno); }

} // namespace

std::size_t Exhibit::pages() const {
    return std::accumulate(runs.begin(), runs.end(), std::size_t{0},
                           [](std::size_t sum, const Run& run) { return sum + run.pages; });
}

std::uint64_t Exhibit::end() const { return start + pages() * witness::page_size(); }

const char* word(Need need) {
    switch (need) {
    case Need::nothing: return "nothing";
    case Need::swap_file: return "swap-file";
    case Need::zram: return "zram";
    case Need::ksm: return "ksm";
    case Need::thp: return "thp";
    case Need::hugetlb: return "hugetlb";
    }
    return "?";
}

Keeper::Keeper(Machine& machine) : machine_(machine) {
    // Finds a free part of the address space by taking it once; exhibits then map into it, so that
    // no two of them, and nothing of the C library, share a slot.
    const auto slot = witness::slot_size();
    const auto bytes = (arena_slots + 1) * slot;
    void* at = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw Unavailable(failure("no room for the zoo"));
    munmap(at, bytes);
    const auto start = (reinterpret_cast<std::uint64_t>(at) + slot - 1) / slot * slot;
    next_place_ = start + slot;
    arena_end_ = start + arena_slots * slot;
}

std::uint64_t Keeper::place(std::size_t slots) {
    const auto at = next_place_;
    next_place_ += (slots + 1) * witness::slot_size();
    if (next_place_ > arena_end_) throw Unavailable("the zoo's part of the address space is full");
    return at;
}

std::uint64_t Keeper::map(std::uint64_t at, std::uint64_t bytes, int protection, int flags,
                          const char* what, int fd, std::uint64_t offset) {
    void* wanted = reinterpret_cast<void*>(at);
    void* got = mmap(wanted, bytes, protection, flags | MAP_FIXED_NOREPLACE, fd,
                     static_cast<off_t>(offset));
    if (got == MAP_FAILED) throw Unavailable(failure(what));
    if (got != wanted) { // a kernel before 4.17 takes the flag for a hint
        munmap(got, bytes);
        throw Unavailable(std::string(what) + ": mapped elsewhere");
    }
    mapped_.emplace_back(at, bytes);
    return at;
}

std::uint64_t Keeper::anonymous(std::size_t pages) {
    const auto bytes = pages * witness::page_size();
    const auto at =
        map(place(), bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, "anonymous pages");
    madvise(reinterpret_cast<void*>(at), bytes, MADV_NOHUGEPAGE);
    return at;
}

void Keeper::use_swap(Need which) {
    if (swap_types_.count(which) != 0) return;
    if (const auto refusal = swap_refusals_.find(which); refusal != swap_refusals_.end())
        throw Unavailable(refusal->second);
    try {
        turn_on_swap(which);
    } catch (const std::runtime_error& error) {
        swap_refusals_[which] = error.what();
        throw;
    }
}

void Keeper::turn_on_swap(Need which) {
    const auto path = which == Need::zram ? machine_.add_zram(swap_area_bytes)
                                          : machine_.add_swap_file(swap_area_bytes);
    const auto used = [&path] {
        for (const auto& area : witness::swap_areas())
            if (area.path == path) return area.used;
        return std::uint64_t{0};
    };
    // A CPU goes on with the part of an area that it has begun (up to 512 pages, swap_alloc_fast in
    // mm/swapfile.c), whatever is preferred since. So pages are sent out until one arrives here;
    // its entry tells the area's type.
    constexpr std::size_t most = 2048, step = 16;
    const auto before = used();
    const auto scratch = anonymous(most);
    std::size_t sent = 0;
    for (; sent < most && used() == before; sent += step) {
        fill(scratch + bytes_of(sent), step);
        page_out(scratch + bytes_of(sent), step);
    }
    const auto entries = witness::pagemap(getpid(), scratch, sent);
    munmap(pointer(scratch), bytes_of(most));
    if (sent == most || !witness::swapped(entries.back()))
        throw Unavailable("pages that are paged out do not go to " + path);
    swap_types_[which] = witness::swap_type(entries.back());
}

std::uint64_t Keeper::swap_type(Need which) const {
    const auto found = swap_types_.find(which);
    if (found == swap_types_.end()) throw Unavailable(std::string("no ") + word(which));
    return found->second;
}

int Keeper::file(std::size_t pages) {
    char path[] = "/var/tmp/pagesift-zoo-XXXXXX";
    const int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) throw Unavailable(failure("a file below /var/tmp"));
    keep_open(fd);
    unlink(path);
    // Page by page, so that the file system has no reason to use large folios.
    for (std::size_t i = 0; i < pages; ++i) {
        const auto page = random_page();
        if (write(fd, page.data(), page.size()) != static_cast<ssize_t>(page.size()))
            throw Unavailable(failure("writing a file below /var/tmp"));
    }
    if (fsync(fd) != 0) throw Unavailable(failure("fsync of a file below /var/tmp"));
    return fd;
}

int Keeper::keep_open(int fd) {
    descriptors_.push_back(fd);
    return fd;
}

void Keeper::clear() {
    for (pid_t child : children_) {
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }
    for (auto [at, bytes] : mapped_) munmap(reinterpret_cast<void*>(at), bytes);
    for (int fd : descriptors_) close(fd);
    children_.clear();
    mapped_.clear();
    descriptors_.clear();
}

std::vector<Step> catalogue() {
    std::vector<Step> all;
    for (auto part : {fork_steps, anon_steps, file_steps, shmem_steps, marker_steps, table_steps,
                      huge_steps, ksm_steps, anon_zram_steps, shmem_zram_steps}) {
        const auto steps = part();
        all.insert(all.end(), steps.begin(), steps.end());
    }
    return all;
}

} // namespace pagesift::zoo
