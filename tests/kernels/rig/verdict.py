# SPDX-License-Identifier: MIT
"""From what a row's suite printed to passed, failed or skipped, with the reasons."""
import dataclasses
import json
import re

from .expected import compare_doctor, compare_skips
from .results import how_it_ended
from .table import OWN

KERNEL_TROUBLE = re.compile(r"(?:BUG:|Oops|WARNING: |Kernel panic|init: |machine: ).*")
TAIL_LINES = 15


@dataclasses.dataclass
class Verdict:
    row: str
    skip: str = ""  # why the whole row did not run
    release: str = ""
    machine: str = ""
    page_kib: int = 0
    passed: int = 0
    failed: int = 0
    skips: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    program_seconds: dict = dataclasses.field(default_factory=dict)
    faults: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    @property
    def word(self):
        return "SKIP" if self.skip else "FAIL" if self.faults else "pass"


def doctor_answer(results):
    program = results.programs.get("doctor.json")
    try:
        return json.loads(program.output)
    except (AttributeError, ValueError):
        return None


def judge(row, results, run, expected, console="", console_path=""):
    """row: its name. run: how the guest ended, a guest.Run. expected: an expected.Folder."""
    verdict = Verdict(row, release=results.release, machine=results.machine,
                      page_kib=results.page_kib, seconds=run.seconds)
    for program in results.programs.values():
        judge_program(program, verdict)
    if not results.done:
        judge_death(run, console, console_path, verdict)
    else:
        if not any(name.startswith("live.") for name in results.programs):
            verdict.faults.append("no live test ran")
        judge_expectations(row, results, expected, verdict)
    trouble = dict.fromkeys(match[0] for match in map(KERNEL_TROUBLE.search, console.splitlines())
                            if match)
    verdict.notes += [f"the kernel said: {line}" for line in trouble]
    return verdict


def judge_program(program, verdict):
    verdict.passed += program.passed
    verdict.failed += program.failed
    verdict.skips += program.skips
    verdict.program_seconds[program.name] = round(program.seconds, 2)
    if program.status == 0:
        if program.attempts > 1:
            verdict.notes.append(f"{program.name} passed at attempt {program.attempts}")
        return
    faults = [f"{case}: {fault}" if case else fault for case, fault in program.faults.items()]
    if program.status != 1 or not faults:
        faults.append(how_it_ended(program))
    verdict.faults += [f"{program.name}: {fault}" for fault in faults]


def judge_death(run, console, console_path, verdict):
    verdict.faults.append(f"the guest died: {run.end or 'it ended before its suite did'}; "
                          f"console: {console_path}")
    verdict.notes += [f"console: {line}" for line in console.splitlines()[-TAIL_LINES:]]


def series(release):
    """7.3 of 7.3.4+deb13-cloud-amd64: what a kernel can do changes between series."""
    match = re.match(r"[0-9]+\.[0-9]+", release or "")
    return match[0] if match else ""


def judge_expectations(row, results, expected, verdict):
    answer = doctor_answer(results)
    golden = expected.doctor(row)
    seen, known = results.release, (golden or {}).get("host", {}).get("release")
    differences = []
    # On the machine's own kernel PAGESIFT_LIVE=require decides on skips.
    if row != OWN:
        differences += compare_skips(expected.reasons(row), verdict.skips)
    if answer is None:
        verdict.faults.append("doctor.json: no answer")
    elif row == OWN and known != seen:
        verdict.notes.append("SKIP own: doctor is not compared: there is no list for this release")
    elif golden is None:
        verdict.faults.append("doctor.json: nothing to compare with; see --bless")
    elif difference := compare_doctor(golden, answer, row):
        differences.append("doctor answers otherwise than expected:\n" + difference)
    if golden is None or series(known) == series(seen):
        verdict.faults += differences
    else:
        # Archives move on by themselves. Every test has to pass all the same.
        verdict.notes += [f"{seen} instead of {known}, see --bless: {line}" for line in differences]
