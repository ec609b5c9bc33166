// SPDX-License-Identifier: MIT
// A look that runs on a thread of its own and is asked for its runs one by one, so that two looks
// can be walked side by side without keeping either.
#pragma once

#include "pagesift/classify.hpp"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

namespace pagesift {

class RunStream {
public:
    /// Begins to look. @p source must outlive this; the callbacks of @p options are replaced.
    RunStream(Source& source, LookOptions options);
    ~RunStream();
    RunStream(const RunStream&) = delete;
    RunStream& operator=(const RunStream&) = delete;

    /// Wait until they are known. They, and what follows, throw whatever the look threw.
    const ProcessText& process();
    const std::vector<Mapping>& mappings();

    /// The run that is next, in address order; null behind the last. Its start may be moved on.
    Run* front();
    void pop();

    /// The answer, once front() is null.
    Census finish();

private:
    using Batch = std::vector<Run>;
    static constexpr std::size_t batch_runs = 512, most_batches = 8;

    void look(Source& source, LookOptions options);
    void hand_over(Batch&& batch);
    void wait_for_mappings();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Batch> batches_;
    std::optional<ProcessText> process_;
    std::vector<Mapping> mappings_;
    Census census_;
    std::exception_ptr failure_;
    bool done_ = false, closed_ = false;
    Batch current_; ///< the reader's own
    std::size_t next_ = 0;
    std::thread thread_; ///< last, so that it starts when all else is there
};

} // namespace pagesift
