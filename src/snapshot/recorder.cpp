// SPDX-License-Identifier: MIT
#include "pagesift/snapshot.hpp"

namespace pagesift::snapshot {

ProcessText Recorder::process() {
    if (!process_) process_ = source_.process();
    return *process_;
}

std::vector<Mapping> Recorder::mappings(const Want& want) {
    mappings_ = source_.mappings(want);
    writer_.begin(process(), mappings_, want);
    return mappings_;
}

void Recorder::read_block(const Mapping& mapping, AddressRange wanted, const Want& want,
                          PageBlock& block) {
    source_.read_block(mapping, wanted, want, block);
    while (index_ < mappings_.size() && mappings_[index_].range.end <= wanted.start) ++index_;
    if (!block.range.empty()) writer_.block(index_, block);
}

std::optional<std::vector<AddressRange>>
Recorder::locate_tables(std::span<const AddressRange> ranges) {
    auto owned = source_.locate_tables(ranges);
    writer_.tables(ranges, owned);
    return owned;
}

void Recorder::end() { writer_.end(said_); }

} // namespace pagesift::snapshot
