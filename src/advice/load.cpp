// SPDX-License-Identifier: MIT
// A kept plan. Whoever wrote the file may have written anything, so nothing in it is believed that
// can be checked, and nothing is done to a process before it was proven again.
#include "pagesift/advice.hpp"

#include <bit>
#include <charconv>
#include <nlohmann/json.hpp>

namespace pagesift::advice {
namespace {

using nlohmann::json;

constexpr std::string_view schema = "pagesift.advise/1";

constexpr std::pair<std::string_view, Backing> backings[] = {
    {"anon", Backing::anon},       {"file", Backing::file},       {"shmem", Backing::shmem},
    {"hugetlb", Backing::hugetlb}, {"special", Backing::special}, {"device", Backing::device},
};

class Reader {
public:
    explicit Reader(const std::string& subject) : subject_(subject) {}

    std::vector<Plan> read(std::string_view text) {
        const json document = json::parse(text, nullptr, false);
        if (document.is_discarded()) fail("not JSON");
        std::vector<Plan> plans;
        if (document.is_object()) {
            plans.push_back(read_plan(document));
        } else if (document.is_array()) {
            for (const json& one : document) {
                ++element_;
                plans.push_back(read_plan(one));
            }
        } else {
            fail("neither an object nor an array");
        }
        return plans;
    }

private:
    [[noreturn]] void fail(const std::string& why) const {
        const std::string place = element_ > 0 ? "element " + std::to_string(element_) + ": " : "";
        throw Error{ErrorKind::bad_input, subject_, 0,
                    "pagesift advise ACTION PID --format json -o FILE makes a plan", place + why};
    }

    const json& member(const json& object, const char* name) const {
        if (!object.is_object())
            fail(std::string{"no object where there should be '"} + name + "'");
        const auto found = object.find(name);
        if (found == object.end()) fail(std::string{"no '"} + name + "'");
        return *found;
    }

    std::uint64_t number(const json& object, const char* name) const {
        const json& value = member(object, name);
        if (!value.is_number_unsigned()) fail(std::string{"'"} + name + "' is no whole number");
        return value.get<std::uint64_t>();
    }

    std::string text(const json& object, const char* name) const {
        const json& value = member(object, name);
        if (value.is_null()) return {};
        if (!value.is_string()) fail(std::string{"'"} + name + "' is no text");
        return value.get<std::string>();
    }

    Address address(const json& object, const char* name) const {
        const std::string digits = text(object, name);
        std::uint64_t value = 0;
        const char* const first = digits.data() + 2;
        const char* const last = digits.data() + digits.size();
        if (digits.size() < 3 || !digits.starts_with("0x") ||
            std::from_chars(first, last, value, 16).ptr != last ||
            std::from_chars(first, last, value, 16).ec != std::errc{})
            fail(std::string{"'"} + name + "' is no address");
        return Address{value};
    }

    AddressRange range(const json& object, std::uint64_t page_size) const {
        const AddressRange range{address(object, "start"), address(object, "end")};
        if (range.empty()) fail("a range is empty");
        if (range.start.value % page_size != 0 || range.end.value % page_size != 0)
            fail("a range does not consist of whole pages");
        return range;
    }

    template <class Table> auto index_of(const Table& table, const std::string& word) const {
        for (std::size_t i = 0; i < table.size(); ++i)
            if (table[i].name == word) return i;
        fail("'" + escape_text(word) + "' is not a word of ours");
    }

    Plan read_plan(const json& object) const {
        const std::string found = text(object, "schema");
        if (found.starts_with("pagesift.advise/") && found != schema)
            fail("of another version: " + escape_text(found));
        if (found != schema) fail("not a plan");
        Plan plan;
        const auto action = find_action(text(object, "action"));
        if (!action) fail("an action that is not known");
        plan.action = *action;
        read_head(object, plan);
        for (const json& one : list(object, "mappings")) read_mapping(one, plan);
        for (const json& one : list(object, "ranges")) read_range(one, plan);
        for (const json& one : list(object, "skipped")) read_skipped(one, plan);
        plan.forecast = forecast_of(plan);
        return plan;
    }

    const json& list(const json& object, const char* name) const {
        const json& value = member(object, name);
        if (!value.is_array()) fail(std::string{"'"} + name + "' is no list");
        return value;
    }

    void read_head(const json& object, Plan& plan) const {
        const std::uint64_t pid = number(object, "pid");
        if (pid == 0 || pid > 0x7fffffff) fail("'pid' is no process id");
        plan.identity.pid = static_cast<std::uint32_t>(pid);
        if (!member(object, "start_time_ticks").is_null())
            plan.identity.start_time = number(object, "start_time_ticks");
        plan.identity.boot_id = text(object, "boot_id");
        plan.comm = text(object, "comm");
        plan.exe = text(object, "exe");
        plan.lens = text(object, "lens");
        plan.page_size = number(object, "page_size");
        plan.slot_bytes = number(object, "slot_bytes");
        const bool possible = std::has_single_bit(plan.page_size) && plan.page_size >= 4096 &&
                              plan.page_size <= (1 << 20);
        if (!possible || plan.slot_bytes != plan.page_size * (plan.page_size / 8))
            fail("'page_size' or 'slot_bytes' cannot be");
        const json& frees = member(object, "swap_frees");
        if (frees.is_boolean()) plan.swap_frees = frees.get<bool>() ? Tri::yes : Tri::no;
    }

