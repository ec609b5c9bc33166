// SPDX-License-Identifier: MIT
// Which privileges and which settings of the machine the readers of kernel memory take, and that
// they leave nothing behind.
#include "exact/exact.hpp"
#include "os/bpf_reader.hpp"

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

using os::BpfReader;
using os::open_kernel_view;

namespace {

constexpr std::uint64_t bit(unsigned capability) { return std::uint64_t{1} << capability; }

/// From here on user nobody with these capabilities and no others.
void become(std::uint64_t capabilities) {
    ::prctl(PR_SET_KEEPCAPS, 1);
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) _exit(9);
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2]{};
    for (unsigned i = 0; i < 2; ++i)
        sets[i].effective = sets[i].permitted =
            static_cast<std::uint32_t>(capabilities >> (32 * i));
    if (::syscall(SYS_capset, &header, sets) != 0) _exit(9);
    // Without this the own files below /proc belong to root.
    ::prctl(PR_SET_DUMPABLE, 1);
}

/// "reads" or why not, then "view" or why not.
std::string attempt(std::uint64_t capabilities) {
    return in_child([&] {
        // Before Linux 5.11 a program counts as locked memory.
        const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
        ::setrlimit(RLIMIT_MEMLOCK, &none);
        become(capabilities);
        std::string text = "reads";
        try {
            BpfReader reader;
            if (reader.caller().task == 0) text = "no task";
        } catch (const Error& error) {
            text = std::string{error.what()} + " (" + error.hint() + ")";
        }
        const auto result = open_kernel_view({"kcore"});
        return text + "; " + (result.view ? "view" : result.reason);
    });
}

/// Numbers of all programs (BPF_PROG_GET_NEXT_ID) or maps of this machine, ascending.
std::vector<std::uint32_t> bpf_objects(bpf_cmd next) {
    std::vector<std::uint32_t> ids;
    bpf_attr attributes{};
    while (::syscall(SYS_bpf, next, &attributes, sizeof attributes) == 0) {
        ids.push_back(attributes.next_id);
        attributes.start_id = attributes.next_id;
    }
    return ids;
}

/// How many there are now that were not there before. The kernel frees them a moment after their
/// last user has gone, so what an earlier test had may still disappear.
std::size_t new_objects(bpf_cmd next, const std::vector<std::uint32_t>& before) {
    const auto now = bpf_objects(next);
    std::vector<std::uint32_t> added;
    std::set_difference(now.begin(), now.end(), before.begin(), before.end(),
                        std::back_inserter(added));
    return added.size();
}

std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all{"/proc/self/fd"};
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

} // namespace

TEST_CASE("exact reader: it takes CAP_BPF and CAP_PERFMON, and CAP_SYS_ADMIN for frames") {
    if (::getuid() != 0) return skip("not root");
    if (!open_view({"kcore"})) return;
    const auto none = attempt(0);
    CHECK(none.find("EPERM") != std::string::npos);
    CHECK(none.find("CAP_BPF and CAP_PERFMON") != std::string::npos);
    CHECK(none.find("view") == std::string::npos);
    CHECK(attempt(bit(CAP_PERFMON)).find("CAP_BPF and CAP_PERFMON") != std::string::npos);
    // Older kernels (6.1) hand the helper to CAP_BPF alone.
    const auto bpf_only = attempt(bit(CAP_BPF));
    CHECK((bpf_only.find("CAP_BPF and CAP_PERFMON") != std::string::npos ||
           bpf_only.find("reads") == 0));
    const auto without_frames = attempt(bit(CAP_BPF) | bit(CAP_PERFMON));
    CHECK(without_frames.find("reads; ") == 0);
    CHECK(without_frames.find("frame numbers are hidden") != std::string::npos);
    CHECK(attempt(bit(CAP_BPF) | bit(CAP_PERFMON) | bit(CAP_SYS_ADMIN)) == "reads; view");
    CHECK(attempt(bit(CAP_SYS_ADMIN)) == "reads; view");
}

