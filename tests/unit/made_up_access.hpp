// SPDX-License-Identifier: MIT
// Accesses that a test makes up, round by round, and a clock that it turns.
#pragma once

#include "made_up_source.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/cold.hpp"

#include <set>

namespace pagesift::test {

constexpr std::uint64_t made_up_page = 4096;

class MadeUpAccess final : public AccessSource {
public:
    AccessTraits about;
    /// By address, one letter a round: i idle, a accessed, ? unknown, - none; what is missing is
    /// none.
    std::map<std::uint64_t, std::string> script;
    std::vector<std::string> calls; ///< "prepare", "note", "forget", "judge", in order
    std::vector<Gap> known_gaps;
    bool blind = false;          ///< between rounds
    bool judges = false;         ///< blocks that a source read
    bool judges_none = false;    ///< says so, and then does not
    std::set<std::size_t> falls; ///< rounds of which nothing stands
    std::size_t asked = 0;       ///< whether something stands
    bool gone = false;
    ForgetCost cost{0.5, 0.25};
    std::chrono::steady_clock::time_point* clock = nullptr; ///< turned by forget, by its cost
    Grain grain = Grain::page;

    MadeUpAccess() {
        about.name = "made up";
        about.method = "a script";
        about.limits = {"everything"};
    }
    const AccessTraits& traits() const override { return about; }
    bool is_blind_between_rounds() const override { return blind; }
    void prepare(const std::vector<Mapping>&) override { say("prepare"); }
    ForgetCost forget() override {
        ++round_;
        say("forget");
        if (clock) *clock += std::chrono::milliseconds{static_cast<int>(cost.seconds * 1000)};
        return cost;
    }
    std::vector<Gap> gaps() const override { return known_gaps; }
    bool judges_blocks() const override { return judges; }
    bool judge_block(const Mapping& mapping, const PageBlock& read, TouchBlock& block) override {
        if (judges_none) return false;
        say("block");
        answer(read.range, block);
        (void)mapping;
        return true;
    }
    bool stands() override {
        ++asked;
        return !falls.contains(round_);
    }

    void sight(const Mapping&, AddressRange wanted, Sight which, TouchBlock& block) override {
        say(which == Sight::note ? "note" : "judge");
        block = {};
        if (!gone) answer(wanted, block);
    }

private:
    void answer(AddressRange wanted, TouchBlock& block) const {
        block = {};
        block.range = wanted;
        for (Address at = wanted.start; at < wanted.end; at = at + Bytes{made_up_page}) {
            const auto found = script.find(at.value);
            char letter = '-';
            if (found != script.end() && round_ > 0 && round_ <= found->second.size())
                letter = found->second[round_ - 1];
            block.touches.push_back(letter == 'i'   ? Touch::idle
                                    : letter == 'a' ? Touch::accessed
                                    : letter == '?' ? Touch::unknown
                                                    : Touch::none);
            block.grains.push_back(grain);
        }
    }

    void say(const std::string& word) {
        if (calls.empty() || calls.back() != word) calls.push_back(word);
    }
    std::size_t round_ = 0;
};

/// A watch of made-up memory at 0x10000, where every second is the test's.
struct MadeUpWatch {
    MadeUpSource source;
    MadeUpAccess access;
    std::chrono::steady_clock::time_point clock{std::chrono::seconds{1000}};
    cold::WatchOptions options;

    MadeUpWatch() {
        access.clock = &clock;
        options.jobs = 1;
        options.boot_id = "boot";
        options.now = [this] { return clock; };
        source.text.stat = "42 (a) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 1 1 1";
        source.text.exe = "/bin/made-up";
    }

    /// A page that is present at the end, and what its rounds say.
    void page(std::uint64_t address, const std::string& rounds,
              std::uint64_t entry = abi::PM_PRESENT | abi::PM_MMAP_EXCLUSIVE) {
        if (entry & abi::PM_PRESENT) entry |= address / made_up_page;
        source.pages[address] = {entry, abi::kpf(abi::KPF_ANON) | abi::kpf(abi::KPF_SWAPBACKED), 1};
        access.script[address] = rounds;
    }

    /// Rounds of 10 s each.
    cold::Ages run(unsigned rounds) {
        cold::Watch watch{source, access, options};
        watch.begin();
        for (unsigned i = 1; i <= rounds; ++i) {
            clock += std::chrono::seconds{10};
            watch.end_round(i == rounds ? cold::Last::yes : cold::Last::no);
        }
        return watch.finish();
    }
};

} // namespace pagesift::test
