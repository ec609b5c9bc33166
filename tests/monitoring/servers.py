# SPDX-License-Identifier: MIT
"""Debian's prometheus and node_exporter on loopback, from a folder of their own."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

PROGRAMS = ("prometheus", "prometheus-node-exporter", "promtool")


def missing_programs():
    return [name for name in PROGRAMS if shutil.which(name) is None]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.2)
    raise SystemExit(f"{what}: not within {seconds} s")


class Servers:
    """Ends what it started, by its own handles; what it wrote is in `folder`."""

    def __init__(self, folder, rules):
        self.folder = pathlib.Path(folder)
        self.textfiles = self.folder / "textfiles"
        self.textfiles.mkdir()
        self.exporter = f"http://127.0.0.1:{free_port()}"
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        self.started = []
        self.config = self.folder / "prometheus.yml"
        self.config.write_text(
            json.dumps(  # JSON is YAML
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [
                        {
                            "job_name": "node",
                            "static_configs": [{"targets": [self.exporter.partition("//")[2]]}],
                        }
                    ],
                }
            )
        )

    def __enter__(self):
        try:
            self.start(
                "prometheus-node-exporter",
                "--web.listen-address=" + self.exporter.partition("//")[2],
                "--collector.disable-defaults",
                "--collector.meminfo",
                "--collector.textfile",
                f"--collector.textfile.directory={self.textfiles}",
            )
            self.start(
                "prometheus",
                f"--config.file={self.config}",
                f"--storage.tsdb.path={self.folder / 'tsdb'}",
                "--web.listen-address=" + self.prometheus.partition("//")[2],
            )
            wait_for("node_exporter answers", lambda: get(self.exporter + "/metrics"))
            wait_for("prometheus is ready", lambda: get(self.prometheus + "/-/ready"))
        except BaseException:
            self.stop()
            raise
        return self

    def start(self, *command):
        with open(self.folder / f"{command[0]}.log", "wb") as log:
            self.started.append(
                subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                 env=dict(os.environ, GOMAXPROCS="1"))
            )

    def stop(self):
        for server in self.started:
            server.terminate()
        for server in self.started:
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def __exit__(self, *_):
        self.stop()

    def api(self, path, **arguments):
        answer = json.loads(get(f"{self.prometheus}/api/v1/{path}?" + urllib.parse.urlencode(arguments)))
        if answer["status"] != "success":
            raise SystemExit(f"prometheus refuses {path} {arguments}: {answer}")
        return answer["data"]

    def query(self, expression):
        """{(name, labels without instance and job): value}"""
        series = {}
        for one in self.api("query", query=expression)["result"]:
            labels = dict(one["metric"])
            name = labels.pop("__name__", "")
            for label in ("instance", "job"):
                labels.pop(label, None)
            series[name, frozenset(labels.items())] = float(one["value"][1])
        return series
