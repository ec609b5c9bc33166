// SPDX-License-Identifier: MIT
#include "pagesift/abi.hpp"
#include "pagesift/classify.hpp"

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::abi;

namespace {

constexpr std::uint64_t frame = 0x1234;
constexpr std::uint64_t anon_flags =
    kpf(KPF_ANON) | kpf(KPF_SWAPBACKED) | kpf(KPF_LRU) | kpf(KPF_MMAP) | kpf(KPF_UPTODATE);

HostFacts root_host() {
    HostFacts host;
    host.frames_visible = true;
    host.ksm_flag_true = true;
    host.soft_dirty = false;
    return host;
}

Mapping mapping_of(Backing backing) {
    Mapping m;
    m.range = {Address{0x1000}, Address{0x2000}};
    m.backing = backing;
    return m;
}

PageClass classify(PageFacts page, Backing backing = Backing::anon, HostFacts host = root_host()) {
    const Mapping mapping = mapping_of(backing);
    return Classifier{host, mapping}.classify(page);
}

std::uint64_t swap_entry(unsigned type, std::uint64_t offset) {
    return PM_SWAP | offset << 5 | type;
}

} // namespace

TEST_CASE("classify: young and dirty follow the entry where it is known") {
    const std::uint64_t present = PM_PRESENT | frame;
    const PageFacts unseen{.entry = present, .flags = kpf(KPF_LRU)};
    Mapping shared = mapping_of(Backing::file);
    shared.shared = shared.writable = true;
    const auto attributes = [&](Tri young, Tri dirty, bool alone, std::uint64_t flags) {
        PageFacts page = unseen;
        page.entry |= alone ? PM_MMAP_EXCLUSIVE : 0;
        page.flags = flags;
        page.young = young;
        page.entry_dirty = dirty;
        const PageClass cls = Classifier{root_host(), shared}.classify(page);
        return std::pair{cls.attribute(Attribute::young), cls.attribute(Attribute::dirty)};
    };
    using enum Tri;
    CHECK(attributes(unknown, unknown, true, kpf(KPF_LRU)) == std::pair{unknown, unknown});
    CHECK(attributes(yes, yes, false, kpf(KPF_LRU)) == std::pair{yes, yes});
    CHECK(attributes(no, no, true, kpf(KPF_LRU)) == std::pair{no, no});
    // Another process' entry may be dirty.
    CHECK(attributes(no, no, false, kpf(KPF_LRU)) == std::pair{no, unknown});
    CHECK(attributes(no, no, true, kpf(KPF_DIRTY)) == std::pair{no, yes});
    // An anonymous page without a copy in swap is dirty whatever its entry says.
    const std::uint64_t anon = kpf(KPF_ANON) | kpf(KPF_SWAPBACKED);
    CHECK(attributes(no, no, true, anon) == std::pair{no, yes});
    CHECK(attributes(no, no, true, anon | kpf(KPF_SWAPCACHE)) == std::pair{no, no});
    CHECK(attributes(no, yes, true, anon | kpf(KPF_SWAPCACHE)) == std::pair{no, yes});
    CHECK(attributes(no, no, true, kpf(KPF_ANON)) == std::pair{no, no});
}

TEST_CASE("classify: neighbours that differ in an entry's bits alone are told apart") {
    const Mapping mapping = mapping_of(Backing::anon);
    const HostFacts host = root_host();
    Classifier classifier{host, mapping};
    PageFacts page{.entry = PM_PRESENT | frame,
                   .flags = kpf(KPF_ANON) | kpf(KPF_SWAPCACHE) | kpf(KPF_SWAPBACKED)};
    page.entry |= PM_MMAP_EXCLUSIVE;
    for (const Tri young : {Tri::no, Tri::yes, Tri::unknown, Tri::no})
        for (const Tri dirty : {Tri::no, Tri::yes, Tri::unknown}) {
            page.young = young;
            page.entry_dirty = dirty;
            const PageClass cls = classifier.classify(page);
            CHECK(cls.attribute(Attribute::young) == young);
            CHECK(cls.attribute(Attribute::dirty) == dirty);
        }
}

