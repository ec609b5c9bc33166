// SPDX-License-Identifier: MIT
// What the remote call is not: the registers are kept by the program that makes the call. It shows
// that the torture tells the difference.
#include "torture/torture.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

#if defined(__x86_64__)
constexpr std::string_view system_call = "\x0f\x05";

void prepare(user_regs_struct& call, std::uint64_t instruction, std::uint64_t address,
             std::uint64_t bytes, int advice) {
    call.rip = instruction;
    call.rax = SYS_madvise;
    call.orig_rax = ~0ull;
    call.rdi = address;
    call.rsi = bytes;
    call.rdx = static_cast<unsigned long long>(advice);
}
#else
constexpr std::string_view system_call{"\x01\x00\x00\xd4", 4};

void prepare(user_regs_struct& call, std::uint64_t instruction, std::uint64_t address,
             std::uint64_t bytes, int advice) {
    call.pc = instruction;
    call.regs[8] = SYS_madvise;
    call.regs[0] = address;
    call.regs[1] = bytes;
    call.regs[2] = static_cast<unsigned long long>(advice);
}
#endif

/// The address of an instruction in the vdso that makes a system call.
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
        if (const auto at = bytes.find(system_call); at != std::string::npos) return start + at;
    }
    throw std::runtime_error("no system call in the vdso");
}

} // namespace

void call_naively(pid_t pid, pid_t thread, std::uint64_t address, std::uint64_t bytes, int advice,
                  const std::function<void()>& after_step) {
    const auto trace = [&](auto request, pid_t to, void* data) {
        const bool set = request == PTRACE_GETREGSET || request == PTRACE_SETREGSET;
        const long result = ::ptrace(request, to, set ? NT_PRSTATUS : 0, data);
        after_step();
        return result;
    };
    const std::uint64_t instruction = find_instruction(pid);
    if (trace(PTRACE_SEIZE, thread, nullptr) != 0) throw std::runtime_error("seize");
    trace(PTRACE_INTERRUPT, thread, nullptr);
    int status = 0;
    ::waitpid(thread, &status, __WALL);
    user_regs_struct before{};
    iovec registers{&before, sizeof before};
    trace(PTRACE_GETREGSET, thread, &registers);
    user_regs_struct call = before;
    prepare(call, instruction, address, bytes, advice);
    registers.iov_base = &call;
    trace(PTRACE_SETREGSET, thread, &registers);
    trace(PTRACE_SINGLESTEP, thread, nullptr);
    ::waitpid(thread, &status, __WALL);
    after_step();
    registers.iov_base = &before;
    trace(PTRACE_SETREGSET, thread, &registers);
    trace(PTRACE_DETACH, thread, nullptr);
}

} // namespace pagesift::live
