// SPDX-License-Identifier: MIT
#include "pagesift/classify.hpp"

#include <algorithm>
#include <cmath>

namespace pagesift {

void Tally::add(PageClass cls, std::uint64_t pages, std::uint64_t share_shifted, bool share_known) {
    if (last_ >= entries_.size() || entries_[last_].cls != cls) {
        for (last_ = 0; last_ < entries_.size(); ++last_)
            if (entries_[last_].cls == cls) break;
        if (last_ == entries_.size()) {
            entries_.push_back({cls, share_known, pages, share_shifted});
            return;
        }
    }
    Entry& known = entries_[last_];
    known.pages += pages;
    known.share_shifted += share_shifted;
    known.share_known = known.share_known && share_known;
}

void Tally::add(const Tally& other) {
    for (const Entry& entry : other.entries_)
        add(entry.cls, entry.pages, entry.share_shifted, entry.share_known);
    pss_shifted += other.pss_shifted;
    pss_unknown_pages += other.pss_unknown_pages;
    private_pages += other.private_pages;
    ksm_sharer_pages += other.ksm_sharer_pages;
    content_asked += other.content_asked;
    content_zero += other.content_zero;
    content_candidates += other.content_candidates;
    folio_unaligned_pages += other.folio_unaligned_pages;
    for (std::size_t order = 0; order < other.folio_order_pages.size(); ++order)
        add_folio_pages(order, other.folio_order_pages[order]);
}

void Tally::add_folio_pages(std::size_t order, std::uint64_t pages) {
    if (order >= folio_order_pages.size()) folio_order_pages.resize(order + 1);
    folio_order_pages[order] += pages;
}

void Tally::extrapolate(std::uint64_t pages) {
    const std::uint64_t seen = this->pages();
    if (seen == 0 || seen == pages) return;
    __extension__ using Wide = unsigned __int128;
    const auto grow = [&](std::uint64_t& number) {
        number = static_cast<std::uint64_t>((Wide{number} * pages + seen / 2) / seen);
    };
    for (Entry& entry : entries_) {
        grow(entry.pages);
        grow(entry.share_shifted);
    }
    for (std::uint64_t* number : {&pss_shifted, &pss_unknown_pages, &private_pages,
                                  &ksm_sharer_pages, &content_candidates, &folio_unaligned_pages})
        grow(*number);
    for (std::uint64_t& number : folio_order_pages) grow(number);
    // Rounding leaves a few pages; the largest class has room for them.
    const auto largest =
        std::max_element(entries_.begin(), entries_.end(),
                         [](const Entry& a, const Entry& b) { return a.pages < b.pages; });
    largest->pages += pages - this->pages();
}

std::uint64_t Tally::pages() const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries_) sum += entry.pages;
    return sum;
}

std::uint64_t Tally::state_pages(State state) const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries_)
        if (entry.cls.state == state) sum += entry.pages;
    return sum;
}

std::uint64_t Tally::kind_pages(Kind kind) const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries_)
        if (entry.cls.kind == kind) sum += entry.pages;
    return sum;
}

std::uint64_t Tally::marker_pages(Marker marker) const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries_)
        if (entry.cls.marker == marker) sum += entry.pages;
    return sum;
}

Interval wilson_interval(std::uint64_t hits, std::uint64_t sampled) {
    if (sampled == 0) return {};
    static constexpr double z = 1.959963984540054; // 95 %
    const double n = static_cast<double>(sampled);
    const double p = static_cast<double>(hits) / n;
    const double middle = p + z * z / (2 * n);
    const double spread = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    const double scale = 1 + z * z / n;
    return {std::max(0.0, (middle - spread) / scale), std::min(1.0, (middle + spread) / scale)};
}

} // namespace pagesift
