// SPDX-License-Identifier: MIT
#include "os/page_cache.hpp"

#include "os/scan.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

std::optional<abi::cachestat> ask_cachestat(int fd, std::uint64_t offset, std::uint64_t length) {
    abi::cachestat_range range{offset, length};
    abi::cachestat answer{};
    if (::syscall(abi::NR_cachestat, fd, &range, &answer, 0u) != 0) return {};
    return answer;
}

bool is_none(std::uint64_t entry) { return (entry & (abi::PM_PRESENT | abi::PM_SWAP)) == 0; }

/// Only regular files are opened for reading: opening a device would run its driver.
bool is_regular(int path_fd) {
    struct stat status {};
    return ::fstat(path_fd, &status) == 0 && S_ISREG(status.st_mode);
}

bool is_same_file(int fd, const Mapping& mapping) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 && status.st_ino == mapping.inode &&
           major(status.st_dev) == mapping.device.major &&
           minor(status.st_dev) == mapping.device.minor;
}

/// As mm/mincore.c:can_do_mincore decides; a caller that may not is told "resident" for all pages.
bool may_ask_mincore(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return false;
    if (status.st_uid == ::geteuid()) return true;
    return ::faccessat(fd, "", W_OK, AT_EACCESS | AT_EMPTY_PATH) == 0;
}

/// fs/proc/base.c: proc_map_files_lookup asks for PTRACE_MODE_READ (EACCES, as the folder itself
/// does), proc_map_files_get_link for a capability (EPERM).
const char* remedy_of(int error) {
    return error == EACCES ? "the target's uid, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
                           : "CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE";
}

/// Swap of the mapping that begins at @p start, from this process's own smaps. The kernel answers
/// for a mapping of a whole shmem file from one counter (fs/proc, mm/shmem.c:shmem_swap_usage).
std::optional<std::uint64_t> own_swap_bytes(std::uint64_t start) {
    std::optional<std::uint64_t> swap;
    const auto keep = [&](procfs::MappingText&& text) {
        // The view may have merged with a neighbour: then the figure is not its own.
        if (text.mapping.range.start.value == start) swap = text.fields.find("Swap");
    };
    procfs::MapsParser parser;
    parser.feed(own_root().read_text("proc/self/smaps").text, keep);
    parser.finish(keep);
    return swap;
}

} // namespace

MappedFile::~MappedFile() {
    if (view) ::munmap(view, view_bytes);
}

PageCache::PageCache(const Root& root, std::string base, int pagemap_fd, CacheMethods methods,
                     std::uint64_t page_size, GapLog& gaps)
    : root_(root),
      base_(std::move(base)),
      pagemap_fd_(pagemap_fd),
      methods_(methods),
      page_size_(page_size),
      gaps_(gaps) {}

std::shared_ptr<MappedFile> PageCache::file(const Mapping& mapping) {
    static constexpr std::size_t most_open = 16;
    const std::lock_guard lock{mutex_};
    auto& entry = files_[mapping.range.start.value];
    if (!entry) entry = open(mapping);
    auto kept = entry;
    while (files_.size() > most_open)
        files_.erase(files_.begin()->second == kept ? std::next(files_.begin()) : files_.begin());
    return kept;
}

