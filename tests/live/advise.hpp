// SPDX-License-Identifier: MIT
// What the tests of advise share: memory whose contents are known, and the program's answer.
#pragma once

#include "harness.hpp"
#include "zoo/machine.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace pagesift::live {

/// Addresses that are free in this process and in its children, from a multiple of a slot on.
std::uint64_t free_addresses(std::size_t bytes);

/// Fills memory of this process with what belongs to its addresses.
void fill(std::uint64_t at, std::size_t bytes);
/// Whether memory of this process holds that.
bool holds(std::uint64_t at, std::size_t bytes);
/// Whether memory of another process holds that. Swaps it in.
bool is_filled(pid_t pid, std::uint64_t at, std::size_t bytes);

/// A child that maps memory at addresses the test knows; what it does is the function's business.
struct Target {
    Target(std::size_t bytes, const std::function<void(std::uint64_t at, std::size_t bytes)>& body);
    std::uint64_t at;
    std::size_t bytes;
    Child child;
    pid_t pid() const { return child.pid(); }
    std::string pid_text() const { return std::to_string(pid()); }
    std::string address() const; ///< for -a
    bool intact() const { return is_filled(pid(), at, bytes); }
    /// Pages of the whole range that are present, and in swap.
    std::size_t present() const, swapped() const;
};

/// Maps small anonymous pages and fills them.
void map_private(std::uint64_t at, std::size_t bytes);

struct Advised {
    Outcome outcome;
    json process; ///< null: none was answered
    std::uint64_t effect(const char* field) const;
    std::uint64_t total(const char* field) const;
    std::uint64_t skipped(const std::string& reason) const;
    std::uint64_t stayed(const std::string& reason) const;
};
/// advise --format json.
Advised advise(const std::vector<std::string>& arguments, const RunOptions& options = {});

/// Swap for the length of a test: a file, or compressed memory. Null where there is none to be had.
enum class SwapOn { file, zram };
std::unique_ptr<zoo::Machine> with_swap(SwapOn where, std::uint64_t bytes = 64 << 20);
bool has_swap(); ///< of whatever kind, now

/// Skips where the kernel takes no such advice for another process.
bool takes(const std::string& action);

// From inside -------------------------------------------------------------------------------------

/// The arguments of an action on a target; with a limit for stops that fits slow machines.
std::vector<std::string> on_inside(const Target& target, const char* action,
                                   const std::vector<std::string>& more = {});
/// What a plan says about the remote call that it would take; empty: it can be applied.
std::string remark_of(const Advised& planned);
/// Skips where a plan says that it could not be applied on this kernel.
bool can_do(const char* action);

/// ksmd running fast for the length of a block. Throws zoo::Unavailable.
class Ksm {
public:
    explicit Ksm(zoo::Machine& machine);

private:
    zoo::Setting pages_, sleep_, zeros_, run_;
};
/// With a machine of its own.
struct OwnKsm {
    zoo::Machine machine;
    Ksm ksm{machine};
};
/// Null where there is none to be had, which is skipped.
std::unique_ptr<OwnKsm> with_ksm();

} // namespace pagesift::live
