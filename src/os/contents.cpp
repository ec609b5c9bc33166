// SPDX-License-Identifier: MIT
#include "os/contents.hpp"

#include "os/probe.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pagesift::os {

bool is_zero_filled(const std::byte* data, std::size_t size) {
    // Most pages differ in their first line, so that is looked at alone; the rest in strides that
    // compilers turn into vector instructions.
    for (std::size_t at = 0; at < size; at += 64) {
        std::uint64_t words[8];
        std::memcpy(words, data + at, sizeof words);
        std::uint64_t any = 0;
        for (const std::uint64_t word : words) any |= word;
        if (any != 0) return false;
    }
    return true;
}

bool in_sample(Address address, double share) {
    // splitmix64's finalizer: every input bit moves every output bit.
    std::uint64_t x = (address.value >> 12) + 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    x ^= x >> 31;
    return static_cast<double>(x >> 11) < share * 9007199254740992.0; // 2^53
}

namespace {

// Fits a core's second-level cache together with what is read into it.
constexpr std::size_t buffer_bytes = std::size_t{256} << 10;
constexpr std::size_t most_vectors = 512;

bool wants_content(const PageBlock& block, std::size_t i) {
    if (!(block.entries[i] & abi::PM_PRESENT)) return false;
    if (!block.zero_page.empty() && block.zero_page[i]) return false;
    return block.flags.empty() || !(block.flags[i] & abi::kpf(abi::KPF_ZERO_PAGE));
}

} // namespace

/// Pages that are fetched together, as ranges of the target's addresses.
class ContentReader::Batch {
public:
    explicit Batch(std::size_t page_size)
        : buffer(std::max<std::size_t>(buffer_bytes, page_size)), page_size_(page_size) {}

    void add(Address address, std::uint32_t index) {
        pages.push_back(index);
        if (!remote.empty()) {
            iovec& last = remote.back();
            if (reinterpret_cast<std::uintptr_t>(last.iov_base) + last.iov_len == address.value) {
                last.iov_len += page_size_;
                return;
            }
        }
        remote.push_back({reinterpret_cast<void*>(address.value), page_size_});
    }
    bool full() const {
        return remote.size() == most_vectors || (pages.size() + 1) * page_size_ > buffer.size();
    }
    void clear() {
        remote.clear();
        pages.clear();
    }
    /// Judges the first @p count of the pages from @p page on by what is in the buffer.
    void judge(PageBlock& block, std::size_t page, std::size_t count) const {
        for (std::size_t i = 0; i < count; ++i)
            block.content[pages[page + i]] =
                is_zero_filled(buffer.data() + i * page_size_, page_size_) ? Content::zero
                                                                           : Content::other;
    }

    std::vector<std::byte> buffer;
    std::vector<iovec> remote;
    std::vector<std::uint32_t> pages; ///< indexes into the block

private:
    std::size_t page_size_;
};

ContentReader::ContentReader(const Root& root, const std::string& base, std::uint32_t pid,
                             int pagemap_fd, std::uint64_t page_size, ExactLens* exact,
                             GapLog& gaps)
    : pid_(pid), pagemap_fd_(pagemap_fd), page_size_(page_size), exact_(exact), gaps_(gaps) {
    if (exact_) return;
    auto mem = root.open(base + "/mem", O_RDONLY);
    mem_error_ = mem.error;
    call_works_ = proc_has_own_pids();
    mem_ = std::move(mem.fd);
}

ReadWay ContentReader::way(const PageBlock& block, std::size_t i) const {
    if (block.flags.empty())
        return (block.entries[i] & abi::PM_FILE) ? ReadWay::call : ReadWay::mem;
    const std::uint64_t flags = block.flags[i];
    if (!(flags & abi::kpf(abi::KPF_ANON))) return flags != 0 ? ReadWay::call : ReadWay::mem;
    const bool exclusive = (flags & abi::kpf(abi::KPF_OWNER_2)) && probe_exclusive_flag();
    return exclusive ? ReadWay::call : ReadWay::mem;
}

bool ContentReader::is_wanted(const Want& want, const PageBlock& block, std::size_t i) const {
    if (!wants_content(block, i)) return false;
    return want.zero != ZeroTest::sample ||
           in_sample(block.range.start + Bytes{i * page_size_}, want.sample_share);
}

void ContentReader::read(const Mapping& mapping, const Want& want, PageBlock& block) const {
    block.content.assign(block.entries.size(), Content::not_read);
    if (exact_) {
        if (read_by_frame(mapping, want, block)) recheck(block);
        return;
    }
    Batch by_call{page_size_}, by_mem{page_size_};
    for (std::uint32_t i = 0; i < block.entries.size(); ++i) {
        if (!is_wanted(want, block, i)) continue;
        const Address address = block.range.start + Bytes{i * page_size_};
        // What cannot be read by its owner can still be read as /proc/PID/mem.
        if (call_works_ && mapping.readable && way(block, i) == ReadWay::call) {
            by_call.add(address, i);
            if (by_call.full()) read_by_call(mapping, by_call, block);
        } else {
            by_mem.add(address, i);
            if (by_mem.full()) read_by_mem(mapping, by_mem, block);
        }
    }
    read_by_call(mapping, by_call, block);
    read_by_mem(mapping, by_mem, block);
    recheck(block);
}

