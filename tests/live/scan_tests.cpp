// SPDX-License-Identifier: MIT
// Many processes at once: who is chosen, what sums say, and what must not break a scan.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <utility>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

struct Scan {
    Outcome outcome;
    std::vector<json> records;
    json totals, summary;
};

/// scan --format ndjson; checks that it is whole.
Scan scan(const Words& arguments, const RunOptions& options = {}) {
    Scan result;
    result.outcome = run_pagesift(Words{"scan", "--format", "ndjson"} + arguments, options);
    CHECK_FALSE(result.outcome.timed_out);
    result.records = parse_lines(result.outcome.out);
    REQUIRE_MESSAGE(!result.records.empty(), result.outcome.err);
    result.summary = result.records.back();
    result.records.pop_back();
    CHECK(result.summary["record"] == "scan");
    REQUIRE(!result.records.empty());
    result.totals = result.records.back();
    result.records.pop_back();
    CHECK(result.totals["record"] == "totals");
    return result;
}

std::set<pid_t> pids(const Scan& scan) {
    std::set<pid_t> all;
    for (const json& record : scan.records) all.insert(record["pid"].get<pid_t>());
    return all;
}

/// The only object of --format json, which holds the totals.
json scan_json(const Words& arguments) {
    const auto outcome = run_pagesift(Words{"scan", "--format", "json"} + arguments);
    CHECK(outcome.exit_code == 0);
    const auto answer = json::parse(outcome.out, nullptr, false);
    REQUIRE(answer.is_array());
    REQUIRE(answer.size() == 1);
    return answer[0];
}

/// A fork that has a name of its own and some memory, and sleeps.
struct Sleeper {
    explicit Sleeper(const std::string& name)
        : child([&](const auto& ready) {
              prctl(PR_SET_NAME, name.c_str());
              ready();
          }) {}
    Child child;
    pid_t pid() const { return child.pid(); }
};

/// A program of its own, so that it shares no anonymous memory with anyone.
std::unique_ptr<Background> start_python(std::size_t megabytes) {
    const auto python = find_program({"/usr/bin/python3", "/usr/local/bin/python3"});
    if (!python) return nullptr;
    auto program = std::make_unique<Background>(
        Words{*python, "-c",
              "import sys\nkept = bytearray(b'x') * (" + std::to_string(megabytes) +
                  " << 20)\nprint('ready', flush=True)\nsys.stdin.read()\n"});
    REQUIRE(program->wait_for_line(30) == "ready");
    program->signal(SIGSTOP);
    wait_until_stopped(program->pid());
    return program;
}

/// The words of a scan record and where inspect has the same figure.
const std::pair<const char*, const char*> figures[] = {
    {"rss_bytes", "/rss_bytes"},
    {"private_bytes", "/uss_bytes"},
    {"swap_bytes", "/swap_bytes"},
    {"anonymous_bytes", "/anonymous_bytes"},
    {"none_bytes", "/states/none_bytes"},
    {"present_bytes", "/states/present_bytes"},
    {"swapped_bytes", "/states/swapped_bytes"},
    {"anon_bytes", "/kinds/anon_bytes"},
    {"thp_bytes", "/kinds/thp_bytes"},
    {"file_bytes", "/kinds/file_bytes"},
    {"zero_page_bytes", "/kinds/zero_page_bytes"},
    {"page_tables_bytes", "/page_tables/total_bytes"},
    {"needed_tables", "/page_tables/needed_tables"},
    {"empty_tables", "/page_tables/empty_tables"}};

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    REQUIRE(value != nullptr);
    return value;
}

} // namespace

