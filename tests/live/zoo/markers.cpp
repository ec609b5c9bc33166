// SPDX-License-Identifier: MIT
// PTE markers: guard regions, userfaultfd write protection, poison; and the pages around them that
// are no markers although they wear the same bits.
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

// Newer than Debian 12's headers (6.1).
constexpr int madv_guard_install = 102;                                  // 6.13
constexpr std::uint64_t feature_wp_unpopulated = std::uint64_t{1} << 13; // 6.4
constexpr std::uint64_t feature_poison = std::uint64_t{1} << 14;         // 6.6
struct UffdioPoison {
    uffdio_range range;
    std::uint64_t mode;
    std::int64_t updated;
};
constexpr unsigned long uffdio_poison = _IOWR(UFFDIO, 0x08, UffdioPoison);

int open_userfaultfd(Keeper& keeper, std::uint64_t features) {
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    if (fd < 0) throw Unavailable(std::string("userfaultfd: ") + strerror(errno));
    keeper.keep_open(fd);
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = features;
    if (ioctl(fd, UFFDIO_API, &api) != 0)
        throw Unavailable("userfaultfd has no such feature: " + std::to_string(features));
    return fd;
}

void enroll(int fd, Pages pages, std::uint64_t mode) {
    uffdio_register request{};
    request.range = {pages.at, bytes_of(pages.count)};
    request.mode = mode;
    if (ioctl(fd, UFFDIO_REGISTER, &request) != 0)
        throw Unavailable(std::string("UFFDIO_REGISTER: ") + strerror(errno));
}

void write_protect(int fd, Pages pages) {
    uffdio_writeprotect request{};
    request.range = {pages.at, bytes_of(pages.count)};
    request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
    if (ioctl(fd, UFFDIO_WRITEPROTECT, &request) != 0)
        throw Unavailable(std::string("UFFDIO_WRITEPROTECT: ") + strerror(errno));
}

void expect_uffd_wp(Pages pages, bool set) {
    for (auto entry : entries(pages))
        expect(uffd_wp_bit(entry) == set, "bit 57 is as the exhibit says");
}

std::vector<Exhibit> guard(Keeper& keeper) {
    const auto at = keeper.anonymous(8);
    fill(at, 2);
    advise(at + bytes_of(2), 4, madv_guard_install, "MADV_GUARD_INSTALL");
    Exhibit e{.name = "guard",
              .start = at,
              .runs = {present(2, "anon"), marker(4, "guard"), in_state(2, "none")}};
    e.prove = [=] {
        expect_flags({at, 2}, {kpf_anon}, {});
        expect_marker({at + bytes_of(2), 4}, marker_guard);
        expect_none({at + bytes_of(6), 2});
        expect_smaps(at, "Swap", 0);
    };
    e.proof = "MADV_GUARD_INSTALL; entries of swap type 31 with the guard bit, smaps Swap 0";
    return {e};
}

/// Guards before a file's pages: what is cached behind them cannot be reached.
std::vector<Exhibit> guard_on_file(Keeper& keeper) {
    const int fd = keeper.file(6);
    const auto at =
        keeper.map(keeper.place(), bytes_of(6), PROT_READ, MAP_SHARED, "mapping a file", fd);
    advise(at + bytes_of(2), 2, madv_guard_install, "MADV_GUARD_INSTALL on a file");
    touch(at, 2);
    touch(at + bytes_of(4), 2);
    Exhibit e{.name = "guard-on-file",
              .start = at,
              .runs = {present(2, "file"), marker(2, "guard"), present(2, "file")}};
    e.prove = [=] {
        expect_flags({at, 2}, {}, {kpf_anon, kpf_thp});
        expect_marker({at + bytes_of(2), 2}, marker_guard);
        expect_flags({at + bytes_of(4), 2}, {}, {kpf_anon, kpf_thp});
        expect_cache(fd, {0, 6}, 6, 0);
    };
    e.proof = "MADV_GUARD_INSTALL on cached pages of a file; entries of swap type 31";
    return {e};
}

