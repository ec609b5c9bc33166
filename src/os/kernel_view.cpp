// SPDX-License-Identifier: MIT
#include "os/kernel_view.hpp"

#include "os/bpf_reader.hpp"
#include "os/kcore_reader.hpp"
#include "os/kernel_anchor.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

/// The kernel's own BTF in memory. Mapping it costs nothing, but only newer kernels (6.16) let it
/// be mapped; elsewhere it is read.
class KernelBtf {
public:
    KernelBtf() {
        static constexpr const char* path = "sys/kernel/btf/vmlinux";
        const auto file = own_root().open(path, O_RDONLY);
        struct stat status {};
        if (!file.fd || ::fstat(file.fd.get(), &status) != 0)
            throw Error{ErrorKind::unsupported, path, file.error,
                        "needs a kernel with CONFIG_DEBUG_INFO_BTF"};
        bytes_ = static_cast<std::size_t>(status.st_size);
        map_ = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
        if (map_ == MAP_FAILED) read(file.fd.get());
    }
    ~KernelBtf() {
        if (map_ != MAP_FAILED) ::munmap(map_, bytes_);
    }
    KernelBtf(const KernelBtf&) = delete;
    KernelBtf& operator=(const KernelBtf&) = delete;

    std::span<const std::byte> bytes() const {
        const void* start = map_ == MAP_FAILED ? copy_.get() : map_;
        return {static_cast<const std::byte*>(start), bytes_};
    }

private:
    void read(int fd) {
        copy_ = std::make_unique_for_overwrite<std::byte[]>(bytes_);
        std::size_t done = 0;
        while (done < bytes_) {
            const auto n = ::read(fd, copy_.get() + done, bytes_ - done);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) break;
            done += static_cast<std::size_t>(n);
        }
        bytes_ = done; // a short one is refused by whoever parses it
    }

    void* map_ = MAP_FAILED;
    std::size_t bytes_ = 0;
    std::unique_ptr<std::byte[]> copy_;
};

/// Only in the first PID namespace do the kernel's ids mean to us what they mean to the kernel.
/// Its number is fixed: include/linux/proc_ns.h, PROC_PID_INIT_INO.
bool in_first_pid_namespace() {
    return own_root().read_link("proc/self/ns/pid") == "pid:[4026531836]";
}

/// The address of the own task_struct through kcore. Tried again, because the list of processes may
/// change between the two reads that it takes.
std::uint64_t find_own_task(KcoreReader& reader, const walk::KernelLayout& layout) {
    static constexpr unsigned tries = 5;
    for (unsigned i = 0; i < tries; ++i)
        if (const auto task = find_own_task(reader, layout, reader.own_task())) return *task;
    throw Error{ErrorKind::unsupported, "proc/kcore", 0, "", "the own task was not found"};
}

} // namespace

KernelView::KernelView(Parts parts) : parts_(std::move(parts)) {}
KernelView::~KernelView() = default;

std::uint64_t KernelView::own_task() const {
    // The calling thread's: it cannot end meanwhile.
    return parts_.bpf ? parts_.bpf->caller().task : parts_.task;
}

std::string KernelView::flags_trouble() const {
    if (!flags_checked())
        return "page flags in the kernel's memory could not be compared with kpageflags";
    const auto missing = walk::missing_of_plain_pages(kernel().layout);
    if (missing.empty()) return {};
    return "page flags in the kernel's memory cannot be read: its BTF does not tell " + missing;
}

std::unique_ptr<KernelView> KernelView::clone() const {
    Parts parts;
    if (parts_.bpf) {
        auto reader = parts_.bpf->clone();
        parts.bpf = reader.get();
        parts.memory = std::move(reader);
    } else {
        parts.memory = std::make_unique<KcoreReader>(own_root());
    }
    parts.task = parts_.task;
    parts.kernel = parts_.kernel;
    parts.flags_checked = parts_.flags_checked;
    return std::make_unique<KernelView>(std::move(parts));
}

std::optional<std::uint64_t> KernelView::find_top_table(int pagemap_fd) const {
    const auto& layout = kernel().layout;
    const auto file = find_file(memory(), layout, own_task(), pagemap_fd);
    if (!file) return {};
    const auto mm = walk::mm_of(memory(), layout, *file);
    return mm ? walk::pgd_of(memory(), layout, *mm) : std::nullopt;
}

std::optional<std::uint64_t> KernelView::find_mapping(int fd) const {
    const auto file = find_file(memory(), kernel().layout, own_task(), fd);
    return file ? walk::mapping_of(memory(), kernel().layout, *file) : std::nullopt;
}

