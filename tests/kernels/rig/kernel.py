# SPDX-License-Identifier: MIT
"""Kernels in the cache: a folder for each package, with vmlinuz and the modules that a guest needs,
in the order in which they load."""
import dataclasses
import json
import lzma
import pathlib
import re
import shutil
import tempfile

from .apt import execute, last_line, newest_first
from .table import Unavailable

# What the guest needs beside what is built in. A kernel may have any of these built in.
NEEDED = ["virtio_pci", "virtio_blk", "virtio_console", "ext4", "zram"]
# ext4 asks for crc32c, and zram for its compressor, by an alias that only modprobe resolves. Not
# every kernel has each of these.
WANTED = ["crc32c_generic", "lzo_rle", "hwpoison_inject"]
ASKED = [*NEEDED, *WANTED]


@dataclasses.dataclass(frozen=True)
class Kernel:
    package: str
    image: pathlib.Path
    modules: list  # files, each after those that it needs


def module_name(path):
    return pathlib.Path(path).name.split(".ko")[0].replace("-", "_")


def load_order(modules, built_in, needed, wanted):
    """Names of modules, each after what it depends on.
    modules: name -> names it depends on; built_in: names that need no loading."""
    order = []

    def add(name, asked_by):
        if name in order or name in built_in:
            return
        if name not in modules:
            raise Unavailable(f"the package lacks the module {name}, needed by {asked_by}")
        for other in modules[name]:
            add(other, name)
        order.append(name)

    for name in [*(w for w in wanted if w in modules), *needed]:
        add(name, "the guest")
    return order


def depends_of(content):
    """Reads depends= from the .modinfo section's strings, which stand between zero bytes."""
    found = re.search(rb"\0depends=([^\0]*)\0", content)
    names = found[1].decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]


def read_module(path):
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


class LazyDependencies(dict):
    """Looks into a module only when it is asked for: a kernel has thousands."""

    def __init__(self, files):
        super().__init__()
        self.files = files

    def __contains__(self, name):
        return name in self.files

    def __missing__(self, name):
        self[name] = depends_of(read_module(self.files[name]))
        return self[name]


def cached(cache, row):
    """The newest kernel that earlier runs left for a row, or None."""
    packages = [path.name for path in pathlib.Path(cache).iterdir()]
    for package in newest_first(packages, row.package):
        folder = pathlib.Path(cache) / package
        note = json.loads((folder / "kernel.json").read_text())
        if note["asked"] == ASKED:
            return Kernel(package, folder / "vmlinuz",
                          [folder / "modules" / name for name in note["modules"]])
    return None


def fetch(apt, cache, row, update=False):
    """The row's kernel, from the cache or the mirror. With update, the mirror's newest."""
    have = cached(cache, row)
    if have and not update:
        return have
    try:
        apt.update()
        candidates = apt.newest(row)
        if have and have.package == candidates[0]:
            return have
        trouble = []
        for package in candidates:
            try:
                return download(apt, cache, row, package)
            except Unavailable as reason:
                trouble.append(str(reason))
        raise Unavailable("; ".join(trouble))
    except Unavailable:
        if have:
            return have
        raise


def download(apt, cache, row, package):
    with tempfile.TemporaryDirectory(dir=cache, prefix="work.") as name:
        work = pathlib.Path(name)
        parts = [f"{part}:{row.arch}" for part in apt.parts(row, package)]
        unpack(apt.download(parts, work), work / "root")
        keep(work / "root", work / "kept")
        final = pathlib.Path(cache) / package
        shutil.rmtree(final, ignore_errors=True)
        (work / "kept").rename(final)
    return cached(cache, row)


def unpack(packages, root):
    for package in packages:
        result = execute(["dpkg-deb", "-x", str(package), str(root)])
        if result.returncode:
            raise Unavailable(f"dpkg-deb -x {package.name}: {last_line(result.stderr)}")


def keep(root, folder):
    """Takes from an unpacked package what the guest needs. Its layout differs between releases."""
    images = [path for path in root.rglob("vmlinuz*") if path.is_file()]
    if len(images) != 1:
        raise Unavailable(f"the package holds {len(images)} kernel images")
    files = {module_name(path): path
             for path in root.rglob("*") if re.search(r"\.ko(\.xz)?$", path.name)}
    built_in = {module_name(line) for listing in root.rglob("modules.builtin")
                for line in listing.read_text().split()}
    order = load_order(LazyDependencies(files), built_in, NEEDED, WANTED)
    (folder / "modules").mkdir(parents=True)
    shutil.move(images[0], folder / "vmlinuz")
    names = [f"{number:02}-{name}.ko" for number, name in enumerate(order)]
    for file_name, name in zip(names, order):
        (folder / "modules" / file_name).write_bytes(read_module(files[name]))
    (folder / "kernel.json").write_text(json.dumps(
        {"asked": ASKED, "modules": names}, indent=1) + "\n")


def fetch_busybox(apt, cache, arch):
    """A statically linked busybox: the guest's shell and tools."""
    path = pathlib.Path(cache) / f"busybox.{arch}"
    if path.exists():
        return path
    apt.update()
    with tempfile.TemporaryDirectory(dir=cache, prefix="busybox.") as name:
        work = pathlib.Path(name)
        unpack(apt.download([f"busybox-static:{arch}/{apt.own_release}"], work), work / "root")
        found = [file for file in work.glob("root/**/bin/busybox") if not file.is_symlink()]
        if len(found) != 1:
            raise Unavailable("busybox-static holds no bin/busybox")
        found[0].chmod(0o755)
        found[0].rename(path)
    return path
