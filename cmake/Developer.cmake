# SPDX-License-Identifier: MIT
# Read before project() in every preset and in no other build: what helps whoever works on pagesift
# and must not get in a packager's way.
find_program(PAGESIFT_CCACHE ccache)
mark_as_advanced(PAGESIFT_CCACHE)
if(PAGESIFT_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${PAGESIFT_CCACHE})
endif()