std::shared_ptr<MappedFile> PageCache::open(const Mapping& mapping) const {
    auto found = std::make_shared<MappedFile>();
    const auto take = [&](const std::string& path, bool check) {
        auto handle = root_.open(path, O_PATH);
        if (!handle.fd) {
            if (found->error == 0) found->error = handle.error;
            return false;
        }
        if (!is_regular(handle.fd.get()) || (check && !is_same_file(handle.fd.get(), mapping)))
            return false;
        struct statfs file_system {};
        if (::fstatfs(handle.fd.get(), &file_system) != 0) {
            if (found->error == 0) found->error = errno;
            return false;
        }
        found->shmem = static_cast<std::uint64_t>(file_system.f_type) == abi::TMPFS_MAGIC;
        if (found->shmem) find_tree(handle.fd.get(), *found);
        // NONBLOCK: an open that would break somebody's lease is refused instead.
        auto opened =
            own_root().open(fmt::format("proc/self/fd/{}", handle.fd.get()), O_RDONLY | O_NONBLOCK);
        found->fd = std::move(opened.fd);
        found->error = found->tree ? 0 : opened.error;
        if (!found->fd) {
            found->path = std::move(handle.fd);
            return found->tree.has_value();
        }
        found->may_mincore = may_ask_mincore(found->fd.get());
        void* view = ::mmap(nullptr, mapping.range.size().value, PROT_NONE, MAP_SHARED,
                            found->fd.get(), static_cast<off_t>(mapping.offset));
        if (view != MAP_FAILED) {
            found->view = view;
            found->view_bytes = mapping.range.size().value;
            found->first_page = mapping.offset / page_size_;
        }
        if (found->shmem && !found->tree) judge_rest(mapping, *found);
        return true;
    };
    const auto link = fmt::format("{}/map_files/{:x}-{:x}", base_, mapping.range.start.value,
                                  mapping.range.end.value);
    if (take(link, false)) return found;
    // Without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE map_files stays closed; the same file may
    // be reachable by its name or through one of the target's descriptors.
    const int refused = found->error;
    if (mapping.name.starts_with('/') && take(base_ + "/root" + mapping.name, true)) return found;
    for (const auto& name : root_.list(base_ + "/fd"))
        if (take(base_ + "/fd/" + name, true)) return found;
    found->error = refused != 0 ? refused : ENOENT;
    return found;
}

/// A shmem file's blocks are its pages in memory and in swap; how many are in swap, a mapping of
/// the whole of it tells. When none are, or when all the others are mapped by the target, what has
/// data and no entry needs no further question. Worth it for many pages only.
void PageCache::judge_rest(const Mapping& mapping, MappedFile& file) const {
    static constexpr std::uint64_t worth_bytes = 16 << 20;
    struct stat status {};
    if (mapping.range.size().value < worth_bytes || !mapping.shared || mapping.offset != 0 ||
        !file.view || ::fstat(file.fd.get(), &status) != 0 || status.st_blocks < 0 ||
        static_cast<std::uint64_t>(status.st_size) > mapping.range.size().value)
        return;
    const auto swap = own_swap_bytes(reinterpret_cast<std::uintptr_t>(file.view));
    if (!swap) return;
    if (*swap == 0) {
        file.rest = Cache::cached;
        return;
    }
    std::uint64_t mapped = 0;
    const ScanQuery present{0, abi::PAGE_IS_PRESENT, 0, abi::PAGE_IS_PRESENT};
    const int error = scan_pagemap(pagemap_fd_, mapping.range, present, [&](const auto& region) {
        mapped += region.end - region.start;
        return true;
    });
    if (error == 0 && mapped + *swap == static_cast<std::uint64_t>(status.st_blocks) * 512)
        file.rest = Cache::absent;
}

void PageCache::read(const Mapping& mapping, PageBlock& block) {
    const std::uint64_t first =
        (mapping.offset + (block.range.start - mapping.range.start).value) / page_size_;
    const auto opened = file(mapping);
    const bool usable = opened->error == 0 && (opened->fd || opened->tree);
    if (!usable)
        gaps_.add({"map_files", mapping.range,
                   fmt::format("the page cache behind the mapping cannot be asked ({})",
                               errno_name(opened->error)),
                   remedy_of(opened->error), false});
    if (block.uniform) {
        if (!is_none(block.entries[0])) return;
        std::uint64_t pages = block.range.size().value / page_size_;
        const Cache answer = usable ? uniform_answer(*opened, first, pages) : Cache::unknown;
        block.cache.assign(1, answer);
        block.range.end = block.range.start + Bytes{pages * page_size_};
        return;
    }
    block.cache.assign(block.entries.size(), Cache::not_asked);
    if (opened->tree) walk_tree(mapping, *opened, first, block);
    const auto is_open = [&](std::size_t i) {
        return is_none(block.entries[i]) && block.cache[i] == Cache::not_asked;
    };
    for (std::size_t i = 0; i < block.entries.size();) {
        if (!is_open(i)) {
            ++i;
            continue;
        }
        std::size_t end = i;
        while (end < block.entries.size() && is_open(end)) ++end;
        const auto out = std::span{block.cache}.subspan(i, end - i);
        if (usable && opened->fd)
            fill(mapping, *opened, first + i, out);
        else
            std::fill(out.begin(), out.end(), Cache::unknown);
        i = end;
    }
}

