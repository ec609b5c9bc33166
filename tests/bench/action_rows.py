# SPDX-License-Identifier: MIT
"""The comparisons of `pagesift advise` and `pagesift cold`: whole processes against the bare calls
that they cannot do without, or against a look alone."""

import json
import os
import statistics

from harness import Bound, Failed, in_child, run_once

PAGEOUT_LIMIT = 1.15
PLAN_LIMIT = 1.2
COLD_LIMIT = 2.0
COLD_WINDOW_SECONDS = 1
COLD_BYTES_PER_PAGE = 16  # what the manual says that it keeps
BASE_MEMORY_MIB = 32  # as for a look
TABLES_FREED_LEAST = 0.95
RECLAIM_LIMIT = 3.0
STOP_LIMIT_SECONDS = 0.010  # --max-stop, as it is when nothing is said
ZEROES_GIB_A_SECOND = 1.0
PAGED_OUT_LEAST = 0.99  # some pages may be on no LRU list yet, which the kernel skips


def cpu(sample):
    return sample.user + sample.system


def swap_used(path):
    """Bytes in use of one swap area."""
    with open("/proc/swaps", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if words[0] == path:
                return int(words[3]) * 1024
    raise Failed(f"{path} is no swap area any more")


def swap_of(pid, begin, end):
    """Pages of private memory in swap, as pagemap has them."""
    count = 0
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(begin // os.sysconf("SC_PAGE_SIZE") * 8)
        left = (end - begin) // os.sysconf("SC_PAGE_SIZE") * 8
        while left > 0:
            entries = file.read(min(left, 1 << 20))
            # Bit 62 of each little-endian entry is bit 6 of its last byte.
            count += sum(1 for byte in entries[7::8] if byte & 0x40)
            left -= len(entries)
    return count


class ActionRows:
    """One row for each method; they take a workload that stands and its facts."""

    def __init__(self, options, scratch):
        self.options = options
        self.scratch = scratch

    def program(self, name):
        return os.path.join(self.options.programs, name)

    def measure(self, action, workload, facts):
        return getattr(self, f"measure_{action}")(workload, facts)

    def turns(self, ours, peer, before, after):
        """Samples of both, in the order A B B A, so that what drifts meets both alike. `before` and
        `after` are not timed; `after` says what is wrong with what a run did, or None."""
        rounds = []
        for number in range(max(2, self.options.rounds // 2 + 1)):
            samples = {"ours": [], "peer": []}
            for who in ("ours", "peer", "peer", "ours"):
                before()
                samples[who].append(run_once(ours if who == "ours" else peer))
                wrong = after(who)
                if wrong:
                    return rounds, wrong
            if number > 0:  # the first one warms up
                rounds.append(samples)
        return rounds, None

    def judge(self, workload, facts, turns, names, figures):
        """`figures`: what is compared, as (name, two functions of a sample, Bound)."""
        rounds, wrong = turns
        result = {"workload": workload, "facts": dict(facts), "wrong": wrong, "bounds": [],
                  "median_seconds": {}, "median_cpu_seconds": {}, "samples": {}}
        if wrong:
            return result
        for who, name in zip(("ours", "peer"), names):
            samples = [sample for r in rounds for sample in r[who]]
            result["samples"][name] = [s.wall for s in samples]
            result["median_seconds"][name] = statistics.median(s.wall for s in samples)
            result["median_cpu_seconds"][name] = statistics.median(cpu(s) for s in samples)
        for figure, of_ours, of_peer, bound in figures:
            ratio = statistics.median(sum(map(of_ours, r["ours"])) / sum(map(of_peer, r["peer"]))
                                      for r in rounds)
            result["bounds"].append(bound.judge(f"{names[0]} / {names[1]}, {figure}", ratio))
        result["peak_mib"] = max(s.peak_mib for r in rounds for s in r["ours"])
        return result

    # --- advise pageout --apply ---

    def measure_pageout(self, workload, facts):
        begin, end = int(facts["start"], 16), int(facts["end"], 16)
        pid = str(facts["pid"])
        answer = os.path.join(self.scratch, "pageout.json")
        ours = [self.options.pagesift, "advise", "pageout", "--apply", "--quiet",
                "-a", f"{begin:#x}-{end:#x}", "--format", "json", "-o", answer, pid]
        peer = [self.program("bare_pageout"), pid, f"{begin:#x}", f"{end:#x}"]

        def after(who):
            return in_child(lambda: self.check_pageout(who, facts, answer))

        return self.judge(
            f"{workload.name}, pageout", facts, self.turns(ours, peer, facts.touch, after),
            ("pageout --apply", "bare_pageout"),
            (("elapsed", lambda s: s.wall, lambda s: s.wall, Bound("", PAGEOUT_LIMIT)),
             ("processor", cpu, cpu, Bound("", PAGEOUT_LIMIT))))

    @staticmethod
    def check_pageout(who, facts, answer):
        """None, or what is wrong: both must have moved the memory into the workload's own swap,
        and pagesift must have measured what it moved."""
        begin, end = int(facts["start"], 16), int(facts["end"], 16)
        pages = swap_of(facts["pid"], begin, end)
        least = PAGED_OUT_LEAST * facts["written_pages"]
        if pages < least:
            return f"{who}: {pages} pages of {facts['written_pages']} are in swap"
        used = swap_used(facts["swap_path"])
        if used < least * facts["page_size"]:
            return f"{who}: only {used} bytes of {facts['swap_path']} are used"
        if who == "ours":
            with open(answer, encoding="utf-8") as file:
                moved = moved_bytes(json.load(file)[0])
            # Something else on the machine may page in or out in between.
            if abs(moved - pages * facts["page_size"]) > 0.01 * facts["bytes"]:
                return f"{moved} bytes moved, pagemap says {pages * facts['page_size']}"
        return None

    # --- the plan ---

    def measure_plan(self, workload, facts):
        pid = str(facts["pid"])
        ours = [self.options.pagesift, "advise", "pageout", "--quiet", "--format", "json",
                "-o", "/dev/null", pid]
        # A plan needs no contents.
        peer = [self.options.pagesift, "inspect", "--ranges", "--zero", "off", "--format", "json",
                "-o", "/dev/null", pid]
        wrong = self.check_plan(facts)
        turns = self.turns(ours, peer, lambda: None, lambda _: None)
        if wrong:
            turns = ([], wrong)
        return self.judge(
            f"{workload.name}, plan", facts, turns,
            ("plan", "inspect --ranges"),
            (("elapsed", lambda s: s.wall, lambda s: s.wall, Bound("", PLAN_LIMIT)),
             ("processor", cpu, cpu, Bound("", PLAN_LIMIT))))

    def check_plan(self, facts):
        path = os.path.join(self.scratch, "plan.json")
        run_once([self.options.pagesift, "advise", "pageout", "--quiet", "--format", "json",
                  "-o", path, str(facts["pid"])])

        def check():
            with open(path, encoding="utf-8") as file:
                plan = json.load(file)[0]
            begin, end = int(facts["start"], 16), int(facts["end"], 16)
            inside = [r for r in plan["ranges"] + plan["skipped"]
                      if begin <= int(r["start"], 16) and int(r["end"], 16) <= end]
            said = sum(int(r["end"], 16) - int(r["start"], 16) for r in inside)
            present = present_bytes(facts["pid"], begin, end)
            if said < 0.99 * present:
                return f"{said} bytes are planned for or skipped, {present} are present"
            return None

        wrong = in_child(check)
        os.unlink(path)
        return wrong

    # --- empty page tables ---

    def measure_tables(self, workload, facts):
        """Only once: then they are gone."""
        answer = os.path.join(self.scratch, "tables.json")
        before = page_table_bytes(facts["pid"])
        sample = run_once([self.options.pagesift, "advise", "pt-reclaim", "--apply", "--quiet",
                           "--format", "json", "-o", answer, str(facts["pid"])])
        freed = before - page_table_bytes(facts["pid"])
        expected, stops = in_child(lambda: self.read_tables(answer))
        os.unlink(answer)
        result = {"workload": f"{workload.name}, pt-reclaim", "facts": dict(facts), "wrong": None,
                  "bounds": [], "median_seconds": {"pt-reclaim --apply": sample.wall},
                  "median_cpu_seconds": {"pt-reclaim --apply": cpu(sample)},
                  "samples": {"pt-reclaim --apply": [sample.wall]}, "stops": stops,
                  "peak_mib": sample.peak_mib}
        # Where pages have gone to swap, tables are left without entries.
        if expected < 0.1 * before:
            result["wrong"] = f"only {expected} bytes of {before} of page tables are to be freed"
            return result
        result["bounds"].append(Bound("", TABLES_FREED_LEAST, throughput=True).judge(
            "page tables freed, of those planned for", freed / expected))
        return result

    @staticmethod
    def read_tables(answer):
        with open(answer, encoding="utf-8") as file:
            plan = json.load(file)[0]
        return plan["totals"]["expected_freed_bytes"], plan["effect"]["stops"]

    # --- stops ---

    def apply_inside(self, action, facts):
        """One action from inside on the workload's memory: the run, and the answer's numbers."""
        answer = os.path.join(self.scratch, "inside.json")
        facts.touch()
        sample = run_once([self.options.pagesift, "advise", action, "--apply", "--quiet",
                           "-a", f"{facts['start']}-{facts['end']}", "--format", "json",
                           "-o", answer, str(facts["pid"])])

        def read():
            with open(answer, encoding="utf-8") as file:
                plan = json.load(file)[0]
            effect = plan["effect"]
            return {"planned": plan["totals"]["expected_freed_bytes"],
                    "freed": effect["freed_bytes"], "stops": effect["stops"]}

        said = in_child(read)
        os.unlink(answer)
        if not isinstance(said, dict):
            raise Failed(f"{action}: {said}")
        return sample, said

    def judge_stops(self, name, facts, runs, peers=()):
        """`runs`: of apply_inside. What is timed of ours is how long the process stood still."""
        stopped = [said["stops"]["total_seconds"] for _, said in runs]
        result = {"workload": name, "facts": dict(facts), "wrong": None, "bounds": [],
                  "median_seconds": {"stopped, in all": statistics.median(stopped),
                                     "whole process": statistics.median(s.wall for s, _ in runs)},
                  "median_cpu_seconds": {"whole process": statistics.median(
                      cpu(s) for s, _ in runs)},
                  "samples": {"stopped": stopped}, "stops": [said["stops"] for _, said in runs],
                  "peak_mib": max(s.peak_mib for s, _ in runs)}
        if peers:
            loops = [sample.loop_seconds for sample in peers]
            result["median_seconds"]["bare calls"] = statistics.median(loops)
            result["samples"]["bare calls"] = loops
        # Another program on the machine stretches single stops.
        longest = statistics.median(said["stops"]["longest_seconds"] for _, said in runs)
        result["bounds"].append(Bound("", STOP_LIMIT_SECONDS).judge(
            "longest stop of a run, median, seconds", longest))
        return result

    def measure_reclaim(self, workload, facts):
        bare = [self.program("bare_reclaim"), str(facts["tables"])]
        runs, peers, wrong = [], [], None
        for number in range(max(2, self.options.rounds // 2 + 1)):
            pair = []
            for who in ("ours", "peer", "peer", "ours"):
                if who == "peer":
                    pair.append(run_once(bare))
                    continue
                before = page_table_bytes(facts["pid"])
                sample, said = self.apply_inside("pt-reclaim", facts)
                freed = page_table_bytes(facts["pid"])
                pair.append((sample, said))
                expected = facts["tables"] * facts["page_size"]
                if said["planned"] != expected or said["freed"] != expected:
                    wrong = (f"{said['planned']} bytes planned for, {said['freed']} freed, "
                             f"{expected} were there")
                elif number > 0 and freed > before + expected // 100:
                    wrong = f"VmPTE is {freed} afterwards, and was {before}"
            if number > 0:  # the first one warms up
                runs += [pair[0], pair[3]]
                peers += [pair[1], pair[2]]
        result = self.judge_stops(f"{workload.name}, pt-reclaim", facts, runs, peers)
        result["wrong"] = wrong
        result["bounds"].append(Bound("", RECLAIM_LIMIT).judge(
            # Both take milliseconds, of which another load makes tens at times: no ratio of rounds.
            "stopped / bare calls", result["median_seconds"]["stopped, in all"] /
            result["median_seconds"]["bare calls"]))
        return result

    def measure_zeroes(self, workload, facts):
        runs, wrong = [], None
        begin, end = int(facts["start"], 16), int(facts["end"], 16)
        for number in range(max(2, self.options.rounds // 2 + 1)):
            run = self.apply_inside("zero-drop", facts)
            left = present_bytes(facts["pid"], begin, end)
            if number > 0:
                runs.append(run)
            said = run[1]
            if said["planned"] != facts["bytes"] or said["freed"] != said["planned"]:
                wrong = (f"{said['planned']} bytes planned for, {said['freed']} freed, "
                         f"{facts['bytes']} were there")
            elif left != 0:
                wrong = f"smaps has {left} bytes afterwards"
        result = self.judge_stops(f"{workload.name}, zero-drop", facts, runs)
        result["wrong"] = wrong
        speed = statistics.median(said["freed"] / said["stops"]["total_seconds"] / 2**30
                                  for _, said in runs)
        result["bounds"].append(Bound("", ZEROES_GIB_A_SECOND, throughput=True).judge(
            "GiB given back a second of stopped time", speed))
        return result

    # --- cold ---

    def measure_cold(self, workload, facts):
        pid = str(facts["pid"])
        answer = os.path.join(self.scratch, "cold.json")
        window = f"{COLD_WINDOW_SECONDS}s"
        ours = [self.options.pagesift, "cold", "--window", window, "--interval", window,
                "--source", "exact", "--quiet", "--format", "json", "-o", answer, pid]
        peer = [self.program("bare_cold"), pid]

        def after(who):
            return None if who == "peer" else in_child(lambda: self.check_cold(facts, answer))

        result = self.judge(
            f"{workload.name}, cold", facts, self.turns(ours, peer, facts.touch, after),
            ("cold", "bare_cold"),
            (("processor", cpu, cpu, Bound("", COLD_LIMIT)),
             ("elapsed less the window", lambda s: s.wall - COLD_WINDOW_SECONDS,
              lambda s: s.wall, Bound("", COLD_LIMIT))))
        if not result["wrong"]:
            limit = BASE_MEMORY_MIB + COLD_BYTES_PER_PAGE * facts["written_pages"] / 2**20
            result["bounds"].append(Bound("", limit).judge("peak memory of cold, MiB",
                                                           result["peak_mib"]))
        return result

    @staticmethod
    def check_cold(facts, answer):
        """None, or what is wrong: nothing of it was touched, so nearly all must be called idle."""
        with open(answer, encoding="utf-8") as file:
            said = json.load(file)[0]
        if said["rounds"] != 1:
            return f"{said['rounds']} rounds instead of one"
        begin, end = int(facts["start"], 16), int(facts["end"], 16)
        idle = sum(int(r["end"], 16) - int(r["start"], 16) for r in said["ranges"]
                   if begin <= int(r["start"], 16) and int(r["end"], 16) <= end
                   and (r["idle_seconds"] or 0) >= 0.9 * COLD_WINDOW_SECONDS)
        # Whoever ages this machine's memory may have taken some of it.
        if idle < 0.9 * facts["bytes"]:
            return f"{idle} bytes of {facts['bytes']} are called idle"
        return None


def page_table_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
        for line in status:
            if line.startswith("VmPTE:"):
                return int(line.split()[1]) * 1024
    raise Failed(f"no VmPTE of {pid}")


def moved_bytes(plan):
    return plan["effect"]["moved_bytes"]


def present_bytes(pid, begin, end):
    total, inside = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            words = line.split()
            if not words[0].endswith(":"):
                first, last = (int(word, 16) for word in words[0].split("-"))
                inside = first >= begin and last <= end
            elif inside and words[0] == "Rss:":
                total += int(words[1]) * 1024
    return total
