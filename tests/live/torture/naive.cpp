// SPDX-License-Identifier: MIT
// What the remote call is not: the registers are kept by the program that makes the call. It shows
// that the torture tells the difference.
#include "torture/torture.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

#if defined(__x86_64__)

namespace {

/// The address of a `syscall` instruction in the vdso.
std::uint64_t find_instruction(pid_t pid) {
    const std::string folder = "/proc/" + std::to_string(pid);
    std::ifstream maps{folder + "/maps"};
    for (std::string line; std::getline(maps, line);) {
        if (line.find("[vdso]") == std::string::npos) continue;
        unsigned long start = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx", &start, &end) != 2) continue;
        std::string bytes(end - start, '\0');
        const int memory = ::open((folder + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
        (void)!::pread(memory, bytes.data(), bytes.size(), static_cast<off_t>(start));
        ::close(memory);
        if (const auto at = bytes.find("\x0f\x05"); at != std::string::npos) return start + at;
    }
    throw std::runtime_error("no system call in the vdso");
}

} // namespace

void call_naively(pid_t pid, pid_t thread, std::uint64_t address, std::uint64_t bytes, int advice,
                  const std::function<void()>& after_step) {
    const auto trace = [&](auto request, pid_t to, void* data) {
        const long result = ::ptrace(request, to, nullptr, data);
        after_step();
        return result;
    };
    const std::uint64_t instruction = find_instruction(pid);
    if (trace(PTRACE_SEIZE, thread, nullptr) != 0) throw std::runtime_error("seize");
    trace(PTRACE_INTERRUPT, thread, nullptr);
    int status = 0;
    ::waitpid(thread, &status, __WALL);
    user_regs_struct before{};
    trace(PTRACE_GETREGS, thread, &before);
    user_regs_struct call = before;
    call.rip = instruction;
    call.rax = SYS_madvise;
    call.orig_rax = ~0ull;
    call.rdi = address;
    call.rsi = bytes;
    call.rdx = static_cast<unsigned long long>(advice);
    trace(PTRACE_SETREGS, thread, &call);
    trace(PTRACE_SINGLESTEP, thread, nullptr);
    ::waitpid(thread, &status, __WALL);
    after_step();
    trace(PTRACE_SETREGS, thread, &before);
    trace(PTRACE_DETACH, thread, nullptr);
}

#else

void call_naively(pid_t, pid_t, std::uint64_t, std::uint64_t, int, const std::function<void()>&) {
    throw std::runtime_error("not on this architecture");
}

#endif

} // namespace pagesift::live