TEST_CASE("classify: an untouched anonymous page is none, with or without soft-dirty") {
    CHECK(classify({.entry = 0}).state == State::none);
    CHECK(classify({.entry = PM_SOFT_DIRTY}).state == State::none);
    CHECK(classify({.entry = PM_SOFT_DIRTY}).kind == Kind::not_present);
}

TEST_CASE("classify: what is behind a none entry of a file decides its state") {
    const auto file = [](Cache cache) { return classify({.cache = cache}, Backing::file).state; };
    const auto shmem = [](Cache cache) { return classify({.cache = cache}, Backing::shmem).state; };
    CHECK(file(Cache::hole) == State::none);
    CHECK(file(Cache::cached) == State::cached);
    CHECK(file(Cache::absent) == State::uncached);
    CHECK(shmem(Cache::hole) == State::none);
    CHECK(shmem(Cache::cached) == State::cached);
    CHECK(shmem(Cache::absent) == State::shmem_swapped);
}

TEST_CASE("classify: a file page that nobody asked about is unknown, never none") {
    for (const Backing backing : {Backing::file, Backing::shmem, Backing::hugetlb, Backing::device})
        for (const Cache cache : {Cache::not_asked, Cache::unknown})
            CHECK(classify({.cache = cache}, backing).state == State::unknown);
}

TEST_CASE("classify: markers are told by type 31 and by their bits, and are not swapped") {
    CHECK(classify({.entry = swap_entry(31, 1) | PM_UFFD_WP}).marker == Marker::uffd_wp);
    CHECK(classify({.entry = swap_entry(31, 2)}).marker == Marker::poison);
    CHECK(classify({.entry = swap_entry(31, 4)}).marker == Marker::guard); // 6.13, without bit 58
    CHECK(classify({.entry = swap_entry(31, 4) | PM_GUARD_REGION}).marker == Marker::guard);
    CHECK(classify({.entry = swap_entry(31, 8)}).marker == Marker::other);
    for (const std::uint64_t bits : {1u, 2u, 4u, 8u})
        CHECK(classify({.entry = swap_entry(31, bits)}).state == State::marker);
}

TEST_CASE("classify: a swap entry is swapped up to type 22, and something else above") {
    for (unsigned type = 0; type <= 22; ++type)
        CHECK(classify({.entry = swap_entry(type, 77)}).state == State::swapped);
    for (unsigned type = 23; type <= 30; ++type)
        CHECK(classify({.entry = swap_entry(type, 77)}).state == State::migrating);
    CHECK(classify({.entry = swap_entry(0, 77) | PM_FILE}).state == State::migrating);
}

TEST_CASE("classify: with hidden frames a swap-like entry is unknown, a guard is a guard") {
    HostFacts host = root_host();
    host.frames_visible = false;
    CHECK(classify({.entry = PM_SWAP}, Backing::anon, host).state == State::unknown);
    CHECK(classify({.entry = PM_SWAP | PM_UFFD_WP}, Backing::anon, host).state == State::unknown);
    CHECK(classify({.entry = PM_SWAP | PM_GUARD_REGION}, Backing::anon, host).marker ==
          Marker::guard);
}

TEST_CASE(
    "classify: entries of special types are told from swap, and broken frames by their flag") {
    for (const unsigned type :
         {24u, 27u, 29u, 30u}) { // hwpoison on some kernels, migration on others
        PageFacts page{.entry = swap_entry(type, frame)};
        CHECK(classify(page).state == State::migrating);
        CHECK(classify(page).marker == Marker::no_marker);
        page.flags = anon_flags;
        CHECK(classify(page).marker == Marker::no_marker);
        page.flags = kpf(KPF_HWPOISON);
        CHECK(classify(page).state == State::migrating);
        CHECK(classify(page).marker == Marker::hwpoison);
    }
    const PageFacts swapped{.entry = swap_entry(22, frame), .flags = kpf(KPF_HWPOISON)};
    CHECK(classify(swapped).state == State::swapped);
    CHECK(classify(swapped).marker == Marker::no_marker);
}

