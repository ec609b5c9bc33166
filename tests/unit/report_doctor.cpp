// SPDX-License-Identifier: MIT
#include "pagesift/report.hpp"
#include "report/text.hpp"

#include <array>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sstream>

using namespace pagesift;
using namespace pagesift::report;
using nlohmann::json;

namespace {

const std::array features{
    Feature{"pagemap-scan", true, "works", "leaps over what is sparse", ""},
    Feature{"kpageflags", false, "EPERM", "kinds of present pages", "run as root"},
    Feature{"cachestat", std::nullopt, "could not be tried", "shmem-swapped", ""},
};

const std::array checks{
    SelfCheck{"own-task", true, "tgid 0x7, expected 0x7"},
    SelfCheck{"direct-map", false, "4096 bytes compared, 12 differ, 0 unreadable"},
};

HostFacts host() {
    HostFacts facts;
    facts.release = "6.18.0";
    facts.machine = "x86_64";
    facts.settings["ksm/run"] = "1";
    facts.swaps.push_back({"/swap\nfile", "file", 1 << 30, 1 << 20, -2});
    return facts;
}

std::string render(ReportOptions options) {
    std::ostringstream out;
    render_doctor(out, host(), features, checks, options);
    return out.str();
}

} // namespace

TEST_CASE("report: doctor says yes, no or ?, and what to do about it") {
    const std::string text = render({});
    CHECK(text.find("yes  pagemap-scan") != text.npos);
    CHECK(text.find("no   kpageflags") != text.npos);
    CHECK(text.find("?    cachestat") != text.npos);
    CHECK(text.find("remedy: run as root") != text.npos);
    CHECK(text.find("1 of 3 work here") != text.npos);
    CHECK(text.find("1 of 2 self-checks of the exact lens passed") != text.npos);
    CHECK(text.find("no  direct-map: 4096 bytes") != text.npos);
    CHECK(text.find("own-task") == text.npos);
}

TEST_CASE("report: doctor fits its width") {
    for (const unsigned width : {40u, 60u, 80u, 200u}) {
        ReportOptions options;
        options.width = width;
        options.verbose = true;
        std::istringstream lines{render(options)};
        for (std::string line; std::getline(lines, line);) {
            CHECK(display_width(line) <= width);
            CHECK((line.empty() || line.back() != ' '));
        }
    }
}

TEST_CASE("report: doctor json keeps the third answer") {
    ReportOptions options;
    options.format = Format::json;
    const json doc = json::parse(render(options));
    CHECK(doc["schema"] == "pagesift.doctor/1");
    CHECK(doc["features"][0]["works"] == true);
    CHECK(doc["features"][1]["works"] == false);
    CHECK(doc["features"][2]["works"].is_null());
    CHECK(doc["host"]["settings"]["ksm/run"] == "1");
    CHECK(doc["host"]["swaps"][0]["name"] == "/swap\\x0afile");
    CHECK(doc["host"]["swaps"][0]["priority"] == -2);
    CHECK(doc["host"]["frames_visible"].is_null());
    CHECK(doc["self_checks"].size() == 2);
    CHECK(doc["self_checks"][0]["name"] == "own-task");
    CHECK(doc["self_checks"][0]["passed"] == true);
    CHECK(doc["self_checks"][1]["passed"] == false);
    CHECK(doc["self_checks"][1]["detail"] == checks[1].detail);
}