TEST_CASE("scan: records are what inspect shows, and totals their sums") {
    if (!have_root()) return;
    const std::unique_ptr<Background> programs[] = {start_python(3), start_python(20)};
    if (!programs[0]) return skip("python3 is not installed");
    Words chosen;
    for (const auto& program : programs)
        chosen = chosen + Words{"-p", std::to_string(program->pid())};
    // An ager may move pages between two looks; what is compared is a time in which none moved.
    bool agreed = false;
    std::string difference;
    for (int tries = 0; tries < 20 && !agreed; ++tries) {
        const auto seen = scan_json(chosen);
        REQUIRE(seen.is_object());
        REQUIRE(seen["records"].size() == 2);
        difference.clear();
        std::map<std::string, std::uint64_t> sums;
        for (const json& record : seen["records"]) {
            const auto looked = inspect(record["pid"].get<pid_t>(), {"--top", "0"});
            for (const auto& [ours, theirs] : figures) {
                const auto expected = looked["totals"].value(json::json_pointer(theirs), json());
                if (record[ours] != expected)
                    difference += std::string(ours) + " " + record[ours].dump() + " " +
                                  expected.dump() + "\n";
                if (expected.is_number()) sums[ours] += expected.get<std::uint64_t>();
            }
        }
        // The programs share the files of the interpreter and nothing else: what is private is
        // summed up, what is shared is not counted twice.
        for (const auto& name :
             {"rss_bytes", "private_bytes", "swap_bytes", "anonymous_bytes", "swapped_bytes",
              "anon_bytes", "page_tables_bytes", "needed_tables", "empty_tables"})
            if (seen["totals"][name].is_number() && seen["totals"][name] != json(sums[name]))
                difference += std::string("totals: ") + name + " " + seen["totals"][name].dump() +
                              " " + std::to_string(sums[name]) + "\n";
        const auto file = seen["totals"]["file_bytes"].get<std::uint64_t>();
        CHECK(file > 0);
        CHECK(file < sums["file_bytes"]);
        // The page cache has large folios as well, where the file system makes such.
        CHECK(seen["totals"]["thp_bytes"].get<std::uint64_t>() <= sums["thp_bytes"]);
        agreed = difference.empty();
    }
    CHECK_MESSAGE(agreed, difference);
}

TEST_CASE("scan: depth totals is smaps_rollup") {
    if (!have_root()) return;
    const auto program = start_python(5);
    if (!program) return skip("python3 is not installed");
    const auto pid = program->pid();
    bool agreed = false;
    for (int tries = 0; tries < 20 && !agreed; ++tries) {
        const auto before = zoo::witness::smaps_rollup(pid);
        const auto seen = scan({"--depth", "totals", "-p", std::to_string(pid)});
        if (before != zoo::witness::smaps_rollup(pid)) continue;
        REQUIRE(seen.records.size() == 1);
        const json& record = seen.records[0];
        CHECK(record["depth"] == "totals");
        CHECK(record["lens"] == "rollup");
        const std::pair<std::string, std::string> same[] = {
            {"rss_bytes", "Rss"},
            {"swap_bytes", "Swap"},
            {"swap_pss_bytes", "SwapPss"},
            {"anonymous_bytes", "Anonymous"},
            {"anon_huge_pages_bytes", "AnonHugePages"}};
        for (const auto& names : same)
            CHECK_MESSAGE(record[names.first] == json(before.at(names.second)), names.first);
        // While it looks, pagesift maps the common libraries itself.
        const auto pss = record["pss_bytes"].get<std::uint64_t>();
        CHECK(pss <= before.at("Pss"));
        CHECK(pss + before.at("Pss_File") / 2 + 1024 >= before.at("Pss"));
        CHECK(record["present_bytes"].is_null());
        agreed = true;
    }
    CHECK(agreed);
}

