// SPDX-License-Identifier: MIT
// The instructions of a remote call, and on aarch64 whether the code behind a system call leaves a
// register to spare.
#include "os/remote_arch.hpp"

#include <vector>

#include <doctest/doctest.h>

namespace arch = pagesift::os::arch;

TEST_CASE("remote call: the parts of detour and errand lie within them") {
    const auto errand = arch::make_errand();
    CHECK(errand.seize == 0);
    CHECK(errand.seize < errand.wait);
    CHECK(errand.wait < errand.advise);
    CHECK(errand.advise < errand.end);
    CHECK(errand.end <= errand.code.size()); // where it stands after a trap
    const auto detour = arch::make_detour({}, 0);
    CHECK(detour.masked < detour.cloned);
    CHECK(detour.cloned < detour.last);
    CHECK(detour.call < detour.code.size());
    CHECK(detour.last < detour.code.size());
}

#if defined(__aarch64__)

namespace {

constexpr std::uint64_t begin = 0x400000;
constexpr std::uint32_t ret = 0xd65f03c0, nop = 0xd503201f;

bool spares(const std::vector<std::uint32_t>& code) {
    return arch::spares_register(begin, [&](std::uint64_t address) -> std::optional<std::uint32_t> {
        const std::uint64_t at = (address - begin) / 4;
        if (address < begin || at >= code.size()) return {};
        return code[at];
    });
}

} // namespace

TEST_CASE("code up to a call or a return leaves x17 to spare") {
    CHECK(spares({ret}));
    CHECK(spares({nop, nop, ret}));
    CHECK(spares({0xb13ffc1f, 0x54000048, ret, 0x94000010})); // cmn; b.hi +8; ret; bl
    CHECK(spares({0xd63f0060}));                              // blr x3
    CHECK(spares({0xd53bd041, 0xd50323bf, ret}));             // mrs x1, tpidr_el0; autiasp
    CHECK(spares({0xd4000001, ret}));                         // svc
    CHECK(spares({0x14000002, 0x00000000, ret}));             // b +8
    CHECK(spares({0x14000000}));                              // for ever
    CHECK(spares({0xd65f0bff}));                              // retaa
    CHECK(spares({0xb0000601, 0xf940dc10 & ~0x1fU, ret}));    // adrp x1; ldr x0, [x0, #440]
}

TEST_CASE("code that may use x17 does not, nor what is not understood") {
    CHECK_FALSE(spares({0xaa1103e0, ret}));             // mov x0, x17
    CHECK_FALSE(spares({0xd61f0220}));                  // br x17
    CHECK_FALSE(spares({0xd61f0060}));                  // br x3
    CHECK_FALSE(spares({0xd65f0220}));                  // ret x17
    CHECK_FALSE(spares({0xd63f0220}));                  // blr x17
    CHECK_FALSE(spares({0xb4000051, nop, ret}));        // cbz x17, +8
    CHECK_FALSE(spares({0xb6000051, nop, ret}));        // tbz x17, #32, +8
    CHECK_FALSE(spares({0xf9000011, ret}));             // str x17, [x0]
    CHECK_FALSE(spares({0xf9400220, ret}));             // ldr x0, [x17]
    CHECK_FALSE(spares({0xa9004430, ret}));             // stp x16, x17, [x1]
    CHECK_FALSE(spares({0x8b110000, ret}));             // add x0, x0, x17
    CHECK_FALSE(spares({0xd51bd051, ret}));             // msr tpidr_el0, x17
    CHECK_FALSE(spares({0xd503219f, ret}));             // autia1716
    CHECK_FALSE(spares({0xd4207d00, ret}));             // brk
    CHECK_FALSE(spares({0x54000040, ret, 0xaa1103e0})); // b.eq to a use
    CHECK_FALSE(spares({nop}));                         // on into what cannot be read
    CHECK_FALSE(spares(std::vector<std::uint32_t>(1000, nop)));
}

#endif
