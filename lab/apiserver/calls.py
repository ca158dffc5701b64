"""Writes down what ServiceAccounts ask of an API server, where somebody wants to know; without it nobody could tell
whether what deploy/ grants is what is used."""

from __future__ import annotations

import functools
import json
import os
import secrets
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from lab.apiserver.access import Call
from lab.apiserver.rbac import ACCOUNTS

CALLS = "CALICO_WHY_LAB_CALLS"  # directory where each process that serves an API writes a file
NOW = "now"  # a file there: what is going on at present, where somebody says so


class Outcome(StrEnum):
    """What the grants of the caller say, whatever else was denied to it."""

    GRANTED = "granted"
    TRIED = "tried"  # not granted, and only asked whether it would be written (dryRun)
    REFUSED = "refused"


class Noted(NamedTuple):
    """One call as it is written down, a line of JSON each. during: what was going on when it was refused."""

    verb: str
    group: str
    resource: str
    subresource: str
    user: str
    namespace: str
    name: str
    outcome: str
    during: str

    @property
    def call(self) -> Call:
        return Call(*self[:7])


class Calls:
    """Of one process. Each call is written once; one that is refused, once of each thing that goes on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: set[Noted] = set()
        self._file = -1

    def note(self, call: Call, outcome: Outcome) -> None:
        """Raises OSError where it cannot be written."""
        if not call.user.startswith(ACCOUNTS):
            return
        noted = Noted(*call, outcome, "" if outcome is Outcome.GRANTED else self._now())
        if noted in self._seen:
            return
        self._seen.add(noted)
        if self._file < 0:
            path = self._directory / f"{secrets.token_hex(8)}.calls"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(self._file, json.dumps(noted).encode() + b"\n")

    def _now(self) -> str:
        try:
            return (self._directory / NOW).read_text()
        except FileNotFoundError:
            return ""


@functools.cache
def in_directory(directory: str) -> Calls | None:
    """None for "": nobody wants to know."""
    return Calls(Path(directory)) if directory else None


def read(directory: Path) -> set[Noted]:
    """Of all processes, in this directory and below it."""
    return {Noted(*json.loads(line)) for path in directory.rglob("*.calls") for line in path.read_text().splitlines()}