TEST_CASE("classify: the zero page is a kind of its own, small and huge") {
    const std::uint64_t flags = kpf(KPF_ZERO_PAGE) | kpf(KPF_RESERVED);
    const auto small = classify({.entry = PM_PRESENT | frame, .flags = flags, .map_count = 0});
    CHECK(small.kind == Kind::zero_page);
    CHECK(small.attribute(Attribute::dirty) == Tri::no);
    const auto huge = classify({.entry = PM_PRESENT | PM_FILE | frame,
                                .flags = flags | kpf(KPF_THP) | kpf(KPF_COMPOUND_TAIL)});
    CHECK(huge.kind == Kind::zero_page);
}

TEST_CASE("classify: contents make a page zero-filled only when they were read") {
    PageFacts page{.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame, .flags = anon_flags};
    CHECK(classify(page).kind == Kind::anon);
    page.content = Content::zero;
    CHECK(classify(page).kind == Kind::zero_filled);
    for (const Content c : {Content::other, Content::changed, Content::refused}) {
        page.content = c;
        CHECK(classify(page).kind == Kind::anon);
    }
}

TEST_CASE("classify: a KSM page with one user is ksm-sole, with zero bytes ksm-zero") {
    PageFacts page{.entry = PM_PRESENT | frame, .flags = anon_flags | kpf(KPF_KSM), .map_count = 2};
    CHECK(classify(page).kind == Kind::ksm);
    page.map_count = 1;
    CHECK(classify(page).kind == Kind::ksm_sole);
    page.map_count.reset();
    page.entry |= PM_MMAP_EXCLUSIVE;
    CHECK(classify(page).kind == Kind::ksm_sole);
    page.content = Content::zero;
    CHECK(classify(page).kind == Kind::ksm_zero);
}

TEST_CASE("classify: where KPF_KSM lies, a page may be merged unless another fact rules it out") {
    HostFacts host = root_host();
    host.ksm_flag_true = false;
    PageFacts page{.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame,
                   .flags = anon_flags | kpf(KPF_KSM)};
    CHECK(classify(page, Backing::anon, host).kind == Kind::unknown);
    page.content = Content::zero; // zero-filled or ksm-zero
    CHECK(classify(page, Backing::anon, host).kind == Kind::unknown);
    page.content = Content::not_read;

    SUBCASE("the flag is not set: it is set on too many pages, never on too few") {
        page.flags = anon_flags;
        CHECK(classify(page, Backing::anon, host).kind == Kind::anon);
    }
    SUBCASE("part of a large folio") {
        page.flags = anon_flags | kpf(KPF_KSM) | kpf(KPF_THP) | kpf(KPF_COMPOUND_TAIL);
        CHECK(classify(page, Backing::anon, host).kind == Kind::thp);
    }
    SUBCASE("exclusive, where that flag is proven") {
        page.flags = anon_flags | kpf(KPF_KSM) | kpf(KPF_OWNER_2);
        CHECK(classify(page, Backing::anon, host).kind == Kind::unknown);
        host.exclusive_flag = true;
        CHECK(classify(page, Backing::anon, host).kind == Kind::anon);
    }
    SUBCASE("smaps counts the mapping's merged pages") {
        Mapping mapping = mapping_of(Backing::anon);
        SmapsFacts smaps;
        smaps.ksm_bytes = 0;
        mapping.smaps = std::make_shared<const SmapsFacts>(smaps);
        CHECK(Classifier{host, mapping}.classify(page).kind == Kind::anon);
        smaps.ksm_bytes = 4096;
        mapping.smaps = std::make_shared<const SmapsFacts>(smaps);
        CHECK(Classifier{host, mapping}.classify(page).kind == Kind::unknown);
    }
}

TEST_CASE("classify: a private file page after its copy is anonymous") {
    const auto copied = classify(
        {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame, .flags = anon_flags}, Backing::file);
    CHECK(copied.kind == Kind::anon);
    CHECK(copied.backing == Backing::anon);
    const auto original = classify({.entry = PM_PRESENT | PM_FILE | frame,
                                    .flags = kpf(KPF_LRU) | kpf(KPF_MMAP) | kpf(KPF_UPTODATE),
                                    .map_count = 3},
                                   Backing::file);
    CHECK(original.kind == Kind::file);
    CHECK(original.attribute(Attribute::dirty) == Tri::no);
}

