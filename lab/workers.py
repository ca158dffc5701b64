"""Keeps the real probe and the real fixer running on every node; without it the bot would meet empty nodes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.namespaces import Namespace

RESTART_S = 1.0
STEADY_S = 10.0  # one that ran this long is restarted at once
PROBE_PORT = 9797
COMMAND_LINE = "bot.cli"
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
    in_kernel: Callable[..., Awaitable[Any]]
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    async def run(self) -> None:
        """Never returns; to be cancelled."""
        pause = RESTART_S
        while True:
            began = time.monotonic()
            with self.log.open("ab") as log:
                self.process = await self.in_kernel(self._start, log)
            self.starts += 1
            await exit_status(self.process)
            pause = RESTART_S if time.monotonic() - began > STEADY_S else min(pause * 2, 30.0)
            await asyncio.sleep(pause)

    def _start(self, log: Any) -> subprocess.Popen[bytes]:
        return self.namespace.spawn(
            [sys.executable, "-m", COMMAND_LINE, self.word, "--node", self.node, *self.arguments],
            environment=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    @property
    def state(self) -> str:
        """running | ended"""
        return "running" if self.process is not None and self.process.poll() is None else "ended"


async def exit_status(process: subprocess.Popen[bytes]) -> int:
    """Waits for a child without a thread and without SIGCHLD."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


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
