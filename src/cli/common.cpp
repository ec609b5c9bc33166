// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"

#include <cerrno>
#include <charconv>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <fstream>

namespace pagesift::cli {

void Messages::error(const Error& error) const {
    fmt::print(err_, "pagesift: {}\n", error.what());
    if (!error.hint().empty()) fmt::print(err_, "hint: {}\n", error.hint());
}

void Messages::warn(std::string_view subject, std::string_view text) const {
    if (!quiet_) fmt::print(err_, "pagesift: {}: {}\n", escape_text(subject), text);
}

Exit Outcome::code() const {
    if (interrupted) return Exit::interrupted;
    if (answered == 0) return Exit::failed;
    return failed > 0 || partial ? Exit::partial : Exit::complete;
}

namespace {

std::optional<std::uint32_t> to_pid(const std::string& text) {
    std::uint32_t pid = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
    if (error != std::errc{} || end != text.data() + text.size() || pid == 0) return {};
    return pid;
}

bool looks_like_number(const std::string& text) {
    return text.find_first_not_of("+-0123456789") == text.npos;
}

} // namespace

std::vector<Target> parse_targets(const Options& options, const Environment& environment) {
    std::vector<Target> targets;
    const auto bad_pid = [](const std::string& text) {
        return Error{ErrorKind::usage, escape_text(text), 0,
                     "a recording whose name is a number is given as ./NAME", "not a process id"};
    };
    for (const std::string& text : options.pids) {
        const auto pid = text == "self" ? std::optional{environment.own_pid} : to_pid(text);
        if (!pid) throw bad_pid(text);
        targets.push_back({text, pid});
    }
    for (const std::string& text : options.targets) {
        if (text == "self")
            targets.push_back({text, environment.own_pid});
        else if (const auto pid = to_pid(text))
            targets.push_back({text, pid});
        else if (looks_like_number(text))
            throw bad_pid(text);
        else
            targets.push_back({text, {}});
    }
    if (targets.empty())
        throw Error{ErrorKind::usage, "no target", 0, "pagesift --help shows how to call it",
                    "name a process id, 'self' or a recording"};
    return targets;
}

Want parse_want(const Options& options) {
    Want want;
    want.cache = options.file_cache == "on";
    if (options.zero == "all") want.zero = ZeroTest::all;
    if (options.zero.starts_with("sample=")) {
        want.zero = ZeroTest::sample;
        want.sample_share = std::stod(options.zero.substr(7)) / 100;
    }
    return want;
}

os::OpenOptions open_options(const Options& options) {
    using Smaps = os::OpenOptions::Smaps;
    os::OpenOptions open;
    open.root = options.root;
    open.without = {options.without.begin(), options.without.end()};
    open.smaps = options.smaps == "on"    ? Smaps::on
                 : options.smaps == "off" ? Smaps::off
                                          : Smaps::automatic;
    using Lens = os::OpenOptions::Lens;
    open.lens = options.lens == "exact"  ? Lens::exact
                : options.lens == "proc" ? Lens::proc
                                         : Lens::automatic;
    return open;
}

unsigned jobs(const Options& options, const Environment& environment) {
    return options.jobs != 0 ? options.jobs : std::clamp(environment.processors, 1u, 8u);
}

report::ReportOptions report_options(const Options& options, const Environment& environment) {
    using report::Format, report::Unit;
    report::ReportOptions r;
    r.format = options.format == "json"     ? Format::json
               : options.format == "ndjson" ? Format::ndjson
               : options.format == "csv"    ? Format::csv
                                            : Format::table;
    r.unit = options.unit == "bytes"   ? Unit::bytes
             : options.unit == "pages" ? Unit::pages
                                       : Unit::automatic;
    const bool terminal = environment.out_is_terminal && options.output.empty();
    r.colour = options.colour == "always" ||
               (options.colour == "auto" && terminal && !environment.no_color);
    r.width = options.width != 0 ? options.width : terminal ? environment.columns : 80;
    r.top = options.top;
    r.mappings = options.mappings;
    r.ranges = options.ranges;
    r.pages = options.pages;
    r.map = options.map;
    r.verbose = options.verbose > 0;
    return r;
}

Output::Output(const std::string& file, std::ostream& standard)
    : name_(file.empty() ? "standard output" : file), stream_(&standard) {
    if (file.empty() || file == "-") return;
    auto opened = std::make_unique<std::ofstream>(file, std::ios::binary | std::ios::trunc);
    if (!*opened) throw Error{ErrorKind::failed, file, errno};
    stream_ = opened.get();
    file_ = std::move(opened);
}

Output::~Output() = default;

void Output::close() {
    errno = 0;
    stream_->flush();
    if (!*stream_)
        throw Error{ErrorKind::failed, name_, errno, "", errno == 0 ? "cannot be written" : ""};
}

} // namespace pagesift::cli
