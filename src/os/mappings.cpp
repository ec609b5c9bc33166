// SPDX-License-Identifier: MIT
#include "os/mappings.hpp"

#include "pagesift/abi.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

procfs::Device device_of_memfd(unsigned flags) {
    const Fd fd{::memfd_create("pagesift", flags | MFD_CLOEXEC)};
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0) return {};
    return {major(status.st_dev), minor(status.st_dev)};
}

/// The same of shared anonymous memory, for where memfd_create(2) is refused.
procfs::Device device_of_shared_memory() {
    const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    void* const at = ::mmap(nullptr, bytes, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return {};
    procfs::Device device;
    procfs::MapsParser parser;
    const auto look = [&](const procfs::MappingText& text) {
        if (text.mapping.range.start.value == reinterpret_cast<std::uintptr_t>(at))
            device = text.mapping.device;
    };
    parser.feed(own_root().read_text("proc/self/maps").text, look);
    parser.finish(look);
    ::munmap(at, bytes);
    return device;
}

/// Names that show_map_vma() prints for mappings without a file.
bool is_nameless(const Mapping& m) { return m.inode == 0 && m.device == procfs::Device{}; }

bool is_kernel_data(const std::string& name) {
    return name.starts_with("[vvar") || name == "[timens]";
}

const std::set<std::string_view>& remote_file_systems() {
    static const std::set<std::string_view> names{"nfs",  "nfs4",   "cifs", "smb3", "9p",
                                                  "ceph", "lustre", "afs",  "gfs2", "ocfs2"};
    return names;
}

Backing backing_of(const Mapping& m, const KernelDevices& devices,
                   const std::map<procfs::Device, std::string>& mounts) {
    if (is_nameless(m))
        return is_kernel_data(m.name) && !devices.shown_data.contains(m.name) ? Backing::special
                                                                              : Backing::anon;
    if (devices.shmem.contains(m.device)) return Backing::shmem;
    if (devices.hugetlb.contains(m.device)) return Backing::hugetlb;
    const auto mount = mounts.find(m.device);
    const std::string type = mount == mounts.end() ? "" : mount->second;
    if (type == "tmpfs") return Backing::shmem;
    if (type == "hugetlbfs") return Backing::hugetlb;
    // A private mapping of /dev/zero is anonymous memory that keeps its name.
    if (m.name == "/dev/zero") return Backing::anon;
    const bool device = type == "devtmpfs" || m.name.starts_with("/dev/") ||
                        m.name.starts_with("anon_inode:") || m.name.starts_with("/dmabuf:");
    return device ? Backing::device : Backing::file;
}

} // namespace

KernelDevices probe_kernel_devices() {
    KernelDevices devices;
    const auto keep = [](std::set<procfs::Device>& set, procfs::Device device) {
        if (device != procfs::Device{}) set.insert(device);
    };
    keep(devices.shmem, device_of_memfd(0));
    if (devices.shmem.empty()) keep(devices.shmem, device_of_shared_memory());
    keep(devices.hugetlb, device_of_memfd(MFD_HUGETLB));
    for (unsigned shift = 14; shift <= 34; ++shift)
        keep(devices.hugetlb, device_of_memfd(MFD_HUGETLB | (shift << 26)));
    procfs::MapsParser parser;
    const auto look = [&](const procfs::MappingText& text) {
        if (is_kernel_data(text.mapping.name) && text.vm_flags &&
            !text.vm_flags->has(procfs::VmFlag::pfnmap))
            devices.shown_data.insert(text.mapping.name);
    };
    const auto smaps = own_root().read_text("proc/self/smaps");
    if (smaps.error != 0 && smaps.error != ENOENT && smaps.error != EACCES)
        throw Error{ErrorKind::failed, "proc/self/smaps", smaps.error};
    parser.feed(smaps.text, look);
    parser.finish(look);
    return devices;
}

std::vector<Mapping> MappingReader::read() const {
    const auto maps = root.open(base + "/maps", O_RDONLY);
    if (!maps.fd) {
        const bool gone = maps.error == ENOENT || maps.error == ESRCH;
        throw Error{gone ? ErrorKind::gone : ErrorKind::denied, "/" + base + "/maps", maps.error,
                    gone ? "" : "needs the target's uid, or CAP_SYS_PTRACE"};
    }
    std::vector<Mapping> mappings;
    if (!procmap_query || !read_by_query(maps.fd.get(), mappings)) {
        mappings.clear();
        read_by_text(maps.fd.get(), mappings);
    }
    find_backings(mappings);
    mappings.shrink_to_fit();
    return mappings;
}

/// Walks the mappings with PROCMAP_QUERY, whose names are unescaped. False: not supported.
bool MappingReader::read_by_query(int maps_fd, std::vector<Mapping>& mappings) const {
    std::array<char, 4096> name;
    std::uint64_t at = 0;
    while (true) {
        abi::procmap_query query{};
        query.size = sizeof query;
        query.query_flags = abi::PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
        query.query_addr = at;
        query.vma_name_addr = reinterpret_cast<std::uintptr_t>(name.data());
        query.vma_name_size = name.size();
        if (::ioctl(maps_fd, abi::PROCMAP_QUERY, &query) != 0) {
            if (errno == EINTR) continue;
            // ENOENT is the end. Another refusal in the middle (a name longer than any path):
            // reading the text starts over, which tells as well if the memory went away.
            return errno == ENOENT;
        }
        if (query.vma_end <= at) return false;
        Mapping m;
        m.range = {Address{std::max(query.vma_start, at)}, Address{query.vma_end}};
        m.readable = (query.vma_flags & abi::PROCMAP_QUERY_VMA_READABLE) != 0;
        m.writable = (query.vma_flags & abi::PROCMAP_QUERY_VMA_WRITABLE) != 0;
        m.executable = (query.vma_flags & abi::PROCMAP_QUERY_VMA_EXECUTABLE) != 0;
        m.shared = (query.vma_flags & abi::PROCMAP_QUERY_VMA_SHARED) != 0;
        m.offset = query.vma_offset;
        m.device = {query.dev_major, query.dev_minor};
        m.inode = query.inode;
        m.page_size = query.vma_page_size;
        if (query.vma_name_size > 1)
            m.name.assign(name.data(), ::strnlen(name.data(), name.size()));
        at = query.vma_end;
        mappings.push_back(std::move(m));
    }
}

