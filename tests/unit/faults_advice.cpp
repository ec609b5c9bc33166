// SPDX-License-Identifier: MIT
// Actuators that fail, at every call and in every way, and a source that fails while something is
// done: what is reported was done, the rest is named, and nothing goes on where it must not.
#include "error_of.hpp"
#include "faults.hpp"
#include "made_up_advice.hpp"
#include "made_up_inside.hpp"

#include <algorithm>
#include <array>

using namespace pagesift;
using namespace pagesift::advice;
using namespace pagesift::test;

namespace {

constexpr std::uint64_t base = 0x10000000;
constexpr std::array errors{EINTR, EAGAIN, EPERM, ESRCH, EIO, ENOMEM, EINVAL, EBUSY, EBADF, ENOSYS};

/// What goes wrong with one call of an Actuator.
struct ActFault {
    enum class Way {
        error,          ///< of advise: nothing was done
        error_half_way, ///< of advise: of the ranges half were gone through; no error comes out
        torn,           ///< of advise: a page of the first range, and no error
        nothing,        ///< of advise: no byte and no error
        throws,         ///< any call
        throws_after,   ///< any call: after it was done
        other_process,  ///< of is_same
        empty,          ///< of frame_flags and gauges
        unknown,        ///< of frame_flags
    } way = Way::error;
    int error = 0;
    ErrorKind kind = ErrorKind::failed;
};

std::vector<ActFault> act_faults() {
    using Way = ActFault::Way;
    std::vector<ActFault> all;
    for (const int error : errors) all.push_back({Way::error, error, {}});
    for (const auto way : {Way::error_half_way, Way::torn, Way::nothing, Way::other_process,
                           Way::empty, Way::unknown})
        all.push_back({way, 0, {}});
    for (const auto kind :
         {ErrorKind::gone, ErrorKind::denied, ErrorKind::unsupported, ErrorKind::failed})
        for (const auto way : {Way::throws, Way::throws_after}) all.push_back({way, 0, kind});
    return all;
}

class FaultyActuator final : public Actuator {
public:
    FaultyActuator(MadeUpActuator& actuator, ActFault fault, std::size_t at)
        : actuator_(actuator), fault_(fault), at_(at) {}

    bool hit() const { return hit_; }
    std::size_t calls() const { return calls_; }
    /// Of advise, after one that showed that there is nobody to be advised.
    std::size_t advised_nobody() const { return advised_nobody_; }
    std::uint64_t done_bytes() const { return done_bytes_; } ///< gone through, by advise

    bool is_same() override {
        return act<bool>(
            Way::other_process, [] { return false; }, [&] { return actuator_.is_same(); });
    }
    AdviseResult advise(int advice, std::span<const AddressRange> ranges) override {
        advised_nobody_ += nobody_;
        const auto done = [&](std::span<const AddressRange> some) {
            if (some.empty()) return AdviseResult{};
            auto result = actuator_.advise(advice, some);
            done_bytes_ += result.done_bytes;
            return result;
        };
        const auto whole = [&] { return done(ranges); };
        switch (fault_.way) {
        case Way::error_half_way:
            return act<AdviseResult>(
                fault_.way, [&] { return done(ranges.first(ranges.size() / 2)); }, whole);
        case Way::torn:
            return act<AdviseResult>(
                fault_.way,
                [&] {
                    const AddressRange first{ranges[0].start, ranges[0].start + Bytes{page}};
                    return done({&first, 1});
                },
                whole);
        case Way::nothing:
            return act<AdviseResult>(
                fault_.way, [] { return AdviseResult{}; }, whole);
        default:
            return act<AdviseResult>(
                Way::error,
                [&] {
                    return AdviseResult{0, fault_.error, 0};
                },
                whole);
        }
    }
    AdviseResult advise_everywhere(int advice, AddressRange range) override {
        return act<AdviseResult>(
            Way::error,
            [&] {
                return AdviseResult{0, fault_.error, 0};
            },
            [&] { return actuator_.advise_everywhere(advice, range); });
    }
    std::vector<std::optional<std::uint64_t>>
    frame_flags(std::span<const std::uint64_t> frames) override {
        using Flags = std::vector<std::optional<std::uint64_t>>;
        return act<Flags>(
            fault_.way == Way::unknown ? Way::unknown : Way::empty,
            [&] { return Flags(fault_.way == Way::unknown ? frames.size() : 0); },
            [&] { return actuator_.frame_flags(frames); }, false);
    }
    Gauges gauges() override {
        return act<Gauges>(
            Way::empty, [] { return Gauges{}; }, [&] { return actuator_.gauges(); });
    }

private:
    using Way = ActFault::Way;

