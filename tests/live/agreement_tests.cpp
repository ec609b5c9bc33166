// SPDX-License-Identifier: MIT
// What other tools say of the same stopped processes: page-types page by page, pmap -XX mapping by
// mapping, smem and smaps_rollup in sums, and both lenses. Where they differ from pagesift the
// difference has a name and a cause in one of the tables below; any other one fails the test.
#include "harness.hpp"
#include "zoo/witness.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <unistd.h>
#include <utility>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

// --- Who is looked at ----------------------------------------------------------------------------

/// A process that stands still.
struct Subject {
    std::string name;
    pid_t pid = 0;
    std::shared_ptr<void> owner;
    bool has_markers = false; ///< as the zoo says of itself; some kernels are too old for any
    std::string pid_text() const { return std::to_string(pid); }
};

Subject stopped(std::string name, const std::shared_ptr<Background>& program) {
    program->signal(SIGSTOP);
    wait_until_stopped(program->pid());
    return {std::move(name), program->pid(), program};
}

bool shows_markers(const json& zoo) {
    for (const auto& exhibit : zoo["exhibits"])
        for (const auto& run : exhibit["runs"])
            if (run["state"] == "marker") return true;
    return false;
}

std::vector<Subject> subjects() {
    std::vector<Subject> all;
    if (const auto zoo = stopped_zoo())
        all.push_back({"the zoo", zoo->pid(), zoo, shows_markers(zoo->description())});
    if (const auto python = find_program({"/usr/bin/python3", "/usr/local/bin/python3"})) {
        const auto program = std::make_shared<Background>(
            Words{*python, "-c",
                  "import json, sys\n"
                  "kept = {str(i): list(range(50)) for i in range(20000)}\n"
                  "print('ready', flush=True)\n"
                  "sys.stdin.read()\n"});
        REQUIRE(program->wait_for_line(30) == "ready");
        all.push_back(stopped("python3", program));
    }
    if (const auto redis = find_program({"/usr/bin/redis-server", "/usr/local/bin/redis-server"})) {
        const TemporaryDirectory folder; // for its socket, which nobody needs
        const auto program = std::make_shared<Background>(
            Words{*redis, "--port", "0", "--unixsocket", folder.path() + "/socket", "--save", "",
                  "--appendonly", "no"});
        for (std::string line; line.find("eady to accept") == line.npos;) {
            const auto next = program->wait_for_line(30);
            REQUIRE(next);
            line = *next;
        }
        all.push_back(stopped("redis-server", program));
    }
    return all;
}

/// Compares until nobody else has moved a page meanwhile: an ager may, and programs that start and
/// end move the shares of common libraries. @p compare says what differs.
void must_agree(const Subject& subject, const std::function<std::string()>& compare) {
    std::string difference;
    for (int tries = 0; tries < 5; ++tries) {
        const auto before = witness::smaps_rollup(subject.pid);
        difference = compare();
        if (difference.empty()) return;
        if (tries >= 2 && before == witness::smaps_rollup(subject.pid)) break;
    }
    FAIL_CHECK(subject.name << ": " << difference);
}

/// Lists at most a few of what differs.
class Listing {
public:
    void add(const std::string& line) {
        if (++count_ <= 10) text_ += "\n" + line;
    }
    std::string text() const {
        return count_ == 0 ? "" : std::to_string(count_) + " differences" + text_;
    }

private:
    std::size_t count_ = 0;
    std::string text_;
};

// --- page-types ----------------------------------------------------------------------------------

/// What page-types -L -r says of a page: the letters of its flags. No letters: nothing at all.
struct PageType {
    std::string letters;
    bool says(char letter) const { return letters.find(letter) != letters.npos; }
    bool nothing() const { return letters.empty(); }
};
constexpr char anonymous = 'a', ksm = 'x', thp = 't', zero_page = 'z', huge = 'G', swap = 'w',
               file_or_shared = 'F';

