// SPDX-License-Identifier: MIT
#include "os/file.hpp"
#include "os/frames.hpp"
#include "os/kernel_view.hpp"
#include "os/probe.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

std::string readable(int error) {
    return error == 0 ? "readable" : "cannot be opened: " + errno_name(error);
}

bool has_capability(std::uint64_t set, unsigned bit) { return ((set >> bit) & 1) != 0; }

class Doctor {
public:
    explicit Doctor(const OpenOptions& options)
        : options_(options), root_(options.root), host_(read_host(options)) {}

    Findings examine() {
        privileges();
        reading();
        page_cache();
        meaning();
        tables();
        exact_lens();
        advice();
        settings();
        return {std::move(features_), std::move(self_checks_)};
    }

private:
    void add(std::string name, std::optional<bool> works, std::string detail, std::string unlocks,
             std::string remedy = {}) {
        features_.push_back({std::move(name), works, std::move(detail), std::move(unlocks),
                             works.value_or(false) ? "" : std::move(remedy)});
    }

    /// A probe of this process itself says nothing about a saved tree.
    template <class Probe> std::optional<bool> own(Probe&& probe) {
        if (!root_.live()) return {};
        return probe();
    }

    void privileges() {
        const auto status = procfs::parse_status(root_.read_text("proc/self/status").text);
        const auto caps = status.effective_capabilities.value_or(0);
        const auto cap = [&](const char* name, unsigned bit, const char* unlocks) {
            add(name, own([&] { return has_capability(caps, bit); }),
                has_capability(caps, bit) ? "effective" : "not effective", unlocks,
                "run as root, or with it: setpriv --ambient-caps, AmbientCapabilities in a unit");
        };
        cap("cap-sys-admin", abi::CAP_SYS_ADMIN,
            "frame numbers and swap offsets in the page map, files behind mappings");
        cap("cap-sys-ptrace", abi::CAP_SYS_PTRACE, "processes of other users, page contents");
        cap("cap-checkpoint-restore", abi::CAP_CHECKPOINT_RESTORE,
            "files behind mappings without CAP_SYS_ADMIN");
    }

    void reading() {
        add("pagemap", host_->frames_visible.has_value(), "one entry a page",
            "every state and kind", "mount procfs; CONFIG_PROC_PAGE_MONITOR");
        add("frame-numbers", host_->frames_visible, "frame and swap numbers are not hidden",
            "kinds by page flags, swap offsets, poison markers told from swap", "CAP_SYS_ADMIN");
        const FrameReader frames{root_, true};
        const int flags = frames.flags_error(), counts = frames.counts_error();
        add("kpageflags", flags == 0, readable(flags), "KSM, large folios, huge pages, page flags",
            "root, or CAP_DAC_READ_SEARCH");
        add("kpagecount", counts == 0, readable(counts),
            "sharers of KSM pages, proportional set size", "root, or CAP_DAC_READ_SEARCH");
        const bool scan = root_.live() && probe_pagemap_scan(abi::PAGE_IS_PRESENT);
        add("pagemap-scan", own([&] { return scan; }), "ioctl PAGEMAP_SCAN",
            "sparse mappings at once; the zero page without privileges", "Linux 6.7 or newer");
        add("pagemap-scan-guard", own([] { return probe_pagemap_scan(abi::PAGE_IS_GUARD); }),
            "category PAGE_IS_GUARD", "guard regions without privileges", "Linux 6.16 or newer");
        add("procmap-query", own(probe_procmap_query), "ioctl PROCMAP_QUERY",
            "mapping names as they are, page sizes without smaps", "Linux 6.11 or newer");
        add("contents", own([] { return can_read_contents(); }), "process_vm_readv",
            "zero-filled pages (--zero)", "CONFIG_CROSS_MEMORY_ATTACH; no seccomp filter on it");
    }

    void page_cache() {
        const auto links = root_.list("proc/self/map_files");
        const int error = links.empty()
                              ? ENOENT
                              : root_.open("proc/self/map_files/" + links.front(), O_PATH).error;
        add("map-files", error == 0, readable(error),
            "swapped, cached and missing pages of shared memory and files",
            "CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE");
        add("cachestat", own(host_has_cachestat), "system call cachestat(2)",
            "swapped shared memory, exact for each page", "Linux 6.5 or newer");
    }

    void meaning() {
        add("soft-dirty", host_->soft_dirty, "bit 55 of the page map", "attribute soft-dirty",
            "CONFIG_MEM_SOFT_DIRTY (not on arm64)");
        add("ksm-flag", host_->ksm_flag_true,
            host_->ksm_flag_true.value_or(true)
                ? "KPF_KSM is set on KSM pages only"
                : "this kernel sets KPF_KSM on every anonymous page",
            "KSM kinds of each page", "a kernel with the fix (6.18.44, 7.2)");
        const auto ksm = root_.read_text("proc/self/ksm_stat");
        add("ksm-stat", ksm.error == 0, readable(ksm.error), "KSM figures of a process",
            "Linux 6.1 or newer with CONFIG_KSM");
        const bool idle = root_.open("sys/kernel/mm/page_idle/bitmap", O_RDONLY).error == 0;
        add("idle-bitmap", idle, "sys/kernel/mm/page_idle/bitmap", "age of single pages",
            "CONFIG_IDLE_PAGE_TRACKING");
    }

