// SPDX-License-Identifier: MIT
// Each command as user nobody, with exactly the capabilities that the table of docs/security.md has
// for it, on a process of root: it finds and does what it does for root. Without any one of them it
// does not, and says which is missing.
#include "capabilities.hpp"

#include "advise.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

const std::size_t page = witness::page_size();
const std::size_t slot = witness::slot_size();

char* pointer(std::uint64_t at) { return reinterpret_cast<char*>(at); }

/// What a command says, and of it what must be the same for everybody who may run it.
struct Answer {
    Outcome outcome;
    json figures;
};
using Ask = std::function<Answer(const RunOptions&)>;

std::uint64_t set_of(const std::vector<unsigned>& capabilities) {
    std::uint64_t set = 0;
    for (const unsigned one : capabilities) set |= std::uint64_t{1} << one;
    return set;
}

RunOptions nobody_with(std::uint64_t capabilities) {
    RunOptions options;
    options.as_nobody = true;
    options.capabilities = capabilities;
    return options;
}

/// Without what differs from run to run.
json steady(const json& value) {
    if (value.is_array()) {
        json all = json::array();
        for (const json& one : value) {
            const json name = field(one.is_object() ? one : json::object(), "name");
            if (name != "pss" && name != "uss") all.push_back(steady(one));
        }
        return all;
    }
    if (!value.is_object()) return value;
    json rest = json::object();
    for (const auto& [name, member] : value.items()) {
        const bool changes = name.find("seconds") != name.npos || name == "time" ||
                             name == "referenced_bytes" || name == "young_bytes" ||
                             name == "active_bytes" || name == "exe" ||
                             name.find("pss") != name.npos; // other forks share its memory
        if (!changes) rest[name] = steady(member);
    }
    return rest;
}

json first_of(const json& list) {
    return list.is_array() && !list.empty() ? list[0] : json::object();
}

json parsed(const Outcome& outcome) { return json::parse(outcome.out, nullptr, false); }

/// Before Linux 5.11 what BPF takes is locked memory, and nobody may have some without a capability
/// of its own.
class LockedMemory {
public:
    LockedMemory() {
        getrlimit(RLIMIT_MEMLOCK, &before_);
        const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
        setrlimit(RLIMIT_MEMLOCK, &none);
    }
    ~LockedMemory() { setrlimit(RLIMIT_MEMLOCK, &before_); }
    LockedMemory(const LockedMemory&) = delete;
    LockedMemory& operator=(const LockedMemory&) = delete;

private:
    rlimit before_{};
};

/// Memory of several sorts: filled, zero-filled, an empty page table, and shared.
constexpr std::size_t parts = 4;
void map_mixed(std::uint64_t at, std::size_t bytes) {
    const std::size_t part = bytes / parts;
    if (mmap(pointer(at), 3 * part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0) == MAP_FAILED ||
        mmap(pointer(at + 3 * part), part, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        _exit(1);
    madvise(pointer(at), bytes, MADV_NOHUGEPAGE);
    fill(at, 64 * page);
    std::memset(pointer(at + part), 0, 64 * page);
    fill(at + 2 * part, page);
    madvise(pointer(at + 2 * part), page, MADV_DONTNEED); // too short to free the table
    fill(at + 3 * part, 64 * page);
}

std::unique_ptr<Target> mixed() { return std::make_unique<Target>(parts * slot, map_mixed); }

/// Newer kernels (6.13, mm_access) take CAP_PERFMON, and so CAP_SYS_ADMIN, for CAP_SYS_PTRACE where
/// memory is only looked at.
bool looks_without_ptrace(const Target& target) {
    return run({"cat", "/proc/" + target.pid_text() + "/maps"},
               nobody_with(set_of({CAP_SYS_ADMIN})))
               .exit_code == 0;
}

bool names(const Answer& answer, unsigned capability) {
    const std::string name = name_of_capability(capability);
    return answer.outcome.err.find(name) != std::string::npos ||
           answer.outcome.out.find(name) != std::string::npos;
}

std::string told(const Answer& answer) {
    return "exit code " + std::to_string(answer.outcome.exit_code) + ": " +
           answer.outcome.err.substr(0, 500) + "\n" + answer.figures.dump().substr(0, 1500);
}

const CommandNeeds& needs_of(const std::string& command) {
    const auto& all = needs_of_commands();
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const auto& one) { return one.command == command; });
    REQUIRE(found != all.end());
    return *found;
}

/// One less; of the one that includes another, as much less as that leaves.
std::uint64_t set_without(const std::vector<unsigned>& needs, unsigned one) {
    const std::uint64_t less = set_of(needs) & ~set_of({one});
    return one == CAP_DAC_OVERRIDE ? less | set_of({CAP_DAC_READ_SEARCH}) : less;
}

