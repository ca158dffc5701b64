"""Echo in every pod, Felix's health port in every node; without it no port of the lab would answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

from lab.namespaces import Namespace

HEALTH_PORT = 9099
SHORTEST = 1  # a queue: with one more than this it is full
COMPONENTS = (("CalculationGraph", "30s"), ("FelixStartup", "-"), ("InternalDataplaneMainLoop", "1m30s"))


class TcpEcho:
    """Sends back what it gets."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @classmethod
    async def start(cls, listening: socket.socket) -> TcpEcho:
        return cls(await asyncio.start_server(_echo, sock=listening))

    def close(self) -> None:
        self._server.close()


class Stuck:
    """Takes no connection: as many wait as its kernel has room for."""

    def __init__(self, listening: socket.socket, namespace: Namespace, address: str) -> None:
        listening.listen(SHORTEST)
        self._sockets = [listening]
        for _ in range(SHORTEST + 1):
            with namespace.entered():
                client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect((address, listening.getsockname()[1]))
            self._sockets.append(client)

    def close(self) -> None:
        for one in self._sockets:
            one.close()


class UdpEcho(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def start(cls, bound: socket.socket) -> UdpEcho:
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(cls, sock=bound)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        if self._transport:
            self._transport.sendto(data, sender)

    def close(self) -> None:
        if self._transport:
            self._transport.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def start_felix_health(listening: socket.socket, ready: Callable[[], bool]) -> asyncio.Server:
    """GET /liveness and /readiness as a living Felix answers them, ready or not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _health(reader, writer, ready())

    return await asyncio.start_server(serve, sock=listening)


async def _health(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ready: bool) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].partition(b"?")[0] if head.count(b" ") >= 2 else b""
        if path in (b"/liveness", b"/readiness"):
            good = ready or path == b"/liveness"
            status, body = "200 OK" if good else "503 Service Unavailable", health_table(ready).encode()
        else:
            status, body = "404 Not Found", b"404 page not found\n"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
    writer.close()


def health_table(ready: bool = True) -> str:
    """The table of a Felix whose parts are all live, and ready but for the first where it is not."""
    heads = ("COMPONENT", "TIMEOUT", "LIVENESS", "READINESS", "DETAIL")
    rows = [(name, timeout, "reporting live", "reporting ready", "") for name, timeout in COMPONENTS]
    if not ready:
        rows[0] = (*rows[0][:3], "reporting non-ready", "")
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    line = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    centred = "|" + "|".join(f" {head:^{width}} " for head, width in zip(heads, widths, strict=True)) + "|"
    left = ["|" + "|".join(f" {cell:<{width}} " for cell, width in zip(row, widths, strict=True)) + "|" for row in rows]
    return "\n".join([line, centred, line, *left, line]) + "\n"
