// SPDX-License-Identifier: MIT
// Files that others may have had their hands on: where -o leads to, and what is given in place of a
// process.
#include "harness.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

namespace fs = std::filesystem;
bool is_whole(const std::string& metrics) {
    return metrics.size() > 6 && metrics.substr(metrics.size() - 6) == "# EOF\n";
}

/// A scan whose output replaces a file.
Words scan_into(const std::string& path) {
    return {"scan", "--format", "openmetrics", "--depth", "totals", "-p", "self", "-o", path};
}
/// A look whose output is written into a file as it is.
Words inspect_into(const std::string& path) {
    return {"inspect", "--format", "json", "--top", "0", "self", "-o", path};
}

unsigned mode_of(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0 ? found.st_mode & 0777 : 0;
}

/// For the programs that a block starts, this much memory of their own.
class MemoryLimit {
public:
    explicit MemoryLimit(rlim_t bytes) {
        getrlimit(RLIMIT_DATA, &before_);
        const rlimit now{bytes, before_.rlim_max};
        setrlimit(RLIMIT_DATA, &now);
    }
    ~MemoryLimit() { setrlimit(RLIMIT_DATA, &before_); }
    MemoryLimit(const MemoryLimit&) = delete;
    MemoryLimit& operator=(const MemoryLimit&) = delete;

private:
    rlimit before_{};
};

/// A zstd frame (RFC 8878) that begins like a recording and goes on with lines that hold nothing,
/// 128 KiB of them in four bytes.
std::string bomb(std::size_t blocks) {
    static constexpr unsigned largest_block = 128 << 10;
    const auto header = [](bool last, unsigned type, std::size_t size) {
        const std::size_t word = (last ? 1u : 0u) | type << 1 | size << 3;
        return std::string{static_cast<char>(word), static_cast<char>(word >> 8),
                           static_cast<char>(word >> 16)};
    };
    const std::string head = "pagesift-recording 1\n";
    std::string frame{"\x28\xb5\x2f\xfd\x00\x38", 6}; // a window of 128 KiB, no sizes, no checksum
    frame += header(false, 0, head.size()) + head;
    for (std::size_t i = 0; i < blocks; ++i)
        frame += header(i + 1 == blocks, 1, largest_block) + '\n';
    return frame;
}

class Variable {
public:
    Variable(const char* name, const char* value) : name_(name) {
        if (const char* before = getenv(name)) before_ = before;
        setenv(name, value, 1);
    }
    ~Variable() {
        if (before_)
            setenv(name_, before_->c_str(), 1);
        else
            unsetenv(name_);
    }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;

private:
    const char* name_;
    std::optional<std::string> before_;
};

} // namespace

TEST_CASE("output: a link in the way of a file that is replaced is not followed") {
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/x.prom", precious = folder.path() + "/precious";
    std::ofstream(precious) << "precious\n";
    fs::create_symlink(precious, path + ".tmp");
    const auto outcome = run_pagesift(scan_into(path));
    CHECK_MESSAGE(outcome.exit_code == 0, outcome.err);
    CHECK(read_file(precious) == "precious\n");
    CHECK(is_whole(read_file(path)));
    CHECK(fs::is_regular_file(fs::symlink_status(path)));
    CHECK_FALSE(fs::exists(fs::symlink_status(path + ".tmp")));
    // Where something is in the way that cannot be removed, it stays as it is.
    fs::create_directory(path + ".tmp");
    CHECK(run_pagesift(scan_into(path)).exit_code == 1);
    CHECK(is_whole(read_file(path)));
    CHECK(fs::is_directory(path + ".tmp"));
}

TEST_CASE("output: a file that root replaces stays its owner's") {
    if (!have_root()) return;
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/x.prom";
    std::ofstream(path) << "old\n";
    REQUIRE(chown(path.c_str(), 65534, 65533) == 0);
    CHECK(run_pagesift(scan_into(path)).exit_code == 0);
    CHECK(is_whole(read_file(path)));
    struct stat now {};
    REQUIRE(stat(path.c_str(), &now) == 0);
    CHECK(now.st_uid == 65534);
    CHECK(now.st_gid == 65533);
}

TEST_CASE("output: who may read a file that is replaced is who might before") {
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/x.prom";
    for (const unsigned mode : {0600u, 0640u, 0666u}) {
        std::ofstream(path) << "old\n";
        REQUIRE(chmod(path.c_str(), mode) == 0);
        CHECK(run_pagesift(scan_into(path)).exit_code == 0);
        CHECK(is_whole(read_file(path)));
        CHECK(mode_of(path) == mode);
    }
}

TEST_CASE("output: a group that cannot be kept does not read by another one's right") {
    if (!have_root()) return;
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/x.prom";
    REQUIRE(chown(folder.path().c_str(), 65534, 65534) == 0);
    std::ofstream(path) << "old\n";
    REQUIRE(chown(path.c_str(), 65534, 0) == 0);
    REQUIRE(chmod(path.c_str(), 0664) == 0);
    const auto outcome = run_pagesift(scan_into(path), {.as_nobody = true});
    CHECK_MESSAGE(outcome.exit_code == 0, outcome.err);
    CHECK(is_whole(read_file(path)));
    CHECK(mode_of(path) == 0604u);
}

