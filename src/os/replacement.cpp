// SPDX-License-Identifier: MIT
#include "os/file.hpp"
#include "pagesift/os.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

/// A new file, never one that is there: what lies under that name is removed, a link included, and
/// not followed. Whoever may write to the folder can put it back as often as they like.
Fd make_new(const std::string& path, mode_t mode) {
    static constexpr int most_tries = 10;
    for (int tries = 0;; ++tries) {
        Fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)};
        if (file || errno != EEXIST || tries == most_tries) return file;
        if (::unlink(path.c_str()) != 0 && errno != ENOENT) return {};
    }
}

/// Whose the old file is, and who may read it, becomes true of the new one as well, as far as that
/// is allowed. Whom its group would let read then is nobody who could before.
void become_like(const Fd& file, const struct stat& old) {
    mode_t mode = old.st_mode & 0777;
    const bool kept = ::fchown(file.get(), old.st_uid, old.st_gid) == 0 ||
                      ::fchown(file.get(), static_cast<uid_t>(-1), old.st_gid) == 0;
    if (!kept) mode &= ~static_cast<mode_t>(S_IRWXG);
    ::fchmod(file.get(), mode);
}

} // namespace

struct Replacement::File {
    std::string target, path;
    Fd fd;
    bool published = false;

    /// Whether the name still leads to what was made.
    bool is_there() const {
        struct stat made {
        }, named{};
        return ::fstat(fd.get(), &made) == 0 && ::lstat(path.c_str(), &named) == 0 &&
               made.st_dev == named.st_dev && made.st_ino == named.st_ino;
    }
};

Replacement::Replacement(const std::string& target) : file_(std::make_unique<File>()) {
    file_->target = target;
    file_->path = target + ".tmp";
    struct stat old {};
    const bool replaces = ::stat(target.c_str(), &old) == 0;
    // What others could not read they cannot read for a moment, either.
    static constexpr mode_t owner = 0600, everybody = 0666; // less the umask
    file_->fd = make_new(file_->path, replaces ? owner : everybody);
    if (!file_->fd) throw Error{ErrorKind::failed, target, errno};
    if (replaces) become_like(file_->fd, old);
}

Replacement::~Replacement() {
    if (!file_->published && file_->is_there()) ::unlink(file_->path.c_str());
}

void Replacement::write(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto n = ::write(file_->fd.get(), bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw Error{ErrorKind::failed, file_->target, errno};
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
}

void Replacement::publish() {
    if (file_->published) return;
    if (!file_->is_there())
        throw Error{ErrorKind::failed, file_->target, 0, "",
                    "another program is writing it at the same time"};
    if (::rename(file_->path.c_str(), file_->target.c_str()) != 0)
        throw Error{ErrorKind::failed, file_->target, errno};
    file_->published = true;
}

} // namespace pagesift::os
