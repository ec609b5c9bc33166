// SPDX-License-Identifier: MIT
#include "witness.hpp"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pagesift::zoo::witness {

namespace {

constexpr long syscall_cachestat = 451;

std::string proc(pid_t pid, const char* file) {
    return "/proc/" + std::to_string(pid) + "/" + file;
}

std::uint64_t read_word(const char* path, std::uint64_t index) {
    std::uint64_t word = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (pread(fd, &word, sizeof word, static_cast<off_t>(index * 8)) != sizeof word) word = 0;
    close(fd);
    return word;
}

/// "Key:   12 kB" lines: the key and the bytes. False for a line of another form.
bool parse_kb_line(const std::string& line, std::string& key, std::uint64_t& bytes) {
    const auto colon = line.find(':');
    if (colon == std::string::npos || line.size() < 3) return false;
    if (line.compare(line.size() - 3, 3, " kB") != 0) return false;
    key = line.substr(0, colon);
    bytes = std::strtoull(line.c_str() + colon + 1, nullptr, 10) * 1024;
    return true;
}

bool parse_header(const std::string& line, Mapping& out) {
    char permissions[5] = {};
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*s %*u %n", &out.start,
                    &out.end, permissions, &name_at) != 3)
        return false;
    out.permissions = permissions;
    if (name_at > 0) out.name = line.substr(static_cast<std::size_t>(name_at));
    return true;
}

std::optional<std::uint64_t> counter(const std::string& path, const std::string& key) {
    std::ifstream in(path);
    std::string line;
    while (std::getline(in, line)) {
        std::istringstream words(line);
        std::string name;
        std::uint64_t value = 0;
        if (words >> name >> value && (name == key || name == key + ":")) {
            std::string unit;
            return words >> unit && unit == "kB" ? value * 1024 : value;
        }
    }
    return std::nullopt;
}

} // namespace

std::uint64_t page_size() { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }
std::uint64_t slot_size() { return page_size() * page_size() / 8; }