    template <class Answer, class Wrong, class Right>
    Answer act(Way way, Wrong&& wrong, Right&& right, bool about_process = true) {
        if (calls_++ != at_) return right();
        const bool before = fault_.way == Way::throws, after = fault_.way == Way::throws_after;
        hit_ = before || after || fault_.way == way;
        if (!hit_) return right();
        nobody_ = about_process && (before || after || way == Way::other_process);
        if (after) right();
        if (before || after) throw Error{fault_.kind, "made up", 0, "", "a fault"};
        return wrong();
    }

    MadeUpActuator& actuator_;
    ActFault fault_;
    std::size_t at_, calls_ = 0, advised_nobody_ = 0;
    std::uint64_t done_bytes_ = 0;
    bool hit_ = false, nobody_ = false;
};

/// A process with ranges of both sorts: of anonymous memory, and of a file.
struct Rig {
    MadeUpSource source;
    MadeUpActuator actuator{source};
    ApplyOptions options;

    explicit Rig(Action action) {
        options.want.cache = true;
        options.batch_bytes = 12 * page;
        options.retries = 2;
        for (std::uint64_t part = 0; part < 3; ++part) {
            const std::uint64_t start = base + part * slot;
            source.map(start, start + 64 * page);
            for (std::uint64_t run = 0; run < 3; ++run)
                for (std::uint64_t i = 0; i < 6; ++i)
                    fill(action, start + (run * 16 + i) * page, part * 256 + run * 64 + i + 1);
        }
        actuator.gauge.swapped_in_pages = 0;
    }

    void fill(Action action, std::uint64_t at, std::uint64_t frame) {
        if (action == Action::willneed) {
            source.pages[at] = swapped_page(frame);
            return;
        }
        auto one = anon_page(frame);
        if (action == Action::cold) one.flags |= abi::kpf(abi::KPF_ACTIVE);
        if (frame % 5 == 0) one.flags &= ~abi::kpf(abi::KPF_LRU); // fresh
        source.pages[at] = one;
    }
};

/// Pages of the plan that are not what they were.
std::uint64_t moved_pages(const std::map<std::uint64_t, MadeUpPage>& before,
                          const std::map<std::uint64_t, MadeUpPage>& after) {
    std::uint64_t moved = 0;
    for (const auto& [address, one] : before) {
        const MadeUpPage& now = after.at(address);
        const bool left = (one.entry & abi::PM_PRESENT) && !(now.entry & abi::PM_PRESENT);
        const bool cooled = (one.flags & ~now.flags & abi::kpf(abi::KPF_ACTIVE)) != 0;
        moved += left || cooled;
    }
    return moved;
}

/// Every byte of the plan moved, or was left for one reason; some may be unknown.
void check_accounts(const Plan& plan, const Effect& effect, bool all_named) {
    auto stayed = effect.stayed;
    std::stable_sort(stayed.begin(), stayed.end(), [](const Stayed& a, const Stayed& b) {
        return a.range.start < b.range.start;
    });
    std::uint64_t left = 0;
    Address last{0};
    for (const Stayed& one : stayed) {
        CHECK(last <= one.range.start);
        last = one.range.end;
        left += one.range.size().value;
        std::uint64_t inside = 0;
        for (const PlannedRange& range : plan.ranges)
            inside += range.range.intersect(one.range).size().value;
        CHECK(inside == one.range.size().value);
    }
    REQUIRE(effect.moved.size() == plan.ranges.size());
    std::uint64_t moved = 0;
    bool known = true;
    for (const auto& bytes : effect.moved) {
        known = known && bytes.has_value();
        moved += bytes.value_or(0);
    }
    if (known && effect.moved_bytes) CHECK(moved == *effect.moved_bytes);
    CHECK(effect.moved_bytes.value_or(0) + left <= plan.forecast.bytes);
    if (all_named && known) CHECK(moved + left == plan.forecast.bytes);
}

void check_effect(const Plan& plan, const Effect& effect, const Rig& rig,
                  const std::map<std::uint64_t, MadeUpPage>& before,
                  std::uint64_t advised_at_most) {
    const bool by_state = plan.action == Action::pageout || plan.action == Action::cold;
    check_accounts(plan, effect, by_state);
    CHECK(effect.advised_bytes <= advised_at_most);
    if (!by_state) return;
    const auto moved = moved_pages(before, rig.source.pages) * page;
    CHECK(effect.moved_bytes.value_or(0) <= moved);
    CHECK(effect.freed_bytes.value_or(0) + effect.kept_bytes.value_or(0) <= moved);
}

Effect apply_to(Rig& rig, const Plan& plan, Source& source, Actuator& actuator) {
    const Situation situation = roomy(rig.source);
    return apply(plan, situation, source, actuator, rig.options);
}

} // namespace

