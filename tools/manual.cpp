// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include "pagesift/classify.hpp"
#include "pagesift/scan.hpp"

#include <cctype>
#include <istream>
#include <ostream>
#include <span>
#include <stdexcept>

namespace pagesift::tools {
namespace {

/// Foreign text in scdoc: nothing in it is markup.
std::string plain(std::string_view text) {
    std::string result;
    for (const char c : text) {
        if (c == '_' || c == '*' || c == '\\') result += '\\';
        result += c;
    }
    return result;
}

std::string bold(std::string_view text) { return "*" + plain(text) + "*"; }

std::string sentence(std::string text) {
    if (!text.empty())
        text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
    return text.empty() || text.back() == '.' ? text : text + ".";
}

/// "PID|self" with what stands for something else underlined, and words to be typed bold.
std::string placeholder(const Value& value) {
    std::string result, word;
    for (const char c : value.placeholder + "|") {
        if (c != '|') {
            word += c;
            continue;
        }
        const bool is_name = word.find_first_of("abcdefghijklmnopqrstuvwxyz") == word.npos;
        result += (result.empty() ? "" : "|") + (is_name ? "_" + word + "_" : bold(word));
        word.clear();
    }
    return result;
}

void write_options(std::ostream& out, const std::vector<OptionText>& options) {
    for (const OptionText& option : options) {
        if (option.hidden) continue;
        std::string head;
        for (const std::string& name : option.names)
            head += (head.empty() ? "" : ", ") + bold(name);
        if (!option.value.placeholder.empty())
            head += (head.empty() ? "" : " ") + placeholder(option.value);
        out << head << "\n\t" << plain(sentence(option.description));
        if (option.required) out << " Required.";
        if (!option.initial.empty()) out << " Default: " << plain(option.initial) << '.';
        out << "\n\n";
    }
}

void write_words(std::ostream& out, std::span<const Word> words) {
    for (const Word& word : words)
        if (!word.name.empty())
            out << bold(word.name) << "\n\t" << plain(sentence(std::string(word.meaning)))
                << "\n\n";
}

void write_fields(std::ostream& out) {
    for (const scan::Field& field : scan::fields())
        out << bold(field.name) << "\n\t" << plain(sentence(field.meaning)) << "\n\n";
}

void write_named(std::ostream& out, const std::string& name, const Program& program) {
    if (name == "STATES") return write_words(out, state_table());
    if (name == "KINDS") return write_words(out, kind_table());
    if (name == "ATTRIBUTES") return write_words(out, attribute_table());
    if (name == "MARKERS") return write_words(out, marker_table());
    if (name == "FIELDS") return write_fields(out);
    if (name == "OPTIONS") return write_options(out, program.options);
    for (const CommandText& command : program.commands) {
        if (name == "OPTIONS " + command.name) return write_options(out, command.options);
        if (name != "COMMANDS") continue;
        out << bold(command.name) << "\n\t" << plain(sentence(command.description))
            << " See *pagesift-" << command.name << "*(1).\n\n";
    }
    if (name != "COMMANDS") throw std::runtime_error("nothing is called @" + name + "@");
}

} // namespace

void write_manual(std::istream& in, std::ostream& out, const Program& program,
                  const std::string& version) {
    const std::string mark = "@VERSION@";
    for (std::string line; std::getline(in, line);) {
        if (const auto at = line.find(mark); at != line.npos) {
            out << line.replace(at, mark.size(), version) << '\n';
        } else if (line.size() > 2 && line.front() == '@' && line.back() == '@') {
            write_named(out, line.substr(1, line.size() - 2), program);
        } else {
            out << line << '\n';
        }
    }
}

} // namespace pagesift::tools
