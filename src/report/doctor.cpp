// SPDX-License-Identifier: MIT
#include "report/columns.hpp"
#include "report/json_fields.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

void write_host(JsonWriter& json, const HostFacts& host) {
    json.key("host");
    json.begin_object();
    json.key("release");
    json.text_or_null(host.release);
    json.key("machine");
    json.text_or_null(host.machine);
    json.key("host_name");
    json.text_or_null(host.host_name);
    json.field("page_size", host.page_size);
    json.field("slot_bytes", host.slot_bytes());
    json.field("counted_table_levels", std::uint64_t{host.counted_table_levels});
    const auto fact = [&](std::string_view name, std::optional<bool> value) {
        json.key(name);
        json.boolean(value);
    };
    fact("frames_visible", host.frames_visible);
    fact("ksm_flag_true", host.ksm_flag_true);
    fact("exclusive_flag", host.exclusive_flag);
    fact("soft_dirty", host.soft_dirty);
    fact("tables_located", host.tables_located);
    json.key("settings");
    json.begin_object();
    for (const auto& [name, value] : host.settings) {
        std::string key;
        append_json_text(key, name);
        json.key(key);
        json.text(value);
    }
    json.end_object();
    json.list("swaps", host.swaps, [](JsonWriter& one, const procfs::SwapArea& swap) {
        one.key("name");
        one.text(swap.name);
        one.key("kind");
        one.text(swap.kind);
        one.field("size_bytes", swap.size_bytes);
        one.field("used_bytes", swap.used_bytes);
        one.field("priority", std::int64_t{swap.priority});
    });
    json.end_object();
}

void write_check(JsonWriter& json, const SelfCheck& check) {
    json.key("name");
    json.text(check.name);
    json.key("passed");
    json.boolean(check.passed);
    json.key("detail");
    json.text_or_null(check.detail);
}

void write_feature(JsonWriter& json, const Feature& feature) {
    json.key("name");
    json.text(feature.name);
    json.key("works");
    json.boolean(feature.works);
    json.key("detail");
    json.text_or_null(feature.detail);
    json.key("unlocks");
    json.text_or_null(feature.unlocks);
    json.key("remedy");
    json.text_or_null(feature.remedy);
}

void render_json(std::ostream& out, const HostFacts& host, std::span<const Feature> features,
                 std::span<const SelfCheck> checks) {
    Output output{out};
    JsonWriter json{output};
    json.begin_object();
    json.key("schema");
    json.word(doctor_schema);
    json.new_line();
    write_host(json, host);
    json.lines("features", features, write_feature);
    json.lines("self_checks", checks, write_check);
    json.end_object();
    output.put('\n');
    output.flush();
}

void render_feature(const Screen& screen, const Feature& feature, std::size_t name_width) {
    const Style& style = screen.style;
    const std::string mark = !feature.works   ? style.warn("?  ")
                             : *feature.works ? style.good("yes")
                                              : style.bad("no ");
    const std::string name = escape_text(feature.name);
    const std::size_t indent = name_width + 7;
    const bool roomy = screen.width() >= indent + 30;
    const std::size_t column = roomy ? indent : 5;
    const bool inline_detail = roomy && !feature.detail.empty();
    const auto paragraph = [&](std::string_view label, const std::string& text, bool first) {
        if (text.empty()) return;
        const std::string safe = std::string{label} + escape_text(text);
        const std::string lines = wrap(safe, screen.width() - column, 0);
        for (std::size_t at = 0; at < lines.size();) {
            const std::size_t end = std::min(lines.find('\n', at), lines.size());
            const std::string line = lines.substr(at, end - at);
            if (first && at == 0)
                screen.out->put(line + "\n");
            else
                screen.line(std::string(column, ' ') + (label.empty() ? line : style.dim(line)));
            at = end + 1;
        }
    };
    screen.out->put(fmt::format("{}  {}", mark,
                                style.bold(inline_detail ? pad_right(name, name_width) : name)));
    if (inline_detail) screen.out->put("  ");
    if (!inline_detail) screen.out->put('\n');
    paragraph("", feature.detail, inline_detail);
    if (feature.works == true && !screen.options.verbose) return;
    paragraph("unlocks: ", feature.unlocks, false);
    paragraph("remedy: ", feature.remedy, false);
}

/// What the exact lens compared: in a word where all is well, one by one where it is not.
void render_checks(const Screen& screen, std::span<const SelfCheck> checks) {
    if (checks.empty()) return;
    const auto passed = std::count_if(checks.begin(), checks.end(),
                                      [](const SelfCheck& check) { return check.passed; });
    screen.line();
    screen.wrapped(
        fmt::format("{} of {} self-checks of the exact lens passed", passed, checks.size()), 0);
    for (const SelfCheck& check : checks) {
        if (check.passed && !screen.options.verbose) continue;
        screen.wrapped(fmt::format("{} {}: {}", check.passed ? "yes" : "no ",
                                   escape_text(check.name), escape_text(check.detail)),
                       2);
    }
}

void render_table(const Screen& screen, const HostFacts& host, std::span<const Feature> features,
                  std::span<const SelfCheck> checks) {
    screen.line(screen.style.bold(
        fmt::format("Linux {} on {}", escape_text(host.release.empty() ? "?" : host.release),
                    escape_text(host.machine.empty() ? "?" : host.machine))));
    screen.wrapped(fmt::format("pages of {}, page-table slots of {}", human_bytes(host.page_size),
                               human_bytes(host.slot_bytes())),
                   2);
    std::uint64_t size = 0, used = 0;
    for (const procfs::SwapArea& swap : host.swaps) {
        size += swap.size_bytes;
        used += swap.used_bytes;
    }
    screen.wrapped(host.swaps.empty()
                       ? "no swap"
                       : fmt::format("{} swap area{}, {} of {} used", host.swaps.size(),
                                     host.swaps.size() == 1 ? "" : "s", human_bytes(used),
                                     human_bytes(size)),
                   2);
    screen.line();
    std::size_t name_width = 0, works = 0;
    for (const Feature& feature : features) {
        name_width = std::max(name_width, display_width(escape_text(feature.name)));
        works += feature.works == true;
    }
    for (const Feature& feature : features) render_feature(screen, feature, name_width);
    render_checks(screen, checks);
    if (!host.settings.empty() && screen.options.verbose) {
        screen.line();
        screen.line(screen.style.bold("Settings"));
        for (const auto& [name, value] : host.settings)
            screen.wrapped(fmt::format("{} = {}", escape_text(name), escape_text(value)), 2);
    }
    screen.line();
    screen.wrapped(
        fmt::format("{} of {} work here{}", works, features.size(),
                    works == features.size() ? "" : "; what is missing shows as ? or null"),
        2);
}

} // namespace

void render_doctor(std::ostream& out, const HostFacts& host, std::span<const Feature> features,
                   std::span<const SelfCheck> checks, const ReportOptions& options) {
    if (options.format == Format::json || options.format == Format::ndjson)
        return render_json(out, host, features, checks);
    Output output{out};
    render_table({&output, options, Style{options}, Amounts{options.unit, host.page_size}}, host,
                 features, checks);
    output.flush();
}

} // namespace pagesift::report
