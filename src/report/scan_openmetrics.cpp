// SPDX-License-Identifier: MIT
// OpenMetrics 1.0 text. Only gauges without timestamps, which the older Prometheus text format has
// as well: node_exporter's textfile collector reads nothing else.
#include "report/scan_sinks.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

using scan::Record;
using scan::Summary;

/// More groups than this are not kept apart, whatever is asked for: names are chosen by others.
constexpr std::size_t most_groups = 10'000;
constexpr std::string_view rest_name = "other";

struct Label {
    std::string_view name;
    std::string value; ///< foreign
};

/// A metric family: its head once, and then its samples.
class Family {
public:
    Family(Output& out, std::string name, std::string_view unit, std::string_view help)
        : out_(&out), name_(std::move(name)), unit_(unit), help_(help) {}

    void sample(std::span<const Label> labels, const std::string& number) {
        if (!begun_) head();
        std::string line = name_;
        char before = '{';
        for (const Label& label : labels) {
            line += fmt::format("{}{}=\"", std::exchange(before, ','), label.name);
            append_label_text(line, label.value);
            line += '"';
        }
        if (!labels.empty()) line += '}';
        out_->put(line + ' ' + number + '\n');
        out_->flush_if_full();
    }

    void sample(std::span<const Label> labels, const scan::Value& value) {
        if (const auto* whole = std::get_if<std::uint64_t>(&value))
            sample(labels, fmt::format("{}", *whole));
        else if (const auto real = number_in(value))
            sample(labels, fmt::format("{}", *real));
    }

private:
    void head() {
        begun_ = true;
        std::string help;
        append_label_text(help, help_);
        out_->put(fmt::format("# TYPE {} gauge\n", name_));
        if (!unit_.empty()) out_->put(fmt::format("# UNIT {} {}\n", name_, unit_));
        out_->put(fmt::format("# HELP {} {}\n", name_, help));
    }

    Output* out_;
    std::string name_, unit_;
    std::string_view help_;
    bool begun_ = false;
};

/// The unit that a field's name ends in; empty: a number of things.
std::string_view unit_of(const scan::Field& field) {
    return field.unit == scan::Unit::bytes     ? "bytes"
           : field.unit == scan::Unit::seconds ? "seconds"
                                               : "";
}

/// Unknown adds nothing, as in scan::Sum.
void add_value(scan::Value& sum, const scan::Value& value) {
    if (auto* whole = std::get_if<std::uint64_t>(&sum)) {
        if (const auto* more = std::get_if<std::uint64_t>(&value)) *whole += *more;
    } else if (auto* real = std::get_if<double>(&sum)) {
        *real += number_in(value).value_or(0);
    } else {
        sum = value;
    }
}

class ScanOpenMetricsSink {
public:
    ScanOpenMetricsSink(std::ostream& out, const ReportOptions& options)
        : options_(options), out_(out) {}

    void begin(const Summary& summary) {
        per_ = summary.per;
        if (per_ == scan::Per::mapping || per_ == scan::Per::range)
            throw Error{ErrorKind::usage, "--format openmetrics", 0,
                        "--per process, cgroup or comm",
                        fmt::format("has no series per {}", scan::per_word(per_))};
        groups_.clear();
        rest_.reset();
        rest_groups_ = 0;
    }

    void record(const Record& record) {
        Key key{0, record.text_at(per_ == scan::Per::cgroup ? "cgroup" : "comm")};
        if (per_ == scan::Per::process)
            key.pid = static_cast<std::uint64_t>(number_in(record.at("pid")).value_or(0));
        // A group that is really called like the rest is part of it: series must differ.
        if (key.pid == 0 && key.name == rest_name) {
            add_to_rest(record);
        } else if (groups_.size() >= most_groups) {
            add_to_rest(record);
            ++rest_groups_;
        } else {
            groups_.emplace_back(std::move(key), record);
        }
    }

    void end(const Summary& summary) {
        choose();
        const auto fields = scan::fields();
        for (std::size_t i = 0; i < fields.size(); ++i)
            if (fields[i].additive) write_groups(fields[i], i);
        for (std::size_t i = 0; i < fields.size(); ++i) {
            if (!fields[i].additive) continue;
            const std::string help = fields[i].meaning + ", over all processes of the scan";
            Family family{out_, fmt::format("pagesift_all_{}", fields[i].name), unit_of(fields[i]),
                          help};
            family.sample({}, value_at(summary.totals, i));
        }
        write_scan(summary);
        out_.put("# EOF\n");
        out_.flush();
        chosen_.clear();
    }

