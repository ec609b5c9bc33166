# SPDX-License-Identifier: MIT
# `cpack` in a build folder makes a .deb; its library dependencies are found by dpkg-shlibdeps.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME pagesift)
set(CPACK_PACKAGE_CONTACT "the pagesift authors <pagesift@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"pagesift names every page of a live process: present, swapped, swapped-out
shared memory, zero-filled, merged by KSM, part of a huge page, a marker, or
nothing at all, and finds the page tables that hold nothing, without disturbing
the process that it looks at.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR})
include(CPack)