TEST_CASE("classify: large folios and huge pages keep their words") {
    const auto thp = classify({.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame,
                               .flags = anon_flags | kpf(KPF_THP) | kpf(KPF_COMPOUND_HEAD),
                               .pmd_mapped = Tri::yes});
    CHECK(thp.kind == Kind::thp);
    CHECK(thp.folio == FolioSize::large);
    CHECK(thp.attribute(Attribute::pmd_mapped) == Tri::yes);
    const auto pool = classify({.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame,
                                .flags = kpf(KPF_HUGE) | kpf(KPF_COMPOUND_TAIL)},
                               Backing::hugetlb);
    CHECK(pool.kind == Kind::hugetlb);
    CHECK(pool.folio == FolioSize::hugetlb);
}

TEST_CASE("classify: flags of a frame that was freed meanwhile make the kind unknown") {
    for (const KpfBit bit : {KPF_BUDDY, KPF_SLAB, KPF_NOPAGE, KPF_PGTABLE})
        CHECK(classify({.entry = PM_PRESENT | frame, .flags = kpf(bit)}).kind == Kind::unknown);
}

TEST_CASE("classify: without page flags attributes are unknown, not no") {
    const auto page =
        classify({.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE, .pmd_mapped = Tri::unknown});
    CHECK(page.kind == Kind::anon);
    CHECK(page.folio == FolioSize::unknown);
    for (const Attribute a : {Attribute::active, Attribute::dirty, Attribute::lazyfree,
                              Attribute::unevictable, Attribute::young, Attribute::pmd_mapped})
        CHECK(page.attribute(a) == Tri::unknown);
    CHECK(page.attribute(Attribute::exclusive) == Tri::yes);
}

TEST_CASE("classify: dirty means that no clean copy exists") {
    const std::uint64_t entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame;
    const auto dirty = [&](std::uint64_t flags) {
        return classify({.entry = entry, .flags = flags}).attribute(Attribute::dirty);
    };
    CHECK(dirty(anon_flags) == Tri::yes);
    CHECK(dirty(anon_flags | kpf(KPF_SWAPCACHE)) == Tri::unknown);
    CHECK(dirty(anon_flags | kpf(KPF_SWAPCACHE) | kpf(KPF_DIRTY)) == Tri::yes);
    CHECK(dirty(kpf(KPF_ANON) | kpf(KPF_LRU)) ==
          Tri::unknown); // MADV_FREE'd, perhaps written since
}

TEST_CASE("classify: MADV_FREE'd is anonymous and no longer backed by swap") {
    const auto freed = classify(
        {.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame, .flags = kpf(KPF_ANON) | kpf(KPF_LRU)});
    CHECK(freed.attribute(Attribute::lazyfree) == Tri::yes);
    const auto kept =
        classify({.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame, .flags = anon_flags});
    CHECK(kept.attribute(Attribute::lazyfree) == Tri::no);
}

TEST_CASE("classify: pages of a mapping without struct pages are special") {
    const auto page = classify({}, Backing::special);
    CHECK(page.state == State::present);
    CHECK(page.kind == Kind::special);
}

TEST_CASE("classify: flag bits of a newer kernel change nothing") {
    const PageFacts known{.entry = PM_PRESENT | PM_MMAP_EXCLUSIVE | frame, .flags = anon_flags};
    PageFacts future = known;
    future.flags = *known.flags | std::uint64_t{0xffff} << 44;
    future.entry |= std::uint64_t{3} << 59;
    CHECK(classify(future) == classify(known));
}

TEST_CASE("classify: a classifier that remembers gives the answers of a fresh one") {
    const HostFacts host = root_host();
    const Mapping mapping = mapping_of(Backing::shmem);
    Classifier remembers{host, mapping};
    std::vector<PageFacts> pages;
    for (const std::uint64_t entry :
         {std::uint64_t{0}, PM_PRESENT | frame, PM_PRESENT | PM_MMAP_EXCLUSIVE | frame,
          swap_entry(0, 5), swap_entry(31, 1), swap_entry(31, 2), swap_entry(31, 4),
          swap_entry(31, 6), swap_entry(25, 5), swap_entry(25, 5) | PM_FILE, swap_entry(1, 2)})
        for (const std::uint64_t flags :
             {anon_flags, anon_flags | kpf(KPF_KSM), kpf(KPF_ZERO_PAGE)})
            for (const std::uint32_t count : {0u, 1u, 2u, 70000u})
                for (const Cache cache :
                     {Cache::not_asked, Cache::hole, Cache::cached, Cache::absent})
                    for (const Content content : {Content::not_read, Content::zero, Content::other})
                        for (const Tri pmd : {Tri::no, Tri::yes, Tri::unknown})
                            pages.push_back({.entry = entry,
                                             .flags = flags,
                                             .map_count = count,
                                             .pmd_mapped = pmd,
                                             .cache = cache,
                                             .content = content});
    std::size_t at = 0;
    for (std::size_t i = 0; i < 20000; ++i) {
        at = (at * 1103515245 + 12345) % pages.size();
        CHECK(remembers.classify(pages[at]) == Classifier{host, mapping}.classify(pages[at]));
    }
}

