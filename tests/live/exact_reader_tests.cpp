// SPDX-License-Identifier: MIT
// The readers of kernel memory on the live kernel: what they read, what they refuse, which
// privileges they take, and what they leave behind. Unlike the other live tests these link the
// program's os room: a reader cannot be seen from outside.
#include "harness.hpp"
#include "os/bpf_reader.hpp"
#include "os/kernel_view.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <map>
#include <random>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

namespace pagesift::live {
namespace {

using os::BpfReader;
using os::KernelView;
using os::open_kernel_view;
using walk::Piece;

constexpr std::uint64_t page = 4096;

/// A view, or nothing where the test is skipped.
std::unique_ptr<KernelView> open_view(const std::set<std::string>& without = {}) {
    auto result = open_kernel_view(without);
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

/// A locked page of random bytes, and where the kernel sees it.
class RandomPage {
public:
    explicit RandomPage(const KernelView& view)
        : bytes_(static_cast<unsigned char*>(
              ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        ::mlock(bytes_, page);
        std::mt19937 random{4711};
        std::generate_n(bytes_, page, [&] { return static_cast<unsigned char>(random() | 1); });
        const auto entry = own_pagemap(bytes_, 1).at(0);
        address_ = view.kernel().bases.direct_map + (entry & ((std::uint64_t{1} << 55) - 1)) * page;
    }
    ~RandomPage() { ::munmap(bytes_, page); }
    RandomPage(const RandomPage&) = delete;
    RandomPage& operator=(const RandomPage&) = delete;
    const unsigned char* bytes() const { return bytes_; }
    std::uint64_t address() const { return address_; }

private:
    unsigned char* bytes_;
    std::uint64_t address_ = 0;
};

/// Addresses at which there is nothing to read, or nothing that may be read.
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

/// A random request, of which some pieces are bad, compared with what it must give.
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

/// Runs @p body in a child and gives back what it returns. The child has not read anything before.
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

constexpr std::uint64_t bit(unsigned capability) { return std::uint64_t{1} << capability; }

/// From here on user nobody with these capabilities and no others.
void become(std::uint64_t capabilities) {
    ::prctl(PR_SET_KEEPCAPS, 1);
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) _exit(9);
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2]{};
    for (unsigned i = 0; i < 2; ++i)
        sets[i].effective = sets[i].permitted =
            static_cast<std::uint32_t>(capabilities >> (32 * i));
    if (::syscall(SYS_capset, &header, sets) != 0) _exit(9);
    // Without this the own files below /proc belong to root.
    ::prctl(PR_SET_DUMPABLE, 1);
}

/// "reads" or why not, then "view" or why not.
std::string attempt(std::uint64_t capabilities) {
    return in_child([&] {
        // Before Linux 5.11 a program counts as locked memory.
        const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
        ::setrlimit(RLIMIT_MEMLOCK, &none);
        become(capabilities);
        std::string text = "reads";
        try {
            BpfReader reader;
            if (reader.caller().task == 0) text = "no task";
        } catch (const Error& error) {
            text = std::string{error.what()} + " (" + error.hint() + ")";
        }
        const auto result = open_kernel_view({"kcore"});
        return text + "; " + (result.view ? "view" : result.reason);
    });
}

/// Numbers of all programs (BPF_PROG_GET_NEXT_ID) or maps of this machine, ascending.
std::vector<std::uint32_t> bpf_objects(bpf_cmd next) {
    std::vector<std::uint32_t> ids;
    bpf_attr attributes{};
    while (::syscall(SYS_bpf, next, &attributes, sizeof attributes) == 0) {
        ids.push_back(attributes.next_id);
        attributes.start_id = attributes.next_id;
    }
    return ids;
}

/// How many there are now that were not there before. The kernel frees them a moment after their
/// last user has gone, so what an earlier test had may still disappear.
std::size_t new_objects(bpf_cmd next, const std::vector<std::uint32_t>& before) {
    const auto now = bpf_objects(next);
    std::vector<std::uint32_t> added;
    std::set_difference(now.begin(), now.end(), before.begin(), before.end(),
                        std::back_inserter(added));
    return added.size();
}

std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all{"/proc/self/fd"};
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

double milliseconds(const std::function<void()>& action) {
    const auto start = std::chrono::steady_clock::now();
    action();
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    return taken.count();
}

} // namespace

namespace {

/// What the kernel has to say while this lives. None of it may be about us.
class KernelLog {
public:
    KernelLog() : taint_(slurp("/proc/sys/kernel/tainted")) { ::lseek(log_, 0, SEEK_END); }
    ~KernelLog() { ::close(log_); }
    KernelLog(const KernelLog&) = delete;
    KernelLog& operator=(const KernelLog&) = delete;