TEST_CASE("faults: an effect claims no more than an actuator that fails has done") {
    for (const Action action : {Action::pageout, Action::cold, Action::willneed}) {
        CAPTURE(info_of(action).name);
        Rig calm{action};
        const Plan plan = make_plan(calm.source, action);
        REQUIRE(plan.ranges.size() == 9);
        FaultyActuator counter{calm.actuator, {}, ~std::size_t{0}};
        const Effect whole = apply_to(calm, plan, calm.source, counter);
        REQUIRE(whole.advised_bytes == plan.forecast.bytes);
        for (std::size_t at = 0; at < counter.calls(); ++at)
            for (const ActFault& fault : act_faults()) {
                CAPTURE(at);
                CAPTURE(static_cast<int>(fault.way));
                CAPTURE(fault.error);
                Rig rig{action};
                const auto before = rig.source.pages;
                FaultyActuator faulty{rig.actuator, fault, at};
                std::optional<Effect> effect;
                const auto error =
                    error_of([&] { effect = apply_to(rig, plan, rig.source, faulty); });
                injected_faults() += faulty.hit();
                // An error comes out only where nothing was done.
                if (error) CHECK(faulty.done_bytes() == 0);
                CHECK(faulty.advised_nobody() == 0);
                if (!effect) continue;
                check_effect(plan, *effect, rig, before, faulty.done_bytes());
                const bool ends = fault.way == ActFault::Way::throws ||
                                  fault.way == ActFault::Way::throws_after ||
                                  fault.way == ActFault::Way::other_process;
                if (!ends) CHECK_FALSE(effect->ended);
            }
    }
}

TEST_CASE("faults: an effect claims no more than a source that fails has seen") {
    for (const Action action : {Action::pageout, Action::cold, Action::willneed}) {
        CAPTURE(info_of(action).name);
        Rig calm{action};
        const Plan plan = make_plan(calm.source, action);
        FaultySource counter{calm.source, SourceFault::gone, ~std::size_t{0}};
        apply_to(calm, plan, counter, calm.actuator);
        for (std::size_t at = 0; at < counter.calls(); ++at)
            for (int i = 0; i < source_faults; ++i) {
                CAPTURE(at);
                CAPTURE(i);
                Rig rig{action};
                const auto before = rig.source.pages;
                const auto fault = static_cast<SourceFault>(i);
                FaultySource faulty{rig.source, fault, at};
                FaultyActuator watched{rig.actuator, {}, ~std::size_t{0}};
                // Throws nothing once something was done, and nothing is done before all else.
                const Effect effect = apply_to(rig, plan, faulty, watched);
                injected_faults() += faulty.hit();
                check_effect(plan, effect, rig, before, watched.done_bytes());
                CHECK(effect.ended.has_value() == (throws(fault) && faulty.hit()));
            }
    }
}

