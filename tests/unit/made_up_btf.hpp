// SPDX-License-Identifier: MIT
// Makes raw BTF, type by type: Documentation/bpf/btf.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift::test {

class MadeUpBtf {
public:
    struct Member {
        std::string name;
        std::uint32_t type = 0;
        std::uint32_t byte = 0;
        std::uint32_t bit_width = 0; ///< not 0: a bit field
    };

    std::uint32_t add_int(std::uint32_t bytes) { return add("int", 1, 0, bytes, {0}); }
    std::uint32_t add_pointer(std::uint32_t to) { return add("", 2, 0, to, {}); }
    std::uint32_t add_array(std::uint32_t of, std::uint32_t length) {
        return add("", 3, 0, 0, {of, of, length});
    }
    std::uint32_t add_typedef(std::string_view name, std::uint32_t of) {
        return add(name, 8, 0, of, {});
    }
    std::uint32_t add_const(std::uint32_t of) { return add("", 10, 0, of, {}); }
    std::uint32_t add_kind(unsigned kind) { return add("", kind, 0, 0, {}); }
    std::uint32_t add_struct(std::string_view name, std::uint32_t bytes,
                             const std::vector<Member>& members, unsigned kind = 4) {
        bool with_widths = false;
        for (const Member& member : members) with_widths |= member.bit_width != 0;
        std::vector<std::uint32_t> words;
        for (const Member& member : members) {
            words.push_back(text(member.name));
            words.push_back(member.type);
            words.push_back(member.byte * 8 | (with_widths ? member.bit_width << 24 : 0));
        }
        const auto flags =
            (with_widths ? 1u << 31 : 0) | static_cast<std::uint32_t>(members.size());
        return add(name, kind, flags, bytes, words);
    }
    std::uint32_t add_union(std::string_view name, std::uint32_t bytes,
                            const std::vector<Member>& members) {
        return add_struct(name, bytes, members, 5);
    }
    std::uint32_t add_enum(std::string_view name,
                           const std::vector<std::pair<std::string, std::uint32_t>>& values) {
        std::vector<std::uint32_t> words;
        for (const auto& [value_name, value] : values) {
            words.push_back(text(value_name));
            words.push_back(value);
        }
        return add(name, 6, static_cast<std::uint32_t>(values.size()), 4, words);
    }

    std::vector<std::byte> bytes() const {
        const auto length = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
        const std::uint32_t header[] = {
            0x0001eb9f,           24, 0, length(types_.size() * 4), length(types_.size() * 4),
            length(texts_.size())};
        std::vector<std::byte> all(sizeof header + types_.size() * 4 + texts_.size());
        std::memcpy(all.data(), header, sizeof header);
        if (!types_.empty())
            std::memcpy(all.data() + sizeof header, types_.data(), types_.size() * 4);
        std::memcpy(all.data() + sizeof header + types_.size() * 4, texts_.data(), texts_.size());
        return all;
    }

private:
    std::uint32_t add(std::string_view name, unsigned kind, std::uint32_t flags,
                      std::uint32_t size_or_type, const std::vector<std::uint32_t>& behind) {
        types_.insert(types_.end(), {text(name), flags | kind << 24, size_or_type});
        types_.insert(types_.end(), behind.begin(), behind.end());
        return ++last_id_;
    }

    std::uint32_t text(std::string_view text) {
        if (text.empty()) return 0;
        const auto at = static_cast<std::uint32_t>(texts_.size());
        texts_.append(text).push_back('\0');
        return at;
    }

    std::vector<std::uint32_t> types_;
    std::string texts_ = std::string(1, '\0');
    std::uint32_t last_id_ = 0;
};

} // namespace pagesift::test
