// SPDX-License-Identifier: MIT
//
// What the peers share: the mappings of a process and whole reads. They are written to be quick
// and plain, not to be robust: the target of a benchmark stands still.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <system_error>
#include <vector>

namespace pagesift::bench {

inline constexpr std::uint64_t entry_present = std::uint64_t{1} << 63;
inline constexpr std::uint64_t entry_swap = std::uint64_t{1} << 62;
inline constexpr std::uint64_t entry_frame = (std::uint64_t{1} << 55) - 1;

inline std::uint64_t page_size() {
    static const auto size = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    return size;
}

class File {
public:
    explicit File(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
        if (fd_ < 0) throw std::system_error(errno, std::generic_category(), path);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() { ::close(fd_); }
    int fd() const { return fd_; }

private:
    int fd_;
};

inline std::string read_whole(const std::string& path) {
    const File file(path);
    std::string text;
    std::vector<char> buffer(64 * 1024);
    for (ssize_t got; (got = ::read(file.fd(), buffer.data(), buffer.size())) > 0;)
        text.append(buffer.data(), static_cast<std::size_t>(got));
    return text;
}

struct Mapping {
    std::uint64_t start;
    std::uint64_t end;
    std::uint64_t offset;
    std::uint64_t inode;
};

// [vsyscall] lies beyond what pagemap can name and is left out.
inline std::vector<Mapping> read_mappings(const std::string& process) {
    std::vector<Mapping> mappings;
    const std::string text = read_whole(process + "/maps");
    for (const char* line = text.c_str(); *line != '\0';) {
        char* next = nullptr;
        Mapping mapping{};
        mapping.start = std::strtoull(line, &next, 16);
        mapping.end = std::strtoull(next + 1, &next, 16);
        mapping.offset = std::strtoull(next + 6, &next, 16); // " rwxp "
        std::strtoull(next, &next, 16);
        std::strtoull(next + 1, &next, 16);
        mapping.inode = std::strtoull(next, &next, 10);
        if (mapping.start < std::uint64_t{1} << 63) mappings.push_back(mapping);
        while (*next != '\0' && *next != '\n') ++next;
        line = *next == '\0' ? next : next + 1;
    }
    return mappings;
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The peers' whole command line is one PID, with flags of their own after it.
template <typename Body> int run_peer(int argc, char** argv, const char* name, Body body) {
    if (argc < 2 || std::atoi(argv[1]) <= 0) {
        std::fprintf(stderr, "usage: %s PID\n", name);
        return 2;
    }
    try {
        body(std::string("/proc/").append(argv[1]));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", name, error.what());
        return 1;
    }
    return 0;
}

} // namespace pagesift::bench
