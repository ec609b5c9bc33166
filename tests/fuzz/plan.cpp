// SPDX-License-Identifier: MIT
// Plans that were kept: whatever a file holds, it is refused or makes plans in which every range is
// in whole pages, in its mapping and disjoint, so that batches of them can be given to the kernel.
#include "fuzz.hpp"

#include "pagesift/report.hpp"

#include <sstream>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

void check_ranges(const advice::Plan& plan) {
    Address last{0};
    for (const auto& one : plan.ranges) {
        require(!one.range.empty() && last <= one.range.start, "ranges are disjoint");
        require(one.range.start.value % plan.page_size == 0 &&
                    one.range.end.value % plan.page_size == 0,
                "ranges are in whole pages");
        require(one.mapping < plan.mappings.size(), "mappings are listed");
        const AddressRange& whole = plan.mappings[one.mapping].range;
        require(whole.start <= one.range.start && one.range.end <= whole.end,
                "ranges are in their mappings");
        last = one.range.end;
    }
}

void check_batches(const advice::Plan& plan) {
    // A few bytes can speak of any number of batches.
    if (plan.forecast.bytes > std::uint64_t{1} << 36) return;
    std::uint64_t bytes = 0;
    for (const auto& batch : advice::make_batches(plan, 64 << 20)) {
        require(!batch.ranges.empty() && batch.ranges.size() <= 1024, "a call takes 1024 ranges");
        bytes += batch.bytes;
    }
    require(bytes == plan.forecast.bytes, "batches have all of it");
}

void check_output(const advice::Plan& plan) {
    for (const auto format : {report::Format::table, report::Format::json}) {
        std::ostringstream out;
        report::ReportOptions options;
        options.format = format;
        options.ranges = true;
        const auto sink = report::make_advise_sink(out, options);
        sink.process(plan, nullptr);
        sink.finish();
        if (format == report::Format::json) {
            const auto again = advice::load_plans(out.str(), "again");
            require(again.size() == 1 && again[0].ranges == plan.ranges &&
                        again[0].skipped == plan.skipped,
                    "what is written can be read");
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        for (const auto& plan : advice::load_plans(as_text(data, size), "input")) {
            check_ranges(plan);
            check_batches(plan);
            check_output(plan);
        }
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::bad_input, "the file is to blame");
        require(is_printable(error.what()) && is_printable(error.hint()),
                "the message can be printed");
    }
    return 0;
}
