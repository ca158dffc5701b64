"""The lab's remote control, one JSON line each way over a unix socket; without it only the launcher could reach it.

A request is {"do": word, ...}. The answer is {"ok": result} or {"error": sentence, "status": number}. `exec` sends the
caller's stdin, stdout and stderr along (SCM_RIGHTS), takes {"signal": number} lines while the command runs, and answers
when it ended; a caller that hangs up ends the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lab.cluster import Cluster
from lab.errors import LabError
from lab.workers import exit_status

Request = dict[str, Any]
Handler = Callable[[Request], Awaitable[Any]]
REQUEST_LIMIT = 1 << 20


class Control:
    """Serves the control socket."""

    def __init__(self, cluster: Cluster, words: Mapping[str, Handler], log: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._words = words
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Never returns; to be cancelled."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listening)
            connection.setblocking(False)
            task = asyncio.create_task(self._converse(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _converse(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            request = await _receive(connection, descriptors)
            if request is None:
                return
            answer = await self._answer(request, connection, descriptors)
            await asyncio.get_running_loop().sock_sendall(connection, json.dumps(answer).encode() + b"\n")
        except (ConnectionError, ValueError) as error:
            self._log(f"control: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()

    async def _answer(self, request: Request, connection: socket.socket, descriptors: list[int]) -> dict[str, Any]:
        word = str(request.get("do", ""))
        try:
            if word == "exec":
                return {"ok": await self._exec(request, connection, descriptors)}
            if word not in self._words:
                raise LabError(f"This lab does not know {word!r}; it was started by another version.", 2)
            return {"ok": await self._words[word](request)}
        except LabError as error:
            return {"error": error.sentence, "status": error.status}
        except Exception as error:
            import traceback

            self._log(traceback.format_exc())
            return {"error": f"The lab could not do it: {error or type(error).__name__}.", "status": 3}

    async def _exec(self, request: Request, connection: socket.socket, descriptors: list[int]) -> int:
        """The exit status; 127 for a command that is not there, 128 + n for one that signal n ended."""
        if len(descriptors) != 3:
            raise LabError("exec needs the caller's stdin, stdout and stderr.", 2)
        kernel = self._cluster.place(str(request["place"]))
        argv = [str(part) for part in request["argv"]]
        directory = str(request.get("directory", "/"))
        try:
            process = await self._cluster.in_kernel(
                lambda: kernel.namespace.spawn(
                    argv,
                    environment=dict(request.get("environment", {})),
                    directory=directory if os.access(directory, os.X_OK) else "/",
                    stdin=descriptors[0],
                    stdout=descriptors[1],
                    stderr=descriptors[2],
                )
            )
        except (FileNotFoundError, PermissionError):
            # A directory of PATH that may not be entered makes "not found" look like "not allowed".
            if "/" in argv[0] and os.access(argv[0], os.F_OK):
                raise LabError(f"{argv[0]} cannot be executed.", 126) from None
            raise LabError(f"There is no command {argv[0]} on this machine.", 127) from None
        for descriptor in descriptors:
            os.close(descriptor)
        descriptors.clear()
        listener = asyncio.create_task(_obey(connection, process))
        try:
            status = await exit_status(process)
        finally:
            listener.cancel()
        return status if status >= 0 else 128 - status


async def _obey(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Passes the caller's signals on; the caller's end ends the command."""
    loop = asyncio.get_running_loop()
    buffer = b""
    while True:
        try:
            chunk = await loop.sock_recv(connection, 4096)
        except ConnectionError:
            chunk = b""
        *lines, buffer = (buffer + chunk).split(b"\n")
        numbers = [int(json.loads(line)["signal"]) for line in lines] if chunk else [int(signal.SIGKILL)]
        for number in numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        if not chunk:
            return


async def _receive(connection: socket.socket, descriptors: list[int]) -> Request | None:
    """One line and the file descriptors that came with it; None when the caller hung up."""
    loop = asyncio.get_running_loop()
    data = b""
    while not data.endswith(b"\n"):
        readable = asyncio.Event()
        loop.add_reader(connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(connection)
        try:
            chunk, sent, _, _ = socket.recv_fds(connection, 65536, 3)
        except BlockingIOError:
            continue
        descriptors += sent
        data += chunk
        if not chunk or len(data) > REQUEST_LIMIT:
            return None
    request = json.loads(data)
    if not isinstance(request, dict):
        raise ValueError("a request is a JSON object")
    return request