namespace {

/// What goes wrong with one call of an InsideActuator.
struct InsideFault {
    enum class Way {
        throws,
        other_process, ///< of is_same
        refuses,       ///< of why_not
        nothing,       ///< these are of advise: no part
        half,          ///< the first half of the ranges only
        refused,       ///< each part, with an errno
        unproven,      ///< each part
        unmapped,      ///< each part
    } way = Way::throws;
    int error = 0;
    ErrorKind kind = ErrorKind::failed;
};

std::vector<InsideFault> inside_faults() {
    using Way = InsideFault::Way;
    std::vector<InsideFault> all;
    for (const auto way :
         {Way::other_process, Way::nothing, Way::half, Way::unproven, Way::unmapped})
        all.push_back({way, 0, {}});
    for (const int error : errors) all.push_back({Way::refused, error, {}});
    for (const auto kind :
         {ErrorKind::gone, ErrorKind::denied, ErrorKind::unsupported, ErrorKind::failed})
        for (const auto way : {Way::throws, Way::refuses}) all.push_back({way, 0, kind});
    return all;
}

class FaultyInside final : public InsideActuator {
public:
    FaultyInside(InsideActuator& actuator, InsideFault fault, std::size_t at)
        : actuator_(actuator), fault_(fault), at_(at) {}

    bool hit() const { return hit_; }
    std::size_t calls() const { return calls_; }
    std::size_t advised_nobody() const { return advised_nobody_; }
    std::uint64_t advised_bytes() const { return advised_bytes_; }

    bool is_same() override {
        if (strikes(fault_.way == Way::other_process)) {
            nobody_ = true;
            return false;
        }
        return actuator_.is_same();
    }
    std::optional<Error> why_not(const InsideRequest& request) override {
        if (strikes(fault_.way == Way::refuses)) {
            nobody_ = true;
            return Error{fault_.kind, "made up", 0, "", "a fault"};
        }
        return actuator_.why_not(request);
    }
    InsideAnswer advise(const InsideRequest& request,
                        std::span<const InsideRange> ranges) override {
        advised_nobody_ += nobody_;
        if (!strikes(fault_.way >= Way::nothing)) return count(actuator_.advise(request, ranges));
        using Outcome = InsidePart::Outcome;
        switch (fault_.way) {
        case Way::nothing: return {};
        case Way::half:
            if (ranges.size() < 2) return {};
            return count(actuator_.advise(request, ranges.first(ranges.size() / 2)));
        case Way::refused: return all_are(Outcome::refused, ranges);
        case Way::unproven: return all_are(Outcome::not_proven, ranges);
        case Way::unmapped: return all_are(Outcome::mapping_changed, ranges);
        default: return count(actuator_.advise(request, ranges));
        }
    }

private:
    using Way = InsideFault::Way;

    bool strikes(bool of_this_sort) {
        if (calls_++ != at_) return false;
        hit_ = of_this_sort || fault_.way == Way::throws;
        if (fault_.way != Way::throws) return hit_;
        // A stop that failed may be tried again; else there is nobody to be stopped.
        nobody_ = fault_.kind != ErrorKind::failed;
        throw Error{fault_.kind, "made up", 0, "", "a fault"};
    }
    InsideAnswer count(InsideAnswer answer) {
        for (const InsidePart& part : answer.parts)
            if (part.outcome == InsidePart::Outcome::advised)
                advised_bytes_ += part.range.size().value;
        return answer;
    }
    InsideAnswer all_are(InsidePart::Outcome outcome, std::span<const InsideRange> ranges) const {
        InsideAnswer answer;
        for (const InsideRange& range : ranges)
            answer.parts.push_back({range.range, outcome, fault_.error});
        return answer;
    }

    InsideActuator& actuator_;
    InsideFault fault_;
    std::size_t at_, calls_ = 0, advised_nobody_ = 0;
    std::uint64_t advised_bytes_ = 0;
    bool hit_ = false, nobody_ = false;
};

/// A process with zeros, and with page tables that are empty.
struct InsideRig {
    MadeUpSource source;
    MadeUpInside inside{source};
    ApplyOptions options;
    Plan plan;

    explicit InsideRig(Action action) {
        options.want.zero = ZeroTest::all;
        options.batch_bytes = action == Action::pt_reclaim ? 3 * slot : 12 * page;
        inside.bytes_a_stop = action == Action::pt_reclaim ? slot : 4 * page;
        source.text.status = "VmRSS:\t 4096 kB\nVmPTE:\t 80 kB\n";
        for (std::uint64_t part = 0; part < 3; ++part)
            give_flags(source.map(base + part * 4 * slot, base + (part * 4 + 3) * slot),
                       "rd wr mr mw me ac");
        if (action == Action::pt_reclaim)
            plan_tables_of();
        else
            plan_zeros();
    }