    std::string complaints() const {
        std::string found;
        char record[8192];
        for (ssize_t n; (n = ::read(log_, record, sizeof record)) > 0;) {
            const std::string_view text(record, static_cast<std::size_t>(n));
            for (const char* word : {"BUG", "Oops", "WARNING", "fault"})
                if (text.find(word) != std::string_view::npos) found += text;
        }
        if (slurp("/proc/sys/kernel/tainted") != taint_) found += "tainted";
        return found;
    }

private:
    std::string taint_;
    int log_ = ::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
};

void try_addresses(walk::KernelMemory& memory, const RandomPage& own,
                   const std::vector<std::uint64_t>& bad) {
    for (const auto address : bad) {
        const std::vector<Piece> pieces{{own.address(), 8}, {address, 8}, {own.address(), 8}};
        const auto copied = memory.read(pieces);
        CAPTURE(address);
        CHECK(copied.good[0] == 1);
        CHECK(copied.good[1] == 0);
        CHECK(copied.good[2] == 1);
    }
    std::mt19937 random{1};
    for (int i = 0; i < 20000; ++i) try_pieces(memory, own, bad, random);
}

/// The start of the kernel's own code; 0: hidden.
std::uint64_t kernel_text() {
    std::istringstream symbols{slurp("/proc/kallsyms")};
    for (std::string line; std::getline(symbols, line);)
        if (line.ends_with(" _stext")) return std::stoull(line, nullptr, 16);
    return 0;
}

} // namespace

TEST_CASE("exact reader: random pieces of an own page come whole, and bad addresses not at all") {
    const auto view = open_view({"kcore"});
    if (!view) return;
    const RandomPage own{*view};
    auto bad = bad_addresses(*view, own.bytes());
    const KernelLog log;
    // A reader of its own asks the kernel for all of them but the user's and what is not canonical.
    for (const auto kind : {BpfReader::Kind::automatic, BpfReader::Kind::raw_tracepoint}) {
        BpfReader reader{kind};
        try_addresses(reader, own, bad);
    }
    // That of a view keeps to RAM and struct pages.
    bad.push_back(kernel_text());
    try_addresses(view->memory(), own, bad);
    try_addresses(view->clone()->memory(), own, bad);
    CHECK(log.complaints().empty());
}

TEST_CASE("exact reader: more than one call takes is refused, and no piece is no call") {
    const auto view = open_view();
    if (!view) return;
    const RandomPage own{*view};
    auto& memory = view->memory();
    CHECK(memory.most_pieces() >= 16);
    CHECK(memory.most_bytes() >= 16 * page);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(memory.most_pieces() + 1, {own.address(), 8})),
                    Error);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(17, {own.address(), 4096})), Error);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(1, {own.address(), 4097})), Error);
    CHECK_THROWS_AS(memory.read(std::vector<Piece>(1, {own.address(), ~0u})), Error);
    CHECK(memory.read({}).bytes.empty());
    CHECK(memory.read(std::vector<Piece>(16, {own.address(), 4096})).bytes.size() == 16 * page);
}

TEST_CASE("exact reader: it takes CAP_BPF and CAP_PERFMON, and CAP_SYS_ADMIN for frames") {
    if (::getuid() != 0) return skip("not root");
    if (!open_view({"kcore"})) return;
    const auto none = attempt(0);
    CHECK(none.find("EPERM") != std::string::npos);
    CHECK(none.find("CAP_BPF and CAP_PERFMON") != std::string::npos);
    CHECK(none.find("view") == std::string::npos);
    CHECK(attempt(bit(CAP_PERFMON)).find("CAP_BPF and CAP_PERFMON") != std::string::npos);
    // Older kernels (6.1) hand the helper to CAP_BPF alone.
    const auto bpf_only = attempt(bit(CAP_BPF));
    CHECK((bpf_only.find("CAP_BPF and CAP_PERFMON") != std::string::npos ||
           bpf_only.find("reads") == 0));
    const auto without_frames = attempt(bit(CAP_BPF) | bit(CAP_PERFMON));
    CHECK(without_frames.find("reads; ") == 0);
    CHECK(without_frames.find("frame numbers are hidden") != std::string::npos);
    CHECK(attempt(bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_SYS_ADMIN)) == "reads; view");
    CHECK(attempt(bit(CAP_SYS_ADMIN)) == "reads; view");
}