TEST_CASE("scan: selectors find the wanted processes and no others") {
    if (!have_root()) return;
    const Sleeper odd{"od'd \"n\\[1]*"}, odder{"od'd x"}, plain{"selector-c"};
    const std::set<pid_t> ours{odd.pid(), odder.pid(), plain.pid()};
    const auto own = std::to_string(getpid());
    const auto found = [&](const Words& selectors) { return pids(scan(selectors)); };
    // Children of the test: those, and the program itself.
    const auto children = found({"--children-of", own});
    for (const pid_t pid : ours) CHECK(children.count(pid) == 1);
    CHECK(children.count(getpid()) == 0);
    CHECK(found({"--children-of", own, "--comm", "od'd*"}) ==
          std::set<pid_t>{odd.pid(), odder.pid()});
    CHECK(found({"--children-of", own, "--comm", "*\\[1]\\*"}) == std::set<pid_t>{odd.pid()});
    CHECK(found({"--children-of", own, "--comm", "selector-?", "--comm", "od'd x"}) ==
          std::set<pid_t>{odder.pid(), plain.pid()});
    const auto exe = std::filesystem::read_symlink("/proc/self/exe");
    CHECK(found({"--exe", exe.string(), "--children-of", own}) == ours);
    CHECK(found({"--exe", exe.filename().string(), "--comm", "selector-c"}) ==
          std::set<pid_t>{plain.pid()});
    CHECK(found({"-p", std::to_string(odd.pid()), "-p", own}) ==
          std::set<pid_t>{odd.pid(), getpid()});
    CHECK(found({"--comm", "selector-c", "--min-rss", "64G"}).empty());
    const Background nobodys({"/bin/sh", "-c", "read line"}, true);
    for (const std::string user : {"nobody", "65534"}) {
        const auto all = found({"--user", user});
        CHECK(all.count(nobodys.pid()) == 1);
        CHECK(all.count(plain.pid()) == 0);
    }
}

TEST_CASE("scan: processes that are born and die meanwhile are no errors, and nobody else") {
    if (!have_root()) return;
    const Child storm([](const auto& ready) {
        prctl(PR_SET_NAME, "storm-parent");
        signal(SIGCHLD, SIG_IGN); // they leave no zombies
        ready();
        for (unsigned n = 0;; ++n) {
            const pid_t pid = fork();
            if (pid == 0) {
                prctl(PR_SET_NAME, "storm-child");
                // No two have as much memory, so what is mixed from two cannot add up.
                const std::size_t bytes = (1 + n % 64) * 65536;
                void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (memory != MAP_FAILED) std::memset(memory, 1, bytes);
                usleep(n % 8 * 10'000); // longer than it takes to list a crowded machine
                _exit(0);
            }
            if (pid < 0 || n % 4 == 0) usleep(1000);
        }
    });
    std::size_t seen_children = 0, ended = 0;
    for (int tries = 0; tries < 8; ++tries) {
        const auto parent = std::to_string(storm.pid());
        const auto seen = scan({"--children-of", parent, "--jobs", tries % 2 ? "3" : "1"});
        INFO(seen.outcome.err);
        CHECK(seen.outcome.exit_code == 0);
        CHECK(seen.outcome.err.empty());
        ended += seen.summary["ended"].get<std::size_t>();
        for (const json& record : seen.records) {
            ++seen_children;
            CHECK(record["parent_pid"] == storm.pid());
            std::uint64_t states = 0;
            for (const char* state : {"none", "cached", "uncached", "present", "swapped",
                                      "shmem_swapped", "marker", "migrating", "unknown_state"})
                states += record[std::string(state) + "_bytes"].get<std::uint64_t>();
            if (record["complete"] == true) CHECK(record["size_bytes"] == json(states));
        }
    }
    MESSAGE(seen_children << " seen, " << ended << " ended meanwhile");
    CHECK(seen_children + ended > 0);
}

namespace {

/// RFC 4180; an empty answer where it is broken.
std::vector<Words> parse_csv(const std::string& text) {
    std::vector<Words> rows(1);
    std::string cell;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted) {
            if (c != '"')
                cell += c;
            else if (i + 1 < text.size() && text[i + 1] == '"')
                cell += text[++i];
            else
                quoted = false;
        } else if (c == '"') {
            if (!cell.empty()) return {};
            quoted = true;
        } else if (c == ',') {
            rows.back().push_back(std::exchange(cell, {}));
        } else if (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n') {
            ++i;
            rows.back().push_back(std::exchange(cell, {}));
            rows.emplace_back();
        } else if (c == '\r' || c == '\n') {
            return {};
        } else {
            cell += c;
        }
    }
    if (!rows.back().empty() || !cell.empty() || quoted) return {};
    rows.pop_back();
    return rows;
}

} // namespace

