// SPDX-License-Identifier: MIT
#include "diff/run_stream.hpp"

#include <utility>

namespace pagesift {
namespace {

/// Ends a look whose reader is gone.
struct NobodyReads {};

} // namespace

RunStream::RunStream(Source& source, LookOptions options)
    : thread_([this, &source, options = std::move(options)]() mutable {
          look(source, std::move(options));
      }) {}

RunStream::~RunStream() {
    {
        const std::lock_guard lock{mutex_};
        closed_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void RunStream::look(Source& source, LookOptions options) {
    Batch batch;
    options.on_mappings = [this](const ProcessText& process, std::span<const Mapping> mappings) {
        {
            const std::lock_guard lock{mutex_};
            mappings_.assign(mappings.begin(), mappings.end());
            process_ = process;
        }
        changed_.notify_all();
    };
    options.on_run = [&](const Run& run) {
        batch.push_back(run);
        if (batch.size() >= batch_runs) hand_over(std::exchange(batch, {}));
    };
    Census census;
    std::exception_ptr failure;
    try {
        census = pagesift::look(source, options);
        hand_over(std::move(batch));
    } catch (const NobodyReads&) {
    } catch (...) {
        failure = std::current_exception();
    }
    {
        const std::lock_guard lock{mutex_};
        census_ = std::move(census);
        failure_ = failure;
        done_ = true;
    }
    changed_.notify_all();
}

void RunStream::hand_over(Batch&& batch) {
    if (batch.empty()) return;
    {
        std::unique_lock lock{mutex_};
        changed_.wait(lock, [&] { return closed_ || batches_.size() < most_batches; });
        if (closed_) throw NobodyReads{};
        batches_.push_back(std::move(batch));
    }
    changed_.notify_all();
}

void RunStream::wait_for_mappings() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return done_ || process_; });
    if (failure_) std::rethrow_exception(failure_);
}

const ProcessText& RunStream::process() {
    wait_for_mappings();
    return *process_;
}

const std::vector<Mapping>& RunStream::mappings() {
    wait_for_mappings();
    return mappings_;
}

Run* RunStream::front() {
    if (next_ < current_.size()) return &current_[next_];
    {
        std::unique_lock lock{mutex_};
        changed_.wait(lock, [&] { return done_ || !batches_.empty(); });
        if (failure_) std::rethrow_exception(failure_);
        next_ = 0;
        current_.clear();
        if (batches_.empty()) return nullptr;
        current_ = std::move(batches_.front());
        batches_.pop_front();
    }
    changed_.notify_all();
    return current_.data();
}

void RunStream::pop() { ++next_; }

Census RunStream::finish() {
    thread_.join();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(census_);
}

} // namespace pagesift
