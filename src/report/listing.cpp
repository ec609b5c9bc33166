// SPDX-License-Identifier: MIT
#include "report/sections.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace pagesift::report {
namespace {

constexpr std::string_view attribute_letters = "dsxyaulwpmcb";
static_assert(attribute_letters.size() == attribute_count);

char letter_of(std::size_t attribute, std::optional<Tri> value) {
    if (!value) return '+';
    return *value == Tri::yes ? attribute_letters[attribute] : *value == Tri::no ? '-' : '?';
}

std::size_t address_digits(std::span<const Mapping> mappings) {
    std::uint64_t highest = 0;
    // vsyscall lies above everything else and would widen every line.
    for (const Mapping& m : mappings)
        if (m.range.end.value >> 63 == 0) highest = std::max(highest, m.range.end.value);
    return std::max<std::size_t>(fmt::format("{:x}", highest).size(), 8);
}

std::string class_cell(const Style& style, State state, Kind kind, Marker marker,
                       std::size_t width) {
    const std::size_t cls = class_of(state, kind);
    std::string text{class_word(cls)};
    if (marker != Marker::no_marker) text += fmt::format(" {}", word_of(marker).name);
    if (state == State::present && text == "?") text = "present ?";
    return style.paint(cls, text) + std::string(width > text.size() ? width - text.size() : 0, ' ');
}

std::string name_of(const Screen& screen, const Mapping& mapping, std::size_t width) {
    return mapping.name.empty() ? screen.style.dim(shorten("(anonymous)", width, Keep::start,
                                                           screen.style.unicode()))
                                : screen.foreign(mapping.name, width);
}

/// "anon 80%, thp 20%": the largest classes of what is there, as many as fit into @p width.
std::string mostly(const Figures& figures, std::size_t width) {
    std::vector<std::pair<std::uint64_t, std::size_t>> parts;
    for (std::size_t i = 0; i < state_count; ++i) {
        const auto state = static_cast<State>(i);
        if (state != State::present && state != State::none && figures.states[i] != 0)
            parts.emplace_back(figures.states[i], i);
    }
    for (std::size_t i = 0; i < kind_count; ++i)
        if (figures.kinds[i] != 0) parts.emplace_back(figures.kinds[i], state_count + i);
    if (parts.empty()) return std::string{word_of(State::none).name};
    std::stable_sort(parts.begin(), parts.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    const std::uint64_t whole = figures.size - figures.of(State::none);
    std::string text;
    for (const auto& [bytes, cls] : parts) {
        const std::uint64_t share = bytes * 100 / std::max<std::uint64_t>(whole, 1);
        if (share == 0 && !text.empty()) break;
        std::string next = text.empty() ? "" : ", ";
        next += class_word(cls);
        if (share < 100) next += fmt::format(" {}%", share);
        if (!text.empty() && text.size() + next.size() > width) break;
        text += next;
    }
    return text;
}

class MappingTable {
public:
    MappingTable(const Screen& screen, std::span<const MappingCensus> mappings, std::uint64_t page,
                 bool addresses)
        : screen_(screen), columns_(screen.width()), page_size_(page) {
        const std::size_t width = screen.width();
        std::uint64_t largest = 0;
        for (const MappingCensus& m : mappings) {
            largest = std::max(largest, m.mapping.range.size().value);
            digits_ = std::max(digits_, address_digits({&m.mapping, 1}));
        }
        const std::size_t amount = screen.amounts.width(largest);
        address_ = addresses || width >= 110;
        range_ = address_ && width >= 72;
        permissions_ = address_ && width >= 80;
        size_ = width >= (addresses ? 80 : 60);
        swapped_ = width >= (addresses ? 110 : 40);
        mostly_ = addresses ? (width >= 110  ? 24
                               : width >= 80 ? 13
                                             : 0)
                            : (width >= 80   ? 22
                               : width >= 66 ? 13
                                             : 0);
        if (address_) columns_.add("ADDRESS", range_ ? 2 * digits_ + 1 : digits_);
        if (permissions_) columns_.add("PERM", 4);
        if (size_) columns_.add("SIZE", amount, Align::right);
        columns_.add("PRESENT", amount, Align::right);
        if (swapped_) columns_.add("SWAPPED", amount, Align::right);
        if (mostly_ != 0) columns_.add("MOSTLY", mostly_);
        screen_.line(screen_.style.dim(columns_.header("NAME")));
    }

    void add(const MappingCensus& entry) const {
        const Mapping& m = entry.mapping;
        const Figures f = figures_of(entry.tally, page_size_);
        std::vector<std::string> cells;
        if (address_)
            cells.push_back(range_
                                ? fmt::format("{:x}-{:x}", m.range.start.value, m.range.end.value)
                                : fmt::format("{:x}", m.range.start.value));
        if (permissions_) cells.push_back(m.permissions());
        if (size_) cells.push_back(screen_.amounts(m.range.size().value));
        cells.push_back(screen_.amounts(f.of(State::present)));
        if (swapped_) cells.push_back(swap_known(entry) ? screen_.amounts(f.swapped()) : "?");
        if (mostly_ != 0)
            cells.push_back(
                shorten(mostly(f, mostly_), mostly_, Keep::start, screen_.style.unicode()));
        screen_.line(columns_.row(cells, name_of(screen_, m, columns_.rest())));
    }

private:
    static bool swap_known(const MappingCensus& entry) {
        const auto entries = entry.tally.entries();
        return std::none_of(entries.begin(), entries.end(), [](const Tally::Entry& e) {
            return e.cls.state == State::unknown &&
                   (e.cls.backing == Backing::anon || e.cls.backing == Backing::shmem);
        });
    }

    const Screen& screen_;
    Columns columns_;
    std::uint64_t page_size_;
    std::size_t digits_ = 8, mostly_ = 0;
    bool address_, range_, permissions_, size_, swapped_;
};

} // namespace

void render_top_mappings(const Screen& screen, const Census& census) {
    if (screen.options.top == 0) return;
    std::vector<std::pair<std::uint64_t, const MappingCensus*>> order;
    for (const MappingCensus& m : census.mappings)
        if (m.tally.pages() != 0) order.emplace_back(m.tally.state_pages(State::present), &m);
    const std::size_t shown = std::min(screen.options.top, order.size());
    const auto larger = [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first > b.first
                                  : a.second->mapping.range.start < b.second->mapping.range.start;
    };
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown),
                      order.end(), larger);
    if (shown == 0) return;
    std::vector<MappingCensus> top;
    for (std::size_t i = 0; i < shown; ++i) top.push_back(*order[i].second);
    screen.line();
    screen.line(screen.style.bold("Mappings") +
                (shown < order.size()
                     ? fmt::format(", {} of {} with the most present", shown, order.size())
                     : ""));
    const MappingTable table{screen, top, census.host.page_size, false};
    for (const MappingCensus& m : top) table.add(m);
}