void MappingReader::read_by_text(int maps_fd, std::vector<Mapping>& mappings) const {
    procfs::MapsParser parser;
    std::size_t refused = 0;
    const auto keep = [&](procfs::MappingText&& text) {
        if (text.mapping.name == "[vsyscall]") return;
        if (((text.mapping.range.start.value | text.mapping.range.end.value) & (page_size - 1)) !=
            0) {
            ++refused; // no kernel says so
            return;
        }
        Mapping m;
        static_cast<procfs::Mapping&>(m) = std::move(text.mapping);
        m.page_size = page_size;
        mappings.push_back(std::move(m));
    };
    const auto text = read_text(maps_fd);
    parser.feed(text.text, keep);
    parser.finish(keep);
    refused += parser.ignored_lines();
    if (refused != 0)
        gaps.add(
            {"maps", std::nullopt, fmt::format("{} lines could not be read", refused), "", true});
    if (text.error == 0) return;
    if (mappings.empty())
        throw Error{text.error == ESRCH ? ErrorKind::gone : ErrorKind::denied, "/" + base + "/maps",
                    text.error};
    gaps.add({"maps", std::nullopt,
              fmt::format("mappings behind {:x} could not be read ({})",
                          mappings.back().range.end.value, errno_name(text.error)),
              "", true});
}

void MappingReader::find_backings(std::vector<Mapping>& mappings) const {
    const auto mounts = procfs::parse_mountinfo(root.read_text(base + "/mountinfo").text);
    for (Mapping& m : mappings) {
        if (m.page_size == 0) m.page_size = page_size;
        m.backing = backing_of(m, devices, mounts);
        if (m.page_size > page_size) m.backing = Backing::hugetlb;
        const auto mount = mounts.find(m.device);
        m.remote_file =
            m.backing == Backing::file && mount != mounts.end() &&
            (remote_file_systems().contains(mount->second) || mount->second.starts_with("fuse"));
    }
}

void MappingReader::add_smaps(std::vector<Mapping>& mappings) const {
    const auto smaps = root.open(base + "/smaps", O_RDONLY);
    if (!smaps.fd) {
        gaps.add({"smaps", std::nullopt,
                  fmt::format("cannot be read ({})", errno_name(smaps.error)),
                  "the target's uid or CAP_SYS_PTRACE", false});
        return;
    }
    std::size_t next = 0;
    const auto keep = [&](procfs::MappingText&& text) {
        while (next < mappings.size() && mappings[next].range.start < text.mapping.range.start)
            ++next;
        if (next >= mappings.size() || !(mappings[next].range == text.mapping.range)) return;
        Mapping& m = mappings[next];
        if (!text.vm_flags) return; // before 3.8, or cut short
        SmapsFacts facts;
        facts.vm_flags = std::move(*text.vm_flags);
        const auto field = [&](std::string_view key) { return text.fields.find(key); };
        facts.rss_bytes = field("Rss");
        facts.swap_bytes = field("Swap");
        facts.referenced_bytes = field("Referenced");
        facts.ksm_bytes = field("KSM");
        facts.anon_huge_bytes = field("AnonHugePages");
        if (const auto shmem = field("ShmemPmdMapped"))
            facts.shared_huge_bytes = *shmem + field("FilePmdMapped").value_or(0); // 5.4
        if (const auto alone = field("Private_Hugetlb"), common = field("Shared_Hugetlb");
            alone && common)
            facts.hugetlb_bytes = *alone + *common;
        if (const auto size = field("KernelPageSize"); size && *size >= page_size)
            m.page_size = *size;
        m.smaps = std::make_shared<const SmapsFacts>(std::move(facts));
        apply_vm_flags(m);
    };
    procfs::MapsParser parser;
    std::array<char, 32768> buffer;
    while (true) {
        const auto n = ::read(smaps.fd.get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) return parser.finish(keep);
        if (n < 0) {
            // The last mapping may be cut short, so it is not told.
            gaps.add({"smaps", std::nullopt,
                      fmt::format("cannot be read to its end ({})", errno_name(errno)), "", false});
            return;
        }
        parser.feed({buffer.data(), static_cast<std::size_t>(n)}, keep);
    }
}

bool needs_smaps(const Mapping& mapping) {
    return mapping.backing == Backing::device ||
           (mapping.backing == Backing::hugetlb && mapping.shared);
}

void apply_vm_flags(Mapping& mapping) {
    if (!mapping.smaps) return;
    using procfs::VmFlag;
    const auto& flags = mapping.smaps->vm_flags;
    if (flags.has(VmFlag::hugetlb))
        mapping.backing = Backing::hugetlb;
    else if (flags.has(VmFlag::pfnmap))
        mapping.backing = Backing::special;
}

} // namespace pagesift::os
