// SPDX-License-Identifier: MIT
#include "advise.hpp"

#include "zoo/witness.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/uio.h>

namespace pagesift::live {

namespace witness = zoo::witness;

namespace {

std::uint64_t word_at(std::uint64_t address) { return (address | 1) * 0x9e3779b97f4a7c15; }

std::uint64_t number(const json& object, const char* name) {
    return object.is_object() && object.contains(name) && object[name].is_number()
               ? object[name].get<std::uint64_t>()
               : 0;
}

} // namespace

std::uint64_t free_addresses(std::size_t bytes) {
    const std::size_t slot = witness::slot_size();
    void* const raw = mmap(nullptr, bytes + 3 * slot, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(raw != MAP_FAILED);
    munmap(raw, bytes + 3 * slot);
    const auto at = reinterpret_cast<std::uintptr_t>(raw) + slot; // nobody's neighbour
    return (at + slot - 1) / slot * slot;
}

void fill(std::uint64_t at, std::size_t bytes) {
    auto* const words = reinterpret_cast<std::uint64_t*>(at);
    for (std::size_t i = 0; i < bytes / 8; ++i) words[i] = word_at(at + i * 8);
}

bool holds(std::uint64_t at, std::size_t bytes) {
    const auto* const words = reinterpret_cast<const std::uint64_t*>(at);
    for (std::size_t i = 0; i < bytes / 8; ++i)
        if (words[i] != word_at(at + i * 8)) return false;
    return true;
}

bool is_filled(pid_t pid, std::uint64_t at, std::size_t bytes) {
    std::vector<std::uint64_t> words(bytes / 8);
    const iovec here{words.data(), bytes};
    const iovec there{reinterpret_cast<void*>(at), bytes};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) != static_cast<ssize_t>(bytes)) return false;
    for (std::size_t i = 0; i < words.size(); ++i)
        if (words[i] != word_at(at + i * 8)) return false;
    return true;
}

Target::Target(std::size_t size, const std::function<void(std::uint64_t, std::size_t)>& body)
    : at(free_addresses(size)), bytes(size), child([&](const auto& ready) {
          body(at, size);
          ready();
      }) {}

std::string Target::address() const {
    char text[64];
    std::snprintf(text, sizeof text, "%llx-%llx", static_cast<unsigned long long>(at),
                  static_cast<unsigned long long>(at + bytes));
    return text;
}

std::size_t Target::present() const {
    const auto entries = witness::pagemap(pid(), at, bytes / witness::page_size());
    return static_cast<std::size_t>(
        std::count_if(entries.begin(), entries.end(), witness::present));
}

std::size_t Target::swapped() const {
    const auto entries = witness::pagemap(pid(), at, bytes / witness::page_size());
    return static_cast<std::size_t>(
        std::count_if(entries.begin(), entries.end(), witness::swapped));
}

void map_private(std::uint64_t at, std::size_t bytes) {
    void* const wanted = reinterpret_cast<void*>(at);
    if (mmap(wanted, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) != wanted)
        _exit(1);
    madvise(wanted, bytes, MADV_NOHUGEPAGE);
    fill(at, bytes);
}

std::uint64_t Advised::effect(const char* name) const {
    return number(field(process, "effect"), name);
}
std::uint64_t Advised::total(const char* name) const {
    return number(field(process, "totals"), name);
}
std::uint64_t Advised::skipped(const std::string& reason) const {
    return number(field(field(process, "totals"), "skipped"), (reason + "_bytes").c_str());
}
std::uint64_t Advised::stayed(const std::string& reason) const {
    return number(field(field(process, "effect"), "stayed"), (reason + "_bytes").c_str());
}

Advised advise(const std::vector<std::string>& arguments, const RunOptions& options) {
    std::vector<std::string> all = {"advise", "--format", "json"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    Advised result;
    result.outcome = run_pagesift(all, options);
    CHECK_FALSE(result.outcome.timed_out);
    const auto answer = json::parse(result.outcome.out, nullptr, false);
    if (answer.is_array() && !answer.empty()) result.process = answer[0];
    return result;
}

std::unique_ptr<zoo::Machine> with_swap(SwapOn where, std::uint64_t bytes) {
    try {
        auto machine = std::make_unique<zoo::Machine>();
        if (where == SwapOn::file)
            machine->add_swap_file(bytes);
        else
            machine->add_zram(bytes);
        return machine;
    } catch (const zoo::Unavailable& reason) {
        skip(reason.what());
        return nullptr;
    }
}

bool has_swap() {
    std::ifstream swaps("/proc/swaps");
    std::string line;
    std::getline(swaps, line);
    return static_cast<bool>(std::getline(swaps, line));
}

bool takes(const std::string& action) {
    // Asked once: no test changes what the kernel takes, and an emulated machine is slow.
    static const json answer =
        json::parse(run_pagesift({"doctor", "--format", "json"}).out, nullptr, false);
    for (const json& feature : field(answer, "features"))
        if (field(feature, "name") == "advice-" + action) {
            if (field(feature, "works") == true) return true;
            break;
        }
    skip("the kernel takes no MADV_" + action + " for another process");
    return false;
}

std::vector<std::string> on_inside(const Target& target, const char* action,
                                   const std::vector<std::string>& more) {
    // Guests are slow, and other programs run meanwhile.
    std::vector<std::string> words{action,       "-a",   target.address(), target.pid_text(),
                                   "--max-stop", "500ms"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

std::string remark_of(const Advised& planned) {
    for (const json& gap : field(planned.process, "gaps"))
        if (field(gap, "source") == "remote call") return gap.value("reason", "");
    return {};
}

bool can_do(const char* action) {
    // Where tables lie is seen by the exact lens alone.
    if (!have_root() || (action == std::string_view{"pt-reclaim"} && lenses().back() != "exact"))
        return false;
    const Target target(witness::slot_size(), map_private);
    const auto remark = remark_of(advise(on_inside(target, action)));
    for (const char* why : {"frees no page tables", "page tables is not known",
                            "may share the target's memory: this kernel cannot tell"})
        if (remark.find(why) != std::string::npos) {
            skip(remark.substr(remark.find(": ") + 2));
            return false;
        }
    CHECK_MESSAGE(remark.empty(), remark);
    return true;
}

Ksm::Ksm(zoo::Machine& machine)
    : pages_(machine, "/sys/kernel/mm/ksm/pages_to_scan", "20000"),
      sleep_(machine, "/sys/kernel/mm/ksm/sleep_millisecs", "10"),
      zeros_(machine, "/sys/kernel/mm/ksm/use_zero_pages", "0"),
      run_(machine, "/sys/kernel/mm/ksm/run", "1") {}

std::unique_ptr<OwnKsm> with_ksm() {
    try {
        return std::make_unique<OwnKsm>();
    } catch (const zoo::Unavailable& reason) {
        skip(reason.what());
        return nullptr;
    }
}

} // namespace pagesift::live
