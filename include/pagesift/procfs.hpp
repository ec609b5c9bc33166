// SPDX-License-Identifier: MIT
// The procfs room: text of /proc turned into values. Pure: no paths, no descriptors, no privileges,
// no side effects. Every parser takes any bytes at all: what it cannot read it counts in
// `ignored_lines` or leaves out, and it keeps names that only a newer kernel knows.
//
//     MapsParser parser;                       // maps or smaps, in pieces of any size
//     parser.feed(piece, [](MappingText&& m) { ... });
//     parser.finish([](MappingText&& m) { ... });
#pragma once

#include "pagesift/base.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::procfs {

/// A device number as maps and mountinfo print it.
struct Device {
    std::uint32_t major = 0;
    std::uint32_t minor = 0;
    auto operator<=>(const Device&) const = default;
};

/// One line of /proc/PID/maps (fs/proc/task_mmu.c:show_map_vma).
struct Mapping {
    AddressRange range;
    bool readable = false;
    bool writable = false;
    bool executable = false;
    bool shared = false;
    std::uint64_t offset = 0; ///< bytes into the file
    Device device;
    std::uint64_t inode = 0;
    /// As maps prints it, "\012" turned back into a newline; a real name may hold that text too, so
    /// the name is for people and never for opening a file.
    std::string name;

    bool operator==(const Mapping&) const = default;
    std::string permissions() const; ///< "rw-p"
};

/// VmFlags of smaps that decide something here; bit numbers of our own.
enum class VmFlag : std::uint32_t {
    locked = 1u << 0,        ///< lo
    hugetlb = 1u << 1,       ///< ht
    pfnmap = 1u << 2,        ///< pf
    io = 1u << 3,            ///< io
    mixedmap = 1u << 4,      ///< mm
    mergeable = 1u << 5,     ///< mg
    hugepage = 1u << 6,      ///< hg
    no_hugepage = 1u << 7,   ///< nh
    uffd_missing = 1u << 8,  ///< um
    uffd_wp = 1u << 9,       ///< uw
    uffd_minor = 1u << 10,   ///< ui
    soft_dirty = 1u << 11,   ///< sd
    sealed = 1u << 12,       ///< sl
    wipe_on_fork = 1u << 13, ///< wf
};

struct VmFlags {
    std::uint32_t bits = 0;
    std::string text; ///< the two-letter codes as read, unknown ones included
    bool has(VmFlag flag) const { return (bits & static_cast<std::uint32_t>(flag)) != 0; }
    bool operator==(const VmFlags&) const = default;
};

VmFlags parse_vm_flags(std::string_view codes);

/// "Key:   12 kB" lines of smaps and smaps_rollup, in bytes (a line without " kB" as it stands).
/// Keys stay as the kernel prints them and in its order, future ones included.
class SizeFields {
public:
    struct Field {
        std::string key;
        std::uint64_t value = 0;
        bool operator==(const Field&) const = default;
    };
    void add(std::string_view key, std::uint64_t value);
    void clear() { fields_ = 0; }
    /// The last value of @p key.
    std::optional<std::uint64_t> find(std::string_view key) const;
    bool empty() const { return fields_ == 0; }
    const Field* begin() const { return kept_.data(); }
    const Field* end() const { return kept_.data() + fields_; }
    bool operator==(const SizeFields& other) const {
        return std::equal(begin(), end(), other.begin(), other.end());
    }

private:
    /// clear() keeps what was here: the next mapping has the same keys in the same order.
    std::vector<Field> kept_;
    std::size_t fields_ = 0;
};

/// A mapping with what smaps says of it; from maps, `fields` and `vm_flags` are empty.
struct MappingText {
    Mapping mapping;
    SizeFields fields;
    std::optional<VmFlags> vm_flags;
};

/// The mapping on @p line, or nothing when it is not one.
std::optional<Mapping> parse_maps_line(std::string_view line);

/// Reads maps or smaps in pieces. Lines that overlap what was already delivered are what the
/// kernel prints again after a race: they are clipped to the part behind it, or dropped.
class MapsParser {
public:
    /// What a sink leaves of its argument is used again.
    using Sink = std::function<void(MappingText&&)>;
    void feed(std::string_view piece, const Sink& sink);
    void finish(const Sink& sink); ///< the end of the text; a last line without newline is dropped
    std::size_t ignored_lines() const { return ignored_; }
    std::size_t overlapping_lines() const { return overlapping_; }

private:
    void line(std::string_view text, const Sink& sink);
    void field(std::string_view text);
    void deliver(const Sink& sink);

