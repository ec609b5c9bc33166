// SPDX-License-Identifier: MIT
// zoo: a process that holds every page state this machine can make. Builds the exhibits, proves
// each of them, prints what it built as one line of JSON and waits until its standard input ends.
//
//     zoo --list
//     zoo [--only NAME,...] [--without swap-file,zram,ksm,thp,hugetlb]
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "exhibit.hpp"
#include "witness.hpp"

namespace pagesift::zoo {

namespace {

using nlohmann::json;

struct Options {
    bool list = false;
    std::set<std::string> only;
    std::set<std::string> without;
};

struct Missing {
    std::string name, cell, reason;
};

struct Zoo {
    std::vector<Exhibit> exhibits;
    std::vector<Missing> absent; ///< this machine cannot hold them
    std::vector<Missing> failed; ///< the zoo's own claims about them do not hold
};

std::string hex(std::uint64_t value) {
    std::ostringstream text;
    text << "0x" << std::hex << value;
    return text.str();
}

void build(Keeper& keeper, const Options& options, Zoo& zoo) {
    for (const auto& step : catalogue()) {
        const auto wanted = [&](const Label& l) {
            return options.only.empty() || options.only.count(l.name) != 0;
        };
        if (std::none_of(step.labels.begin(), step.labels.end(), wanted)) continue;
        const auto missing = [&](std::vector<Missing>& list, const std::string& reason) {
            for (const auto& label : step.labels) list.push_back({label.name, label.cell, reason});
        };
        if (options.without.count(word(step.need)) != 0) {
            missing(zoo.absent, std::string("--without ") + word(step.need));
            continue;
        }
        try {
            for (auto& exhibit : step.build(keeper)) zoo.exhibits.push_back(std::move(exhibit));
        } catch (const Unavailable& reason) {
            missing(zoo.absent, reason.what());
        } catch (const ProofFailed& reason) {
            missing(zoo.failed, reason.what());
        }
    }
    zoo.absent.push_back({"migrating", "migrating",
                          "a migration entry lives for microseconds; device-private and hwpoison "
                          "entries need a device and CONFIG_MEMORY_FAILURE"});
    zoo.absent.push_back(
        {"unknown", "unknown", "a lens's word for what it cannot see; no page is"});
    zoo.absent.push_back(
        {"present-unknown", "present/unknown", "a lens's word for what it cannot see; no page is"});
    zoo.absent.push_back({"marker-other", "marker/other",
                          "kernels to come may have more markers; this one has not"});
}

/// Brings every exhibit up to date, then proves them all, one right after the other. A second and
/// third attempt are for what the kernel does on its own (write-back, reclaim, other CPUs'
/// batches).
void prove(Zoo& zoo) {
    for (const auto& exhibit : zoo.exhibits)
        if (exhibit.settle) exhibit.settle();
    std::vector<Exhibit> proved;
    for (auto& exhibit : zoo.exhibits) {
        std::string failure = "?";
        for (int tries = 0; tries < 3 && !failure.empty(); ++tries) {
            try {
                if (tries > 0) usleep(50'000);
                if (tries > 0 && exhibit.settle) exhibit.settle();
                exhibit.prove();
                failure.clear();
            } catch (const std::runtime_error& reason) {
                failure = reason.what();
            }
        }
        if (failure.empty())
            proved.push_back(std::move(exhibit));
        else
            zoo.failed.push_back({exhibit.name, "", failure});
    }
    zoo.exhibits = std::move(proved);
}

json to_json(const Exhibit& exhibit) {
    json runs = json::array();
    for (const auto& run : exhibit.runs)
        runs.push_back({{"pages", run.pages},
                        {"state", run.state},
                        {"kind", run.kind ? json(*run.kind) : json()},
                        {"marker", run.marker ? json(*run.marker) : json()}});
    json out = {
        {"name", exhibit.name}, {"start", hex(exhibit.start)},      {"end", hex(exhibit.end())},
        {"runs", runs},         {"attributes", exhibit.attributes}, {"proof", exhibit.proof}};
    if (exhibit.sharers) out["sharers"] = *exhibit.sharers;
    if (exhibit.folio_pages) out["folio_pages"] = *exhibit.folio_pages;
    json swap = json::array();
    for (auto entry : witness::pagemap(getpid(), exhibit.start, exhibit.pages()))
        if (witness::swapped(entry))
            swap.push_back({witness::swap_type(entry), witness::swap_offset(entry)});
    if (!swap.empty()) out["swap"] = swap; // [type, offset] of each swapped page, in order
    return out;
}

/// The state of a slot whose table is allocated, from its entries.
std::string slot_state(std::uint64_t start) {
    const auto pages = witness::slot_size() / witness::page_size();
    bool markers = false;
    for (auto entry : witness::pagemap(getpid(), start, pages)) {
        if (witness::present(entry) || witness::swapped(entry)) return "populated";
        markers = markers || witness::marker(entry);
    }
    return markers ? "marker-only" : "empty";
}

json slots_of(const std::vector<Exhibit>& exhibits) {
    struct Slot {
        std::string name;
        Table table;
    };
    std::map<std::uint64_t, Slot> slots;
    const auto size = witness::slot_size();
    for (const auto& exhibit : exhibits) {
        if (exhibit.table == Table::elsewhere) continue;
        for (auto at = exhibit.start / size * size; at < exhibit.end(); at += size) {
            auto& slot = slots.try_emplace(at, Slot{exhibit.name, exhibit.table}).first->second;
            if (slot.table == Table::none && exhibit.table != Table::none)
                slot = {exhibit.name, exhibit.table};
        }
    }
    const auto all = witness::smaps(getpid());
    json out = json::array();
    for (const auto& [start, slot] : slots) {
        const std::string state = slot.table == Table::none   ? "no-table"
                                  : slot.table == Table::huge ? "huge"
                                                              : slot_state(start);
        std::size_t mappings = 0;
        bool whole = false;
        for (const auto& mapping : all) {
            mappings += mapping.start < start + size && mapping.end > start ? 1 : 0;
            whole = whole || (mapping.start <= start && mapping.end >= start + size);
        }
        out.push_back({{"name", slot.name},
                       {"start", hex(start)},
                       {"state", state},
                       {"mappings", mappings},
                       {"reclaimable", state == "empty" && whole}});
    }
    return out;
}

json to_json(const Zoo& zoo) {
    json out = {{"schema", "pagesift.zoo/1"},        {"pid", getpid()},
                {"page_size", witness::page_size()}, {"slot_bytes", witness::slot_size()},
                {"exhibits", json::array()},         {"slots", slots_of(zoo.exhibits)},
                {"absent", json::array()},           {"failed", json::array()}};
    for (const auto& exhibit : zoo.exhibits) out["exhibits"].push_back(to_json(exhibit));
    for (const auto& m : zoo.absent)
        out["absent"].push_back({{"name", m.name}, {"cell", m.cell}, {"reason", m.reason}});
    for (const auto& m : zoo.failed)
        out["failed"].push_back({{"name", m.name}, {"reason", m.reason}});
    return out;
}

/// Signals stay blocked while exhibits are built, so the machine is never left half changed.
int block_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

void wait_for_end(int signals) {
    pollfd both[2] = {{STDIN_FILENO, POLLIN, 0}, {signals, POLLIN, 0}};
    char bytes[256];
    while (poll(both, 2, -1) >= 0 || errno == EINTR) {
        if (both[1].revents != 0) return;
        if (both[0].revents != 0 && read(STDIN_FILENO, bytes, sizeof bytes) <= 0) return;
    }
}

/// MADV_PAGEOUT and friends drain the batches of the CPU they run on; stay on the one that has the
/// zoo's pages.
void stay_on_this_cpu() {
    cpu_set_t set;
    CPU_ZERO(&set);
    const int cpu = sched_getcpu();
    if (cpu < 0) return;
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

std::set<std::string> split(const std::string& list) {
    std::set<std::string> words;
    std::istringstream in(list);
    for (std::string one; std::getline(in, one, ',');) words.insert(one);
    return words;
}

bool parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--list")
            options.list = true;
        else if (option == "--only" && i + 1 < argc)
            options.only = split(argv[++i]);
        else if (option == "--without" && i + 1 < argc)
            options.without = split(argv[++i]);
        else
            return false;
    }
    return true;
}

int run(const Options& options) {
    const int signals = block_signals();
    stay_on_this_cpu();
    Machine machine;
    Keeper keeper(machine);
    Zoo zoo;
    build(keeper, options, zoo);
    machine.release();
    prove(zoo);
    std::cout << to_json(zoo).dump() << std::endl;
    wait_for_end(signals);
    keeper.clear();
    return 0;
}

} // namespace
} // namespace pagesift::zoo

int main(int argc, char** argv) {
    using namespace pagesift::zoo;
    Options options;
    if (!parse(argc, argv, options)) {
        std::cerr << "usage: zoo [--list] [--only NAME,...] "
                     "[--without swap-file,zram,ksm,thp,hugetlb]\n";
        return 2;
    }
    if (options.list) {
        for (const auto& step : catalogue())
            for (const auto& label : step.labels)
                std::cout << label.name << '\t' << label.cell << '\n';
        return 0;
    }
    if (geteuid() != 0) {
        std::cerr << "zoo: needs root: proofs read /proc/kpageflags\n";
        return 1;
    }
    // Dies with its parent even while it is stopped; the guardian then puts the machine back.
    const pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) return 1;
    try {
        return run(options);
    } catch (const std::exception& error) {
        std::cerr << "zoo: " << error.what() << '\n';
        return 1;
    }
}