    void tables() {
        add("empty-tables-located", host_->tables_located,
            "PAGE_IS_WRITTEN tells an empty table from none", "where empty page tables are",
            "their number is known all the same, from VmPTE");
        add("pt-reclaim", own([&] { return probe_pt_reclaim(*host_).value_or(false); }),
            "MADV_DONTNEED of a whole slot frees its empty table", "giving empty page tables back",
            "Linux 6.14 or newer with CONFIG_PT_RECLAIM");
    }

    void exact_lens() {
        static constexpr const char* name = "exact-lens";
        static constexpr const char* unlocks =
            "where empty page tables are, swap offsets of shared memory; --zero without a trace";
        if (!root_.live()) return add(name, {}, "", unlocks);
        auto result = open_kernel_view(options_.without);
        for (auto& check : result.checks)
            self_checks_.push_back({std::move(check.name), check.passed, std::move(check.detail)});
        if (!result.view) return add(name, false, result.reason, unlocks, lens_remedy(result));
        std::string detail = result.view->way() == KernelView::Way::bpf
                                 ? "reads the kernel's memory with eBPF"
                                 : "reads the kernel's memory through proc/kcore";
        if (const auto trouble = result.view->flags_trouble(); !trouble.empty())
            detail += "; " + trouble;
        add(name, true, std::move(detail), unlocks);
    }

    static std::string lens_remedy(const KernelViewResult& result) {
        if (!result.remedy.empty()) return result.remedy;
        return "CAP_BPF and CAP_PERFMON, with CAP_SYS_ADMIN for frames; a kernel with BTF; no "
               "lockdown=confidentiality";
    }

    void advice() {
        add("guard-regions", own([] { return probe_advice(abi::advice::guard_install); }),
            "MADV_GUARD_INSTALL", "programs may have guard markers", "Linux 6.13 or newer");
        struct Advice {
            const char* name;
            int value;
            const char* detail;
            const char* unlocks;
            const char* remedy;
        };
        static constexpr Advice all[] = {
            {"advice-cold", abi::advice::cold, "process_madvise(MADV_COLD)",
             "telling the kernel which pages of another process to take first",
             "Linux 5.10 or newer; CAP_SYS_NICE, and the right to trace the process"},
            {"advice-pageout", abi::advice::pageout, "process_madvise(MADV_PAGEOUT)",
             "paging out cold pages of another process",
             "Linux 5.10 or newer; CAP_SYS_NICE, and the right to trace the process"},
            {"advice-willneed", abi::advice::willneed, "process_madvise(MADV_WILLNEED)",
             "reading swapped pages of another process in",
             "Linux 5.13 or newer; CAP_SYS_NICE, and the right to trace the process"},
            {"advice-collapse", abi::advice::collapse, "process_madvise(MADV_COLLAPSE)",
             "huge pages for ranges of another process", "Linux 6.1 or newer"},
        };
        static constexpr std::uint64_t largest_slot = std::uint64_t{64} << 20;
        for (const Advice& one : all) {
            const bool huge = one.value == abi::advice::collapse;
            const std::uint64_t bytes = huge ? host_->slot_bytes() : host_->page_size;
            const auto taken = own([&] {
                return bytes > largest_slot ? std::nullopt : probe_remote_advice(one.value, bytes);
            });
            add(one.name, taken, one.detail, one.unlocks, one.remedy);
        }
    }

    void settings() {
        const auto setting = [&](const char* name) {
            const auto found = host_->settings.find(name);
            return found == host_->settings.end() ? std::string{"not there"} : found->second;
        };
        add("ksm-running", setting("ksm/run") == "1",
            fmt::format("run {}, use_zero_pages {}", setting("ksm/run"),
                        setting("ksm/use_zero_pages")),
            "merging equal pages", "echo 1 > /sys/kernel/mm/ksm/run");
        add("swap", !host_->swaps.empty(), fmt::format("{} areas", host_->swaps.size()),
            "paging cold memory out", "swapon, or zram");
        add("thp", setting("thp/enabled") != "never" && setting("thp/enabled") != "not there",
            "enabled " + setting("thp/enabled"), "huge pages for anonymous memory",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
    }

    static bool can_read_contents() {
        char from = 7, to = 0;
        const iovec local{&to, 1}, remote{&from, 1};
        return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) == 1 && to == 7;
    }

    OpenOptions options_;
    Root root_;
    std::shared_ptr<const HostFacts> host_;
    std::vector<Feature> features_;
    std::vector<SelfCheck> self_checks_;
};

} // namespace

Findings probe_features(const OpenOptions& options) { return Doctor{options}.examine(); }

} // namespace pagesift::os