TEST_CASE("exact reader: nothing of it is inherited, and nothing is left behind") {
    if (!open_view({"kcore"})) return;
    const auto programs = bpf_objects(BPF_PROG_GET_NEXT_ID);
    const auto maps = bpf_objects(BPF_MAP_GET_NEXT_ID);
    const auto descriptors = open_descriptors();
    {
        const auto view = open_view({"kcore"});
        CHECK(new_objects(BPF_PROG_GET_NEXT_ID, programs) == 1);
        CHECK(new_objects(BPF_MAP_GET_NEXT_ID, maps) == 1);
        CHECK(open_descriptors() == descriptors + 1);
        for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
            const int fd = std::stoi(entry.path().filename());
            std::error_code gone;
            const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
            if (target.find("bpf") != std::string::npos)
                CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        }
        CHECK(slurp("/proc/self/maps").find("bpf") != std::string::npos);
        CHECK(in_child([] { return slurp("/proc/self/maps"); }).find("bpf") == std::string::npos);
    }
    CHECK(open_descriptors() == descriptors);
    std::size_t left = 1;
    for (int i = 0; i < 100 && left != 0; ++i) {
        left = new_objects(BPF_PROG_GET_NEXT_ID, programs) + new_objects(BPF_MAP_GET_NEXT_ID, maps);
        if (left != 0) std::this_thread::sleep_for(std::chrono::milliseconds{20});
    }
    CHECK(left == 0);
}

namespace {

/// What a shell command prints in which "$0" --view is this program in its second role.
std::string shell(const std::string& command) {
    const auto own = std::filesystem::read_symlink("/proc/self/exe").string();
    const auto outcome = run({"sh", "-c", command, own});
    CHECK(outcome.signal == 0);
    return outcome.out + outcome.err;
}

/// A sysctl that is put back at the end.
class Setting {
public:
    Setting(std::string path, const std::string& value)
        : path_(std::move(path)), before_(slurp(path_)) {
        works_ = write(value) && slurp(path_) == value + '\n';
    }
    ~Setting() { write(before_); }
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;
    bool works() const { return works_; }

private:
    bool write(const std::string& value) const {
        std::ofstream file{path_};
        file << value << std::flush;
        return file.good();
    }
    std::string path_, before_;
    bool works_ = false;
};

} // namespace

TEST_CASE("exact reader: other namespaces do not confuse it, and a lack of BTF is said") {
    if (::getuid() != 0) return skip("not root");
    if (!open_view({"kcore"})) return;
    CHECK(shell("\"$0\" --view") == "view\n");
    CHECK(shell("unshare -p -f --mount-proc \"$0\" --view") == "view\n");
    const auto without_btf = shell(
        "unshare -m sh -c 'mount -t tmpfs none /sys/kernel/btf && exec \"$0\" --view' \"$0\"");
    CHECK(without_btf.find("sys/kernel/btf/vmlinux: no such file") != std::string::npos);
    CHECK(without_btf.find("CONFIG_DEBUG_INFO_BTF") != std::string::npos);
    const auto as_own_root = shell("unshare -U -r \"$0\" --view");
    CHECK(as_own_root.find("EPERM") != std::string::npos);
    CHECK(as_own_root.find("in the initial user namespace") != std::string::npos);
}

TEST_CASE("exact reader: it works without the JIT") {
    if (::getuid() != 0) return skip("not root");
    if (!open_view({"kcore"})) return;
    const Setting jit{"/proc/sys/net/core/bpf_jit_enable", "0"};
    if (!jit.works()) return skip("the BPF JIT cannot be switched off");
    const auto view = open_view({"kcore"});
    REQUIRE(view);
    const RandomPage own{*view};
    std::mt19937 random{3};
    const auto bad = bad_addresses(*view, own.bytes());
    for (int i = 0; i < 2000; ++i) try_pieces(view->memory(), own, bad, random);
    BpfReader tracepoint{BpfReader::Kind::raw_tracepoint};
    for (int i = 0; i < 2000; ++i) try_pieces(tracepoint, own, bad, random);
}

} // namespace pagesift::live