TEST_CASE("classify: what a device maps is unknown, whatever is behind it") {
    for (const Cache cache : {Cache::hole, Cache::cached, Cache::absent, Cache::not_asked})
        CHECK(classify({.cache = cache}, Backing::device).state == State::unknown);
}

TEST_CASE("classify: a KSM page of which the users were not counted is not called sole") {
    const PageFacts page{.entry = PM_PRESENT | frame, .flags = anon_flags | kpf(KPF_KSM)};
    CHECK(classify(page).kind == Kind::ksm);
    PageFacts counted = page;
    const Mapping mapping = mapping_of(Backing::anon);
    const HostFacts host = root_host();
    Classifier classifier{host, mapping};
    for (const auto& [users, kind] : {std::pair{1u, Kind::ksm_sole}, std::pair{2u, Kind::ksm},
                                      std::pair{1u, Kind::ksm_sole}, std::pair{9u, Kind::ksm}}) {
        counted.map_count = users;
        CHECK(classifier.classify(counted).kind == kind);
    }
}

TEST_CASE("classify: a page of a pool is one without page flags as well") {
    CHECK(classify({.entry = PM_PRESENT | frame}, Backing::hugetlb).kind == Kind::hugetlb);
}

TEST_CASE("classify: no part of a large folio is merged, where KPF_KSM lies") {
    HostFacts host = root_host();
    host.ksm_flag_true = false;
    for (const KpfBit part : {KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_THP, KPF_HUGE}) {
        const PageFacts page{.entry = PM_PRESENT | frame,
                             .flags = anon_flags | kpf(KPF_KSM) | kpf(part)};
        CHECK(classify(page, Backing::anon, host).kind != Kind::unknown);
    }
}

TEST_CASE("classify: who may not write to a shared file has not made its page dirty") {
    Mapping mapping = mapping_of(Backing::file);
    mapping.shared = true;
    const HostFacts host = root_host();
    const PageFacts page{.entry = PM_PRESENT | PM_FILE | frame, .flags = kpf(KPF_LRU)};
    CHECK(Classifier{host, mapping}.classify(page).attribute(Attribute::dirty) == Tri::no);
    mapping.writable = true;
    CHECK(Classifier{host, mapping}.classify(page).attribute(Attribute::dirty) == Tri::unknown);
}

TEST_CASE("classify: where nobody knows whether numbers are shown, a number says so") {
    HostFacts host = root_host();
    host.frames_visible.reset();
    CHECK(classify({.entry = swap_entry(1, 5)}, Backing::anon, host).state == State::swapped);
    CHECK(classify({.entry = PM_SWAP}, Backing::anon, host).state == State::unknown);
}

TEST_CASE("classify: the zero page waits for nobody to free it") {
    const PageFacts page{.entry = PM_PRESENT | frame, .flags = kpf(KPF_ZERO_PAGE) | kpf(KPF_ANON)};
    CHECK(classify(page).attribute(Attribute::lazyfree) == Tri::no);
}

TEST_CASE("classify: a class survives its key") {
    PageClass cls{.state = State::present,
                  .kind = Kind::ksm_sole,
                  .marker = Marker::poison,
                  .backing = Backing::device,
                  .folio = FolioSize::unknown};
    for (unsigned a = 0; a < attribute_count; ++a)
        cls.set(static_cast<Attribute>(a), static_cast<Tri>(a % 3));
    CHECK(PageClass::from_key(cls.key()) == cls);
}
