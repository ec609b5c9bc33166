// SPDX-License-Identifier: MIT
#include "report/heat_map.hpp"
#include "report/sections.hpp"
#include "report/sinks.hpp"

#include <ostream>

namespace pagesift::report {
namespace {

/// For people. What was asked for (ranges, pages, map, mappings) takes the place of the summary;
/// pages go before ranges when both are asked for, because they come in the same order.
class TableSink {
public:
    TableSink(std::ostream& out, const ReportOptions& options)
        : options_(options),
          out_(out),
          asked_(options.mappings || options.ranges || options.pages || options.map) {}

    void begin(const ProcessText& process, std::span<const Mapping> mappings) {
        if (!first_) out_.put('\n');
        first_ = false;
        listing_.reset();
        map_.reset();
        const std::uint64_t page_size = smallest_page(mappings);
        const Screen screen = screen_for(page_size);
        render_title(screen, process);
        if (options_.pages)
            listing_.emplace(screen, Listing::Of::pages, mappings, page_size);
        else if (options_.ranges)
            listing_.emplace(screen, Listing::Of::ranges, mappings, page_size);
        if (options_.map) map_.emplace(page_size);
    }

    void run(const Run& run) {
        if (map_) map_->add(run);
        if (listing_ && !options_.pages) listing_->add(run);
    }

    void page(const Page& page) {
        if (listing_ && options_.pages) listing_->add(page);
    }

    void end(const Census& census) {
        const Screen screen = screen_for(census.host.page_size);
        if (listing_) {
            listing_->finish();
            screen.line();
        }
        render_heading(screen, census);
        if (!asked_) {
            screen.line();
            render_summary(screen, census);
            render_top_mappings(screen, census);
        }
        if (options_.mappings) {
            screen.line();
            render_all_mappings(screen, census);
        }
        if (map_) {
            screen.line();
            map_->render(screen, census);
        }
        render_footer(screen, census);
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    Screen screen_for(std::uint64_t page_size) {
        return {&out_, options_, Style{options_}, Amounts{options_.unit, page_size}};
    }

    ReportOptions options_;
    Output out_;
    bool asked_;
    bool first_ = true;
    std::optional<Listing> listing_;
    std::optional<HeatMap> map_;
};

} // namespace

Sink make_table_sink(std::ostream& out, const ReportOptions& options) {
    return bind_sink(std::make_shared<TableSink>(out, options));
}

} // namespace pagesift::report