void PageCache::read_huge(const Mapping& mapping, PageBlock& block) {
    if (std::none_of(block.entries.begin(), block.entries.end(), is_none)) return;
    const auto opened = file(mapping);
    struct stat status {};
    bool empty = false;
    if (opened->fd && ::fstat(opened->fd.get(), &status) == 0) {
        const auto existing = static_cast<std::uint64_t>(status.st_blocks) * 512;
        // Either the file has no page, or this mapping shows all of it and has them all mapped.
        const bool whole = mapping.shared && mapping.offset == 0 &&
                           static_cast<std::uint64_t>(status.st_size) <= mapping.range.size().value;
        empty =
            existing == 0 || (whole && mapping.smaps && mapping.smaps->hugetlb_bytes == existing);
    }
    if (!empty)
        gaps_.add({"page cache", mapping.range,
                   "whether a huge page that is not mapped exists in its file is not shown", "",
                   false});
    block.cache.assign(block.entries.size(), empty ? Cache::hole : Cache::unknown);
}

/// For a run of none entries of any length: one answer for the first @p pages of it, which is
/// shortened to where that answer ends. `not_asked`: the pages differ and are to be asked one by
/// one; @p pages is then at most 64 Ki.
Cache PageCache::uniform_answer(const MappedFile& file, std::uint64_t page,
                                std::uint64_t& pages) const {
    static constexpr std::uint64_t dense_pages = 65536;
    const std::uint64_t offset = page * page_size_, length = pages * page_size_;
    if (!file.fd) {
        pages = std::min(pages, dense_pages);
        return Cache::not_asked;
    }
    bool nothing_cached = file.shmem; // what shmem caches is data, so SEEK_DATA finds it
    if (!file.shmem && methods_.cachestat) {
        const auto answer = ask_cachestat(file.fd.get(), offset, length);
        if (!answer) return Cache::unknown;
        if (answer->nr_cache >= pages) return Cache::cached;
        nothing_cached = answer->nr_cache == 0;
    }
    if (nothing_cached) {
        const auto data = ::lseek(file.fd.get(), static_cast<off_t>(offset), SEEK_DATA);
        if (data < 0 && errno != ENXIO) return Cache::unknown;
        const std::uint64_t data_page =
            data < 0 ? page + pages : static_cast<std::uint64_t>(data) / page_size_;
        if (data_page > page) {
            pages = std::min(pages, data_page - page);
            const auto held = file.shmem ? holds_pages(file, page, pages) : std::optional{false};
            if (!held) return Cache::unknown;
            if (!*held) return Cache::hole;
            pages = std::min(pages, dense_pages);
            return Cache::not_asked;
        }
        const auto hole = ::lseek(file.fd.get(), static_cast<off_t>(offset), SEEK_HOLE);
        if (!file.shmem && hole > static_cast<off_t>(offset)) {
            const std::uint64_t hole_page =
                (static_cast<std::uint64_t>(hole) + page_size_ - 1) / page_size_;
            pages = std::min(pages, hole_page - page);
            return Cache::absent;
        }
    }
    pages = std::min(pages, dense_pages);
    return Cache::not_asked;
}

void PageCache::fill(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                     std::span<Cache> out) {
    if (file.shmem)
        fill_shmem(mapping, file, page, out);
    else
        fill_file(mapping, file, page, out);
}

