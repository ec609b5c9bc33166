// SPDX-License-Identifier: MIT
// Looking must not disturb: what a whole inspect leaves behind in its target, which is nothing.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include <doctest/doctest.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

namespace witness = zoo::witness;

/// Reading a present page from outside marks it accessed, as the manual says of --zero.
enum class Record { everything, but_for_access };

enum class Before { nothing, clear_accessed };

/// Everything of a process that a look could change.
struct Picture {
    witness::Faults faults;
    std::uint64_t swapped_in = 0; ///< of the whole machine
    std::uint64_t tables = 0;
    std::vector<std::string> mappings;
    std::map<std::uint64_t, std::uint64_t> flags; ///< by frame, of present pages

    bool operator==(const Picture&) const = default;
};

/// Names of what every program maps: libraries and the vdso. Their frames and shares change with
/// the start and the end of any other process, pagesift's own among them.
const std::set<std::string>& names_in_every_program() {
    static const auto names = [] {
        std::set<std::string> all;
        for (const auto& mapping : witness::smaps(getpid()))
            if (!mapping.name.empty() && mapping.name != "[heap]" && mapping.name != "[stack]")
                all.insert(mapping.name);
        return all;
    }();
    return names;
}

bool in_every_program(const witness::Mapping& mapping) {
    return names_in_every_program().count(mapping.name) != 0;
}

/// KPF_IDLE comes and goes with whoever ages this machine's memory (DAMON_STAT, for one, which
/// newer kernels run by themselves); a look cannot set it, and what clears it shows elsewhere too.
constexpr std::uint64_t flags_of_others = std::uint64_t{1} << 25;

/// The fields of smaps that only a fault, a reclaim or a look from outside can change.
std::string describe(const witness::Mapping& mapping, Record record) {
    static const std::set<std::string> of_others = {
        "Pss",           "Pss_Dirty",     "Shared_Clean", "Shared_Dirty",
        "Private_Clean", "Private_Dirty", "Referenced",   "SwapPss"};
    std::ostringstream text;
    text << std::hex << mapping.start << '-' << mapping.end << std::dec << mapping.vm_flags;
    for (const auto& [field, bytes] : mapping.bytes) {
        if (in_every_program(mapping) && of_others.count(field) != 0) continue;
        if (record == Record::but_for_access && field == "Referenced") continue;
        text << ' ' << field << ' ' << bytes;
    }
    return text.str();
}

Picture picture(pid_t pid, Record record) {
    Picture now;
    now.faults = witness::faults(pid).value_or(witness::Faults{});
    now.swapped_in = witness::vmstat("pswpin");
    now.tables = witness::status(pid, "VmPTE").value_or(0);
    for (const auto& mapping : witness::smaps(pid)) {
        now.mappings.push_back(describe(mapping, record));
        if (record == Record::but_for_access || in_every_program(mapping)) continue;
        const auto pages = (mapping.end - mapping.start) / witness::page_size();
        for (auto entry : witness::pagemap(pid, mapping.start, pages))
            if (witness::present(entry))
                now.flags[witness::frame(entry)] =
                    witness::kpageflags(witness::frame(entry)) & ~flags_of_others;
    }
    return now;
}

/// What differs, in words; empty if nothing does.
std::string difference(const Picture& a, const Picture& b) {
    std::ostringstream text;
    if (!(a.faults == b.faults))
        text << "faults " << a.faults.minor << '+' << a.faults.major << " -> " << b.faults.minor
             << '+' << b.faults.major << "; ";
    if (a.swapped_in != b.swapped_in)
        text << "pages swapped in on this machine: " << b.swapped_in - a.swapped_in << "; ";
    if (a.tables != b.tables) text << "VmPTE " << a.tables << " -> " << b.tables << "; ";
    for (std::size_t i = 0; i < std::max(a.mappings.size(), b.mappings.size()); ++i) {
        const auto before = i < a.mappings.size() ? a.mappings[i] : "nothing";
        const auto after = i < b.mappings.size() ? b.mappings[i] : "nothing";
        if (before != after) text << "smaps\n  " << before << "\n  " << after << "\n";
    }
    std::size_t changed = 0, bits = 0;
    for (const auto& [frame, flags] : a.flags) {
        const auto other = b.flags.find(frame);
        if (other != b.flags.end() && other->second == flags) continue;
        ++changed;
        bits |= other == b.flags.end() ? 0 : other->second ^ flags;
    }
    if (changed > 0)
        text << "flags of " << changed << " frames, bits " << std::hex << bits << std::dec << "; ";
    return text.str();
}

/// Runs a look between two pictures of a stopped zoo, and says what the look changed. Others change
/// such things too (write-back, who ages memory, a program that swaps): one quiet run of ten is
/// proof.
std::string disturbance(const std::vector<std::string>& options, Record record,
                        Before before_all = Before::nothing) {
    Zoo zoo;
    REQUIRE(zoo.ready());
    zoo.stop();
    if (before_all == Before::clear_accessed)
        std::ofstream("/proc/" + std::to_string(zoo.pid()) + "/clear_refs") << '1' << std::flush;
    std::string last;
    for (int tries = 0; tries < 10; ++tries) {
        const auto before = picture(zoo.pid(), record);
        const auto seen = inspect(zoo.pid(), options);
        last = difference(before, picture(zoo.pid(), record));
        CHECK(seen.is_object());
        if (last.empty()) return last;
        MESSAGE("look " << tries + 1 << ", or something else, changed " << last);
    }
    return last;
}

} // namespace

TEST_CASE("undisturbed: a whole look changes nothing at all") {
    if (!have_root()) return;
    for (const auto& lens : lenses()) {
        INFO("the " << lens << " lens");
        const auto changes = disturbance({"--pages", "--ranges", "--zero", "off", "--lens", lens},
                                         Record::everything);
        CHECK(changes == "");
    }
}

TEST_CASE("undisturbed: reading contents faults nothing in and swaps nothing in") {
    if (!have_root()) return;
    const auto changes = disturbance({"--pages", "--ranges", "--zero", "all", "--lens", "proc"},
                                     Record::but_for_access);
    CHECK(changes == "");
}

TEST_CASE("undisturbed: the exact lens reads contents without a trace") {
    if (!have_root() || lenses().back() != "exact") return;
    // What was accessed a moment ago would show no further access.
    const auto changes = disturbance({"--pages", "--zero", "all", "--lens", "exact"},
                                     Record::everything, Before::clear_accessed);
    CHECK(changes == "");
}

TEST_CASE("undisturbed: the measure itself sees one page that is read from outside") {
    if (!have_root()) return;
    Zoo zoo({"--only", "anon-swapped-file,untouched,anon-dirty"});
    REQUIRE(zoo.ready());
    zoo.stop();
    for (const auto& exhibit : zoo.description()["exhibits"]) {
        INFO(exhibit["name"].dump());
        // What was accessed a moment ago shows no further access under every kernel.
        std::ofstream("/proc/" + std::to_string(zoo.pid()) + "/clear_refs") << '1' << std::flush;
        char byte = 0;
        iovec here{&byte, 1}, there{reinterpret_cast<void*>(address(exhibit["start"])), 1};
        const auto before = picture(zoo.pid(), Record::everything);
        REQUIRE(process_vm_readv(zoo.pid(), &here, 1, &there, 1, 0) == 1);
        CHECK(difference(before, picture(zoo.pid(), Record::everything)) != "");
    }
}

} // namespace pagesift::live
