"""Calico's own processes on this node, out of /proc; without it one that dies each second looks like a living one.

Needs the host's processes (hostPID). They are told to be this node's by their network namespace: calico-node runs in
the node's own, and so does the probe.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
OWN = PROC / "thread-self" / "ns" / "net"
TICKS = os.sysconf("SC_CLK_TCK")
PROGRAMS = ("calico-node", "calico-felix", "calico")  # one binary with many names: a word says what it is this time
# From 3.32 one process holds what several were before; the first of these is what hands out tunnel addresses.
ROLES = {
    "felix": ("felix",),
    "node-services": ("node-services", "allocate-tunnel-addrs"),
    "bird": ("bird",),
    "bird6": ("bird6",),
}


@dataclass(frozen=True, slots=True)
class Process:
    """One process. pid and started together are never given twice."""

    pid: int
    parent: int
    started: int  # clock ticks since boot
    arguments: tuple[str, ...]

    @property
    def age_s(self) -> float:
        """At this moment."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / TICKS

    @property
    def role(self) -> str:
        """What it does, a key of ROLES; "other" for another part of Calico, "" for what is none."""
        program = Path(self.arguments[0]).name if self.arguments else ""
        if program in ("bird", "bird6"):
            return program
        if program not in PROGRAMS:
            return ""
        words = {one.lstrip("-") for one in self.arguments[1:]}
        if program == "calico-felix":
            words.add("felix")
        return next((role for role, names in ROLES.items() if words & set(names)), "other")

    @property
    def supervises(self) -> str:
        """What a `runsv SERVICE` keeps running, a key of ROLES or any other word; "" for what is no runsv."""
        if len(self.arguments) != 2 or Path(self.arguments[0]).name != "runsv":
            return ""
        service = Path(self.arguments[1]).name
        return next((role for role, names in ROLES.items() if service in names), service)


def of_calico(proc: Path = PROC, own: Path = OWN) -> list[Process]:
    """Calico's processes, and what supervises them, in this network namespace."""
    here = own.stat().st_ino
    found = []
    for one in _all(proc):
        if not (one.role or one.supervises):
            continue
        try:
            if (proc / str(one.pid) / "ns" / "net").stat().st_ino == here:
                found.append(one)
        except OSError:  # it ended, or may not be looked into
            continue
    return found


def _all(proc: Path) -> Iterator[Process]:
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            arguments = tuple((directory / "cmdline").read_text(errors="replace").rstrip("\0").split("\0"))
            if not arguments[0]:  # the kernel's own
                continue
            # The name in parentheses may hold anything, so what follows is counted from the last one.
            fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        yield Process(int(directory.name), int(fields[1]), int(fields[19]), arguments)
