// SPDX-License-Identifier: MIT
// Places behind the vdso, tried behind that of this process itself. Nothing there is ever run.
#include "os/remote_parent.hpp"

#include <optional>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <doctest/doctest.h>

using namespace pagesift;
using namespace pagesift::os;

namespace {

constexpr std::uint64_t bytes = 200;
constexpr std::uint64_t home = 0x401000;

arch::Registers at(std::uint64_t address) { return arch::moved({}, address); }

/// One that was left by a program that has been killed, for this thread, wherever it was then.
class Left {
public:
    explicit Left(std::uint64_t where) : room_(own_root(), thread()) {
        try {
            const auto taken = room_.take(bytes, thread(), at(where));
            room_.write(std::vector<std::uint8_t>(bytes, 0x90), thread(), at(where));
            place = taken;
        } catch (const Error& error) {
            why = error.what();
        }
    }
    ~Left() {
        if (place) room_.clear();
    }
    Left(const Left&) = delete;
    Left& operator=(const Left&) = delete;

    std::optional<std::uint64_t> place; ///< of its code
    std::string why;

private:
    static pid_t thread() { return static_cast<pid_t>(::syscall(SYS_gettid)); }
    DetourRoom room_;
};

/// Whether there is room, and may be written to without tracing this process
/// (proc_mem.force_override).
bool has_room() {
    try {
        const Left one{home};
        if (one.place) return true;
        MESSAGE("skipped: " << one.why);
    } catch (const Error& error) {
        MESSAGE("skipped: " << error.what());
    }
    return false;
}

} // namespace

TEST_CASE("detour room: a place is free again when its thread is home") {
    if (!has_room()) return;
    const Left first{home};
    REQUIRE(first.place.has_value());
    CHECK(Left{home + 64}.place == first.place);
}

TEST_CASE("detour room: a place is not free while its thread is there") {
    if (!has_room()) return;
    const Left first{home};
    for (const std::uint64_t in : {std::uint64_t{0}, bytes / 2, bytes - 1})
        CHECK(Left{*first.place + in}.place != first.place);
}

TEST_CASE(
    "detour room: a place is not free while its thread is on another detour, which leads there") {
    if (!has_room()) return;
    const Left first{home};
    const Left second{*first.place + 10};
    CHECK(second.place != first.place);
    if (!second.place) return; // this kernel's vdso leaves room for one
    const Left third{*second.place + 10};
    CHECK(third.place != first.place);
    CHECK(third.place != second.place);
}
