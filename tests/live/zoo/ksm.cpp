// SPDX-License-Identifier: MIT
// Kernel samepage merging. The scanner is turned on for as long as an exhibit needs it and off
// again before the next one is built; what has been merged stays merged.
#include <algorithm>
#include <cstring>
#include <memory>

#include <sys/mman.h>
#include <unistd.h>

#include "proof.hpp"

namespace pagesift::zoo {

namespace {

using namespace witness;

constexpr const char* ksm = "/sys/kernel/mm/ksm/";

/// ksmd running fast, merging zeroes as told, until the end of the block.
class FastScanner {
public:
    FastScanner(Machine& machine, const char* use_zero_pages)
        : zeroes_(machine, path("use_zero_pages"), use_zero_pages) {
        // The advisor owns pages_to_scan, and the smart scan skips pages; both are newer than KSM.
        add(machine, "advisor_mode", "none", Missing::fine);
        add(machine, "smart_scan", "0", Missing::fine);
        add(machine, "sleep_millisecs", "2", Missing::refused);
        add(machine, "pages_to_scan", "20000", Missing::refused);
        add(machine, "run", "1", Missing::refused);
    }
    ~FastScanner() {
        while (!settings_.empty()) settings_.pop_back(); // the latest first
    }
    FastScanner(const FastScanner&) = delete;
    FastScanner& operator=(const FastScanner&) = delete;

private:
    enum class Missing { fine, refused };
    static std::string path(const char* name) { return std::string(ksm) + name; }
    void add(Machine& machine, const char* name, const char* value, Missing missing) {
        if (missing == Missing::fine && !read_setting(path(name))) return;
        settings_.push_back(std::make_unique<Setting>(machine, path(name), value));
    }

