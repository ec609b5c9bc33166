# SPDX-License-Identifier: MIT
"""What the comparisons of tests/bench/run are made of: workloads that stand for a while, programs
that run once, and bounds."""

import contextlib
import dataclasses
import glob
import json
import os
import select
import subprocess
import tempfile
import time

READY_TIMEOUT_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Bound:
    """`limit` is the most that pagesift/peer may be, or, for a throughput, the least."""
    peer: str
    limit: float
    throughput: bool = False

    def judge(self, what, value):
        met = value >= self.limit if self.throughput else value <= self.limit
        return {"what": what, "value": value, "relation": ">=" if self.throughput else "<=",
                "limit": self.limit, "met": met}


@dataclasses.dataclass
class Sample:
    wall: float
    user: float
    system: float
    peak_mib: float
    output: str

    @property
    def loop_seconds(self):
        """What readv_loop says of itself: finding the present pages is not in it."""
        return json.loads(self.output)["loop_seconds"]


class Failed(Exception):
    pass


class Facts(dict):
    """What a workload says of itself, and the way to tell it something."""

    def __init__(self, said, process):
        super().__init__(said)
        self.process = process

    def touch(self):
        """Returns when the workload has written to each of its pages again."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], READY_TIMEOUT_SECONDS)
        if not ready or self.process.stdout.readline() != "touched\n":
            raise Failed(f"{self['name']}: the workload did not touch its pages")


def run_once(command, accepted=(0,)):
    """One run, from before the process exists until it is reaped."""
    with tempfile.TemporaryFile() as out, open(os.devnull, "rb") as nothing:
        actions = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                   (os.POSIX_SPAWN_DUP2, out.fileno(), 1)]
        began = time.perf_counter()
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - began
        out.seek(0)
        text = out.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    if code not in accepted:
        raise Failed(f"{' '.join(command)}: exit status {code}")
    return Sample(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024, text)


def remove_leftovers(pid, scratch):
    """What a workload that was killed outright could not take away itself."""
    swap = os.path.join(scratch, f"pagesift-bench-{pid}.swap")
    if os.path.exists(swap):
        subprocess.run(["swapoff", swap], check=False, stderr=subprocess.DEVNULL)
        os.unlink(swap)
    zram = os.path.join(scratch, f"pagesift-bench-{pid}.zram")
    if os.path.exists(zram):
        with open(zram, encoding="ascii") as file:
            remove_zram(file.read().strip())
        os.unlink(zram)
    for directory in glob.glob(f"/sys/fs/cgroup/**/pagesift-bench-{pid}", recursive=True):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def remove_zram(number):
    subprocess.run(["swapoff", f"/dev/zram{number}"], check=False, stderr=subprocess.DEVNULL)
    for path, text in ((f"/sys/block/zram{number}/reset", "1"),
                       ("/sys/class/zram-control/hot_remove", number)):
        with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
            file.write(text)


@contextlib.contextmanager
def built(program, name, scale, scratch):
    """The facts of a workload that stands for as long as the context does."""
    command = [program, name, "--scale", str(scale), "--scratch", scratch]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ready, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT_SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            raise Failed(f"{name}: the workload could not be built")
        yield Facts(json.loads(line), process)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        remove_leftovers(process.pid, scratch)


def in_child(function):
    """What `function` returns, a text or None, without this process growing. It must stay small:
    the kernel starts a program's peak memory at that of whoever started it."""
    with tempfile.TemporaryFile("w+") as answer:
        pid = os.fork()
        if pid == 0:
            try:
                json.dump(function(), answer)
            except Exception as error:  # pylint: disable=broad-exception-caught
                answer.seek(0)
                json.dump(f"{type(error).__name__}: {error}", answer)
            answer.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        answer.seek(0)
        return json.load(answer)