/// The word for a page in page-types' terms, by the flags that tell.
std::string class_of(const PageType& type) {
    if (type.nothing()) return "nothing";
    if (type.says(swap)) return "swap";
    if (type.says(zero_page)) return "zero-page";
    if (type.says(ksm)) return "ksm";
    if (type.says(huge)) return "huge";
    if (type.says(thp)) return "thp";
    if (type.says(anonymous)) return "anonymous";
    return type.says(file_or_shared) ? "file" : "kernel";
}

/// The same for pagesift's word, of a page of no named difference.
const std::map<std::string, std::string> words = {
    {"none", "nothing"},          {"cached", "nothing"},         {"uncached", "nothing"},
    {"swapped", "swap"},          {"present/anon", "anonymous"}, {"present/file", "file"},
    {"present/shmem", "file"},    {"present/thp", "thp"},        {"present/hugetlb", "huge"},
    {"present/ksm", "ksm"},       {"present/ksm-sole", "ksm"},   {"present/zero-page", "zero-page"},
    {"present/special", "kernel"}};

struct PageDifference {
    const char* name;
    const char* cause;
    bool (*holds)(const std::string& ours, const PageType& theirs, const json& page);
};

const PageDifference page_differences[] = {
    {"markers are called swap", "page-types looks at bit 62 alone; a marker is an entry of type 31",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return ours == "marker" && theirs.says(swap);
     }},
    {"migration entries and broken frames are called swap",
     "page-types looks at bit 62 alone; these are entries of other types",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return ours == "migrating" && theirs.says(swap);
     }},
    {"swapped shared memory is not seen",
     "its entries are none; where it is only the page cache knows, which page-types does not ask",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return ours == "shmem-swapped" && theirs.nothing();
     }},
    {"what may be in swap is not seen",
     "as before, on a kernel that cannot tell shared memory in swap from such in the swap cache",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return ours == "unknown" && theirs.nothing();
     }},
    {"pages without frames are not seen",
     "entries of VM_PFNMAP mappings are hidden; pagesift takes all of these as present",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return ours == "present/special" && theirs.nothing();
     }},
    {"every anonymous page is called KSM",
     "from Linux 6.10 to 6.18 some kernels set KPF_KSM by the wrong bits, private huge pages "
     "(hugetlb) included; smaps, or the frame in the kernel's memory, tells",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return witness::ksm_flag_lies() && theirs.says(ksm) && theirs.says(anonymous) &&
                ours.rfind("present/", 0) == 0;
     }},
    {"a huge zero page is called THP", "the zero page goes first in pagesift's order of kinds",
     [](const std::string& ours, const PageType& theirs, const json&) {
         return ours == "present/zero-page" && theirs.says(thp);
     }},
    {"pages of files have huge folios",
     "KPF_THP is shown for anonymous memory only before Linux 6.12; pagesift asks for the entry, "
     "too",
     [](const std::string& ours, const PageType& theirs, const json& page) {
         return ours == "present/thp" && !theirs.says(thp) && !theirs.nothing() &&
                field(page["attributes"], "pmd_mapped") == true;
     }},
    {"tails of folios have no flags of their own",
     "before Linux 6.12 kpageflags shows some flags on a folio's head only",
     [](const std::string& ours, const PageType& theirs, const json& page) {
         return ours.rfind("present/", 0) == 0 && field(page, "folio_pages").is_number() &&
                field(page, "folio_pages") != 1 && !theirs.says(anonymous) && !theirs.nothing() &&
                !theirs.says(swap) && class_of(theirs) != "file";
     }},
};

std::string word_of(const json& page) {
    const std::string state = page["state"];
    return state == "present" ? state + "/" + field(page, "kind").get<std::string>() : state;
}

