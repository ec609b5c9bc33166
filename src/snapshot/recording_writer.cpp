// SPDX-License-Identifier: MIT
#include "snapshot/recording_columns.hpp"
#include "snapshot/recording_file.hpp"
#include "snapshot/recording_text.hpp"

#include <cassert>
#include <fmt/format.h>
#include <iterator>

namespace pagesift::snapshot {
namespace {

/// A block's lines are held back until they make up this much, so that neighbouring blocks become
/// one.
constexpr std::size_t block_text_bytes = 64 << 10;
constexpr std::size_t text_chunk_bytes = 2048;
constexpr std::size_t ranges_a_line = 3;

std::string hex_range(AddressRange range) {
    return fmt::format("{:x}-{:x}", range.start.value, range.end.value);
}

} // namespace

struct RecordingWriter::State {
    State(std::ostream& out, Encoding encoding) : output(out, encoding) {}

    RecordingOutput output;
    std::string lines;
    std::uint64_t page_size = 4096;
    bool in_process = false;

    // The block that is being put together.
    std::size_t mapping = 0;
    AddressRange range;
    ColumnMask columns = 0;
    std::array<ColumnEncoder, column_count> encoders;

    template <class... Arguments>
    void line(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
        fmt::format_to(std::back_inserter(lines), format, std::forward<Arguments>(arguments)...);
        // An empty field at the end reads the same without the blank before it.
        while (lines.ends_with(' ')) lines.pop_back();
        lines += '\n';
        if (lines.size() >= block_text_bytes) flush();
    }
    void flush() {
        output.write(lines);
        lines.clear();
    }
    /// "key text"; nothing at all for an empty text.
    void text(std::string_view key, std::string_view value) {
        while (!value.empty()) {
            const auto newline = value.find('\n');
            const auto piece = value.substr(
                0, std::min(newline == value.npos ? newline : newline + 1, text_chunk_bytes));
            lines += key;
            lines += ' ';
            append_escaped(lines, piece);
            lines += '\n';
            value.remove_prefix(piece.size());
        }
        if (lines.size() >= block_text_bytes) flush();
    }
    void fact(std::string_view key, const std::optional<bool>& value) {
        if (value) line("host {} {}", key, *value ? "yes" : "no");
    }
    void ranges(std::string_view key, std::span<const AddressRange> all) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            const bool first = i % ranges_a_line == 0;
            lines += first ? key : "";
            lines += ' ' + hex_range(all[i]);
            if (i + 1 == all.size() || (i + 1) % ranges_a_line == 0) lines += '\n';
        }
        if (lines.size() >= block_text_bytes) flush();
    }
    void close_block();
    void host(const HostFacts& facts);
    void one_mapping(const Mapping& mapping);
};

void RecordingWriter::State::host(const HostFacts& facts) {
    line("{} {}", recording_word, recording_version);
    line("host page-size {}", facts.page_size);
    if (facts.lens != "proc") text("host lens", facts.lens);
    text("host release", facts.release);
    text("host machine", facts.machine);
    text("host name", facts.host_name);
    line("host table-levels {}", facts.counted_table_levels);
    fact("frames-visible", facts.frames_visible);
    fact("ksm-flag-true", facts.ksm_flag_true);
    fact("exclusive-flag", facts.exclusive_flag);
    fact("soft-dirty", facts.soft_dirty);
    fact("tables-located", facts.tables_located);
    for (const auto& [key, value] : facts.settings) {
        std::string words = "setting ";
        append_word(words, key);
        words += ' ';
        append_escaped(words, value);
        line("{}", words);
    }
    for (const auto& area : facts.swaps) {
        std::string words =
            fmt::format("swap-area {} {} {} ", area.size_bytes, area.used_bytes, area.priority);
        append_word(words, area.kind);
        words += ' ';
        append_escaped(words, area.name);
        line("{}", words);
    }
}