TEST_CASE("scan: hostile names stay what they are in every format") {
    if (!have_root()) return;
    const Words names = {"a\"b,c;d",
                         "new\nline\r",
                         "\x1b[31mred\x07",
                         "\xff\xfe\x80",
                         "back\\slash",
                         "=1+2",
                         "\xe2\x80\xae"
                         "abc",
                         "  blank "};
    std::vector<std::unique_ptr<Sleeper>> sleepers;
    Words chosen;
    for (const auto& name : names) {
        sleepers.push_back(std::make_unique<Sleeper>(name));
        chosen = chosen + Words{"-p", std::to_string(sleepers.back()->pid())};
    }
    const auto seen = scan(chosen);
    CHECK(seen.outcome.exit_code == 0);
    REQUIRE(seen.records.size() == names.size());
    std::set<std::string> different;
    for (const json& record : seen.records) different.insert(record["comm"].get<std::string>());
    CHECK(different.size() == names.size());
    // Those that are text come back byte by byte.
    for (const auto& name : {names[0], names[5], names[7]}) CHECK(different.count(name) == 1);
    for (const std::string format : {"table", "json", "ndjson", "csv", "openmetrics"}) {
        INFO(format);
        const auto outcome = run_pagesift(Words{"scan", "--format", format} + chosen);
        CHECK(outcome.exit_code == 0);
        const bool controls = std::any_of(outcome.out.begin(), outcome.out.end(), [&](char c) {
            const bool line_end = c == '\n' || (c == '\r' && format == "csv");
            return (static_cast<unsigned char>(c) < 0x20 && !line_end) || c == 0x7f;
        });
        CHECK_FALSE(controls);
        CHECK(outcome.out.find("\xe2\x80\xae") == std::string::npos);
        if (format == "json") CHECK(json::parse(outcome.out, nullptr, false).is_array());
        if (format == "csv") {
            const auto rows = parse_csv(outcome.out);
            REQUIRE(rows.size() == names.size() + 1);
            for (const auto& row : rows) CHECK(row.size() == rows[0].size());
        }
    }
}

TEST_CASE("scan: an ordinary user is told once how many processes are hidden") {
    if (!have_root()) return;
    const Background own({"/bin/sh", "-c", "read line"}, true);
    for (const std::string depth : {"totals", "pages"}) {
        INFO(depth);
        const auto seen = scan({"--depth", depth}, {.as_nobody = true});
        CHECK(seen.outcome.exit_code == 3);
        CHECK(pids(seen).count(own.pid()) == 1);
        CHECK(pids(seen).count(getpid()) == 0);
        CHECK(seen.summary["denied"].get<int>() > 0);
        const auto& err = seen.outcome.err;
        CHECK(std::count(err.begin(), err.end(), '\n') == 1);
        CHECK(err.find("may not be looked at") != std::string::npos);
        CHECK(err.find("of root") != std::string::npos);
    }
    // Nothing to be had at all is a failure, and so is a process that is not there.
    CHECK(scan({"-p", std::to_string(getpid())}, {.as_nobody = true}).outcome.exit_code == 1);
    CHECK(scan({"-p", "4194305"}).outcome.exit_code == 1);
    CHECK(scan({"-p", "4194305", "-p", std::to_string(getpid())}).outcome.exit_code == 3);
    CHECK(scan({"--comm", "nobody has this"}).outcome.exit_code == 0);
}

