# SPDX-License-Identifier: MIT
"""Packages from the mirror that this machine already uses, through a private state folder: the
machine's sources, lists, pins and dpkg database are neither read nor written, nothing is
installed, and no privilege is needed."""
import fcntl
import os
import pathlib
import re
import subprocess
import time

from .table import Unavailable

HELPER = "/usr/lib/apt/apt-helper"
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURES = "amd64 arm64"
LISTS_LAST_SECONDS = 24 * 3600
# An index can name packages that the mirror no longer has; so older ones are tried as well.
NEWEST_TRIED = 4
PART_OF_KERNEL = re.compile(r"linux-(base|binary|modules)-[0-9].*")


def version_key(name):
    """Orders names by the numbers in them: 6.12.9 before 6.12.117."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part)
            for part in re.split(r"(\d+)", name) if part]


def newest_first(names, pattern):
    matching = {name for name in names if re.fullmatch(pattern, name)}
    return sorted(matching, key=version_key, reverse=True)


def parse_index(text):
    """Reads a Packages file: name -> fields of its last paragraph."""
    index = {}
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.M))
        if "Package" in fields:
            index[fields["Package"]] = fields
    return index


def choose_sources(targets, suites):
    """The text of a private list of sources: suites at the addresses of the machine's own sources.
    targets: (address, release, component) of each source that the machine has."""
    ordinary = security = own_release = None
    for address, release, component in targets:
        if component != "main":
            continue
        if release.endswith("-security"):
            security = security or address
        elif re.fullmatch(r"[a-z]+", release):
            ordinary, own_release = ordinary or address, own_release or release
    if not ordinary:
        raise Unavailable("apt has no source for a release of Debian")
    signed = f"Signed-By: {KEYRING}\n" if KEYRING.exists() else ""
    text = ""
    for suite in sorted({*suites, own_release}):
        address = security if suite.endswith("-security") else ordinary
        if address:
            text += (f"Types: deb\nURIs: {address}\nSuites: {suite}\nComponents: main\n"
                     f"Architectures: {ARCHITECTURES}\n{signed}\n")
    return own_release, text


class Apt:
    """All methods raise Unavailable with the reason."""

    def __init__(self, cache, suites):
        self.folder = pathlib.Path(cache) / "apt"
        self.suites = suites
        self.own_release = None
        self.updated = False
        self.indexes = {}
        self.trouble = ""

    def update(self):
        """Fetches the indexes, at most once a day."""
        if self.updated:
            return
        listed = self._output("apt-get", "indextargets", "--format",
                              "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages")
        targets = [tuple(line.split("|")) for line in listed.splitlines() if line.count("|") == 2]
        self.own_release, sources = choose_sources(targets, self.suites)
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        stamp, source_file = self.folder / "updated", self.folder / "kernels.sources"
        fresh = (stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_LAST_SECONDS
                 and source_file.exists() and source_file.read_text() == sources)
        if not fresh:
            source_file.write_text(sources)
            result = self._run("apt-get", "update")
            if result.returncode == 0:
                stamp.touch()
            else:
                # Some suites may have come all the same; who finds no package says this.
                self.trouble = "; apt-get update: " + last_line(result.stderr)
        self.updated = True

    def index(self, suite, arch):
        """The packages of one suite: name -> fields."""
        if (suite, arch) not in self.indexes:
            listed = self._output("apt-get", *self._options(), "indextargets", "--format",
                                  "$(FILENAME)", "Created-By: Packages", f"Release: {suite}",
                                  f"Architecture: {arch}")
            text = "".join(self._output(HELPER, "cat-file", file) for file in listed.splitlines()
                           if pathlib.Path(file).exists())
            self.indexes[suite, arch] = parse_index(text)
        return self.indexes[suite, arch]

    def newest(self, row):
        """Names of packages that a row can use, the newest first."""
        found = newest_first(self.index(row.suite, row.arch), row.package)[:NEWEST_TRIED]
        if not found:
            raise Unavailable(f"{row.suite} has no package {row.package}{self.trouble}")
        return found

    def parts(self, row, package):
        """The packages that hold a kernel: since 7.0 the image package is an empty shell."""
        needed = re.split(r"[,|] *", self.index(row.suite, row.arch)[package].get("Depends", ""))
        names = [need.split(" ")[0] for need in needed]
        return [name for name in names if PART_OF_KERNEL.fullmatch(name)] or [package]

    def download(self, packages, folder):
        """Brings .deb files to a folder; they are not installed."""
        result = self._run("apt-get", "download", *packages, cwd=folder)
        if result.returncode:
            raise Unavailable(f"{packages[0]} cannot be had: {last_line(result.stderr)}")
        return sorted(pathlib.Path(folder).glob("*.deb"))

    def _options(self):
        settings = {
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::sourcelist": self.folder / "kernels.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architectures": ARCHITECTURES.replace(" ", ","),
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            # A suite whose support has ended is still what its users have.
            "Acquire::Check-Valid-Until": "false",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _run(self, tool, verb, *arguments, cwd=None):
        return execute([tool, "-qq", *self._options(), verb, *arguments], cwd)

    def _output(self, *command):
        result = execute(list(command))
        if result.returncode:
            raise Unavailable(f"{command[0]}: {last_line(result.stderr)}")
        return result.stdout


def execute(command, cwd=None):
    """Runs a tool of this machine and keeps what it prints."""
    try:
        return subprocess.run(command, cwd=cwd, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8"})
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no word of why"


class Lock:
    """Keeps two runs from filling one cache at the same time."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.file = open(self.path, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()