    void read_mapping(const json& object, Plan& plan) const {
        Mapping mapping;
        mapping.range = range(object, plan.page_size);
        if (!plan.mappings.empty() && mapping.range.start < plan.mappings.back().range.end)
            fail("mappings overlap or are not in order");
        const std::string permissions = text(object, "permissions");
        if (permissions.size() != 4) fail("'permissions' has no four letters");
        mapping.readable = permissions[0] == 'r';
        mapping.writable = permissions[1] == 'w';
        mapping.executable = permissions[2] == 'x';
        mapping.shared = permissions[3] == 's';
        mapping.offset = number(object, "offset_bytes");
        mapping.device.major = small_number(object, "device_major");
        mapping.device.minor = small_number(object, "device_minor");
        mapping.inode = number(object, "inode");
        const std::string backing = text(object, "backing");
        bool known = false;
        for (const auto& [word, value] : backings) {
            if (word != backing) continue;
            mapping.backing = value;
            known = true;
        }
        if (!known) fail("'backing' is not known");
        mapping.name = text(object, "name");
        mapping.page_size = plan.page_size;
        plan.mappings.push_back(std::move(mapping));
    }

    std::uint32_t small_number(const json& object, const char* name) const {
        const std::uint64_t value = number(object, name);
        if (value > 0xffffffff) fail(std::string{"'"} + name + "' is too large");
        return static_cast<std::uint32_t>(value);
    }

    std::size_t mapping_of(const json& object, AddressRange range, const Plan& plan) const {
        const std::uint64_t index = number(object, "mapping");
        if (index >= plan.mappings.size()) fail("a range is in a mapping that is not listed");
        const AddressRange& whole = plan.mappings[index].range;
        if (range.start < whole.start || whole.end < range.end) fail("a range leaves its mapping");
        return index;
    }

    void read_range(const json& object, Plan& plan) const {
        PlannedRange planned;
        planned.range = range(object, plan.page_size);
        if (!plan.ranges.empty() && planned.range.start < plan.ranges.back().range.end)
            fail("ranges overlap or are not in order");
        planned.mapping = mapping_of(object, planned.range, plan);
        planned.state = static_cast<State>(index_of(state_table(), text(object, "state")));
        if (const std::string kind = text(object, "kind"); !kind.empty())
            planned.kind = static_cast<Kind>(index_of(kind_table(), kind));
        const json& swap = member(object, "swap");
        if (!swap.is_boolean()) fail("'swap' is neither true nor false");
        planned.swap = swap.get<bool>();
        planned.unit_bytes = number(object, "unit_bytes");
        if (planned.unit_bytes == 0 || planned.unit_bytes % plan.page_size != 0 ||
            planned.bytes() % planned.unit_bytes != 0)
            fail("'unit_bytes' cannot be");
        const bool slots = planned.unit_bytes == plan.slot_bytes &&
                           planned.range.start.value % plan.slot_bytes == 0;
        if (plan.action == Action::collapse && !slots) fail("a huge page would not be aligned");
        if (plan.action == Action::pt_reclaim && !slots) fail("a page table would not be whole");
        const json& idle = member(object, "idle_seconds");
        if (idle.is_number() && idle.get<double>() >= 0) planned.idle_seconds = idle.get<double>();
        for (auto [name, value] : {std::pair{"fresh_bytes", &planned.fresh_bytes},
                                   {"fill_bytes", &planned.fill_bytes},
                                   {"copy_bytes", &planned.copy_bytes}}) {
            *value = number(object, name);
            if (*value > planned.bytes())
                fail(std::string{"'"} + name + "' is more than the range");
        }
        if (object.contains("gain_bytes")) planned.gain_bytes = number(object, "gain_bytes");
        if (planned.gain_bytes > 2 * planned.bytes()) fail("'gain_bytes' is more than the range");
        plan.ranges.push_back(planned);
    }

    void read_skipped(const json& object, Plan& plan) const {
        SkippedRange skipped;
        skipped.range = range(object, plan.page_size);
        if (!plan.skipped.empty() && skipped.range.start < plan.skipped.back().range.end)
            fail("ranges overlap or are not in order");
        skipped.mapping = mapping_of(object, skipped.range, plan);
        const auto reason = find_reason(text(object, "reason"));
        if (!reason) fail("a reason that is not known");
        skipped.reason = *reason;
        plan.skipped.push_back(skipped);
    }

    const std::string& subject_;
    std::size_t element_ = 0;
};

} // namespace

std::vector<Plan> load_plans(std::string_view text, const std::string& subject) {
    return Reader{subject}.read(text);
}

} // namespace pagesift::advice
