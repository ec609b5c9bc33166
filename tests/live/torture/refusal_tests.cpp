// SPDX-License-Identifier: MIT
// In which processes no remote call is made, what is said of them, and that they go on as they
// were.
#include "harness.hpp"
#include "torture/remote_tests.hpp"

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <grp.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

/// A target that counts in numbers[0], after it has made itself special.
class Counting {
public:
    explicit Counting(const std::function<void()>& prepare = {})
        : child_([&](const auto& ready) {
              if (prepare) prepare();
              ready();
              for (;; nap(500)) ++numbers[0];
          }) {}
    pid_t pid() const { return child_.pid(); }

    SharedNumbers numbers;

private:
    Child child_;
};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Refused for that reason, and the target goes on.
void check_refused(const Counting& target, const std::string& reason,
                   const os::StopOptions& options = patient()) {
    const std::string said = why_refused(target.pid(), options);
    CHECK_MESSAGE(contains(said, reason), "'", said, "' says '", reason, "'");
    CHECK(target.numbers.grows(0));
}

void become_nobody() {
    if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 ||
        ::setresuid(65534, 65534, 65534) != 0)
        _exit(9);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL); // forgotten with the uid
    ::prctl(PR_SET_DUMPABLE, 1);
}

void start_another_thread() {
    std::thread{[] {
        for (;;) nap(1000);
    }}.detach();
}

char state_of(pid_t pid) {
    std::ifstream file{"/proc/" + std::to_string(pid) + "/stat"};
    const std::string text{std::istreambuf_iterator<char>{file}, {}};
    return text.at(text.rfind(')') + 2);
}

/// What a function says in a process of user nobody.
std::string as_nobody(const std::function<std::string()>& body) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        become_nobody();
        const auto text = body();
        _exit(::write(ends[1], text.data(), text.size()) < 0 ? 1 : 0);
    }
    ::close(ends[1]);
    std::string text(1000, '\0');
    const auto got = ::read(ends[0], text.data(), text.size());
    ::close(ends[0]);
    ::waitpid(child, nullptr, 0);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

} // namespace

TEST_CASE("remote call: not in itself, what started it, init, or what is none") {
    if (!can_call()) return;
    CHECK(contains(why_refused(::getpid()), "is pagesift itself"));
    CHECK(contains(why_refused(::getppid()),
                   ::getppid() == 1 ? "is init" : "is a process that started pagesift"));
    CHECK(contains(why_refused(1), "is init"));
    const pid_t ended = ::fork();
    if (ended == 0) _exit(0);
    nap(20000);
    CHECK(contains(why_refused(ended), "it has ended"));
    ::waitpid(ended, nullptr, 0);
    CHECK(contains(why_refused(ended), "no such process"));
    const Counting target;
    CHECK_THROWS_AS(
        os::RemoteTarget(static_cast<std::uint32_t>(target.pid()), start_time(target.pid()) + 1),
        Error);
    std::ifstream comm{"/proc/2/comm"};
    std::string name;
    std::getline(comm, name);
    if (name != "kthreadd") return skip("pid 2 is no kernel thread");
    CHECK(contains(why_refused(2), "is a kernel thread"));
}

TEST_CASE("remote call: not where another is at work") {
    if (!can_call()) return;
    const Counting target;
    {
        const auto first = open_target(target.pid());
        check_refused(target, "another pagesift is at work on it");
    }
    CHECK(why_refused(target.pid()) == "");
}

TEST_CASE("remote call: not in a process that is traced") {
    if (!can_call()) return;
    const Counting target;
    REQUIRE(::ptrace(PTRACE_SEIZE, target.pid(), nullptr, nullptr) == 0);
    check_refused(target, "is traced by process " + std::to_string(::getpid()));
}

TEST_CASE("remote call: not in a process that is stopped, which stays so") {
    if (!can_call()) return;
    const Counting target;
    ::kill(target.pid(), SIGSTOP);
    wait_until_stopped(target.pid());
    CHECK(contains(why_refused(target.pid()), "is stopped by a signal"));
    nap(20000);
    CHECK(state_of(target.pid()) == 'T');
    ::kill(target.pid(), SIGCONT);
    CHECK(target.numbers.grows(0));
}

TEST_CASE("remote call: not under seccomp that may not let the detour pass") {
    if (!can_call()) return;
    for (const int number : {SYS_rt_sigprocmask, SYS_clone, SYS_exit, SYS_waitid}) {
        const Counting target{[&] { forbid_calls({number}); }};
        check_refused(target, "is under seccomp, which may not let system call " +
                                  std::to_string(number) + " pass");
    }
    const Child child{[](const auto& ready) {
        ready();
        if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(9);
        for (;;) continue;
    }};
    nap(20000);
    CHECK(contains(why_refused(child.pid()), "is under strict seccomp"));
}

