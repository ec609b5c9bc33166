// SPDX-License-Identifier: MIT
//
// Swap for a workload that is paged out: a zram device of its own, so that no disk is part of what
// is measured, or a swap file where the kernel has no zram. Both are gone with the object.
#pragma once

#include "pressure.hpp"

#include <sys/statvfs.h>

#include <memory>

namespace pagesift::bench {

inline constexpr const char* zram_control = "/sys/class/zram-control";

// Nothing may be left in it when it goes: unmap first. Its number is noted in a file of the scratch
// directory, so that whoever started this program can remove it after it was killed outright.
class Zram {
public:
    Zram(const std::string& directory, std::uint64_t bytes)
        : note_(directory + "/pagesift-bench-" + std::to_string(getpid()) + ".zram") {
        // Reading hot_add makes a device and answers with its number.
        number_ = read_text(std::string(zram_control) + "/hot_add");
        if (number_.empty()) fail("zram: hot_add");
        number_.erase(number_.find_last_not_of('\n') + 1);
        std::ofstream(note_) << number_ << '\n';
        try {
            turn_on(bytes);
        } catch (...) {
            remove();
            throw;
        }
    }
    Zram(const Zram&) = delete;
    Zram& operator=(const Zram&) = delete;
    ~Zram() {
        if (swapoff(path().c_str()) != 0) std::perror("bench_workload: swapoff");
        remove();
    }

    std::string path() const { return "/dev/zram" + number_; }

private:
    void turn_on(std::uint64_t bytes) const {
        write_text("/sys/block/zram" + number_ + "/disksize", std::to_string(bytes));
        int fd = -1;
        for (int tries = 0; fd < 0 && tries < 50; ++tries) { // udev may make the node
            if (tries > 0) usleep(20'000);
            fd = open(path().c_str(), O_RDWR | O_CLOEXEC);
        }
        if (fd < 0) fail(path());
        std::vector<std::byte> header(page_size, std::byte{0});
        SwapFile::set_header(header, bytes);
        const bool written =
            pwrite(fd, header.data(), header.size(), 0) == static_cast<ssize_t>(header.size()) &&
            fsync(fd) == 0;
        close(fd);
        if (!written) fail(path());
        if (swapon(path().c_str(), SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) != 0)
            fail("swapon " + path());
    }

    void remove() const noexcept {
        try {
            write_text("/sys/block/zram" + number_ + "/reset", "1");
            write_text(std::string(zram_control) + "/hot_remove", number_);
            unlink(note_.c_str());
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bench_workload: %s\n", error.what());
        }
    }

    std::string note_;
    std::string number_;
};

// Zram where there is any, else a swap file, for which the disk must have room to spare.
class OwnSwap {
public:
    OwnSwap(const std::string& directory, std::uint64_t bytes) {
        if (access(zram_control, F_OK) == 0) {
            zram_ = std::make_unique<Zram>(directory, bytes);
            return;
        }
        struct statvfs disk = {};
        if (statvfs(directory.c_str(), &disk) != 0) fail(directory);
        if (disk.f_bavail * disk.f_frsize < bytes + bytes / 4)
            throw std::runtime_error(directory + " has no room for a swap file of " +
                                     std::to_string(bytes / mib) + " MiB");
        file_ = std::make_unique<SwapFile>(directory, bytes);
    }

    std::string path() const { return zram_ ? zram_->path() : file_->path(); }

private:
    std::unique_ptr<Zram> zram_;
    std::unique_ptr<SwapFile> file_;
};

} // namespace pagesift::bench
