// SPDX-License-Identifier: MIT
#include "snapshot/recording_file.hpp"
#include "snapshot/recording_source.hpp"

#include <bit>
#include <fmt/format.h>

namespace pagesift::snapshot {
namespace {

/// Turns the lines of a recording into processes. Lines that begin with a word of a later version
/// are passed over; a known word with anything unexpected behind it is refused.
class Reader {
public:
    Reader(std::string_view bytes, const std::string& subject) : lines_(bytes, subject) {}

    std::vector<std::unique_ptr<Source>> read() {
        while (const auto line = lines_.next()) {
            std::string_view rest = *line;
            if (rest.empty() || rest[0] == '#') continue;
            const auto word = take_field(rest);
            if (!take_column(word, rest)) take_line(word, rest);
        }
        if (process_) lines_.refuse("the last process has no 'done'");
        return std::move(sources_);
    }

private:
    struct Rule {
        std::string_view word;
        enum class Place { host, process, anywhere } place;
        void (Reader::*take)(std::string_view rest);
    };
    static const std::array<Rule, 20> rules;

    bool take_column(std::string_view word, std::string_view tokens);
    void take_line(std::string_view word, std::string_view rest);

    void host(std::string_view rest);
    void setting(std::string_view rest);
    void swap_area(std::string_view rest);
    void process(std::string_view rest);
    void want(std::string_view rest);
    void mapping(std::string_view rest);
    void mapping_details(Mapping& mapping, std::string_view rest);
    void smaps(std::string_view rest);
    void block(std::string_view rest);
    void close_block();
    void tables_asked(std::string_view rest) { ranges(rest, process_->tables_asked); }
    void tables_owned(std::string_view rest) { ranges(rest, process_->tables_owned); }
    void gap(std::string_view rest);
    void done(std::string_view rest);

    template <std::string ProcessText::*Member> void process_text(std::string_view rest) {
        process_->text.*Member += text(rest);
    }
    template <std::string Gap::*Member> void gap_text(std::string_view rest) {
        if (process_->gaps.empty()) lines_.refuse("belongs to no gap");
        process_->gaps.back().*Member += text(rest);
    }

    std::string text(std::string_view escaped) const {
        auto plain = unescape(escaped);
        if (!plain) lines_.refuse(R"(an escape that is not one of \n \t \\ \xNN)");
        return std::move(*plain);
    }
    template <class Number = std::uint64_t>
    Number number(std::string_view digits, const char* what, int base = 10) const {
        const auto value = parse_number<Number>(digits, base);
        if (!value) refuse_value(digits, what);
        return *value;
    }
    bool yes_or_no(std::string_view word) const {
        if (word != "yes" && word != "no") refuse_value(word, "yes or no");
        return word == "yes";
    }
    AddressRange range(std::string_view word) const;
    void ranges(std::string_view rest, std::vector<AddressRange>& into) const;
    [[noreturn]] void refuse_value(std::string_view value, const char* expected) const {
        lines_.refuse(fmt::format("'{}' is not {}", escape_text(value.substr(0, 60)), expected));
    }

