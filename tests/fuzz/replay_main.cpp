// SPDX-License-Identifier: MIT
// Runs a fuzz target on every file of the folders that are named as arguments, so that what a
// fuzzer once found is tried again by compilers that have none.
#include "fuzz.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const fs::path& folder) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator{folder})
        if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
}

bool replay(const fs::path& file) {
    std::ifstream in{file, std::ios::binary};
    const std::string bytes{std::istreambuf_iterator<char>{in}, {}};
    if (!in) return false;
    // Named before it runs: a crash leaves no other chance.
    std::printf("%s\n", file.c_str());
    std::fflush(stdout);
    // A buffer of exactly that size, so that the address sanitizer sees a read behind it.
    const std::vector<std::uint8_t> data{bytes.begin(), bytes.end()};
    LLVMFuzzerTestOneInput(data.data(), data.size());
    return true;
}

int replay_folder(const fs::path& folder) {
    const auto files = files_of(folder);
    if (files.empty()) {
        std::fprintf(stderr, "%s: no files\n", folder.c_str());
        return 1;
    }
    int result = 0;
    for (const auto& file : files) {
        if (replay(file)) continue;
        std::fprintf(stderr, "%s: cannot be read\n", file.c_str());
        result = 1;
    }
    return result;
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s FOLDER...\n", argv[0]);
        return 2;
    }
    int result = 0;
    try {
        for (int i = 1; i < argc; ++i) result |= replay_folder(argv[i]);
    } catch (const fs::filesystem_error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        result = 1;
    }
    return result;
}
