// SPDX-License-Identifier: MIT
// Where in swap shared pages lie: what the exact lens says and no system call does, proved by what
// is there.
#include "harness.hpp"
#include "zoo/machine.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

constexpr std::size_t page = 4096;
constexpr std::array kinds = {"memfd", "tmpfs", "System V", "shared anonymous", "private"};

/// Pages of each kind; PAGESIFT_SWAPPED_PAGES makes it a long test.
std::size_t pages_of_a_kind() {
    const char* wanted = std::getenv("PAGESIFT_SWAPPED_PAGES");
    return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 2048;
}

/// What a page holds: no two are alike, and no word of one occurs in another.
std::array<std::uint64_t, page / 8> pattern(std::size_t kind, std::size_t index) {
    std::array<std::uint64_t, page / 8> words;
    std::uint64_t x = kind << 56 | index << 16;
    for (auto& word : words) word = ++x * 0x9e3779b97f4a7c15;
    return words;
}

/// Memory of a kind at an address; false: cannot be had here.
bool map_kind(std::size_t kind, char* at, std::size_t bytes) {
    int fd = -1;
    int flags = MAP_FIXED | MAP_SHARED;
    switch (kind) {
    case 0: fd = memfd_create("pagesift", MFD_CLOEXEC); break;
    case 1: {
        char path[] = "/dev/shm/pagesift-lens-XXXXXX";
        fd = mkostemp(path, O_CLOEXEC);
        unlink(path);
        break;
    }
    case 2: {
        const int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
        const bool attached = id >= 0 && shmat(id, at, SHM_REMAP) == at;
        shmctl(id, IPC_RMID, nullptr);
        return attached;
    }
    case 3: flags |= MAP_ANONYMOUS; break;
    default: flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS; break;
    }
    if (fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) != 0) return false;
    return mmap(at, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == at;
}

/// Fills all kinds one behind the other from @p start on, and pages most of it out: neighbours
/// together or not, in no order, so that offsets jump.
void fill_and_page_out(char* start, std::size_t pages) {
    constexpr std::size_t some = 8;
    std::vector<char*> parts;
    for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
        char* const at = start + kind * pages * page;
        if (!map_kind(kind, at, pages * page)) continue;
        madvise(at, pages * page, MADV_NOHUGEPAGE);
        for (std::size_t i = 0; i < pages; ++i) {
            const auto words = pattern(kind, i);
            std::memcpy(at + i * page, words.data(), page);
        }
        for (std::size_t i = 0; i + some <= pages; i += some)
            if (i / some % 4 != 3) parts.push_back(at + i * page);
    }
    std::shuffle(parts.begin(), parts.end(), std::mt19937{4711});
    for (std::size_t i = 0; i < parts.size(); ++i)
        madvise(parts[i], (i % 3 == 0 ? 1 : some) * page, MADV_PAGEOUT);
}

struct SwappedPage {
    std::uint64_t address = 0;
    std::string type, offset;
};

/// The swapped pages of a listing in csv.
std::vector<SwappedPage> parse_csv(const std::string& text) {
    std::vector<SwappedPage> pages;
    std::istringstream lines{text};
    std::string line;
    std::getline(lines, line);
    REQUIRE(line.rfind("pid,comm,address,state,kind,marker,swap_type,swap_offset,", 0) == 0);
    while (std::getline(lines, line)) {
        std::istringstream fields{line};
        std::array<std::string, 8> field;
        for (auto& one : field) std::getline(fields, one, ',');
        pages.push_back({std::stoull(field[2], nullptr, 16), field[6], field[7]});
    }
    return pages;
}

/// The pages of a swap file as they are on the disk, whatever is cached of it.
class SwapFile {
public:
    explicit SwapFile(const std::string& path)
        : fd_(open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)),
          buffer_(static_cast<char*>(aligned_alloc(page, page))) {
        REQUIRE(fd_ >= 0);
    }
    ~SwapFile() {
        close(fd_);
        std::free(buffer_);
    }
    SwapFile(const SwapFile&) = delete;
    SwapFile& operator=(const SwapFile&) = delete;

    /// Whether the page at an offset is @p words; waits a moment for it to be written.
    bool holds(std::uint64_t offset, const std::array<std::uint64_t, page / 8>& words) const {
        for (int tries = 0; tries < 200; ++tries, usleep(10'000)) {
            if (pread(fd_, buffer_, page, static_cast<off_t>(offset * page)) != page) return false;
            if (std::memcmp(buffer_, words.data(), page) == 0) return true;
            if (given_up_) return false;
        }
        given_up_ = true; // once is enough
        return false;
    }

private:
    int fd_;
    char* buffer_;
    mutable bool given_up_ = false;
};

struct Proof {
    std::size_t swapped = 0, without_offset = 0, elsewhere = 0;
};

/// Looks at pages that were paged out and reads the swap file where they are said to lie.
std::map<std::size_t, Proof> prove(pid_t pid, char* start, std::size_t pages,
                                   const std::string& swap_file) {
    std::ostringstream range;
    range << std::hex << reinterpret_cast<std::uintptr_t>(start) << '+' << std::dec
          << kinds.size() * pages * page;
    const auto outcome =
        run_pagesift({"inspect", "--lens", "exact", "--pages", "--format", "csv", "--where",
                      "swapped or shmem-swapped", "-a", range.str(), "-p", std::to_string(pid)});
    CHECK(outcome.exit_code == 0);
    const SwapFile file{swap_file};
    std::map<std::size_t, Proof> proofs;
    std::set<std::string> types, offsets;
    for (const auto& seen : parse_csv(outcome.out)) {
        const auto at = (seen.address - reinterpret_cast<std::uintptr_t>(start)) / page;
        auto& proof = proofs[at / pages];
        ++proof.swapped;
        if (seen.type.empty() || seen.offset.empty()) {
            ++proof.without_offset;
            continue;
        }
        types.insert(seen.type);
        offsets.insert(seen.offset);
        if (!file.holds(std::stoull(seen.offset), pattern(at / pages, at % pages)))
            ++proof.elsewhere;
    }
    CHECK(types.size() == 1); // the preferred area takes them all
    std::size_t all = 0;
    for (const auto& [kind, proof] : proofs) all += proof.swapped - proof.without_offset;
    CHECK(offsets.size() == all);
    return proofs;
}

} // namespace

TEST_CASE("lens: swapped pages lie at the offsets that are reported, whatever kind they are of") {
    if (!have_root() || lenses().back() != "exact") return;
    release_zoo();
    const std::size_t pages = pages_of_a_kind(), bytes = kinds.size() * pages * page;
    auto* const start = static_cast<char*>(
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    REQUIRE(start != MAP_FAILED);
    zoo::Machine machine;
    std::string swap_file;
    try {
        swap_file = machine.add_swap_file(bytes + 64 * page);
    } catch (const zoo::Unavailable& reason) {
        return skip(std::string("no swap file: ") + reason.what());
    }
    machine.release();
    {
        const Child child{[&](const auto& ready) {
            fill_and_page_out(start, pages);
            ready();
        }};
        child.stop();
        auto proofs = prove(child.pid(), start, pages, swap_file);
        for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
            const Proof& proof = proofs[kind];
            MESSAGE(std::string(kinds[kind])
                    << ": " << proof.swapped << " of " << pages << " swapped, " << proof.elsewhere
                    << " not where they are said to be");
            CHECK(proof.swapped > pages / 8); // the kernel refuses some at times
            CHECK(proof.without_offset == 0);
            CHECK(proof.elsewhere == 0);
        }
    }
    munmap(start, bytes);
}

} // namespace pagesift::live
