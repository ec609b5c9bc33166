# SPDX-License-Identifier: MIT
"""The table of kernels, kernels.conf, as rows."""
import dataclasses
import re

OWN = "own"


class Unavailable(Exception):
    """Why a row cannot run on this machine: it becomes a SKIP line."""


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    set: str
    arch: str
    suite: str = ""
    cpu: str = ""
    package: str = ""

    @property
    def daily(self):
        return self.set == "daily"


def parse_table(text):
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 6 or fields[1] not in ("daily", "all"):
            raise ValueError(f"kernels.conf:{number}: needs name, daily or all, arch, suite, cpu "
                             "and package")
        row = Row(*fields)
        re.compile(row.package)
        if row.name in [OWN, *(other.name for other in rows)]:
            raise ValueError(f"kernels.conf:{number}: a second row is called {row.name}")
        rows.append(row)
    return rows


def select(rows, everything, pattern):
    """The rows of a run. A pattern chooses among all of them, and must match a whole name."""
    if pattern:
        return [row for row in rows if re.fullmatch(pattern, row.name)]
    return [row for row in rows if everything or row.daily]
