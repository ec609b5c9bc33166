#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the kernel's own page-types from Debian's linux-source package into OUTDIR/page-types.
# usage: [CC=COMPILER] [CFLAGS=FLAGS] build_page_types.sh OUTDIR
set -eu

die() { echo "build_page_types: $*" >&2; exit 1; }

[ $# -eq 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
if [ -x "$out/page-types" ]; then
    exit 0
fi

# Any linux-source-X.Y will do; 6.1 is the one this peer's figures are quoted for.
tarball=
for candidate in /usr/src/linux-source-6.1.tar.xz /usr/src/linux-source-*.tar.xz; do
    [ -f "$candidate" ] && { tarball=$candidate; break; }
done
[ -n "$tarball" ] || die "no linux-source tarball; apt-get install linux-source-6.1 xz-utils"

work=$(mktemp -d "$out/page-types-source.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# tools/vm was renamed to tools/mm in 6.3; both include paths are relative to that folder.
tar -xJf "$tarball" -C "$work" --strip-components=1 --wildcards \
    '*/tools/[vm]m/page-types.c' '*/tools/lib/api' '*/tools/lib/str_error_r.c' \
    '*/tools/include' '*/include/uapi/linux'
source=$(find "$work/tools" -name page-types.c | head -n 1)
[ -n "$source" ] || die "$tarball holds no page-types.c"

# The kernel's Makefile gives no -O: the peer gets the optimisation pagesift gets.
# shellcheck disable=SC2086 # flags are meant to be split
${CC:-cc} -O2 ${CFLAGS:-} -w -D_GNU_SOURCE \
    -I"$work/tools/lib" -I"$work/tools/lib/api" -I"$work/tools/include" \
    -o "$out/page-types.new" "$source" \
    "$work/tools/lib/api/fs/fs.c" "$work/tools/lib/api/debug.c" "$work/tools/lib/str_error_r.c" ||
    die "compiling page-types failed"
mv "$out/page-types.new" "$out/page-types"
