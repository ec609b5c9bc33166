// SPDX-License-Identifier: MIT
// What report/cold_machine.cpp writes as json, back into values. Any text is safe: each value is
// looked at before it is believed, and sums are made anew.
#include "cold/joiner.hpp"

#include "pagesift/figures.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace pagesift::cold {
namespace {

using nlohmann::json;

constexpr std::string_view schema = "pagesift.cold/1";
constexpr std::string_view schema_family = "pagesift.cold/";

/// One process of the text.
class Reader {
public:
    Reader(const json& object, const std::string& subject) : object_(object), subject_(subject) {}

    Ages read() {
        if (!object_.is_object()) fail("an element is no object");
        const std::string named = text(object_, "schema");
        if (named != schema)
            fail(named.starts_with(schema_family)
                     ? "it was written by a newer pagesift: " + escape_text(named)
                     : "it is no result of pagesift cold");
        if (object_.contains("failed")) fail("it was cut short by an error");
        read_identity();
        read_source();
        read_window();
        read_clear();
        for (const json& mapping : list(object_, "mappings")) read_mapping(mapping);
        for (const json& range : list(object_, "ranges")) read_range(range);
        for (const json& gap : list(object_, "gaps")) read_gap(gap);
        ages_.undecided_bytes = number(object_, "undecided_bytes");
        ages_.interrupted = boolean(object_, "interrupted");
        return std::move(ages_);
    }

private:
    [[noreturn]] void fail(const std::string& why) const {
        throw Error{ErrorKind::bad_input, escape_text(subject_), 0,
                    "pagesift cold --format json -o FILE PID makes one", why};
    }

    const json& member(const json& object, const char* key) const {
        if (!object.is_object()) fail("something else stands where an object should");
        const auto found = object.find(key);
        if (found == object.end()) fail(std::string{"there is no member "} + key);
        return *found;
    }
    const json& list(const json& object, const char* key) const {
        const json& value = member(object, key);
        if (!value.is_array()) fail(std::string{key} + " is no array");
        return value;
    }
    std::string text(const json& object, const char* key) const {
        const json& value = member(object, key);
        if (!value.is_string()) fail(std::string{key} + " is no text");
        return value.get<std::string>();
    }
    std::string text_or_nothing(const json& object, const char* key) const {
        return member(object, key).is_null() ? "" : text(object, key);
    }
    bool boolean(const json& object, const char* key) const {
        const json& value = member(object, key);
        if (!value.is_boolean()) fail(std::string{key} + " is neither true nor false");
        return value.get<bool>();
    }
    std::uint64_t number(const json& object, const char* key) const {
        const json& value = member(object, key);
        if (!value.is_number_unsigned()) fail(std::string{key} + " is no whole number");
        return value.get<std::uint64_t>();
    }
    /// With as many digits as are written.
    double seconds(const json& value, const char* key, double units_a_second = 1e3) const {
        const double read = value.is_number() ? value.get<double>() : -1;
        if (!(read >= 0) || !(read < 1e9)) fail(std::string{key} + " is no time");
        return std::round(read * units_a_second) / units_a_second;
    }
    Address address(const json& value) const {
        std::uint64_t read = 0;
        if (value.is_string()) {
            const auto& hex = value.get_ref<const std::string&>();
            const char* const end = hex.data() + hex.size();
            if (hex.size() > 2 && hex.starts_with("0x")) {
                const auto [stop, error] = std::from_chars(hex.data() + 2, end, read, 16);
                if (error == std::errc{} && stop == end) return Address{read};
            }
        }
        fail("an address cannot be read");
    }
    AddressRange range(const json& object) const {
        const AddressRange read{address(member(object, "start")), address(member(object, "end"))};
        if (read.empty() || read.start.value % ages_.page_size != 0 ||
            read.end.value % ages_.page_size != 0)
            fail("a range is not of whole pages");
        return read;
    }
    template <class Table>
    std::size_t word(const json& object, const char* key, const Table& table) const {
        const std::string read = text(object, key);
        for (std::size_t i = 0; i < table.size(); ++i)
            if (table[i].name == read) return i;
        fail(std::string{key} + " is a word that is not known: " + escape_text(read));
    }

    void read_identity() {
        const std::uint64_t pid = number(object_, "pid");
        if (pid == 0 || pid > ~std::uint32_t{0}) fail("pid is no process id");
        ages_.identity.pid = static_cast<std::uint32_t>(pid);
        if (!member(object_, "start_time_ticks").is_null())
            ages_.identity.start_time = number(object_, "start_time_ticks");
        ages_.identity.boot_id = text_or_nothing(object_, "boot_id");
        ages_.identity.comm = text_or_nothing(object_, "comm");
        ages_.identity.exe = text_or_nothing(object_, "exe");
        ages_.page_size = number(object_, "page_size");
        if (!std::has_single_bit(ages_.page_size) || ages_.page_size > 1u << 30)
            fail("page_size is none");
    }

