# SPDX-License-Identifier: MIT
# The version is written once, in project(); this makes the header that the program reads it from.
configure_file(${CMAKE_CURRENT_LIST_DIR}/version.hpp.in
    ${PROJECT_BINARY_DIR}/generated/version.hpp @ONLY)
