// SPDX-License-Identifier: MIT
#include "pagesift/procfs.hpp"
#include "procfs/scan.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace pagesift::procfs {

std::string Mapping::permissions() const {
    return {readable ? 'r' : '-', writable ? 'w' : '-', executable ? 'x' : '-', shared ? 's' : 'p'};
}

namespace {

constexpr std::array vm_flag_codes{
    std::pair{std::string_view{"lo"}, VmFlag::locked},
    std::pair{std::string_view{"ht"}, VmFlag::hugetlb},
    std::pair{std::string_view{"pf"}, VmFlag::pfnmap},
    std::pair{std::string_view{"io"}, VmFlag::io},
    std::pair{std::string_view{"mm"}, VmFlag::mixedmap},
    std::pair{std::string_view{"mg"}, VmFlag::mergeable},
    std::pair{std::string_view{"hg"}, VmFlag::hugepage},
    std::pair{std::string_view{"nh"}, VmFlag::no_hugepage},
    std::pair{std::string_view{"um"}, VmFlag::uffd_missing},
    std::pair{std::string_view{"uw"}, VmFlag::uffd_wp},
    std::pair{std::string_view{"ui"}, VmFlag::uffd_minor},
    std::pair{std::string_view{"sd"}, VmFlag::soft_dirty},
    std::pair{std::string_view{"sl"}, VmFlag::sealed},
    std::pair{std::string_view{"wf"}, VmFlag::wipe_on_fork},
};

/// seq_path() escapes nothing but the newline in maps.
std::string unescape_newlines(std::string_view name) {
    std::string out;
    out.reserve(name.size());
    while (!name.empty()) {
        const auto at = name.find("\\012");
        out.append(name.substr(0, at));
        if (at == name.npos) break;
        out += '\n';
        name.remove_prefix(at + 4);
    }
    return out;
}

std::optional<AddressRange> parse_range(std::string_view text) {
    const auto dash = text.find('-');
    if (dash == text.npos) return {};
    const auto start = to_number(text.substr(0, dash), 16);
    const auto end = to_number(text.substr(dash + 1), 16);
    if (!start || !end || *end <= *start) return {};
    return AddressRange{Address{*start}, Address{*end}};
}

/// "   12 kB" in bytes, "  7" as it stands. A process has twenty of these a mapping, so the usual
/// form takes a short way.
std::optional<std::uint64_t> parse_size_value(std::string_view text) {
    const auto first = std::min(text.find_first_not_of(' '), text.size());
    std::size_t end = first;
    std::uint64_t number = 0;
    constexpr std::size_t sure_digits = 15; // times 1024 still fits
    for (; end < text.size() && end - first < sure_digits; ++end) {
        const char c = text[end];
        if (c < '0' || c > '9') break;
        number = number * 10 + static_cast<unsigned char>(c - '0');
    }
    const auto unit = text.substr(end);
    if (end > first && unit == " kB") return number * 1024;
    if (end > first && unit.empty()) return number;
    const auto long_number = to_number(take_word(text));
    const bool kilobytes = trim(text) == "kB";
    if (!long_number || (kilobytes && *long_number >= (std::uint64_t{1} << 54))) return {};
    return kilobytes ? *long_number * 1024 : *long_number;
}

bool is_permissions(std::string_view text) {
    const auto one_of = [](char c, const char* set) { return c == set[0] || c == set[1]; };
    return text.size() == 4 && one_of(text[0], "r-") && one_of(text[1], "w-") &&
           one_of(text[2], "x-") && one_of(text[3], "sp");
}

} // namespace

VmFlags parse_vm_flags(std::string_view codes) {
    VmFlags flags{.bits = 0, .text = std::string{trim(codes)}};
    while (true) {
        const auto code = take_word(codes);
        if (code.empty()) return flags;
        if (code.size() != 2) continue;
        for (const auto& [name, flag] : vm_flag_codes)
            if (code[0] == name[0] && code[1] == name[1])
                flags.bits |= static_cast<std::uint32_t>(flag);
    }
}

