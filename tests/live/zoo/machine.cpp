// SPDX-License-Identifier: MIT
#include "machine.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "witness.hpp"

namespace pagesift::zoo {

namespace {

// Paths of the test bed, not of pagesift: where a killed zoo's successor finds the journals. Each
// zoo has PID.journal, and a lock on PID.alive that only the end of it and its guardian takes away.
constexpr const char* state_directory = "/run/pagesift-zoo";
constexpr const char* swap_directory = "/var/tmp";
constexpr const char* zram_control = "/sys/class/zram-control/";

const char* word(JournalEntry::What what) {
    switch (what) {
    case JournalEntry::What::setting: return "setting";
    case JournalEntry::What::swap_file: return "swap-file";
    case JournalEntry::What::zram: return "zram";
    }
    return "?";
}

std::string state_file(const std::string& name) {
    return std::string(state_directory) + "/" + name;
}

std::string own_file(const char* extension) {
    return state_file(std::to_string(getpid()) + extension);
}

/// Replaces the journal in one step, so that a kill at any moment leaves a whole one.
void save_journal(const std::string& path, const std::vector<JournalEntry>& journal) {
    const std::string fresh = path + ".new";
    {
        std::ofstream out(fresh, std::ios::trunc);
        for (const auto& e : journal)
            out << word(e.what) << '\t' << e.path << '\t' << e.value << '\n';
        if (!out.flush()) throw Unavailable("cannot write " + fresh);
    }
    if (rename(fresh.c_str(), path.c_str()) != 0) throw Unavailable("cannot write " + path);
}

std::vector<JournalEntry> load_journal(const std::string& path) {
    std::vector<JournalEntry> journal;
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) {
        std::istringstream fields(line);
        std::string what;
        JournalEntry e{};
        if (!std::getline(fields, what, '\t') || !std::getline(fields, e.path, '\t')) continue;
        std::getline(fields, e.value);
        for (auto w :
             {JournalEntry::What::setting, JournalEntry::What::swap_file, JournalEntry::What::zram})
            if (what == word(w)) {
                e.what = w;
                journal.push_back(e);
            }
    }
    return journal;
}

/// Each step is tried whatever became of the others; a missing file or device is a step done.
void undo_journal(const std::string& path) {
    const auto journal = load_journal(path);
    std::for_each(journal.rbegin(), journal.rend(), [](const JournalEntry& e) {
        switch (e.what) {
        case JournalEntry::What::setting: write_setting(e.path, e.value); break;
        case JournalEntry::What::swap_file:
            swapoff(e.path.c_str());
            unlink(e.path.c_str());
            break;
        case JournalEntry::What::zram:
            swapoff(e.path.c_str());
            write_setting("/sys/block/zram" + e.value + "/reset", "1");
            write_setting(std::string(zram_control) + "hot_remove", e.value);
            break;
        }
    });
    unlink(path.c_str());
}

/// A lock that nobody holds belongs to a zoo that was killed together with its guardian.
void clean_up_after_others() {
    for (const auto& file : std::filesystem::directory_iterator(state_directory)) {
        if (file.path().extension() != ".alive") continue;
        const int fd = open(file.path().c_str(), O_RDWR | O_CLOEXEC);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            undo_journal(std::filesystem::path(file.path()).replace_extension(".journal"));
            unlink(file.path().c_str());
        }
        close(fd);
    }
}

int open_locked(const std::string& path, int seconds) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) throw Unavailable("cannot open " + path + ": " + strerror(errno));
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; ++tries, usleep(100'000))
        if (tries >= seconds * 10) {
            close(fd);
            throw Unavailable(path + " is locked by another zoo");
        }
    return fd;
}

/// Holds both locks, as a copy of the zoo, so that nobody builds while settings are put back.
[[noreturn]] void run_guardian(int parent_pipe, int done_pipe, const std::string& name) {
    setsid();
    prctl(PR_SET_NAME, "zoo-guardian");
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT}) std::signal(signal, SIG_IGN);
    // Standard output stays open: who reads the zoo's output sees its end when all is undone.
    close(STDIN_FILENO);
    char byte;
    while (read(parent_pipe, &byte, 1) > 0 || errno == EINTR) errno = 0;
    undo_journal(state_file(name + ".journal"));
    unlink(state_file(name + ".alive").c_str());
    close(done_pipe);
    _exit(0);
}

/// Writes the header that mkswap(8) would write. Version 1, no bad pages, no label.
void write_swap_header(int fd, std::uint64_t bytes) {
    std::vector<char> page(witness::page_size());
    const std::uint32_t header[3] = {
        1, static_cast<std::uint32_t>(bytes / witness::page_size() - 1), 0};
    std::memcpy(page.data() + 1024, header, sizeof header);
    std::memcpy(page.data() + page.size() - 10, "SWAPSPACE2", 10);
    if (pwrite(fd, page.data(), page.size(), 0) != static_cast<ssize_t>(page.size()))
        throw Unavailable("cannot write the swap header: " + std::string(strerror(errno)));
}

/// Real writes: a file with unwritten extents is refused by some file systems and slow on others.
void fill_with_zeroes(int fd, std::uint64_t bytes) {
    const std::vector<char> block(1 << 20);
    for (std::uint64_t done = 0; done < bytes;) {
        const auto length = std::min<std::uint64_t>(block.size(), bytes - done);
        const ssize_t n = write(fd, block.data(), length);
        if (n <= 0) throw Unavailable("cannot write a swap file: " + std::string(strerror(errno)));
        done += static_cast<std::uint64_t>(n);
    }
    if (fsync(fd) != 0) throw Unavailable("cannot write a swap file");
}

