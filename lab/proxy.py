"""Lets the bot on the host reach the probes inside the lab, and nothing else; without it the two would have no wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection


class ConnectProxy:
    """An HTTP CONNECT proxy to the given hosts at one port. Everything else is refused with 403."""

    def __init__(self, hosts: Collection[str], port: int) -> None:
        self._allowed = {f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts}

    async def start(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.start_server(self._serve, sock=listening)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        except (TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            writer.close()
            return
        if method != "CONNECT" or target not in self._allowed:
            await _refuse(writer, "403 Forbidden", "This proxy leads to the probes of the lab's nodes only.\n")
            return
        host, _, port = target.rpartition(":")
        try:
            async with asyncio.timeout(5):
                far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (TimeoutError, OSError) as error:
            await _refuse(writer, "502 Bad Gateway", f"{target}: {error or 'no answer'}\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _refuse(writer: asyncio.StreamWriter, status: str, why: str) -> None:
    body = why.encode()
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    writer.close()