/// Built from Debian's source of the kernel; nothing where that is not installed.
std::optional<std::string> page_types() {
    if (const char* const built = std::getenv("PAGESIFT_PAGE_TYPES"))
        if (access(built, X_OK) == 0) return built;
    const char* const script = std::getenv("PAGESIFT_BUILD_PAGE_TYPES");
    if (script == nullptr || access(script, X_OK) != 0) return std::nullopt;
    const char* const place = std::getenv("PAGESIFT_PAGE_TYPES_FOLDER");
    const std::string folder = place != nullptr ? place : "/var/tmp/pagesift-page-types";
    const auto outcome = run({script, folder}, {.seconds = 120});
    const auto program = folder + "/page-types";
    if (outcome.exit_code == 0 && access(program.c_str(), X_OK) == 0) return program;
    return std::nullopt;
}

/// By address. "voffset<tab>offset<tab>flags", voffset being a page's number.
std::map<std::uint64_t, PageType> ask_page_types(const std::string& program, const Subject& who) {
    const auto outcome = run({program, "-p", who.pid_text(), "-L", "-N", "-r"});
    REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
    std::map<std::uint64_t, PageType> all;
    std::istringstream lines(outcome.out);
    std::string number, offset, flags;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream columns(line);
        if (!(columns >> number >> offset >> flags) || number == "voffset") continue;
        flags.erase(std::remove(flags.begin(), flags.end(), '_'), flags.end());
        all[std::stoull(number, nullptr, 16) * witness::page_size()] = {flags.empty() ? "-"
                                                                                      : flags};
    }
    REQUIRE(!all.empty());
    return all;
}

/// @param named counts by name what the table explains
std::string compare_pages(const json& seen, const std::map<std::uint64_t, PageType>& types,
                          std::map<std::string, std::size_t>& named) {
    Listing listing;
    for (const json& page : seen["pages"]) {
        const auto found = types.find(address(page["address"]));
        const PageType theirs = found == types.end() ? PageType{} : found->second;
        const auto ours = word_of(page);
        const auto word = words.find(ours);
        if (word != words.end() && word->second == class_of(theirs)) continue;
        const auto* const difference =
            std::find_if(std::begin(page_differences), std::end(page_differences),
                         [&](const auto& one) { return one.holds(ours, theirs, page); });
        if (difference == std::end(page_differences))
            listing.add(page["address"].get<std::string>() + " is " + ours + ", page-types says " +
                        class_of(theirs) + " " + theirs.letters);
        else
            ++named[difference->name];
    }
    return listing.text();
}

// --- Sums ----------------------------------------------------------------------------------------

std::uint64_t number(const json& object, const char* name) {
    const auto value = field(object, name);
    return value.is_number() ? value.get<std::uint64_t>() : 0;
}

/// A figure, and what it is called by others.
struct Sum {
    const char* ours;
    const char* theirs; ///< in smaps
};
constexpr Sum sums[] = {{"rss_bytes", "Rss"},
                        {"swap_bytes", "Swap"},
                        {"anonymous_bytes", "Anonymous"},
                        {"ksm_bytes", "KSM"},
                        {"anon_huge_pages_bytes", "AnonHugePages"},
                        {"shared_hugetlb_bytes", "Shared_Hugetlb"},
                        {"private_hugetlb_bytes", "Private_Hugetlb"}};

void compare(const char* what, std::uint64_t ours, std::uint64_t theirs, Listing& listing) {
    if (ours != theirs)
        listing.add(std::string(what) + " is " + std::to_string(ours) + ", not " +
                    std::to_string(theirs));
}

/// The kernel cuts Pss off at whole kilobytes, in each mapping or once in all; and whoever looks
/// maps the C library as well, which at most halves the shares of others in files.
void compare_pss(std::uint64_t ours, std::uint64_t theirs, std::uint64_t of_files,
                 std::size_t mappings, Listing& listing) {
    const std::uint64_t cut_off = mappings * 1024;
    if (ours > theirs + cut_off + of_files || theirs > ours + cut_off + of_files)
        listing.add("Pss is " + std::to_string(ours) + ", not " + std::to_string(theirs));
}

// --- pmap ----------------------------------------------------------------------------------------

