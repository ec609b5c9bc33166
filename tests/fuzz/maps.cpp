// SPDX-License-Identifier: MIT
// maps and smaps, whole and in pieces of any size.
#include "fuzz.hpp"

#include "pagesift/procfs.hpp"

#include <algorithm>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;
using procfs::MappingText;
using procfs::MapsParser;

struct Outcome {
    std::vector<MappingText> mappings;
    std::size_t ignored = 0, overlapping = 0;
};

Outcome parse(std::string_view text, std::size_t piece_size) {
    Outcome outcome;
    MapsParser parser;
    const auto sink = [&](MappingText&& m) { outcome.mappings.push_back(std::move(m)); };
    for (; !text.empty(); text.remove_prefix(std::min(piece_size, text.size())))
        parser.feed(text.substr(0, piece_size), sink);
    parser.finish(sink);
    outcome.ignored = parser.ignored_lines();
    outcome.overlapping = parser.overlapping_lines();
    return outcome;
}

bool same(const MappingText& a, const MappingText& b) {
    return a.mapping == b.mapping && a.fields == b.fields && a.vm_flags == b.vm_flags;
}

void require_same(const Outcome& a, const Outcome& b) {
    require(a.ignored == b.ignored && a.overlapping == b.overlapping,
            "the counts do not depend on the size of the pieces");
    require(std::equal(a.mappings.begin(), a.mappings.end(), b.mappings.begin(), b.mappings.end(),
                       same),
            "the mappings do not depend on the size of the pieces");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = as_text(data, size);
    const Outcome whole = parse(text, std::max<std::size_t>(size, 1));
    std::uint64_t last_end = 0;
    for (const MappingText& m : whole.mappings) {
        require(!m.mapping.range.empty(), "no mapping is empty");
        require(m.mapping.range.start.value >= last_end, "mappings are sorted and disjoint");
        require(m.mapping.permissions().size() == 4, "permissions are four letters");
        last_end = m.mapping.range.end.value;
    }
    for (const std::size_t piece_size : {1u, 2u, 7u, 64u})
        require_same(whole, parse(text, piece_size));
    return 0;
}
