"""Pings every pod from every other; without it "the lab is up" would be a hope."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

from lab.topology import PodMachine

ECHO_REQUEST, ECHO_REPLY = 8, 0
TRIES = 3
PAUSE_S = 0.15


async def unanswered(pods: list[PodMachine], sockets: dict[str, socket.socket]) -> list[tuple[str, str]]:
    """The pairs (from, to) without an answer to three pings. `sockets`: a raw ICMP socket inside each pod."""
    addresses = {pod.record.full_name: pod.record.address for pod in pods}
    by_address = {address: name for name, address in addresses.items()}
    waiting = {(source, target) for source in sockets for target in addresses if source != target}
    number = int.from_bytes(os.urandom(2))
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def heard(name: str) -> None:
        while True:
            try:
                packet, (sender, *_) = sockets[name].recvfrom(2048)
            except BlockingIOError:
                return
            header = (packet[0] & 15) * 4
            kind, _, _, found, _ = struct.unpack_from("!BBHHH", packet, header)
            if kind == ECHO_REPLY and found == number:
                waiting.discard((name, by_address.get(sender, "")))
                if not waiting:
                    done.set()

    for name, one in sockets.items():
        loop.add_reader(one, heard, name)
    try:
        for _ in range(TRIES):
            for source, target in list(waiting):
                with contextlib.suppress(OSError):  # no route: it stays among the unanswered
                    sockets[source].sendto(_echo_request(number), (addresses[target], 0))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), PAUSE_S)
            if not waiting:
                break
    finally:
        for one in sockets.values():
            loop.remove_reader(one)
    return sorted(waiting)


def _echo_request(number: int) -> bytes:
    payload = b"calico-why lab.."
    header = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number, 1)
    total = sum(struct.unpack(f"!{len(header + payload) // 2}H", header + payload))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, ~total & 0xFFFF, number, 1) + payload
