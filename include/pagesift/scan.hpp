// SPDX-License-Identifier: MIT
// The scan room: many processes, one flat record each. One table of fields gives the words of every
// format, of --where and of --sort; a record holds a value for each, and "unknown" is a value.
// Pure: no operating system, no output format.
//
//     const auto chosen = select(everyone, selection);
//     const Record record = make_record(identity, census, Depth::pages);
//     totals.add(share_of(record, census));
//     if (where.matches(record) == Tri::yes) ranking.add(record);
#pragma once

#include "pagesift/classify.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace pagesift::scan {

// --- Which processes -----------------------------------------------------------------------------

/// Who a process is, without a look at its memory.
struct Identity {
    std::uint32_t pid = 0, parent = 0;
    std::uint64_t start_time = 0; ///< clock ticks since boot; with the pid, no other process' own
    std::optional<std::uint32_t> uid;
    std::string user;   ///< name of uid; empty: it has none, or none is known
    std::string comm;   ///< at most 15 bytes, of any kind
    std::string exe;    ///< target of /proc/PID/exe; empty: not readable
    std::string cgroup; ///< "/system.slice/x.service": of v2, else of v1's memory controller
    std::optional<std::uint64_t> rss_bytes; ///< VmRSS
};

/// All conditions must hold; within one, any of its values. An empty condition always holds.
struct Selection {
    std::vector<std::uint32_t> pids;
    std::vector<std::string> comms, exes; ///< globs (fnmatch); of exe, also against its last part
    std::vector<std::uint32_t> uids;
    std::vector<std::string> cgroups;       ///< a path, and everything below it
    std::vector<std::uint32_t> children_of; ///< descendants, the process itself not included
    std::uint64_t min_rss_bytes = 0;        ///< a process whose VmRSS is not known is left out
};

/// The chosen ones of @p everyone, by pid.
std::vector<Identity> select(std::vector<Identity> everyone, const Selection& selection);

// --- What is known of one ------------------------------------------------------------------------

/// How closely processes are looked at.
enum class Depth : std::uint8_t {
    totals,  ///< smaps_rollup and status
    pages,   ///< every page, but no contents
    content, ///< contents as well
};

/// What a record is about.
enum class Per : std::uint8_t { process, mapping, range, cgroup, comm };

std::string_view depth_word(Depth depth); ///< "totals"
std::string_view per_word(Per per);       ///< "process"

/// What a value is, and with it its type: text a string, seconds and share a double, flag a bool,
/// all others a whole number.
enum class Unit : std::uint8_t {
    text,
    bytes,
    count,
    seconds,
    share, ///< of 1
    flag,
    id,      ///< a number that names something and is no quantity: a pid
    address, ///< of virtual memory; for people and in JSON hexadecimal
};
std::string_view unit_word(Unit unit); ///< "bytes"

struct Field {
    std::string name; ///< "zero_filled_bytes"
    Unit unit;
    std::string meaning;        ///< one line, for man page, schema and OpenMetrics HELP
    bool additive = false;      ///< may be summed over processes
    Depth from = Depth::totals; ///< the least depth at which it can be known
    bool of_part = false;       ///< only of mappings and ranges: start, end, name …
};

/// Every field, in the order of all formats. States, kinds, markers and attributes come from their
/// tables.
std::span<const Field> fields();
/// Its place in fields(); empty: there is none.
std::optional<std::size_t> find_field(std::string_view name);

/// Empty: unknown, or not asked for at that depth.
using Value = std::variant<std::monostate, std::uint64_t, double, bool, std::string>;
inline bool is_known(const Value& value) { return !std::holds_alternative<std::monostate>(value); }

struct Record {
    Record();
    std::vector<Value> values; ///< one a field
    std::vector<Gap> gaps;     ///< why values are unknown
    /// Both throw std::out_of_range where there is no such field.
    const Value& at(std::string_view field) const;
    void set(std::string_view field, Value value);
    /// Empty: unknown, or no text. Throws as at() does.
    std::string text_at(std::string_view field) const;
};

/// What smaps_rollup and status tell, which costs no look at pages.
struct Rollup {
    procfs::SizeFields sizes; ///< of smaps_rollup; empty: not readable
    procfs::Status status;
    std::vector<Gap> gaps;
};

/// One record of a whole process, of depth totals.
Record make_record(const Identity& identity, const Rollup& rollup);
/// One record of a whole process, with the figures that inspect shows.
Record make_record(const Identity& identity, const Census& census, Depth depth);
/// Gives @p record what only smaps_rollup knows (swap_pss_bytes), and what the pages did not tell.
void add_rollup(Record& record, const Rollup& rollup);
/// One record a mapping, or a run of pages; what names the process is repeated.
Record make_record(const Identity& identity, const Census& census, const MappingCensus& mapping,
                   Depth depth);
Record make_record(const Identity& identity, const HostFacts& host, const Mapping& mapping,
                   const Run& run, Depth depth);

/// A part of a file that a process maps, and what is in it without a map count.
struct FilePart {
    procfs::Device device;
    std::uint64_t inode = 0;
    std::pair<std::uint64_t, std::uint64_t> window; ///< bytes of the file, half-open
    std::uint64_t cached_bytes = 0, uncached_bytes = 0, shmem_swapped_bytes = 0;
    std::uint64_t swap_bytes = 0; ///< of shmem_swapped_bytes, what the record's swap_bytes holds
};