TEST_CASE("scan: an output that takes nothing is an error") {
    const auto own = std::to_string(getpid());
    for (const std::string format : {"table", "json", "ndjson", "csv", "openmetrics"}) {
        INFO(format);
        for (auto output : {Output::closed, Output::broken_pipe, Output::full_device}) {
            const auto outcome = run_pagesift({"scan", "--format", format, "-p", own},
                                              {.seconds = 30, .output = output});
            CHECK_FALSE(outcome.timed_out);
            CHECK(outcome.exit_code != 0);
            CHECK((outcome.signal == 0 || outcome.signal == SIGPIPE));
        }
        for (const std::string per : {"process", "mapping", "range"}) {
            if (format == "openmetrics" && per != "process") continue;
            const auto outcome = run_pagesift(
                {"scan", "--format", format, "--per", per, "-p", own, "-o", "/dev/full"});
            CHECK(outcome.exit_code == 1);
            CHECK(outcome.err.find("ENOSPC") != std::string::npos);
        }
    }
    CHECK(std::filesystem::is_character_file("/dev/full"));
}

TEST_CASE("scan: metrics replace the file as a whole") {
    const TemporaryDirectory directory;
    const auto path = directory.path() + "/x.prom";
    const Words command = {"scan", "--format", "openmetrics", "--depth", "totals",
                           "-p",   "self",     "-o",          path};
    std::ofstream(path) << "old\n";
    std::filesystem::create_hard_link(path, directory.path() + "/old");
    CHECK(run_pagesift(command).exit_code == 0);
    const auto text = read_file(path);
    CHECK(text.size() > 6);
    CHECK(text.substr(text.size() - 6) == "# EOF\n");
    // Whoever had it open reads what was there, and nothing else is left in the folder.
    CHECK(read_file(directory.path() + "/old") == "old\n");
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()),
                        std::filesystem::directory_iterator()) == 2);
    // Two scans leave one whole answer.
    CHECK(run_pagesift(command + Words{"--interval", "50ms", "--count", "2"}).exit_code == 0);
    const auto again = read_file(path);
    CHECK(again.find("# EOF\n") == again.size() - 6);
}

TEST_CASE("scan: SIGINT ends a long scan with all that is complete") {
    if (!have_root()) return;
    const Sleeper first{"sleeper"}, second{"sleeper"}, third{"sleeper"};
    for (const std::string format : {"json", "ndjson", "csv", "table"}) {
        INFO(format);
        const TemporaryDirectory directory;
        const auto path = directory.path() + "/out";
        // The first process is looked at, and then it sleeps for a very long time.
        Background program({environment("PAGESIFT_BIN"), "scan", "--comm", "sleeper", "--cpu",
                            "0.1", "--format", format, "-o", path});
        usleep(700'000);
        program.signal(SIGINT);
        const int status = program.wait(20);
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 130);
        const auto text = read_file(path);
        CHECK_FALSE(text.empty());
        if (format == "json") {
            const auto answer = json::parse(text, nullptr, false);
            REQUIRE(answer.is_array());
            CHECK(answer[0]["scan"]["interrupted"] == true);
            CHECK(answer[0]["records"].size() < 3);
        }
        if (format == "ndjson") CHECK(parse_lines(text).back()["interrupted"] == true);
        if (format == "csv") CHECK(parse_csv(text).size() >= 1);
    }
}

TEST_CASE("scan: --max-time cuts off what takes too long, and says so") {
    if (!have_root()) return;
    const Sleeper first{"sleeper"}, second{"sleeper"}, third{"sleeper"};
    // Asleep for --cpu, the first process takes longer than its share.
    const auto seen = scan({"--comm", "sleeper", "--cpu", "0.1", "--max-time", "300ms"});
    CHECK(seen.outcome.exit_code == 3);
    CHECK(seen.summary["elapsed_seconds"].get<double>() < 5);
    CHECK(seen.summary["chosen"] == 3);
    const auto partial = seen.summary["partial"].get<int>();
    CHECK(partial + seen.summary["skipped"].get<int>() > 0);
    CHECK(seen.summary["answered"].get<int>() + seen.summary["skipped"].get<int>() == 3);
    for (const json& record : seen.records) {
        if (record["complete"] == true) continue;
        CHECK(record["gaps"].dump().find("cut off") != std::string::npos);
    }
    CHECK(partial == std::count_if(seen.records.begin(), seen.records.end(),
                                   [](const json& record) { return record["complete"] != true; }));
    CHECK(scan({"--comm", "sleeper", "--max-time", "1h"}).outcome.exit_code == 0);
}