    void finish() { out_.flush(); }

private:
    struct Key {
        std::uint64_t pid = 0; ///< 0: not told apart by it
        std::string name;
    };
    struct Group {
        std::vector<Label> labels;
        Record sum;
    };

    std::vector<Label> labels_of(const Key& key) const {
        if (per_ == scan::Per::cgroup) return {{"cgroup", key.name}};
        if (per_ == scan::Per::comm) return {{"comm", key.name}};
        return {{"pid", key.pid == 0 ? "" : fmt::format("{}", key.pid)}, {"comm", key.name}};
    }

    void add_to_rest(const Record& record) {
        if (!rest_) rest_.emplace();
        for (std::size_t i = 0; i < scan::fields().size(); ++i)
            if (scan::fields()[i].additive) add_value(rest_->values[i], value_at(record, i));
    }

    /// Moves the `top` greatest groups to chosen_, and adds up all others behind them.
    void choose() {
        const scan::SortKey order{options_.sort.value_or(*scan::find_field("rss_bytes")), false};
        std::stable_sort(groups_.begin(), groups_.end(), [&](const auto& a, const auto& b) {
            return order.before(a.second, b.second);
        });
        chosen_.clear();
        for (auto& [key, sum] : groups_) {
            if (options_.top == 0 || chosen_.size() < options_.top) {
                chosen_.push_back({labels_of(key), std::move(sum)});
            } else {
                add_to_rest(sum);
                ++rest_groups_;
            }
        }
        groups_.clear();
        if (rest_) chosen_.push_back({labels_of({0, std::string{rest_name}}), *rest_});
    }

    void write_groups(const scan::Field& field, std::size_t index) {
        Family family{out_, fmt::format("pagesift_{}", field.name), unit_of(field), field.meaning};
        for (const Group& group : chosen_) family.sample(group.labels, value_at(group.sum, index));
    }

    void write_scan(const Summary& summary) {
        const auto single = [&](std::string_view name, std::string_view unit, std::string_view help,
                                const scan::Value& value) {
            Family{out_, fmt::format("pagesift_scan_{}", name), unit, help}.sample({}, value);
        };
        const std::chrono::duration<double> begin = summary.begin.time_since_epoch();
        Family{out_, "pagesift_scan_timestamp_seconds", "seconds", "when the scan began"}.sample(
            {}, fmt::format("{:.3f}", begin.count()));
        single("duration_seconds", "seconds", "how long the scan took", summary.elapsed_seconds);
        single("cpu_seconds", "seconds", "processor time that the scan took", summary.cpu_seconds);
        Family processes{out_, "pagesift_scan_processes", "", "processes by what came of them"};
        const auto count = [&](const char* result, std::uint64_t number) {
            processes.sample(std::array{Label{"result", result}}, scan::Value{number});
        };
        count("answered", summary.answered);
        count("ended", summary.ended);
        count("denied", summary.denied);
        count("skipped", summary.skipped);
        single("partial_processes", "", "processes that were answered in part", summary.partial);
        single("other_groups", "", "groups without series of their own", rest_groups_);
        single("interrupted", "", "whether the scan was interrupted", summary.interrupted);
        const std::array how{Label{"depth", std::string{scan::depth_word(summary.depth)}},
                             Label{"per", std::string{scan::per_word(summary.per)}},
                             Label{"lens", summary.lens}};
        Family{out_, "pagesift_scan_info", "", "how closely was looked"}.sample(how,
                                                                                std::string{"1"});
    }

    ReportOptions options_;
    Output out_;
    scan::Per per_ = scan::Per::process;
    std::vector<std::pair<Key, Record>> groups_;
    std::vector<Group> chosen_;
    std::optional<Record> rest_;
    std::uint64_t rest_groups_ = 0;
};

} // namespace

ScanSink make_scan_openmetrics_sink(std::ostream& out, const ReportOptions& options) {
    return bind_scan_sink(std::make_shared<ScanOpenMetricsSink>(out, options));
}

} // namespace pagesift::report
