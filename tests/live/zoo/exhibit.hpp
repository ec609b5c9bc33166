// SPDX-License-Identifier: MIT
// What the zoo is made of. An exhibit is a range of pages whose state is known because it was built
// so, and proved by reads that owe nothing to pagesift. The catalogue lists every exhibit; a file
// for each theme (anon.cpp, shmem.cpp, ...) builds them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/types.h>

#include "machine.hpp"

namespace pagesift::zoo {

/// The kernel does not show what the exhibit claims: the zoo is wrong, or the kernel is not as
/// expected. Never a reason to leave an exhibit out quietly.
class ProofFailed : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

inline void expect(bool holds, const std::string& claim) {
    if (!holds) throw ProofFailed("not so: " + claim);
}

/// Consecutive pages of one class, in the words of the taxonomy.
struct Run {
    std::size_t pages = 0;
    std::string state;
    std::optional<std::string> kind;   ///< of present pages
    std::optional<std::string> marker; ///< of markers
};

inline Run present(std::size_t pages, std::string kind) {
    return {pages, "present", std::move(kind), {}};
}
inline Run marker(std::size_t pages, std::string which) {
    return {pages, "marker", {}, std::move(which)};
}
inline Run in_state(std::size_t pages, std::string state) {
    return {pages, std::move(state), {}, {}};
}

/// What is known of the page table behind an exhibit.
enum class Table {
    none,      ///< never touched
    allocated, ///< touched at least once, and nothing frees the table
    huge,      ///< mapped by the upper level
    elsewhere, ///< a range that the kernel made, with neighbours nobody knows
};

struct Exhibit {
    std::string name;
    std::uint64_t start = 0;
    std::vector<Run> runs;
    Table table = Table::allocated;
    /// Only those that are proved, and true of every present (or swapped) page.
    std::map<std::string, bool> attributes = {};
    std::optional<std::uint64_t> sharers = {};
    std::optional<std::uint64_t> folio_pages = {};
    /// Brings back what time may have undone (a dirty page that was written back). May be empty.
    std::function<void()> settle = {};
    /// Looks, and throws ProofFailed. Runs right before the zoo speaks.
    std::function<void()> prove = {};
    std::string proof = {}; ///< how, in one sentence

    std::size_t pages() const;
    std::uint64_t end() const;
};

/// The things of the machine that exhibits need; `--without` names them.
enum class Need { nothing, swap_file, zram, ksm, thp, hugetlb };
const char* word(Need need);

/// Gives exhibits their places, and what several of them use.
class Keeper {
public:
    explicit Keeper(Machine& machine);
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;

    Machine& machine() { return machine_; }

    /// The start of @p slots slots that nobody else uses, with empty slots around them.
    std::uint64_t place(std::size_t slots = 1);
    /// mmap at an exact place; throws Unavailable with @p what in the text.
    std::uint64_t map(std::uint64_t at, std::uint64_t bytes, int protection, int flags,
                      const char* what, int fd = -1, std::uint64_t offset = 0);
    /// Takes over a mapping that was made in a place by other means than map().
    void adopt(std::uint64_t at, std::uint64_t bytes) { mapped_.emplace_back(at, bytes); }
    /// Private anonymous pages in a place of their own, never huge.
    std::uint64_t anonymous(std::size_t pages);

    /// Turns the swap area on at the first call; a refusal is repeated by every later call.
    void use_swap(Need which);
    /// The swap type that entries of that area carry.
    std::uint64_t swap_type(Need which) const;

    /// A descriptor that stays open as long as the zoo; an unlinked file on a real file system.
    int file(std::size_t pages);
    int keep_open(int fd);
    /// A process to be killed when the zoo ends.
    void keep_child(pid_t pid) { children_.push_back(pid); }

    /// Ends the children and unmaps every exhibit, so that swap can be turned off quickly.
    void clear();

private:
    void turn_on_swap(Need which);

    Machine& machine_;
    std::uint64_t next_place_ = 0;
    std::uint64_t arena_end_ = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> mapped_;
    std::map<Need, std::uint64_t> swap_types_;
    std::map<Need, std::string> swap_refusals_;
    std::vector<int> descriptors_;
    std::vector<pid_t> children_;
};

/// The name of an exhibit and the cell of the taxonomy that it fills: "swapped", "present/ksm".
struct Label {
    const char* name;
    const char* cell;
};

/// One building step. It makes all exhibits that it names, in that order.
struct Step {
    std::vector<Label> labels;
    Need need;
    std::vector<Exhibit> (*build)(Keeper&);
};

// One function a theme; each returns its part of the catalogue.
std::vector<Step> fork_steps();
std::vector<Step> anon_steps();
std::vector<Step> file_steps();
std::vector<Step> shmem_steps();
std::vector<Step> marker_steps();
std::vector<Step> table_steps();
std::vector<Step> huge_steps();
std::vector<Step> ksm_steps();
std::vector<Step> anon_zram_steps();
std::vector<Step> shmem_zram_steps();

/// All steps in the order of building: what forks comes first, because a fork shares all anonymous
/// memory there is; what goes to zram comes last, because the newest swap area is preferred.
std::vector<Step> catalogue();

} // namespace pagesift::zoo
