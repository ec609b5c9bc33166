// SPDX-License-Identifier: MIT
// `AccessSource`: which pages of a process were accessed since a moment, by whatever the kernel
// keeps of that. It stands beside `Source`: implemented by os, and by tests; what follows from its
// answers (ages) is the cold room's. Times, rounds and threads are the caller's.
//
//     source.prepare(mappings); source.sight(mapping, range, Sight::note, block);
//     source.forget();                                       // a round begins
//     … some time later …
//     source.prepare(mappings); source.sight(mapping, range, Sight::last, block);
#pragma once

#include "pagesift/source.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace pagesift {

/// What a page did since the last forget().
enum class Touch : std::uint8_t {
    none,     ///< there is no page: neither present nor swapped
    idle,     ///< not accessed
    accessed, ///< at least once
    unknown,  ///< evidence may have been lost, or never was kept
};

/// Of how much memory one answer is: a bit of a huge entry stands for all of its pages.
enum class Grain : std::uint8_t { page, huge, mapping };

/// Answers for consecutive pages of one mapping: one element a page, or one for all.
struct TouchBlock {
    AddressRange range; ///< empty: the process' memory is gone
    bool uniform = false;
    std::vector<Touch> touches;
    std::vector<Grain> grains; ///< like touches; empty: all are Grain::page
};

/// How a source knows, for the output.
struct AccessTraits {
    std::string name;                ///< "exact", "idle-bitmap", "referenced", "soft-dirty", "lru"
    std::string method;              ///< one line: what is read, and what is written
    std::vector<std::string> limits; ///< what it cannot tell; a line each
    bool writes = true;              ///< forget() changes something for the process or observers
    bool reads_seen = true;          ///< false: only writes to memory count as accesses
    /// false: idle means that no sign of an access was found, which is no proof, so no idle time
    /// follows from it.
    bool proves_idle = true;

    bool operator==(const AccessTraits&) const = default;
};

/// What one forget() cost the process.
struct ForgetCost {
    double seconds = 0;        ///< all of it
    double locked_seconds = 0; ///< of it under the process' mmap lock, at most: no page fault of
                               ///< the process and no mmap ends before that
};

enum class Sight : std::uint8_t {
    note,  ///< once before the first forget(): remembers what is there; the answers mean nothing
    again, ///< ends a round, and another follows
    last,  ///< ends the last round
};

class AccessSource {
public:
    virtual ~AccessSource() = default;

    virtual const AccessTraits& traits() const = 0;

    /// Before the sightings that follow, on one thread: @p mappings are those of now.
    /// Throws Error (gone) where the process has ended.
    virtual void prepare(const std::vector<Mapping>& mappings) = 0;

    /// Says what the pages of @p mapping from wanted.start on did since forget(), at least one and
    /// at most to wanted.end. Reads no contents and makes no page present. Safe to call from
    /// several threads for different pages.
    virtual void sight(const Mapping& mapping, AddressRange wanted, Sight which,
                       TouchBlock& block) = 0;

    /// Whether judge_block() makes the last sighting of what a Source reads, so that it is read
    /// once.
    virtual bool judges_blocks() const { return false; }

    /// As sight() with Sight::last of all pages of @p read, which a Source of the same process has
    /// read of @p mapping since prepare(). False: it takes more than was read, so sight() it is.
    virtual bool judge_block([[maybe_unused]] const Mapping& mapping,
                             [[maybe_unused]] const PageBlock& read,
                             [[maybe_unused]] TouchBlock& block) {
        return false;
    }

    /// After sightings: whether what they called idle is to be believed. False: something went on
    /// in the round that may have taken evidence along, which gaps() says, so that it is unknown.
    virtual bool stands() { return true; }

    /// Begins a round: what was accessed before it counts no more. Whatever is accessed after its
    /// return is seen; what is accessed between a page's sighting and its return is not.
    /// Throws Error (gone, denied, failed).
    virtual ForgetCost forget() = 0;

    /// Whether an access between a sighting and the end of the forget() that follows leaves no
    /// trace of a page that was idle before.
    virtual bool is_blind_between_rounds() const { return traits().writes; }

    /// What could not be seen so far, each once.
    virtual std::vector<Gap> gaps() const = 0;
};

} // namespace pagesift
