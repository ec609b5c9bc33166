# SPDX-License-Identifier: MIT
# What makes a fault in the program harder to use. A compiler that lacks a flag goes without it;
# tests/check/hardening looks at what came of it. Nothing of this belongs into a sanitizer's build.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)

set(pagesift_hardening_compile "")
set(pagesift_hardening_link "")
string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type)
set(all_flags "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type}}")
if(PAGESIFT_HARDENING AND NOT all_flags MATCHES "-fsanitize")
    set(wanted -fstack-protector-strong -fstack-clash-protection)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        list(APPEND wanted -fcf-protection=full)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
        list(APPEND wanted -mbranch-protection=standard)
    endif()
    foreach(flag IN LISTS wanted)
        string(MAKE_C_IDENTIFIER "PAGESIFT_HAS${flag}" variable)
        check_cxx_compiler_flag(${flag} ${variable})
        if(${variable})
            list(APPEND pagesift_hardening_compile ${flag})
        endif()
    endforeach()

    # Needs an optimised build; a packager's own level stands.
    if(NOT all_flags MATCHES "_FORTIFY_SOURCE" AND all_flags MATCHES "-O[123s]")
        set(CMAKE_REQUIRED_FLAGS "-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
        check_cxx_source_compiles("#include <features.h>
            static_assert(__USE_FORTIFY_LEVEL == 3);
            int main() {}" PAGESIFT_HAS_FORTIFY_3)
        unset(CMAKE_REQUIRED_FLAGS)
        set(level $<IF:$<BOOL:${PAGESIFT_HAS_FORTIFY_3}>,3,2>)
        list(APPEND pagesift_hardening_compile -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=${level})
    endif()

    list(APPEND pagesift_hardening_link LINKER:-z,relro LINKER:-z,noexecstack)
    # Code for any place does well at a fixed one, and is compiled once for both.
    list(APPEND pagesift_hardening_compile -fPIE)
    if(NOT PAGESIFT_STATIC)
        list(APPEND pagesift_hardening_link -pie LINKER:-z,now)
    endif()
endif()

# Compiles a target with these flags; what links a program is for programs alone.
function(pagesift_harden target)
    target_compile_options(${target} PRIVATE ${pagesift_hardening_compile})
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "EXECUTABLE")
        target_link_options(${target} PRIVATE ${pagesift_hardening_link})
    endif()
endfunction()
