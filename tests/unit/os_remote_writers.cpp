// SPDX-License-Identifier: MIT
// What may write to the memory of a process that stands still: told by the names of its open files,
// so that devices that this machine has not can be made up.
#include "error_of.hpp"
#include "os/remote_writers.hpp"
#include "os_fake_root.hpp"

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::os;
using namespace pagesift::test;

namespace {

/// A process that is made up, with plain memory and no files.
class Owner {
public:
    static constexpr std::uint32_t pid = 4711;

    Owner() {
        folder_.process(pid, "00400000-00401000 r-xp 00000000 00:00 0 \n");
        status("VmPin:\t       0 kB\n");
        std::filesystem::create_directories(path("fd"));
    }
    void status(const std::string& more) {
        folder_.write("proc/4711/status", "Name:\ta\nTgid:\t4711\n" + more);
    }
    void maps(const std::string& text) { folder_.write("proc/4711/maps", text); }
    void open(const std::string& name) {
        std::filesystem::create_symlink(name, path("fd/" + std::to_string(next_++)));
    }
    std::string path(const std::string& name) const {
        return folder_.path() + "/proc/4711/" + name;
    }
    std::string writer() const {
        return find_writer(Root{folder_.path()}, pid, {}).value_or("none");
    }
    std::optional<std::string> monitor(std::uint32_t other) const {
        return find_monitor(Root{folder_.path()}, other);
    }

private:
    FakeRoot folder_;
    int next_ = 3;
};

std::string writer_with(const std::string& file) {
    Owner owner;
    owner.open(file);
    return owner.writer();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

} // namespace

TEST_CASE("remote writers: every device that is known to write is called what it is") {
    const std::pair<const char*, const char*> devices[] = {
        {"anon_inode:[io_uring]", "io_uring"},
        {"anon_inode:[userfaultfd]", "userfaultfd"},
        {"/dev/vhost-net", "vhost"},
        {"/dev/vhost-vsock", "vhost"},
        {"/dev/vhost-vdpa-0", "vhost"},
        {"/dev/vfio/vfio", "vfio"},
        {"/dev/vfio/12", "vfio"},
        {"/dev/vfio/devices/vfio0", "vfio"},
        {"/dev/iommu", "iommufd"},
        {"/dev/infiniband/uverbs0", "RDMA"},
        {"/dev/infiniband/rdma_cm", "RDMA"},
        {"/dev/kvm", "KVM"},
        {"anon_inode:kvm-vm", "KVM"},
        {"anon_inode:kvm-vcpu:0", "KVM"},
        {"anon_inode:kvm-gmem", "KVM"},
        {"/dmabuf:", "DMA buffer"},
        {"/dmabuf:heap", "DMA buffer"},
        {"/dev/vhost-net (deleted)", "vhost"},
    };
    for (const auto& [name, words] : devices) {
        const std::string said = writer_with(name);
        CHECK_MESSAGE(has(said, words), name << ": " << said);
    }
}

TEST_CASE("remote writers: what is not known is not called harmless") {
    for (const char* name :
         {"anon_inode:[io_uring2]", "anon_inode:[eventfd", "anon_inode:[eventfd] ",
          "anon_inode:[vfio-device]", "anon_inode:iommufd", "anon_inode:sync_file",
          "anon_inode:[infinibandevent]", "anon_inode:[secretmem]", "anon_inode:"}) {
        const std::string said = writer_with(name);
        CHECK_MESSAGE(has(said, "it is not known whether the kernel writes"), name << ": " << said);
        CHECK(has(said, name));
    }
    // The bytes of a name are foreign.
    CHECK(has(writer_with("anon_inode:\x1b[2J"), "\\"));
    if (std::filesystem::is_character_file("/dev/loop-control"))
        CHECK(has(writer_with("/dev/loop-control"), "it is not known"));
    // A socket of a process that cannot be asked for it.
    Owner owner;
    CHECK(owner.writer() == "none");
}

TEST_CASE("remote writers: plain files, terminals, and the kernel objects of the list are none") {
    for (const char* name : {"anon_inode:[eventfd]",
                             "anon_inode:[eventpoll]",
                             "anon_inode:[signalfd]",
                             "anon_inode:[timerfd]",
                             "anon_inode:inotify",
                             "anon_inode:[fanotify]",
                             "anon_inode:[pidfd]",
                             "anon_inode:bpf-prog",
                             "anon_inode:bpf_link",
                             "anon_inode:btf",
                             "anon_inode:[perf_event]",
                             "anon_inode:landlock-ruleset",
                             "anon_inode:[fscontext]",
                             "anon_inode:[mount_tree]",
                             "anon_inode:seccomp notify",
                             "/dev/null",
                             "/dev/zero",
                             "/dev/urandom",
                             "/proc/self/exe",
                             "/",
                             "/a file that is gone"})
        CHECK_MESSAGE(writer_with(name) == "none", name);
}

TEST_CASE("remote writers: pins, and requests that may be under way") {
    Owner owner;
    owner.status("VmPin:\t     128 kB\n");
    CHECK(has(owner.writer(), "VmPin"));
    owner.status("VmSize:\t     128 kB\n"); // not known is not none
    CHECK(has(owner.writer(), "VmPin"));
    owner.status("VmPin:\t       0 kB\n");
    CHECK(owner.writer() == "none");
    owner.maps("00400000-00401000 r-xp 00000000 00:00 0 \n"
               "7f0000000000-7f0000001000 rw-s 00000000 00:11 9 /[aio] (deleted)\n");
    CHECK(has(owner.writer(), "io_setup"));
}

TEST_CASE("remote writers: what cannot be looked at is an error") {
    Owner owner;
    std::filesystem::remove_all(owner.path("fd"));
    const auto error = error_of([&] { owner.writer(); });
    REQUIRE(error);
    CHECK(error->kind() == ErrorKind::gone);
    std::filesystem::remove(owner.path("status"));
    CHECK(error_of([&] { owner.writer(); }).has_value());
}

TEST_CASE("remote writers: a userfaultfd of any other process may be for this one") {
    Owner owner;
    owner.open("anon_inode:[eventfd]");
    CHECK_FALSE(owner.monitor(1));
    owner.open("anon_inode:[userfaultfd]");
    const auto said = owner.monitor(1);
    REQUIRE(said);
    CHECK(has(*said, "process 4711 has a userfaultfd"));
    CHECK_FALSE(owner.monitor(Owner::pid)); // its own is find_writer's
}
