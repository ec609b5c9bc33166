// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <fstream>
#include <sstream>

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

std::optional<std::uint32_t> parse_pid(const std::string& text) {
    std::uint32_t pid = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
    if (error != std::errc{} || end != text.data() + text.size() || pid == 0) return {};
    return pid;
}

namespace {

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
        const auto pid = text == "self" ? std::optional{environment.own_pid} : parse_pid(text);
        if (!pid) throw bad_pid(text);
        targets.push_back({text, pid});
    }
    for (const std::string& text : options.targets) {
        if (text == "self")
            targets.push_back({text, environment.own_pid});
        else if (const auto pid = parse_pid(text))
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

Want parse_want(const Options& options) { return parse_want(options.zero, options.file_cache); }

Want parse_want(const std::string& zero, const std::string& file_cache) {
    Want want;
    want.cache = file_cache == "on";
    if (zero == "all") want.zero = ZeroTest::all;
    if (zero.starts_with("sample=")) {
        want.zero = ZeroTest::sample;
        want.sample_share = std::stod(zero.substr(7)) / 100;
    }
    return want;
}

std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view subject) {
    static constexpr std::pair<std::string_view, double> units[] = {
        {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
    const auto digits = text.find_first_not_of("0123456789.");
    const auto number = std::string{text.substr(0, digits)};
    const auto unit = digits == text.npos ? "s" : text.substr(digits);
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    for (const auto& [word, seconds] : units)
        if (word == unit && !number.empty() && *end == '\0' && value > 0 && value * seconds < 1e9)
            return std::chrono::nanoseconds{static_cast<std::int64_t>(value * seconds * 1e9)};
    throw Error{ErrorKind::usage, std::string{subject}, 0, "such as 500ms, 10, 90s, 5m or 1h",
                "'" + escape_text(text) + "' is not a time"};
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
    r.format = options.format == "json"          ? Format::json
               : options.format == "ndjson"      ? Format::ndjson
               : options.format == "csv"         ? Format::csv
               : options.format == "openmetrics" ? Format::openmetrics
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

std::string read_whole_file(const std::string& path, const std::string& hint) {
    std::error_code ignored;
    const auto status = std::filesystem::status(path, ignored);
    // A device has no end; pipes may be what another program makes.
    if (std::filesystem::is_character_file(status) || std::filesystem::is_block_file(status))
        throw Error{ErrorKind::bad_input, path, 0, hint, "is a device"};
    errno = 0;
    std::ifstream file{path, std::ios::binary};
    if (!file) throw Error{ErrorKind::bad_input, path, errno, hint};
    std::string text;
    for (std::array<char, 1 << 16> piece; file;) {
        file.read(piece.data(), piece.size());
        text.append(piece.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (file.bad()) throw Error{ErrorKind::bad_input, path, errno ? errno : EISDIR};
    return text;
}

std::vector<AddressRange> in_whole_pages(std::vector<AddressRange> ranges,
                                         std::uint64_t page_size) {
    const auto page = [&](std::uint64_t bytes) { return bytes & ~(page_size - 1); };
    for (AddressRange& range : ranges) {
        range.start = Address{page(range.start.value)};
        range.end = Address{page(range.end.value + page_size - 1)};
    }
    return ranges;
}

namespace {

/// errno of a failed call of the standard library, which need not have set it.
Error write_error(const std::string& name) {
    return {ErrorKind::failed, name, errno, "", errno == 0 ? "cannot be written" : ""};
}

} // namespace

/// A stream into a file that is to take another one's place. Whoever writes gets the Error that
/// says why it could not be written.
class ReplacedFile::Beside : private std::streambuf {
public:
    explicit Beside(const std::string& target) : file_(target) {
        setp(buffer_.data(), buffer_.data() + buffer_.size());
        stream_.exceptions(std::ios::badbit);
    }
    std::ostream& stream() { return stream_; }
    /// Throws what has kept something from being written.
    void publish() {
        if (error_) throw Error{*error_};
        stream_.flush();
        file_.publish();
    }

private:
    int_type overflow(int_type c) override {
        sync();
        if (!traits_type::eq_int_type(c, traits_type::eof())) sputc(traits_type::to_char_type(c));
        return traits_type::not_eof(c);
    }
    int sync() override {
        try {
            file_.write({pbase(), static_cast<std::size_t>(pptr() - pbase())});
        } catch (const Error& error) {
            error_ = error;
            throw;
        }
        setp(buffer_.data(), buffer_.data() + buffer_.size());
        return 0;
    }

    os::Replacement file_;
    std::array<char, 1 << 16> buffer_;
    std::optional<Error> error_;
    std::ostream stream_{this};
};

ReplacedFile::ReplacedFile(const std::string& file, InPlace in_place) : name_(file) {
    namespace fs = std::filesystem;
    std::error_code error;
    const auto status = fs::status(file, error);
    // Names of descriptors are not for renaming: others write to those as well.
    const bool of_descriptor = file.starts_with("/dev/") || file.starts_with("/proc/");
    if (!of_descriptor && (!fs::exists(status) || fs::is_regular_file(status))) {
        // A link stays, and what it leads to is replaced.
        const std::string target =
            fs::is_symlink(file, error) ? fs::weakly_canonical(file, error).string() : file;
        try {
            beside_ = std::make_unique<Beside>(target);
            return;
        } catch (const Error& refusal) {
            const bool forbidden = refusal.errnum() == EACCES || refusal.errnum() == EPERM;
            if (in_place == InPlace::never || !forbidden) throw;
        }
    }
    errno = 0;
    stream_.open(file, std::ios::binary | std::ios::trunc);
    if (!stream_) throw write_error(name_);
}

ReplacedFile::~ReplacedFile() = default;

std::ostream& ReplacedFile::stream() {
    if (beside_) return beside_->stream();
    return stream_;
}

void ReplacedFile::require_written() {
    errno = 0;
    stream_.flush();
    if (stream_) return;
    if (errno == 0) { // it failed earlier, and it fails for the same reason again
        stream_.clear();
        stream_.put('\n').flush();
    }
    throw write_error(name_);
}

void ReplacedFile::publish() {
    if (beside_) return beside_->publish();
    require_written();
}

void ReplacedFile::commit() {
    publish();
    if (beside_) return;
    errno = 0;
    stream_.close();
    if (!stream_) throw write_error(name_);
}

Output::Output(const std::string& file, std::ostream& standard) : stream_(&standard) {
    if (file.empty() || file == "-") return;
    file_ = std::make_unique<ReplacedFile>(file, ReplacedFile::InPlace::if_need_be);
    stream_ = &file_->stream();
}

Output::~Output() = default;

void Output::publish() {
    if (file_) return file_->publish();
    errno = 0;
    stream_->flush();
    if (!*stream_) throw write_error("standard output");
}

void Output::close() {
    if (file_)
        file_->commit();
    else
        publish();
}

} // namespace pagesift::cli
