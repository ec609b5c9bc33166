// SPDX-License-Identifier: MIT
#include "pagesift/cli.hpp"

int main(int argc, char** argv) {
    return pagesift::cli::run(argc, argv, pagesift::cli::real_environment());
}