/// @param spared capabilities that this kernel does not ask for, although others do
void check_command(const std::string& command, const Ask& ask,
                   const std::vector<unsigned>& spared = {}) {
    INFO(command);
    const auto& needs = needs_of(command).capabilities;
    // Others change what the machine has between two looks; a lack shows every time.
    static constexpr int most_tries = 3;
    Answer root, full;
    for (int tries = 0; tries < most_tries; ++tries) {
        root = ask({});
        REQUIRE_MESSAGE(root.outcome.exit_code == 0, told(root));
        full = ask(nobody_with(set_of(needs)));
        if (full.figures == root.figures) break;
    }
    CHECK_MESSAGE(full.outcome.exit_code == 0, told(full));
    CHECK_MESSAGE(full.figures == root.figures,
                  json::diff(root.figures, full.figures).dump().substr(0, 2000));
    for (const unsigned one : needs) {
        INFO("without " << name_of_capability(one));
        const Answer less = ask(nobody_with(set_without(needs, one)));
        const bool same =
            less.outcome.exit_code == root.outcome.exit_code && less.figures == root.figures;
        if (same && std::find(spared.begin(), spared.end(), one) != spared.end()) {
            MESSAGE(command << ": this kernel does not ask for " << name_of_capability(one));
            continue;
        }
        CHECK_MESSAGE(!same, "it is not needed");
        CHECK_MESSAGE(names(less, one), told(less));
    }
}

std::vector<unsigned> spared_of(const Target& target) {
    if (looks_without_ptrace(target)) return {CAP_SYS_PTRACE};
    return {};
}

Ask asks(Words words) {
    return [words = std::move(words)](const RunOptions& options) {
        Answer answer{run_pagesift(words, options), {}};
        answer.figures = steady(parsed(answer.outcome));
        return answer;
    };
}

} // namespace

TEST_CASE("capabilities: inspect, with either lens") {
    if (!have_root()) return;
    const LockedMemory unlimited;
    const auto target = mixed();
    target->child.stop();
    for (const auto& lens : lenses())
        check_command("inspect --lens " + lens,
                      asks({"inspect", "--lens", lens, "--zero", "all", "--ranges", "--format",
                            "json", "-a", target->address(), target->pid_text()}),
                      spared_of(*target));
}

TEST_CASE("capabilities: which pages of files of others are cached") {
    if (!have_root()) return;
    const auto target = mixed();
    target->child.stop();
    const Words words{"inspect", "--lens", "proc",     "--file-cache", "on",
                      "--top",   "0",      "--format", "json",         target->pid_text()};
    check_command(
        "inspect --file-cache on",
        [&](const RunOptions& options) {
            Answer answer{run_pagesift(words, options), {}};
            const auto seen = parsed(answer.outcome);
            if (seen.is_array() && !seen.empty()) answer.figures = steady(field(seen[0], "gaps"));
            return answer;
        },
        spared_of(*target));
}

TEST_CASE("capabilities: record, diff and scan") {
    if (!have_root()) return;
    const LockedMemory unlimited;
    const auto target = mixed();
    target->child.stop();
    const TemporaryDirectory folder;
    chmod(folder.path().c_str(), 0777);
    int number = 0;
    const auto file = [&] { return folder.path() + "/" + std::to_string(++number) + ".psr"; };
    check_command(
        "record",
        [&](const RunOptions& options) {
            const auto made = file();
            Answer answer{run_pagesift({"record", "--zero", "all", "--file-cache", "off", "-o",
                                        made, target->pid_text()},
                                       options),
                          {}};
            // What it lacks is a gap inside the recording.
            const auto shown =
                run_pagesift({"inspect", "--format", "json", "-a", target->address(), made});
            answer.figures = steady(parsed(shown));
            answer.outcome.out += shown.out;
            return answer;
        },
        spared_of(*target));
    const auto before = file();
    REQUIRE(run_pagesift({"record", "--zero", "all", "--file-cache", "off", "-o", before,
                          target->pid_text()})
                .exit_code == 0);
    check_command(
        "diff",
        [&](const RunOptions& options) {
            Answer answer{
                run_pagesift({"diff", "--format", "json", before, target->pid_text()}, options),
                {}};
            const json seen = first_of(parsed(answer.outcome));
            answer.figures["gaps"] = steady(field(seen, "gaps"));
            for (const json& change : field(seen, "changes"))
                for (const char* name : {"anon", "zero-filled", "shmem", "swap"})
                    if (field(change, "name") == name)
                        answer.figures[name] =
                            json::array({field(change, "before"), field(change, "after")});
            return answer;
        },
        spared_of(*target));
    check_command(
        "scan",
        [&](const RunOptions& options) {
            Answer answer{run_pagesift({"scan", "--depth", "content", "--file-cache", "off",
                                        "--format", "json", "-p", target->pid_text()},
                                       options),
                          {}};
            // Of the target alone: what it shares, others change.
            const json record = first_of(field(first_of(parsed(answer.outcome)), "records"));
            for (const char* name :
                 {"complete", "lens", "anonymous_bytes", "zero_filled_bytes", "shmem_bytes",
                  "swap_bytes", "ksm_bytes", "empty_tables", "gaps"})
                answer.figures[name] = steady(field(record, name));
            return answer;
        },
        spared_of(*target));
}

