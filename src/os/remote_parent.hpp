// SPDX-License-Identifier: MIT
// How a call is made in another process so that the death of this program at any instant does the
// target no harm.
//
// 1. One thread of the target, the parent, is stopped. A detour (remote_arch.hpp) is written into
//    unused bytes of its vdso, with all that it changes of the thread's registers, and the thread
//    is sent there: one call, after which the thread comes home by itself from wherever it is.
// 2. On the detour the parent makes a child that shares its memory, and waits for it in vfork. The
//    child is ours (PTRACE_O_TRACEVFORK), and the kernel kills it when we die (PTRACE_O_EXITKILL).
// 3. The child, the puppet, is made to trace and stop all other threads. So it is the puppet's
// life,
//    not ours, that keeps them still: when we die, it dies, and they go on; and it is the puppet
//    that makes the calls, so no call can come after they have gone on. (Were they our own tracees,
//    one of them could write between our death and a call that the puppet is already about to
//    make.)
// 4. When the puppet is dead the parent leaves vfork and takes note of its end. Then we stop it
// once
//    more, inside the kernel's signal code, and give it the registers and the mask that it had. So
//    it is the kernel that restarts its system call, or delivers a signal first, as it would have
//    done.
#pragma once

#include "os/file.hpp"
#include "os/remote_tracer.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace pagesift::os {

/// Unused bytes behind the target's vdso, and the target's memory as far as that is needed.
///
///     | the vdso | detour | detour … |          | errand, list            | end of the page
///
/// A detour must stay as long as a thread may be on it, also when this program has died. What the
/// child needs may be written over by the next one, as the child does not live longer than we do.
class DetourRoom {
public:
    static constexpr std::size_t least_list_bytes = 128, most_list_bytes = 256;

    /// @param thread of the target, traced and stopped
    /// @throws Error unsupported: no vdso of 64 bits, no room; denied: its memory cannot be written
    DetourRoom(const Root& root, pid_t thread);

    /// Takes a place for @p bytes of code. One that a killed program has left is taken only if
    /// the thread that it was for has ended, or is @p thread and surely came home: it is on none of
    /// these detours, of which one may lead back to another, and its stack is where it was, so no
    /// signal handler stands between.
    /// @return where the code goes; @throws Error unsupported: no room
    std::uint64_t take(std::uint64_t bytes, pid_t thread, const arch::Registers& registers);
    void write(const std::vector<std::uint8_t>& code, pid_t thread,
               const arch::Registers& registers) const;
    struct Left {
        std::vector<pid_t> threads; ///< for each a killed program has left a detour here
        bool full = false;          ///< and there is no place beside these
    };
    /// Such a thread can tell better than others whether its place is free.
    Left left() const;

    /// Writes what the child needs. @return where it begins
    std::uint64_t write_errand(const std::vector<std::uint8_t>& code) const;
    std::size_t list_bytes() const { return last_ - list_; }
    /// @param list of at most list_bytes(). @return where it begins
    std::uint64_t write_list(std::span<const std::byte> list) const;

    /// Puts the zeroes back that were there. No thread may be on the detour any more.
    void clear() const;
    bool contains(std::uint64_t address) const {
        return place_ != 0 && place_ <= address && address < place_ + size_;
    }

    bool read(std::uint64_t address, void* bytes, std::size_t count) const;

private:
    struct Mark;
    bool left_for_good(const Mark& mark, pid_t thread, const arch::Registers& registers) const;
    bool write_bytes(std::uint64_t address, const void* bytes, std::size_t count) const;

    const Root& root_;
    std::string task_folder_;
    Fd memory_;
    std::uint64_t begin_ = 0, end_ = 0; ///< of the bytes for detours
    std::uint64_t errand_ = 0, list_ = 0, last_ = 0;
    std::uint64_t place_ = 0, size_ = 0;
};

/// The thread of the target that makes the puppet.
class Parent {
public:
    /// Stops @p thread.
    /// @throws Error unsupported (stopped by a signal, 32-bit, syscall user dispatch, running where
    ///         only a thread in a system call will do), and as Tracer
    Parent(Tracer& tracer, const Root& root, pid_t thread);

    /// Makes the child. It is traced and has not run yet; the parent stands still until it ends.
    /// Signals that come before are delivered first, each with the registers that the thread had.
    /// @throws Error; then the thread has been let go on as it was
    pid_t make_child();
    /// An instruction that makes a system call, for the child.
    std::uint64_t call_address() const { return code_ + detour_.call; }
    const DetourRoom& room() const { return room_; }

    /// After the child's end: the thread goes on where it was, and the vdso is as it was.
    void go_home();

private:
    enum class Leg { child, again };
    void leave();       ///< onto the detour
    Leg run_to_child(); ///< from there until it stops with a child
    void restore();     ///< registers and mask that it had
    void check_filters();
    bool block_again(int signal);
    void let_go(); ///< for good, as it was
    void deliver(int signal);
    [[noreturn]] void fail_without_child();
    std::uint64_t rseq_abort() const;

    Tracer& tracer_;
    const Root& root_;
    /// With which its system call ended, where a stop hides that.
    arch::Registers called_{};
    pid_t thread_;
    DetourRoom room_;
    arch::Registers home_{};
    std::uint64_t mask_ = 0;
    bool masked_ = false;   ///< the detour has blocked all signals
    bool filtered_ = false; ///< by seccomp
    arch::Detour detour_;
    std::uint64_t code_ = 0;
};

} // namespace pagesift::os