/// The rows of pmap -XX by address; bytes by the head of a column.
std::map<std::uint64_t, std::map<std::string, std::uint64_t>> parse_pmap(const std::string& text) {
    std::map<std::uint64_t, std::map<std::string, std::uint64_t>> rows;
    std::istringstream lines(text);
    Words heads;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream columns(line);
        Words cells;
        for (std::string cell; columns >> cell;) cells.push_back(cell);
        if (!cells.empty() && cells[0] == "Address") {
            heads = cells;
        } else if (!cells.empty() && cells.back() == "[vsyscall]") {
            // The kernel's own, at the same address in every process: pagesift leaves it out.
        } else if (!heads.empty() && cells.size() >= heads.size() - 2 && cells[1].size() == 4 &&
                   (cells[1][0] == 'r' || cells[1][0] == '-')) {
            auto& row = rows[std::stoull(cells[0], nullptr, 16)];
            // VmFlags, of several words, is behind all that are numbers.
            for (std::size_t i = 5; i < heads.size() && heads[i] != "VmFlags"; ++i)
                row[heads[i]] = std::strtoull(cells[i].c_str(), nullptr, 10) * 1024;
        }
    }
    return rows;
}

std::string compare_mappings(const json& seen, const std::string& text) {
    const auto rows = parse_pmap(text);
    if (rows.empty()) return "pmap has no rows";
    Listing listing;
    std::map<std::string, std::uint64_t> totals;
    for (const auto& [start, row] : rows)
        for (const auto& [head, bytes] : row) totals[head] += bytes;
    std::size_t found = 0;
    for (const json& mapping : seen["mappings"]) {
        const auto row = rows.find(address(mapping["start"]));
        if (row == rows.end()) {
            listing.add("pmap has no mapping at " + mapping["start"].get<std::string>());
            continue;
        }
        ++found;
        const auto size = address(mapping["end"]) - address(mapping["start"]);
        compare("Size", size, row->second.at("Size"), listing);
        compare("Rss", number(mapping, "rss_bytes"), row->second.at("Rss"), listing);
    }
    compare("mappings", found, rows.size(), listing);
    for (const Sum& sum : sums)
        if (const auto total = totals.find(sum.theirs);
            total != totals.end() && !field(seen["totals"], sum.ours).is_null())
            compare(sum.theirs, number(seen["totals"], sum.ours), total->second, listing);
    return listing.text();
}

} // namespace

TEST_CASE("agreement: page-types says the same of every page, but for what has a name") {
    if (!have_root()) return;
    const auto program = page_types();
    if (!program) return skip("page-types cannot be built here");
    for (const auto& subject : subjects()) {
        for (const auto& lens : lenses()) {
            INFO(subject.name << ", the " << lens << " lens");
            std::map<std::string, std::size_t> named;
            std::size_t pages = 0;
            must_agree(subject, [&] {
                named.clear();
                const auto seen = inspect(subject.pid, {"--pages", "--lens", lens});
                pages = seen["pages"].size();
                return compare_pages(seen, ask_page_types(*program, subject), named);
            });
            std::string text;
            for (const auto& [name, count] : named)
                text += "\n  " + name + ": " + std::to_string(count);
            MESSAGE(subject.name << ", " << lens << " lens: " << pages << " pages" << text);
            if (subject.name == "the zoo") {
                CHECK((named["markers are called swap"] > 0) == subject.has_markers);
                CHECK(named["swapped shared memory is not seen"] > 0);
            }
        }
    }
}

TEST_CASE("agreement: pmap -XX says the same of every mapping") {
    if (!have_root()) return;
    const auto program = find_program({"/usr/bin/pmap", "/bin/pmap"});
    if (!program || run({*program, "-XX", std::to_string(getpid())}).exit_code != 0)
        return skip("pmap is not installed");
    for (const auto& subject : subjects())
        for (const auto& lens : lenses()) {
            INFO(subject.name << ", the " << lens << " lens");
            must_agree(subject, [&] {
                const auto seen = inspect(subject.pid, {"--lens", lens, "--smaps", "off"});
                const auto outcome = run({*program, "-XX", subject.pid_text()});
                REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
                return compare_mappings(seen, outcome.out);
            });
        }
}

