"""A fixer that hangs in the middle of its change, to be killed there. Arguments: kubeconfig, record, before|after."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

from fixes.approvers import Approvers
from fixes.executor import Executor
from fixes.hands import NodeHands
from fixes.kernel import Kernel
from fixes.store import connect
from tests.fix_cluster import NAMESPACE


class Stuck(Kernel):
    """Writes down that it was called, and hangs before or after the change."""

    def __init__(self, record: Path, when: str) -> None:
        self._record = record
        self._when = when

    def replace_neighbor(self, device: str, address: str, mac: str) -> None:
        if self._when == "after":
            super().replace_neighbor(device, address, mac)
        with self._record.open("a") as file:
            file.write("executed\n")
        print("executed", flush=True)
        threading.Event().wait()


async def main(kubeconfig: str, record: str, when: str) -> None:
    async with connect(kubeconfig, NAMESPACE) as store:
        hands = NodeHands("node-a", Stuck(Path(record), when))
        await Executor(hands, store, Approvers(frozenset({"U0BO"}))).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
