// SPDX-License-Identifier: MIT
#include "os/page_table_census.hpp"

#include "os/exact_lens.hpp"
#include "os/frames.hpp"
#include "pagesift/abi.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <system_error>
#include <thread>
#include <unordered_set>

namespace pagesift::os {
namespace {

/// Goes down from a top table, but for the PTE tables.
class FrameCollector {
public:
    FrameCollector(const KernelView& view, TableFrames& frames)
        : memory_(view.memory()),
          kernel_(view.kernel()),
          format_(kernel_.entries),
          frames_(frames) {}

    void collect(std::uint64_t top, Half half) {
        const unsigned level = format_.levels;
        const std::size_t all = std::size_t{1} << format_.top_index_bits;
        const std::size_t of_user = std::size_t{1} << (format_.address_bits - format_.shift(level));
        if (half == Half::user) {
            frames_[level - 1].push_back((top - kernel_.bases.direct_map) >> format_.page_shift);
            descend(level, {top}, 0, std::min(of_user, all));
        } else {
            // Empty where an architecture has another top table for the kernel.
            descend(level, {top}, std::min(of_user, all), all);
        }
    }

private:
    struct Table {
        std::uint64_t address = 0;
        std::uint64_t named_at = 0; ///< address of the entry that names it; 0: the top table
        std::uint64_t entry = 0;
    };

    /// Notes what entries [first, last) of @p table name, and goes on below.
    void descend(unsigned level, const Table& table, std::size_t first, std::size_t last) {
        const auto entries = read(level, table);
        for (std::size_t i = first; i < std::min(last, entries.size()); ++i) {
            const auto naming = format_.name(format_, entries[i], level);
            if (naming.kind != walk::Naming::Kind::table) continue;
            if (naming.frame >= kernel_.bases.frame_end) continue;
            // The kernel names some of its own tables many times (the shadow of KASAN).
            if (level > 2 && !seen_.insert(naming.frame).second) continue;
            frames_[level - 2].push_back(naming.frame);
            if (level == 2) continue;
            const Table below{kernel_.bases.direct_map + (naming.frame << format_.page_shift),
                              table.address + i * sizeof(std::uint64_t), entries[i]};
            descend(level - 1, below, 0, format_.entries_per_table());
        }
    }

    /// The entries of a table; none where it is no longer what its entry names.
    std::vector<std::uint64_t> read(unsigned level, const Table& table) {
        const bool is_top = table.named_at == 0;
        const unsigned index_bits =
            level == format_.levels ? format_.top_index_bits : format_.index_bits;
        std::vector<std::uint64_t> entries(std::size_t{1} << index_bits);
        const std::size_t bytes = entries.size() * sizeof(std::uint64_t);
        std::vector<walk::Piece> pieces{{table.address, static_cast<std::uint32_t>(bytes)}};
        if (!is_top) pieces.push_back({table.named_at, sizeof(std::uint64_t)});
        const auto copied = memory_.read(pieces);
        if (std::find(copied.good.begin(), copied.good.end(), 0) != copied.good.end()) return {};
        std::memcpy(entries.data(), copied.bytes.data(), bytes);
        if (is_top) return entries;
        std::uint64_t again = 0;
        std::memcpy(&again, copied.bytes.data() + bytes, sizeof again);
        if (!format_.same_table(again, table.entry)) return {};
        return entries;
    }

