// SPDX-License-Identifier: MIT
// Memory of the victim in which every action finds something: zeros, pages that are there more than
// once, pages that KSM has merged and that are alone since. Its threads change it all the time and
// know what each page must hold.
#include "torture/victim.hpp"
#include "torture/victim_threads.hpp"

#include <array>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

using Word = volatile std::uint64_t;

class Area {
public:
    /// @param kinds of contents that there are; the first one is zeros
    Area(Ledger& ledger, std::uint64_t kinds)
        : ledger_(ledger),
          kinds_(kinds),
          words_a_page_(static_cast<std::size_t>(::getpagesize()) / sizeof(Word)),
          random_(static_cast<std::uint64_t>(ledger.thread) * 4711) {
        const std::size_t bytes = pages * words_a_page_ * sizeof(Word);
        void* memory =
            ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        ::madvise(memory, bytes, MADV_NOHUGEPAGE);
        memory_ = static_cast<Word*>(memory);
        for (std::size_t page = 0; page < pages; ++page) write(page);
    }

    void leave_unmerged() {
        ::madvise(const_cast<std::uint64_t*>(memory_), pages * words_a_page_ * sizeof(Word),
                  MADV_UNMERGEABLE);
    }

    /// Checks a page, gives it other contents, and watches what it has just written.
    void change(double seconds) {
        const std::size_t page = next_random(random_) % pages;
        check(page);
        write(page);
        Word& word = at(page, next_random(random_) % words_a_page_);
        const std::uint64_t value = word;
        for (const double end = seconds_now() + seconds; seconds_now() < end;)
            for (int i = 0; i < 200; ++i)
                if (word != value) {
                    ++ledger_.lost;
                    return;
                }
    }

private:
    static constexpr std::size_t pages = 512;

    Word& at(std::size_t page, std::size_t word) { return memory_[page * words_a_page_ + word]; }
    static std::uint64_t value_of(std::uint64_t kind, std::size_t word) {
        return kind == 0 ? 0 : (word + kind) * 0x9e3779b97f4a7c15;
    }

    void write(std::size_t page) {
        kind_[page] = next_random(random_) % 2 == 0 ? 0 : next_random(random_) % kinds_;
        for (std::size_t word = 0; word < words_a_page_; ++word)
            at(page, word) = value_of(kind_[page], word);
    }
    void check(std::size_t page) {
        for (std::size_t word = 0; word < words_a_page_; ++word)
            if (at(page, word) != value_of(kind_[page], word)) {
                note_wrong(ledger_, __LINE__);
                return;
            }
    }

    Ledger& ledger_;
    std::uint64_t kinds_;
    std::size_t words_a_page_;
    std::uint64_t random_;
    Word* memory_ = nullptr;
    std::array<std::uint64_t, pages> kind_{};
};

void keep_changing(Ledger& ledger, std::uint64_t kinds, int changes_a_turn) {
    static constexpr int turns_merged = 16;
    Area area{ledger, kinds};
    for (int turn = 0;; ++turn) {
        // What was made mergeable is not any more, or there would be nothing left to do.
        if (turn % turns_merged == 0) area.leave_unmerged();
        for (int i = 0; i < changes_a_turn; ++i) area.change(30e-6);
        ++ledger.turns;
        nap(1500);
    }
}

void change_zeros(Ledger& ledger) { keep_changing(ledger, std::uint64_t{1} << 40, 10); }
/// Slowly: ksmd merges what it has found unchanged twice.
void change_twins(Ledger& ledger) { keep_changing(ledger, 16, 1); }

/// Pages that are equal two by two, until KSM has merged them and one of each two is written to.
class Pairs {
public:
    explicit Pairs(Ledger& ledger)
        : ledger_(ledger),
          words_a_page_(static_cast<std::size_t>(::getpagesize()) / sizeof(Word)),
          random_(static_cast<std::uint64_t>(ledger.thread) * 4711) {
        void* memory = ::mmap(nullptr, groups * group_bytes(), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        ::madvise(memory, groups * group_bytes(), MADV_NOHUGEPAGE);
        memory_ = static_cast<Word*>(memory);
        for (std::size_t group = 0; group < groups; ++group) begin(group);
    }

    /// One group begins anew, another one is written to in part; all of both is checked before.
    void turn() {
        begin(next_ % groups);
        part((next_ + groups / 2) % groups);
        ++next_;
    }

private:
    static constexpr std::size_t groups = 64, pages = 8; ///< of a group

    std::size_t group_bytes() const { return pages * words_a_page_ * sizeof(Word); }
    Word* page(std::size_t group, std::size_t number) {
        return memory_ + (group * pages + number) * words_a_page_;
    }
    void check(std::size_t group) {
        for (std::size_t number = 0; number < pages; ++number)
            for (std::size_t word = 0; word < words_a_page_; ++word)
                if (page(group, number)[word] != (values_[group][number] ^ word)) {
                    note_wrong(ledger_, __LINE__);
                    break;
                }
    }
    void write(std::size_t group, std::size_t number, std::uint64_t value) {
        values_[group][number] = value;
        for (std::size_t word = 0; word < words_a_page_; ++word)
            page(group, number)[word] = value ^ word;
    }
    void begin(std::size_t group) {
        if (values_[group][0] != 0) check(group);
        for (std::size_t number = 0; number < pages; number += 2) {
            const std::uint64_t value = next_random(random_) | 1;
            write(group, number, value);
            write(group, number + 1, value);
        }
        ::madvise(const_cast<std::uint64_t*>(page(group, 0)), group_bytes(), MADV_MERGEABLE);
    }
    void part(std::size_t group) {
        check(group);
        for (std::size_t number = 1; number < pages; number += 2)
            write(group, number, next_random(random_));
    }

    Ledger& ledger_;
    std::size_t words_a_page_;
    std::uint64_t random_;
    Word* memory_ = nullptr;
    std::size_t next_ = 0;
    std::array<std::array<std::uint64_t, pages>, groups> values_{};
};

/// Between a group's begin and its parting ksmd must have come by some times, which takes it half a
/// second each where others have memory to be merged, too.
void part_pairs(Ledger& ledger) {
    Pairs pairs{ledger};
    while (true) {
        pairs.turn();
        ++ledger.turns;
        nap(75'000);
    }
}

} // namespace

void start_area_threads() {
    start_thread("zeros", change_zeros);
    start_thread("twins", change_twins);
    start_thread("pairs", part_pairs);
}

} // namespace pagesift::live
