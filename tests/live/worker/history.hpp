// SPDX-License-Identifier: MIT
// When each page of the worker was accessed: three rows of bits a page, one bit for each stretch of
// time. The worker writes them into locked memory of its own and, at its end, into a file, which
// the tests read. A page belongs to one thread, so nothing here is atomic.
//
//     history.note(page, before, after, Mode::read);          // in the worker
//     history.surely(page, Row::sure, begin, end);             // in a test, afterwards
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

namespace pagesift::live {

/// CLOCK_MONOTONIC, which worker and tests share.
inline std::uint64_t now_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

class History {
public:
    enum class Row { maybe, sure, wrote };
    static constexpr std::uint64_t bucket_ns = 20'000'000;

    History() = default;
    History(std::uint64_t pages, double seconds)
        : epoch_(now_ns()),
          pages_(pages),
          buckets_(static_cast<std::uint64_t>(seconds * 1e9) / bucket_ns + 1),
          words_(pages * rows * words_a_row()) {}

    /// An access that lies somewhere in between. Within one stretch it surely took place then; with
    /// a pause in the middle, maybe in any of several.
    void note(std::uint64_t page, std::uint64_t before, std::uint64_t after, bool wrote) {
        const std::uint64_t first = bucket(before), last = bucket(after);
        if (last >= buckets_) {
            full_ = 1;
            return;
        }
        for (std::uint64_t at = first; at <= last; ++at) set(page, Row::maybe, at);
        if (first != last) return;
        set(page, Row::sure, first);
        if (wrote) set(page, Row::wrote, first);
    }

    /// Whether a stretch that lies in the time as a whole has its bit.
    bool surely(std::uint64_t page, Row row, std::uint64_t begin, std::uint64_t end) const {
        // Times before the epoch are no part of any stretch.
        const std::uint64_t first = begin <= epoch_ ? 0 : bucket(begin + bucket_ns - 1);
        return any(page, row, first, end <= epoch_ ? 0 : bucket(end));
    }
    /// Whether a stretch that has a part in the time has its bit: an access cannot be ruled out.
    bool possibly(std::uint64_t page, std::uint64_t begin, std::uint64_t end) const {
        return any(page, Row::maybe, begin <= epoch_ ? 0 : bucket(begin),
                   end <= epoch_ ? 0 : bucket(end) + 1);
    }

    /// False once it was too short for the time that passed: then it says nothing.
    bool whole() const { return full_ == 0; }
    std::uint64_t pages() const { return pages_; }
    std::vector<std::uint64_t>& words() { return words_; }

    bool save(const std::string& path) const {
        const File file(std::fopen(path.c_str(), "wb"), &std::fclose);
        const std::uint64_t head[] = {epoch_, pages_, buckets_, full_};
        return file && std::fwrite(head, sizeof head, 1, file.get()) == 1 &&
               std::fwrite(words_.data(), 8, words_.size(), file.get()) == words_.size();
    }
    bool load(const std::string& path) {
        const File file(std::fopen(path.c_str(), "rb"), &std::fclose);
        std::uint64_t head[4];
        if (!file || std::fread(head, sizeof head, 1, file.get()) != 1) return false;
        epoch_ = head[0];
        pages_ = head[1];
        buckets_ = head[2];
        full_ = head[3];
        words_.resize(pages_ * rows * words_a_row());
        return std::fread(words_.data(), 8, words_.size(), file.get()) == words_.size();
    }

private:
    using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
    static constexpr std::uint64_t rows = 3;

    std::uint64_t words_a_row() const { return (buckets_ + 63) / 64; }
    std::uint64_t bucket(std::uint64_t time) const {
        return time < epoch_ ? 0 : (time - epoch_) / bucket_ns;
    }
    std::uint64_t word(std::uint64_t page, Row row, std::uint64_t at) const {
        return (page * rows + static_cast<std::uint64_t>(row)) * words_a_row() + at / 64;
    }
    void set(std::uint64_t page, Row row, std::uint64_t at) {
        words_[word(page, row, at)] |= std::uint64_t{1} << (at % 64);
    }
    bool any(std::uint64_t page, Row row, std::uint64_t first, std::uint64_t end) const {
        for (std::uint64_t at = first; at < std::min(end, buckets_); ++at)
            if ((words_[word(page, row, at)] >> (at % 64) & 1) != 0) return true;
        return false;
    }

    std::uint64_t epoch_ = 0, pages_ = 0, buckets_ = 0, full_ = 0;
    std::vector<std::uint64_t> words_;
};

} // namespace pagesift::live
