// SPDX-License-Identifier: MIT
// The kernel's own description of its types: Documentation/bpf/btf.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace pagesift::walk {

/// Looks up members of a few structures, unions and enumerations in raw BTF. One pass over all
/// types, no copy; any bytes are safe. A name that is defined more than once answers only where all
/// definitions say the same.
class Btf {
public:
    /// @param bytes must outlive this object
    /// @param names the types that will be asked for, none of them empty
    /// @throws Error(bad_input) if the bytes are no BTF of this machine's byte order
    Btf(std::span<const std::byte> bytes, std::span<const std::string_view> names);

    /// Byte offset of the member at the end of a dotted path ("outer.inner"), through
    /// anonymous members. Empty: no such type or member, or a bit field.
    std::optional<std::uint32_t> offset(std::string_view type, std::string_view path) const;
    /// Elements of the array at the end of a path.
    std::optional<std::uint32_t> array_length(std::string_view type, std::string_view path) const;
    std::optional<std::uint32_t> size(std::string_view type) const;
    std::optional<std::int64_t> enumerator(std::string_view type, std::string_view name) const;

private:
    struct Named {
        std::string_view name;
        std::vector<std::uint32_t> definitions; ///< where in types_
    };
    struct Found {
        std::uint64_t bits = 0; ///< from the start of the structure
        std::uint32_t type = 0; ///< id of the member's type
    };
    struct Search {
        unsigned depth = 0;
        unsigned members_left = 0;
    };

    void index_types(std::span<const std::string_view> names);
    std::uint32_t word(std::size_t at) const;
    unsigned kind_at(std::uint32_t at) const { return word(at + 4) >> 24 & 31; }
    std::uint32_t length_at(std::uint32_t at) const { return word(at + 4) & 0xffff; }
    bool is_text(std::uint32_t at, std::string_view text) const;
    std::optional<std::uint32_t> resolve(std::uint32_t id) const;
    std::optional<Found> find(std::uint32_t at, std::string_view path, Search& search) const;
    std::optional<Found> find_member(std::uint32_t at, std::string_view name, Search& search) const;
    template <class Answer>
    std::optional<std::uint32_t> all_agree(std::string_view type, Answer&& answer) const;

    std::span<const std::byte> types_;
    std::span<const char> texts_;
    std::vector<std::uint32_t> places_; ///< of each type id in types_
    std::vector<Named> named_;
};

} // namespace pagesift::walk
