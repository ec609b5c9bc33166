// SPDX-License-Identifier: MIT
// The small texts of /proc and /sys: each parser takes any bytes and never throws.
#include "fuzz.hpp"

#include "pagesift/procfs.hpp"

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

bool is_kilobytes(const std::optional<std::uint64_t>& bytes) {
    return bytes.value_or(0) % 1024 == 0;
}

void check_status(std::string_view text) {
    const auto status = procfs::parse_status(text);
    require(is_kilobytes(status.vm_rss_bytes) && is_kilobytes(status.vm_size_bytes) &&
                is_kilobytes(status.vm_swap_bytes) && is_kilobytes(status.vm_pte_bytes),
            "sizes are whole kilobytes");
    require(status.name.find('\n') == status.name.npos, "a name is of one line");
    require(status.has_memory() == status.vm_size_bytes.has_value(), "memory has a size");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = as_text(data, size);
    check_status(text);
    const auto start = procfs::parse_start_time(text);
    if (const auto stat = procfs::parse_stat(text))
        require(start == stat->start_time, "both parsers of stat find the same start time");
    procfs::parse_mountinfo(text);
    for (const auto& [key, value] : procfs::parse_key_values(text))
        require(!key.empty() && key.find('\n') == key.npos, "a key is a word");
    for (const auto& [key, bytes] : procfs::parse_size_fields(text))
        require(is_kilobytes(bytes), "sizes are whole kilobytes");
    for (const auto& area : procfs::parse_swaps(text))
        require(is_kilobytes(area.size_bytes) && is_kilobytes(area.used_bytes),
                "sizes are whole kilobytes");
    const auto word = procfs::parse_bracketed(text);
    require(text.find(word) != text.npos, "the chosen word is one of the text");
    require(word.find(']') == word.npos, "the chosen word ends at the first bracket");
    return 0;
}
