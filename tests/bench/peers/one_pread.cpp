// SPDX-License-Identifier: MIT
//
// The plain reader: one pread of eight bytes of pagemap for each page of each mapping.
#include "peer.hpp"

using namespace pagesift::bench;

int main(int argc, char** argv) {
    return run_peer(argc, argv, "one_pread", [](const std::string& process) {
        const File pagemap(process + "/pagemap");
        std::uint64_t present = 0, swapped = 0, none = 0;
        for (const Mapping& mapping : read_mappings(process)) {
            for (std::uint64_t at = mapping.start; at < mapping.end; at += page_size()) {
                std::uint64_t entry = 0;
                const auto offset = static_cast<off_t>(at / page_size() * sizeof entry);
                if (::pread(pagemap.fd(), &entry, sizeof entry, offset) != sizeof entry) break;
                if ((entry & entry_present) != 0)
                    ++present;
                else if ((entry & entry_swap) != 0)
                    ++swapped;
                else
                    ++none;
            }
        }
        std::printf("{\"present\":%ju,\"swapped\":%ju,\"none\":%ju}\n",
                    static_cast<std::uintmax_t>(present), static_cast<std::uintmax_t>(swapped),
                    static_cast<std::uintmax_t>(none));
    });
}
