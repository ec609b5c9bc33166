// SPDX-License-Identifier: MIT
// Are all bytes of a page zero? Present pages only, and without changing them.
#pragma once

#include "os/exact_lens.hpp"
#include "os/file.hpp"
#include "pagesift/source.hpp"

namespace pagesift::os {

/// True when all @p size bytes at @p data are zero; @p size is a multiple of 64.
bool is_zero_filled(const std::byte* data, std::size_t size);

/// Whether a sample of @p share of all pages includes the page at @p address. The same page
/// always gets the same answer, and neighbours get independent ones.
bool in_sample(Address address, double share);

/// Which way a page's bytes are fetched without changing the page.
///
/// process_vm_readv is the faster way, but it pins the page, and pinning an anonymous page that is
/// not exclusive to the process first gives it a copy of its own (mm/gup.c:gup_must_unshare): it
/// would break KSM merges and pages shared by fork. /proc/PID/mem takes a plain reference.
/// `ReadWay::call` is for pages known not to be concerned.
enum class ReadWay { call, mem };

/// Fills block.content for present pages with a frame of their own. With the exact lens their
/// frames are read in the kernel's own memory, which changes nothing at all. Otherwise the process'
/// memory is, which marks every page that is read as referenced (mm/gup.c: folio_mark_accessed),
/// changes nothing else, and needs PTRACE_MODE_ATTACH. Pages whose entry differs from block.entries
/// when read again afterwards are `changed`.
class ContentReader {
public:
    ContentReader(const Root& root, const std::string& base, std::uint32_t pid, int pagemap_fd,
                  std::uint64_t page_size, ExactLens* exact, GapLog& gaps);
    void read(const Mapping& mapping, const Want& want, PageBlock& block) const;

private:
    class Batch;
    ReadWay way(const PageBlock& block, std::size_t i) const;
    bool is_wanted(const Want& want, const PageBlock& block, std::size_t i) const;
    bool read_by_frame(const Mapping& mapping, const Want& want, PageBlock& block) const;
    void read_by_call(const Mapping& mapping, Batch& batch, PageBlock& block) const;
    void read_by_mem(const Mapping& mapping, Batch& batch, PageBlock& block) const;
    void refuse(const Mapping& mapping, int error) const;
    void recheck(PageBlock& block) const;

    std::uint32_t pid_;
    int pagemap_fd_;
    std::uint64_t page_size_;
    ExactLens* exact_; ///< none: the proc lens
    GapLog& gaps_;
    Fd mem_;
    int mem_error_ = 0;
    bool call_works_ = true; ///< process_vm_readv means the same process as /proc
};

} // namespace pagesift::os
