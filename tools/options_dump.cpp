// SPDX-License-Identifier: MIT
// Writes what is derived from the command line and the tables of words:
// options_dump bash|zsh|fish|names|words, or options_dump manual PAGE.scd.
#include "command_line.hpp"
#include "version.hpp"

#include "pagesift/classify.hpp"

#include <exception>
#include <fstream>
#include <iostream>
#include <span>
#include <stdexcept>

namespace {

using namespace pagesift::tools;

/// "command option" on each line, for the tests that compare documents with the program.
void write_names(std::ostream& out, const Program& program) {
    for (const CommandText& command : program.commands)
        for (const OptionText& option : command.options)
            for (const std::string& name : option.names)
                if (!option.hidden) out << command.name << ' ' << name << '\n';
}

void write_words(std::ostream& out, std::span<const pagesift::Word> words) {
    for (const pagesift::Word& word : words)
        if (!word.name.empty()) out << word.name << '\n';
}

void write_all_words(std::ostream& out) {
    write_words(out, pagesift::state_table());
    write_words(out, pagesift::kind_table());
    write_words(out, pagesift::attribute_table());
    write_words(out, pagesift::marker_table());
}

void write(const std::string& what, const char* page) {
    const Program program = describe_program();
    if (what == "bash") return write_bash(std::cout, program);
    if (what == "zsh") return write_zsh(std::cout, program);
    if (what == "fish") return write_fish(std::cout, program);
    if (what == "names") return write_names(std::cout, program);
    if (what == "words") return write_all_words(std::cout);
    if (what != "manual" || !page) throw std::runtime_error("cannot write '" + what + "'");
    std::ifstream in(page);
    if (!in) throw std::runtime_error(std::string(page) + " cannot be read");
    write_manual(in, std::cout, program, std::string(pagesift::version));
}

} // namespace

int main(int argc, char** argv) {
    try {
        write(argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : nullptr);
        return std::cout.flush() ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << "options_dump: " << error.what() << '\n';
        return 1;
    }
}