std::optional<Mapping> parse_maps_line(std::string_view line) {
    const auto range = parse_range(take_until(line, ' '));
    const auto permissions = take_until(line, ' ');
    const auto offset = to_number(take_until(line, ' '), 16);
    auto device = take_until(line, ' ');
    const auto major = to_number<std::uint32_t>(take_until(device, ':'), 16);
    const auto minor = to_number<std::uint32_t>(device, 16);
    const auto inode = to_number(take_until(line, ' '));
    if (!range || !is_permissions(permissions) || !offset || !major || !minor || !inode) return {};
    // The kernel pads with blanks up to the name; a name that begins with one cannot be told.
    const auto name = line.find_first_not_of(' ');
    return Mapping{.range = *range,
                   .readable = permissions[0] == 'r',
                   .writable = permissions[1] == 'w',
                   .executable = permissions[2] == 'x',
                   .shared = permissions[3] == 's',
                   .offset = *offset,
                   .device = {*major, *minor},
                   .inode = *inode,
                   .name = name == line.npos ? "" : unescape_newlines(line.substr(name))};
}

void MapsParser::feed(std::string_view piece, const Sink& sink) {
    while (true) {
        const auto end = piece.find('\n');
        if (end == piece.npos) break;
        if (partial_.empty()) {
            line(piece.substr(0, end), sink);
        } else {
            partial_.append(piece.substr(0, end));
            line(std::exchange(partial_, {}), sink);
        }
        piece.remove_prefix(end + 1);
    }
    partial_.append(piece);
}

void MapsParser::finish(const Sink& sink) {
    ignored_ += partial_.empty() ? 0 : 1;
    partial_.clear();
    deliver(sink);
}

void MapsParser::deliver(const Sink& sink) {
    if (!has_text_) return;
    has_text_ = false;
    AddressRange& range = text_.mapping.range;
    if (range.start.value < last_end_) {
        ++overlapping_;
        if (range.end.value <= last_end_) return;
        if (text_.mapping.inode != 0) text_.mapping.offset += last_end_ - range.start.value;
        range.start = Address{last_end_};
        // Its sizes speak of the whole mapping, so they say nothing of what is left of it.
        text_.fields.clear();
    }
    last_end_ = range.end.value;
    sink(std::move(text_));
}

void MapsParser::line(std::string_view text, const Sink& sink) {
    if (text.empty()) return;
    // A field's key begins with a capital letter, an address never does.
    if (text[0] >= 'A' && text[0] <= 'Z') {
        field(text);
        return;
    }
    deliver(sink);
    auto mapping = parse_maps_line(text);
    if (!mapping) {
        ++ignored_;
        return;
    }
    text_.mapping = std::move(*mapping);
    text_.fields.clear();
    text_.vm_flags.reset();
    has_text_ = true;
}

void MapsParser::field(std::string_view text) {
    const auto colon = text.find(':');
    if (!has_text_ || colon == text.npos) {
        ++ignored_;
        return;
    }
    const auto key = text.substr(0, colon);
    const auto value = text.substr(colon + 1);
    if (key == "VmFlags")
        text_.vm_flags = parse_vm_flags(value);
    else if (const auto size = parse_size_value(value))
        text_.fields.add(key, *size);
    else
        ++ignored_;
}

void SizeFields::add(std::string_view key, std::uint64_t value) {
    if (fields_ >= kept_.size()) kept_.emplace_back();
    Field& field = kept_[fields_++];
    if (field.key != key) field.key = key;
    field.value = value;
}

std::optional<std::uint64_t> SizeFields::find(std::string_view key) const {
    for (std::size_t i = std::min(fields_, kept_.size()); i-- > 0;)
        if (kept_[i].key == key) return kept_[i].value;
    return {};
}

} // namespace pagesift::procfs