    std::string partial_;
    MappingText text_; ///< the mapping whose lines are being read, while has_text_
    bool has_text_ = false;
    std::uint64_t last_end_ = 0;
    std::size_t ignored_ = 0;
    std::size_t overlapping_ = 0;
};

/// smaps_rollup, meminfo, or any text of "Key: number kB" lines.
SizeFields parse_size_fields(std::string_view text);

/// /proc/PID/status, the fields that matter; what the text does not have stays empty.
struct Status {
    std::string name;
    char state = '?';
    std::optional<std::uint32_t> tgid, parent, tracer, uid, euid;
    std::optional<std::uint64_t> vm_rss_bytes, vm_size_bytes, vm_swap_bytes, vm_pte_bytes;
    std::optional<std::uint64_t> threads, effective_capabilities;
    std::optional<std::uint64_t> pending_signals; ///< of the thread alone; bit 0 is signal 1
    bool kernel_thread = false;                   ///< "Kthread: 1" (6.11), else left to the caller
    bool has_memory() const { return vm_size_bytes.has_value(); }
};
Status parse_status(std::string_view text);

/// /proc/PID/stat, the fields that matter (proc_pid_stat(5)).
struct Stat {
    std::string comm; ///< as it is: blanks, brackets and newlines included
    char state = '?';
    std::uint32_t parent = 0, flags = 0; ///< flags: PF_* of the kernel
    std::uint64_t threads = 0;
    std::uint64_t start_time = 0; ///< clock ticks since boot
    std::uint64_t vm_size_bytes = 0, rss_pages = 0;
    bool kernel_thread() const { return (flags & 0x00200000) != 0; } ///< PF_KTHREAD
    /// A zombie has none. Once the first thread has exited, only those of the others tell.
    bool may_have_memory() const { return vm_size_bytes > 0 || threads > 1; }
    bool operator==(const Stat&) const = default;
};
std::optional<Stat> parse_stat(std::string_view text);

/// Start time in clock ticks since boot: field 22 of /proc/PID/stat. The name before it may hold
/// blanks and brackets.
std::optional<std::uint64_t> parse_start_time(std::string_view stat);

/// Address of the stack's first byte: field 28 of /proc/PID/stat. Empty where the kernel hides it,
/// which it does by 0, or by 1 in the name of a process that may not be looked at (do_task_stat).
std::optional<std::uint64_t> parse_stack_start(std::string_view stat);

/// "key value" lines: ksm_stat, vmstat. Other lines are skipped.
std::map<std::string, std::int64_t, std::less<>> parse_key_values(std::string_view text);

/// A row of /proc/swaps. The row number is not the swap type once an area was removed.
struct SwapArea {
    std::string name;
    std::string kind; ///< "file", "partition"
    std::uint64_t size_bytes = 0;
    std::uint64_t used_bytes = 0;
    int priority = 0;
};
std::vector<SwapArea> parse_swaps(std::string_view text);

/// Percent of the last 10 seconds in which something waited: "some avg10=" of
/// /proc/pressure/memory.
std::optional<double> parse_pressure(std::string_view text);

/// A line of /proc/PID/cgroup (cgroups(7)): where a process is in one hierarchy of control groups.
struct Membership {
    std::string_view controllers; ///< with commas between; none: the unified hierarchy (version 2)
    std::string_view path;        ///< from the hierarchy's root, with a slash
    bool unified() const { return controllers.empty(); }
    bool has(std::string_view controller) const;
};
/// Of hierarchies with a name and no controller ("name=systemd") the name is among the controllers.
std::vector<Membership> parse_cgroup(std::string_view text);

/// Device and type of each mount: /proc/PID/mountinfo.
std::map<Device, std::string> parse_mountinfo(std::string_view text);

/// The chosen word of "always [madvise] never"; empty when none is bracketed.
std::string parse_bracketed(std::string_view text);

} // namespace pagesift::procfs
