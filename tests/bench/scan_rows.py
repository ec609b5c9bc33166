# SPDX-License-Identifier: MIT
"""The comparisons of `pagesift scan`: many processes, held against programs that look at all of
them too, and against its own promises of memory and processor time."""

import dataclasses
import json
import os
import shutil
import statistics

from harness import Bound, Failed, built, in_child, run_once

MEMORY_LIMIT_MIB = 48
MEMORY_GROWTH_MIB = 2  # the list of processes, and the caches of SQLite, which are bounded
FEW = 0.1  # of the processes: what a scan of all of them may hardly exceed in memory
CPU_PERCENT = 10
CPU_LIMIT = 0.12
CPU_LEAST_SECONDS = 4.0  # a shorter run says little of a share
# Some process of the machine may be closed even to root, of which exit status 3 tells.
COMPLETE_OR_PART = (0, 3)


@dataclasses.dataclass
class Measured:
    """One run whose peak memory is its own: see measured.cpp."""
    wall: float
    cpu: float
    peak_mib: float
    own_peak_mib: float  # without pages of files


def measured(program, command):
    said = json.loads(run_once([program, *command], COMPLETE_OR_PART).output)
    if said["file_kib"] < 0:
        raise Failed(f"{command[0]}: its memory could not be seen")
    return Measured(said["wall_seconds"], said["cpu_seconds"], said["peak_kib"] / 1024,
                    (said["peak_kib"] - said["file_kib"]) / 1024)


def cpu(sample):
    return sample.user + sample.system


def rollup_kib(pid, field):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise Failed(f"pid {pid}: smaps_rollup has no {field}")


