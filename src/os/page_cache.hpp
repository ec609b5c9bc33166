// SPDX-License-Identifier: MIT
// What is in a file's page cache behind entries that are none, without faulting anything in.
#pragma once

#include "os/exact_lens.hpp"
#include "os/file.hpp"
#include "pagesift/source.hpp"

#include <map>
#include <memory>
#include <mutex>

namespace pagesift::os {

/// The file behind one mapping, opened for asking only.
struct MappedFile {
    MappedFile() = default;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    Fd fd;
    bool shmem = false;
    int error = 0;            ///< errno of the refused open; 0: fd can be asked
    bool may_mincore = false; ///< mincore tells the truth
    Fd path;                  ///< keeps `tree` alive where fd could not be opened
    /// The page cache itself (struct address_space) of a tmpfs file, with the exact lens.
    std::optional<std::uint64_t> tree;
    /// What a page that has data and no entry is, where that is the same for all of them.
    std::optional<Cache> rest;
    /// The same part of the file in this process, without access, for mincore. Nothing is ever
    /// faulted in through it.
    void* view = nullptr;
    std::uint64_t view_bytes = 0;
    std::uint64_t first_page = 0; ///< of the file, at the start of the view
};

/// Ways to ask; a refusal moves the asking on to the next.
struct CacheMethods {
    ExactLens* exact = nullptr; ///< none: the proc lens
    bool cachestat = true;
    bool swap_cache_lingers = true; ///< some swap area is not zram, so resident may mean swap cache
};

class PageCache {
public:
    PageCache(const Root& root, std::string base, int pagemap_fd, CacheMethods methods,
              std::uint64_t page_size, GapLog& gaps);

    /// Fills block.cache for the none entries of @p block, and with the exact lens
    /// block.swap_entries. A uniform block stays uniform when one
    /// answer holds for all of it; else it is cut to the pages up to the first change.
    void read(const Mapping& mapping, PageBlock& block);

    /// The same for huge pages of a pool, whose page cache answers no question: only the number of
    /// the file's pages is known.
    void read_huge(const Mapping& mapping, PageBlock& block);

private:
    std::shared_ptr<MappedFile> file(const Mapping& mapping);
    std::shared_ptr<MappedFile> open(const Mapping& mapping) const;
    void judge_rest(const Mapping& mapping, MappedFile& file) const;
    Cache uniform_answer(const MappedFile& file, std::uint64_t page, std::uint64_t& pages) const;
    void find_tree(int path_fd, MappedFile& file) const;
    void walk_tree(const Mapping& mapping, const MappedFile& file, std::uint64_t first,
                   PageBlock& block);
    void fill(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
              std::span<Cache> out);
    std::optional<bool> holds_pages(const MappedFile& file, std::uint64_t page,
                                    std::uint64_t pages) const;
    void fill_shmem(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                    std::span<Cache> out);
    void fill_shmem_data(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                         std::span<Cache> out);
    void fill_file(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                   std::span<Cache> out);
    bool fill_by_cachestat(const MappedFile& file, std::uint64_t page, std::span<Cache> out) const;
    bool ask_resident(const Mapping& mapping, const MappedFile& file, std::uint64_t page,
                      std::vector<unsigned char>& resident);
    template <class Sink>
    int for_each_data(const MappedFile& file, std::uint64_t page, std::uint64_t end,
                      Sink&& sink) const;

    const Root& root_;
    std::string base_;
    int pagemap_fd_;
    CacheMethods methods_;
    std::uint64_t page_size_;
    GapLog& gaps_;
    std::mutex mutex_;
    std::map<std::uint64_t, std::shared_ptr<MappedFile>> files_; ///< by mapping start
};

} // namespace pagesift::os
