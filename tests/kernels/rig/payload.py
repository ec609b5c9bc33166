# SPDX-License-Identifier: MIT
"""What runs in a guest: the test programs of a build, the data that they read, and a small system
around them, as an image of an ext4 file system. So programs and swap files are on a disk there, as
they are on a real machine."""
import pathlib
import platform
import re
import shutil
import struct
import subprocess
import tempfile

from .apt import last_line
from .table import Unavailable

MACHINES = {62: "amd64", 183: "arm64"}  # EM_X86_64, EM_AARCH64
PT_INTERP = 3
# Sparse: a guest writes a swap file of 64 MiB and a few small ones.
DISK_BYTES = 1 << 30
# What unit tests read. The path of the source folder is compiled into them; a link leads from it.
DATA = ["schema", "man", "tests/fixtures"]


def own_arch():
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class BadBuild(Exception):
    """A build that was named and cannot be used: no reason to skip, but a mistake."""


def inspect_elf(path):
    """Debian's word for the architecture, and whether the program needs a loader."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            raise BadBuild(f"{path} is no 64-bit little-endian program")
        machine, = struct.unpack_from("<H", header, 18)
        offset, = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        kinds = [struct.unpack("<I", file.read(size)[:4])[0] for _ in range(count)]
    return MACHINES.get(machine, str(machine)), PT_INTERP in kinds


def programs_of(build, arch):
    """The test programs of a build, all of them fit for a guest of this architecture."""
    build = pathlib.Path(build)
    live = build / "tests/live"
    names = ("zoo", "worker", "live_tests", "exact_tests", "remote_tests")
    programs = [build / "pagesift"] + [live / name for name in names]
    unit_tests = [path for path in sorted((build / "tests/unit").glob("unit_*")) if path.is_file()]
    if not unit_tests:
        raise BadBuild(f"{build}/tests/unit holds no test")
    for path in programs + unit_tests:
        if not path.exists():
            raise BadBuild(f"{path} was not built")
        found, needs_loader = inspect_elf(path)
        if found != arch:
            raise BadBuild(f"{path} is for {found}, not for {arch}")
        if needs_loader:
            raise BadBuild(f"{path} is not linked statically")
    return programs + unit_tests


def peers_of(build):
    """Programs of others that tests compare pagesift with, where they were built."""
    page_types = pathlib.Path(build) / "tests/live/page-types/page-types"
    return [page_types] if page_types.exists() and not inspect_elf(page_types)[1] else []


def source_of(build):
    """The source folder that a build was configured from."""
    try:
        cache = (pathlib.Path(build) / "CMakeCache.txt").read_text()
    except OSError:
        raise BadBuild(f"{build} is no build folder of CMake") from None
    return pathlib.Path(re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", cache, re.M)[1])


def stage_programs(build, arch, folder):
    """Copies the programs to a folder, without their debug information."""
    folder.mkdir(parents=True)
    for program in programs_of(build, arch) + peers_of(build):
        strip(program, folder / program.name, arch)


def strip(program, copy, arch):
    prefix = {"amd64": "x86_64", "arm64": "aarch64"}[arch]
    for tool in ("strip" if arch == own_arch() else f"{prefix}-linux-gnu-strip", "llvm-strip"):
        if shutil.which(tool):
            done = subprocess.run([tool, "-o", copy, program], capture_output=True)
            if done.returncode == 0:
                return
    shutil.copy(program, copy)  # bigger, and as good


def make_disk(build, arch, busybox, guest_folder, disk):
    """Builds the guests' disk."""
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        fill(pathlib.Path(name), build, arch, busybox, guest_folder)
        make_image(name, disk, DISK_BYTES)


def make_image(folder, disk, size):
    """An ext4 file system of so many bytes that holds what is in the folder; sparse."""
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not mkfs:
        raise Unavailable("mkfs.ext4 is not installed (e2fsprogs)")
    with open(disk, "wb") as file:
        file.truncate(size)
    made = subprocess.run([mkfs, "-q", "-F", "-E", "root_owner=0:0", "-d", folder, disk],
                          capture_output=True, text=True)
    if made.returncode:
        disk.unlink()
        raise Unavailable(f"mkfs.ext4: {last_line(made.stderr)}")


def fill(root, build, arch, busybox, guest_folder):
    """Puts together what is on the disk."""
    root.chmod(0o755)  # a test runs as nobody
    for path in ("bin", "dev", "etc", "proc", "rig", "root", "run", "sys", "tmp", "var/tmp"):
        (root / path).mkdir(parents=True)
    stage_programs(build, arch, root / "pagesift")
    shutil.copy(busybox, root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    for name in ("machine", "suite"):
        shutil.copy(guest_folder / name, root / "rig" / name)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n"
                                     "nobody:x:65534:65534::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    source = source_of(build)
    for data in DATA:
        shutil.copytree(source / data, root / "rig/source" / data)
    (root / "rig/path_of_source").write_text(f"{source}\n")
