// SPDX-License-Identifier: MIT
// Results of `pagesift cold` that are read back: any bytes are refused with the one error, or mean
// something that is written and read again the same.
#include "fuzz.hpp"

#include "pagesift/report.hpp"

#include <sstream>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

std::string written(const std::vector<cold::Ages>& all) {
    std::ostringstream out;
    report::ReportOptions options;
    options.format = report::Format::json;
    const auto sink = report::make_cold_sink(out, options);
    for (const cold::Ages& ages : all) {
        sink.begin(ages);
        for (const cold::Range& range : ages.ranges) sink.range(ages, range);
        sink.end(ages);
    }
    sink.finish();
    return out.str();
}

void check(const cold::Ages& ages) {
    std::uint64_t bytes = 0;
    for (const cold::Range& range : ages.ranges) {
        bytes += range.range.size().value;
        require(range.mapping < ages.mappings.size(), "a range is in a mapping");
    }
    require(bytes == ages.all_bytes(), "the histogram adds up to the ranges");
    require(ages.cold_bytes() <= bytes, "what is cold is there");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<cold::Ages> all;
    try {
        all = cold::load(as_text(data, size), "a file");
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::bad_input, "what is refused is bad input");
        return 0;
    }
    for (const cold::Ages& ages : all) check(ages);
    const auto again = cold::load(written(all), "a file");
    require(again.size() == all.size(), "as many processes are read again");
    for (std::size_t i = 0; i < all.size(); ++i)
        require(again[i].ranges == all[i].ranges, "ranges are read again the same");
    return 0;
}