/// Calls @p sink(first, end) for each stretch of pages in [page, end) that the file has data for.
/// Returns 0, or errno: EINVAL and EOPNOTSUPP where the file system cannot tell.
template <class Sink>
int PageCache::for_each_data(const MappedFile& file, std::uint64_t page, std::uint64_t end,
                             Sink&& sink) const {
    const auto seek = [&](std::uint64_t at, int whence) {
        return ::lseek(file.fd.get(), static_cast<off_t>(at * page_size_), whence);
    };
    while (page < end) {
        const auto data = seek(page, SEEK_DATA);
        if (data < 0) return errno == ENXIO ? 0 : errno;
        const std::uint64_t first = static_cast<std::uint64_t>(data) / page_size_;
        if (first >= end) return 0;
        const auto hole = seek(first, SEEK_HOLE);
        if (hole < 0) return errno;
        page =
            std::max(first + 1, (static_cast<std::uint64_t>(hole) + page_size_ - 1) / page_size_);
        sink(first, std::min(page, end));
    }
    return 0;
}

/// Whether the page cache has anything where a tmpfs file has no data: pages that fallocate made
/// and nobody wrote to count as a hole (mm/filemap.c:folio_seek_hole_data), and are memory all the
/// same.
std::optional<bool> PageCache::holds_pages(const MappedFile& file, std::uint64_t page,
                                           std::uint64_t pages) const {
    if (!methods_.cachestat) return false;
    const auto answer = ask_cachestat(file.fd.get(), page * page_size_, pages * page_size_);
    if (!answer) return {}; // refused
    return answer->nr_cache != 0;
}

/// What has no data is a hole, unless it was allocated in advance; what has, is in the page cache
/// or in swap.
void PageCache::fill_shmem(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                           std::span<Cache> out) {
    std::fill(out.begin(), out.end(), Cache::hole);
    std::uint64_t at = page;
    const auto fill_hole = [&](std::uint64_t end) {
        if (at >= end) return;
        const auto held = holds_pages(file, at, end - at);
        if (held == false) return;
        const auto part = out.subspan(at - page, end - at);
        if (!held || !fill_by_cachestat(file, at, part))
            std::fill(part.begin(), part.end(), Cache::unknown);
    };
    const int error =
        for_each_data(file, page, page + out.size(), [&](std::uint64_t first, std::uint64_t end) {
            fill_hole(first);
            fill_shmem_data(mapping, file, first, out.subspan(first - page, end - first));
            at = end;
        });
    const bool told = error == 0;
    if (told) fill_hole(page + out.size());
    if (!told) std::fill(out.begin(), out.end(), Cache::unknown);
}

/// mincore is cheap and its "not resident" is certain; "resident" includes the swap cache, which
/// cachestat(2) tells apart (it counts swap entries as evicted, mm/filemap.c:filemap_cachestat).
/// cachestat alone would do, but it looks up the history of every swapped page: 200 ns and more.
void PageCache::fill_shmem_data(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                                std::span<Cache> out) {
    if (file.rest) {
        std::fill(out.begin(), out.end(), *file.rest);
        return;
    }
    std::vector<unsigned char> resident(out.size());
    if (!ask_resident(mapping, file, page, resident)) {
        if (!methods_.cachestat || !fill_by_cachestat(file, page, out))
            std::fill(out.begin(), out.end(), Cache::unknown);
        return;
    }
    const bool doubtful = methods_.swap_cache_lingers &&
                          (!mapping.smaps || mapping.smaps->swap_bytes.value_or(1) != 0);
    for (std::size_t i = 0; i < out.size();) {
        const bool here = (resident[i] & 1) != 0;
        std::size_t end = i;
        while (end < out.size() && ((resident[end] & 1) != 0) == here) ++end;
        const auto run = out.subspan(i, end - i);
        if (!here) {
            std::fill(run.begin(), run.end(), Cache::absent);
        } else if (!methods_.cachestat || !fill_by_cachestat(file, page + i, run)) {
            std::fill(run.begin(), run.end(), doubtful ? Cache::unknown : Cache::cached);
            if (doubtful)
                gaps_.add({"mincore", mapping.range,
                           "resident shared memory may be in the swap cache only; smaps Swap has "
                           "the total",
                           "a kernel with cachestat(2), 6.5", false});
        }
        i = end;
    }
}

