// SPDX-License-Identifier: MIT
#include "worker/fixture.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>

namespace pagesift::live {

namespace {

std::vector<std::string> command_of(const std::vector<std::string>& arguments,
                                    std::vector<std::string> command) {
    command.push_back(program_of("PAGESIFT_WORKER"));
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
}

} // namespace

WorkerProcess::WorkerProcess(const std::vector<std::string>& arguments,
                             std::vector<std::string> wrapper)
    : process_(command_of(arguments, std::move(wrapper))) {
    const auto line = process_.wait_for_line(120);
    const auto said = json::parse(line.value_or(""), nullptr, false);
    if (!said.is_object()) return;
    page_size_ = said["page_size"];
    absent_ = said["absent"];
    for (const json& range : said["ranges"])
        ranges_.push_back({range["kind"], range["heat"], address(range["start"]),
                           address(range["end"]), range["first"], range["pages"],
                           range["unit_pages"]});
}

json WorkerProcess::finish() {
    process_.close_input();
    const auto line = process_.wait_for_line(120);
    const auto said = json::parse(line.value_or(""), nullptr, false);
    CHECK_MESSAGE(said.is_object(), "the worker is alive and says what came of it");
    if (!said.is_object()) return {};
    const int status = process_.wait(30);
    CHECK(WIFEXITED(status));
    CHECK(said["accesses"].get<std::uint64_t>() > 0);
    CHECK_MESSAGE(said["wrong_pages"] == 0, said.dump());
    CHECK(said["history"] == true);
    return said;
}

} // namespace pagesift::live
