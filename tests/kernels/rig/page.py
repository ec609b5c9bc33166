# SPDX-License-Identifier: MIT
"""Writes docs/kernels.md from what is committed below expected/, so that the same files always give
the same page."""
import collections

from .expected import Folder
from .table import OWN

INTRODUCTION = """\
<!-- SPDX-License-Identifier: MIT -->
<!-- tests/kernels/run --page writes this file from tests/kernels/expected/; do not edit it. -->
# Feature by kernel

What `pagesift doctor` answers, as root, on the kernels that the live tests run on: Debian's,
freshly booted, and "own", which development runs on. Another kernel of the same version may be
configured otherwise; `pagesift doctor` has the last word.
"""
REASONS = """\
## What the tests skip, and why

Every page state that a kernel can make is made there and compared page by page. What a kernel
cannot make, or a guest does not have, is on this list; any other skip fails the tests.
"""


def cell(text):
    return str(text).replace("|", "\\|")


def markdown_table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(cell, line)) + " |\n" for line in lines)


def kernels_table(answers):
    rows = []
    for name, answer in answers.items():
        host = answer["host"]
        rows.append([name, host["release"], host["machine"], f"{host['page_size'] >> 10} KiB",
                     f"{host['slot_bytes'] >> 20} MiB"])
    return markdown_table(["kernel", "release", "machine", "page", "slot"], rows)


def features_table(answers):
    """One column a kernel. A feature that some program did not know of yet has an empty cell."""
    works = {name: {feature["name"]: feature["works"] for feature in answer["features"]}
             for name, answer in answers.items()}
    features = dict.fromkeys(feature for known in works.values() for feature in known)
    word = {True: "yes", False: "no", None: "?"}
    rows = [[f"`{feature}`", *(word[known[feature]] if feature in known else ""
                               for known in works.values())]
            for feature in features]
    return markdown_table(["", *works], rows)


def reasons_table(reasons):
    where = collections.defaultdict(list)
    for name, listed in reasons.items():
        for reason in listed:
            where[reason.text].append(name + (" (at times)" if reason.optional else ""))
    rows = [[text, "all" if len(names) == len(reasons) and "(" not in "".join(names)
             else ", ".join(names)]
            for text, names in sorted(where.items())]
    return markdown_table(["reason", "kernels"], rows)


def render(names, folder):
    expected = Folder(folder)
    answers = {name: answer for name in names if (answer := expected.doctor(name))}
    reasons = {name: expected.reasons(name) for name in answers if name != OWN}
    return "\n".join([INTRODUCTION, kernels_table(answers), features_table(answers), REASONS,
                      reasons_table(reasons)])


def main(rows, folder, path, check):
    text = render([row.name for row in rows], folder)
    if not check:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return 0
    if not path.exists() or path.read_text() != text:
        print(f"{path} is not what tests/kernels/run --page writes")
        return 1
    print(f"{path} agrees")
    return 0