    Setting zeroes_;
    std::vector<std::unique_ptr<Setting>> settings_;
};

/// Offers pages for merging and waits until all are present and @p merged says so. KPF_KSM would
/// not do: some kernels set it on every anonymous page.
template <class Merged> void merge(Pages pages, Merged&& merged) {
    advise(pages.at, pages.count, MADV_MERGEABLE, "MADV_MERGEABLE");
    for (int tries = 0; tries < 3000; ++tries, usleep(10'000)) {
        const auto all = entries(pages);
        if (std::all_of(all.begin(), all.end(), [](std::uint64_t e) { return present(e); }) &&
            merged(all))
            return;
    }
    throw ProofFailed("ksmd does not merge the pages within half a minute");
}

/// Pages that were filled apart and have one frame since are merged.
bool one_frame(const std::vector<std::uint64_t>& all) {
    return std::all_of(all.begin(), all.end(),
                       [&](std::uint64_t e) { return frame(e) == frame(all.front()); });
}

/// @p pages pages of one content that nobody else has.
void fill_alike(std::uint64_t at, std::size_t pages) {
    const auto content = random_page();
    for (std::size_t i = 0; i < pages; ++i)
        std::memcpy(pointer(at + bytes_of(i)), content.data(), content.size());
}

constexpr std::size_t count = 4;

Exhibit shared(std::uint64_t at) {
    Exhibit e{.name = "ksm-shared", .start = at, .runs = {present(count, "ksm")}};
    e.sharers = count;
    e.attributes = {{"exclusive", false}};
    e.prove = [=] {
        expect_flags({at, count}, {kpf_ksm, kpf_anon}, {kpf_zero_page, kpf_thp});
        expect(one_frame(entries({at, count})), "all pages have one frame");
        expect_count({at, count}, count);
        expect_smaps(at, "Rss", count);
        const auto merging = ksm_stat(getpid(), "ksm_merging_pages");
        expect(!merging || *merging >= count, "ksm_stat counts merging pages");
    };
    e.proof = "four pages of one content merged; one frame, KPF_KSM, kpagecount 4";
    return e;
}

Exhibit sole(std::uint64_t at) {
    Exhibit e{.name = "ksm-sole",
              .start = at,
              .runs = {present(count, "ksm-sole"), in_state(count, "none")}};
    e.sharers = 1;
    e.attributes = {{"exclusive", true}};
    e.prove = [=] {
        expect_flags({at, count}, {kpf_ksm, kpf_anon}, {kpf_zero_page, kpf_thp});
        expect_count({at, count}, 1);
        expect_none({at + bytes_of(count), count});
    };
    e.proof = "merged in pairs, the other of each pair dropped; KPF_KSM, kpagecount 1";
    return e;
}

Exhibit zeroes_kept(std::uint64_t at) {
    Exhibit e{.name = "ksm-zero", .start = at, .runs = {present(count, "ksm-zero")}};
    e.prove = [=] {
        expect_flags({at, count}, {kpf_ksm, kpf_anon}, {kpf_zero_page, kpf_thp});
        expect(one_frame(entries({at, count})), "all pages have one frame");
        expect_zeroes({at, count});
        expect_smaps(at, "Rss", count);
    };
    e.proof = "zeroes merged with use_zero_pages 0; one frame, KPF_KSM without KPF_ZERO_PAGE, "
              "bytes are 0";
    return e;
}

/// The three of them at once: each wait for ksmd takes a good part of a second.
std::vector<Exhibit> merged(Keeper& keeper) {
    const FastScanner scanner(keeper.machine(), "0");
    const auto alike = keeper.anonymous(count);
    fill_alike(alike, count);
    const auto pairs = keeper.anonymous(2 * count);
    for (std::size_t i = 0; i < count; ++i) {
        fill_alike(pairs + bytes_of(i), 1);
        std::memcpy(pointer(pairs + bytes_of(count + i)), pointer(pairs + bytes_of(i)),
                    page_size());
    }
    const auto zeroes = keeper.anonymous(count);
    fill_with_zeroes(zeroes, count);
    for (const Pages& pages : {Pages{alike, count}, Pages{pairs, 2 * count}, Pages{zeroes, count}})
        advise(pages.at, pages.count, MADV_MERGEABLE, "MADV_MERGEABLE");
    merge({alike, count}, one_frame);
    merge({zeroes, count}, one_frame);
    merge({pairs, 2 * count}, [](const std::vector<std::uint64_t>& all) {
        for (std::size_t i = 0; i < count; ++i)
            if (frame(all[i]) != frame(all[count + i])) return false;
        return true;
    });
    advise(pairs + bytes_of(count), count, MADV_DONTNEED, "MADV_DONTNEED");
    return {shared(alike), sole(pairs), zeroes_kept(zeroes)};
}

std::vector<Exhibit> zeroes_replaced(Keeper& keeper) {
    const auto before = ksm_stat(getpid(), "ksm_zero_pages");
    const FastScanner scanner(keeper.machine(), "1");
    const auto at = keeper.anonymous(count);
    fill_with_zeroes(at, count);
    merge({at, count}, [](const std::vector<std::uint64_t>& all) {
        return std::all_of(all.begin(), all.end(), [](std::uint64_t e) {
            return has(kpageflags(frame(e)), kpf_zero_page);
        });
    });
    Exhibit e{.name = "ksm-use-zero-pages", .start = at, .runs = {present(count, "zero-page")}};
    e.prove = [=] {
        expect_flags({at, count}, {kpf_zero_page}, {kpf_ksm, kpf_anon});
        expect_smaps(at, "Rss", 0);
        const auto now = ksm_stat(getpid(), "ksm_zero_pages");
        expect(!before || !now || *now == *before + count, "ksm_stat counts the zero pages");
    };
    e.proof = "zeroes merged with use_zero_pages 1; KPF_ZERO_PAGE, ksm_stat ksm_zero_pages";
    return {e};
}

} // namespace

std::vector<Step> ksm_steps() {
    return {
        // First: before 6.10 or so, zeroes join a merged page of zeroes if there is one.
        {{{"ksm-use-zero-pages", "present/zero-page"}}, Need::ksm, zeroes_replaced},
        {{{"ksm-shared", "present/ksm"},
          {"ksm-sole", "present/ksm-sole"},
          {"ksm-zero", "present/ksm-zero"}},
         Need::ksm,
         merged},
    };
}

} // namespace pagesift::zoo