TEST_CASE("agreement: smem says the same in sums") {
    if (!have_root()) return;
    const auto program = find_program({"/usr/bin/smem"});
    if (!program) return skip("smem is not installed");
    for (const auto& subject : subjects())
        for (const auto& lens : lenses()) {
            INFO(subject.name << ", the " << lens << " lens");
            must_agree(subject, [&] {
                const auto seen = inspect(subject.pid, {"--lens", lens});
                const auto outcome = run({*program, "-H", "-c", "pid uss pss rss swap"});
                REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
                Listing listing;
                std::istringstream rows(outcome.out);
                std::uint64_t pid = 0, uss = 0, pss = 0, rss = 0, swapped = 0;
                bool found = false;
                while (!found && rows >> pid >> uss >> pss >> rss >> swapped)
                    found = pid == static_cast<std::uint64_t>(subject.pid);
                if (!found) return std::string("smem does not list it");
                const auto& totals = seen["totals"];
                compare("RSS", number(totals, "rss_bytes"), rss * 1024, listing);
                compare("swap", number(totals, "swap_bytes"), swapped * 1024, listing);
                const auto rollup = witness::smaps_rollup(subject.pid);
                // smem is a Python program: what both of them map is shared while smem looks.
                const auto of_files = rollup.at("Pss_File");
                compare_pss(number(totals, "pss_bytes"), pss * 1024, of_files,
                            seen["mappings"].size(), listing);
                const auto ours = number(totals, "uss_bytes");
                if (uss * 1024 > ours + of_files || ours > uss * 1024 + of_files)
                    listing.add("USS is " + std::to_string(ours) + ", not " +
                                std::to_string(uss * 1024));
                return listing.text();
            });
        }
}

TEST_CASE("agreement: smaps_rollup says the same in sums") {
    if (!have_root()) return;
    for (const auto& subject : subjects())
        for (const auto& lens : lenses()) {
            INFO(subject.name << ", the " << lens << " lens");
            must_agree(subject, [&] {
                const auto seen = inspect(subject.pid, {"--lens", lens});
                const auto rollup = witness::smaps_rollup(subject.pid);
                const auto& totals = seen["totals"];
                Listing listing;
                for (const Sum& sum : sums)
                    if (const auto found = rollup.find(sum.theirs);
                        found != rollup.end() && !field(totals, sum.ours).is_null())
                        compare(sum.theirs, number(totals, sum.ours), found->second, listing);
                const auto of_files = rollup.count("Pss_File") ? rollup.at("Pss_File") : 0;
                compare_pss(number(totals, "pss_bytes"), rollup.at("Pss"), of_files,
                            seen["mappings"].size(), listing);
                return listing.text();
            });
        }
}

TEST_CASE("agreement: both lenses say the same") {
    if (!have_root() || lenses().size() < 2) return;
    for (const auto& subject : subjects())
        must_agree(subject, [&] {
            const auto proc = inspect(subject.pid, {"--pages", "--lens", "proc"});
            const auto exact = inspect(subject.pid, {"--pages", "--lens", "exact"});
            Listing listing;
            compare("pages", proc["pages"].size(), exact["pages"].size(), listing);
            for (std::size_t i = 0; i < std::min(proc["pages"].size(), exact["pages"].size());
                 ++i) {
                const json &one = proc["pages"][i], &other = exact["pages"][i];
                const auto ours = word_of(one), theirs = word_of(other);
                // What the proc lens does not know, the exact one may.
                const bool open = ours.find("unknown") != ours.npos;
                if (one["address"] != other["address"] || (!open && ours != theirs))
                    listing.add(one.dump() + " is not " + other.dump());
            }
            for (const char* name : {"rss_bytes", "swap_bytes", "anonymous_bytes", "uss_bytes"})
                compare(name, number(proc["totals"], name), number(exact["totals"], name), listing);
            return listing.text();
        });
}

} // namespace pagesift::live
