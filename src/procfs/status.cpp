// SPDX-License-Identifier: MIT
#include "pagesift/procfs.hpp"
#include "procfs/scan.hpp"

#include <type_traits>

namespace pagesift::procfs {
namespace {

std::optional<std::uint64_t> kilobytes(std::string_view text) {
    const auto value = to_number(take_word(text));
    if (!value || trim(text) != "kB" || *value >= (std::uint64_t{1} << 54)) return {};
    return *value * 1024;
}

std::optional<std::uint32_t> number(std::string_view text) {
    return to_number<std::uint32_t>(take_word(text));
}

/// A number behind the name, which is field 2 and may hold blanks and brackets.
std::optional<std::uint64_t> stat_field(std::string_view stat, int wanted) {
    const auto bracket = stat.rfind(')');
    if (bracket == stat.npos) return {};
    stat.remove_prefix(bracket + 1);
    // The state behind the name is field 3.
    for (int field = 3; field < wanted; ++field)
        if (take_word(stat).empty()) return {};
    return to_number(trim(take_word(stat)));
}

} // namespace

SizeFields parse_size_fields(std::string_view text) {
    SizeFields fields;
    for_each_line(text, [&](std::string_view line) {
        const auto colon = line.find(':');
        if (colon == line.npos) return;
        if (const auto bytes = kilobytes(line.substr(colon + 1)))
            fields.add(line.substr(0, colon), *bytes);
    });
    return fields;
}

Status parse_status(std::string_view text) {
    Status status;
    for_each_line(text, [&](std::string_view line) {
        const auto colon = line.find(':');
        if (colon == line.npos) return;
        const auto key = line.substr(0, colon);
        auto value = trim(line.substr(colon + 1));
        if (key == "Name") status.name = std::string{value};
        if (key == "State" && !value.empty()) status.state = value[0];
        if (key == "Tgid") status.tgid = number(value);
        if (key == "PPid") status.parent = number(value);
        if (key == "TracerPid") status.tracer = number(value);
        if (key == "Kthread") status.kernel_thread = value == "1";
        if (key == "Threads") status.threads = number(value);
        if (key == "VmRSS") status.vm_rss_bytes = kilobytes(value);
        if (key == "VmSize") status.vm_size_bytes = kilobytes(value);
        if (key == "VmSwap") status.vm_swap_bytes = kilobytes(value);
        if (key == "VmPTE") status.vm_pte_bytes = kilobytes(value);
        if (key == "SigPnd") status.pending_signals = to_number(value, 16);
        if (key == "CapEff") status.effective_capabilities = to_number(value, 16);
        if (key == "Uid") {
            std::string_view rest = line.substr(colon + 1);
            status.uid = to_number<std::uint32_t>(take_word(rest));
            status.euid = to_number<std::uint32_t>(take_word(rest));
        }
    });
    return status;
}

std::optional<Stat> parse_stat(std::string_view text) {
    const auto open = text.find('(');
    const auto close = text.rfind(')');
    if (open == text.npos || close == text.npos || close < open) return {};
    Stat stat;
    stat.comm = std::string{text.substr(open + 1, close - open - 1)};
    text.remove_prefix(close + 1);
    const auto state = take_word(text);
    if (state.size() != 1) return {};
    stat.state = state[0];
    for (int field = 4; field <= 24; ++field) {
        const auto word = trim(take_word(text));
        const auto set = [&](auto& target) {
            const auto value = to_number<std::remove_reference_t<decltype(target)>>(word);
            target = value.value_or(0);
            return value.has_value();
        };
        const bool good = field == 4    ? set(stat.parent)
                          : field == 9  ? set(stat.flags)
                          : field == 20 ? set(stat.threads)
                          : field == 22 ? set(stat.start_time)
                          : field == 23 ? set(stat.vm_size_bytes)
                          : field == 24 ? set(stat.rss_pages)
                                        : !word.empty();
        if (!good) return {};
    }
    return stat;
}

std::optional<std::uint64_t> parse_start_time(std::string_view stat) {
    return stat_field(stat, 22);
}

std::optional<std::uint64_t> parse_stack_start(std::string_view stat) {
    const auto start = stat_field(stat, 28);
    return start.value_or(0) > 1 ? start : std::nullopt;
}

std::map<std::string, std::int64_t, std::less<>> parse_key_values(std::string_view text) {
    std::map<std::string, std::int64_t, std::less<>> values;
    for_each_line(text, [&](std::string_view line) {
        const auto key = take_word(line);
        const auto value = to_number<std::int64_t>(trim(line));
        if (!key.empty() && value) values[std::string{key}] = *value;
    });
    return values;
}

std::vector<SwapArea> parse_swaps(std::string_view text) {
    std::vector<SwapArea> areas;
    take_until(text, '\n'); // the heading
    for_each_line(text, [&](std::string_view line) {
        const auto name = take_word(line);
        const auto kind = take_word(line);
        const auto size = to_number(take_word(line));
        const auto used = to_number(take_word(line));
        const auto priority = to_number<int>(take_word(line));
        if (!size || !used || *size >= (std::uint64_t{1} << 54) ||
            *used >= (std::uint64_t{1} << 54))
            return;
        areas.push_back({std::string{name}, std::string{kind}, *size * 1024, *used * 1024,
                         priority.value_or(0)});
    });
    return areas;
}

std::optional<double> parse_pressure(std::string_view text) {
    std::optional<double> percent;
    for_each_line(text, [&](std::string_view line) {
        if (take_word(line) != "some") return;
        const auto average = take_word(line);
        static constexpr std::string_view key = "avg10=";
        if (!average.starts_with(key)) return;
        // The kernel prints two digits behind the point, whatever the locale.
        auto digits = average.substr(key.size());
        const auto whole = to_number(take_until(digits, '.'));
        const auto hundredths = digits.size() == 2 ? to_number(digits) : std::nullopt;
        if (whole && hundredths && *whole <= 100)
            percent = static_cast<double>(*whole) + static_cast<double>(*hundredths) / 100;
    });
    return percent;
}

bool Membership::has(std::string_view controller) const {
    for (auto rest = controllers; !rest.empty();)
        if (take_until(rest, ',') == controller) return true;
    return false;
}

std::vector<Membership> parse_cgroup(std::string_view text) {
    std::vector<Membership> found;
    for_each_line(text, [&](std::string_view line) {
        if (!to_number(take_until(line, ':'))) return;
        const auto controllers = take_until(line, ':');
        if (line.starts_with('/')) found.push_back({controllers, line});
    });
    return found;
}

std::map<Device, std::string> parse_mountinfo(std::string_view text) {
    std::map<Device, std::string> types;
    for_each_line(text, [&](std::string_view line) {
        take_word(line); // mount id
        take_word(line); // parent
        auto device = take_word(line);
        const auto major = to_number<std::uint32_t>(take_until(device, ':'));
        const auto minor = to_number<std::uint32_t>(device);
        const auto dash = line.find(" - ");
        if (!major || !minor || dash == line.npos) return;
        line.remove_prefix(dash + 3);
        types[Device{*major, *minor}] = std::string{take_word(line)};
    });
    return types;
}

std::string parse_bracketed(std::string_view text) {
    const auto open = text.find('[');
    const auto close = text.find(']', open == text.npos ? 0 : open);
    if (open == text.npos || close == text.npos) return {};
    return std::string{text.substr(open + 1, close - open - 1)};
}

} // namespace pagesift::procfs
