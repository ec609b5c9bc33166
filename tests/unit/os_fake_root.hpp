// SPDX-License-Identifier: MIT
// A folder that looks like the root of a machine, removed at the end.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace pagesift::test {

class FakeRoot {
public:
    FakeRoot() {
        std::string pattern = (std::filesystem::temp_directory_path() / "pagesift-XXXXXX").string();
        if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp");
        path_ = pattern;
    }
    ~FakeRoot() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    FakeRoot(const FakeRoot&) = delete;
    FakeRoot& operator=(const FakeRoot&) = delete;

    std::string path() const { return path_.string(); }

    void write(const std::string& name, const std::string& text) {
        std::filesystem::create_directories((path_ / name).parent_path());
        std::ofstream{path_ / name, std::ios::binary} << text;
    }

    /// Words at word index @p first of a sparse file.
    void write_words(const std::string& name, std::uint64_t first,
                     const std::vector<std::uint64_t>& words) {
        std::filesystem::create_directories((path_ / name).parent_path());
        const auto file = path_ / name;
        if (!std::filesystem::exists(file)) std::ofstream{file};
        std::fstream out{file, std::ios::binary | std::ios::in | std::ios::out};
        out.seekp(static_cast<std::streamoff>(first * 8));
        out.write(reinterpret_cast<const char*>(words.data()),
                  static_cast<std::streamsize>(words.size() * 8));
    }

    /// A process with its leader alive and the given maps.
    void process(unsigned pid, const std::string& maps) {
        const std::string base = "proc/" + std::to_string(pid);
        write(base + "/stat", std::to_string(pid) +
                                  " (a (b) c) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 "
                                  "1 1\n");
        write(base + "/status", "Name:\ta\nTgid:\t" + std::to_string(pid) +
                                    "\nVmSize:\t  64 kB\nVmRSS:\t  8 kB\nVmPTE:\t  12 kB\n");
        write(base + "/comm", "a (b) c\n");
        write(base + "/maps", maps);
    }

private:
    std::filesystem::path path_;
};

} // namespace pagesift::test
