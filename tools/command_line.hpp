// SPDX-License-Identifier: MIT
// The command line as plain values, read from the very CLI11 application that parses it, and the
// documents that are written from them.
//
//     write_bash(std::cout, describe_program());
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace pagesift::tools {

/// What may stand where a value is wanted.
struct Value {
    std::string placeholder;        ///< "PID|self", as help shows it; empty: takes no value
    std::vector<std::string> words; ///< literal answers; one that ends in '=' wants more behind it
    bool pids = false;
    bool files = false;
    bool folders = false;
};

struct OptionText {
    std::vector<std::string> names; ///< with their dashes, short ones first; empty: positional
    std::string description;
    std::string initial; ///< what holds where the option is not given
    Value value;
    bool required = false;
    bool repeatable = false;
    bool hidden = false;
};

struct CommandText {
    std::string name;
    std::string description;
    std::vector<OptionText> options;
};

struct Program {
    std::vector<OptionText> options; ///< those that stand before a command
    std::vector<CommandText> commands;
};

Program describe_program();

void write_bash(std::ostream& out, const Program& program);
void write_zsh(std::ostream& out, const Program& program);
void write_fish(std::ostream& out, const Program& program);

/// Copies scdoc text from @p in, with lines such as "@OPTIONS inspect@" replaced by what they name.
/// Throws std::runtime_error for a name that is not known.
void write_manual(std::istream& in, std::ostream& out, const Program& program,
                  const std::string& version);

} // namespace pagesift::tools