def check_records(path, facts, depth):
    """None, or what is wrong with the records of the workload's processes, which stand still."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    records = {line["pid"]: line for line in lines if line.get("pid") is not None}
    missing = [pid for pid in facts["pids"] if pid not in records]
    if missing:
        return f"depth {depth}: {len(missing)} processes are missing, the first is {missing[0]}"
    for pid in facts["pids"]:
        record = records[pid]
        if record["depth"] != depth:
            return f"pid {pid}: depth {record['depth']} instead of {depth}"
        rss = rollup_kib(pid, "Rss") * 1024
        if record["rss_bytes"] != rss or rss < facts["bytes_each"]:
            return f"pid {pid}, depth {depth}: {record['rss_bytes']} bytes, smaps_rollup says {rss}"
        if depth == "pages" and record["anon_bytes"] < facts["bytes_each"]:
            return f"pid {pid}: {record['anon_bytes']} bytes of plain anonymous pages"
    return None


class ScanRows:
    """All rows of one workload of processes."""

    def __init__(self, options, scratch):
        self.options = options
        self.scratch = scratch

    def program(self, name):
        return os.path.join(self.options.programs, name)

    def scan(self, *arguments):
        return [self.options.pagesift, "scan", "--quiet", *arguments]

    def compare(self, workload):
        """What was measured, one after the other; a Failed ends it."""
        few = None
        if self.options.pagesift:
            with built(self.program("bench_workload"), workload.name, FEW * self.options.scale,
                       self.scratch) as facts:
                few = (facts["processes"], self.peaks())
        with built(self.program("bench_workload"), workload.name, self.options.scale,
                   self.scratch) as facts:
            yield self.compare_times(workload, facts)
            if self.options.pagesift:
                yield self.judge_memory(workload, facts, few)
                yield self.judge_cpu(workload, facts)

    # --- Time ---

    def commands(self, facts):
        smem = shutil.which("smem")
        if not smem:
            raise Failed("smem is not installed")
        pids = os.path.join(self.scratch, "pids")
        with open(pids, "w", encoding="ascii") as file:
            file.writelines(f"{pid}\n" for pid in facts["pids"])
        commands = {}
        if self.options.pagesift:
            out = ("--format", "ndjson", "-o", "/dev/null")
            commands["scan, totals"] = self.scan("--depth", "totals", *out)
            commands["scan, pages"] = self.scan("--depth", "pages", *out)
            commands["scan, pages, the workload"] = self.scan(
                "--depth", "pages", "--children-of", str(facts["pid"]), *out)
        commands["read_rollups"] = [self.program("read_rollups")]
        commands["smem"] = [smem, "-H", "-t"]
        commands["page-types, each"] = [shutil.which("xargs") or "xargs", "-a", pids, "-n", "1",
                                        self.program("page-types"), "-p"]
        return commands

    def compare_times(self, workload, facts):
        commands = self.commands(facts)
        rounds, wrong = [], None
        for number in range(self.options.rounds + 1):
            samples = {name: run_once(command, COMPLETE_OR_PART)
                       for name, command in commands.items()}
            if number > 0:  # the first one warms up
                rounds.append(samples)
            elif self.options.pagesift:
                wrong = self.first_answers(facts)
        result = self.new_result(workload.name, facts, wrong)
        for name in commands:
            samples = [r[name] for r in rounds]
            result["samples"][name] = [s.wall for s in samples]
            result["median_seconds"][name] = statistics.median(s.wall for s in samples)
            result["median_cpu_seconds"][name] = statistics.median(cpu(s) for s in samples)
        result["wall_ratios"] = {}
        if not self.options.pagesift:
            return result
        for what, peer, limit in (("scan, totals", "read_rollups", 1.5),
                                  ("scan, pages", "smem", 1.0),
                                  ("scan, pages, the workload", "page-types, each", 0.5)):
            # All of them do one thing after the other, so on a quiet machine both ratios are the
            # same; another load moves that of processor time less.
            ratio = statistics.median(cpu(r[what]) / cpu(r[peer]) for r in rounds)
            result["bounds"].append(Bound(peer, limit).judge(f"{what} / {peer}", ratio))
            result["wall_ratios"][f"{what} / {peer}"] = statistics.median(
                r[what].wall / r[peer].wall for r in rounds)
        return result

    def first_answers(self, facts):
        for depth in ("totals", "pages"):
            path = os.path.join(self.scratch, f"{depth}.ndjson")
            run_once(self.scan("--depth", depth, "--format", "ndjson", "-o", path),
                     COMPLETE_OR_PART)
            wrong = in_child(lambda path=path, depth=depth: check_records(path, facts, depth))
            os.unlink(path)
            if wrong:
                return wrong
        return None

    # --- Memory ---

    def peaks(self):
        """The highest of a few runs, in MiB, by format: the whole, and without pages of files."""
        history = os.path.join(self.scratch, "history.db")
        formats = {"ndjson": ("--format", "ndjson", "-o", "/dev/null"),
                   "table": ("--format", "table", "-o", "/dev/null"),
                   "sqlite": ("--format", "sqlite", "-o", history)}
        peaks = {}
        for name, arguments in formats.items():
            runs = []
            for _ in range(3):
                runs.append(measured(self.program("bench_measured"), self.scan(*arguments)))
                for end in ("", "-wal", "-shm"):
                    if os.path.exists(history + end):
                        os.unlink(history + end)
            peaks[name] = (max(run.peak_mib for run in runs),
                           max(run.own_peak_mib for run in runs))
        return peaks

    def judge_memory(self, workload, facts, few):
        count, before = few
        result = self.new_result(f"{workload.name}, memory", facts)
        for name, (peak, own) in self.peaks().items():
            result["bounds"].append(Bound("", MEMORY_LIMIT_MIB).judge(
                f"{name}: peak memory, MiB", peak))
            result["bounds"].append(Bound("", MEMORY_GROWTH_MIB).judge(
                f"{name}: more than with {count}, MiB", own - before[name][1]))
        return result

    # --- Processor time ---

    def judge_cpu(self, workload, facts):
        command = self.scan("--depth", "pages", "--cpu", str(CPU_PERCENT), "--format", "ndjson",
                            "-o", "/dev/null")
        run = measured(self.program("bench_measured"), command)
        wrong = None
        # A workload that was scaled down is gone through sooner.
        if run.wall < CPU_LEAST_SECONDS * self.options.scale:
            wrong = f"took {run.wall:.1f} s, which is too short to tell a share"
        name = f"scan --cpu {CPU_PERCENT}"
        result = self.new_result(f"{workload.name}, --cpu", facts, wrong)
        result["samples"][name] = [run.wall]
        result["median_seconds"][name] = run.wall
        result["median_cpu_seconds"][name] = run.cpu
        result["bounds"].append(Bound("", CPU_LIMIT).judge(
            "processor time / elapsed", run.cpu / run.wall))
        return result

    @staticmethod
    def new_result(name, facts, wrong=None):
        kept = {key: value for key, value in facts.items() if key != "pids"}
        return {"workload": name, "facts": kept, "wrong": wrong, "bounds": [],
                "median_seconds": {}, "median_cpu_seconds": {}, "samples": {}}