std::vector<Exhibit> write_protected(Keeper& keeper) {
    keeper.use_swap(Need::swap_file);
    const auto type = keeper.swap_type(Need::swap_file);
    constexpr std::size_t part = 4;
    const int fd = open_userfaultfd(keeper, feature_wp_unpopulated);
    const auto at = keeper.anonymous(3 * part);
    const auto swapped_at = at + bytes_of(part), marker_at = at + bytes_of(2 * part);
    fill(at, 2 * part);
    enroll(fd, {at, 3 * part}, UFFDIO_REGISTER_MODE_WP);
    write_protect(fd, {at, 3 * part});
    page_out(swapped_at, part);

    Exhibit there{.name = "uffd-wp-present", .start = at, .runs = {present(part, "anon")}};
    there.attributes = {{"uffd_wp", true}};
    there.prove = [=] {
        expect_flags({at, part}, {kpf_anon}, {kpf_zero_page});
        expect_uffd_wp({at, part}, true);
    };
    there.proof = "written, then write-protected by userfaultfd; present with bit 57";

    Exhibit swapped{
        .name = "uffd-wp-swapped", .start = swapped_at, .runs = {in_state(part, "swapped")}};
    swapped.attributes = {{"uffd_wp", true}};
    swapped.settle = [=] { page_out(swapped_at, part); };
    swapped.prove = [=] {
        expect_swapped({swapped_at, part}, type);
        expect_uffd_wp({swapped_at, part}, true);
        expect_smaps(at, "Swap", part);
    };
    swapped.proof = "write-protected, then paged out; bit 57 on entries of the swap file's type";

    Exhibit marked{.name = "uffd-wp-marker", .start = marker_at, .runs = {marker(part, "uffd-wp")}};
    marked.prove = [=] {
        expect_marker({marker_at, part}, marker_uffd_wp);
        expect_uffd_wp({marker_at, part}, true);
    };
    marked.proof = "never touched and write-protected; entries of swap type 31 with bit 57";
    return {there, swapped, marked};
}

