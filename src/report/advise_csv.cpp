// SPDX-License-Identifier: MIT
#include "pagesift/figures.hpp"
#include "report/advise_sinks.hpp"
#include "report/json_writer.hpp"

#include <fmt/format.h>

namespace pagesift::report {
namespace {

using advice::Effect;
using advice::Plan;

/// One table, as RFC 4180 describes it: a header, CRLF line ends, unknown as an empty field.
class AdviseCsvSink {
public:
    explicit AdviseCsvSink(std::ostream& out) : out_(out) {
        out_.put("pid,comm,action,record,start,end,bytes,state,kind,idle_seconds,"
                 "expected_freed_bytes,moved_bytes,reason,name\r\n");
    }

    void process(const Plan& plan, const Effect* effect) {
        for (std::size_t i = 0; i < plan.ranges.size(); ++i) {
            const auto& range = plan.ranges[i];
            start_row(plan, "range", range.range);
            word(word_of(range.state).name);
            word(range.kind == Kind::not_present ? "" : word_of(range.kind).name);
            word(range.idle_seconds ? fmt::format("{}", *range.idle_seconds) : "");
            number(advice::freed_bytes(plan, range));
            number(effect != nullptr ? effect->moved[i] : std::nullopt);
            word("");
            end_row(plan, range.mapping);
        }
        for (const auto& one : plan.skipped) left(plan, "skipped", one);
        if (effect != nullptr)
            for (const auto& one : effect->stayed) left(plan, "stayed", one);
        out_.flush();
    }

    void finish() { out_.flush(); }

private:
    template <class Range> void left(const Plan& plan, std::string_view record, const Range& one) {
        start_row(plan, record, one.range);
        out_.put(",,,,,");
        word(advice::word_of(one.reason).name);
        end_row(plan, one.mapping);
    }

    void start_row(const Plan& plan, std::string_view record, AddressRange range) {
        out_.number(plan.identity.pid);
        text(plan.comm);
        word(advice::info_of(plan.action).name);
        word(record);
        word(fmt::format("0x{:x}", range.start.value));
        word(fmt::format("0x{:x}", range.end.value));
        number(range.size().value);
    }
    void end_row(const Plan& plan, std::size_t mapping) {
        text(plan.mappings[mapping].name);
        out_.put("\r\n");
        out_.flush_if_full();
    }
    void number(std::optional<std::uint64_t> value) {
        out_.put(',');
        if (value) out_.number(*value);
    }
    void word(std::string_view own) {
        out_.put(',');
        out_.put(own);
    }
    void text(std::string_view foreign) {
        out_.put(",\"");
        for (const char c : escape_text(foreign)) {
            if (c == '"') out_.put('"');
            out_.put(c);
        }
        out_.put('"');
    }

    Output out_;
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
