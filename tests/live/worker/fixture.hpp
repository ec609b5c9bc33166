// SPDX-License-Identifier: MIT
// The worker as tests see it: what it holds, and afterwards when it accessed each of its pages.
//
//     WorkerProcess worker({"--log", path});
//     REQUIRE(worker.ready());
//     ...                                    // look at worker.pid() while it works
//     const auto truth = worker.finish();    // it has compared all of its pages
#pragma once

#include "harness.hpp"
#include "worker/history.hpp"

#include <string>
#include <vector>

namespace pagesift::live {

struct WorkerRange {
    std::string kind; ///< anon, thp, shmem, file
    std::string heat; ///< hot, warm, cold, tight
    std::uint64_t start = 0, end = 0;
    std::uint64_t first = 0; ///< number of its first page in the history
    std::uint64_t pages = 0;
    std::uint64_t unit_pages = 1; ///< that share one accessed bit

    std::string name() const { return kind + " " + heat; }
};

class WorkerProcess {
public:
    /// Starts PAGESIFT_WORKER, by way of @p wrapper if there is one: a command that executes what
    /// its arguments say, with the same process id.
    explicit WorkerProcess(const std::vector<std::string>& arguments,
                           std::vector<std::string> wrapper = {});

    bool ready() const { return !ranges_.empty(); }
    pid_t pid() const { return process_.pid(); }
    std::uint64_t page_size() const { return page_size_; }
    const std::vector<WorkerRange>& ranges() const { return ranges_; }
    /// What this machine cannot have, with reasons.
    const json& absent() const { return absent_; }
    Background& process() { return process_; }

    /// Ends it, and CHECKs that every page held what it had to and that the history is whole if
    /// there is one. Null if it said nothing.
    json finish();

private:
    Background process_;
    std::uint64_t page_size_ = 0;
    std::vector<WorkerRange> ranges_;
    json absent_;
};

} // namespace pagesift::live