TEST_CASE("exact reader: nothing of it is inherited, and nothing is left behind") {
    if (!open_view({"kcore"})) return;
    const auto programs = bpf_objects(BPF_PROG_GET_NEXT_ID);
    const auto maps = bpf_objects(BPF_MAP_GET_NEXT_ID);
    const auto descriptors = open_descriptors();
    {
        const auto view = open_view({"kcore"});
        CHECK(new_objects(BPF_PROG_GET_NEXT_ID, programs) == 1);
        CHECK(new_objects(BPF_MAP_GET_NEXT_ID, maps) == 1);
        CHECK(open_descriptors() == descriptors + 1);
        for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
            const int fd = std::stoi(entry.path().filename());
            std::error_code gone;
            const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
            if (target.find("bpf") != std::string::npos)
                CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        }
        CHECK(slurp("/proc/self/maps").find("bpf") != std::string::npos);
        CHECK(in_child([] { return slurp("/proc/self/maps"); }).find("bpf") == std::string::npos);
    }
    CHECK(open_descriptors() == descriptors);
    std::size_t left = 1;
    for (int i = 0; i < 100 && left != 0; ++i) {
        left = new_objects(BPF_PROG_GET_NEXT_ID, programs) + new_objects(BPF_MAP_GET_NEXT_ID, maps);
        if (left != 0) std::this_thread::sleep_for(std::chrono::milliseconds{20});
    }
    CHECK(left == 0);
}

