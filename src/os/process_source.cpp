// SPDX-License-Identifier: MIT
#include "os/process_source.hpp"

#include "os/probe.hpp"
#include "os/scan.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <utility>

namespace pagesift::os {
namespace {

// One read of the page map: large enough to hide the call, small enough for a core's cache.
constexpr std::size_t most_pages = 65536;
constexpr std::size_t pages_behind_a_gap = 512;

bool is_none(std::uint64_t entry) { return (entry & (abi::PM_PRESENT | abi::PM_SWAP)) == 0; }

} // namespace

ProcessSource::ProcessSource(std::uint32_t pid, const Machine& machine, const OpenOptions& options)
    : options_(options),
      root_(options.root),
      pid_(pid),
      base_(fmt::format("proc/{}", pid)),
      host_(machine.host),
      exact_(machine.exact),
      frames_(root_, uses("kpageflags")),
      scan_works_(root_.live() && uses("pagemap-scan") && host_has_pagemap_scan()),
      mends_ksm_flag_(machine.ksm_flag_mended) {
    choose_base();
    open_pagemap();
    for (const Gap& gap : machine.gaps) gaps_.add(gap);
    if (exact_) find_top_table();
    if (exact_)
        exact_pages_.emplace(*exact_, top_table_, pagemap_.get(), frames_,
                             ExactPages::Kernel{host_->soft_dirty.value_or(true), mends_ksm_flag_});
    if (exact_pages_) neighbours_.emplace(*exact_pages_, *host_);
    CacheMethods methods;
    methods.exact = exact_.get();
    methods.cachestat = uses("cachestat") && host_has_cachestat();
    methods.swap_cache_lingers =
        std::any_of(host_->swaps.begin(), host_->swaps.end(), [](const procfs::SwapArea& area) {
            return !area.name.starts_with("/dev/zram");
        });
    cache_.emplace(root_, base_, pagemap_.get(), methods, host_->page_size, gaps_);
    contents_.emplace(root_, base_, pid, pagemap_.get(), host_->page_size, exact_.get(), gaps_);
    if (frames_.flags_error() != 0)
        gaps_.add({"kpageflags", std::nullopt,
                   fmt::format("KSM, large folios, huge pages and page flags cannot be told ({})",
                               errno_name(frames_.flags_error())),
                   "root, or CAP_DAC_READ_SEARCH", false});
    else if (frames_.counts_error() != 0)
        gaps_.add({"kpagecount", std::nullopt,
                   fmt::format("how many share a page cannot be told ({})",
                               errno_name(frames_.counts_error())),
                   "root, or CAP_DAC_READ_SEARCH", false});
}

/// The leader's files are empty once it has exited, whatever its other threads do; each thread's
/// own folder below /proc still shows their common memory.
void ProcessSource::choose_base() {
    auto stat = root_.read_text(base_ + "/stat");
    if (stat.error != 0)
        throw Error{stat.error == ENOENT || stat.error == ESRCH ? ErrorKind::gone
                                                                : ErrorKind::denied,
                    fmt::format("pid {}", pid_), 0,
                    stat.error == ENOENT && root_.live() && proc_hides_processes()
                        ? "or /proc hides it (mount option hidepid), and it takes root to see it"
                        : "",
                    stat.error == ENOENT ? "no such process" : "stat: " + errno_name(stat.error)};
    stat_ = std::move(stat.text);
    start_time_ = procfs::parse_start_time(stat_).value_or(0);
    status_ = root_.read_text(base_ + "/status").text;
    const auto status = procfs::parse_status(status_);
    if (status.tgid && *status.tgid != pid_)
        throw Error{ErrorKind::gone, fmt::format("pid {}", pid_), 0,
                    fmt::format("it is a thread of pid {}", *status.tgid), "not a process"};
    if (status.has_memory()) return;
    for (const auto& thread : root_.list(base_ + "/task")) {
        const std::string other = "proc/" + thread;
        status_ = root_.read_text(other + "/status").text;
        if (procfs::parse_status(status_).has_memory()) {
            base_ = other;
            return;
        }
    }
    if (status.state == 'Z' || status.state == 'X')
        throw Error{ErrorKind::gone, fmt::format("pid {}", pid_), 0, "",
                    "a zombie: it has exited and its memory is gone"};
    throw Error{ErrorKind::unsupported, fmt::format("pid {}", pid_), 0, "",
                "a kernel thread: it has no address space of its own"};
}

void ProcessSource::open_pagemap() {
    auto opened = root_.open(base_ + "/pagemap", O_RDONLY);
    if (!opened.fd) {
        const bool gone = opened.error == ENOENT || opened.error == ESRCH;
        throw Error{
            gone ? ErrorKind::gone : ErrorKind::denied, "/" + base_ + "/pagemap", opened.error,
            gone ? "" : "needs the target's uid, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"};
    }
    pagemap_ = std::move(opened.fd);
}

/// The process as the kernel's memory has it. Without that the exact lens says nothing of it.
void ProcessSource::find_top_table() {
    try {
        const auto top = exact_->lease()->find_top_table(pagemap_.get());
        if (!top) return use_proc_lens("the process' page tables were not found for certain");
        top_table_ = *top;
    } catch (const Error& error) {
        use_proc_lens(error.what());
    }
}

void ProcessSource::use_proc_lens(const std::string& reason) {
    if (options_.lens == OpenOptions::Lens::exact)
        throw Error{ErrorKind::unsupported, fmt::format("pid {}", pid_), 0, "--lens auto", reason};
    exact_.reset();
    auto host = std::make_shared<HostFacts>(*host_);
    host->lens = "proc";
    if (mends_ksm_flag_) host->ksm_flag_true = false;
    mends_ksm_flag_ = false;
    host->tables_located = uses("pagemap-scan") ? probe_located_tables(*host) : std::nullopt;
    host_ = std::move(host);
    gaps_.add({"exact lens", std::nullopt, reason, "", false});
}

ProcessText ProcessSource::process() {
    ProcessText text;
    text.pid = pid_;
    text.stat = stat_;
    // What was read to open the process serves once; a second look is for what has changed.
    text.status = status_.empty() ? root_.read_text(base_ + "/status").text
                                  : std::exchange(status_, std::string{});
    if (!about_) about_ = read_about();
    text.comm = about_->comm;
    text.exe = about_->exe;
    text.ksm_stat = about_->ksm_stat;
    return text;
}

ProcessSource::About ProcessSource::read_about() const {
    About about;
    about.comm = root_.read_text(fmt::format("proc/{}/comm", pid_)).text;
    if (about.comm.ends_with('\n')) about.comm.pop_back();
    about.exe = root_.read_link(base_ + "/exe");
    const auto ksm = root_.read_text(base_ + "/ksm_stat");
    about.ksm_stat = ksm.text;
    if (ksm.error != 0)
        gaps_.add(
            {"ksm_stat", std::nullopt,
             fmt::format("KSM figures of the process are missing ({})", errno_name(ksm.error)),
             ksm.error == EACCES ? "the target's uid or root" : "", false});
    return about;
}

std::vector<Mapping> ProcessSource::mappings(const Want& want) {
    static const KernelDevices devices = probe_kernel_devices();
    const MappingReader reader{
        root_, base_, host_->page_size, devices, root_.live() && uses("procmap-query"), gaps_};
    auto mappings = reader.read();
    if (mappings.empty()) {
        if (!is_same_process())
            throw Error{ErrorKind::gone, fmt::format("pid {}", pid_), 0, "",
                        "the process has ended"};
        // Nobody lives without any.
        gaps_.add(
            {"maps", std::nullopt, "the process replaced its memory while it was read", "", true});
    }
    using Smaps = OpenOptions::Smaps;
    // Contents must not be read in the process without knowing of userfaultfd; before cachestat,
    // smaps Swap is the only certain word on swapped shared memory that /proc has.
    const bool flags_wanted = want.zero != ZeroTest::off && !exact_;
    const bool shmem_by_mincore =
        want.cache && !exact_ && !(host_has_cachestat() && uses("cachestat"));
    // Where pages do not tell, smaps says how many of a mapping are merged, or mapped by huge
    // entries.
    const bool ksm_by_smaps = want.frames && host_->ksm_flag_true == false;
    const bool huge_by_smaps = want.frames && !scan_works_;
    const bool needed = flags_wanted || shmem_by_mincore || ksm_by_smaps || huge_by_smaps ||
                        std::any_of(mappings.begin(), mappings.end(), needs_smaps);
    if (options_.smaps == Smaps::on || (options_.smaps == Smaps::automatic && needed))
        reader.add_smaps(mappings);
    if (neighbours_) neighbours_->plan(mappings);
    return mappings;
}

void ProcessSource::read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                               PageBlock& block) {
    block.clear();
    if (mapping.backing == Backing::special) {
        gaps_.add({"pagemap", mapping.range,
                   "entries of mappings without struct pages (VM_PFNMAP) are hidden; all "
                   "their pages are taken as present",
                   "", false});
        block.range = wanted;
        block.uniform = true;
        block.entries.assign(1, 0);
        return;
    }
    const std::uint64_t pages = wanted.size().value / host_->page_size;
    const std::uint64_t n = std::min<std::uint64_t>(pages, block.appetite);
    block.appetite = std::min(block.appetite * 2, most_pages);
    const AddressRange part{wanted.start, wanted.start + Bytes{n * host_->page_size}};
    const bool exactly = want.frames && read_exactly(mapping, part, block);
    if (!exactly) read_entries(mapping, part, block);
    if (block.range.empty()) return;
    if (std::all_of(block.entries.begin(), block.entries.end(), is_none)) {
        leap(wanted, block);
        block.appetite = pages_behind_a_gap;
    }
    if (want.cache) add_cache(mapping, block);
    if (block.uniform) return;
    if (want.frames && !exactly) {
        const int error = frames_.read(block);
        if (error != 0)
            gaps_.add(
                {"kpageflags", mapping.range,
                 fmt::format("page flags or map counts could not be read ({})", errno_name(error)),
                 "", false});
        if (error == ENODATA) { // then no kind of it is certain
            block.flags.clear();
            block.folio_orders.clear();
        }
        if (mends_ksm_flag_) exact_pages_->mend_ksm_flags(block);
        if (block.flags.empty())
            add_scan_columns(block);
        else
            add_huge(block);
        if (exact_) add_entry_bits(block);
    }
    if (want.zero != ZeroTest::off) add_contents(mapping, want, block);
}

