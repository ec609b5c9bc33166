// SPDX-License-Identifier: MIT
// A process that does to itself what it is told, and a made-up kernel's answers.
#pragma once

#include "made_up_actuator.hpp"

namespace pagesift::test {

/// Goes through a number of bytes a stop.
class MadeUpInside final : public InsideActuator {
public:
    explicit MadeUpInside(MadeUpSource& source) : source_(source) {}

    bool same = true;
    std::optional<Error> refusal;
    std::uint64_t bytes_a_stop = ~std::uint64_t{0};
    std::map<std::uint64_t, InsidePart::Outcome> outcomes; ///< by first address of a unit
    std::map<std::size_t, Error> failures;                 ///< by stop
    std::map<std::size_t, Error> late_failures;            ///< the same, after all was done
    std::function<void()> before_stop;
    std::function<void(AddressRange)> after_part; ///< of what was advised
    std::vector<InsideRequest> requests;
    std::vector<AddressRange> advised;

    bool is_same() override { return same; }
    std::optional<Error> why_not(const InsideRequest&) override { return refusal; }

    InsideAnswer advise(const InsideRequest& request,
                        std::span<const InsideRange> ranges) override {
        requests.push_back(request);
        if (before_stop) before_stop();
        if (const auto error = failures.find(requests.size()); error != failures.end())
            throw Error{error->second};
        InsideAnswer answer;
        answer.stopped_seconds = 0.001 * static_cast<double>(requests.size());
        answer.threads = 3;
        answer.processes = 1;
        std::uint64_t left = bytes_a_stop;
        for (const InsideRange& range : ranges)
            for (Address at = range.range.start; at < range.range.end && left > 0;) {
                const auto bytes = std::min(range.unit_bytes, range.range.end.value - at.value);
                act(request, {at, at + Bytes{bytes}}, answer);
                left -= std::min(left, bytes);
                at = at + Bytes{bytes};
            }
        if (const auto error = late_failures.find(requests.size()); error != late_failures.end())
            answer.ended = error->second;
        return answer;
    }

private:
    void act(const InsideRequest& request, AddressRange range, InsideAnswer& answer) {
        InsidePart part{range, InsidePart::Outcome::advised, 0};
        if (const auto found = outcomes.find(range.start.value); found != outcomes.end()) {
            part.outcome = found->second;
            part.error = part.outcome == InsidePart::Outcome::refused ? EINVAL : 0;
        }
        answer.parts.push_back(part);
        if (part.outcome != InsidePart::Outcome::advised) return;
        ++answer.calls;
        advised.push_back(range);
        if (request.proof == Proof::zero)
            for (auto at = range.start.value; at < range.end.value; at += page)
                source_.pages.erase(at);
        if (after_part) after_part(range);
        if (!source_.tables) return;
        std::erase_if(*source_.tables, [&](const AddressRange& table) {
            return range.start <= table.start && table.end <= range.end;
        });
    }

    MadeUpSource& source_;
};

} // namespace pagesift::test