    walk::KernelMemory& memory_;
    const walk::Kernel& kernel_;
    const walk::EntryFormat& format_;
    TableFrames& frames_;
    std::unordered_set<std::uint64_t> seen_; ///< frames of tables above PTE level
};

/// All frames of all levels, each once, in order.
std::vector<std::uint64_t> sort_frames(const TableFrames& frames) {
    std::vector<std::uint64_t> all;
    for (const auto& level : frames) all.insert(all.end(), level.begin(), level.end());
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

/// Sorted frames that are asked for in order.
class Lookup {
public:
    Lookup(std::span<const std::uint64_t> frames, std::uint64_t first)
        : left_(frames.subspan(static_cast<std::size_t>(
              std::lower_bound(frames.begin(), frames.end(), first) - frames.begin()))) {}
    bool has(std::uint64_t frame) {
        while (!left_.empty() && left_.front() < frame) left_ = left_.subspan(1);
        return !left_.empty() && left_.front() == frame;
    }

private:
    std::span<const std::uint64_t> left_;
};

/// Reads kpageflags to the last frame, on a few threads: its words cost the kernel far more than
/// they cost us.
class TypedCounter {
public:
    TypedCounter(int fd, std::uint64_t frame_end, std::span<const std::uint64_t> of_processes,
                 std::span<const std::uint64_t> of_kernel)
        : fd_(fd), end_(frame_end), of_processes_(of_processes), of_kernel_(of_kernel) {}

    TypedFrames count() {
        static constexpr unsigned most_threads = 8;
        std::vector<std::thread> threads;
        const unsigned helpers =
            std::clamp(std::thread::hardware_concurrency(), 1u, most_threads) - 1;
        try {
            for (unsigned i = 0; i < helpers; ++i) threads.emplace_back([this] { work(); });
        } catch (const std::system_error&) {
            // Some limit was reached: those that there are must do.
        }
        work();
        for (auto& thread : threads) thread.join();
        return {all_, of_processes_typed_, of_kernel_typed_};
    }

    int error() const { return error_; } ///< 0: everything was read

private:
    static constexpr std::size_t chunk = 65536; ///< frames at a time: 512 KiB

    void work() {
        std::vector<std::uint64_t> words(chunk);
        while (true) {
            const std::uint64_t first = next_.fetch_add(chunk);
            if (first >= end_) return;
            const auto n = read_words(fd_, first, words);
            if (n < 0) error_ = static_cast<int>(-n);
            if (n <= 0) return; // 0: behind the last frame of RAM
            count_words(first, std::span{words}.first(static_cast<std::size_t>(n)));
        }
    }

    void count_words(std::uint64_t first, std::span<const std::uint64_t> words) {
        TypedFrames typed;
        Lookup processes{of_processes_, first}, kernel{of_kernel_, first};
        for (std::size_t i = 0; i < words.size(); ++i) {
            if ((words[i] & abi::kpf(abi::KPF_PGTABLE)) == 0) continue;
            ++typed.all;
            typed.of_processes += processes.has(first + i);
            typed.of_kernel += kernel.has(first + i);
        }
        all_ += typed.all;
        of_processes_typed_ += typed.of_processes;
        of_kernel_typed_ += typed.of_kernel;
    }

    const int fd_;
    const std::uint64_t end_;
    const std::span<const std::uint64_t> of_processes_, of_kernel_;
    std::atomic<std::uint64_t> next_{0}, all_{0}, of_processes_typed_{0}, of_kernel_typed_{0};
    std::atomic<int> error_{0};
};

class Counter {
public:
    Counter(const Machine& machine, const OpenOptions& options)
        : host_(*machine.host),
          options_(options),
          root_(options.root),
          lease_(machine.exact->lease()),
          view_(*lease_) {}

    PageTableCensus count() {
        for (const auto& name : root_.list("proc")) {
            std::uint32_t pid = 0;
            const auto* const end = name.data() + name.size();
            const auto parsed = std::from_chars(name.data(), end, pid);
            if (parsed.ec == std::errc{} && parsed.ptr == end) add_process(pid);
        }
        // Afterwards, so that what was found can be looked up.
        const auto frames = sort_frames(frames_);
        census_.frames = frames.size();
        census_.typed = count_typed(frames);
        std::stable_sort(census_.processes.begin(), census_.processes.end(),
                         [](const ProcessTables& a, const ProcessTables& b) {
                             return a.empty_tables > b.empty_tables;
                         });
        return std::move(census_);
    }

private:
    struct Opened {
        ProcessTables process;
        Fd pagemap;            ///< keeps the top table from being freed
        std::uint64_t top = 0; ///< 0: it cannot be read
    };

    /// Empty: it has no memory (a kernel thread, a zombie) or has ended.
    std::optional<Opened> open(std::uint32_t pid) {
        std::string base = fmt::format("proc/{}", pid);
        auto status = procfs::parse_status(root_.read_text(base + "/status").text);
        if (!status.has_memory() && status.threads.value_or(1) > 1) {
            // The first thread may have exited before the others.
            for (const auto& thread : root_.list(base + "/task")) {
                base = "proc/" + thread;
                status = procfs::parse_status(root_.read_text(base + "/status").text);
                if (status.has_memory()) break;
            }
        }
        if (!status.has_memory()) return {};
        auto pagemap = root_.open(base + "/pagemap", O_RDONLY);
        if (!pagemap.fd && (pagemap.error == ENOENT || pagemap.error == ESRCH)) return {};
        Opened opened;
        if (pagemap.fd) opened.top = view_.find_top_table(pagemap.fd.get()).value_or(0);
        if (opened.top == 0) {
            // Of one that has exited meanwhile, the page map opens, but knows no address space.
            const auto now = procfs::parse_status(root_.read_text(base + "/status").text);
            if (!now.has_memory()) return {};
        }
        opened.pagemap = std::move(pagemap.fd);
        opened.process.pid = pid;
        opened.process.comm = root_.read_text(fmt::format("proc/{}/comm", pid)).text;
        if (opened.process.comm.ends_with('\n')) opened.process.comm.pop_back();
        opened.process.vm_pte_bytes = status.vm_pte_bytes;
        return opened;
    }

    void add_process(std::uint32_t pid) {
        auto opened = open(pid);
        if (!opened) return;
        if (opened->top == 0) {
            ++census_.not_read;
            census_.not_read_tables += opened->process.vm_pte_bytes.value_or(0) / host_.page_size;
            return;
        }
        const auto [known, is_new] = tops_.try_emplace(opened->top, census_.processes.size());
        if (!is_new) {
            // The one before may have ended, and its top table been used again.
            auto& other = census_.processes[known->second];
            const auto again = open(other.pid);
            if (again && again->top == opened->top) {
                ++other.sharers;
                return;
            }
            known->second = census_.processes.size();
        }
        walk_process(*opened);
        census_.processes.push_back(std::move(opened->process));
    }

    void walk_process(Opened& opened) {
        const walk::EntryFormat& format = view_.kernel().entries;
        ProcessTables& process = opened.process;
        const AddressRange all{Address{0}, Address{std::uint64_t{1} << format.address_bits}};
        const auto counts = walk::walk_tables(view_.memory(), view_.kernel(), opened.top, all,
                                              [&](const walk::SlotRun& run) {
                                                  if (run.state == walk::TableState::empty)
                                                      ++process.empty_tables;
                                                  if (run.state == walk::TableState::marker_only)
                                                      ++process.marker_only_tables;
                                              });
        process.tables = counts.tables;
        process.unknown = counts.unknown;
        add_table_frames(view_, opened.top, Half::user, frames_);
        std::uint64_t counted = 0;
        for (unsigned i = 0; i < host_.counted_table_levels; ++i) counted += counts.tables[i];
        const std::uint64_t accounted = process.vm_pte_bytes.value_or(0) / host_.page_size;
        process.deposited_tables = accounted > counted ? accounted - counted : 0;
    }

    std::optional<TypedFrames> count_typed(std::span<const std::uint64_t> of_processes) {
        if (options_.without.contains("kpageflags")) return refuse(ENOSYS);
        if (const int error = FrameReader{root_, true}.flags_error()) return refuse(error);
        const auto file = root_.open("proc/kpageflags", O_RDONLY);
        if (!file.fd) return refuse(file.error);
        TableFrames kernels;
        const auto own = root_.open("proc/self/pagemap", O_RDONLY);
        if (const auto top = own.fd ? view_.find_top_table(own.fd.get()) : std::nullopt)
            add_table_frames(view_, *top, Half::kernel, kernels);
        const auto of_kernel = sort_frames(kernels);
        TypedCounter counter{file.fd.get(), view_.kernel().bases.frame_end, of_processes,
                             of_kernel};
        const auto typed = counter.count();
        return counter.error() == 0 ? std::optional{typed} : refuse(counter.error());
    }

    std::optional<TypedFrames> refuse(int error) {
        census_.gaps.push_back(
            {"kpageflags", std::nullopt,
             fmt::format("page tables of nobody cannot be told ({})", errno_name(error)),
             "root, or CAP_DAC_READ_SEARCH", false});
        return {};
    }

    const HostFacts& host_;
    const OpenOptions& options_;
    Root root_;
    ExactLens::Lease lease_;
    const KernelView& view_;
    PageTableCensus census_;
    std::map<std::uint64_t, std::size_t> tops_; ///< top table to place in the census
    TableFrames frames_;
};

} // namespace

void add_table_frames(const KernelView& view, std::uint64_t top, Half half, TableFrames& frames) {
    FrameCollector{view, frames}.collect(top, half);
}

PageTableCensus count_page_tables(const Machine& machine, const OpenOptions& options) {
    if (!machine.exact)
        throw Error{ErrorKind::unsupported, "page tables of all processes", 0, "--lens exact",
                    "only the exact lens sees them"};
    return Counter{machine, options}.count();
}

} // namespace pagesift::os