void ProcessSource::add_cache(const Mapping& mapping, PageBlock& block) {
    // Of many mappings all pages are mapped; to open their files would cost more than to read them.
    if (std::none_of(block.entries.begin(), block.entries.end(), is_none)) return;
    if (mapping.backing == Backing::hugetlb) {
        cache_->read_huge(mapping, block);
        return;
    }
    if (mapping.backing != Backing::file && mapping.backing != Backing::shmem) return;
    if (mapping.remote_file) {
        gaps_.add({"page cache", mapping.range,
                   "files of network and user-space file systems are not asked", "", false});
        return;
    }
    cache_->read(mapping, block);
    if (block.uniform && block.cache[0] == Cache::not_asked) {
        block.uniform = false;
        block.entries.assign(block.range.size().value / host_->page_size, block.entries[0]);
        cache_->read(mapping, block);
    }
}

void ProcessSource::add_contents(const Mapping& mapping, const Want& want, PageBlock& block) {
    using procfs::VmFlag;
    // Through the kernel's own memory nothing can fault, and nothing waits for a monitor. What a
    // device's driver maps is left alone all the same.
    if (exact_ && !mapping.smaps && mapping.backing != Backing::device)
        return contents_->read(mapping, want, block);
    if (!mapping.smaps) {
        gaps_.add({"contents", mapping.range,
                   "contents are not read where smaps did not show the mapping's flags", "",
                   false});
        return;
    }
    const procfs::VmFlags& flags = mapping.smaps->vm_flags;
    if (flags.has(VmFlag::io)) { // nobody may read these (mm/gup.c:check_vma_flags)
        gaps_.add(
            {"contents", mapping.range, "memory of a device or of the kernel (VM_IO)", "", false});
        return;
    }
    if (!exact_ && (flags.has(VmFlag::uffd_missing) || flags.has(VmFlag::uffd_minor))) {
        gaps_.add({"contents", mapping.range,
                   "registered with userfaultfd: a read could wait for its monitor for ever", "",
                   false});
    } else if (!flags.has(VmFlag::pfnmap) && !flags.has(VmFlag::io)) {
        contents_->read(mapping, want, block);
    }
}

