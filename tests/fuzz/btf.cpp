// SPDX-License-Identifier: MIT
// The kernel's description of its types: any bytes give a layout whose figures are of use, or an
// Error, within a bounded time.
#include "fuzz.hpp"

#include "pagesift/walk.hpp"
#include "walk/btf.hpp"

#include <initializer_list>
#include <optional>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

void check_layout(std::span<const std::byte> bytes) {
    try {
        const walk::KernelLayout layout = walk::find_layout(bytes);
        require(layout.page_bytes >= 32, "a struct page has room for its members");
        require(layout.xa_node_slot_count >= 2, "a node has slots");
        require(layout.PG_active < 64 && layout.PG_young.value_or(0) < 64, "a flag is a bit");
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::bad_input || error.kind() == ErrorKind::unsupported,
                "refusals are of two kinds");
    }
}

/// Small types, so that a fuzzer meets them soon.
void check_lookups(std::span<const std::byte> bytes) {
    static constexpr std::string_view names[] = {"s", "e"};
    try {
        const walk::Btf btf{bytes, names};
        for (const char* path : {"m", "a", "m.a", "n.n.n", "", "."}) {
            btf.offset("s", path);
            btf.array_length("s", path);
        }
        require(!btf.offset("s", ""), "nothing has no name");
        btf.size("s");
        require(!btf.size("e") || !btf.enumerator("e", "m"), "a structure has no enumerators");
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::bad_input, "what is no BTF is bad input");
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto bytes = std::as_bytes(std::span{data, size});
    check_layout(bytes);
    check_lookups(bytes);
    return 0;
}