/// What a process adds to a sum over several: its record, but of pages in memory only what is its
/// own (a page mapped N times counts 1/N, as in PSS); and the parts of files that it maps, which a
/// sum counts once.
struct Share {
    Record record;
    std::vector<FilePart> files;
};
/// What has no map count counts in full: pages in swap, the zero page, frames without a page. So do
/// the figures of smaps but for Pss (size, rss, anonymous, KSM, huge pages) and the bounds of a
/// sample.
Share share_of(const Record& record, const Census& census);

// --- Choosing and adding up ----------------------------------------------------------------------

/// A condition on records: fields with = != ~ !~ < <= > >=, sizes with K M G T, and, or, not,
/// brackets: "zero_filled_bytes > 64M or comm ~ 'java*'". A comparison with an unknown value
/// decides nothing.
class Where {
public:
    Where();
    ~Where();
    Where(const Where&);
    Where(Where&&) noexcept;
    Where& operator=(Where) noexcept;
    /// Throws Error(usage) that points at the wrong word.
    static Where parse(std::string_view expression);
    Tri matches(const Record& record) const;
    Depth needs() const; ///< the least depth at which every field of it can be known

    struct Node;

private:
    std::shared_ptr<const Node> root_;
};

/// "zero_filled_bytes" or "-pid": numbers fall and text rises, a minus turns that around; unknown
/// comes last, and equals go by pid and address. parse() throws Error(usage).
struct SortKey {
    std::size_t field = 0;
    bool reversed = false;
    static SortKey parse(std::string_view text);
    bool before(const Record& a, const Record& b) const;
};

/// Keeps the first @p most records by a key, in order; all of them with 0.
class Ranking {
public:
    Ranking(SortKey key, std::size_t most) : key_(key), most_(most) {}
    void add(Record record);
    std::vector<Record> take();
    std::size_t left_out() const { return left_out_; }

private:
    SortKey key_;
    std::size_t most_, left_out_ = 0;
    std::vector<Record> records_;
};

/// Parts of files, so that what several processes map is counted once in a sum over them.
class FileWindows {
public:
    using Window = std::pair<std::uint64_t, std::uint64_t>; ///< bytes of the file, half-open
    /// The parts of @p window that were not added before.
    std::vector<Window> unseen(procfs::Device device, std::uint64_t inode, Window window) const;
    void add(procfs::Device device, std::uint64_t inode, Window window);

private:
    struct Key {
        procfs::Device device;
        std::uint64_t inode = 0;
        auto operator<=>(const Key&) const = default;
    };
    std::map<Key, std::map<std::uint64_t, std::uint64_t>> seen_; ///< start -> end, disjoint
};

/// A sum over processes: of a group, or of all. What it keeps does not grow with their number, but
/// with that of the files they map.
class Sum {
public:
    Sum();
    /// A part of a file that an earlier process maps as well counts no second time; of a window
    /// that is new in part, what is in it is taken as spread evenly.
    void add(Share share);
    /// Of a process whose pages were not looked at: shared memory is in pss_bytes by its share, and
    /// in rss_bytes and swap_bytes in full.
    void add(const Record& record);
    /// Additive fields are sums over the processes that are known, and unknown where none is; for
    /// how many one is missing is in the gaps, and the most of these in `unknown_processes`. Other
    /// fields have the value that all have in common, else none.
    Record record() const;
    std::uint64_t processes() const { return processes_; }
    /// Of how many processes the field of that index is not known.
    std::uint64_t unknown(std::size_t field) const { return columns_[field].unknown; }

private:
    struct Column {
        std::uint64_t whole = 0;
        double real = 0;
        std::uint64_t known = 0, unknown = 0; ///< processes
        Value common;                         ///< of those so far, while `same`
        bool same = true;
    };
    struct Reason {
        Gap gap;
        std::uint64_t processes = 0;
    };
    void add_reasons(const std::vector<Gap>& gaps);

    std::vector<Column> columns_;
    std::vector<Reason> reasons_;
    FileWindows windows_;
    std::uint64_t processes_ = 0;
    bool complete_ = true;
};

// --- What it may cost ----------------------------------------------------------------------------

/// How long to sleep so that a share of one core is not exceeded. Pure: it is told the clocks.
class Pace {
public:
    using Duration = std::chrono::nanoseconds;
    /// @param share of one core, in (0, 1]; 0: no limit
    explicit Pace(double share) : share_(share) {}
    /// @param elapsed,cpu since the scan began; what to sleep now.
    Duration rest(Duration elapsed, Duration cpu) const;

private:
    double share_;
};

/// Blocks of all mappings, spread evenly, that are about one in @p one_in of their pages: of each
/// mapping at least one. A block is one page-table slot, or several where there would be too many.
/// The same @p seed gives the same blocks.
std::vector<AddressRange> sample_blocks(std::span<const Mapping> mappings, const HostFacts& host,
                                        std::uint64_t one_in, std::uint64_t seed);
/// Makes of a look at sample_blocks() an estimate of the whole, mapping by mapping. What no block
/// can tell is unknown: empty page tables.
void extrapolate(Census& census);

/// What a scan was, beside its records.
struct Summary {
    std::string host_name, release;
    std::chrono::system_clock::time_point begin;
    double elapsed_seconds = 0, cpu_seconds = 0;
    Depth depth = Depth::pages;
    Per per = Per::process;
    std::string lens;
    std::uint64_t chosen = 0, answered = 0, partial = 0;
    std::uint64_t ended = 0;    ///< were gone before they could be looked at
    std::uint64_t denied = 0;   ///< of other users, without the privilege
    std::uint64_t skipped = 0;  ///< not reached: --max-time, or interrupted
    std::uint64_t left_out = 0; ///< by --where or --top
    bool interrupted = false;
    Record totals; ///< over all that were answered, whatever --where and --top left out
    std::vector<Gap> gaps;
};

} // namespace pagesift::scan
