// SPDX-License-Identifier: MIT
// A live process, or a folder that looks like one, as a `Source`.
#pragma once

#include "os/contents.hpp"
#include "os/exact_lens.hpp"
#include "os/exact_pages.hpp"
#include "os/file.hpp"
#include "os/frames.hpp"
#include "os/mappings.hpp"
#include "os/neighbours.hpp"
#include "os/page_cache.hpp"
#include "pagesift/os.hpp"

#include <optional>

namespace pagesift::os {

class ProcessSource final : public Source {
public:
    ProcessSource(std::uint32_t pid, const Machine& machine, const OpenOptions& options);

    const HostFacts& host() const override { return *host_; }
    ProcessText process() override;
    std::vector<Mapping> mappings(const Want& want) override;
    void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                    PageBlock& block) override;
    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override;
    std::vector<Gap> gaps() const override;
    void forget_read_ahead() override;

private:
    /// What is read once: a look asks for the process a second time when it is done, for what its
    /// status says then.
    struct About {
        std::string comm, exe, ksm_stat;
    };

    void choose_base();
    About read_about() const;
    void open_pagemap();
    void find_top_table();
    void use_proc_lens(const std::string& reason);
    std::optional<std::vector<AddressRange>> walk_for_tables(std::span<const AddressRange> ranges);
    void read_entries(const Mapping& mapping, AddressRange wanted, PageBlock& block);
    bool read_exactly(const Mapping& mapping, AddressRange wanted, PageBlock& block);
    void report_end(AddressRange rest, std::int64_t answer);
    void leap(AddressRange wanted, PageBlock& block) const;
    void add_cache(const Mapping& mapping, PageBlock& block);
    void add_contents(const Mapping& mapping, const Want& want, PageBlock& block);
    void add_entry_bits(PageBlock& block);
    void add_huge(PageBlock& block) const;
    void add_scan_columns(PageBlock& block) const;
    bool is_same_process() const;
    bool uses(const char* interface) const { return !options_.without.contains(interface); }

    OpenOptions options_;
    Root root_;
    std::uint32_t pid_;
    std::string base_;
    std::shared_ptr<const HostFacts> host_;
    std::shared_ptr<ExactLens> exact_; ///< none: the proc lens
    std::uint64_t top_table_ = 0;      ///< of the process, with the exact lens
    std::uint64_t start_time_ = 0;
    std::string stat_;
    std::string status_; ///< empty: handed out
    std::optional<About> about_;
    Fd pagemap_;
    mutable GapLog gaps_;
    FrameReader frames_;
    std::optional<ExactPages> exact_pages_;
    std::optional<Neighbours> neighbours_; ///< with exact_pages_
    std::optional<PageCache> cache_;
    std::optional<ContentReader> contents_;
    bool scan_works_;
    bool mends_ksm_flag_; ///< see Machine::ksm_flag_mended
};

} // namespace pagesift::os
