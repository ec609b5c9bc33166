// SPDX-License-Identifier: MIT
// Changes to the machine that some exhibits need: a swap file, a zram device, settings below /sys
// and /proc/sys. Each is written into a journal before it is made, and is undone when the process
// ends, however it ends: a detached guardian process waits for that, and the next zoo cleans up
// after a guardian that was killed as well.
//
//     Machine machine;                                       // alone in changing settings, for now
//     Setting run(machine, "/sys/kernel/mm/ksm/run", "1");   // put back at the end of the block
//     machine.release();                                     // now another zoo may be built
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/types.h>

namespace pagesift::zoo {

/// This machine cannot hold an exhibit. The text is the reason that the zoo prints.
class Unavailable : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// What has to be undone, in the order in which it was done.
struct JournalEntry {
    enum class What { setting, swap_file, zram };
    What what;
    std::string path;  ///< the setting, the swap file, or the zram device
    std::string value; ///< the setting's old value, or the zram device's number
};

class Machine {
public:
    /// Cleans up what killed zoos left behind, and starts the guardian.
    /// Throws Unavailable when another zoo takes too long to build, or nothing can be written to
    /// the journal's directory.
    Machine();
    /// Lets the guardian undo everything, and waits until it has. Unmap what is in swap first.
    ~Machine();
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    /// All settings are back; what stays on until the end (swap areas) is in nobody's way.
    void release();

    /// Turns on a swap area that is preferred to all areas there were before; returns its path.
    std::string add_swap_file(std::uint64_t bytes);
    std::string add_zram(std::uint64_t bytes);
    /// Compressed memory where there is any: quick, and what is paged out leaves memory at once.
    /// Else a file.
    std::string add_swap(std::uint64_t bytes);

private:
    friend class Setting;
    void record(JournalEntry entry);
    void forget(const std::string& path) noexcept;

    std::vector<JournalEntry> journal_;
    int building_ = -1;      ///< locked while settings change
    int alive_ = -1;         ///< locked until everything is undone
    int guardian_pipe_ = -1; ///< closed by the kernel when this process ends
    int guardian_done_ = -1;
    pid_t guardian_ = -1;
};

/// A setting for the length of a block. An unchanged value is not written.
class Setting {
public:
    /// Throws Unavailable when the file is missing or refuses the value.
    Setting(Machine& machine, std::string path, const std::string& value);
    ~Setting();
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;

private:
    Machine& machine_;
    std::string path_;
    std::string old_value_;
    bool changed_ = false;
};

/// One line, without its end; of a choice such as "always [madvise] never" the word in brackets.
std::optional<std::string> read_setting(const std::string& path);
/// 0 or errno.
int write_setting(const std::string& path, const std::string& value);

} // namespace pagesift::zoo