void RecordingWriter::State::one_mapping(const Mapping& m) {
    std::string words = fmt::format("mapping {} {} {:x} {:02x}:{:02x} {} backing={} page-size={}",
                                    hex_range(m.range), m.permissions(), m.offset, m.device.major,
                                    m.device.minor, m.inode, to_word(m.backing), m.page_size);
    if (m.remote_file) words += " remote-file=yes";
    if (!m.name.empty()) {
        words += " name=";
        append_escaped(words, m.name);
    }
    line("{}", words);
    if (!m.smaps) return;
    words = "smaps";
    const auto figure = [&](const char* key, const std::optional<std::uint64_t>& bytes) {
        if (bytes) words += fmt::format(" {}={}", key, *bytes);
    };
    figure("rss", m.smaps->rss_bytes);
    figure("swap", m.smaps->swap_bytes);
    figure("referenced", m.smaps->referenced_bytes);
    figure("hugetlb", m.smaps->hugetlb_bytes);
    figure("ksm", m.smaps->ksm_bytes);
    figure("anon-huge", m.smaps->anon_huge_bytes);
    figure("shared-huge", m.smaps->shared_huge_bytes);
    words += " flags=";
    append_escaped(words, m.smaps->vm_flags.text);
    line("{}", words);
}

void RecordingWriter::State::close_block() {
    if (range.empty()) return;
    line("block {} {}", mapping, hex_range(range));
    for (std::size_t i = 0; i < column_count; ++i)
        if (columns & (1u << i)) lines += encoders[i].take(column_table()[i]);
    range = {};
    flush();
}

RecordingWriter::RecordingWriter(std::ostream& out, Encoding encoding, const HostFacts& host)
    : state_(std::make_unique<State>(out, encoding)) {
    state_->page_size = host.page_size;
    state_->host(host);
}

RecordingWriter::~RecordingWriter() = default;

void RecordingWriter::begin(const ProcessText& process, std::span<const Mapping> mappings,
                            const Want& want) {
    State& s = *state_;
    assert(!s.in_process);
    s.in_process = true;
    s.line("process {}", process.pid);
    s.text("comm", process.comm);
    s.text("exe", process.exe);
    s.text("stat", process.stat);
    s.text("status", process.status);
    s.text("ksm-stat", process.ksm_stat);
    s.line("want frames={} cache={} zero={} sample-share={}", want.frames ? "yes" : "no",
           want.cache ? "yes" : "no", to_word(want.zero), want.sample_share);
    for (const Mapping& mapping : mappings) s.one_mapping(mapping);
}

void RecordingWriter::block(std::size_t mapping, const PageBlock& block) {
    State& s = *state_;
    assert(s.in_process);
    ColumnMask columns = 0;
    std::size_t text = 0;
    for_each_column(block, [&](std::size_t i, const auto& values) {
        if (!values.empty()) columns |= static_cast<ColumnMask>(1u << i);
        text += s.encoders[i].text_size();
    });
    if (mapping != s.mapping || block.range.start != s.range.end || columns != s.columns ||
        text > block_text_bytes)
        s.close_block();
    if (s.range.empty()) s.range = {block.range.start, block.range.start};
    s.mapping = mapping;
    s.range.end = block.range.end;
    s.columns = columns;
    const std::uint64_t pages = block.range.size().value / s.page_size;
    for_each_column(block, [&](std::size_t i, const auto& values) {
        const Column& column = column_table()[i];
        if (block.uniform && !values.empty())
            s.encoders[i].add(column, static_cast<std::uint64_t>(values.front()), pages);
        else
            for (const auto value : values)
                s.encoders[i].add(column, static_cast<std::uint64_t>(value), 1);
    });
}

void RecordingWriter::tables(std::span<const AddressRange> asked,
                             const std::optional<std::vector<AddressRange>>& owned) {
    State& s = *state_;
    assert(s.in_process);
    // What nothing could tell is the same as what was never asked.
    if (!owned) return;
    s.close_block();
    s.ranges("tables-asked", asked);
    s.ranges("tables-owned", *owned);
}

void RecordingWriter::end(std::span<const Gap> gaps) {
    State& s = *state_;
    assert(s.in_process);
    s.close_block();
    for (const Gap& gap : gaps) {
        std::string words = fmt::format("gap {} {} ", gap.range ? hex_range(*gap.range) : "all",
                                        gap.incomplete ? "incomplete" : "detail");
        append_escaped(words, gap.source);
        s.line("{}", words);
        s.text("reason", gap.reason);
        s.text("remedy", gap.remedy);
    }
    s.line("done");
    s.in_process = false;
}

void RecordingWriter::finish() {
    assert(!state_->in_process);
    state_->flush();
    state_->output.close();
}

} // namespace pagesift::snapshot
