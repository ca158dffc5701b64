"""Pings every pod from every other; without it "the lab is up" would be a hope."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Mapping

PROTOCOLS = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}  # by family
ECHO = {4: (8, 0), 6: (128, 129)}  # request and reply
TRIES = 3
PAUSE_S = 0.1  # in which none was answered


async def unanswered(
    addresses: Mapping[str, str], sockets: Mapping[str, socket.socket], family: int
) -> set[tuple[str, str]]:
    """The pairs (from, to) without an answer to three pings.

    `addresses`: a pod's address of that family, by its name. `sockets`: a raw ICMP socket inside each pod.
    """
    request, reply = ECHO[family]
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
            header = (packet[0] & 15) * 4 if family == 4 else 0  # IPv6 keeps its own to itself
            kind, _, _, found, _ = struct.unpack_from("!BBHHH", packet, header)
            if kind == reply and found == number:
                waiting.discard((name, by_address.get(sender, "")))
                if not waiting:
                    done.set()

    for name, one in sockets.items():
        loop.add_reader(one, heard, name)
    try:
        for _ in range(TRIES):
            for source, target in list(waiting):
                with contextlib.suppress(OSError):  # no route: it stays among the unanswered
                    sockets[source].sendto(_echo_request(request, number), (addresses[target], 0))
            before = -1
            while waiting and len(waiting) != before:
                before = len(waiting)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), PAUSE_S)
            if not waiting:
                break
    finally:
        for one in sockets.values():
            loop.remove_reader(one)
    return waiting


def _echo_request(kind: int, number: int) -> bytes:
    """The kernel writes the checksum of an ICMPv6 message itself."""
    payload = b"calico-why lab.."
    header = struct.pack("!BBHHH", kind, 0, 0, number, 1)
    total = sum(struct.unpack(f"!{len(header + payload) // 2}H", header + payload))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return struct.pack("!BBHHH", kind, 0, ~total & 0xFFFF, number, 1) + payload
