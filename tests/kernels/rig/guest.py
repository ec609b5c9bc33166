# SPDX-License-Identifier: MIT
"""Boots a kernel in qemu and waits for its end. Everything is emulated (TCG): no /dev/kvm is
needed, and each kernel sees a processor that it knows."""
import dataclasses
import pathlib
import shutil
import subprocess
import time

from .archive import Archive
from .table import Unavailable

QEMU = {"amd64": ["qemu-system-x86_64"], "arm64": ["qemu-system-aarch64", "-M", "virt"]}
CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
MEMORY = "1G"
PROCESSORS = 2  # so that a target can really run while it is looked at
# A panic ends qemu (with -no-reboot), and a fault of the kernel is a panic. Page-table isolation
# makes system calls of an emulated arm64 seven times slower.
COMMAND_LINE = "console={} loglevel=5 panic=-1 oops=panic kpti=off mitigations=off {}"


@dataclasses.dataclass
class Run:
    seconds: float
    end: str  # why it ended, in words; empty if qemu ended by itself


def require_qemu(arch):
    if not shutil.which(QEMU[arch][0]):
        raise Unavailable(f"{QEMU[arch][0]} is not installed")


def write_initramfs(path, kernel, busybox, init):
    archive = Archive()
    for folder in ("bin", "dev", "disk", "modules", "proc", "sys"):
        archive.folder(folder)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", pathlib.Path(busybox).read_bytes(), 0o755)
    archive.file("init", pathlib.Path(init).read_bytes(), 0o755)
    for module in kernel.modules:
        archive.file(f"modules/{module.name}", module.read_bytes())
    archive.write(path)


def boot(row, kernel, initramfs, disk, folder, limits, running):
    """Runs a guest to its end. folder gets "results", what the suite printed, and "console".
    limits: limit and program_limit, in seconds. running: a set that holds the guest meanwhile, for
    who has to end it early."""
    # The kernel hands what it does not know to the first process, as its environment.
    environment = f"SUITE_LIMIT={limits.program_limit}"
    results, console = folder / "results", folder / "console"
    command = [
        *QEMU[row.arch], "-accel", "tcg", "-cpu", row.cpu, "-m", MEMORY, "-smp", PROCESSORS,
        "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{console}",
        "-device", "virtio-serial-pci", "-chardev", f"file,id=results,path={results}",
        "-device", "virtserialport,chardev=results",
        # What guests write goes to a temporary file: they share one disk.
        "-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on",
        "-device", "virtio-blk-pci,drive=disk",
        "-kernel", kernel.image, "-initrd", initramfs,
        "-append", COMMAND_LINE.format(CONSOLE[row.arch], environment)]
    results.write_text("")
    started = time.monotonic()
    qemu = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    running.add(qemu)
    end = ""
    try:
        _, trouble = qemu.communicate(timeout=limits.limit)
        if qemu.returncode:
            end = f"qemu ended with {qemu.returncode}: {trouble.decode(errors='replace').strip()}"
    except subprocess.TimeoutExpired:
        end = f"the guest was stopped after {limits.limit} s"
    finally:
        qemu.kill()
        qemu.wait()
        running.discard(qemu)
    return Run(time.monotonic() - started, end)