namespace {

/// The steps to a view; each throws where it cannot go on. What is dear and may be in vain comes
/// last.
class ViewOpener {
public:
    std::vector<walk::Check> checks;

    std::unique_ptr<KernelView> open_bpf(BpfReader::Kind kind) {
        auto reader = std::make_unique<BpfReader>(kind);
        const auto caller = reader->caller();
        KernelView::Parts parts;
        parts.bpf = reader.get();
        parts.task = caller.task;
        parts.memory = std::move(reader);
        read_layout();
        return finish(std::move(parts), caller.tgid);
    }

    std::unique_ptr<KernelView> open_kcore() {
        auto reader = std::make_unique<KcoreReader>(own_root());
        read_layout();
        KernelView::Parts parts;
        parts.task = find_own_task(*reader, *layout_);
        const auto id = walk::read_word(*reader, parts.task + layout_->task_struct_tgid);
        parts.memory = std::move(reader);
        return finish(std::move(parts), static_cast<std::uint32_t>(id.value_or(0)));
    }

private:
    void read_layout() {
        if (!layout_) layout_ = walk::find_layout(KernelBtf{}.bytes());
    }

    /// @param tgid what the reader says of itself: good where this process sees other numbers
    std::unique_ptr<KernelView> finish(KernelView::Parts parts, std::uint32_t tgid) {
        OwnThings things;
        things.own().task = parts.task;
        things.own().tgid =
            in_first_pid_namespace() ? static_cast<std::uint32_t>(::getpid()) : tgid;
        parts.kernel = find_and_check(*parts.memory, things);
        parts.flags_checked = things.own().page_kpageflags.has_value();
        if (parts.bpf) confine(*parts.bpf, *parts.kernel);
        return std::make_unique<KernelView>(std::move(parts));
    }

    /// All that is walked lies in RAM or is a struct page; tables of more than some thousand open
    /// descriptors do not, and are not found then.
    static void confine(BpfReader& reader, const walk::Kernel& kernel) {
        const auto& bases = kernel.bases;
        reader.confine({bases.direct_map, bases.frame_end * kernel.entries.page_bytes()},
                       {bases.vmemmap, bases.frame_end * kernel.layout.page_bytes});
    }

    /// Tried again, because the kernel may move a page between one look at it and the next.
    std::shared_ptr<const walk::Kernel> find_and_check(walk::KernelMemory& memory,
                                                       OwnThings& things) {
        static constexpr unsigned tries = 3;
        std::optional<Error> refused;
        for (unsigned i = 0; i < tries; ++i) {
            things.read_frames();
            checks.clear();
            refused.reset();
            try {
                auto kernel = walk::find_kernel(memory, *layout_, things.own());
                checks = walk::self_check(memory, kernel, things.own());
                if (!find_failed(things))
                    return std::make_shared<const walk::Kernel>(std::move(kernel));
            } catch (const Error& error) {
                refused = error;
            }
        }
        if (refused) throw Error{*refused};
        const walk::Check& failed = *find_failed(things);
        throw Error{ErrorKind::unsupported, "self-check " + failed.name, 0, "", failed.detail};
    }

    /// The first check that counts and has not passed. Page flags that cannot be compared do not.
    const walk::Check* find_failed(OwnThings& things) const {
        const bool comparable = things.own().page_kpageflags.has_value();
        for (const auto& check : checks)
            if (!check.passed && (check.name != "page-flags" || comparable)) return &check;
        return nullptr;
    }

    std::optional<walk::KernelLayout> layout_;
};

} // namespace

KernelViewResult open_kernel_view(const std::set<std::string>& without) {
    KernelViewResult result;
#ifndef __x86_64__
    result.reason = "the page tables of this architecture are not known to it";
    return result;
#endif
    ViewOpener opener;
    const auto try_way = [&](const char* name, auto&& open) {
        if (result.view || without.contains(name)) return;
        try {
            result.view = open();
        } catch (const Error& error) {
            if (!result.reason.empty()) result.reason += "; ";
            result.reason += error.what();
            if (result.remedy.empty()) result.remedy = error.hint();
        }
        result.checks = std::move(opener.checks);
    };
    const auto kind = without.contains("bpf-syscall") ? BpfReader::Kind::raw_tracepoint
                                                      : BpfReader::Kind::automatic;
    try_way("bpf", [&] { return opener.open_bpf(kind); });
    try_way("kcore", [&] { return opener.open_kcore(); });
    if (result.view)
        result.reason = result.remedy = {};
    else if (result.reason.empty())
        result.reason = "not to be used";
    return result;
}

} // namespace pagesift::os
