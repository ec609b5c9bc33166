# SPDX-License-Identifier: MIT
"""What a row must say: the skips that it may have, each a written reason, and what doctor answers
there. Both are committed, and --bless writes them."""
import dataclasses
import difflib
import json
import re

from .table import OWN

# Features of doctor that say how the machine is set up, not what its kernel can do.
SETTINGS = ["ksm-running", "swap", "thp"]
HEADER = """\
# Why tests are skipped on this kernel, as the tests say it. "*" stands for any text; a line that
# begins with "?" need not occur. Every other difference fails the row.
"""


@dataclasses.dataclass(frozen=True)
class Reason:
    text: str  # with "*"
    optional: bool

    def covers(self, skip):
        pattern = ".*".join(re.escape(part) for part in self.text.split("*"))
        return re.fullmatch(pattern, skip) is not None


def parse_reasons(text):
    lines = [line.strip() for line in text.splitlines()]
    return [Reason(line.lstrip("?").strip(), line.startswith("?"))
            for line in lines if line and not line.startswith("#")]


def compare_skips(reasons, skips):
    """Faults, in words: skips without a reason, and reasons without a skip."""
    faults = [f"unexpected skip: {skip}" for skip in dict.fromkeys(skips)
              if not any(reason.covers(skip) for reason in reasons)]
    return faults + [f"no longer skipped: {reason.text}" for reason in reasons
                     if not reason.optional and not any(map(reason.covers, skips))]


def bless_skips(text, skips):
    """The list as it would have to be: lines and comments that still hold stay as they are."""
    kept = []
    for line in (text or HEADER).splitlines():
        reasons = parse_reasons(line)
        if not reasons or reasons[0].optional or any(map(reasons[0].covers, skips)):
            kept.append(line)
    reasons = parse_reasons("\n".join(kept))
    fresh = [skip for skip in dict.fromkeys(skips)
             if not any(reason.covers(skip) for reason in reasons)]
    return "\n".join(kept + sorted(fresh)) + "\n"


def normalise_doctor(answer, row):
    """Without what differs from boot to boot, and on the machine's own kernel without what others
    may have set. The release stays: the page names it."""
    volatile = ["host_name"] + (["settings", "swaps"] if row == OWN else [])
    host = {name: value for name, value in answer["host"].items() if name not in volatile}
    features = [feature for feature in answer["features"]
                if row != OWN or feature["name"] not in SETTINGS]
    normal = {**answer, "host": host, "features": features}
    if "self_checks" in answer:  # their details are numbers of this boot and this process
        normal["self_checks"] = [{"name": check["name"], "passed": check["passed"]}
                                 for check in answer["self_checks"]]
    return normal


def compare_doctor(expected, answer, row):
    """A diff, or nothing. Another release with the same answers is no difference."""
    lines = []
    for one in (normalise_doctor(expected, row), normalise_doctor(answer, row)):
        one["host"].pop("release", None)
        lines.append(json.dumps(one, indent=1).splitlines())
    return "\n".join(difflib.unified_diff(*lines, "expected", "seen", lineterm="", n=1))


class Folder:
    """tests/kernels/expected."""

    def __init__(self, path):
        self.path = path

    def reasons(self, row):
        return parse_reasons(self._read(row, "skips") or "")

    def doctor(self, row):
        text = self._read(row, "doctor.json")
        return json.loads(text) if text else None

    def bless(self, row, skips, answer):
        if skips is not None:
            text = bless_skips(self._read(row, "skips"), skips)
            (self.path / f"{row}.skips").write_text(text)
        if answer is not None:
            text = json.dumps(normalise_doctor(answer, row), indent=1) + "\n"
            (self.path / f"{row}.doctor.json").write_text(text)

    def _read(self, row, extension):
        try:
            return (self.path / f"{row}.{extension}").read_text()
        except FileNotFoundError:
            return None
