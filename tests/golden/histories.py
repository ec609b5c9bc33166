# SPDX-License-Identifier: MIT
"""Histories for the tests, made from the SQL beside this file."""
import pathlib
import sqlite3

FOLDER = pathlib.Path(__file__).resolve().parent


def make(folder):
    """NAME.sql becomes folder/NAME.db."""
    for source in FOLDER.glob("*.sql"):
        connection = sqlite3.connect(pathlib.Path(folder) / f"{source.stem}.db")
        connection.executescript(source.read_text(encoding="utf-8"))
        connection.close()