TEST_CASE("remote call: under seccomp that lets the detour pass, whatever the child is let do") {
    if (!can_call()) return;
    const Counting target{[] {
        start_another_thread();
        forbid_calls({SYS_ptrace, SYS_wait4, SYS_madvise});
        forbid_calls({SYS_mount}); // a second filter
    }};
    int error = -1;
    open_target(target.pid())
        ->with_all_stopped(
            [&](os::StoppedProcess& stopped) {
                error = stopped.advise({Address{0}, Address{4096}}, MADV_NORMAL);
            },
            patient());
    CHECK(error == ENOMEM); // the kernel's own word: nothing is mapped there
    CHECK(target.numbers.grows(0));
    const std::string said = as_nobody([&] { return why_refused(target.pid()); });
    CHECK_MESSAGE(contains(said, "EACCES"), said);
    CHECK(target.numbers.grows(0));
}

TEST_CASE("remote call: not where the kernel writes to the memory of the target") {
    if (!can_call()) return;
    const std::string device = "/dev/vhost-of-a-pagesift-test"; // the name is what counts
    const int file = ::open(device.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) return skip("no file can be made below /dev");
    {
        const Counting target;
        check_refused(target, "the kernel writes to its memory");
    }
    ::unlink(device.c_str());
    ::close(file);
    const Counting target;
    CHECK(why_refused(target.pid()) == "");
}

TEST_CASE("remote call: not in another user namespace") {
    if (!can_call()) return;
    SharedNumbers made;
    const Counting target{[&] { made[0] = ::unshare(CLONE_NEWUSER) == 0 ? 1 : 0; }};
    if (made[0] == 0) return skip("no user namespace can be made");
    check_refused(target, "is in another user namespace");
}

TEST_CASE("remote call: not where its instructions find no room") {
    if (!can_call()) return;
    const Counting filled;
    const std::uint64_t vdso = ::getauxval(AT_SYSINFO_EHDR); // a fork has it at the same place
    Elf64_Ehdr header;
    std::memcpy(&header, reinterpret_cast<const void*>(vdso), sizeof header);
    const std::uint64_t end =
        vdso + header.e_shoff + std::uint64_t{header.e_shnum} * header.e_shentsize;
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    const std::string bytes((page - end % page) % page, '\x55');
    const int memory =
        ::open(("/proc/" + std::to_string(filled.pid()) + "/mem").c_str(), O_RDWR | O_CLOEXEC);
    // Some kernels let only a tracer write there (proc_mem.force_override).
    REQUIRE(::ptrace(PTRACE_SEIZE, filled.pid(), nullptr, nullptr) == 0);
    REQUIRE(::pwrite(memory, bytes.data(), bytes.size(), static_cast<off_t>(end)) ==
            static_cast<ssize_t>(bytes.size()));
    ::close(memory);
    ::ptrace(PTRACE_INTERRUPT, filled.pid(), nullptr, nullptr);
    REQUIRE(::waitpid(filled.pid(), nullptr, __WALL) == filled.pid());
    REQUIRE(::ptrace(PTRACE_DETACH, filled.pid(), nullptr, nullptr) == 0);
    check_refused(filled, "has no room behind its vdso");

    SharedNumbers counted;
    const Child without{[&](const auto& ready) {
        const std::uint64_t start = vdso / page * page;
        ::munmap(reinterpret_cast<void*>(start), end - start);
        ready();
        for (;;) {
            ++counted[0];
            ::syscall(SYS_nanosleep, std::array<long, 2>{0, 500000}.data(), nullptr);
        }
    }};
    CHECK(contains(why_refused(without.pid()), "has no 64-bit vdso"));
    CHECK(counted.grows(0));
}

TEST_CASE("remote call: a thread that does not stop in time is let wait") {
    if (!can_call()) return;
    const Counting target{[] {
        std::thread{[] {
            for (;; nap(1000))
                if (::vfork() == 0) {
                    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                    ::syscall(SYS_nanosleep, std::array<long, 2>{1000, 0}.data(), nullptr);
                    _exit(0);
                }
        }}.detach();
        nap(100000);
    }};
    os::StopOptions options;
    options.patience = std::chrono::milliseconds{50};
    const double began = seconds_now();
    check_refused(target, "did not stop in time", options);
    CHECK(seconds_now() - began < 5);
    for (int i = 0; i < 3; ++i) check_refused(target, "did not stop in time", options);
}

namespace {

/// Threads that each make the next one and end, in several chains: at no moment are there many, and
/// there is no last one.
class Chains {
public:
    explicit Chains(SharedNumbers& made) : made_(made) {
        for (Link& link : links_) link.chains = this;
    }
    void start() {
        for (int i = 0; i < chains; ++i) make();
    }

private:
    static constexpr int chains = 4;
    static constexpr std::size_t most = 2048, stack_bytes = 16384;
    struct Link {
        Chains* chains = nullptr;
        std::atomic<pid_t> taken{0}; ///< the kernel makes it 0 when the thread is off its stack
        alignas(16) std::array<char, stack_bytes> stack;
    };

    Link& free_link() {
        for (;;) {
            pid_t nobody = 0;
            Link& link = links_[next_++ % most];
            if (link.taken.compare_exchange_strong(nobody, 1)) return link;
        }
    }