/// As the most preferred of all areas; the kernel takes turns between equals.
void turn_on(const std::string& path) {
    int priority = 0;
    for (const auto& area : witness::swap_areas()) priority = std::max(priority, area.priority + 1);
    if (priority > SWAP_FLAG_PRIO_MASK)
        throw Unavailable("another swap area has the highest priority there is");
    if (swapon(path.c_str(), SWAP_FLAG_PREFER | priority) != 0)
        throw Unavailable("swapon " + path + ": " + strerror(errno));
}

} // namespace

std::optional<std::string> read_setting(const std::string& path) {
    std::ifstream in(path);
    std::string line;
    if (!std::getline(in, line)) return std::nullopt;
    const auto open = line.find('['), close = line.find(']');
    if (open != std::string::npos && close != std::string::npos && open < close)
        return line.substr(open + 1, close - open - 1);
    return line;
}

int write_setting(const std::string& path, const std::string& value) {
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    const int error = write(fd, value.data(), value.size()) < 0 ? errno : 0;
    close(fd);
    return error;
}

Machine::Machine() {
    mkdir(state_directory, 0700);
    building_ = open_locked(state_file("building"), 30);
    clean_up_after_others();
    alive_ = open_locked(own_file(".alive"), 0);
    save_journal(own_file(".journal"), journal_);

    int parent_pipe[2], done_pipe[2];
    if (pipe2(parent_pipe, O_CLOEXEC) != 0 || pipe2(done_pipe, O_CLOEXEC) != 0)
        throw Unavailable("cannot start the guardian");
    const std::string name = std::to_string(getpid());
    guardian_ = fork();
    if (guardian_ < 0) throw Unavailable("cannot start the guardian");
    if (guardian_ == 0) {
        close(parent_pipe[1]);
        close(done_pipe[0]);
        run_guardian(parent_pipe[0], done_pipe[1], name);
    }
    close(parent_pipe[0]);
    close(done_pipe[1]);
    guardian_pipe_ = parent_pipe[1];
    guardian_done_ = done_pipe[0];
}

Machine::~Machine() {
    close(guardian_pipe_);
    pollfd done{guardian_done_, POLLIN, 0};
    if (poll(&done, 1, 30'000) == 1) waitpid(guardian_, nullptr, 0);
    close(guardian_done_);
    close(alive_);
    close(building_);
}

void Machine::release() { flock(building_, LOCK_UN); }

void Machine::record(JournalEntry entry) {
    journal_.push_back(std::move(entry));
    save_journal(own_file(".journal"), journal_);
}

void Machine::forget(const std::string& path) noexcept {
    journal_.erase(std::remove_if(journal_.begin(), journal_.end(),
                                  [&](const JournalEntry& e) { return e.path == path; }),
                   journal_.end());
    try {
        save_journal(own_file(".journal"), journal_);
    } catch (const Unavailable&) {
        // The entry stays in the journal: at the end an old value is written a second time.
    }
}

std::string Machine::add_swap_file(std::uint64_t bytes) {
    const std::string path =
        std::string(swap_directory) + "/pagesift-zoo-" + std::to_string(getpid()) + ".swap";
    record({JournalEntry::What::swap_file, path, ""});
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) throw Unavailable("cannot create " + path + ": " + strerror(errno));
    try {
        fill_with_zeroes(fd, bytes);
        write_swap_header(fd, bytes);
    } catch (...) {
        close(fd);
        throw;
    }
    fsync(fd);
    close(fd);
    turn_on(path);
    return path;
}

std::string Machine::add_zram(std::uint64_t bytes) {
    // Reading hot_add makes a device and answers with its number.
    const auto number = read_setting(std::string(zram_control) + "hot_add");
    if (!number) throw Unavailable("no zram: " + std::string(zram_control) + " is missing");
    const std::string path = "/dev/zram" + *number;
    record({JournalEntry::What::zram, path, *number});
    if (write_setting("/sys/block/zram" + *number + "/disksize", std::to_string(bytes)) != 0)
        throw Unavailable("cannot set the size of " + path);
    int fd = -1;
    for (int tries = 0; fd < 0 && tries < 50; ++tries, usleep(20'000)) // udev may make the node
        fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) throw Unavailable("cannot open " + path + ": " + strerror(errno));
    write_swap_header(fd, bytes);
    fsync(fd);
    close(fd);
    turn_on(path);
    return path;
}

std::string Machine::add_swap(std::uint64_t bytes) {
    if (access(zram_control, W_OK) != 0) return add_swap_file(bytes);
    return add_zram(bytes);
}

Setting::Setting(Machine& machine, std::string path, const std::string& value)
    : machine_(machine), path_(std::move(path)) {
    const auto old = read_setting(path_);
    if (!old) throw Unavailable(path_ + " is missing");
    old_value_ = *old;
    if (old_value_ == value) return;
    machine_.record({JournalEntry::What::setting, path_, old_value_});
    changed_ = true;
    if (const int error = write_setting(path_, value); error != 0) {
        machine_.forget(path_);
        throw Unavailable(path_ + " refuses " + value + ": " + strerror(error));
    }
}

Setting::~Setting() {
    if (!changed_) return;
    write_setting(path_, old_value_);
    machine_.forget(path_);
}

} // namespace pagesift::zoo
