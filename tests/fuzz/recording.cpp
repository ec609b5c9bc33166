// SPDX-License-Identifier: MIT
// Recordings: whatever a file holds, it is read as a recording or refused; and what was read can be
// walked and looked at to its end.
#include "fuzz.hpp"

#include "pagesift/classify.hpp"
#include "snapshot/recording_file.hpp"

#include <sstream>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

using Sources = std::vector<std::unique_ptr<Source>>;

/// A few bytes can speak of any number of pages, so only so many are walked.
constexpr std::uint64_t most_blocks = 4096;
constexpr std::uint64_t most_pages = std::uint64_t{1} << 28;
constexpr std::uint64_t most_used_pages = std::uint64_t{1} << 18;
constexpr std::uint64_t most_shown_pages = std::uint64_t{1} << 14;

std::optional<Sources> try_load(std::string_view bytes) {
    try {
        return snapshot::load_recording(bytes, "input");
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::bad_input, "the file is to blame");
        require(is_printable(error.what()) && is_printable(error.hint()),
                "the message can be printed");
    }
    return {};
}

/// @p text with the last line that belongs to it. A fuzzer does not guess checksums.
std::string with_end(std::string_view text, snapshot::Encoding encoding) {
    if (const auto end = text.rfind("\nend "); end != text.npos) text = text.substr(0, end + 1);
    std::ostringstream out;
    snapshot::RecordingOutput output{out, encoding};
    output.write(text);
    output.close();
    return std::move(out).str();
}

void check_block(const PageBlock& block, AddressRange wanted, std::uint64_t page_size) {
    require(block.range.start == wanted.start && !block.range.empty(), "a block goes on");
    require(block.range.end <= wanted.end, "a block stays inside of what was wanted");
    const std::uint64_t pages = block.uniform ? 1 : block.range.size().value / page_size;
    const auto fits = [&](const auto& column) { return column.empty() || column.size() == pages; };
    require(fits(block.entries) && fits(block.flags) && fits(block.map_counts) &&
                fits(block.folio_orders) && fits(block.pmd_mapped) && fits(block.zero_page) &&
                fits(block.cache) && fits(block.content) && fits(block.swap_entries) &&
                fits(block.entry_bits),
            "a column has a value for each page, or none");
}

/// Reads all pages and says how many there are; nothing where they are too many to look at.
std::optional<std::uint64_t> walk(Source& source, const Want& want) {
    const std::uint64_t page_size = source.host().page_size;
    std::uint64_t blocks = 0, pages = 0, used = 0, last_end = 0;
    PageBlock block;
    for (const Mapping& mapping : source.mappings(want)) {
        require(mapping.range.start.value >= last_end && !mapping.range.empty(),
                "mappings are sorted and disjoint");
        last_end = mapping.range.end.value;
        for (AddressRange rest = mapping.range; !rest.empty(); rest.start = block.range.end) {
            if (++blocks > most_blocks) return {};
            source.read_block(mapping, rest, want, block);
            check_block(block, rest, page_size);
            const std::uint64_t n = block.range.size().value / page_size;
            pages += n;
            const bool none = block.uniform && !block.entries.empty() && block.entries[0] == 0;
            if (!none) used += n;
            if (pages > most_pages || used > most_used_pages) return {};
        }
    }
    return pages;
}

void check_look(Source& source, const Want& want, bool single_pages) {
    std::uint64_t last_end = 0, seen_pages = 0;
    LookOptions options;
    options.want = want;
    options.jobs = 1;
    options.on_run = [&](const Run& run) {
        require(run.range.start.value >= last_end && !run.range.empty(),
                "runs are sorted and disjoint");
        last_end = run.range.end.value;
    };
    if (single_pages) options.on_page = [&](const Page&) { ++seen_pages; };
    const Census census = look(source, options);
    std::uint64_t pages = 0;
    for (const MappingCensus& entry : census.mappings) {
        require(entry.whole, "every page of a mapping is counted");
        pages += entry.tally.pages();
    }
    require(census.totals.pages() == pages, "the totals are those of the mappings");
    require(!single_pages || seen_pages == pages, "every page is shown once");
    std::uint64_t states = 0;
    for (std::size_t i = 0; i < state_count; ++i)
        states += census.totals.state_pages(static_cast<State>(i));
    require(states == pages, "every page has one state");
}

void check_sources(Sources& sources) {
    Want everything;
    everything.zero = ZeroTest::all;
    for (const auto& source : sources)
        for (const Want& want : {Want{}, everything}) {
            if (const auto pages = walk(*source, want))
                check_look(*source, want, *pages <= most_shown_pages);
        }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto bytes = as_text(data, size);
    if (auto sources = try_load(bytes)) check_sources(*sources);
    if (!bytes.starts_with(snapshot::recording_word)) return 0;
    auto text = try_load(with_end(bytes, snapshot::Encoding::text));
    if (text) check_sources(*text);
    const auto packed = try_load(with_end(bytes, snapshot::Encoding::zstd));
    require(text.has_value() == packed.has_value(), "compression changes nothing");
    return 0;
}
