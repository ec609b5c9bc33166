// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include "pagesift/cli.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cctype>

namespace pagesift::tools {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
    return parts;
}

/// "PID|self|RECORDING", "off|sample=N%|all": capitals name a sort of value, the rest are words.
Value value_of_alternatives(const std::string& placeholder) {
    Value value;
    value.placeholder = placeholder;
    for (const std::string& part : split(placeholder, '|')) {
        if (part == "PID") {
            value.pids = true;
        } else if (part == "FILE" || part == "RECORDING") {
            value.files = true;
        } else if (part == "DIR") {
            value.folders = true;
        } else if (!part.empty() && std::islower(static_cast<unsigned char>(part[0]))) {
            const auto equals = part.find('=');
            value.words.push_back(part.substr(0, equals == part.npos ? equals : equals + 1));
        }
    }
    return value;
}

Value value_of(const CLI::Option& option) {
    if (option.get_items_expected_max() == 0) return {};
    // A set of choices shows in the type as "TEXT:{json,csv}".
    const std::string type = option.get_type_name();
    const auto open = type.find('{');
    const auto close = type.find('}', open == type.npos ? 0 : open);
    if (open == type.npos || close == type.npos)
        return value_of_alternatives(type.substr(0, type.find(':')));
    Value value;
    value.words = split(type.substr(open + 1, close - open - 1), ',');
    for (const std::string& word : value.words)
        value.placeholder += (value.placeholder.empty() ? "" : "|") + word;
    return value;
}

OptionText text_of(const CLI::Option& option) {
    OptionText text;
    for (const std::string& name : option.get_snames()) text.names.push_back("-" + name);
    for (const std::string& name : option.get_lnames()) text.names.push_back("--" + name);
    text.description = option.get_description();
    text.initial = option.get_default_str();
    text.value = value_of(option);
    text.required = option.get_required();
    text.repeatable = option.get_items_expected_max() > 1;
    text.hidden = option.get_group().empty();
    return text;
}

std::vector<OptionText> options_of(const CLI::App& app) {
    std::vector<OptionText> texts;
    for (const CLI::Option* option : app.get_options()) texts.push_back(text_of(*option));
    // The help flag is made first but read last.
    std::stable_partition(texts.begin(), texts.end(), [](const OptionText& text) {
        return std::find(text.names.begin(), text.names.end(), "--help") == text.names.end();
    });
    return texts;
}

} // namespace

Program describe_program() {
    CLI::App app;
    cli::Options options;
    cli::build_app(app, options);

    Program program{.options = options_of(app), .commands = {}};
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        program.commands.push_back(
            {command->get_name(), command->get_description(), options_of(*command)});
    return program;
}

} // namespace pagesift::tools