void render_all_mappings(const Screen& screen, const Census& census) {
    const MappingTable table{screen, census.mappings, census.host.page_size, true};
    for (const MappingCensus& m : census.mappings)
        if (m.tally.pages() != 0) table.add(m);
}

Listing::Listing(const Screen& screen, Of of, std::span<const Mapping> mappings,
                 std::uint64_t page_size)
    : screen_(screen),
      columns_(screen.width()),
      mappings_(mappings),
      page_size_(page_size),
      address_width_(address_digits(mappings)),
      with_end_(screen.width() >= 96),
      with_attributes_(screen.width() >= 60),
      with_folio_(screen.width() >= 72),
      with_details_(screen.width() >= (of == Of::ranges ? 100u : 120u)) {
    const bool ranges = of == Of::ranges;
    std::uint64_t largest = 0;
    for (const Mapping& m : mappings) largest = std::max(largest, m.range.size().value);
    columns_.add("ADDRESS", ranges && with_end_ ? 2 * address_width_ + 1 : address_width_);
    if (ranges) columns_.add("SIZE", screen.amounts.width(largest), Align::right);
    columns_.add("WHAT", 14);
    if (with_attributes_) columns_.add("ATTRIBUTES", attribute_count);
    if (!ranges) columns_.add("SHARERS", 7, Align::right);
    if (!ranges && with_folio_) columns_.add("FOLIO", 8, Align::right);
    if (!ranges && with_details_) columns_.add("FRAME", 10, Align::right);
    if (with_details_) columns_.add("SWAP", 14);
    screen_.line(screen_.style.dim(columns_.header("NAME")));
}

