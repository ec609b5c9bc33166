# SPDX-License-Identifier: MIT
# Builds for aarch64 with Debian's cross compiler. Preset `aarch64` uses it, together with
# PAGESIFT_STATIC: what is built runs below any aarch64 kernel, and below qemu-user, as it is.
#
#     apt-get install g++-aarch64-linux-gnu qemu-user-static && tests/kernels/sysroot
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(PAGESIFT_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build/sysroot-aarch64
    CACHE PATH "Libraries for aarch64, as tests/kernels/sysroot unpacks them")
# This file is read once more by each trial build, which knows no cache.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PAGESIFT_SYSROOT)
cmake_path(NORMAL_PATH PAGESIFT_SYSROOT)
if(NOT EXISTS ${PAGESIFT_SYSROOT}/usr/lib/aarch64-linux-gnu)
    message(FATAL_ERROR "${PAGESIFT_SYSROOT} holds no libraries. On Debian: tests/kernels/sysroot")
endif()

# Libraries are those of the sysroot alone. Programs are this machine's. Headers and CMake's
# descriptions come from the sysroot first, and from this machine for libraries of headers alone.
set(CMAKE_FIND_ROOT_PATH ${PAGESIFT_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
set(ENV{PKG_CONFIG_LIBDIR} ${PAGESIFT_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${PAGESIFT_SYSROOT})

# Tests run under qemu-user, where it is installed. It lends them this machine's kernel, and that not
# in full: /proc/PID/maps is made up, new system calls and ioctls answer ENOSYS, madvise(2) does
# nothing, and the page size is the host's. So the preset's tests are those that need no kernel, or
# ask little of it (unit.os); the live tests need a real one, see tests/kernels.
find_program(PAGESIFT_EMULATOR qemu-aarch64-static)
mark_as_advanced(PAGESIFT_EMULATOR)
if(PAGESIFT_EMULATOR)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${PAGESIFT_EMULATOR})
endif()