void ProcessSource::read_entries(const Mapping& mapping, AddressRange wanted, PageBlock& block) {
    const std::uint64_t pages = wanted.size().value / host_->page_size;
    block.entries.resize(pages);
    const auto n = read_words(pagemap_.get(), wanted.start.value / host_->page_size, block.entries);
    block.entries.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    block.range = {wanted.start, wanted.start + Bytes{block.entries.size() * host_->page_size}};
    if (n <= 0) report_end({wanted.start, mapping.range.end}, n);
}

/// @param answer of read_words: 0, or less for an error
void ProcessSource::report_end(AddressRange rest, std::int64_t answer) {
    // A read of 0 below the end of the address space: the memory went away, by exit or exec.
    gaps_.add({"pagemap", rest,
               answer == 0
                   ? "the process ended or replaced its memory while it was read"
                   : fmt::format("cannot be read ({})", errno_name(static_cast<int>(-answer))),
               "", true});
}

/// Entries and frames from the kernel's memory, where that is at hand and knows all of them.
bool ProcessSource::read_exactly(const Mapping& mapping, AddressRange wanted, PageBlock& block) {
    if (!Neighbours::are_plain(mapping.backing) || !exact_pages_ || !exact_pages_->works())
        return false;
    block.range = wanted;
    try {
        if (neighbours_->read(block) || (exact_pages_->works() && exact_pages_->read(block))) {
            // The tables of a process that has ended are empty. pagemap tells.
            std::uint64_t word = 0;
            if (!std::all_of(block.entries.begin(), block.entries.end(), is_none)) return true;
            const auto n =
                read_words(pagemap_.get(), wanted.start.value / host_->page_size, {&word, 1});
            if (n > 0) return true;
            block.clear();
            report_end({wanted.start, mapping.range.end}, n);
            return true;
        }
    } catch (const Error& error) {
        gaps_.add({"page tables", std::nullopt, error.what(), "", false});
    }
    if (!exact_pages_->works())
        gaps_.add({"page frames", std::nullopt,
                   "flags in the kernel's memory are not those of kpageflags, which was used", "",
                   false});
    block.clear();
    return false;
}

