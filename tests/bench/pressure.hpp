// SPDX-License-Identifier: MIT
//
// Memory pressure for one workload: a swap file and a memory cgroup of its own, both gone with the
// objects, and the few helpers that need no more than the C library.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace pagesift::bench {

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;
inline constexpr std::uint64_t tib = 1024 * gib;

inline const std::uint64_t page_size = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));

inline volatile std::sig_atomic_t stop_wanted = 0;

[[noreturn]] inline void fail(const std::string& subject) {
    throw std::system_error(errno, std::generic_category(), subject);
}

inline void check_stop() {
    if (stop_wanted != 0) throw std::runtime_error("stopped by a signal");
}

inline void write_text(const std::string& path, const std::string& text) {
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) fail(path);
    const ssize_t done = write(fd, text.data(), text.size());
    const int error = errno;
    close(fd);
    if (done != static_cast<ssize_t>(text.size())) {
        errno = error;
        fail(path);
    }
}

inline std::string read_text(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// A swap file of this process alone, on while the object lives. Nothing may be left in it when it
// goes, or swapoff has to read everything back: unmap first.
class SwapFile {
public:
    SwapFile(const std::string& directory, std::uint64_t bytes)
        : path_(directory + "/pagesift-bench-" + std::to_string(getpid()) + ".swap") {
        const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) fail(path_);
        try {
            create(fd, bytes);
            // Ahead of any other swap area of the machine.
            if (swapon(path_.c_str(), SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) != 0)
                fail("swapon " + path_);
        } catch (...) {
            close(fd);
            unlink(path_.c_str());
            throw;
        }
        close(fd);
    }
    SwapFile(const SwapFile&) = delete;
    SwapFile& operator=(const SwapFile&) = delete;
    ~SwapFile() {
        if (swapoff(path_.c_str()) != 0) std::perror("bench_workload: swapoff");
        unlink(path_.c_str());
    }

    const std::string& path() const { return path_; }

    // What mkswap writes: union swap_header of include/linux/swap.h, version 1.
    static void set_header(std::vector<std::byte>& block, std::uint64_t bytes) {
        const std::uint32_t version = 1;
        const auto last_page = static_cast<std::uint32_t>(bytes / page_size - 1);
        std::memcpy(block.data() + 1024, &version, sizeof version);
        std::memcpy(block.data() + 1028, &last_page, sizeof last_page);
        std::memcpy(block.data() + page_size - 10, "SWAPSPACE2", 10);
    }

private:
    // Real writes: swapon refuses a file with holes and, on some file systems, one that fallocate
    // made.
    void create(int fd, std::uint64_t bytes) const {
        std::vector<std::byte> block(4 * mib, std::byte{0});
        set_header(block, bytes);
        for (std::uint64_t done = 0; done < bytes; done += block.size()) {
            check_stop();
            if (pwrite(fd, block.data(), block.size(), static_cast<off_t>(done)) !=
                static_cast<ssize_t>(block.size()))
                fail(path_);
            if (done == 0) std::memset(block.data(), 0, page_size);
            if (done % (256 * mib) == 0) drop_cache(fd);
        }
        drop_cache(fd);
    }

    static void drop_cache(int fd) {
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }

    std::string path_;
};

// A memory cgroup that holds this process, version 1 or 2, whichever has the memory controller.
class MemoryCgroup {
public:
    explicit MemoryCgroup(std::uint64_t limit) {
        find();
        directory_ = root_ + "/pagesift-bench-" + std::to_string(getpid());
        if (mkdir(directory_.c_str(), 0755) != 0) fail(directory_);
        try {
            const char* file = unified_ ? "/memory.max" : "/memory.limit_in_bytes";
            write_text(directory_ + file, std::to_string(limit));
            write_text(directory_ + "/cgroup.procs", std::to_string(getpid()));
        } catch (...) {
            leave();
            throw;
        }
    }
    MemoryCgroup(const MemoryCgroup&) = delete;
    MemoryCgroup& operator=(const MemoryCgroup&) = delete;
    ~MemoryCgroup() { leave(); }

    const std::string& directory() const { return directory_; }

private:
    void find() {
        std::ifstream mounts("/proc/self/mounts");
        std::string device, where, type, options, rest;
        while (mounts >> device >> where >> type >> options && std::getline(mounts, rest)) {
            const bool v1 =
                type == "cgroup" && ("," + options + ",").find(",memory,") != std::string::npos;
            const bool v2 = type == "cgroup2" && has_memory(where + "/cgroup.controllers");
            if (!v1 && !v2) continue;
            root_ = where;
            unified_ = v2;
            find_home();
            if (v2 && !has_memory(root_ + "/cgroup.subtree_control"))
                write_text(root_ + "/cgroup.subtree_control", "+memory");
            return;
        }
        throw std::runtime_error("no cgroup with a memory controller is mounted");
    }

    static bool has_memory(const std::string& path) {
        std::istringstream words(read_text(path));
        for (std::string word; words >> word;)
            if (word == "memory") return true;
        return false;
    }

    // /proc/self/cgroup lines are "id:controllers:path"; version 2 is "0::path".
    void find_home() {
        std::istringstream lines(read_text("/proc/self/cgroup"));
        for (std::string line; std::getline(lines, line);) {
            const auto first = line.find(':');
            const auto second = line.find(':', first + 1);
            if (second == std::string::npos) continue;
            const auto controllers = "," + line.substr(first + 1, second - first - 1) + ",";
            if (unified_ ? controllers == ",," : controllers.find(",memory,") != std::string::npos)
                home_ = root_ + line.substr(second + 1);
        }
    }

    void leave() noexcept {
        try {
            write_text(home_ + "/cgroup.procs", std::to_string(getpid()));
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bench_workload: %s\n", error.what());
        }
        rmdir(directory_.c_str());
    }

    std::string root_;
    std::string home_;
    std::string directory_;
    bool unified_ = false;
};

} // namespace pagesift::bench