namespace {

std::string swap_text(std::optional<unsigned> type, std::optional<std::uint64_t> offset,
                      bool contiguous) {
    if (!type || !offset) return "";
    return fmt::format("{}:{}{}", *type, *offset, contiguous ? "" : ",...");
}

} // namespace

void Listing::add(const Run& run) {
    const Mapping& mapping = mappings_[run.mapping];
    std::vector<std::string> cells;
    cells.push_back(with_end_ ? fmt::format("{:x}-{:x}", run.range.start.value, run.range.end.value)
                              : fmt::format("{:x}", run.range.start.value));
    cells.push_back(screen_.amounts(run.range.size().value));
    cells.push_back(class_cell(screen_.style, run.state, run.kind, run.marker, 14));
    if (with_attributes_) {
        std::string letters;
        for (std::size_t i = 0; i < attribute_count; ++i)
            letters += letter_of(i, run.attribute(static_cast<Attribute>(i)));
        cells.push_back(letters);
    }
    const bool single = run.range.size().value <= page_size_;
    if (with_details_)
        cells.push_back(swap_text(run.swap_type, run.swap_offset, single || run.swap_contiguous));
    screen_.line(columns_.row(cells, name_of(screen_, mapping, columns_.rest())));
    ++lines_;
}

void Listing::add(const Page& page) {
    const Mapping& mapping = mappings_[page.mapping];
    const bool framed = page.cls.state == State::present && page.cls.kind != Kind::zero_page &&
                        page.cls.kind != Kind::special;
    std::vector<std::string> cells{
        fmt::format("{:x}", page.address.value),
        class_cell(screen_.style, page.cls.state, page.cls.kind, page.cls.marker, 14)};
    if (with_attributes_) {
        std::string letters;
        for (std::size_t i = 0; i < attribute_count; ++i)
            letters += letter_of(i, page.cls.attribute(static_cast<Attribute>(i)));
        cells.push_back(letters);
    }
    const std::string unknown = framed ? "?" : "";
    cells.push_back(page.sharers ? fmt::format("{}", *page.sharers) : unknown);
    if (with_folio_)
        cells.push_back(page.folio_pages ? human_bytes(*page.folio_pages * page_size_) : unknown);
    if (with_details_) {
        cells.push_back(page.pfn ? fmt::format("{:x}", *page.pfn) : unknown);
        cells.push_back(swap_text(page.swap_type, page.swap_offset, true));
    }
    screen_.line(columns_.row(cells, name_of(screen_, mapping, columns_.rest())));
    ++lines_;
}

void Listing::finish() {
    if (lines_ == 0) {
        screen_.line("nothing matches");
        return;
    }
    if (!with_attributes_) return;
    std::string legend = "Attributes:";
    for (std::size_t i = 0; i < attribute_count; ++i)
        legend += fmt::format(" {}={},", attribute_letters[i], attribute_table()[i].name);
    legend += " -=no, ?=unknown, +=some pages";
    screen_.line();
    screen_.wrapped(legend, 2);
}

} // namespace pagesift::report