/// All entries of the block are none: makes it uniform and stretches it to the next entry that is
/// not, without reading what lies between.
void ProcessSource::leap(AddressRange wanted, PageBlock& block) const {
    // Soft-dirty may differ from page to page; it says nothing about a page that is not there.
    block.entries.resize(1);
    block.uniform = true;
    if (block.range.end == wanted.end || !scan_works_) return;
    if (const auto next = next_populated(pagemap_.get(), {block.range.end, wanted.end}))
        block.range.end = *next;
}

/// What pagemap leaves out of the entries.
void ProcessSource::add_entry_bits(PageBlock& block) {
    block.entry_bits.resize(block.entries.size());
    try {
        read_entry_bits(*exact_->lease(), top_table_, block.range, block.entries, block.entry_bits);
    } catch (const Error& error) {
        block.entry_bits.clear();
        gaps_.add({"page tables", std::nullopt, error.what(), "", false});
    }
}

/// Which pages are mapped by a huge entry; asked only where a folio is large enough.
void ProcessSource::add_huge(PageBlock& block) const {
    if (!scan_works_ || block.folio_orders.empty()) return;
    unsigned table_order = 0;
    while ((std::uint64_t{1} << table_order) < host_->entries_per_table()) ++table_order;
    const bool candidate =
        std::any_of(block.folio_orders.begin(), block.folio_orders.end(), [&](std::uint8_t order) {
            return order != PageBlock::unknown_order && order >= table_order;
        });
    block.pmd_mapped.assign(block.entries.size(), 0);
    if (!candidate) return;
    const ScanQuery query{0, abi::PAGE_IS_HUGE, 0, abi::PAGE_IS_HUGE};
    const int error = scan_pagemap(pagemap_.get(), block.range, query, [&](const auto& region) {
        const std::uint64_t first = (region.start - block.range.start.value) / host_->page_size;
        const std::uint64_t n = (region.end - region.start) / host_->page_size;
        std::fill_n(block.pmd_mapped.begin() + static_cast<std::ptrdiff_t>(first), n, 1);
        return true;
    });
    if (error != 0) block.pmd_mapped.clear();
}

