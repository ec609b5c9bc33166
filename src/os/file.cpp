// SPDX-License-Identifier: MIT
#include "os/file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <string>
#include <unistd.h>

namespace pagesift::os {

Fd::~Fd() {
    if (fd_ >= 0) ::close(fd_);
}

Root::Root(const std::string& path)
    : fd_(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), live_(path == "/") {
    if (!fd_) throw Error{ErrorKind::usage, path, errno};
}

const Root& own_root() {
    static const Root root{"/"};
    return root;
}

bool proc_has_own_pids() { return own_root().read_link("proc/self") == std::to_string(::getpid()); }

bool proc_hides_processes() {
    const int error = own_root().open("proc/1/stat", O_RDONLY).error;
    return error == ENOENT || error == EPERM;
}

OpenResult Root::open(const std::string& path, int flags) const {
    OpenResult result{Fd{::openat(fd_.get(), path.c_str(), flags | O_CLOEXEC)}, 0};
    if (!result.fd) result.error = errno;
    return result;
}

TextResult read_text(int fd) {
    TextResult result;
    std::array<char, 16384> buffer;
    while (true) {
        const auto n = ::read(fd, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) result.error = errno;
        if (n <= 0) return result;
        result.text.append(buffer.data(), static_cast<std::size_t>(n));
    }
}

TextResult Root::read_text(const std::string& path) const {
    const auto file = open(path, O_RDONLY);
    return file.fd ? os::read_text(file.fd.get()) : TextResult{{}, file.error};
}

std::string Root::read_link(const std::string& path) const {
    std::string target(4096, '\0');
    const auto n = ::readlinkat(fd_.get(), path.c_str(), target.data(), target.size());
    target.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return target;
}

std::vector<std::string> Root::list(const std::string& path) const {
    std::vector<std::string> names;
    auto folder = open(path, O_RDONLY | O_DIRECTORY);
    if (!folder.fd) return names;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir{::fdopendir(::dup(folder.fd.get())), ::closedir};
    while (dir) {
        const dirent* entry = ::readdir(dir.get());
        if (!entry) break;
        if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
    return names;
}

std::int64_t read_words(int fd, std::uint64_t index, std::span<std::uint64_t> words) {
    std::size_t done = 0;
    while (done < words.size()) {
        const auto left = words.subspan(done);
        const auto n = ::pread(fd, left.data(), left.size_bytes(),
                               static_cast<off_t>((index + done) * sizeof(std::uint64_t)));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && done == 0) return -errno;
        if (n <= 0) break;
        done += static_cast<std::size_t>(n) / sizeof(std::uint64_t);
        // A file of odd length ends in a torn word, which is none.
        if (n % static_cast<std::int64_t>(sizeof(std::uint64_t)) != 0) break;
    }
    return static_cast<std::int64_t>(done);
}

void GapLog::add(Gap gap) {
    static constexpr std::size_t ranges_kept = 8;
    const std::lock_guard lock{mutex_};
    std::size_t alike = 0;
    for (const auto& known : gaps_) {
        if (known == gap) return;
        if (known.source != gap.source || known.reason != gap.reason) continue;
        if (!known.range || ++alike > ranges_kept) return;
    }
    if (alike == ranges_kept) {
        gap.range.reset();
        gap.reason += " (further ranges)";
        if (std::find(gaps_.begin(), gaps_.end(), gap) != gaps_.end()) return;
    }
    gaps_.push_back(std::move(gap));
}

std::vector<Gap> GapLog::list() const {
    const std::lock_guard lock{mutex_};
    return gaps_;
}

} // namespace pagesift::os