std::vector<std::uint64_t> pagemap(pid_t pid, std::uint64_t start, std::size_t pages) {
    std::vector<std::uint64_t> entries(pages);
    const int fd = open(proc(pid, "pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    std::size_t done = 0;
    while (fd >= 0 && done < pages) {
        const auto at = static_cast<off_t>((start / page_size() + done) * 8);
        const ssize_t n = pread(fd, entries.data() + done, (pages - done) * 8, at);
        if (n <= 0) break;
        done += static_cast<std::size_t>(n) / 8;
    }
    if (fd >= 0) close(fd);
    entries.resize(done);
    return entries;
}

std::uint64_t kpageflags(std::uint64_t pfn) { return read_word("/proc/kpageflags", pfn); }
std::uint64_t folio_flags(std::uint64_t pfn) {
    const auto own = kpageflags(pfn);
    if (!has(own, kpf_compound_tail)) return own;
    for (std::uint64_t pages = 2; pages <= pfn;
         pages *= 2) { // a folio begins at a multiple of its size
        const auto first = kpageflags(pfn / pages * pages);
        if (has(first, kpf_compound_head))
            return own | (first & ~(std::uint64_t{1} << kpf_compound_head));
    }
    return own;
}

bool ksm_flag_lies() {
    static const bool lies = [] {
        void* page = mmap(nullptr, page_size(), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (page == MAP_FAILED) return false;
        const auto entries = pagemap(getpid(), reinterpret_cast<std::uint64_t>(page), 1);
        const bool set = !entries.empty() && has(kpageflags(frame(entries[0])), kpf_ksm);
        munmap(page, page_size());
        return set; // nobody offered this page for merging
    }();
    return lies;
}

std::uint64_t kpagecount(std::uint64_t pfn) { return read_word("/proc/kpagecount", pfn); }

std::vector<Mapping> smaps(pid_t pid) {
    std::vector<Mapping> all;
    std::ifstream in(proc(pid, "smaps"));
    std::string line, key;
    std::uint64_t bytes = 0;
    while (std::getline(in, line)) {
        Mapping header;
        if (parse_header(line, header)) {
            all.push_back(header);
        } else if (!all.empty() && line.rfind("VmFlags:", 0) == 0) {
            all.back().vm_flags = line.substr(8) + " ";
        } else if (!all.empty() && parse_kb_line(line, key, bytes)) {
            all.back().bytes[key] = bytes;
        }
    }
    return all;
}

std::optional<Mapping> mapping_at(pid_t pid, std::uint64_t address) {
    for (auto& mapping : smaps(pid))
        if (mapping.start <= address && address < mapping.end) return mapping;
    return std::nullopt;
}

std::map<std::string, std::uint64_t> smaps_rollup(pid_t pid) {
    std::map<std::string, std::uint64_t> fields;
    std::ifstream in(proc(pid, "smaps_rollup"));
    std::string line, key;
    std::uint64_t bytes = 0;
    while (std::getline(in, line))
        if (parse_kb_line(line, key, bytes)) fields[key] = bytes;
    return fields;
}

std::optional<std::uint64_t> status(pid_t pid, const std::string& key) {
    return counter(proc(pid, "status"), key);
}

std::optional<std::uint64_t> ksm_stat(pid_t pid, const std::string& key) {
    return counter(proc(pid, "ksm_stat"), key);
}

std::optional<Faults> faults(pid_t pid) {
    std::ifstream in(proc(pid, "stat"));
    std::string text;
    if (!std::getline(in, text)) return std::nullopt;
    // The command's name stands in parentheses and may itself hold blanks and parentheses.
    std::istringstream words(text.substr(text.rfind(')') + 1));
    std::vector<std::string> fields;
    for (std::string word; words >> word;) fields.push_back(word);
    if (fields.size() < 10) return std::nullopt;
    return Faults{std::stoull(fields[7]), std::stoull(fields[9])};
}

std::uint64_t vmstat(const std::string& key) { return counter("/proc/vmstat", key).value_or(0); }
std::uint64_t meminfo(const std::string& key) { return counter("/proc/meminfo", key).value_or(0); }

std::vector<SwapArea> swap_areas() {
    std::vector<SwapArea> areas;
    std::ifstream in("/proc/swaps");
    std::string line;
    std::getline(in, line);
    while (std::getline(in, line)) {
        std::istringstream words(line);
        SwapArea area;
        std::string type;
        if (words >> area.path >> type >> area.size >> area.used >> area.priority) {
            area.size *= 1024;
            area.used *= 1024;
            areas.push_back(area);
        }
    }
    return areas;
}

std::vector<bool> resident(std::uint64_t start, std::size_t pages) {
    std::vector<unsigned char> bytes(pages);
    if (mincore(reinterpret_cast<void*>(start), pages * page_size(), bytes.data()) != 0) return {};
    std::vector<bool> in_memory(pages);
    std::transform(bytes.begin(), bytes.end(), in_memory.begin(),
                   [](unsigned char b) { return (b & 1) != 0; });
    return in_memory;
}

std::optional<CacheStat> cachestat(int fd, std::uint64_t offset, std::uint64_t length) {
    struct {
        std::uint64_t offset, length;
    } range{offset, length};
    struct {
        std::uint64_t cache, dirty, writeback, evicted, recently_evicted;
    } answer{};
    if (syscall(syscall_cachestat, fd, &range, &answer, 0) != 0) return std::nullopt;
    return CacheStat{answer.cache, answer.evicted};
}

namespace {

/// Do tables of three levels count towards VmPTE? With large pages or few address bits the third
/// is the top level, which does not. A page in a part of the address space that nobody uses tells.
bool third_level_counts() {
    const int on_the_stack = 0; // which ends where the address space does
    const auto address_bits =
        static_cast<unsigned>(std::bit_width(reinterpret_cast<std::uint64_t>(&on_the_stack)));
    const auto before = status(getpid(), "VmPTE").value_or(0);
    const auto take = [](std::uint64_t at) {
        return mmap(reinterpret_cast<void*>(at), page_size(), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_FIXED_NOREPLACE, -1, 0);
    };
    // Beyond what programs are given unasked, where a kernel has more; else in the middle.
    void* page = take(std::uint64_t{1} << address_bits);
    if (page == MAP_FAILED) page = take(std::uint64_t{3} << (address_bits - 3));
    if (page == MAP_FAILED) return true;
    const auto after = status(getpid(), "VmPTE").value_or(0);
    munmap(page, page_size());
    return after - before >= 3 * page_size();
}

} // namespace

TableCount count_tables(pid_t pid) {
    const std::uint64_t slot = slot_size();
    const std::uint64_t fan_out = page_size() / 8;
    std::set<std::uint64_t> tables[3]; // by what one table covers: a slot, then fan_out times more
    for (const auto& mapping : smaps(pid)) {
        if (mapping.name == "[vsyscall]") continue;
        const bool hugetlb = mapping.vm_flags.find(" ht ") != std::string::npos;
        // A PMD-mapped anonymous huge page keeps a deposited table; shared memory keeps none.
        const bool undeposited =
            mapping.bytes.count("ShmemPmdMapped") != 0 && mapping.bytes.at("ShmemPmdMapped") != 0;
        for (auto at = mapping.start; at < mapping.end;) {
            const auto next = std::min(mapping.end, (at / slot + 1) * slot);
            const auto entries = pagemap(pid, at, (next - at) / page_size());
            if (std::any_of(entries.begin(), entries.end(), [](auto e) { return !none(e); })) {
                if (!hugetlb && !undeposited) tables[0].insert(at / slot);
                tables[1].insert(at / slot / fan_out);
                tables[2].insert(at / slot / fan_out / fan_out);
            }
            at = next;
        }
    }
    if (!third_level_counts()) tables[2].clear();
    return {tables[0].size() + tables[1].size() + tables[2].size(),
            status(pid, "VmPTE").value_or(0) / page_size()};
}

} // namespace pagesift::zoo::witness
