// SPDX-License-Identifier: MIT
// The zero test. One word tells most pages that are not zero, at a fraction of a page's cost; where
// most pages are zero that word is read in vain, and is left out.
#include "walk/gather.hpp"

#include <algorithm>
#include <cassert>

namespace pagesift::walk {

namespace {

/// Many headers, counters and strings stand at the start of a page; its middle tells more.
constexpr std::uint64_t telling_word = 2048;
/// Frames after which it is decided anew whether the word is worth while.
constexpr std::size_t portion_frames = 512;

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__)
/// One body, compiled twice; the loader takes what the processor has. (It asks before there is a
/// thread sanitizer, into which everything that is compiled for one calls.)
#define PAGESIFT_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define PAGESIFT_VECTOR_CLONES
#endif

PAGESIFT_VECTOR_CLONES
bool is_zero(const std::byte* page, std::size_t bytes) {
    static constexpr std::size_t portion = 256;
    for (std::size_t at = 0; at < bytes; at += portion) {
        std::uint64_t any = 0;
        for (std::size_t i = 0; i < portion; i += 8) any |= load_word(page + at + i);
        if (any != 0) return false;
    }
    return true;
}

class ZeroTest {
public:
    ZeroTest(KernelMemory& memory, const Kernel& kernel)
        : memory_(memory),
          direct_map_(kernel.bases.direct_map),
          frame_end_(kernel.bases.frame_end),
          shift_(kernel.entries.page_shift),
          // As many as one call takes, for a call is dear; but no more than a cache holds.
          batch_(std::min<std::size_t>({memory.most_pieces(), memory.most_bytes() >> shift_,
                                        (std::size_t{256} * 1024) >> shift_})) {}

    void run(std::span<const std::uint64_t> frames, std::span<Zero> out) {
        bool ask_word = true;
        for (std::size_t at = 0; at < frames.size(); at += portion_frames) {
            const std::size_t count = std::min(portion_frames, frames.size() - at);
            const auto some = frames.subspan(at, count);
            const auto answers = out.subspan(at, count);
            // A page is a candidate until something says otherwise.
            std::fill(answers.begin(), answers.end(), Zero::zero);
            for (std::size_t i = 0; i < count; ++i)
                if (some[i] >= frame_end_) answers[i] = Zero::unreadable;
            if (ask_word) read_words(some, answers);
            read_pages(some, answers);
            const auto zero = std::count(answers.begin(), answers.end(), Zero::zero);
            ask_word = static_cast<std::size_t>(zero) < count - count / 4;
        }
    }

private:
    std::uint64_t address_of(std::uint64_t frame) const { return direct_map_ + (frame << shift_); }

    void select(std::span<const Zero> answers) {
        chosen_.clear();
        for (std::size_t i = 0; i < answers.size(); ++i)
            if (answers[i] == Zero::zero) chosen_.push_back(i);
    }

    void read_words(std::span<const std::uint64_t> frames, std::span<Zero> answers) {
        select(answers);
        read_each(
            memory_, chosen_.size(), 8,
            [&](std::size_t i) { return address_of(frames[chosen_[i]]) + telling_word; },
            [&](std::size_t i, const std::byte* word) {
                if (!word)
                    answers[chosen_[i]] = Zero::unreadable;
                else if (load_word(word) != 0)
                    answers[chosen_[i]] = Zero::not_zero;
            });
    }

    void read_pages(std::span<const std::uint64_t> frames, std::span<Zero> answers) {
        select(answers);
        const auto bytes = std::uint32_t{1} << shift_;
        for (std::size_t at = 0; at < chosen_.size(); at += batch_) {
            const std::size_t count = std::min(batch_, chosen_.size() - at);
            pieces_.clear();
            for (std::size_t i = 0; i < count; ++i)
                pieces_.push_back({address_of(frames[chosen_[at + i]]), bytes});
            const Copied copied = read_checked(memory_, pieces_);
            for (std::size_t i = 0; i < count; ++i) {
                Zero& answer = answers[chosen_[at + i]];
                if (!copied.good[i])
                    answer = Zero::unreadable;
                else if (!is_zero(copied.bytes.data() + i * bytes, bytes))
                    answer = Zero::not_zero;
            }
        }
    }

    KernelMemory& memory_;
    std::uint64_t direct_map_, frame_end_;
    unsigned shift_;
    std::size_t batch_;
    std::vector<std::size_t> chosen_;
    std::vector<Piece> pieces_;
};

} // namespace

void test_zero(KernelMemory& memory, const Kernel& kernel, std::span<const std::uint64_t> frames,
               std::span<Zero> out) {
    assert(frames.size() == out.size());
    ZeroTest{memory, kernel}.run(frames, out);
}

} // namespace pagesift::walk