void PageCache::fill_file(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                          std::span<Cache> out) {
    // A few questions to cachestat cost less than one to mincore's per-page lookup; for many pages
    // it is the other way round.
    static constexpr std::size_t few_pages = 64;
    std::vector<unsigned char> resident(out.size());
    const bool few = out.size() <= few_pages && methods_.cachestat;
    if (!few || !fill_by_cachestat(file, page, out)) {
        if (!ask_resident(mapping, file, page, resident)) {
            std::fill(out.begin(), out.end(), Cache::unknown);
            return;
        }
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] = (resident[i] & 1) ? Cache::cached : Cache::absent;
    }
    if (std::find(out.begin(), out.end(), Cache::absent) == out.end()) return;
    // Of what is not in the cache, the file may have no data either.
    std::uint64_t at = page;
    const auto mark_holes = [&](std::uint64_t end) {
        for (; at < end; ++at)
            if (out[at - page] == Cache::absent) out[at - page] = Cache::hole;
    };
    const int error =
        for_each_data(file, page, page + out.size(), [&](std::uint64_t first, std::uint64_t end) {
            mark_holes(first);
            at = end;
        });
    if (error == 0) mark_holes(page + out.size());
    // A file system that knows of no holes has data everywhere.
    if (error != 0 && error != EINVAL && error != EOPNOTSUPP)
        std::replace(out.begin(), out.end(), Cache::absent, Cache::unknown);
}

/// Ranges are asked for as a whole; one whose pages differ is halved. The length that last gave
/// one answer is where the next question starts, and it grows again after a few such answers.
bool PageCache::fill_by_cachestat(const MappedFile& file, std::uint64_t page,
                                  std::span<Cache> out) const {
    const std::uint64_t end = page + out.size();
    std::uint64_t length = std::bit_ceil(out.size());
    unsigned alike = 0;
    for (std::uint64_t at = page; at < end;) {
        const std::uint64_t n = std::min(end, (at / length + 1) * length) - at;
        const auto answer = ask_cachestat(file.fd.get(), at * page_size_, n * page_size_);
        if (!answer) return false;
        Cache verdict = Cache::not_asked;
        if (answer->nr_cache >= n)
            verdict = Cache::cached;
        else if (answer->nr_cache == 0 && !file.shmem)
            verdict = Cache::absent;
        else if (answer->nr_cache == 0 && answer->nr_evicted == 0)
            verdict = Cache::hole;
        else if (answer->nr_cache == 0 && answer->nr_evicted >= n)
            verdict = Cache::absent;
        if (verdict == Cache::not_asked && n == 1) verdict = Cache::unknown;
        if (verdict == Cache::not_asked) {
            length = std::bit_ceil(n) / 2;
            alike = 0;
            continue;
        }
        std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(at - page), n, verdict);
        at += n;
        if (++alike >= 4) {
            length *= 2;
            alike = 0;
        }
    }
    return true;
}

/// One byte a page, bit 0: resident, from mincore on the view. Needs the file's owner, or write
/// access to it (mm/mincore.c:can_do_mincore); without it the kernel claims that all is resident,
/// so the answer is checked against what may be asked.
bool PageCache::ask_resident(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                             std::vector<unsigned char>& resident) {
    int error = EINVAL;
    const std::uint64_t offset = (page - file.first_page) * page_size_;
    const std::uint64_t length = resident.size() * page_size_;
    if (file.view && page >= file.first_page && offset + length <= file.view_bytes) {
        if (!file.may_mincore)
            error = EPERM;
        else if (::mincore(static_cast<char*>(file.view) + offset, length, resident.data()) == 0)
            return true;
        else
            error = errno;
    }
    gaps_.add(
        {"mincore", mapping.range,
         fmt::format("the page cache behind the mapping cannot be asked ({})", errno_name(error)),
         "the file's owner, or write access to it: CAP_DAC_OVERRIDE", false});
    return false;
}

} // namespace pagesift::os
