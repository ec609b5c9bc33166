// SPDX-License-Identifier: MIT
// The snapshot room: cuts a process into pieces that are read in parallel and handed on in order,
// and keeps or replays what a source said (recordings). It does not know what a page means.
//
//     const auto pieces = plan_pieces(mappings, {}, source.host(), resident_bytes);
//     in_order(jobs, pieces.size(), [&](std::size_t i) { return work(pieces[i]); },
//              [&](Result&& r) { deliver(std::move(r)); });
#pragma once

#include "pagesift/source.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <iosfwd>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace pagesift::snapshot {

/// Part of one mapping.
struct Part {
    std::size_t mapping; ///< index into the mappings that were planned
    AddressRange range;
};

/// One worker's portion: parts of neighbouring mappings in address order. Small mappings share a
/// piece, large ones are cut into several.
struct Piece {
    std::vector<Part> parts;
};

/// Cuts @p mappings, clipped to @p only (in address order, disjoint) unless that is empty, into
/// pieces of at most 64 Ki pages. A mapping far larger than @p resident_bytes is cut more coarsely,
/// because it is nearly empty.
std::vector<Piece> plan_pieces(std::span<const Mapping> mappings,
                               std::span<const AddressRange> only, const HostFacts& host,
                               std::uint64_t resident_bytes);

/// Reads every block of @p piece and hands it to @p sink together with its mapping.
void read_piece(Source& source, std::span<const Mapping> mappings, const Piece& piece,
                const Want& want,
                const std::function<void(std::size_t mapping, const PageBlock&)>& sink);

/// Calls work(0) … work(count - 1) on @p jobs threads and deliver(result) on this one, in order.
/// At most 4 results a thread wait. The first exception stops everything and comes out of here.
/// Where no more threads can be had, those that there are must do, if need be this one alone.
template <class Work, class Deliver>
void in_order(unsigned jobs, std::size_t count, Work&& work, Deliver&& deliver) {
    using Result = decltype(work(std::size_t{}));
    if (jobs <= 1 || count <= 1) {
        for (std::size_t i = 0; i < count; ++i) deliver(work(i));
        return;
    }
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::optional<Result>> done(count);
    std::size_t next = 0, delivered = 0;
    const std::size_t window = std::size_t{4} * jobs;
    std::exception_ptr failure;
    const auto worker = [&] {
        std::unique_lock lock{mutex};
        while (true) {
            changed.wait(lock,
                         [&] { return failure || next >= count || next < delivered + window; });
            if (failure || next >= count) return;
            const std::size_t mine = next++;
            lock.unlock();
            try {
                Result result = work(mine);
                lock.lock();
                done[mine] = std::move(result);
            } catch (...) {
                if (!lock.owns_lock()) lock.lock();
                if (!failure) failure = std::current_exception();
            }
            changed.notify_all();
        }
    };
    std::vector<std::jthread> threads;
    try {
        for (unsigned i = 0; i < std::min<std::size_t>(jobs, count); ++i)
            threads.emplace_back(worker);
    } catch (const std::exception&) {
        if (threads.empty()) return in_order(1, count, work, deliver);
    }
    std::unique_lock lock{mutex};
    try {
        while (delivered < count) {
            changed.wait(lock, [&] { return failure || done[delivered]; });
            if (failure) break;
            Result result = std::move(*done[delivered]);
            done[delivered].reset();
            ++delivered;
            lock.unlock();
            changed.notify_all();
            deliver(std::move(result));
            lock.lock();
        }
    } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (!failure) failure = std::current_exception();
    }
    lock.unlock();
    changed.notify_all();
    threads.clear();
    if (failure) std::rethrow_exception(failure);
}

/// How a recording is written: as text that people and version control can read, or compressed.
enum class Encoding { text, zstd };

/// Writes what a source said. Calls in this order: begin, blocks of each mapping in address order,
/// tables, end; again for the next process; finish. Only a finished recording can be read.
class RecordingWriter {
public:
    /// @param out must outlive the writer; a failed write throws Error(failed).
    RecordingWriter(std::ostream& out, Encoding encoding, const HostFacts& host);
    ~RecordingWriter();
    void begin(const ProcessText& process, std::span<const Mapping> mappings, const Want& want);
    void block(std::size_t mapping, const PageBlock& block);
    void tables(std::span<const AddressRange> asked,
                const std::optional<std::vector<AddressRange>>& owned);
    void end(std::span<const Gap> gaps);
    void finish();

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Passes a source through and writes down everything that it says. For one thread: blocks are
/// written in the order in which they are asked for. Both must outlive it.
class Recorder final : public Source {
public:
    Recorder(Source& source, RecordingWriter& writer) : source_(source), writer_(writer) {}

    const HostFacts& host() const override { return source_.host(); }
    ProcessText process() override;
    std::vector<Mapping> mappings(const Want& want) override;
    void read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                    PageBlock& block) override;
    std::optional<std::vector<AddressRange>>
    locate_tables(std::span<const AddressRange> ranges) override;
    std::vector<Gap> gaps() const override { return said_ = source_.gaps(); }
    /// The process is written to its end, with what gaps() said last: the process itself may have
    /// ended before it could be asked again.
    void end();

private:
    Source& source_;
    RecordingWriter& writer_;
    std::optional<ProcessText> process_;
    std::vector<Mapping> mappings_;
    std::size_t index_ = 0;
    mutable std::vector<Gap> said_;
};

/// True when @p head, the first bytes of a file, are those of a recording.
bool is_recording(std::string_view head);

/// The processes of a recording, each a source that answers as the recorded one did.
/// Throws Error(bad_input), saying what is wrong and where: not a recording, a newer version, cut
/// short, damaged.
std::vector<std::unique_ptr<Source>> load_recording(std::string_view bytes,
                                                    const std::string& subject);

/// What was asked for when @p source was recorded; empty when it is no recording.
std::optional<Want> recorded_want(const Source& source);

} // namespace pagesift::snapshot