TEST_CASE("exact reader: threads with a clone each get their own answers") {
    const auto view = open_view();
    if (!view) return;
    const RandomPage own{*view};
    const auto bad = bad_addresses(*view, own.bytes());
    std::atomic<unsigned> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t)
        threads.emplace_back([&, t, clone = view->clone()] {
            const std::size_t offset = t * 1024;
            for (unsigned i = 0; i < 50000; ++i) {
                const Piece pieces[] = {{bad[i % bad.size()], 8}, {own.address() + offset, 1024}};
                const auto copied = clone->memory().read(pieces);
                if (copied.good[0] != 0 || copied.good[1] != 1 ||
                    std::memcmp(copied.bytes.data() + 8, own.bytes() + offset, 1024) != 0)
                    ++wrong;
            }
            const int fd = open_pagemap("self");
            if (!clone->find_top_table(fd)) ++wrong;
            ::close(fd);
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
}

TEST_CASE("exact reader: from nothing to a checked view takes less than 10 ms") {
    if (!open_view()) return;
    BpfReader ready;
    if (milliseconds([&] { ready.caller(); }) > 0.02) return skip("an emulated machine");
#ifdef __SANITIZE_ADDRESS__
    return skip("a sanitizer's build");
#endif
    std::vector<double> taken;
    for (int i = 0; i < 21; ++i) taken.push_back(milliseconds([] { open_kernel_view({}); }));
    std::sort(taken.begin(), taken.end());
    const double reader = milliseconds([] { BpfReader{}; });
    MESSAGE("view: best ", taken.front(), " ms, median ", taken[10], " ms; reader alone ", reader,
            " ms");
    // The best of them, because the machine may have other work.
    CHECK(taken.front() < 10);
}

TEST_CASE("exact reader: what an open file has in memory is found by its descriptor") {
    const auto view = open_view();
    if (!view) return;
    const int fd = ::memfd_create("pagesift", MFD_CLOEXEC);
    REQUIRE(::ftruncate(fd, 64 * page) == 0);
    auto* const memory =
        static_cast<char*>(::mmap(nullptr, 64 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    for (std::size_t i = 0; i < 64; i += 3) memory[i * page] = 1;
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const int other = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    const auto mapping = view->find_mapping(other);
    REQUIRE(mapping);
    CHECK(view->find_mapping(fd) == mapping);
    std::vector<walk::CachedPage> pages(64);
    walk::walk_page_cache(view->memory(), view->kernel(), *mapping, 0, pages);
    const auto entries = own_pagemap(memory, 64);
    for (std::size_t i = 0; i < 64; ++i) {
        CAPTURE(i);
        const bool present = (entries[i] >> 63) != 0;
        if (present)
            CHECK(pages[i] == walk::CachedPage{walk::CachedPage::State::folio, 0,
                                               entries[i] & ((std::uint64_t{1} << 55) - 1)});
        else
            CHECK(pages[i].state != walk::CachedPage::State::unknown);
    }
    ::close(other);
    ::close(fd);
    CHECK_FALSE(view->find_mapping(fd));
    CHECK_FALSE(view->find_mapping(-1));
    ::munmap(memory, 64 * page);
}

namespace {

/// Whether both are the same but for what no entry holds: whose page it is, whether it is shared,
/// and soft-dirty of a whole mapping, which the page map adds to the entries' own.
bool same_page(std::uint64_t walked, std::uint64_t known) {
    constexpr std::uint64_t soft_dirty = std::uint64_t{1} << 55;
    constexpr std::uint64_t of_page_map = std::uint64_t{1} << 61 | std::uint64_t{1} << 56;
    return ((walked ^ known) & ~(of_page_map | soft_dirty | walk::special_entry)) == 0 &&
           (walked & ~known & soft_dirty) == 0;
}

struct Compared {
    std::uint64_t pages = 0, present = 0, differing = 0;
    std::string example;
};

/// Walks [start, end) and compares every page with the page map.
Compared compare(const KernelView& view, std::uint64_t top, int pagemap, std::uint64_t start,
                 std::uint64_t end) {
    std::vector<std::uint64_t> words((end - start) / page);
    walk::walk_tables(view.memory(), view.kernel(), top, {Address{start}, Address{end}},
                      [&](const walk::SlotRun& run) {
                          const auto first = (run.range.start.value - start) / page;
                          const auto count = run.range.size().value / page;
                          walk::write_pagemap(view.kernel().entries, run,
                                              std::span{words}.subspan(first, count));
                      });
    const auto known = read_pagemap(pagemap, start, words.size());
    Compared result{words.size()};
    for (std::size_t i = 0; i < words.size(); ++i) {
        result.present += words[i] >> 63;
        const bool same = i < known.size() && same_page(words[i], known[i]);
        if (!same) {
            std::ostringstream text;
            text << std::hex << start + i * page << ": walked " << words[i] << ", page map "
                 << (i < known.size() ? known[i] : 0);
            result.example = text.str();
        }
        result.differing += !same;
    }
    return result;
}

/// Compares all of a child that stands still: a copy of this process.
void compare_child(const KernelView& view) {
    const Child child{[](const auto& ready) { ready(); }};
    child.stop();
    const auto process = std::to_string(child.pid());
    const int fd = open_pagemap(process);
    const auto top = view.find_top_table(fd);
    REQUIRE(top);
    Compared all;
    std::istringstream maps{slurp("/proc/" + process + "/maps")};
    for (std::string line; std::getline(maps, line);) {
        // The page map hides frames that have no struct page: [vvar], [vdso] and their like.
        if (line.find("[v") != std::string::npos) continue;
        std::uint64_t start = 0, end = 0;
        char dash = 0;
        std::istringstream{line} >> std::hex >> start >> dash >> end;
        // A sanitizer's shadow of all memory has more words than there is memory for.
        if (end - start > std::uint64_t{1} << 34) continue;
        // The machine may page something out between one look and the other.
        auto found = compare(view, *top, fd, start, end);
        for (int i = 0; i < 3 && found.differing != 0; ++i)
            found = compare(view, *top, fd, start, end);
        CHECK_MESSAGE(found.differing == 0, line, " ", found.example);
        all.pages += found.pages;
        all.present += found.present;
        all.differing += found.differing;
    }
    MESSAGE(all.pages, " pages compared, ", all.present, " of them present, ", all.differing,
            " differ");
    CHECK(all.present > 100);
    ::close(fd);
}

} // namespace

TEST_CASE("exact reader: page tables say what the page map says") {
    const auto view = open_view();
    if (view) compare_child(*view);
}

TEST_CASE("exact reader: /proc/kcore shows what BPF shows") {
    const auto view = open_view({"bpf"});
    if (!view) return;
    CHECK(view->way() == KernelView::Way::kcore);
    const RandomPage own{*view};
    // Others than the user's own would be zeros in a segment: kcore cannot tell them.
    std::vector<std::uint64_t> bad = bad_addresses(*view, own.bytes());
    bad.resize(4);
    std::mt19937 random{2};
    for (int i = 0; i < 500; ++i) try_pieces(view->memory(), own, bad, random);
    compare_child(*view);
    compare_child(*view->clone());
    if (const auto other = open_view({"kcore"})) {
        CHECK(other->kernel().bases == view->kernel().bases);
        const int fd = open_pagemap("self");
        CHECK(other->find_top_table(fd) == view->find_top_table(fd));
        ::close(fd);
    }
    const double taken = milliseconds([] { open_kernel_view({"bpf"}); });
    MESSAGE("view through kcore: ", taken, " ms");
}

TEST_CASE("exact reader: a process that has ended has no tables, and its mm is not another's") {
    const auto view = open_view();
    if (!view) return;
    int fd = -1;
    std::optional<std::uint64_t> top;
    const auto tables = [&] {
        std::uint64_t found = 0;
        walk::walk_tables(view->memory(), view->kernel(), *top,
                          {Address{0}, Address{std::uint64_t{1} << 47}},
                          [&](const walk::SlotRun& run) { found += !run.entries.empty(); });
        return found;
    };
    {
        const Child child{[](const auto& ready) { ready(); }};
        fd = open_pagemap(std::to_string(child.pid()));
        top = view->find_top_table(fd);
        REQUIRE(top);
        CHECK(tables() > 2);
    }
    CHECK(tables() == 0);
    CHECK(view->find_top_table(fd) == top);
    ::close(fd);
}

namespace {

/// What a shell command prints in which "$0" --view is this program in its second role.
std::string shell(const std::string& command) {
    const auto own = std::filesystem::read_symlink("/proc/self/exe").string();
    const auto outcome = run({"sh", "-c", command, own});
    CHECK(outcome.signal == 0);
    return outcome.out + outcome.err;
}

/// A sysctl that is put back at the end.
class Setting {
public:
    Setting(std::string path, const std::string& value)
        : path_(std::move(path)), before_(slurp(path_)) {
        works_ = write(value) && slurp(path_) == value + '\n';
    }
    ~Setting() { write(before_); }
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;
    bool works() const { return works_; }

private:
    bool write(const std::string& value) const {
        std::ofstream file{path_};
        file << value << std::flush;
        return file.good();
    }
    std::string path_, before_;
    bool works_ = false;
};

} // namespace

TEST_CASE("exact reader: other namespaces do not confuse it, and a lack of BTF is said") {
    if (::getuid() != 0) return skip("not root");
    if (!open_view({"kcore"})) return;
    CHECK(shell("\"$0\" --view") == "view\n");
    CHECK(shell("unshare -p -f --mount-proc \"$0\" --view") == "view\n");
    const auto without_btf = shell(
        "unshare -m sh -c 'mount -t tmpfs none /sys/kernel/btf && exec \"$0\" --view' \"$0\"");
    CHECK(without_btf.find("sys/kernel/btf/vmlinux: no such file") != std::string::npos);
    CHECK(without_btf.find("CONFIG_DEBUG_INFO_BTF") != std::string::npos);
    const auto as_own_root = shell("unshare -U -r \"$0\" --view");
    CHECK(as_own_root.find("EPERM") != std::string::npos);
    CHECK(as_own_root.find("in the initial user namespace") != std::string::npos);
}

TEST_CASE("exact reader: it works without the JIT") {
    if (::getuid() != 0) return skip("not root");
    if (!open_view({"kcore"})) return;
    const Setting jit{"/proc/sys/net/core/bpf_jit_enable", "0"};
    if (!jit.works()) return skip("the BPF JIT cannot be switched off");
    const auto view = open_view({"kcore"});
    REQUIRE(view);
    const RandomPage own{*view};
    std::mt19937 random{3};
    const auto bad = bad_addresses(*view, own.bytes());
    for (int i = 0; i < 2000; ++i) try_pieces(view->memory(), own, bad, random);
    BpfReader tracepoint{BpfReader::Kind::raw_tracepoint};
    for (int i = 0; i < 2000; ++i) try_pieces(tracepoint, own, bad, random);
}

} // namespace pagesift::live

/// The second role: says whether a view can be had, and why not.
static int say_view() {
    const auto result = pagesift::os::open_kernel_view({"kcore"});
    std::cout << (result.view ? "view" : result.reason + " (" + result.remedy + ")") << '\n';
    return result.view ? 0 : 1;
}

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view{argv[1]} == "--view") return say_view();
    doctest::Context context(argc, argv);
    const int result = context.run();
    if (!context.shouldExit()) pagesift::live::report_skips();
    return result;
}
