# SPDX-License-Identifier: MIT
"""Reads what guest/suite printed."""
import dataclasses
import re

SUMMARY = re.compile(r"^\[doctest\] test cases: +\d+ \| +(\d+) passed \| +(\d+) failed")
SKIPPED = re.compile(r"^\[live\]   (.*)$")
FAULT = re.compile(r"\b(?:FATAL )?ERROR: (.*)$")


@dataclasses.dataclass
class Program:
    """One run of one program."""
    name: str
    status: int = -1  # -1: it never ended
    seconds: float = 0.0
    attempts: int = 1
    output: str = ""
    passed: int = 0  # test cases
    failed: int = 0
    skips: list = dataclasses.field(default_factory=list)
    faults: dict = dataclasses.field(default_factory=dict)  # test case -> its first fault


@dataclasses.dataclass
class Results:
    release: str = ""
    machine: str = ""
    page_kib: int = 0
    boot_seconds: float = 0.0
    programs: dict = dataclasses.field(default_factory=dict)  # name -> its last run
    done: bool = False


def parse_results(text):
    results = Results()
    running = None
    for line in text.splitlines():
        words = line.split()
        if not line.startswith("@@ "):
            if running:
                running.output += line + "\n"
        elif words[1] == "kernel" and len(words) == 6:
            results.release, results.machine = words[2:4]
            results.page_kib, results.boot_seconds = int(words[4]), float(words[5])
        elif words[1] == "begin" and len(words) == 3:
            before = results.programs.get(words[2])
            running = Program(words[2], attempts=before.attempts + 1 if before else 1)
            results.programs[running.name] = running
        elif words[1] == "end" and len(words) == 6 and running:
            running.status = int(words[3])
            running.seconds = float(words[5]) - float(words[4])
            read_output(running)
            running = None
        elif words[1] == "done":
            results.done = True
    if running:
        read_output(running)
    return results


def read_output(program):
    """Fills in what doctest and the live tests say of themselves."""
    case = ""
    counted = False
    lines = iter(program.output.splitlines())
    for line in lines:
        if line.startswith("TEST CASE:  "):
            case = line.removeprefix("TEST CASE:  ")
        elif fault := FAULT.search(line):
            program.faults.setdefault(case, fault[1].strip() or next(lines, "").strip())
        elif skipped := SKIPPED.match(line):
            program.skips.append(skipped[1])
        elif summary := SUMMARY.match(line):
            program.passed, program.failed = int(summary[1]), int(summary[2])
            counted = True
    # A program that dies has no summary; one without test cases, such as doctor, is one case.
    if not counted:
        program.passed, program.failed = (1, 0) if program.status == 0 else (0, 1)


def how_it_ended(program):
    if program.status == -1:
        return "never ended"
    if program.status == 137:
        return f"was killed after {program.seconds:.0f} s"
    if program.status > 128:
        return f"died of signal {program.status - 128}"
    return f"exit status {program.status}"
