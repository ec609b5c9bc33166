// SPDX-License-Identifier: MIT
#include "os/exact_lens.hpp"
#include "os/file.hpp"
#include "os/probe.hpp"
#include "pagesift/abi.hpp"
#include "pagesift/os.hpp"

#include <array>
#include <sys/utsname.h>
#include <unistd.h>

namespace pagesift::os {
namespace {

std::string first_line(std::string text) {
    text.resize(std::min(text.size(), text.find('\n')));
    return text;
}

struct Setting {
    const char* name;
    const char* path;
    bool bracketed;
};

constexpr std::array settings{
    Setting{"ksm/run", "sys/kernel/mm/ksm/run", false},
    Setting{"ksm/use_zero_pages", "sys/kernel/mm/ksm/use_zero_pages", false},
    Setting{"ksm/pages_shared", "sys/kernel/mm/ksm/pages_shared", false},
    Setting{"ksm/pages_sharing", "sys/kernel/mm/ksm/pages_sharing", false},
    Setting{"ksm/ksm_zero_pages", "sys/kernel/mm/ksm/ksm_zero_pages", false},
    Setting{"ksm/general_profit", "sys/kernel/mm/ksm/general_profit", false},
    Setting{"thp/enabled", "sys/kernel/mm/transparent_hugepage/enabled", true},
    Setting{"thp/shmem_enabled", "sys/kernel/mm/transparent_hugepage/shmem_enabled", true},
    Setting{"thp/max_ptes_none", "sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none",
            false},
    Setting{"lru_gen/enabled", "sys/kernel/mm/lru_gen/enabled", false},
    Setting{"lockdown", "sys/kernel/security/lockdown", true},
};

void read_settings(const Root& root, HostFacts& host) {
    for (const Setting& setting : settings) {
        const auto read = root.read_text(setting.path);
        if (read.error != 0) continue;
        host.settings[setting.name] =
            setting.bracketed ? procfs::parse_bracketed(read.text) : first_line(read.text);
    }
    host.swaps = procfs::parse_swaps(root.read_text("proc/swaps").text);
}

} // namespace

std::shared_ptr<const HostFacts> read_host(const OpenOptions& options) {
    const Root root{options.root};
    auto host = std::make_shared<HostFacts>();
    host->release = first_line(root.read_text("proc/sys/kernel/osrelease").text);
    host->host_name = first_line(root.read_text("proc/sys/kernel/hostname").text);
    host->page_size = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    read_settings(root, *host);
    if (!root.live()) return host;
    utsname names{};
    if (::uname(&names) == 0) host->machine = names.machine;
    host->counted_table_levels = probe_counted_levels(host->page_size);
    host->frames_visible = probe_frames_visible();
    host->ksm_flag_true = probe_ksm_flag();
    // Forks, so it is asked only where it can take the place of the flag that lies.
    if (host->ksm_flag_true == false) host->exclusive_flag = probe_exclusive_flag();
    host->soft_dirty = probe_soft_dirty();
    if (!options.without.contains("pagemap-scan"))
        host->tables_located = probe_located_tables(*host);
    return host;
}

std::string read_boot_id(const OpenOptions& options) {
    return first_line(Root{options.root}.read_text("proc/sys/kernel/random/boot_id").text);
}

Machine open_machine(const OpenOptions& options) {
    using Lens = OpenOptions::Lens;
    Machine machine{read_host(options)};
    if (options.lens == Lens::proc) return machine;
    const bool live = Root{options.root}.live();
    KernelViewResult result;
    if (live)
        result = open_kernel_view(options.without);
    else
        result.reason = "files of a saved tree say nothing of its kernel's memory";
    if (result.view) {
        auto host = std::make_shared<HostFacts>(*machine.host);
        host->lens = "exact";
        host->tables_located = true;
        machine.ksm_flag_mended =
            host->ksm_flag_true == false && result.view->flags_trouble().empty();
        if (machine.ksm_flag_mended) host->ksm_flag_true = true;
        machine.host = std::move(host);
        machine.exact = std::make_shared<ExactLens>(std::move(result.view));
    } else if (options.lens == Lens::exact) {
        throw Error{ErrorKind::unsupported, "--lens exact", 0, result.remedy, result.reason};
    } else if (live) {
        machine.gaps.push_back({"exact lens", std::nullopt, result.reason, result.remedy, false});
    }
    return machine;
}

} // namespace pagesift::os
