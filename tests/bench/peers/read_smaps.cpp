// SPDX-License-Identifier: MIT
//
// Reads smaps from end to end, once, and looks at none of it. The kernel hands out at most about
// 4 KiB a read, so a larger buffer would not help.
#include "peer.hpp"

using namespace pagesift::bench;

int main(int argc, char** argv) {
    return run_peer(argc, argv, "read_smaps", [](const std::string& process) {
        const File smaps(process + "/smaps");
        std::vector<char> buffer(64 * 1024);
        while (::read(smaps.fd(), buffer.data(), buffer.size()) > 0) {
        }
    });
}