/// Reads frames where the kernel sees all of RAM. A page that is not there, as those of
/// memfd_secret, is refused. False: nothing could be read.
bool ContentReader::read_by_frame(const Mapping& mapping, const Want& want,
                                  PageBlock& block) const {
    std::vector<std::uint32_t> pages;
    std::vector<std::uint64_t> frames;
    for (std::uint32_t i = 0; i < block.entries.size(); ++i) {
        const std::uint64_t frame = block.entries[i] & abi::PM_PFRAME_MASK;
        if (frame == 0 || !is_wanted(want, block, i)) continue;
        pages.push_back(i);
        frames.push_back(frame);
    }
    if (frames.empty()) return false;
    std::vector<walk::Zero> answers(frames.size());
    try {
        const auto view = exact_->lease();
        walk::test_zero(view->memory(), view->kernel(), frames, answers);
    } catch (const Error& error) {
        gaps_.add({"contents", std::nullopt, error.what(), "", false});
        for (const std::uint32_t page : pages) block.content[page] = Content::refused;
        return false;
    }
    bool any_refused = false;
    for (std::size_t i = 0; i < pages.size(); ++i) {
        block.content[pages[i]] = answers[i] == walk::Zero::zero       ? Content::zero
                                  : answers[i] == walk::Zero::not_zero ? Content::other
                                                                       : Content::refused;
        any_refused = any_refused || answers[i] == walk::Zero::unreadable;
    }
    if (any_refused)
        gaps_.add(
            {"contents", mapping.range, "pages that the kernel itself cannot read", "", false});
    return true;
}

void ContentReader::refuse(const Mapping& mapping, int error) const {
    const bool denied = error == EPERM || error == EACCES;
    gaps_.add({"contents", denied ? std::nullopt : std::optional{mapping.range},
               fmt::format("pages could not be read ({})", errno_name(error)),
               denied ? "CAP_SYS_PTRACE" : "", false});
}

void ContentReader::read_by_call(const Mapping& mapping, Batch& batch, PageBlock& block) const {
    std::size_t page = 0; // of batch.pages
    std::size_t vector = 0;
    while (page < batch.pages.size()) {
        const iovec local{batch.buffer.data(), batch.buffer.size()};
        const auto n =
            ::process_vm_readv(static_cast<pid_t>(pid_), &local, 1, batch.remote.data() + vector,
                               batch.remote.size() - vector, 0);
        if (n < 0 && errno == EINTR) continue;
        const int error = n < 0 ? errno : EFAULT;
        const std::size_t done = n > 0 ? static_cast<std::size_t>(n) / page_size_ : 0;
        batch.judge(block, page, done);
        page += done;
        if (page == batch.pages.size()) break;
        // A filter forbids the call (seccomp(2)). The other way is slower, and right for any page.
        if (mem_ && (error == EPERM || error == ENOSYS)) {
            Batch rest{page_size_};
            for (; page < batch.pages.size(); ++page) {
                const std::uint32_t index = batch.pages[page];
                rest.add(block.range.start + Bytes{index * page_size_}, index);
            }
            read_by_mem(mapping, rest, block);
            break;
        }
        refuse(mapping, error);
        if (error == EPERM || error == ESRCH || error == ENOSYS) {
            for (; page < batch.pages.size(); ++page)
                block.content[batch.pages[page]] = Content::refused;
            break;
        }
        // The page that stopped the call was unmapped meanwhile; go on behind it.
        block.content[batch.pages[page++]] = Content::refused;
        for (std::size_t skip = done + 1; skip > 0;) {
            iovec& front = batch.remote[vector];
            const std::size_t here = std::min(skip, front.iov_len / page_size_);
            front.iov_base = static_cast<std::byte*>(front.iov_base) + here * page_size_;
            front.iov_len -= here * page_size_;
            skip -= here;
            if (front.iov_len == 0) ++vector;
        }
    }
    batch.clear();
}

void ContentReader::read_by_mem(const Mapping& mapping, Batch& batch, PageBlock& block) const {
    std::size_t page = 0;
    for (const iovec& range : batch.remote) {
        const std::size_t pages = range.iov_len / page_size_;
        for (std::size_t done = 0; done < pages;) {
            const auto at = reinterpret_cast<std::uintptr_t>(range.iov_base) + done * page_size_;
            const auto n = mem_ ? ::pread(mem_.get(), batch.buffer.data(),
                                          (pages - done) * page_size_, static_cast<off_t>(at))
                                : -1;
            if (mem_ && n < 0 && errno == EINTR) continue;
            const std::size_t got = n > 0 ? static_cast<std::size_t>(n) / page_size_ : 0;
            if (got == 0) {
                refuse(mapping, !mem_ ? mem_error_ : n < 0 ? errno : ESRCH);
                block.content[batch.pages[page + done]] = Content::refused;
                ++done;
                continue;
            }
            batch.judge(block, page + done, got);
            done += got;
        }
        page += pages;
    }
    batch.clear();
}

void ContentReader::recheck(PageBlock& block) const {
    static constexpr std::uint64_t identity =
        abi::PM_PRESENT | abi::PM_SWAP | abi::PM_FILE | abi::PM_PFRAME_MASK;
    const auto is_zero = [](Content c) { return c == Content::zero; };
    if (std::none_of(block.content.begin(), block.content.end(), is_zero)) return;
    std::vector<std::uint64_t> now(block.entries.size());
    const auto n = read_words(pagemap_fd_, block.range.start.value / page_size_, now);
    for (std::size_t i = 0; i < now.size(); ++i) {
        if (!is_zero(block.content[i])) continue;
        const bool same = static_cast<std::int64_t>(i) < n &&
                          (now[i] & identity) == (block.entries[i] & identity);
        if (!same) block.content[i] = Content::changed;
    }
}

} // namespace pagesift::os