TEST_CASE("scan: of a process that is too large a sample is looked at, and it says so") {
    if (!have_root()) return;
    static constexpr std::size_t bytes = 256 << 20;
    const Child large([](const auto& ready) {
        void* memory =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return;
        madvise(memory, bytes, MADV_NOHUGEPAGE);
        std::memset(memory, 1, bytes);
        ready();
    });
    const Words chosen = {"-p", std::to_string(large.pid())};
    const auto whole = scan(chosen).records.at(0);
    const auto seen = scan(chosen + Words{"--max-process-bytes", "32M"});
    CHECK(seen.outcome.exit_code == 0);
    REQUIRE(seen.records.size() == 1);
    const json& sample = seen.records[0];
    CHECK(whole["looked_share"] == 1.0);
    CHECK(sample["looked_share"].get<double>() > 0.05);
    CHECK(sample["looked_share"].get<double>() < 0.3);
    CHECK(sample["gaps"].dump().find("--max-process-bytes") != std::string::npos);
    CHECK(seen.summary["gaps"].dump().find("--max-process-bytes") != std::string::npos);
    // Sums are the kernel's, estimates are near, and states add up.
    CHECK(sample["size_bytes"] == whole["size_bytes"]);
    CHECK(sample["rss_bytes"].get<std::uint64_t>() >= bytes);
    CHECK(sample["empty_tables"].is_null());
    const auto present = sample["anon_bytes"].get<double>() + sample["swapped_bytes"].get<double>();
    CHECK(present == doctest::Approx(bytes).epsilon(0.1));
    CHECK(scan(chosen + Words{"--max-process-bytes", "1T"}).records[0]["looked_share"] == 1.0);
}

TEST_CASE("scan: order, number and conditions of records") {
    if (!have_root()) return;
    const Sleeper a{"sleeper"}, b{"sleeper"}, c{"sleeper"};
    const std::vector<pid_t> up = {a.pid(), b.pid(), c.pid()};
    const auto order = [](const Scan& scan) {
        std::vector<pid_t> all;
        for (const json& record : scan.records) all.push_back(record["pid"].get<pid_t>());
        return all;
    };
    auto sorted = up;
    std::sort(sorted.begin(), sorted.end());
    CHECK(order(scan({"--comm", "sleeper"})) == sorted);
    const auto ranked = scan({"--comm", "sleeper", "--sort", "rss_bytes", "--top", "2"});
    REQUIRE(ranked.records.size() == 2);
    CHECK(ranked.records[0]["rss_bytes"] >= ranked.records[1]["rss_bytes"]);
    CHECK(ranked.summary["left_out"] == 1);
    const auto one = "pid = " + std::to_string(b.pid());
    CHECK(order(scan({"--comm", "sleeper", "--where", one})) == std::vector<pid_t>{b.pid()});
    CHECK(order(scan({"--comm", "sleeper", "--where", "rss_bytes > 1T"})).empty());
    // Mappings and ranges of one process add up to it.
    const auto pid = std::to_string(a.pid());
    const auto size = scan({"-p", pid}).records.at(0)["size_bytes"].get<std::uint64_t>();
    for (const std::string per : {"mapping", "range"}) {
        std::uint64_t sum = 0;
        for (const json& record : scan({"-p", pid, "--per", per}).records) {
            CHECK(record["pid"] == a.pid());
            sum += record["size_bytes"].get<std::uint64_t>();
        }
        CHECK_MESSAGE(sum == size, per);
    }
}

} // namespace pagesift::live
