"""Which kernel and which probe a node has and since when it runs; without it a node that has just started looks ill."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from facts import Fact, NodeAsk, NodeMachine
from facts.node_status import NEEDED
from node_probe.view import View

BITS = {"NET_ADMIN": 12, "NET_RAW": 13, "SYSLOG": 34, "SYS_ADMIN": 21, "SYS_PTRACE": 19}  # linux/capability.h


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """NodeMachine, where the node as a whole is asked about."""
    if ask.status:
        yield NodeMachine(
            node=ask.node,
            kernel=os.uname().release,
            uptime_s=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
            probe=version("calico-why"),
            capabilities=_capabilities(Path("/proc/self/status").read_text()),
        )


def _capabilities(status: str) -> tuple[str, ...]:
    """The effective ones of a process, from its /proc/PID/status."""
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return tuple(name for name in NEEDED if effective >> BITS[name] & 1)