    void read_source() {
        const json& source = member(object_, "source");
        ages_.source.name = text(source, "name");
        ages_.source.method = text(source, "method");
        for (const json& limit : list(source, "limits")) {
            if (!limit.is_string()) fail("a limit is no text");
            ages_.source.limits.push_back(limit.get<std::string>());
        }
        ages_.source.writes = boolean(source, "writes");
        ages_.source.reads_seen = boolean(source, "reads_seen");
        ages_.source.proves_idle = boolean(source, "proves_idle");
    }

    void read_window() {
        ages_.window_seconds = seconds(member(object_, "window_seconds"), "window_seconds");
        ages_.sighted_unix_milliseconds = number(object_, "sighted_unix_milliseconds");
        ages_.rounds = number(object_, "rounds");
        for (const json& step : list(object_, "idle_steps_seconds"))
            ages_.steps.push_back(seconds(step, "idle_steps_seconds"));
        const auto& steps = ages_.steps;
        if (ages_.rounds == 0 || ages_.rounds > most_rounds || steps.size() != ages_.rounds + 1 ||
            steps.front() != ages_.window_seconds || steps.back() != 0 ||
            !std::is_sorted(steps.rbegin(), steps.rend()))
            fail("idle_steps_seconds are not those of the rounds");
    }

    void read_clear() {
        const json& clear = member(object_, "clear");
        const auto time = [&](const char* key) { return seconds(member(clear, key), key, 1e6); };
        ages_.clear = {number(clear, "times"), time("total_seconds"), time("locked_seconds"),
                       time("longest_locked_seconds"), time("blind_seconds")};
    }

    void read_mapping(const json& object) {
        Place place;
        place.range = range(object);
        place.name = text(object, "name");
        place.permissions = text(object, "permissions");
        const std::string backing = text(object, "backing");
        const auto* const found =
            std::find_if(all_backings.begin(), all_backings.end(),
                         [&](Backing b) { return backing_word(b) == backing; });
        if (found == all_backings.end()) fail("backing is a word that is not known");
        place.backing = *found;
        if (!ages_.mappings.empty() && place.range.start < ages_.mappings.back().range.end)
            fail("mappings overlap, or are not in order");
        ages_.mappings.push_back(std::move(place));
    }

    void read_range(const json& object) {
        Range read;
        read.range = range(object);
        const std::uint64_t mapping = number(object, "mapping");
        if (mapping >= ages_.mappings.size() ||
            !(ages_.mappings[mapping].range.intersect(read.range) == read.range))
            fail("a range is not within its mapping");
        read.mapping = static_cast<std::uint32_t>(mapping);
        if (!ages_.ranges.empty() && read.range.start < ages_.ranges.back().range.end)
            fail("ranges overlap, or are not in order");
        read.state = static_cast<State>(word(object, "state", state_table()));
        if (!member(object, "kind").is_null())
            read.kind = static_cast<Kind>(word(object, "kind", kind_table()));
        read.activity = static_cast<Activity>(word(object, "activity", activity_table()));
        read.grain = static_cast<Grain>(word(object, "grain", grain_table()));
        if (!member(object, "idle_seconds").is_null())
            read.idle_seconds = seconds(member(object, "idle_seconds"), "idle_seconds");
        if (!is_consistent(read)) fail("a range's idle_seconds contradict its activity");
        Joiner::count(ages_, read);
        ages_.ranges.push_back(read);
    }

    bool is_consistent(const Range& range) const {
        switch (range.activity) {
        case Activity::unknown: return !range.idle_seconds;
        case Activity::accessed: return range.idle_seconds == 0.0;
        case Activity::idle: break;
        }
        if (!ages_.source.proves_idle) return !range.idle_seconds;
        // More than the first step can never have been proven.
        const auto first = ages_.steps.begin() + static_cast<std::ptrdiff_t>(ages_.first_step());
        return range.idle_seconds &&
               std::find(first, ages_.steps.end(), *range.idle_seconds) != ages_.steps.end();
    }

    void read_gap(const json& object) {
        Gap gap;
        gap.source = text(object, "source");
        const json& where = member(object, "range");
        if (!where.is_null()) {
            if (!where.is_array() || where.size() != 2) fail("a gap's range is none");
            gap.range = AddressRange{address(where[0]), address(where[1])};
        }
        gap.reason = text(object, "reason");
        gap.remedy = text_or_nothing(object, "remedy");
        gap.incomplete = boolean(object, "incomplete");
        ages_.gaps.push_back(std::move(gap));
    }

    const json& object_;
    const std::string& subject_;
    Ages ages_;
};

} // namespace

std::vector<Ages> load(std::string_view text, const std::string& subject) {
    const json document = json::parse(text, nullptr, false);
    if (document.is_discarded() || !document.is_array())
        throw Error{ErrorKind::bad_input, escape_text(subject), 0,
                    "pagesift cold --format json -o FILE PID makes one",
                    document.is_discarded() ? "it is no JSON" : "it is no array of processes"};
    std::vector<Ages> all;
    for (const json& object : document) all.push_back(Reader{object, subject}.read());
    return all;
}

} // namespace pagesift::cold
