"""Keeps the real probe and the real fixer running on every node; without it the bot would meet empty nodes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.forkserver import COMMAND_LINE, Forkserver
from lab.namespaces import Namespace

RESTART_S = 1.0
STEADY_S = 10.0  # one that ran this long is restarted at once
PROBE_PORT = 9797
MODULES = {"probe": "node_probe.command", "fixer": "fixes.command"}


def available(word: str) -> bool:
    """Is there such a command in this installation?"""
    try:
        return all(importlib.util.find_spec(name) is not None for name in (COMMAND_LINE, MODULES[word]))
    except ModuleNotFoundError:
        return False


@dataclass
class Worker:
    """`calico-why WORD --node NODE` in the node's namespace, kept alive until the lab ends."""

    word: str
    node: str
    namespace: Namespace
    environment: Mapping[str, str]
    log: Path
    forkserver: Forkserver
    arguments: tuple[str, ...] = ()
    process: int = -1  # its pidfd; -1: none is there
    starts: int = 0

    async def run(self) -> None:
        """Never returns; to be cancelled."""
        pause = RESTART_S
        while True:
            began = time.monotonic()
            self.process = await asyncio.to_thread(self._start)
            self.starts += 1
            await _ended(self.process)
            os.close(self.process)
            self.process = -1
            pause = RESTART_S if time.monotonic() - began > STEADY_S else min(pause * 2, 30.0)
            await asyncio.sleep(pause)

    def _start(self) -> int:
        words = [self.word, "--node", self.node, *self.arguments]
        with self.log.open("ab") as log:
            return self.forkserver.start(words, environment=self.environment, namespace=self.namespace, log=log)

    @property
    def state(self) -> str:
        """running | ended"""
        if self.process < 0:
            return "ended"
        ended = select.poll()
        ended.register(self.process, select.POLLIN)
        return "ended" if ended.poll(0) else "running"


async def exit_status(process: subprocess.Popen[bytes]) -> int:
    """Waits for a child without a thread and without SIGCHLD."""
    descriptor = os.pidfd_open(process.pid)
    try:
        await _ended(descriptor)
    finally:
        os.close(descriptor)
    return process.wait()


async def _ended(process: int) -> None:
    """process: its pidfd"""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process)


async def wait_until_listening(addresses: list[str], port: int, seconds: float) -> list[str]:
    """The addresses that do not accept a connection within that time."""
    waiting = set(addresses)

    async def one(address: str) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(address, port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                waiting.discard(address)
                return

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(one(address) for address in addresses))
    return sorted(waiting)
