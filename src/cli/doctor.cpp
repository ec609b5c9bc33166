// SPDX-License-Identifier: MIT
#include "cli/commands.hpp"

namespace pagesift::cli {

Exit run_doctor(const Options& options, const Environment& environment, const Messages&) {
    const auto open = open_options(options);
    const auto findings = os::probe_features(open);
    const auto host = os::read_host(open);
    Output output{options.output, *environment.out};
    report::render_doctor(output.stream(), *host, findings.features, findings.self_checks,
                          report_options(options, environment));
    output.close();
    return Exit::complete;
}

} // namespace pagesift::cli
