// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"
#include "version.hpp"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fmt/ostream.h>
#include <iostream>

namespace pagesift::cli {

Environment real_environment() {
    const auto around = os::read_surroundings();
    std::ios::sync_with_stdio(false);
    os::catch_interrupts();
    const char* no_color = std::getenv("NO_COLOR");
    Environment environment;
    environment.out = &std::cout;
    environment.err = &std::cerr;
    environment.out_is_terminal = around.out_is_terminal;
    environment.err_is_terminal = around.err_is_terminal;
    environment.no_color = no_color && *no_color != '\0';
    environment.columns = around.columns;
    environment.processors = around.processors;
    environment.own_pid = around.own_pid;
    environment.interrupted = os::interrupted;
    return environment;
}

namespace {

Exit dispatch(const CLI::App& app, const Options& options, const Environment& environment,
              const Messages& messages) {
    if (options.version) {
        fmt::print(*environment.out, "pagesift {}\n{}, {}, {}\n", version, build_type,
                   build_compiler, build_target);
        return Exit::complete;
    }
    if (app.got_subcommand("inspect")) return run_inspect(options, environment, messages);
    if (app.got_subcommand("scan")) return run_scan(options, environment, messages);
    if (app.got_subcommand("advise")) return run_advise(options, environment, messages);
    if (app.got_subcommand("record")) return run_record(options, environment, messages);
    if (app.got_subcommand("diff")) return run_diff(options, environment, messages);
    if (app.got_subcommand("cold")) return run_cold(options, environment, messages);
    if (app.got_subcommand("doctor")) return run_doctor(options, environment, messages);
    *environment.out << app.help();
    return Exit::complete;
}

Exit run_checked(const CLI::App& app, const Options& options, const Environment& environment) {
    const Messages messages{*environment.err, options.quiet};
    try {
        const Exit code = dispatch(app, options, environment, messages);
        Output{"", *environment.out}.close();
        return code;
    } catch (const Error& error) {
        messages.error(error);
        return error.kind() == ErrorKind::usage ? Exit::usage : Exit::failed;
    } catch (const std::bad_alloc&) {
        fmt::print(*environment.err, "pagesift: out of memory\n");
    } catch (const std::exception& error) {
        fmt::print(*environment.err, "pagesift: {}\n", escape_text(error.what()));
    }
    return Exit::failed;
}

} // namespace

int run(int argc, const char* const* argv, const Environment& environment) {
    Options options;
    CLI::App app;
    build_app(app, options);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        const int code = app.exit(error, *environment.out, *environment.err);
        environment.out->flush();
        return code == 0 ? static_cast<int>(Exit::complete) : static_cast<int>(Exit::usage);
    }
    return static_cast<int>(run_checked(app, options, environment));
}

} // namespace pagesift::cli
