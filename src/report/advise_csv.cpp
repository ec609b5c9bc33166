// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "report/advise_sinks.hpp"
#include "report/csv_writer.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

using advice::Effect;
using advice::Plan;

class AdviseCsvSink {
public:
    explicit AdviseCsvSink(std::ostream& out) : csv_(out) {
        csv_.header("pid,comm,action,record,start,end,bytes,state,kind,idle_seconds,"
                    "expected_freed_bytes,moved_bytes,reason,name");
    }

    void process(const Plan& plan, const Effect* effect) {
        for (std::size_t i = 0; i < plan.ranges.size(); ++i) {
            const auto& range = plan.ranges[i];
            start_row(plan, "range", range.range);
            csv_.word(word_of(range.state).name);
            csv_.word(range.kind == Kind::not_present ? "" : word_of(range.kind).name);
            csv_.word(range.idle_seconds ? fmt::format("{}", *range.idle_seconds) : "");
            csv_.number(advice::freed_bytes(plan, range));
            csv_.number(effect != nullptr ? effect->moved[i] : std::nullopt);
            csv_.empty();
            end_row(plan, range.mapping);
        }
        for (const auto& one : plan.skipped) left(plan, "skipped", one);
        if (effect != nullptr)
            for (const auto& one : effect->stayed) left(plan, "stayed", one);
        csv_.flush();
    }

    void finish() { csv_.flush(); }

private:
    template <class Range> void left(const Plan& plan, std::string_view record, const Range& one) {
        start_row(plan, record, one.range);
        csv_.empty(5);
        csv_.word(advice::word_of(one.reason).name);
        end_row(plan, one.mapping);
    }

    void start_row(const Plan& plan, std::string_view record, AddressRange range) {
        csv_.number(std::uint64_t{plan.identity.pid});
        csv_.text(plan.comm);
        csv_.word(advice::info_of(plan.action).name);
        csv_.word(record);
        csv_.address(range.start.value);
        csv_.address(range.end.value);
        csv_.number(range.size().value);
    }
    void end_row(const Plan& plan, std::size_t mapping) {
        csv_.text(plan.mappings[mapping].name);
        csv_.end_row();
    }

    CsvWriter csv_;
};

} // namespace

AdviseSink make_advise_csv_sink(std::ostream& out) {
    const auto impl = std::make_shared<AdviseCsvSink>(out);
    return {
        .process = [impl](const Plan& plan, const Effect* effect) { impl->process(plan, effect); },
        .finish = [impl] { impl->finish(); },
    };
}

} // namespace pagesift::report
