"""Which kernel and which probe a node has and since when it runs; without it a node that has just started looks ill."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.metadata import version

from facts import Fact, NodeAsk, NodeMachine
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """NodeMachine, where the node as a whole is asked about."""
    if ask.status:
        yield NodeMachine(
            node=ask.node,
            kernel=os.uname().release,
            uptime_s=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
            probe=version("calico-why"),
        )