    void plan_zeros() {
        for (std::uint64_t part = 0; part < 3; ++part)
            for (std::uint64_t i = 0; i < 10; ++i) {
                const std::uint64_t at = base + part * 4 * slot + (i + i / 5) * page;
                source.pages[at] = anon_page(100 + part * 32 + i);
                source.pages[at].content = Content::zero;
            }
        Request request;
        request.action = Action::zero_drop;
        LookOptions with;
        with.want.zero = ZeroTest::all;
        plan = make_plan(source, request, roomy(source), with);
    }

    void plan_tables_of() {
        Census census;
        source.tables.emplace();
        for (std::uint64_t i = 0; i < 9; ++i) {
            const std::uint64_t start = base + (i / 3 * 4 + i % 3) * slot;
            const AddressRange range{Address{start}, Address{start + slot}};
            census.tables.slots.push_back({range, SlotState::empty, true, false});
            source.tables->push_back(range);
        }
        census.tables.located_tables = census.tables.slots.size();
        for (const Mapping& mapping : source.maps) {
            census.mappings.emplace_back();
            census.mappings.back().mapping = mapping;
        }
        Request request;
        request.action = Action::pt_reclaim;
        plan = plan_tables(request, roomy(source), census, {});
        plan.identity = {42, 4711, "boot"};
    }
};

void check_inside(const InsideRig& rig, const Effect& effect, std::uint64_t advised) {
    check_accounts(rig.plan, effect, true);
    CHECK(effect.advised_bytes == advised);
    CHECK(effect.moved_bytes.value_or(0) <= advised);
    if (rig.plan.action == Action::zero_drop) CHECK(effect.freed_bytes.value_or(0) <= advised);
    for (const AddressRange& freed : effect.freed_tables)
        for (const AddressRange& table : *rig.source.tables) CHECK(freed.intersect(table).empty());
}

} // namespace

TEST_CASE("faults: an effect from inside claims no more than what was done in stops that fail") {
    for (const Action action : {Action::zero_drop, Action::pt_reclaim}) {
        CAPTURE(info_of(action).name);
        InsideRig calm{action};
        REQUIRE(calm.plan.ranges.size() >= 3);
        FaultyInside counter{calm.inside, {}, ~std::size_t{0}};
        const Effect whole = apply_inside(calm.plan, calm.source, counter, calm.options);
        REQUIRE(whole.moved_bytes == calm.plan.forecast.bytes);
        for (std::size_t at = 0; at < counter.calls(); ++at)
            for (const InsideFault& fault : inside_faults()) {
                CAPTURE(at);
                CAPTURE(static_cast<int>(fault.way));
                InsideRig rig{action};
                FaultyInside faulty{rig.inside, fault, at};
                std::optional<Effect> effect;
                const auto error = error_of(
                    [&] { effect = apply_inside(rig.plan, rig.source, faulty, rig.options); });
                injected_faults() += faulty.hit();
                if (error) CHECK(faulty.advised_bytes() == 0);
                CHECK(faulty.advised_nobody() == 0);
                if (effect) check_inside(rig, *effect, faulty.advised_bytes());
            }
    }
}

TEST_CASE("faults: an effect from inside claims no more than a source that fails has seen") {
    for (const Action action : {Action::zero_drop, Action::pt_reclaim}) {
        CAPTURE(info_of(action).name);
        InsideRig calm{action};
        FaultySource counter{calm.source, SourceFault::gone, ~std::size_t{0}};
        apply_inside(calm.plan, counter, calm.inside, calm.options);
        for (std::size_t at = 0; at < counter.calls(); ++at)
            for (int i = 0; i < source_faults; ++i) {
                CAPTURE(at);
                CAPTURE(i);
                InsideRig rig{action};
                const auto fault = static_cast<SourceFault>(i);
                FaultySource faulty{rig.source, fault, at};
                FaultyInside watched{rig.inside, {}, ~std::size_t{0}};
                std::optional<Effect> effect;
                const auto error = error_of(
                    [&] { effect = apply_inside(rig.plan, faulty, watched, rig.options); });
                injected_faults() += faulty.hit();
                if (error) CHECK(watched.advised_bytes() == 0);
                if (effect) check_inside(rig, *effect, watched.advised_bytes());
            }
    }
}
