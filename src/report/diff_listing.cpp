// SPDX-License-Identifier: MIT
#include "report/diff_sections.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

constexpr std::size_t word_width = 15; // "present-unknown"
constexpr std::size_t address_width = 12;

std::string class_cell(const Screen& screen, const Sighting& seen) {
    const std::string word{sighting_word(seen)};
    const std::size_t cls =
        seen.mapped ? class_of(seen.state, seen.kind) : class_of(State::none, Kind::not_present);
    return screen.style.paint(cls, word) +
           std::string(word_width > word.size() ? word_width - word.size() : 0, ' ');
}

std::string name_cell(const Screen& screen, const Mapping& mapping, std::size_t width) {
    if (!mapping.name.empty()) return screen.foreign(mapping.name, width);
    return screen.style.dim(shorten("(anonymous)", width, Keep::start, screen.style.unicode()));
}

/// "anon > swapped": the largest of what changed in a pair.
std::string mostly(const MappingPair& pair) {
    for (const Transition& t : pair.transitions)
        if (moves_memory(t))
            return fmt::format("{} > {}", sighting_word(t.from), sighting_word(t.to));
    return "";
}

class PairTable {
public:
    PairTable(const Screen& screen, const ProcessDiff& diff, bool addresses)
        : screen_(screen), diff_(diff), columns_(screen.width()), addresses_(addresses) {
        const std::size_t width = screen.width();
        std::uint64_t largest = 0;
        for (const MappingPair& pair : diff.mappings)
            largest = std::max(largest, changed_bytes(pair, diff.after.host.page_size));
        const std::size_t amount = screen.amounts.width(largest);
        both_ = width >= (addresses ? 90 : 72);
        mostly_ = width >= 110 ? 32 : width >= 76 ? 22 : 0;
        if (addresses_) columns_.add("ADDRESS", address_width);
        columns_.add("CHANGED", amount, Align::right);
        if (both_) columns_.add("PRESENT", amount + 1, Align::right);
        if (both_) columns_.add("SWAPPED", amount + 1, Align::right);
        columns_.add("MAPPING", 7);
        if (mostly_ != 0) columns_.add("MOSTLY", mostly_);
        screen_.line(screen_.style.dim(columns_.header("NAME")));
    }

    void add(const MappingPair& pair) const {
        const Mapping& mapping = mapping_of(diff_, pair);
        std::vector<std::string> cells;
        if (addresses_) cells.push_back(fmt::format("{:x}", mapping.range.start.value));
        cells.push_back(screen_.amounts(changed_bytes(pair, diff_.after.host.page_size)));
        if (both_) {
            const auto changes = mapping_changes(diff_, pair);
            cells.push_back(signed_amount(screen_, find(changes, "states", "present").delta()));
            cells.push_back(signed_amount(screen_, swapped_delta(changes)));
        }
        cells.emplace_back(word_of(pair.change).name);
        if (mostly_ != 0)
            cells.push_back(shorten(mostly(pair), mostly_, Keep::start, screen_.style.unicode()));
        screen_.line(columns_.row(cells, name_cell(screen_, mapping, columns_.rest())));
    }

private:
    const Screen& screen_;
    const ProcessDiff& diff_;
    Columns columns_;
    bool addresses_, both_;
    std::size_t mostly_;
};

} // namespace

std::string signed_amount(const Screen& screen, std::optional<std::int64_t> bytes) {
    if (!bytes) return "?";
    const auto size = static_cast<std::uint64_t>(*bytes < 0 ? -*bytes : *bytes);
    return (*bytes < 0 ? "-" : *bytes > 0 ? "+" : "") + screen.amounts(size);
}

void render_top_transitions(const Screen& screen, const ProcessDiff& diff) {
    std::vector<Transition> moved;
    std::copy_if(diff.transitions.begin(), diff.transitions.end(), std::back_inserter(moved),
                 moves_memory);
    const std::size_t shown = std::min(screen.options.top, moved.size());
    if (screen.options.top == 0) return;
    screen.line();
    if (moved.empty()) return screen.line("No page is anything else than it was.");
    screen.line(screen.style.bold("What became of pages") +
                (shown < moved.size()
                     ? fmt::format(", the {} largest of {} changes", shown, moved.size())
                     : ""));
    const std::uint64_t page_size = diff.after.host.page_size;
    Columns columns{screen.width()};
    columns.add("SIZE", screen.amounts.width(moved[0].pages * page_size), Align::right);
    columns.add("FROM", word_width);
    screen.line(screen.style.dim(columns.header("TO")));
    for (std::size_t i = 0; i < shown; ++i)
        screen.line(columns.row(
            {screen.amounts(moved[i].pages * page_size), class_cell(screen, moved[i].from)},
            class_cell(screen, moved[i].to)));
}

void render_top_pairs(const Screen& screen, const ProcessDiff& diff) {
    const std::uint64_t page_size = diff.after.host.page_size;
    std::vector<std::pair<std::uint64_t, const MappingPair*>> order;
    for (const MappingPair& pair : diff.mappings)
        if (has_changed(pair)) order.emplace_back(changed_bytes(pair, page_size), &pair);
    const std::size_t shown = std::min(screen.options.top, order.size());
    if (shown == 0) return;
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    screen.line();
    screen.line(screen.style.bold("Mappings") +
                (shown < order.size()
                     ? fmt::format(", {} of {} in which most has changed", shown, order.size())
                     : " that have changed"));
    const PairTable table{screen, diff, false};
    for (std::size_t i = 0; i < shown; ++i) table.add(*order[i].second);
}

void render_changed_pairs(const Screen& screen, const ProcessDiff& diff) {
    std::optional<PairTable> table;
    std::size_t same = 0;
    for (const MappingPair& pair : diff.mappings) {
        if (!has_changed(pair)) {
            ++same;
            continue;
        }
        if (!table) table.emplace(screen, diff, true);
        table->add(pair);
    }
    if (same != 0)
        screen.line(fmt::format("{} mapping{} unchanged", same, same == 1 ? " is" : "s are"));
}

RangeListing::RangeListing(const Screen& screen) : screen_(screen), columns_(screen.width()) {
    columns_.add("ADDRESS", address_width);
    columns_.add("SIZE", 8, Align::right);
    columns_.add("FROM", word_width);
    columns_.add("TO", word_width);
    screen_.line(screen_.style.dim(columns_.header("NAME")));
}

void RangeListing::add(const ChangedRange& changed) {
    any_ = true;
    screen_.line(columns_.row({fmt::format("{:x}", changed.range.start.value),
                               screen_.amounts(changed.range.size().value),
                               class_cell(screen_, changed.from), class_cell(screen_, changed.to)},
                              name_cell(screen_, *changed.mapping, columns_.rest())));
}

void RangeListing::finish() const {
    if (!any_) screen_.line("nothing has changed");
}

} // namespace pagesift::report
