# SPDX-License-Identifier: MIT
"""Tables of text: what a run says at its end."""

COLUMNS = ["kernel", "", "release", "machine", "pages", "passed", "failed", "skipped", "seconds"]
LEFT_ALIGNED = 4


def progress(verdict):
    if verdict.skip:
        return f"SKIP {verdict.row}: {verdict.skip}"
    return (f"{verdict.word} {verdict.row}: {verdict.passed} tests passed, "
            f"{verdict.failed} failed, {len(verdict.skips)} skipped, {verdict.seconds:.0f} s")


def table(verdicts):
    lines = [COLUMNS]
    for v in verdicts:
        if v.skip:
            lines.append([v.row, v.word, *["-"] * 7])
        else:
            pages = f"{v.page_kib} KiB" if v.page_kib else "-"
            lines.append([v.row, v.word, v.release or "-", v.machine or "-", pages, str(v.passed),
                          str(v.failed), str(len(v.skips)), f"{v.seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [" ".join(cell.ljust(width) if at < LEFT_ALIGNED else cell.rjust(width)
                     for at, (cell, width) in enumerate(zip(line, widths))).rstrip()
            for line in lines]


def summary(verdicts, out):
    text = ["", *table(verdicts), ""]
    for v in verdicts:
        text += [f"FAIL {v.row}: {fault}" for fault in v.faults]
        if v.faults:
            text.append(f"     {v.row}: logs in {out / v.row}")
    for v in verdicts:
        text += [note if note.startswith("SKIP") else f"note {v.row}: {note}" for note in v.notes]
        if v.skip:
            text.append(f"SKIP {v.row}: {v.skip}")
    count = [v.word for v in verdicts].count
    text.append(f"kernels: {count('pass')} passed, {count('FAIL')} failed, {count('SKIP')} skipped")
    return "\n".join(text)


def exit_status(verdicts):
    words = [v.word for v in verdicts]
    return 0 if "pass" in words and "FAIL" not in words else 1