/// Shared memory leaves a marker behind where a write-protected page goes.
std::vector<Exhibit> write_protected_shmem(Keeper& keeper) {
    constexpr std::size_t count = 4;
    const int fd =
        open_userfaultfd(keeper, feature_wp_unpopulated | UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
    const auto at = keeper.map(keeper.place(), bytes_of(count), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, "shared anonymous memory");
    madvise(pointer(at), bytes_of(count), MADV_NOHUGEPAGE);
    fill(at, count);
    enroll(fd, {at, count}, UFFDIO_REGISTER_MODE_WP);
    write_protect(fd, {at, count});
    advise(at, count, MADV_DONTNEED, "MADV_DONTNEED");
    Exhibit e{.name = "uffd-wp-marker-on-shmem", .start = at, .runs = {marker(count, "uffd-wp")}};
    e.prove = [=] { expect_marker({at, count}, marker_uffd_wp); };
    e.proof = "write-protected shared memory, then MADV_DONTNEED; entries of swap type 31";
    return {e};
}

std::vector<Exhibit> poison(Keeper& keeper) {
    constexpr std::size_t count = 4;
    const int fd = open_userfaultfd(keeper, feature_poison);
    const auto at = keeper.anonymous(2 * count);
    enroll(fd, {at, 2 * count}, UFFDIO_REGISTER_MODE_MISSING);
    UffdioPoison request{{at, bytes_of(count)}, 0, 0};
    if (ioctl(fd, uffdio_poison, &request) != 0)
        throw Unavailable(std::string("UFFDIO_POISON: ") + strerror(errno));
    Exhibit e{
        .name = "poison", .start = at, .runs = {marker(count, "poison"), in_state(count, "none")}};
    e.prove = [=] {
        expect_marker({at, count}, marker_poison);
        expect_none({at + bytes_of(count), count});
        expect_smaps(at, "Swap", 0);
    };
    e.proof = "UFFDIO_POISON; entries of swap type 31 with the poison bit";
    return {e};
}

/// Who reads a missing page here waits for a monitor that does not exist.
std::vector<Exhibit> missing_mode(Keeper& keeper) {
    constexpr std::size_t count = 4;
    const auto at = keeper.anonymous(2 * count);
    fill(at, count);
    const int fd = open_userfaultfd(keeper, 0);
    enroll(fd, {at, 2 * count}, UFFDIO_REGISTER_MODE_MISSING);
    Exhibit e{.name = "uffd-missing",
              .start = at,
              .runs = {present(count, "anon"), in_state(count, "none")}};
    e.prove = [=] {
        expect_flags({at, count}, {kpf_anon}, {kpf_zero_page});
        expect_none({at + bytes_of(count), count});
        expect(mapping_at(getpid(), at)->vm_flags.find(" um ") != std::string::npos,
               "VmFlags shows the registration");
    };
    e.proof = "half written, then registered with userfaultfd for missing pages; VmFlags um";
    return {e};
}

/// A page frame declared broken. It is lost to the machine until the next start, so this is done
/// only where somebody allows it: in a guest.
std::vector<Exhibit> broken(Keeper& keeper) {
    if (std::getenv("PAGESIFT_ZOO_MAY_BREAK_MEMORY") == nullptr)
        throw Unavailable("a broken page frame stays broken until the machine restarts");
    constexpr std::size_t count = 4;
    const auto at = keeper.anonymous(count);
    fill(at, count);
    std::signal(SIGBUS, [](int) {}); // the kernel reports that data were lost; ignored, it kills
    advise(at + bytes_of(1), 1, MADV_HWPOISON, "MADV_HWPOISON");
    Exhibit e{.name = "hwpoison",
              .start = at,
              .runs = {present(1, "anon"), in_state(1, "migrating"), present(2, "anon")}};
    e.runs[1].marker = "hwpoison";
    e.prove = [=] {
        const auto entry = entries({at + bytes_of(1), 1}).front();
        expect(swap_like(entry) && swap_type(entry) >= 23 && !marker(entry),
               "an entry of a special type stands in the page's place");
        expect(has(kpageflags(swap_offset(entry)), kpf_hwpoison), "its frame has KPF_HWPOISON");
    };
    e.proof = "MADV_HWPOISON; an entry of a special swap type, whose frame has KPF_HWPOISON";
    return {e};
}

/// Where five levels of tables or 52 bits of address give room beyond what programs get unasked.
std::vector<Exhibit> high_address(Keeper& keeper) {
    const int on_the_stack = 0; // which ends where programs' addresses do
    const auto bits = std::bit_width(reinterpret_cast<std::uint64_t>(&on_the_stack));
    const auto at = std::uint64_t{1} << bits;
    keeper.map(at, bytes_of(4), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
               "no addresses beyond those of every program");
    advise(at, 4, MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
    fill(at, 2);
    Exhibit e{
        .name = "high-address", .start = at, .runs = {present(2, "anon"), in_state(2, "none")}};
    e.prove = [=] {
        expect_flags({at, 2}, {kpf_anon}, {kpf_zero_page, kpf_thp});
        expect_none({at + bytes_of(2), 2});
    };
    e.proof = "mapped at the first address beyond the stack's range; KPF_ANON";
    return {e};
}

} // namespace

std::vector<Step> marker_steps() {
    return {
        {{{"guard", "marker/guard"}}, Need::nothing, guard},
        {{{"guard-on-file", "marker/guard"}}, Need::nothing, guard_on_file},
        {{{"uffd-wp-present", "present/anon"},
          {"uffd-wp-swapped", "swapped"},
          {"uffd-wp-marker", "marker/uffd-wp"}},
         Need::swap_file,
         write_protected},
        {{{"uffd-wp-marker-on-shmem", "marker/uffd-wp"}}, Need::nothing, write_protected_shmem},
        {{{"poison", "marker/poison"}}, Need::nothing, poison},
        {{{"uffd-missing", "present/anon"}}, Need::nothing, missing_mode},
        {{{"hwpoison", "marker/hwpoison"}}, Need::nothing, broken},
        {{{"high-address", "present/anon"}}, Need::nothing, high_address},
    };
}

} // namespace pagesift::zoo