    void make() {
        static constexpr int as_thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                                         CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
        const auto body = [](void* argument) {
            Chains& all = *static_cast<Link*>(argument)->chains;
            ++all.made_[1];
            all.make();
            return 0;
        };
        Link& link = free_link();
        while (::clone(body, link.stack.data() + stack_bytes, as_thread, &link, nullptr, nullptr,
                       &link.taken) < 0)
            nap(100);
    }

    SharedNumbers& made_;
    std::atomic<std::size_t> next_{0};
    std::vector<Link> links_{most};
};

} // namespace

TEST_CASE("remote call: threads without end are let go, or all stand still") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child target{[&](const auto& ready) {
        Chains chains{numbers};
        chains.start();
        ready();
        for (;; nap(500)) ++numbers[0];
    }};
    CHECK(numbers.grows(1));
    int refused = 0, stopped = 0;
    const double end = seconds_now() + 3;
    while (seconds_now() < end || refused + stopped == 0) {
        const double began = seconds_now();
        std::uint64_t meanwhile = 0;
        std::string said;
        try {
            open_target(target.pid())
                ->with_all_stopped(
                    [&](os::StoppedProcess&) {
                        const std::uint64_t first = numbers[1];
                        nap(3000);
                        meanwhile = numbers[1] - first;
                    },
                    patient());
            ++stopped;
        } catch (const Error& error) {
            said = error.what();
            CHECK_MESSAGE(error.kind() == ErrorKind::failed, said);
            ++refused;
        }
        CHECK(meanwhile == 0);
        CHECK(seconds_now() - began < 8);
        CHECK(numbers.grows(0));
        CHECK(numbers.grows(1));
        if (!said.empty())
            CHECK_MESSAGE((contains(said, "makes threads without end") ||
                           contains(said, "did not stop in time")),
                          said);
    }
    MESSAGE(refused, " times refused, ", stopped, " times all stood still");
}

TEST_CASE("remote call: not where a child of the target may not trace it") {
    if (!can_call()) return;
    const Counting target{[] {
        become_nobody();
        start_another_thread();
        ::prctl(PR_SET_DUMPABLE, 0);
    }};
    check_refused(target, "cannot be stopped by a child of its process (EPERM)");
}

TEST_CASE("remote call: not where the target can make no child") {
    if (!can_call()) return;
    const Counting target{[] {
        become_nobody();
        const rlimit none{0, 0};
        ::setrlimit(RLIMIT_NPROC, &none);
    }};
    check_refused(target, "can make no child");
    check_refused(target, "can make no child");
}

TEST_CASE("remote call: anyone may, in their own process, and in no other") {
    if (!can_call()) return;
    const Counting own{[] {
        become_nobody();
        start_another_thread();
        // Who may not be compared is told apart by size.
        const std::size_t bytes = std::size_t{3} << 20;
        std::memset(
            ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1,
            bytes);
    }};
    const Counting other;
    const std::string said = as_nobody([&] { return why_refused(own.pid()) + "."; });
    CHECK_MESSAGE(said == ".", said);
    CHECK(own.numbers.grows(0));
    const std::string refused = as_nobody([&] { return why_refused(other.pid()); });
    CHECK_MESSAGE(contains(refused, "EACCES"), refused);
    CHECK(other.numbers.grows(0));
}

#if defined(__x86_64__)

TEST_CASE("remote call: not in 32-bit code") {
    if (!can_call()) return;
    SharedNumbers started;
    const Child target{[&](const auto& ready) {
        auto* code =
            static_cast<unsigned char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
        code[0] = 0xeb; // jmp .
        code[1] = 0xfe;
        ready();
        const struct {
            std::uint32_t offset;
            std::uint16_t selector;
        } there{static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(code)),
                0x23}; // __USER32_CS
        asm volatile("ljmpl *%0" : : "m"(there));
    }};
    nap(20000);
    CHECK(contains(why_refused(target.pid()), "it runs 32-bit code"));
    nap(20000);
    CHECK(state_of(target.pid()) == 'R');
}

TEST_CASE("remote call: not where system calls are sent back to their thread") {
    if (!can_call()) return;
    SharedNumbers numbers;
    const Child target{[&](const auto& ready) {
        static volatile char selector = 0;                 // SYSCALL_DISPATCH_FILTER_ALLOW
        numbers[0] = ::prctl(59, 1, 0, 0, &selector) == 0; // PR_SET_SYSCALL_USER_DISPATCH, 5.11
        ready();
        if (numbers[0] == 0) return;
        selector = 1;
        for (;;) ++numbers[1];
    }};
    if (numbers[0] == 0) return skip("no syscall user dispatch");
    nap(20000);
    const auto said = why_refused(target.pid());
    // Before 6.4 the kernel does not tell; then the first call of the detour is sent back.
    CHECK_MESSAGE(
        (contains(said, "sent back to itself") || contains(said, "may not make the calls")), said);
    CHECK(numbers.grows(1));
}

#endif

} // namespace pagesift::live
