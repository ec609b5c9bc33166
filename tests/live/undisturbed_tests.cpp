// SPDX-License-Identifier: MIT
// Looking must not disturb: what a whole inspect leaves behind in its target, which is nothing.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <fstream>
#include <map>
#include <sstream>

#include <doctest/doctest.h>
#include <sys/uio.h>

namespace pagesift::live {

namespace {

namespace witness = zoo::witness;

/// Everything of a process that a look could change.
struct Picture {
    witness::Faults faults;
    std::uint64_t swapped_in = 0; ///< of the whole machine
    std::uint64_t tables = 0;
    std::string smaps;
    std::map<std::uint64_t, std::uint64_t> flags; ///< by frame, of present pages

    bool operator==(const Picture&) const = default;
};

std::string read_all(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

std::string without_referenced(const std::string& smaps) {
    std::istringstream in(smaps);
    std::string out;
    for (std::string line; std::getline(in, line);)
        if (line.rfind("Referenced:", 0) != 0) out += line + '\n';
    return out;
}

Picture picture(pid_t pid) {
    Picture now;
    now.faults = witness::faults(pid).value_or(witness::Faults{});
    now.swapped_in = witness::vmstat("pswpin");
    now.tables = witness::status(pid, "VmPTE").value_or(0);
    now.smaps = read_all("/proc/" + std::to_string(pid) + "/smaps");
    for (const auto& mapping : witness::smaps(pid)) {
        if (mapping.name == "[vsyscall]") continue;
        const auto pages = (mapping.end - mapping.start) / witness::page_size();
        for (auto entry : witness::pagemap(pid, mapping.start, pages))
            if (witness::present(entry))
                now.flags[witness::frame(entry)] = witness::kpageflags(witness::frame(entry));
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
    if (a.smaps != b.smaps) {
        std::istringstream before(a.smaps), after(b.smaps);
        std::string x, y;
        while (std::getline(before, x) && std::getline(after, y))
            if (x != y) text << "smaps '" << x << "' -> '" << y << "'; ";
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

/// Runs a look between two pictures of a stopped zoo, and says what the look changed. Others
/// (write- back, another program that swaps) change such things too, so one quiet run of five is
/// proof.
std::string disturbance(const std::vector<std::string>& options, bool contents) {
    Zoo zoo;
    REQUIRE(zoo.ready());
    zoo.stop();
    std::string last;
    for (int tries = 0; tries < 5; ++tries) {
        auto before = picture(zoo.pid());
        const auto seen = inspect(zoo.pid(), options);
        auto after = picture(zoo.pid());
        CHECK(seen.is_object());
        if (contents) {
            // Reading a present page marks it accessed, as the manual says; nothing else may
            // change.
            before.smaps = without_referenced(before.smaps);
            after.smaps = without_referenced(after.smaps);
            before.flags.clear();
            after.flags.clear();
        }
        last = difference(before, after);
        if (last.empty()) return last;
    }
    return last;
}

} // namespace

TEST_CASE("undisturbed: a whole look changes nothing at all") {
    if (!have_root()) return;
    const auto changes = disturbance({"--pages", "--ranges", "--zero", "off"}, false);
    CHECK(changes == "");
}

TEST_CASE("undisturbed: reading contents faults nothing in and swaps nothing in") {
    if (!have_root()) return;
    const auto changes = disturbance({"--pages", "--ranges", "--zero", "all"}, true);
    CHECK(changes == "");
}

TEST_CASE("undisturbed: the measure itself sees one page that is read from outside") {
    if (!have_root()) return;
    Zoo zoo({"--only", "anon-swapped-file,untouched,anon-dirty"});
    REQUIRE(zoo.ready());
    zoo.stop();
    for (const auto& exhibit : zoo.description()["exhibits"]) {
        INFO(exhibit["name"].dump());
        char byte = 0;
        iovec here{&byte, 1}, there{reinterpret_cast<void*>(address(exhibit["start"])), 1};
        const auto before = picture(zoo.pid());
        REQUIRE(process_vm_readv(zoo.pid(), &here, 1, &there, 1, 0) == 1);
        CHECK(difference(before, picture(zoo.pid())) != "");
    }
}

} // namespace pagesift::live