TEST_CASE("capabilities: cold, by every source") {
    if (!have_root()) return;
    const LockedMemory unlimited;
    const auto target = mixed();
    for (const std::string source : {"exact", "idle-bitmap", "referenced", "soft-dirty", "lru"}) {
        Words words{"cold", "--source", source, "--window",
                    "50ms", "--format", "json", target->pid_text()};
        const auto tried = run_pagesift(words);
        if (tried.exit_code != 0) {
            // The kernel cannot, which the source's own tests judge.
            MESSAGE(source << ": " << tried.err.substr(0, 200));
            continue;
        }
        check_command(
            "cold --source " + source,
            [&](const RunOptions& options) {
                Answer answer{run_pagesift(words, options), {}};
                const auto seen = parsed(answer.outcome);
                if (seen.is_array() && !seen.empty())
                    answer.figures = json::object({{"source", steady(field(seen[0], "source"))},
                                                   {"gaps", steady(field(seen[0], "gaps"))}});
                return answer;
            },
            spared_of(*target));
    }
}

TEST_CASE("capabilities: advise from outside") {
    if (!have_root()) return;
    const LockedMemory unlimited;
    constexpr std::size_t some = 4 << 20;
    const auto machine = with_swap(SwapOn::zram);
    const auto spared = spared_of(*mixed());
    for (const std::string action : {"pageout", "cold", "willneed", "collapse"}) {
        if (!takes(action) || (!machine && (action == "pageout" || action == "willneed"))) continue;
        check_command(
            "advise " + action,
            [&](const RunOptions& options) {
                // Each gets memory of its own, since each changes it.
                const Target target(std::max(some, slot), [&](std::uint64_t at, std::size_t bytes) {
                    map_private(at, bytes);
                    if (action == "collapse") madvise(pointer(at), bytes, MADV_HUGEPAGE);
                });
                const Words on{"-a", target.address(), target.pid_text()};
                Words words{action, "--apply"};
                words.insert(words.end(), on.begin(), on.end());
                if (action == "willneed")
                    REQUIRE(
                        run_pagesift({"advise", "pageout", "--apply", "-q", on[0], on[1], on[2]})
                            .exit_code == 0);
                const auto done = advise(words, options);
                return Answer{done.outcome,
                              json::object({{"advised", done.effect("advised_bytes") > 0}})};
            },
            spared);
    }
}

TEST_CASE("capabilities: advise from inside") {
    if (!have_root()) return;
    const LockedMemory unlimited;
    for (const char* action : {"pt-reclaim", "zero-drop", "merge"}) {
        if (!can_do(action)) continue;
        // Where PAGEMAP_SCAN tells tables apart no frame is needed to find them.
        std::vector<unsigned> spared;
        if (std::string{action} == "pt-reclaim") spared = {CAP_SYS_ADMIN};
        check_command(
            std::string{"advise "} + action,
            [&](const RunOptions& options) {
                const auto target = mixed();
                const auto done = advise(on_inside(*target, action, {"--apply"}), options);
                if (!options.as_nobody) CHECK(done.effect("advised_bytes") > 0);
                return Answer{done.outcome, json::object({{"done", done.effect("advised_bytes")}})};
            },
            spared);
    }
}

TEST_CASE("capabilities: doctor") {
    if (!have_root()) return;
    const LockedMemory unlimited;
    check_command("doctor", [&](const RunOptions& options) {
        Answer answer{run_pagesift({"doctor", "--format", "json"}, options), {}};
        for (const json& one : field(parsed(answer.outcome), "features")) {
            const std::string name = one.value("name", "");
            // These are what is asked about.
            if (name.rfind("cap-", 0) != 0) answer.figures[name] = field(one, "works");
        }
        return answer;
    });
}

TEST_CASE("capabilities: with none, and of another user, there is no answer but the reason") {
    if (!have_root()) return;
    const auto target = mixed();
    for (const Words& words : {Words{"inspect", target->pid_text()},
                               Words{"cold", "--window", "50ms", target->pid_text()},
                               Words{"advise", "cold", "--apply", target->pid_text()},
                               Words{"advise", "zero-drop", "--apply", target->pid_text()},
                               Words{"record", "-o", "/dev/null", target->pid_text()}}) {
        const auto refused = run_pagesift(words, nobody_with(0));
        CHECK(refused.exit_code == 1);
        CHECK_MESSAGE(refused.err.find("CAP_SYS_PTRACE") != std::string::npos, refused.err);
    }
    CHECK(target->present() > 0);
}

} // namespace pagesift::live