/// Without kpageflags, PAGEMAP_SCAN still tells the zero page and huge entries, to anyone who may
/// read the page map.
void ProcessSource::add_scan_columns(PageBlock& block) const {
    if (!scan_works_) return;
    block.pmd_mapped.assign(block.entries.size(), 0);
    block.zero_page.assign(block.entries.size(), 0);
    const std::uint64_t both = abi::PAGE_IS_HUGE | abi::PAGE_IS_PFNZERO;
    const ScanQuery query{0, 0, both, both};
    const int error = scan_pagemap(pagemap_.get(), block.range, query, [&](const auto& region) {
        for (std::uint64_t at = region.start; at < region.end; at += host_->page_size) {
            const auto i = (at - block.range.start.value) / host_->page_size;
            block.pmd_mapped[i] = (region.categories & abi::PAGE_IS_HUGE) != 0;
            block.zero_page[i] = (region.categories & abi::PAGE_IS_PFNZERO) != 0;
        }
        return true;
    });
    if (error != 0) {
        block.pmd_mapped.clear();
        block.zero_page.clear();
    }
}

std::optional<std::vector<AddressRange>>
ProcessSource::walk_for_tables(std::span<const AddressRange> ranges) {
    try {
        auto found = locate_empty_tables(*exact_->lease(), top_table_, ranges);
        for (const AddressRange& range : found.unknown)
            gaps_.add({"page tables", range, "changed at every look", "", false});
        return std::move(found.empty);
    } catch (const Error& error) {
        gaps_.add({"page tables", std::nullopt, error.what(), "", false});
        return {};
    }
}

std::optional<std::vector<AddressRange>>
ProcessSource::locate_tables(std::span<const AddressRange> ranges) {
    if (exact_) return walk_for_tables(ranges);
    if (!scan_works_ || !host_->tables_located.value_or(false)) return {};
    const ScanQuery query{0, abi::PAGE_IS_WRITTEN, 0, abi::PAGE_IS_WRITTEN};
    std::vector<AddressRange> found;
    for (const AddressRange& range : ranges) {
        const int error = scan_pagemap(pagemap_.get(), range, query, [&](const auto& region) {
            const AddressRange part{Address{region.start}, Address{region.end}};
            if (!found.empty() && found.back().end == part.start)
                found.back().end = part.end;
            else
                found.push_back(part);
            return true;
        });
        if (error != 0) return {};
    }
    return found;
}

bool ProcessSource::is_same_process() const {
    const auto stat = root_.read_text(fmt::format("proc/{}/stat", pid_));
    return stat.error == 0 && procfs::parse_start_time(stat.text).value_or(0) == start_time_;
}

void ProcessSource::forget_read_ahead() {
    if (neighbours_) neighbours_->forget();
}

std::vector<Gap> ProcessSource::gaps() const {
    if (!is_same_process())
        gaps_.add({"process", std::nullopt, "the process ended while it was read", "", true});
    return gaps_.list();
}

std::unique_ptr<Source> open_process(std::uint32_t pid, const Machine& machine,
                                     const OpenOptions& options) {
    return std::make_unique<ProcessSource>(pid, machine, options);
}

} // namespace pagesift::os
