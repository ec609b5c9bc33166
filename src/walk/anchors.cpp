// SPDX-License-Identifier: MIT
// From a task to what is to be walked, one pointer after the other.
#include "walk/gather.hpp"

namespace pagesift::walk {

namespace {

std::optional<std::uint64_t> follow(KernelMemory& memory, std::optional<std::uint64_t> object,
                                    std::uint32_t offset) {
    if (!object) return {};
    const auto pointer = read_word(memory, *object + offset);
    return pointer && *pointer != 0 ? pointer : std::nullopt;
}

} // namespace

std::optional<std::uint64_t> read_word(KernelMemory& memory, std::uint64_t address) {
    std::optional<std::uint64_t> value;
    read_each(
        memory, 1, 8, [&](std::size_t) { return address; },
        [&](std::size_t, const std::byte* at) {
            if (at) value = load_word(at);
        });
    return value;
}

std::optional<std::uint64_t> file_of(KernelMemory& memory, const KernelLayout& layout,
                                     std::uint64_t task, int fd) {
    if (fd < 0) return {};
    const auto files = follow(memory, task, layout.task_struct_files);
    const auto table = follow(memory, files, layout.files_struct_fdt);
    const auto pointers = follow(memory, table, layout.fdtable_fd);
    return follow(memory, pointers, static_cast<std::uint32_t>(fd) * 8);
}

std::optional<std::uint64_t> mm_of(KernelMemory& memory, const KernelLayout& layout,
                                   std::uint64_t pagemap_file) {
    return follow(memory, pagemap_file, layout.file_private_data);
}

std::optional<std::uint64_t> mapping_of(KernelMemory& memory, const KernelLayout& layout,
                                        std::uint64_t file) {
    return follow(memory, file, layout.file_f_mapping);
}

std::optional<std::uint64_t> pgd_of(KernelMemory& memory, const KernelLayout& layout,
                                    std::uint64_t mm) {
    return follow(memory, mm, layout.mm_struct_pgd);
}

std::optional<std::uint64_t> find_task(KernelMemory& memory, const KernelLayout& layout,
                                       std::uint64_t init_task, std::uint32_t tgid) {
    // include/linux/threads.h: PID_MAX_LIMIT. A list that is longer goes in circles.
    static constexpr unsigned most_tasks = 4 * 1024 * 1024;
    if (!layout.task_struct_tasks) return {};
    std::uint64_t task = init_task;
    for (unsigned i = 0; i < most_tasks; ++i) {
        const auto id = read_word(memory, task + layout.task_struct_tgid);
        if (!id) return {};
        if (static_cast<std::uint32_t>(*id) == tgid) return task;
        const auto next = follow(memory, task, *layout.task_struct_tasks);
        if (!next) return {};
        task = *next - *layout.task_struct_tasks;
        if (task == init_task) return {};
    }
    return {};
}

} // namespace pagesift::walk
