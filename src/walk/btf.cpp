// SPDX-License-Identifier: MIT
#include "walk/btf.hpp"

#include "pagesift/base.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

namespace pagesift::walk {

namespace {

// include/uapi/linux/btf.h
constexpr std::uint16_t BTF_MAGIC = 0xeb9f;
enum BtfKind : unsigned {
    BTF_KIND_INT = 1,
    BTF_KIND_PTR = 2,
    BTF_KIND_ARRAY = 3,
    BTF_KIND_STRUCT = 4,
    BTF_KIND_UNION = 5,
    BTF_KIND_ENUM = 6,
    BTF_KIND_FWD = 7,
    BTF_KIND_TYPEDEF = 8,
    BTF_KIND_VOLATILE = 9,
    BTF_KIND_CONST = 10,
    BTF_KIND_RESTRICT = 11,
    BTF_KIND_FUNC = 12,
    BTF_KIND_FUNC_PROTO = 13,
    BTF_KIND_VAR = 14,
    BTF_KIND_DATASEC = 15,
    BTF_KIND_FLOAT = 16,
    BTF_KIND_DECL_TAG = 17,
    BTF_KIND_TYPE_TAG = 18,
    BTF_KIND_ENUM64 = 19,
};

constexpr std::size_t type_bytes = 12, member_bytes = 12, header_bytes = 24;

struct KindSize {
    std::uint8_t fixed = 0, each = 0; ///< bytes behind the type, and for each of its elements
    bool known = false;
};

/// How much follows a type of each kind.
constexpr std::array<KindSize, 32> make_kind_sizes() {
    std::array<KindSize, 32> sizes{};
    for (const unsigned kind :
         {BTF_KIND_PTR, BTF_KIND_FWD, BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST,
          BTF_KIND_RESTRICT, BTF_KIND_FUNC, BTF_KIND_FLOAT, BTF_KIND_TYPE_TAG})
        sizes[kind] = {0, 0, true};
    for (const unsigned kind : {BTF_KIND_INT, BTF_KIND_VAR, BTF_KIND_DECL_TAG})
        sizes[kind] = {4, 0, true};
    sizes[BTF_KIND_ARRAY] = {12, 0, true};
    for (const unsigned kind : {BTF_KIND_STRUCT, BTF_KIND_UNION, BTF_KIND_DATASEC, BTF_KIND_ENUM64})
        sizes[kind] = {0, 12, true};
    for (const unsigned kind : {BTF_KIND_ENUM, BTF_KIND_FUNC_PROTO}) sizes[kind] = {0, 8, true};
    return sizes;
}
constexpr auto kind_sizes = make_kind_sizes();

// What hostile bytes may cost: nesting of anonymous members, members looked at, typedefs followed.
constexpr unsigned most_depth = 16, most_members = 100'000, most_steps = 32;

[[noreturn]] void refuse(const std::string& why) {
    throw Error{ErrorKind::bad_input, "kernel BTF", 0, {}, why};
}

template <class Number> Number number(std::span<const std::byte> bytes, std::size_t at) {
    Number value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

/// A part of the section behind the header.
std::span<const std::byte> section(std::span<const std::byte> bytes, std::size_t field) {
    const std::uint64_t start =
        std::uint64_t{number<std::uint32_t>(bytes, 4)} + number<std::uint32_t>(bytes, field);
    const std::uint64_t length = number<std::uint32_t>(bytes, field + 4);
    if (start > bytes.size() || length > bytes.size() - start) refuse("a section is cut off");
    return bytes.subspan(start, length);
}

} // namespace

Btf::Btf(std::span<const std::byte> bytes, std::span<const std::string_view> names) {
    if (bytes.size() < header_bytes || number<std::uint16_t>(bytes, 0) != BTF_MAGIC)
        refuse("no BTF of this byte order");
    types_ = section(bytes, 8);
    const auto texts = section(bytes, 16);
    texts_ = {reinterpret_cast<const char*>(texts.data()), texts.size()};
    index_types(names);
}

void Btf::index_types(std::span<const std::string_view> names) {
    std::array<bool, 256> starts_a_name{};
    for (const std::string_view name : names) {
        assert(!name.empty());
        named_.push_back({name, {}});
        starts_a_name[static_cast<unsigned char>(name.front())] = true;
    }
    places_.reserve(types_.size() / 30);
    places_.push_back(0); // id 0 is void
    for (std::size_t at = 0; at < types_.size();) {
        if (types_.size() - at < type_bytes) refuse("a type is cut off");
        const auto place = static_cast<std::uint32_t>(at);
        const unsigned kind = kind_at(place);
        const KindSize size = kind_sizes[kind];
        if (!size.known) refuse("kind " + std::to_string(kind) + " is not known");
        const std::size_t length =
            type_bytes + size.fixed + std::size_t{size.each} * length_at(place);
        if (types_.size() - at < length) refuse("a type is cut off");
        places_.push_back(place);
        at += length;
        const bool can_be_asked = kind >= BTF_KIND_STRUCT && kind <= BTF_KIND_ENUM;
        if (!can_be_asked || length_at(place) == 0) continue;
        const std::uint32_t name = word(place);
        if (name >= texts_.size() || !starts_a_name[static_cast<unsigned char>(texts_[name])])
            continue;
        for (Named& named : named_)
            if (named.name.front() == texts_[name] && is_text(name, named.name))
                named.definitions.push_back(place);
    }
}

std::uint32_t Btf::word(std::size_t at) const { return number<std::uint32_t>(types_, at); }

bool Btf::is_text(std::uint32_t at, std::string_view text) const {
    return at < texts_.size() && text.size() < texts_.size() - at &&
           std::memcmp(texts_.data() + at, text.data(), text.size()) == 0 &&
           texts_[at + text.size()] == '\0';
}

/// The place of a type behind its typedefs and qualifiers.
std::optional<std::uint32_t> Btf::resolve(std::uint32_t id) const {
    for (unsigned step = 0; step < most_steps; ++step) {
        if (id == 0 || id >= places_.size()) return {};
        const std::uint32_t at = places_[id];
        switch (kind_at(at)) {
        case BTF_KIND_TYPEDEF:
        case BTF_KIND_VOLATILE:
        case BTF_KIND_CONST:
        case BTF_KIND_RESTRICT:
        case BTF_KIND_TYPE_TAG: id = word(at + 8); break;
        default: return at;
        }
    }
    return {};
}

/// One member by name, also inside anonymous members.
std::optional<Btf::Found> Btf::find_member(std::uint32_t at, std::string_view name,
                                           Search& search) const {
    if (kind_at(at) != BTF_KIND_STRUCT && kind_at(at) != BTF_KIND_UNION) return {};
    if (name.empty()) return {}; // that would be any anonymous member
    if (++search.depth > most_depth) return {};
    // The top bit of the type says that offsets carry the width of bit fields in their top byte.
    const bool has_widths = word(at + 4) >> 31 != 0;
    for (std::uint32_t i = 0; i < length_at(at) && search.members_left > 0; ++i) {
        --search.members_left;
        const std::size_t member = at + type_bytes + std::size_t{i} * member_bytes;
        const std::uint32_t text = word(member), type = word(member + 4), bits = word(member + 8);
        const bool is_bit_field = has_widths && bits >> 24 != 0;
        if (is_text(text, name)) {
            --search.depth;
            if (is_bit_field || bits % 8 != 0) return {};
            return Found{bits, type};
        }
        if (is_bit_field || !is_text(text, "")) continue;
        const auto inner = resolve(type);
        if (!inner) continue;
        if (auto found = find_member(*inner, name, search)) {
            --search.depth;
            return Found{found->bits + bits, found->type};
        }
    }
    --search.depth;
    return {};
}

std::optional<Btf::Found> Btf::find(std::uint32_t at, std::string_view path, Search& search) const {
    std::uint64_t bits = 0;
    while (true) {
        const auto dot = path.find('.');
        const auto found = find_member(at, path.substr(0, dot), search);
        if (!found) return {};
        bits += found->bits;
        if (dot == path.npos) return Found{bits, found->type};
        path.remove_prefix(dot + 1);
        const auto inner = resolve(found->type);
        if (!inner) return {};
        at = *inner;
    }
}

/// What @p answer says of every definition of @p type, if it is the same of all.
template <class Answer>
std::optional<std::uint32_t> Btf::all_agree(std::string_view type, Answer&& answer) const {
    const auto named =
        std::find_if(named_.begin(), named_.end(), [&](const Named& n) { return n.name == type; });
    if (named == named_.end()) return {};
    std::optional<std::uint32_t> common;
    for (const std::uint32_t at : named->definitions) {
        const std::optional<std::uint32_t> one = answer(at);
        if (!one || (common && common != one)) return {};
        common = one;
    }
    return common;
}

std::optional<std::uint32_t> Btf::offset(std::string_view type, std::string_view path) const {
    return all_agree(type, [&](std::uint32_t at) -> std::optional<std::uint32_t> {
        Search search{0, most_members};
        const auto found = find(at, path, search);
        if (!found || found->bits / 8 > UINT32_MAX) return {};
        return static_cast<std::uint32_t>(found->bits / 8);
    });
}

std::optional<std::uint32_t> Btf::array_length(std::string_view type, std::string_view path) const {
    return all_agree(type, [&](std::uint32_t at) -> std::optional<std::uint32_t> {
        Search search{0, most_members};
        const auto found = find(at, path, search);
        const auto array = found ? resolve(found->type) : std::nullopt;
        if (!array || kind_at(*array) != BTF_KIND_ARRAY) return {};
        return word(*array + type_bytes + 8);
    });
}

std::optional<std::uint32_t> Btf::size(std::string_view type) const {
    return all_agree(type, [&](std::uint32_t at) -> std::optional<std::uint32_t> {
        if (kind_at(at) == BTF_KIND_ENUM) return {};
        return word(at + 8);
    });
}

std::optional<std::int64_t> Btf::enumerator(std::string_view type, std::string_view name) const {
    const auto raw = all_agree(type, [&](std::uint32_t at) -> std::optional<std::uint32_t> {
        if (kind_at(at) != BTF_KIND_ENUM) return {};
        for (std::uint32_t i = 0; i < length_at(at); ++i) {
            const std::size_t value = at + type_bytes + std::size_t{i} * 8;
            if (is_text(word(value), name)) return word(value + 4);
        }
        return {};
    });
    if (!raw) return {};
    return static_cast<std::int32_t>(*raw);
}

} // namespace pagesift::walk