TEST_CASE("output: a link that is named leads to what is written, as in a shell, and stays") {
    const TemporaryDirectory folder;
    const auto real = folder.path() + "/real", link = folder.path() + "/link";
    fs::create_symlink("real", link);
    for (const auto& command : {scan_into(link), inspect_into(link)}) {
        std::ofstream(real) << "old\n";
        CHECK(run_pagesift(command).exit_code == 0);
        CHECK(fs::is_symlink(link));
        CHECK(read_file(real).size() > 20);
        CHECK(read_file(real).find("old") == std::string::npos);
    }
}

TEST_CASE("output: a pipe with a name gets all of it, and stays a pipe") {
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/pipe";
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    const int reader = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    REQUIRE(reader >= 0);
    for (const auto& command : {scan_into(path), inspect_into(path)}) {
        CHECK(run_pagesift(command, {.seconds = 20}).exit_code == 0);
        std::string text(1 << 20, '\0');
        const auto n = read(reader, text.data(), text.size());
        CHECK(n > 100);
        CHECK(fs::is_fifo(path));
    }
    close(reader);
}

TEST_CASE("output: what cannot be written to is said") {
    for (const std::string path : {"/proc/version", "/proc", "/proc/nothing/here"})
        for (const auto& command : {scan_into(path), inspect_into(path)}) {
            const auto outcome = run_pagesift(command, {.seconds = 20});
            CHECK(outcome.exit_code == 1);
            CHECK_MESSAGE(outcome.err.rfind("pagesift: ", 0) == 0, outcome.err);
        }
}

TEST_CASE("output: files are opened with the rights of the caller and no others") {
    if (!have_root()) return;
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/of-root";
    std::ofstream(path) << "precious\n";
    for (const auto& command : {scan_into(path), inspect_into(path)}) {
        const auto outcome = run_pagesift(command, {.as_nobody = true});
        CHECK(outcome.exit_code == 1);
        CHECK_MESSAGE(outcome.err.find("EACCES") != std::string::npos, outcome.err);
        CHECK(read_file(path) == "precious\n");
    }
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("output: a device is no recording, no plan and no result") {
    for (const Words& words : {Words{"inspect", "/dev/zero"}, Words{"diff", "/dev/zero", "self"},
                               Words{"advise", "--plan", "/dev/zero"},
                               Words{"advise", "cold", "--cold", "/dev/zero", "self"}}) {
        const auto outcome = run_pagesift(words, {.seconds = 20});
        CHECK_FALSE(outcome.timed_out);
        CHECK((outcome.exit_code == 1 || outcome.exit_code == 2));
        CHECK_MESSAGE(outcome.err.find("is a device") != std::string::npos, outcome.err);
    }
}

TEST_CASE("output: a recording that unpacks to very much, or is very large, is refused") {
    const TemporaryDirectory folder;
    const auto path = folder.path() + "/bomb";
    const MemoryLimit limit{rlim_t{512} << 20};
    std::ofstream(path, std::ios::binary) << bomb(100'000); // 13 GB in 400 kB
    const auto refused = run_pagesift({"inspect", path});
    CHECK(refused.exit_code == 1);
    CHECK_MESSAGE(refused.err.find("unpacks to more than") != std::string::npos, refused.err);
    std::ofstream(path, std::ios::binary) << "pagesift-recording 1\n";
    fs::resize_file(path, std::uintmax_t{64} << 30); // of holes
    const auto large = run_pagesift({"inspect", path});
    CHECK(large.signal == 0);
    CHECK(large.exit_code == 1);
    CHECK_MESSAGE(large.err.find("out of memory") != std::string::npos, large.err);
}

TEST_CASE("output: the environment changes no answer") {
    const TemporaryDirectory folder;
    const auto recording = folder.path() + "/x.psr", history = folder.path() + "/x.db";
    REQUIRE(run_pagesift({"record", "-o", recording, "self"}).exit_code == 0);
    const auto answer = [&] {
        return run_pagesift({"inspect", "--ranges", "--format", "csv", recording}).out;
    };
    const auto before = answer();
    CHECK(before.size() > 1000);
    const Variable locale{"LC_ALL", "de_DE.UTF-8"}, language{"LANGUAGE", "de"};
    const Variable temporary{"TMPDIR", "/nowhere"}, of_sqlite{"SQLITE_TMPDIR", "/proc"};
    const Variable home{"HOME", "/nowhere"}, columns{"COLUMNS", "7"}, term{"TERM", "\x1b[31m"};
    const bool same = answer() == before;
    CHECK(same);
    const auto stored = run_pagesift(
        {"scan", "--depth", "totals", "--format", "sqlite", "-p", "self", "-o", history});
    CHECK_MESSAGE(stored.exit_code == 0, stored.err);
}

} // namespace pagesift::live