    RecordingLines lines_;
    std::shared_ptr<HostFacts> host_ = std::make_shared<HostFacts>();
    std::vector<std::unique_ptr<Source>> sources_;
    std::optional<RecordedProcess> process_;
    std::optional<Extent> block_;
    std::array<std::uint64_t, column_count> block_pages_{}; ///< values so far, by column
};

const std::array<Reader::Rule, 20> Reader::rules{{
    {"block", Rule::Place::process, &Reader::block},
    {"mapping", Rule::Place::process, &Reader::mapping},
    {"smaps", Rule::Place::process, &Reader::smaps},
    {"tables-asked", Rule::Place::process, &Reader::tables_asked},
    {"tables-owned", Rule::Place::process, &Reader::tables_owned},
    {"gap", Rule::Place::process, &Reader::gap},
    {"reason", Rule::Place::process, &Reader::gap_text<&Gap::reason>},
    {"remedy", Rule::Place::process, &Reader::gap_text<&Gap::remedy>},
    {"comm", Rule::Place::process, &Reader::process_text<&ProcessText::comm>},
    {"exe", Rule::Place::process, &Reader::process_text<&ProcessText::exe>},
    {"stat", Rule::Place::process, &Reader::process_text<&ProcessText::stat>},
    {"status", Rule::Place::process, &Reader::process_text<&ProcessText::status>},
    {"ksm-stat", Rule::Place::process, &Reader::process_text<&ProcessText::ksm_stat>},
    {"want", Rule::Place::process, &Reader::want},
    {"done", Rule::Place::process, &Reader::done},
    {"host", Rule::Place::host, &Reader::host},
    {"setting", Rule::Place::host, &Reader::setting},
    {"swap-area", Rule::Place::host, &Reader::swap_area},
    {"process", Rule::Place::anywhere, &Reader::process},
    {"end", Rule::Place::anywhere, nullptr},
}};

AddressRange Reader::range(std::string_view word) const {
    const auto value = parse_range(word);
    if (!value) refuse_value(word, "a range of addresses");
    const std::uint64_t low_bits = host_->page_size - 1;
    if (((value->start.value | value->end.value) & low_bits) != 0)
        refuse_value(word, "a range of whole pages");
    return *value;
}

void Reader::ranges(std::string_view rest, std::vector<AddressRange>& into) const {
    while (!rest.empty()) into.push_back(range(take_field(rest)));
}

bool Reader::take_column(std::string_view word, std::string_view tokens) {
    const auto& table = column_table();
    const auto column =
        std::find_if(table.begin(), table.end(), [&](const Column& c) { return c.name == word; });
    if (column == table.end()) return false;
    if (!block_) lines_.refuse(fmt::format("'{}' stands in no block", word));
    const auto i = static_cast<std::size_t>(column - table.begin());
    block_->columns |= static_cast<ColumnMask>(1u << i);
    const std::uint64_t pages = block_->end - block_->first;
    std::optional<std::uint64_t> previous;
    while (!tokens.empty()) {
        const auto token = take_field(tokens);
        const auto run = parse_run(*column, token, previous);
        if (!run) refuse_value(token, "a run of values");
        if (run->count > pages - block_pages_[i])
            lines_.refuse(fmt::format("more values than the block's {} pages", pages));
        process_->columns[i].append(block_->first + block_pages_[i], *run);
        block_pages_[i] += run->count;
        previous = run->value;
    }
    return true;
}

void Reader::take_line(std::string_view word, std::string_view rest) {
    const auto rule =
        std::find_if(rules.begin(), rules.end(), [&](const Rule& r) { return r.word == word; });
    if (rule == rules.end() || !rule->take) {
        if (word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != word.npos)
            refuse_value(word, "a word of a recording");
        return;
    }
    if (rule->place == Rule::Place::process && !process_)
        lines_.refuse(fmt::format("'{}' stands in no process", word));
    if (rule->place == Rule::Place::host && (process_ || !sources_.empty()))
        lines_.refuse(fmt::format("'{}' stands behind the first process", word));
    close_block();
    (this->*rule->take)(rest);
}

void Reader::host(std::string_view rest) {
    static constexpr std::pair<std::string_view, std::optional<bool> HostFacts::*> answers[] = {
        {"frames-visible", &HostFacts::frames_visible},
        {"ksm-flag-true", &HostFacts::ksm_flag_true},
        {"exclusive-flag", &HostFacts::exclusive_flag},
        {"soft-dirty", &HostFacts::soft_dirty},
        {"tables-located", &HostFacts::tables_located},
    };
    static constexpr std::pair<std::string_view, std::string HostFacts::*> texts[] = {
        {"release", &HostFacts::release},
        {"machine", &HostFacts::machine},
        {"name", &HostFacts::host_name},
    };
    const auto key = take_field(rest);
    for (const auto& [name, member] : answers)
        if (key == name) (*host_).*member = yes_or_no(rest);
    for (const auto& [name, member] : texts)
        if (key == name) (*host_).*member += text(rest);
    if (key == "lens") host_->lens = text(rest);
    if (key == "page-size") {
        host_->page_size = number(rest, "a page size");
        if (!std::has_single_bit(host_->page_size) || host_->page_size < 512 ||
            host_->page_size > (1u << 24))
            refuse_value(rest, "a page size");
    }
    if (key == "table-levels") {
        host_->counted_table_levels = number<unsigned>(rest, "a number of levels");
        if (host_->counted_table_levels < 1 || host_->counted_table_levels > 5)
            refuse_value(rest, "a number of levels from 1 to 5");
    }
}

void Reader::setting(std::string_view rest) {
    const auto key = text(take_field(rest));
    host_->settings[key] = text(rest);
}

void Reader::swap_area(std::string_view rest) {
    procfs::SwapArea area;
    area.size_bytes = number(take_field(rest), "a size in bytes");
    area.used_bytes = number(take_field(rest), "a size in bytes");
    area.priority = number<int>(take_field(rest), "a priority");
    area.kind = text(take_field(rest));
    area.name = text(rest);
    host_->swaps.push_back(std::move(area));
}

void Reader::process(std::string_view rest) {
    if (process_) lines_.refuse("the process before has no 'done'");
    process_.emplace();
    process_->text.pid = number<std::uint32_t>(rest, "a process id");
}

void Reader::want(std::string_view rest) {
    Want& want = process_->want;
    while (!rest.empty()) {
        const auto [key, value] = take_key_value(rest);
        if (key == "frames") want.frames = yes_or_no(value);
        if (key == "cache") want.cache = yes_or_no(value);
        if (key == "zero") {
            const auto zero = parse_word<ZeroTest>(value);
            if (!zero) refuse_value(value, "off, sample or all");
            want.zero = *zero;
        }
        if (key == "sample-share") {
            const auto [end, error] =
                std::from_chars(value.data(), value.data() + value.size(), want.sample_share);
            if (error != std::errc{} || end != value.data() + value.size() ||
                !(want.sample_share >= 0 && want.sample_share <= 1))
                refuse_value(value, "a share from 0 to 1");
        }
    }
}

void Reader::mapping(std::string_view rest) {
    if (!process_->extents.empty()) lines_.refuse("a mapping behind the first block");
    Mapping m;
    m.range = range(take_field(rest));
    auto& mappings = process_->mappings;
    if (!mappings.empty() && m.range.start < mappings.back().range.end)
        lines_.refuse("the mapping overlaps the one before or lies below it");
    const auto permissions = take_field(rest);
    m.readable = permissions.starts_with('r');
    m.writable = permissions.substr(0, 2).ends_with('w');
    m.executable = permissions.substr(0, 3).ends_with('x');
    m.shared = permissions.ends_with('s');
    if (permissions != m.permissions()) refuse_value(permissions, "permissions such as rw-p");
    m.offset = number(take_field(rest), "an offset", 16);
    auto device = take_field(rest);
    const auto colon = std::min(device.find(':'), device.size());
    m.device.major = number<std::uint32_t>(device.substr(0, colon), "a device", 16);
    device.remove_prefix(std::min(colon + 1, device.size()));
    m.device.minor = number<std::uint32_t>(device, "a device", 16);
    m.inode = number(take_field(rest), "an inode number");
    m.page_size = host_->page_size;
    mapping_details(m, rest);
    mappings.push_back(std::move(m));
}

void Reader::mapping_details(Mapping& m, std::string_view rest) {
    while (!rest.empty()) {
        if (rest.starts_with("name=")) { // to the end of the line
            m.name = text(rest.substr(5));
            return;
        }
        const auto [key, value] = take_key_value(rest);
        if (key == "backing") {
            const auto backing = parse_word<Backing>(value);
            if (!backing) refuse_value(value, "what may stand behind a mapping");
            m.backing = *backing;
        }
        if (key == "page-size") {
            m.page_size = number(value, "a page size");
            if (!std::has_single_bit(m.page_size)) refuse_value(value, "a page size");
        }
        if (key == "remote-file") m.remote_file = yes_or_no(value);
    }
}

void Reader::smaps(std::string_view rest) {
    if (process_->mappings.empty()) lines_.refuse("'smaps' belongs to no mapping");
    static constexpr std::pair<std::string_view, std::optional<std::uint64_t> SmapsFacts::*>
        figures[] = {
            {"rss", &SmapsFacts::rss_bytes},
            {"swap", &SmapsFacts::swap_bytes},
            {"referenced", &SmapsFacts::referenced_bytes},
            {"hugetlb", &SmapsFacts::hugetlb_bytes},
            {"ksm", &SmapsFacts::ksm_bytes},
            {"anon-huge", &SmapsFacts::anon_huge_bytes},
            {"shared-huge", &SmapsFacts::shared_huge_bytes},
        };
    auto facts = std::make_shared<SmapsFacts>();
    while (!rest.empty()) {
        if (rest.starts_with("flags=")) { // to the end of the line
            facts->vm_flags = procfs::parse_vm_flags(text(rest.substr(6)));
            break;
        }
        const auto [key, value] = take_key_value(rest);
        for (const auto& [name, member] : figures)
            if (key == name) (*facts).*member = number(value, "a size in bytes");
    }
    process_->mappings.back().smaps = std::move(facts);
}

void Reader::block(std::string_view rest) {
    const auto index = number<std::size_t>(take_field(rest), "the number of a mapping");
    const AddressRange pages = range(rest);
    if (index >= process_->mappings.size()) lines_.refuse("a block of no mapping");
    const AddressRange whole = process_->mappings[index].range;
    if (pages.start < whole.start || whole.end < pages.end)
        lines_.refuse("the block reaches beyond its mapping");
    const std::uint64_t first = pages.start.value / host_->page_size;
    if (!process_->extents.empty() && first < process_->extents.back().end)
        lines_.refuse("the block overlaps the one before or lies below it");
    block_ = Extent{first, pages.end.value / host_->page_size, 0};
    block_pages_ = {};
}

void Reader::close_block() {
    if (!block_) return;
    const std::uint64_t pages = block_->end - block_->first;
    for (std::size_t i = 0; i < column_count; ++i)
        if ((block_->columns & (1u << i)) && block_pages_[i] != pages)
            lines_.refuse(fmt::format("the block above has {} pages and {} values of '{}'", pages,
                                      block_pages_[i], column_table()[i].name));
    auto& extents = process_->extents;
    if (!extents.empty() && extents.back().end == block_->first &&
        extents.back().columns == block_->columns)
        extents.back().end = block_->end;
    else
        extents.push_back(*block_);
    block_.reset();
}

void Reader::gap(std::string_view rest) {
    Gap gap;
    const auto where = take_field(rest);
    if (where != "all") gap.range = range(where);
    const auto weight = take_field(rest);
    if (weight != "incomplete" && weight != "detail") refuse_value(weight, "incomplete or detail");
    gap.incomplete = weight == "incomplete";
    gap.source = text(rest);
    process_->gaps.push_back(std::move(gap));
}

void Reader::done(std::string_view) {
    sources_.push_back(std::make_unique<RecordedSource>(host_, std::move(*process_)));
    process_.reset();
}

} // namespace

std::vector<std::unique_ptr<Source>> load_recording(std::string_view bytes,
                                                    const std::string& subject) {
    return Reader{bytes, subject}.read();
}

} // namespace pagesift::snapshot
