// SPDX-License-Identifier: MIT
//
// The bare calls behind `advise pt-reclaim`: a process that has COUNT empty page tables, every
// second slot, gives each of them back by a madvise(2) of its own. Only the calls are timed.
// usage: bare_reclaim COUNT
#include "../region.hpp"

#include <chrono>
#include <cstdlib>
#include <exception>

using namespace pagesift::bench;

int main(int argc, char** argv) {
    try {
        const SlotPairs pairs(argc == 2 ? std::strtoull(argv[1], nullptr, 10) : tables_wanted);
        pairs.make();
        const auto begin = std::chrono::steady_clock::now();
        for (std::uint64_t index = 0; index < pairs.count(); ++index)
            if (madvise(pairs.empty(index), SlotPairs::slot, MADV_DONTNEED) != 0) fail("madvise");
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        std::printf("{\"loop_seconds\": %.9f}\n", took.count());
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bare_reclaim: %s\n", error.what());
        return 1;
    }
}
