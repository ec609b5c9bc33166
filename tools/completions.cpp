// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <algorithm>
#include <ostream>

namespace pagesift::tools {
namespace {

std::string join(const std::vector<std::string>& words, std::string_view separator = " ") {
    std::string text;
    for (const std::string& word : words) {
        if (!text.empty()) text += separator;
        text += word;
    }
    return text;
}

std::string replaced(std::string text, std::string_view what, std::string_view with) {
    for (auto at = text.find(what); at != text.npos; at = text.find(what, at + with.size()))
        text.replace(at, what.size(), with);
    return text;
}

/// Shell quoting that bash and zsh share.
std::string quoted(const std::string& text) { return "'" + replaced(text, "'", "'\\''") + "'"; }

std::string fish_quoted(const std::string& text) {
    return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::vector<std::string> names_of(const std::vector<OptionText>& options) {
    std::vector<std::string> names;
    for (const OptionText& option : options)
        if (!option.hidden) names.insert(names.end(), option.names.begin(), option.names.end());
    return names;
}

std::string bash_answer(const Value& value) {
    std::string answer;
    if (!value.words.empty()) answer += "_pagesift_words " + quoted(join(value.words)) + "; ";
    if (value.pids) answer += "_pagesift_pids; ";
    if (value.files) answer += "_pagesift_paths -f; ";
    if (value.folders) answer += "_pagesift_paths -d; ";
    return answer;
}

void write_bash_command(std::ostream& out, const std::string& name,
                        const std::vector<OptionText>& options) {
    std::string positional;
    for (const OptionText& option : options) {
        if (option.names.empty()) {
            positional += bash_answer(option.value);
        } else if (!option.hidden && !option.value.placeholder.empty()) {
            std::vector<std::string> labels;
            for (const std::string& word : option.names) labels.push_back(name + ":" + word);
            out << "        " << join(labels, " | ") << ") " << bash_answer(option.value)
                << "return ;;\n";
        }
    }
    out << "        " << name << ":*)\n"
        << "            if [[ $cur == -* ]]; then\n"
        << "                _pagesift_words " << quoted(join(names_of(options))) << '\n'
        << "            else\n"
        << "                " << (positional.empty() ? ":;" : positional) << '\n'
        << "            fi ;;\n";
}

constexpr std::string_view bash_head =
    R"(# bash completion for pagesift, generated from its options.

_pagesift_words() {
    local word
    for word in $1; do
        [[ $word == "$cur"* ]] || continue
        COMPREPLY+=("$word")
        [[ $word != *= ]] || compopt -o nospace
    done
}

_pagesift_pids() {
    local entry
    for entry in /proc/[0-9]*; do
        [[ ${entry##*/} != "$cur"* ]] || COMPREPLY+=("${entry##*/}")
    done
}

_pagesift_paths() {
    local path
    compopt -o filenames
    while IFS= read -r path; do COMPREPLY+=("$path"); done < <(compgen "$1" -- "$cur")
}

_pagesift() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' word
    COMPREPLY=()
    # "--option=value" arrives as three words, because "=" separates words here.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]] && ((COMP_CWORD > 2)); then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
)";

std::string zsh_text(const std::string& text) {
    return replaced(replaced(replaced(text, "[", "\\["), "]", "\\]"), ":", "\\:");
}

std::string zsh_action(const Value& value) {
    std::vector<std::string> sorts;
    if (!value.words.empty()) sorts.push_back("_pagesift_words " + join(value.words));
    if (value.pids) sorts.emplace_back("_pagesift_pids");
    if (value.files) sorts.emplace_back("_files");
    if (value.folders) sorts.emplace_back("_files -/");
    // The leading space keeps _arguments from adding words of its own.
    if (sorts.size() == 1) return " " + sorts[0];
    return sorts.empty() ? " " : "{" + join(sorts, "; ") + "}";
}

void write_zsh_options(std::ostream& out, const std::vector<OptionText>& options) {
    // Arguments that stand for themselves have their places; the last is for all that follow.
    const auto places = std::count_if(options.begin(), options.end(), [](const OptionText& option) {
        return option.names.empty();
    });
    int place = 0;
    for (const OptionText& option : options) {
        if (option.hidden) continue;
        const std::string value =
            option.value.placeholder.empty()
                ? ""
                : ":" + zsh_text(option.value.placeholder) + ":" + zsh_action(option.value);
        if (option.names.empty()) {
            const bool is_last = ++place == places;
            out << "                " << quoted((is_last ? "*" : std::to_string(place)) + value)
                << " \\\n";
            continue;
        }
        const std::string before = option.repeatable ? "*" : "(" + join(option.names) + ")";
        for (const std::string& name : option.names) {
            const bool is_long = name.starts_with("--");
            const std::string mark = value.empty() ? "" : is_long ? "=" : "+";
            out << "                "
                << quoted(before + name + mark + "[" + zsh_text(option.description) + "]" + value)
                << " \\\n";
        }
    }
}

constexpr std::string_view zsh_head = R"(#compdef pagesift
# zsh completion for pagesift, generated from its options.

_pagesift_words() {
    local word
    for word in "$@"; do
        if [[ $word == *= ]]; then compadd -S '' -- $word; else compadd -- $word; fi
    done
}

_pagesift_pids() {
    local entry name
    local -a processes
    for entry in /proc/<->(N); do
        name=
        read -r name 2>/dev/null <$entry/comm
        processes+=("${entry:t}:$name")
    done
    _describe -t processes process processes
}

_pagesift() {
    local curcontext=$curcontext context state line ret=1
    typeset -A opt_args
    _arguments -C -s \
)";

std::string fish_value(const Value& value) {
    if (value.placeholder.empty()) return {};
    std::vector<std::string> answers = value.words;
    if (value.pids) answers.emplace_back("(__fish_complete_pids)");
    if (value.folders) answers.emplace_back("(__fish_complete_directories)");
    std::string text = value.files ? " -r -F" : " -x";
    if (!answers.empty()) text += " -a " + fish_quoted(join(answers));
    return text;
}

void write_fish_options(std::ostream& out, const std::string& condition,
                        const std::vector<OptionText>& options) {
    for (const OptionText& option : options) {
        if (option.hidden) continue;
        out << "complete -c pagesift -n " << fish_quoted(condition);
        for (const std::string& name : option.names)
            out << (name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1));
        const std::string value = fish_value(option.value);
        // An argument stands by itself: it neither requires nor excludes anything.
        out << (option.names.empty() ? replaced(replaced(value, " -r -F", " -F"), " -x", " -f")
                                     : value);
        if (!option.names.empty()) out << " -d " << fish_quoted(option.description);
        out << '\n';
    }
}

} // namespace

void write_bash(std::ostream& out, const Program& program) {
    std::vector<std::string> commands;
    for (const CommandText& command : program.commands) commands.push_back(command.name);
    out << bash_head << "        case $word in " << join(commands, " | ")
        << ") command=$word; break ;; esac\n"
        << "    done\n"
        << "    case $command:$prev in\n";
    for (const CommandText& command : program.commands)
        write_bash_command(out, command.name, command.options);
    out << "        *) _pagesift_words "
        << quoted(join(commands) + " " + join(names_of(program.options))) << " ;;\n"
        << "    esac\n"
        << "} && complete -F _pagesift pagesift\n";
}

void write_zsh(std::ostream& out, const Program& program) {
    out << zsh_head;
    write_zsh_options(out, program.options);
    out << "                '1:command:->command' '*::argument:->rest' && ret=0\n"
        << "    case $state in\n"
        << "        command)\n"
        << "            local -a commands=(\n";
    for (const CommandText& command : program.commands)
        out << "                "
            << quoted(command.name + ":" + replaced(command.description, ":", "\\:")) << '\n';
    out << "            )\n"
        << "            _describe -t commands command commands && ret=0 ;;\n"
        << "        rest)\n"
        << "            curcontext=${curcontext%:*}-$line[1]:\n"
        << "            case $line[1] in\n";
    for (const CommandText& command : program.commands) {
        out << "            " << command.name << ") _arguments -s -S \\\n";
        write_zsh_options(out, command.options);
        out << "                && ret=0 ;;\n";
    }
    out << "            esac ;;\n"
        << "    esac\n"
        << "    return ret\n"
        << "}\n\n"
        << "if [[ $funcstack[1] == _pagesift ]]; then _pagesift \"$@\"; else compdef _pagesift "
           "pagesift; fi\n";
}

void write_fish(std::ostream& out, const Program& program) {
    out << "# fish completion for pagesift, generated from its options.\n"
        << "complete -c pagesift -f\n";
    for (const CommandText& command : program.commands)
        out << "complete -c pagesift -n __fish_use_subcommand -a " << command.name << " -d "
            << fish_quoted(command.description) << '\n';
    write_fish_options(out, "__fish_use_subcommand", program.options);
    for (const CommandText& command : program.commands)
        write_fish_options(out, "__fish_seen_subcommand_from " + command.name, command.options);
}

} // namespace pagesift::tools
