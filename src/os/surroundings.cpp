// SPDX-License-Identifier: MIT
#include "os/file.hpp"
#include "pagesift/os.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <thread>
#include <unistd.h>

namespace pagesift::os {

namespace {

/// The number that /proc has for this process, which may be of another PID namespace.
std::uint32_t read_own_pid() {
    std::uint32_t pid = 0;
    try {
        const std::string link = own_root().read_link("proc/self");
        std::from_chars(link.data(), link.data() + link.size(), pid);
    } catch (const Error&) {
        // There is no root to look from; whoever needs one will say so.
    }
    return pid != 0 ? pid : static_cast<std::uint32_t>(::getpid());
}

} // namespace

Surroundings read_surroundings() {
    // open() takes the lowest free descriptor, so this fills a gap below 3 and then stops.
    int fd = 0;
    do {
        fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    } while (fd >= 0 && fd <= 2);
    if (fd > 2) ::close(fd);

    Surroundings found;
    found.out_is_terminal = ::isatty(1) == 1;
    found.err_is_terminal = ::isatty(2) == 1;
    winsize size{};
    if (found.out_is_terminal && ::ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        found.columns = size.ws_col;
    found.processors = std::max(1u, std::thread::hardware_concurrency());
    found.own_pid = read_own_pid();
    return found;
}

namespace {
// A signal handler has no other way to leave word.
std::atomic<bool> interrupt_flag{false};
extern "C" void on_interrupt(int) { interrupt_flag.store(true); }
} // namespace

void catch_interrupts() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return interrupt_flag.load(); }

} // namespace pagesift::os
