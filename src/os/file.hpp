// SPDX-License-Identifier: MIT
// Descriptors, files below a root, and the list of gaps.
#pragma once

#include "pagesift/base.hpp"

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace pagesift::os {

/// Owns a descriptor; -1 is none.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd();
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

private:
    int fd_ = -1;
};

struct OpenResult {
    Fd fd;
    int error = 0; ///< errno where fd is none
};

struct TextResult {
    std::string text;
    int error = 0;
};

/// A folder below which all paths are looked up.
class Root {
public:
    /// Throws Error when @p path is not a folder.
    explicit Root(const std::string& path);
    OpenResult open(const std::string& path, int flags) const;
    TextResult read_text(const std::string& path) const;
    std::string read_link(const std::string& path) const;
    std::vector<std::string> list(const std::string& path) const;
    bool live() const { return live_; } ///< it is "/", so this process itself can be probed
    int fd() const { return fd_.get(); }

private:
    Fd fd_;
    bool live_ = false;
};

/// The machine that this process runs on: for probes on itself, whatever root is looked at.
const Root& own_root();

/// Whether the numbers in /proc are those that system calls take: /proc may have been mounted in
/// another PID namespace, and the same number is another process there.
bool proc_has_own_pids();
/// Whether /proc keeps processes of other users from us (mount option hidepid, proc(5)): even the
/// first process of its namespace, which is always there.
bool proc_hides_processes();

/// Reads to the end of an open file.
TextResult read_text(int fd);

/// Reads whole 8-byte words at word index @p index. Returns how many came; -errno on an error
/// before the first.
std::int64_t read_words(int fd, std::uint64_t index, std::span<std::uint64_t> words);

/// Gaps from any thread, each source and reason once, with at most a few ranges.
class GapLog {
public:
    void add(Gap gap);
    std::vector<Gap> list() const;

private:
    mutable std::mutex mutex_;
    std::vector<Gap> gaps_;
};

} // namespace pagesift::os
